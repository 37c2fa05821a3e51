"""Control classifiers: what is reached without language, and what is reached without pixels.

They are taught with the train windows of a benchmark, which no zero-shot model sees. A zero-shot model should beat the
one that sees no pixel; the probe shows what the frozen features hold. Their settings are fixed here, or chosen on
validation windows, never on test windows.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.benchmarks.intervals import mean_over_classes
from skyscript_assets.lib.benchmarks.metrics import Floats, roc_auc

REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the probe's penalty that validation windows choose from."""

DEFAULT_REGULARISATION = 1e-2
"""Inverse strength where there are no validation windows."""

MAX_ITERATIONS = 500
TOLERANCE = 1e-4
"""Most steps of a fit, and the steepest slope of the mean loss at which it ends sooner (scikit-learn's default)."""


def metadata_features(items: pa.Table) -> NDArray[np.float64]:
    """What is known of a window without looking: log size, log GSD, region and source one-hot, [items, features]."""
    columns = [np.log(items[name].to_numpy().astype(np.float64)) for name in ("width", "height", "gsd_m")]
    for name in ("region", "source"):
        values = np.array(items[name].to_pylist())
        columns += [(values == value).astype(np.float64) for value in np.unique(values)]
    return np.stack(columns, axis=1)


def metadata_scores(items: pa.Table, truth: BoolArray) -> NDArray[np.float64]:
    """Log odds of each class, [test items, classes], from size, GSD, region and source alone, taught with train items.

    `items` are those of every split, `truth` their classes, [items, classes].
    """
    features = metadata_features(items)
    split = np.array(items["split"].to_pylist())
    train, test = split == "train", split == "test"
    return log_odds(features[train], truth[train], features[test], 1.0)


def probe_scores(
    train: tuple[Floats, BoolArray], val: tuple[Floats, BoolArray], test_features: Floats
) -> tuple[NDArray[np.float64], float]:
    """Log odds of each class from frozen image features by logistic regression: [test items, classes].

    Features [items, D] and classes [items, classes] of `train` are learnt from; those of `val`, which may be empty,
    choose the penalty by mean AUC: its inverse is returned too.
    """
    if not len(val[0]):
        return log_odds(*train, test_features, DEFAULT_REGULARISATION), DEFAULT_REGULARISATION
    asked = np.concatenate([val[0], test_features])
    scores = [log_odds(*train, asked, strength) for strength in REGULARISATION]
    quality = [float(mean_over_classes(roc_auc(val[1], each[: len(val[0])]))[0]) for each in scores]
    best = int(np.nanargmax(quality)) if not np.isnan(quality).all() else REGULARISATION.index(DEFAULT_REGULARISATION)
    return scores[best][len(val[0]) :], REGULARISATION[best]


def log_odds(features: Floats, truth: BoolArray, asked: Floats, strength: float) -> NDArray[np.float64]:
    """One logistic regression a class, all fitted at once on standardised features.

    The minimum is that of scikit-learn's `LogisticRegression`: half the squared weights plus `strength` times the
    summed log loss, intercepts free. All classes share each pass over the features, which one by one do not. Learns
    from features [items, D] and truth [items, classes]; answers for `asked`, [other items, D], with [other items,
    classes], zero for a class that all or none of the items to learn from have.
    """
    from scipy.optimize import minimize

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    known = _with_intercept((features - mean) / scale)
    learnt = truth.any(axis=0) & ~truth.all(axis=0)
    signs = np.where(truth[:, learnt], -1.0, 1.0)
    shape = (known.shape[1], signs.shape[1])
    penalty = np.full((shape[0], 1), 1.0 / (strength * len(known)))
    penalty[-1] = 0.0

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(shape)
        margins = signs * (known @ weights)
        loss = np.logaddexp(0.0, margins).sum() / len(known)
        slope = known.T @ (signs * expit(margins)) / len(known)
        return loss + (penalty * weights**2).sum() / 2, (slope + penalty * weights).ravel()

    limits = {"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 0.0}
    fitted = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=limits)
    scores = np.zeros((len(asked), truth.shape[1]))
    scores[:, learnt] = _with_intercept((asked - mean) / scale) @ fitted.x.reshape(shape)
    return scores


def _with_intercept(features: Floats) -> NDArray[np.float64]:
    return np.hstack([features, np.ones((len(features), 1))]).astype(np.float64)
