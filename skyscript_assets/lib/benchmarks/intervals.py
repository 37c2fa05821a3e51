"""Bootstrap intervals: cells of ground are drawn with replacement, never single windows of one cell.

Windows of one cell show the same streets and roofs, so they are no independent samples (cluster bootstrap: Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Items without a cell stand for themselves.
Compared models are drawn together: the same samples for both, which leaves the difference alone (paired interval).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.benchmarks.metrics import Bools, Floats, class_means, roc_auc
from skyscript_assets.lib.errors import CorruptInputError

CONFIDENCE = 0.95
"""Share of the bootstrap's samples inside an interval."""

MAX_WEIGHTS = 4_000_000
"""Item weights held at once (32 MB): more samples are drawn in several rounds."""

Statistic = Callable[[Floats], NDArray[np.float64]]
"""Figures of weighted items: [samples, items] to [samples, ...]."""


@dataclass(frozen=True)
class ScoredItems:
    """What a model gave the test items of a benchmark.

    Attributes:
        item_ids: Ids of the items.
        clusters: What is drawn together by the bootstrap: the item's cell, or its id where it has none.
        truth: Which items have which class, [items, classes].
        scores: Class scores, [items, classes].
        credit: Single-label benchmarks: share of the prompts with which the item was classified right, [items].
    """

    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    truth: Bools
    scores: Floats
    credit: NDArray[np.float64] | None = None

    def primary(self, weights: Floats) -> NDArray[np.float64]:
        """The benchmark's first figure for each row of weights: mean AUC over classes, or top-1 accuracy."""
        if self.credit is not None:
            return np.asarray(weights @ self.credit / weights.sum(axis=1), dtype=np.float64)
        return mean_over_classes(roc_auc(self.truth, self.scores, weights))

    def class_recall(self, weights: Floats) -> NDArray[np.float64]:
        """Recall of each class of a single-label benchmark, [samples, classes]."""
        assert self.credit is not None
        return class_means(self.credit, self.truth.argmax(axis=1), self.truth.shape[1], weights)


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % bootstrap interval.

    Attributes:
        value: The figure on the items as they are.
        low: Lower end, None where fewer than two clusters leave nothing to draw.
        high: Upper end, likewise.
    """

    value: float
    low: float | None
    high: float | None


def mean_over_classes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of the classes that have a value; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=-1))


def bootstrap(clusters: Sequence[str], samples: int, statistic: Statistic, seed: int = 0) -> NDArray[np.float64]:
    """Draw clusters with replacement and compute the figures of each draw.

    Args:
        clusters: Cluster of each item.
        samples: Number of draws.
        statistic: Figures of weighted items.
        seed: Seed of the draws: equal clusters, samples and seed give equal draws.

    Returns:
        [samples, ...].
    """
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    rng = np.random.default_rng(seed)
    rounds = []
    step = max(1, MAX_WEIGHTS // len(member))
    for start in range(0, samples, step):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(step, samples - start))
        rounds.append(statistic(drawn[:, member].astype(np.float64)))
    return np.concatenate(rounds)


def intervals(clusters: Sequence[str], samples: int, statistic: Statistic, seed: int = 0) -> list[Interval]:
    """A figure's or several figures' percentile intervals.

    Args:
        clusters: Cluster of each item.
        samples: Number of bootstrap samples.
        statistic: Figures of weighted items, [samples, items] to [samples, figures].
        seed: Seed of the draws.

    Returns:
        One interval for each figure.
    """
    values = statistic(np.ones((1, len(clusters))))[0]
    if len(set(clusters)) < 2:
        return [Interval(float(value), None, None) for value in values]
    tail = 100 * (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ends = np.nanpercentile(bootstrap(clusters, samples, statistic, seed), [tail, 100 - tail], axis=0)
    return [
        Interval(float(value), *(None if np.isnan(end) else float(end) for end in pair))
        for value, pair in zip(values, ends.T, strict=True)
    ]


def group_interval(group: Sequence[ScoredItems], samples: int, seed: int = 0) -> Interval:
    """The median over a group's seeds of the primary figure, with the median taken inside each bootstrap sample."""
    _check_same_items(group)
    return intervals(group[0].clusters, samples, lambda weights: _median(group, weights)[:, None], seed)[0]


def paired_interval(
    group: Sequence[ScoredItems], against: Sequence[ScoredItems], samples: int, seed: int = 0
) -> Interval:
    """The difference of two groups' primary figures: median over the seeds of one less that of the other.

    Both medians are taken inside each bootstrap sample, of the same draw of cells.

    Args:
        group: Models that should be better; they differ in their seed alone.
        against: Models they are compared with.
        samples: Number of bootstrap samples.
        seed: Seed of the draws.

    Raises:
        CorruptInputError: the models were scored on different items.
    """
    _check_same_items([*group, *against])

    def difference(weights: Floats) -> NDArray[np.float64]:
        return (_median(group, weights) - _median(against, weights))[:, None]

    return intervals(group[0].clusters, samples, difference, seed)[0]


def _median(group: Sequence[ScoredItems], weights: Floats) -> NDArray[np.float64]:
    return np.asarray(np.median([items.primary(weights) for items in group], axis=0))


def _check_same_items(models: Sequence[ScoredItems]) -> None:
    first = models[0]
    for other in models[1:]:
        same = (other.item_ids, other.clusters) == (first.item_ids, first.clusters)
        if not same or not np.array_equal(other.truth, first.truth):
            raise CorruptInputError(
                "compared models were scored on different items: materialize their benchmark_scores again"
            )
