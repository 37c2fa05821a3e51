"""Scores of one model on one benchmark: zero-shot as in the paper, or one of the control classifiers.

Zero-shot uses only the class prompts. An image's score for a class is its cosine similarity with the normalised mean of
the class's normalised prompt embeddings, scored once, as SkyScript's authors do. How models compare belongs to
`scoreboard`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.benchmarks.controls import metadata_scores, probe_scores
from skyscript_assets.lib.benchmarks.features import benchmark_features
from skyscript_assets.lib.benchmarks.intervals import Figure, ScoredItems, intervals, mean_over_classes
from skyscript_assets.lib.benchmarks.items import (
    BENCHMARK_FILE,
    CAPTIONS_FILE,
    CAPTIONS_SCHEMA,
    SCORES_FILE,
    BenchmarkSpec,
    ClassScores,
    Scores,
    clusters_of,
    read_items,
    read_model,
    truth_matrix,
    write_model,
    write_scored,
)
from skyscript_assets.lib.benchmarks.kind import BenchmarkKind, benchmark_kind
from skyscript_assets.lib.benchmarks.metrics import (
    RECALL_AT,
    Array,
    Draws,
    Floats,
    average_precision,
    roc_auc,
    top1_credit,
    wrong_before,
)
from skyscript_assets.lib.captions.grammar import listed
from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import CAPTION_PREFIX
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.model import ClipModel, normalised

RecipeKind = Literal["none", "align", "clip", "metadata-only", "linear-probe"]


@dataclass(frozen=True)
class _Data:
    """A benchmark as it is scored: description, items of every split without images, and their classes."""

    folder: Path
    spec: BenchmarkSpec
    items: pa.Table
    truth: BoolArray

    def rows(self, split: str) -> NDArray[np.bool_]:
        return np.asarray(np.array(self.items["split"].to_pylist()) == split)

    @property
    def kind(self) -> BenchmarkKind[Any]:
        return benchmark_kind(self.spec.kind)

    @property
    def test_truth(self) -> BoolArray:
        return self.truth[self.rows("test")]


@dataclass(frozen=True)
class _Result:
    """What a way of scoring gives: class scores of the test items, and what only that way can tell."""

    scores: Floats
    credit: Array | None
    protocol: str
    figures: dict[str, float] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    retrieval_texts: int = 0
    retrieval_images: int = 0


def evaluate(
    benchmark: str,
    data_folder: Path,
    encoder: ClipModel | None,
    recipe_kind: RecipeKind,
    cache_dir: Path,
    bootstrap: int,
    out: Path,
    progress: Progress = silent,
) -> Scores:
    """Score a model on a benchmark and write `scores.json` and `items.parquet`.

    `metadata-only`, which sees no pixel and needs no encoder, and `linear-probe` are controls taught with train
    windows; every other recipe is scored zero-shot. Image features are kept in `cache_dir` between models that share a
    frozen tower.

    Raises:
        UpstreamMissingError: the benchmark was not built.
        SettingsError: no installed package has its kind.
        CorruptInputError: its tables are broken, or the model gives numbers that are not finite.
        TooLittleDataError: the benchmark has no test items, no class with positives and negatives among them, or a
            control has no train items to learn from.
    """
    spec = read_model(data_folder / BENCHMARK_FILE, BenchmarkSpec)
    items = read_items(data_folder)
    truth = truth_matrix(items["truth"].to_pylist(), [cls.name for cls in spec.classes])
    data = _Data(data_folder, spec, items, truth)
    _check_enough(benchmark, data, recipe_kind)
    if recipe_kind == "metadata-only":
        result = _with_credit(data, metadata_scores(items, truth), "taught with size, GSD, region and source")
    elif encoder is None:
        raise ValueError(f"recipe {recipe_kind} needs an encoder")
    elif recipe_kind == "linear-probe":
        result = _probe(data, encoder, cache_dir, progress)
    else:
        of_labels = _captions if data.kind.labels == "captions" else _zero_shot
        result = of_labels(data, encoder, cache_dir, progress)
    if not np.isfinite(result.scores).all():
        raise CorruptInputError(f"the model's scores on {benchmark} are not finite: its training diverged")
    test = items.filter(pa.array(data.rows("test")))
    scored = ScoredItems(
        item_ids=tuple(test["item_id"].to_pylist()),
        clusters=clusters_of(test),
        truth=data.test_truth,
        scores=result.scores.astype(np.float32),
        credit=result.credit,
    )
    of_kind = _multi_label if result.credit is None else _single_label if spec.classes else _without_classes
    overall, by_class = of_kind(scored, bootstrap)
    scores = Scores(
        benchmark=benchmark,
        title=spec.title,
        kind=spec.kind,
        synthetic=spec.synthetic,
        recipe=recipe_kind,
        classification_protocol=result.protocol,
        primary=data.kind.primary,
        items=len(scored.item_ids),
        train_items=int(data.rows("train").sum()),
        clusters=len(set(scored.clusters)),
        clustered_by="cell" if test["cell"].null_count == 0 else "item",
        bootstrap_samples=bootstrap,
        figures=overall | {name: Figure(value=value).rounded() for name, value in result.figures.items()},
        by_source=_by_source(scored, test),
        notes=result.notes,
        retrieval_texts=result.retrieval_texts,
        retrieval_images=result.retrieval_images,
        classes=tuple(
            ClassScores(name=cls.name, text=cls.text, positives=int(positives), figures=of_class)
            for cls, positives, of_class in zip(spec.classes, scored.truth.sum(axis=0), by_class, strict=True)
        ),
    )
    write_scored(out, test, scored)
    write_model(out / SCORES_FILE, scores)
    return scores


def _check_enough(benchmark: str, data: _Data, recipe_kind: RecipeKind) -> None:
    truth = data.test_truth
    if data.kind.labels != "captions" and not (truth.any(axis=0) & ~truth.all(axis=0)).any():
        raise TooLittleDataError(
            f"benchmark {benchmark}: of {len(truth)} test items none, or all, show each class; nothing can be told "
            "apart: use larger regions or other classes"
        )
    if recipe_kind in ("metadata-only", "linear-probe") and not data.rows("train").any():
        raise TooLittleDataError(
            f"benchmark {benchmark} has no train items to teach the {recipe_kind} control with: "
            "leave it out of `benchmarks` of that model in models.yaml"
        )


def class_embeddings(prompts: Sequence[Floats]) -> Floats:
    """The classifier of several prompts: each embedding normalised, their mean normalised again, [classes, E]."""
    return normalised(np.mean([normalised(prompt) for prompt in prompts], axis=0))


def _zero_shot(data: _Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> _Result:
    images = _images(data, encoder, cache_dir, progress)
    words = [cls.text for cls in data.spec.classes]
    filled = ([prompt.replace("{c}", text) for text in words] for prompt in data.spec.prompts)
    prompts = [encoder.encode_texts(texts) for texts in filled]
    scores = images @ class_embeddings(prompts).T
    protocol = f"zero-shot, {len(prompts)} prompts, normalised mean of their embeddings"
    if data.kind.labels == "one":
        labels = data.test_truth.argmax(axis=1)
        by_prompt = [float(top1_credit(images @ normalised(prompt).T, labels).mean()) for prompt in prompts]
        figures = {f"top1_prompt_{i + 1}": accuracy for i, accuracy in enumerate(by_prompt)}
        figures["top1_mean_of_prompts"] = float(np.mean(by_prompt))
        return _Result(scores, top1_credit(scores, labels), protocol, figures)
    return _retrieval(data, encoder, images, _Result(scores, None, protocol))


def _images(data: _Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> Floats:
    features = benchmark_features(data.folder, data.spec, "test", encoder, cache_dir, progress)
    return normalised(encoder.project_image(features))


def _probe(data: _Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> _Result:
    features = {
        split: benchmark_features(data.folder, data.spec, split, encoder, cache_dir, progress)
        for split in ("train", "val", "test")
    }
    taught, chosen_by = ((features[split], data.truth[data.rows(split)]) for split in ("train", "val"))
    scores, strength = probe_scores(taught, chosen_by, features["test"])
    result = _with_credit(data, scores, "taught with frozen features of train items")
    return replace(result, notes={"inverse_penalty": strength})


def _with_credit(data: _Data, scores: Floats, protocol: str) -> _Result:
    """Scores of a control; where each item has one label, with the credit for putting it first."""
    credit = top1_credit(scores, data.test_truth.argmax(axis=1)) if data.kind.labels == "one" else None
    return _Result(scores, credit, protocol)


def _retrieval(data: _Data, encoder: ClipModel, images: Floats, result: _Result) -> _Result:
    """Retrieval between windows and the distinct sets of classes they show, every matching item a hit, both ways.

    A window that shows no class has no text and takes no part.
    """
    truth = data.test_truth
    shown = truth.any(axis=1)
    sets, member = np.unique(truth[shown], axis=0, return_inverse=True)
    words = [cls.text for cls in data.spec.classes]
    texts = [CAPTION_PREFIX + listed([word for word, there in zip(words, row, strict=True) if there]) for row in sets]
    matches = csr_array(np.eye(len(sets), dtype=bool)[member.ravel()])
    figures, _ = _both_ways(images[shown], normalised(encoder.encode_texts(texts)), matches)
    return replace(result, figures=figures, retrieval_texts=len(texts), retrieval_images=int(shown.sum()))


def _captions(data: _Data, encoder: ClipModel, cache_dir: Path, progress: Progress) -> _Result:
    """Retrieval between images and the captions that are true of them, each counted once."""
    pairs = read_table(data.folder / CAPTIONS_FILE, CAPTIONS_SCHEMA)
    place = {item: i for i, item in enumerate(data.items["item_id"].to_pylist())}
    rows = [place[item] for item in pairs["item_id"].to_pylist()]
    texts, member = np.unique(np.array(pairs["caption"].to_pylist(), dtype=object), return_inverse=True)
    shape = (len(place), len(texts))
    matches = csr_array((np.ones(len(rows), dtype=bool), (rows, member)), shape=shape)
    images = _images(data, encoder, cache_dir, progress)
    figures, credit = _both_ways(images, normalised(encoder.encode_texts(texts.tolist())), matches)
    protocol = "zero-shot retrieval, unique images and captions, any match in the top 1, 5, 10"
    return _Result(np.zeros((len(place), 0)), credit, protocol, figures, {}, len(texts), len(place))


def _both_ways(images: Floats, texts: Floats, matches: csr_array) -> tuple[dict[str, float], Array]:
    """Recalls of both directions, and of each image its share in the mean of all six."""
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


ByClass = list[dict[str, Figure]]


def _multi_label(scored: ScoredItems, samples: int) -> tuple[dict[str, Figure], ByClass]:
    """Mean AUC, mean average precision, and both for each class, with their intervals."""

    def statistic(draws: Draws) -> Array:
        auc = roc_auc(scored.truth, scored.scores, draws)
        ap = average_precision(scored.truth, scored.scores, draws)
        return np.hstack([mean_over_classes(auc)[:, None], mean_over_classes(ap)[:, None], auc, ap])

    mean_auc, mean_ap, *rest = (figure.rounded() for figure in intervals(scored.clusters, samples, statistic))
    aucs, aps = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    by_class = [{"auc": auc, "ap": ap} for auc, ap in zip(aucs, aps, strict=True)]
    return {"mean_auc": mean_auc, "mean_ap": mean_ap}, by_class


def _single_label(scored: ScoredItems, samples: int) -> tuple[dict[str, Figure], ByClass]:
    """Top-1 accuracy, mean recall over classes, and the recall of each class, with their intervals."""

    def statistic(draws: Draws) -> Array:
        recall = scored.class_recall(draws)
        return np.hstack([scored.primary(draws)[:, None], mean_over_classes(recall)[:, None], recall])

    top1, mean_recall, *recalls = (figure.rounded() for figure in intervals(scored.clusters, samples, statistic))
    return {"top1": top1, "mean_per_class_recall": mean_recall}, [{"recall": recall} for recall in recalls]


def _without_classes(scored: ScoredItems, samples: int) -> tuple[dict[str, Figure], ByClass]:
    """The mean of the six recalls with its interval over images."""
    (figure,) = intervals(scored.clusters, samples, lambda draws: scored.primary(draws)[:, None])
    return {"mean_recall": figure.rounded()}, []


def _by_source(scored: ScoredItems, test: pa.Table) -> dict[str, Figure]:
    """The primary figure on each source's items alone, where a guess by source is worth nothing."""
    sources, member = np.unique([source or "" for source in test["source"].to_pylist()], return_inverse=True)
    of_each = scored.primary(Draws(member, np.eye(len(sources)))).tolist()
    known = zip(sources.tolist(), of_each, strict=True)
    return {source: Figure(value=value).rounded() for source, value in known if source}
