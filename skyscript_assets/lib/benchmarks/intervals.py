"""Bootstrap intervals: cells of ground are drawn with replacement, never single windows of one cell.

Windows of one cell show the same streets and roofs, so they are no independent samples (cluster bootstrap: Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Items without a cell stand for themselves.
Compared models are drawn together: the same samples for both, which leaves the difference alone (paired interval).
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.benchmarks.metrics import Array, Draws, Floats, class_means, roc_auc
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.settings.base import Model

CONFIDENCE = 0.95
"""Share of the intervals that hold what they are of, as far as samples of so few clusters can tell."""

MAX_COUNTS = 4_000_000
"""Draws of a cluster held at once (32 MB): more samples are drawn in several rounds."""

Statistic = Callable[[Draws], Array]
"""Figures of samples of items: [samples, figures]."""


@dataclass(frozen=True)
class ScoredItems:
    """What a model gave the test items of a benchmark.

    Attributes:
        clusters: What is drawn together by the bootstrap: the item's cell, or its id where it has none.
        truth: Which items have which class, [items, classes].
        scores: Class scores, [items, classes].
        credit: What an item adds to the mean that is the first figure, [items]: 1 where it was classified right, or its
            share in the recalls; None where that figure is an area.
    """

    item_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    truth: BoolArray
    scores: Floats
    credit: Array | None = None

    def primary(self, draws: Draws | None = None) -> Array:
        """The benchmark's first figure in each sample (default: the items as they are).

        The mean of the credit, else the mean over classes of their AUC.
        """
        if self.credit is None:
            return mean_over_classes(roc_auc(self.truth, self.scores, draws))
        return class_means(self.credit, np.zeros(len(self.credit), dtype=np.intp), 1, draws)[:, 0]

    def class_recall(self, draws: Draws) -> Array:
        """Recall of each class of a single-label benchmark, [samples, classes]."""
        assert self.credit is not None
        return class_means(self.credit, self.truth.argmax(axis=1), self.truth.shape[1], draws)


class Figure(Model):
    """A figure on the items as they are, and its 95 % interval where one was drawn."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def rounded(self) -> Self:
        """With six digits, and null where it is not defined."""
        numbers = (self.value, self.low, self.high)
        value, low, high = (None if one is None or np.isnan(one) else round(one, 6) for one in numbers)
        return type(self)(value=value, low=low, high=high)


def mean_over_classes(values: Array) -> Array:
    """Mean over the last axis of the classes that have a value; NaN where none has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=-1))


def bootstrap(clusters: Sequence[str], samples: int, statistic: Statistic) -> Array:
    """Draw clusters with replacement and compute the figures of each draw, [samples, figures].

    `clusters` are those of the items; equal ones give equal draws.
    """
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    rng = np.random.default_rng(0)
    rounds = []
    step = max(1, MAX_COUNTS // len(names))
    for start in range(0, samples, step):
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=min(step, samples - start))
        rounds.append(statistic(Draws(member, drawn.astype(np.float64))))
    return np.concatenate(rounds)


def effective_clusters(clusters: Sequence[str]) -> float:
    """Number of clusters, of which unequal ones count as fewer (Kish 1965: squared sum over sum of squares)."""
    sizes = np.unique(np.asarray(clusters), return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def tail_of(clusters: Sequence[str]) -> float:
    """Share of the samples beyond each end of an interval of `CONFIDENCE`.

    Samples of n clusters are spread too little by sqrt((n - 1) / n), and their quantiles are the normal's and not
    Student's ("expanded percentile interval": Hesterberg 2014, What Teachers Should Know about the Bootstrap, arXiv
    1411.5279).
    """
    from scipy import stats

    n = effective_clusters(clusters)
    return float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * _student(n - 1)))


def intervals(clusters: Sequence[str], samples: int, statistic: Statistic) -> list[Figure]:
    """One or several figures with their percentile intervals, expanded for few clusters (`tail_of`).

    `clusters` are those of the items; fewer than two leave nothing to draw, and no interval.
    """
    values = statistic(Draws.once(len(clusters)))[0]
    if len(set(clusters)) < 2:
        return [Figure(value=float(value)) for value in values]
    tail = 100 * tail_of(clusters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ends = np.nanpercentile(bootstrap(clusters, samples, statistic), [tail, 100 - tail], axis=0)
    known = [[None if np.isnan(end) else float(end) for end in figures] for figures in ends]
    return [Figure(value=float(value), low=low, high=high) for value, low, high in zip(values, *known, strict=True)]


def group_interval(group: Sequence[ScoredItems], samples: int, against: Sequence[ScoredItems] = ()) -> Figure:
    """The median over a group's seeds of the primary figure, or what it is more than that of another group.

    Medians are taken inside each bootstrap sample, of the same draw of cells; what seeds add is told at `_with_seeds`.
    Models of a group differ in their seed alone. Raises CorruptInputError where models were scored on different items.
    """
    groups = [models for models in (group, against) if models]
    _check_same_items([*group, *against])

    def statistic(draws: Draws) -> Array:
        first, *other = (np.median([items.primary(draws) for items in models], axis=0) for models in groups)
        return np.asarray(first - other[0] if other else first)[:, None]

    clusters = group[0].clusters
    return _with_seeds(intervals(clusters, samples, statistic)[0], clusters, groups)


def _with_seeds(figure: Figure, clusters: Sequence[str], groups: Sequence[Sequence[ScoredItems]]) -> Figure:
    """An interval over cells made longer by what another draw of seeds could change.

    Variances add up, and the degrees of freedom of their sum are those of Welch (1947, Biometrika 34, 28), on each side
    alone, since intervals over cells are not symmetric. The median of n seeds varies by pi / (2n + pi - 2) of what one
    does: within 2 % for odd n, more for even ones. A group of one seed adds nothing: its figure is this one model's.
    """
    figures = [[items.primary()[0] for items in group] for group in groups if len(group) > 1]
    spread = [(np.var(s, ddof=1) * np.pi / (2 * len(s) + np.pi - 2), len(s) - 1) for s in figures if np.ptp(s)]
    if figure.value is None or figure.low is None or figure.high is None or not spread:
        return figure
    of_cells, reach = effective_clusters(clusters) - 1, []
    for end in (figure.value - figure.low, figure.high - figure.value):
        parts = [((max(0.0, end) / _student(of_cells)) ** 2, of_cells), *spread]
        total = sum(variance for variance, _ in parts)
        freedom = total**2 / sum(variance**2 / known for variance, known in parts)
        reach.append(_student(freedom) * math.sqrt(total))
    # A figure lies in 0..1, a difference of two in -1..1.
    low, high = max(1.0 - len(groups), figure.value - reach[0]), min(1.0, figure.value + reach[1])
    return Figure(value=figure.value, low=low, high=high)


def _student(freedom: float) -> float:
    """Student's quantile at the upper end of an interval of `CONFIDENCE`."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def _check_same_items(models: Sequence[ScoredItems]) -> None:
    first = models[0]
    for other in models[1:]:
        same = (other.item_ids, other.clusters) == (first.item_ids, first.clusters)
        if not same or not np.array_equal(other.truth, first.truth):
            raise CorruptInputError(
                "compared models were scored on different items: materialize their benchmark_scores again"
            )
