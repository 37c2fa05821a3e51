"""Ways of scoring: zero-shot as in the paper, on one of three tracks, or one of the control classifiers.

Zero-shot uses only the class prompts. An image's score for a class is its cosine similarity with the normalised mean of
the class's normalised prompt embeddings, scored once, as SkyScript's authors do. What becomes of the scores belongs to
`evaluate`.

Track `prompt-ensemble` takes more prompts than the paper's. `transductive` sees all test images before it scores one:
embeddings of images and of texts are centred, each on their own mean (first step of Mu and Viswanath 2018, arXiv
1702.01417), which also closes the gap between the two (Liang et al. 2022, arXiv 2203.02053).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.benchmarks.captioning import captioner_figures
from skyscript_assets.lib.benchmarks.controls import metadata_scores, probe_scores
from skyscript_assets.lib.benchmarks.features import benchmark_features
from skyscript_assets.lib.benchmarks.items import CAPTIONS_FILE, CAPTIONS_SCHEMA, BenchmarkSpec
from skyscript_assets.lib.benchmarks.kind import BenchmarkKind, benchmark_kind
from skyscript_assets.lib.benchmarks.metrics import (
    RECALL_AT,
    Array,
    Floats,
    calibration_error,
    reliability,
    top1_credit,
    wrong_before,
)
from skyscript_assets.lib.captions.grammar import listed
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.settings.base import CAPTION_PREFIX
from skyscript_assets.lib.settings.benchmarks import Track
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.model import ClipModel, normalised

RecipeKind = Literal["none", "align", "clip", "metadata-only", "linear-probe"]
TAUGHT: tuple[RecipeKind, ...] = ("metadata-only", "linear-probe")
"""Recipes of the controls, which learn from train items."""

TOLD = {"plain": "", "prompt-ensemble": "; prompt ensemble", "transductive": "; transductive, centred on the test set"}
"""What a track adds to a protocol."""


@dataclass(frozen=True)
class Data:
    """A benchmark as it is scored: description, items of every split without images, their classes, and the track."""

    folder: Path
    spec: BenchmarkSpec
    items: pa.Table
    truth: BoolArray
    track: Track
    prompts: tuple[str, ...]

    def rows(self, split: str) -> NDArray[np.bool_]:
        """Which items are of a split."""
        return np.asarray(np.array(self.items["split"].to_pylist()) == split)

    @property
    def kind(self) -> BenchmarkKind[Any]:
        """The benchmark's kind."""
        return benchmark_kind(self.spec.kind)

    @property
    def test_truth(self) -> BoolArray:
        """Classes of the test items."""
        return self.truth[self.rows("test")]

    def placed(self, unit: Floats) -> Floats:
        """Embeddings of length one as the track compares them."""
        return normalised(unit - unit.mean(axis=0)) if self.track == "transductive" else unit


@dataclass(frozen=True)
class Result:
    """What a way of scoring gives: class scores of the test items, and what only that way can tell."""

    scores: Floats
    credit: Array | None
    protocol: str
    figures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    retrieval_texts: int = 0
    retrieval_images: int = 0


def takes_part(labels: str, recipe_kind: RecipeKind, track: Track) -> bool:
    """Whether a recipe has a place on a track: controls are taught, and captions stand in no prompt."""
    return track == "plain" or not (recipe_kind in TAUGHT or (labels == "captions" and track == "prompt-ensemble"))


def score(data: Data, encoder: ClipModel | None, recipe_kind: RecipeKind, cache: Path, progress: Progress) -> Result:
    """Score the test items. Arguments and errors are those of `evaluate`."""
    if recipe_kind == "metadata-only":
        scores = metadata_scores(data.items, data.truth)
        return _with_credit(data, Result(scores, None, "taught with size, GSD, region and source"), 1.0)
    if encoder is None:
        raise ValueError(f"recipe {recipe_kind} needs an encoder")
    if recipe_kind == "linear-probe":
        return _probe(data, encoder, cache, progress)
    of_labels = _captions if data.kind.labels == "captions" else _zero_shot
    return of_labels(data, encoder, cache, progress)


def class_embeddings(prompts: Sequence[Floats]) -> Floats:
    """The classifier of several prompts: each embedding normalised, their mean normalised again, [classes, E]."""
    return normalised(np.mean([normalised(prompt) for prompt in prompts], axis=0))


def _zero_shot(data: Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> Result:
    images = _images(data, encoder, cache_dir, progress)
    words = [cls.text for cls in data.spec.classes]
    filled = ([prompt.replace("{c}", text) for text in words] for prompt in data.prompts)
    prompts = [encoder.encode_texts(texts) for texts in filled]
    scores = images @ data.placed(class_embeddings(prompts)).T
    protocol = f"zero-shot, {len(prompts)} prompts, normalised mean of their embeddings{TOLD[data.track]}"
    if data.kind.labels == "one":
        labels = data.test_truth.argmax(axis=1)
        alone = [top1_credit(images @ data.placed(normalised(prompt)).T, labels) for prompt in prompts]
        by_prompt = [float(credit.mean()) for credit in alone]
        figures = {f"top1_prompt_{i + 1}": accuracy for i, accuracy in enumerate(by_prompt)}
        figures["top1_mean_of_prompts"] = float(np.mean(by_prompt))
        return _with_credit(data, Result(scores, None, protocol, figures), encoder.logit_scale)
    return _retrieval(data, encoder, images, Result(scores, None, protocol))


def _images(data: Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> Floats:
    features = benchmark_features(data.folder, data.spec, "test", encoder, cache_dir, progress)
    return data.placed(normalised(encoder.project_image(features)))


def _probe(data: Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> Result:
    features = {
        split: benchmark_features(data.folder, data.spec, split, encoder, cache_dir, progress)
        for split in ("train", "val", "test")
    }
    taught, chosen_by = ((features[split], data.truth[data.rows(split)]) for split in ("train", "val"))
    scores, strength = probe_scores(taught, chosen_by, features["test"])
    result = Result(scores, None, "taught with frozen features of train items", notes={"inverse_penalty": strength})
    return _with_credit(data, result, 1.0)


def _with_credit(data: Data, result: Result, scale: float) -> Result:
    """Where each item has one label, the credit for putting it first, and the calibration of scores times a scale."""
    if data.kind.labels != "one":
        return result
    credit = top1_credit(result.scores, data.test_truth.argmax(axis=1))
    ece = calibration_error(reliability(result.scores, scale, credit))
    notes = result.notes | {"logit_scale": scale}
    return replace(result, credit=credit, figures=result.figures | {"ece": ece}, notes=notes)


def _retrieval(data: Data, encoder: ClipModel, images: Floats, result: Result) -> Result:
    """Retrieval between windows and the distinct sets of classes they show, every matching item a hit, both ways.

    A window that shows no class has no text and takes no part.
    """
    truth = data.test_truth
    shown = truth.any(axis=1)
    sets, member = np.unique(truth[shown], axis=0, return_inverse=True)
    words = [cls.text for cls in data.spec.classes]
    texts = [CAPTION_PREFIX + listed([word for word, there in zip(words, row, strict=True) if there]) for row in sets]
    matches = csr_array(np.eye(len(sets), dtype=bool)[member.ravel()])
    figures, _ = _both_ways(images[shown], data.placed(normalised(encoder.encode_texts(texts))), matches)
    return replace(result, figures=figures, retrieval_texts=len(texts), retrieval_images=int(shown.sum()))


def _captions(data: Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> Result:
    """Retrieval between images and the captions that are true of them, each counted once; and as a captioner."""
    pairs = read_table(data.folder / CAPTIONS_FILE, CAPTIONS_SCHEMA)
    place = {item: i for i, item in enumerate(data.items["item_id"].to_pylist())}
    rows = [place[item] for item in pairs["item_id"].to_pylist()]
    texts, member = np.unique(np.array(pairs["caption"].to_pylist(), dtype=object), return_inverse=True)
    shape = (len(place), len(texts))
    matches = csr_array((np.ones(len(rows), dtype=bool), (rows, member)), shape=shape)
    images = _images(data, encoder, cache_dir, progress)
    embedded = data.placed(normalised(encoder.encode_texts(texts.tolist())))
    figures, credit = _both_ways(images, embedded, matches)
    figures |= captioner_figures(images, embedded, texts.tolist(), matches)
    protocol = f"zero-shot retrieval, unique images and captions, any match in the top 1, 5, 10{TOLD[data.track]}"
    return Result(np.zeros((len(place), 0)), credit, protocol, figures, {}, len(texts), len(place))


def _both_ways(images: Floats, texts: Floats, matches: csr_array) -> tuple[dict[str, float], Array]:
    """Recalls of both directions, and of each image its share in the mean of all six."""
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        # Nothing is ranked before what is no number: every recall would be one.
        raise CorruptInputError("the model's embeddings are not finite: its training diverged")
    figures: dict[str, float] = {}
    shares = []
    for name, before in (
        ("i2t", wrong_before(images, texts, matches)),
        ("t2i", wrong_before(texts, images, csr_array(matches.T))),
    ):
        hits = before[:, None] < np.array(RECALL_AT)
        figures |= {f"{name}_r{k}": float(recall) for k, recall in zip(RECALL_AT, hits.mean(axis=0), strict=True)}
        figures[f"{name}_mean_recall"] = float(hits.mean())
        shares.append(hits.mean(axis=1))
    # The hits of a caption are shared out over its images, so that the mean over images is that over captions.
    of_texts = matches @ (shares[1] / matches.sum(axis=0)) * (len(images) / len(texts))
    return figures, (shares[0] + of_texts) / 2
