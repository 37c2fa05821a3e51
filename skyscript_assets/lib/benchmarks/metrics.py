"""The figures of the benchmarks: areas under curves, accuracies and recalls, all as shares in 0..1.

A bootstrap draws clusters of items, so its figures take the cluster of each item and how often each sample drew each
cluster. What depends on the scores alone is then computed once, and a thousand samples are a few products of matrices.
Equal scores are never broken by the order of rows. What is compared with what, and the intervals, belong elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import softmax

from skyscript_assets.lib.arrays import BoolArray

Floats = NDArray[np.floating]
Array = NDArray[np.float64]

RECALL_AT = (1, 5, 10)
"""Ranks at which retrieval is scored (SkyScript, section "Cross-modal retrieval")."""

SIMILARITIES_AT_ONCE = 8_000_000
"""Similarities of a block of queries with all items: about 150 MB with what is compared."""


@dataclass(frozen=True)
class Draws:
    """Samples of clusters: `member` is the cluster of each item, 0 and up, [items].

    `counts` tells how often each sample holds each cluster, [samples, clusters].
    """

    member: NDArray[np.integer]
    counts: Array

    @classmethod
    def once(cls, items: int) -> Self:
        """One sample that holds every item once."""
        return cls(np.zeros(items, dtype=np.intp), np.ones((1, 1)))

    def totals(self, values: Floats) -> Array:
        """Sums of values [items, ...] over the items of each sample, [samples, ...]."""
        sums = np.zeros((self.counts.shape[1], *values.shape[1:]))
        np.add.at(sums, self.member, values)
        return np.asarray(self.counts @ sums, dtype=np.float64)


def roc_auc(truth: BoolArray, scores: Floats, draws: Draws | None = None) -> Array:
    """Area under the ROC curve of each class: the chance that a positive item outscores a negative one, ties half.

    `truth` and finite `scores` are [items, classes]; without draws every item counts once. Returns [samples, classes],
    NaN where a sample lacks positives or negatives of a class.
    """

    def of_class(ranked: _Ranked, draws: Draws) -> Array:
        positive = ranked.positive
        negatives = _running_counts(ranked.member, ~positive, draws.counts.shape[1])
        # Of tied negatives half lie below: the mean of "all of the tie above" and "all of it below".
        above = (negatives[ranked.first] + negatives[ranked.last]) / 2
        outscored = np.zeros((draws.counts.shape[1],) * 2)
        np.add.at(outscored, ranked.member[positive], (negatives[-1] - above)[positive])
        pairs = (draws.counts @ outscored * draws.counts).sum(axis=1)
        return _divide(pairs, ranked.totals(positive, draws) * ranked.totals(~positive, draws))

    return _by_class(of_class, truth, scores, draws)


def average_precision(truth: BoolArray, scores: Floats, draws: Draws | None = None) -> Array:
    """Average precision of each class: precision at each distinct score, weighted by the gain in recall there.

    The step-wise sum of scikit-learn's `average_precision_score`, without interpolation; tied items share one step.
    Arguments and returns are those of `roc_auc`.
    """

    def of_class(ranked: _Ranked, draws: Draws) -> Array:
        positive, clusters = ranked.positive, draws.counts.shape[1]
        reached = ranked.last[positive]
        hits = _running_counts(ranked.member, positive, clusters)[reached] @ draws.counts.T
        shown = _running_counts(ranked.member, np.ones_like(positive), clusters)[reached] @ draws.counts.T
        precision = np.nan_to_num(_divide(hits, shown))
        gained = draws.counts.T[ranked.member[positive]]
        total = ranked.totals(positive, draws)
        total[ranked.totals(~positive, draws) == 0] = 0.0
        return _divide((gained * precision).sum(axis=0), total)

    return _by_class(of_class, truth, scores, draws)


def top1_credit(scores: Floats, labels: NDArray[np.integer]) -> Array:
    """1 for an item whose own class scores highest, 0 otherwise, 1/k where k classes share the highest score.

    `scores` are [items, classes], `labels` the index of each item's class, [items]. Returns [items]; its mean is the
    top-1 accuracy. A scorer that cannot tell classes apart is at chance level.
    """
    best = scores == scores.max(axis=1, keepdims=True)
    hit = best[np.arange(len(labels)), labels]
    return np.asarray(hit / best.sum(axis=1), dtype=np.float64)


def class_means(values: Floats, labels: NDArray[np.integer], classes: int, draws: Draws | None = None) -> Array:
    """Mean of a value, [items], over the items of each class; of top-1 credit it is the recall of each class.

    `labels` are the index of each item's class, [items]; without draws every item counts once. Returns [samples,
    classes], NaN where a sample has no item of a class.
    """
    draws = draws or Draws.once(len(values))
    member = np.eye(classes)[labels]
    return _divide(draws.totals(member * values[:, None]), draws.totals(member))


def reliability(scores: Floats, scale: float, credit: Array, bins: int = 15) -> Array:
    """How often an answer is right, by how sure the model is (Guo et al. 2017, arXiv 1706.04599, section 2).

    Confidence is the highest softmax of the scores [items, classes] times the scale; bins of it hold their upper end.
    Returns items, mean confidence and accuracy (credit [items]) of each bin that is not empty, [bins, 3].
    """
    sure = softmax(scale * scores.astype(np.float64), axis=1).max(axis=1)
    member = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    sums = Draws(member, np.eye(bins)).totals(np.stack([np.ones(len(credit)), sure, credit], axis=1))
    sums = sums[sums[:, 0] > 0]
    return np.hstack([sums[:, :1], sums[:, 1:] / sums[:, :1]])


def calibration_error(bins: Array) -> float:
    """Expected calibration error of what `reliability` returns: the mean gap of confidence and accuracy."""
    return float(np.average(np.abs(bins[:, 1] - bins[:, 2]), weights=bins[:, 0]))


def wrong_before(queries: Floats, items: Floats, matches: csr_array) -> NDArray[np.integer]:
    """How many wrong items stand before the first right one in the ranking of each query, [queries].

    An item that does not match and scores the same as the best match counts as ranked before it, so a scorer that
    cannot tell items apart finds nothing. Similarities are computed in blocks, so that memory does not grow with both.
    Embeddings, [queries, E] and [items, E], are of length one; `matches`, bool, tells which items are right answers.

    Raises:
        ValueError: a query has no right answer.
    """
    if not matches.sum(axis=1).all():
        raise ValueError("every query of a retrieval needs a matching item")
    before = []
    step = max(1, SIMILARITIES_AT_ONCE // len(items))
    for start in range(0, len(queries), step):
        similarity = queries[start : start + step] @ items.T
        right = matches[start : start + step].toarray()
        best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)
        before.append(((similarity >= best) & ~right).sum(axis=1))
    return np.concatenate(before)


@dataclass(frozen=True)
class _Ranked:
    """The items of one class, best score first: which have the class, and their clusters.

    `first` is how many items score higher than each, `last` how many as high or higher.
    """

    positive: BoolArray
    member: NDArray[np.integer]
    first: NDArray[np.integer]
    last: NDArray[np.integer]

    def totals(self, which: BoolArray, draws: Draws) -> Array:
        """Number of some of the items in each sample."""
        return np.asarray(draws.counts @ np.bincount(self.member[which], minlength=draws.counts.shape[1]), dtype=float)


def _by_class(
    of_class: Callable[[_Ranked, Draws], Array], truth: BoolArray, scores: Floats, draws: Draws | None
) -> Array:
    draws = draws or Draws.once(len(truth))
    columns = []
    for positive, score in zip(truth.T, -scores.T, strict=True):
        order = np.argsort(score, kind="stable")
        ranked = score[order]
        first, last = (np.searchsorted(ranked, ranked, side=side) for side in ("left", "right"))
        columns.append(of_class(_Ranked(positive[order], draws.member[order], first, last), draws))
    return np.stack(columns, axis=1)


def _running_counts(member: NDArray[np.integer], which: BoolArray, clusters: int) -> Array:
    """How many of some items of each cluster are among the first r items, [items + 1, clusters]."""
    counts = np.zeros((len(member) + 1, clusters))
    counts[np.flatnonzero(which) + 1, member[which]] = 1
    return counts.cumsum(axis=0)


def _divide(above: Array, below: Array) -> Array:
    """Quotient, NaN where the divisor is zero."""
    quotient = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
