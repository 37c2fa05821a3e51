"""Control classifiers: what is reached without language, and what is reached without pixels.

They are taught with the train windows of a benchmark, which no zero-shot model sees. A zero-shot model should beat the
one that sees no pixel; the probe shows what the frozen features hold. Their settings are fixed here, or chosen on
validation windows, never on test windows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyscript_assets.lib.benchmarks.intervals import mean_over_classes
from skyscript_assets.lib.benchmarks.metrics import Bools, Floats, roc_auc

REGULARISATION = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the probe's penalty that validation windows choose from."""

DEFAULT_REGULARISATION = 1e-2
"""Inverse strength where there are no validation windows."""

MAX_ITERATIONS = 300
"""Most steps of a fit; features are standardised, so it converges sooner."""


def metadata_features(items: pa.Table) -> NDArray[np.float64]:
    """What is known of a window without looking: log size, log GSD, region and source one-hot, [items, features]."""
    columns = [np.log(items[name].to_numpy().astype(np.float64)) for name in ("width", "height", "gsd_m")]
    for name in ("region", "source"):
        values = np.array(items[name].to_pylist())
        columns += [(values == value).astype(np.float64) for value in np.unique(values)]
    return np.stack(columns, axis=1)


def metadata_scores(items: pa.Table, truth: Bools) -> NDArray[np.float64]:
    """Log odds of each class from size, GSD, region and source alone, taught with the train items.

    Args:
        items: Items of every split.
        truth: Their classes, [items, classes].

    Returns:
        [test items, classes].
    """
    features = metadata_features(items)
    split = np.array(items["split"].to_pylist())
    train, test = split == "train", split == "test"
    return _fit(features[train], truth[train], features[test], 1.0)


def probe_scores(
    train: tuple[Floats, Bools], val: tuple[Floats, Bools], test_features: Floats
) -> tuple[NDArray[np.float64], float]:
    """Log odds of each class from frozen image features by logistic regression.

    Args:
        train: Features [items, D] and classes [items, classes] that it learns from.
        val: The same, to choose the penalty by mean AUC; may be empty.
        test_features: Features of the items to score, [items, D].

    Returns:
        [test items, classes], and the inverse penalty that was chosen.
    """
    chosen = DEFAULT_REGULARISATION
    if len(val[0]):
        quality = [_validation_auc(train, val, strength) for strength in REGULARISATION]
        if not np.isnan(quality).all():
            chosen = REGULARISATION[int(np.nanargmax(quality))]
    return _fit(*train, test_features, chosen), chosen


def _validation_auc(train: tuple[Floats, Bools], val: tuple[Floats, Bools], strength: float) -> float:
    return float(mean_over_classes(roc_auc(val[1], _fit(*train, val[0], strength)))[0])


def _fit(features: Floats, truth: Bools, wanted: Floats, strength: float) -> NDArray[np.float64]:
    """Log odds of each class on `wanted`; a class that is never or always true in training scores zero everywhere."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    known, asked = scaler.transform(features), scaler.transform(wanted)
    scores = np.zeros((len(wanted), truth.shape[1]))
    for column, positive in enumerate(truth.T):
        if positive.any() and not positive.all():
            model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS).fit(known, positive)
            scores[:, column] = model.decision_function(asked)
    return scores
