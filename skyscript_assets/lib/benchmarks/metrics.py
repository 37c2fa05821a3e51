"""The figures of the benchmarks: areas under curves, accuracies and recalls, all as shares in 0..1.

Figures that a bootstrap repeats take weights: one row of item weights a sample, so that a thousand samples are a few
array operations. Equal scores are never broken by the order of rows. What is compared with what, and the intervals,
belong to other modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
ClassFigure = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

RECALL_AT = (1, 5, 10)
"""Ranks at which retrieval is scored (SkyScript, section "Cross-modal retrieval")."""


def roc_auc(truth: Bools, scores: Floats, weights: Floats | None = None) -> NDArray[np.float64]:
    """Area under the ROC curve of each class: the chance that a positive item outscores a negative one, ties half.

    Args:
        truth: Which items have which class, [items, classes].
        scores: Scores of the items, [items, classes], finite.
        weights: Weights of the items, [samples, items]; default: one sample of ones.

    Returns:
        [samples, classes]; NaN where a sample lacks positives or negatives of a class.
    """

    def of_class(positives: NDArray[np.float64], everything: NDArray[np.float64]) -> NDArray[np.float64]:
        negatives = everything - positives
        below = negatives.sum(1, keepdims=True) - negatives.cumsum(1)
        pairs = positives.sum(1) * negatives.sum(1)
        return _divide((positives * (below + negatives / 2)).sum(1), pairs)

    return _by_class(of_class, truth, scores, weights)


def average_precision(truth: Bools, scores: Floats, weights: Floats | None = None) -> NDArray[np.float64]:
    """Average precision of each class: precision at each distinct score, weighted by the gain in recall there.

    The step-wise sum of scikit-learn's `average_precision_score`, without interpolation; tied items share one step.

    Args:
        truth: Which items have which class, [items, classes].
        scores: Scores of the items, [items, classes], finite.
        weights: Weights of the items, [samples, items]; default: one sample of ones.

    Returns:
        [samples, classes]; NaN where a sample lacks positives or negatives of a class.
    """

    def of_class(positives: NDArray[np.float64], everything: NDArray[np.float64]) -> NDArray[np.float64]:
        precision = np.nan_to_num(_divide(positives.cumsum(1), everything.cumsum(1)))
        total = positives.sum(1)
        total[total == everything.sum(1)] = 0.0
        return _divide((positives * precision).sum(1), total)

    return _by_class(of_class, truth, scores, weights)


def top1_credit(scores: Floats, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """1 for an item whose own class scores highest, 0 otherwise, 1/k where k classes share the highest score.

    Args:
        scores: [items, classes].
        labels: Index of each item's class, [items].

    Returns:
        [items]; its mean is the top-1 accuracy. A scorer that cannot tell classes apart is at chance level.
    """
    best = scores == scores.max(axis=1, keepdims=True)
    hit = best[np.arange(len(labels)), labels]
    return np.asarray(hit / best.sum(axis=1), dtype=np.float64)


def class_means(
    values: Floats, labels: NDArray[np.integer], classes: int, weights: Floats | None = None
) -> NDArray[np.float64]:
    """Weighted mean of a value over the items of each class; of top-1 credit it is the recall of each class.

    Args:
        values: [items].
        labels: Index of each item's class, [items].
        classes: Number of classes.
        weights: Weights of the items, [samples, items]; default: one sample of ones.

    Returns:
        [samples, classes]; NaN where a sample has no item of a class.
    """
    weights = np.ones((1, len(values))) if weights is None else weights
    member = np.eye(classes)[labels]
    return _divide(weights @ (member * values[:, None]), weights @ member)


def recall_at(similarity: Floats, matches: Bools, ranks: Sequence[int] = RECALL_AT) -> NDArray[np.float64]:
    """Share of queries with any matching item among the top k.

    An item that does not match and scores the same as the best match counts as ranked before it, so a scorer that
    cannot tell items apart finds nothing.

    Args:
        similarity: [queries, items].
        matches: Which items are right answers, [queries, items]; every query needs one.
        ranks: The values of k.

    Returns:
        One share for each k.

    Raises:
        ValueError: a query has no right answer.
    """
    if not matches.any(axis=1).all():
        raise ValueError("every query of a retrieval needs a matching item")
    best_match = np.where(matches, similarity, -np.inf).max(axis=1, keepdims=True)
    before = ((similarity >= best_match) & ~matches).sum(axis=1)
    return np.array([(before < k).mean() for k in ranks])


def _by_class(of_class: ClassFigure, truth: Bools, scores: Floats, weights: Floats | None) -> NDArray[np.float64]:
    """Apply a figure to each class's weights of positives and of all items, summed over ties, best score first."""
    weights = np.ones((1, len(truth))) if weights is None else weights
    columns = []
    for positive, score in zip(truth.T, scores.T, strict=True):
        order = np.argsort(-score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=np.inf))
        sorted_weights = weights[:, order]
        everything = np.add.reduceat(sorted_weights, starts, axis=1)
        columns.append(of_class(np.add.reduceat(sorted_weights * positive[order], starts, axis=1), everything))
    return np.stack(columns, axis=1)


def _divide(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quotient, NaN where the divisor is zero."""
    quotient = np.full(np.shape(above), np.nan)
    np.divide(above, below, out=quotient, where=below > 0)
    return quotient
