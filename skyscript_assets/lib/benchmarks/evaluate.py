"""Scores of one model on one benchmark: its figures with their intervals, and what it gave each item.

How items are scored belongs to `scoring`, how models compare to `scoreboard`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.benchmarks.intervals import Figure, ScoredItems, intervals, mean_over_classes
from skyscript_assets.lib.benchmarks.items import (
    BENCHMARK_FILE,
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
from skyscript_assets.lib.benchmarks.metrics import Array, Draws, average_precision, roc_auc
from skyscript_assets.lib.benchmarks.scoring import TAUGHT, Data, RecipeKind, score, takes_part
from skyscript_assets.lib.errors import CorruptInputError, SettingsError, TooLittleDataError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.benchmarks import Track
from skyscript_assets.lib.towers.model import ClipModel


def evaluate(
    benchmark: str,
    data_folder: Path,
    encoder: ClipModel | None,
    recipe_kind: RecipeKind,
    cache_dir: Path,
    bootstrap: int,
    out: Path,
    progress: Progress = silent,
    track: Track = "plain",
    ensemble: Sequence[str] = (),
) -> Scores:
    """Score a model on a benchmark, on a track of `scoring`, and write `scores.json` and `items.parquet`.

    The recipes `metadata-only`, which sees no pixel and needs no `encoder`, and `linear-probe` are controls taught with
    train windows; every other one is scored zero-shot. `cache_dir` keeps image features between models that share a
    frozen tower, `bootstrap` are the samples of an interval. `ensemble` are texts with `{c}` that the track
    `prompt-ensemble` takes in place of the benchmark's own.

    Raises:
        UpstreamMissingError: the benchmark was not built.
        SettingsError: no installed package has its kind, or the track has no place for it.
        CorruptInputError: its tables are broken, or the model gives numbers that are not finite.
        TooLittleDataError: the benchmark has no test items, no class with positives and negatives among them, or a
            control has no train items to learn from.
    """
    spec = read_model(data_folder / BENCHMARK_FILE, BenchmarkSpec)
    items = read_items(data_folder)
    truth = truth_matrix(items["truth"].to_pylist(), [cls.name for cls in spec.classes])
    prompts = tuple(ensemble) if track == "prompt-ensemble" else spec.prompts
    data = Data(data_folder, spec, items, truth, track, prompts)
    _check_enough(benchmark, data, recipe_kind)
    result = score(data, encoder, recipe_kind, cache_dir, progress)
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


def _check_enough(benchmark: str, data: Data, recipe_kind: RecipeKind) -> None:
    truth = data.test_truth
    if not takes_part(data.kind.labels, recipe_kind, data.track):
        raise SettingsError(f"benchmark {benchmark}, recipe {recipe_kind}: has no prompts for track {data.track}")
    if data.kind.labels != "captions" and not (truth.any(axis=0) & ~truth.all(axis=0)).any():
        raise TooLittleDataError(
            f"benchmark {benchmark}: of {len(truth)} test items none, or all, show each class; nothing can be told "
            "apart: use larger regions or other classes"
        )
    if recipe_kind in TAUGHT and not data.rows("train").any():
        raise TooLittleDataError(
            f"benchmark {benchmark} has no train items to teach the {recipe_kind} control with: "
            "leave it out of `benchmarks` of that model in models.yaml"
        )


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
