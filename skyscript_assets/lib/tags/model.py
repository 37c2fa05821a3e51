"""The model of groundability: two Gaussian processes on tags' features, with calibrated probabilities.

Stage I asks whether a tag can be seen, stage II at which step of `GSD_STEPS_M` at the coarsest (SkyScript, arXiv
2312.12856, "Tag classification", has a logistic regression for each). Both are Gaussian process regressions with a
squared-exponential kernel (Rasmussen and Williams 2006, eq. 2.23 and 2.24), stage I on +1 and -1 as a least-squares
classifier (their section 6.5). What a process says of a tag becomes a probability by a logistic curve (Platt 1999), or
by the proportional-odds model on the steps (McCullagh 1980), fitted to what it says of each label when all labels of
its key are left out; that has a closed form (their eq. 5.12, for blocks).

Everything is linear algebra on one core and is fitted anew each time: nothing is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.settings.base import GSD_STEPS_M

Float = NDArray[np.float64]

LENGTH = 1.25
"""The kernel of two rows at squared distance d is exp(-LENGTH / 4 * d); a block's mean squared distance is 1, so four
blocks give exp(-LENGTH) on average. Chosen, as `NOISE`, on the first 600 labels."""

NOISE = 0.3
"""Variance of the labels around the process, in units of its own."""

BIAS = 1.0
"""Added to every kernel value: the prior variance of a constant."""

CALIBRATION_C = 100.0
"""scikit-learn's inverse regularisation C of the calibration curves: hardly any."""

_BLOCKS = 4
_THRESHOLDS = len(GSD_STEPS_M) - 1


def kernel(rows: Float, others: Float) -> Float:
    """Similarity of two sets of tags, features (N, D) and (M, D): (N, M), between `BIAS` and 1 + `BIAS`."""
    squares = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :] - 2.0 * rows @ others.T
    return np.asarray(np.exp(-LENGTH / _BLOCKS * np.maximum(squares, 0.0)) + BIAS)


@dataclass(frozen=True)
class _Process:
    """A Gaussian process given its labels: the mean of the labels, and the weights of the kernel's columns."""

    mean: float
    weights: Float
    left_out: Float
    """What it says of each of its own labels without the labels of that key."""

    @classmethod
    def fit(cls, similar: Float, targets: Float, keys: Sequence[str]) -> Self:
        """Condition on targets (N,), given the kernel (N, N) between them."""
        mean = float(targets.mean())
        inverse = np.linalg.inv(similar + NOISE * np.eye(len(targets)))
        weights = inverse @ (targets - mean)
        left_out = np.empty(len(targets))
        names = np.array(keys)
        for key in set(keys):
            rows = np.flatnonzero(names == key)
            left_out[rows] = targets[rows] - np.linalg.solve(inverse[np.ix_(rows, rows)], weights[rows])
        return cls(mean, weights, left_out)

    def says(self, similar: Float) -> Float:
        """The expected target of M tags, (M,), given their kernel (M, N) with the labels."""
        return np.asarray(similar @ self.weights + self.mean)


@dataclass(frozen=True)
class GroundabilityModel:
    """Both stages, fitted to labels."""

    _visible: _Process
    _visible_curve: tuple[float, float]
    _coarser: _Process
    _seen: NDArray[np.bool_]
    _step_curve: Float

    @classmethod
    def fit(
        cls,
        similar: Float,
        visible: NDArray[np.bool_],
        steps: NDArray[np.int64],
        keys: Sequence[str],
        calibrated_on: NDArray[np.bool_],
    ) -> Self:
        """Train on N labels.

        Args:
            similar: (N, N) kernel between them.
            visible: (N,) whether the tag can be seen; both answers occur.
            steps: (N,) index into `GSD_STEPS_M`, read where visible.
            keys: Their keys: calibration holds out a key at a time.
            calibrated_on: (N,) labels like those that the model will be asked for; where they have one answer only,
                all labels are used.
        """
        process = _Process.fit(similar, np.where(visible, 1.0, -1.0), keys)
        like = calibrated_on if len(set(visible[calibrated_on].tolist())) == 2 else np.ones(len(visible), np.bool_)
        coarser = _Process.fit(
            similar[np.ix_(visible, visible)],
            steps[visible].astype(np.float64),
            [key for key, seen in zip(keys, visible, strict=True) if seen],
        )
        return cls(
            process,
            _logistic(process.left_out[like], visible[like]),
            coarser,
            visible,
            _ordinal(coarser.left_out, steps[visible]),
        )

    def chance(self, similar: Float) -> Float:
        """Probability that each of M tags can be seen, (M,), given their kernel (M, N) with the labels."""
        slope, bias = self._visible_curve
        return _sigmoid(slope * self._visible.says(similar) + bias)

    def step_chances(self, similar: Float) -> Float:
        """Probability of each step where the tag can be seen, (M, len(GSD_STEPS_M)); rows sum to 1."""
        said = self._coarser.says(similar[:, self._seen])
        coarser = _sigmoid(self._step_curve[0] * said[:, None] + self._step_curve[None, 1:])
        edges = np.hstack([np.ones((len(said), 1)), coarser, np.zeros((len(said), 1))])
        return np.asarray(edges[:, :-1] - edges[:, 1:])


def decided_steps(chances: Float) -> NDArray[np.int64]:
    """The median step of each row of probabilities, (M,) index into `GSD_STEPS_M`.

    The median has the least expected number of steps off. The harm grows with that number: a step too fine loses
    images, a step too coarse puts words under images that cannot show them; the most probable step ignores it.
    """
    return np.asarray((np.cumsum(chances, axis=1)[:, :-1] < 0.5).sum(axis=1), np.int64)


def _logistic(said: Float, truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and bias of Platt's curve. It never falls: where more said is less true, only the bias is fitted."""
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=CALIBRATION_C, solver="newton-cg").fit(said[:, None], truth)
    slope, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return (slope, bias) if slope >= 0.0 else _logistic(np.zeros_like(said), truth)


def _ordinal(said: Float, steps: NDArray[np.int64]) -> Float:
    """Slope, never below 0, and falling thresholds of the proportional-odds model "coarser than step j" on one number.

    Each label answers once for each threshold, with the threshold's indicator beside the number: a binary regression
    on these rows is the cumulative one on the steps.
    """
    from sklearn.linear_model import LogisticRegression

    coarser = (steps[:, None] > np.arange(_THRESHOLDS)).ravel()
    if coarser.all() or not coarser.any():
        return np.array([0.0, *([50.0 if coarser.any() else -50.0] * _THRESHOLDS)])
    rows = np.hstack([np.repeat(said[:, None], _THRESHOLDS, axis=0), np.tile(np.eye(_THRESHOLDS), (len(said), 1))])
    fitted = LogisticRegression(C=CALIBRATION_C, solver="newton-cg", fit_intercept=False, max_iter=500)
    slope, *thresholds = fitted.fit(rows, coarser).coef_[0].tolist()
    if slope < 0.0:
        return _ordinal(np.zeros_like(said), steps)
    # Thresholds that no label separates may come out of order.
    return np.array([slope, *np.minimum.accumulate(thresholds)])


def _sigmoid(x: Float) -> Float:
    # tanh does not overflow where exp would.
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))
