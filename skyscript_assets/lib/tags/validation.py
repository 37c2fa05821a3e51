"""What the model of groundability is worth: cross-validation, baselines, calibration.

Figures are of labels that the model was not trained on. Under `unseen_keys` no label of a key is ever on both sides,
which is the case of a key that nobody labelled; under `known_keys` single tags are held out. Whatever is fitted, the
calibration curves too, is fitted to the training side of each fold, so nothing is measured on what it was fitted to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, IntArray
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.tags.agreement import GRADES, grade
from skyscript_assets.lib.tags.labels import Label, Tag
from skyscript_assets.lib.tags.model import GroundabilityModel, decided_steps, kernel
from skyscript_assets.lib.tags.text import attribute_reason

Figures = dict[str, Any]

FOLDS = 10

SEEDS = 3
"""Assignments of keys to folds over which figures are averaged; their deviation is reported."""

BINS = 10
"""Bins of equal width of the reliability table."""

RESAMPLES = 1000
"""Bootstrap samples of keys behind an interval."""

CURVE: tuple[float, ...] = tuple(round(0.05 * i, 2) for i in range(1, 20))
"""Thresholds of the precision-recall curve."""


@dataclass(frozen=True)
class Truth:
    """Labels as arrays of N.

    Attributes:
        visible: Whether each can be seen.
        steps: Index into `GSD_STEPS_M` where visible, -1 elsewhere.
        ruled: Whether the policy would decide the tag if it had no label.
    """

    tags: tuple[Tag, ...]
    visible: BoolArray
    steps: IntArray
    ruled: BoolArray

    @classmethod
    def of(cls, labels: Mapping[Tag, Label]) -> Self:
        """The arrays of some labels, in their order."""
        grades = np.array([grade(label) for label in labels.values()], np.int64)
        ruled = np.array([attribute_reason(key) is not None for key, _ in labels], np.bool_)
        return cls(tuple(labels), grades > 0, grades - 1, ruled)

    @property
    def keys(self) -> list[str]:
        """The key of each label."""
        return [key for key, _ in self.tags]


@dataclass(frozen=True)
class HeldOut:
    """What was said of each of N labels while it was held out.

    Attributes:
        chance: (N,) the model's probability that the tag can be seen.
        step_chances: (N, steps) its probabilities of the steps.
        key_visible: Whether most training labels of the same key are visible; of all labels where there are none.
        key_step: Median step of the visible training labels of the same key; of all where there are none.
        middle_step: Median step of the visible training labels.
    """

    chance: NDArray[np.float64]
    step_chances: NDArray[np.float64]
    key_visible: BoolArray
    key_step: IntArray
    middle_step: IntArray


def assign_folds(names: Sequence[str], seed: int) -> IntArray:
    """A fold for each of N names; equal names share theirs, and folds differ by one name at most."""
    shuffled = sorted(set(names), key=lambda name: unit_hash("fold", str(seed), name))
    fold = {name: i % FOLDS for i, name in enumerate(shuffled)}
    return np.array([fold[name] for name in names], np.int64)


def hold_out(similar: NDArray[np.float64], truth: Truth, folds: IntArray) -> HeldOut:
    """Predict each fold, (N,), by a model of the others, given the kernel (N, N) between the labelled tags."""
    n = len(truth.tags)
    step_chances = np.tile(np.eye(len(GSD_STEPS_M))[0], (n, 1))
    said = HeldOut(np.zeros(n), step_chances, np.zeros(n, np.bool_), np.zeros(n, np.int64), np.zeros(n, np.int64))
    for fold in np.unique(folds):
        test, train = folds == fold, folds != fold
        if len(set(truth.visible[train].tolist())) < 2:
            continue  # nothing is learnt: the zeros stand
        keys = [key for key, taught in zip(truth.keys, train, strict=True) if taught]
        known, asked = similar[np.ix_(train, train)], similar[np.ix_(test, train)]
        model = GroundabilityModel.fit(known, truth.visible[train], truth.steps[train], keys, ~truth.ruled[train])
        said.chance[test], said.step_chances[test] = model.chance(asked), model.step_chances(asked)
        _baselines(truth, train, test, said)
    return said


def _baselines(truth: Truth, train: BoolArray, test: BoolArray, said: HeldOut) -> None:
    keys = np.array(truth.keys, object)
    middle = _median(truth.steps[train & truth.visible])
    said.middle_step[test] = middle
    for i in np.flatnonzero(test):
        same = train & (keys == keys[i])
        known = truth.visible[same] if same.any() else truth.visible[train]
        said.key_visible[i] = known.mean() > 0.5
        same &= truth.visible
        said.key_step[i] = _median(truth.steps[same]) if same.any() else middle


def _median(steps: IntArray) -> int:
    return int(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else 0


def cross_validate(rows: NDArray[np.float64], truth: Truth, threshold: float, unseen_threshold: float) -> Figures:
    """Figures of both stages, of their baselines and of the calibration, for the report: JSON values, rounded.

    Figures are means over the assignments, `deviation` is between them; curves and tables are of the first assignment.
    Tags are called visible from `threshold` on, or `unseen_threshold` where nobody labelled their key; `rows` are (N,
    D) features of the labelled tags.
    """
    similar = kernel(rows, rows)
    runs = [hold_out(similar, truth, assign_folds(truth.keys, seed)) for seed in range(SEEDS)]
    singles = [hold_out(similar, truth, assign_folds(["=".join(tag) for tag in truth.tags], 0))]
    protocols = {"unseen_keys": (runs, unseen_threshold), "known_keys": (singles, threshold)}
    first = runs[0]
    return {
        "folds": FOLDS,
        "fold_assignments": SEEDS,
        "threshold": threshold,
        "unseen_threshold": unseen_threshold,
        "stage_1": {name: _stage_1(truth, said, least) for name, (said, least) in protocols.items()},
        "stage_2": {name: _stage_2(truth, said) for name, (said, _) in protocols.items()},
        "intervals": _intervals(truth, first, unseen_threshold),
        "calibration": _calibration(truth, runs),
        "precision_recall": _curve(truth, first),
        "confusion": _confusion(truth, first, unseen_threshold),
    }


def figure_rows(report: Figures) -> list[Figures]:
    """The main figures of both stages as rows of a table, from a report that holds `cross_validate`'s answer."""
    return [
        {
            "stage": stage,
            "labels held out": "whole keys" if protocol == "unseen_keys" else "single tags",
            "decided by": who.replace("_", " "),
            "figure": figure.replace("_", " "),
            "value": value,
            "deviation": figures.get("deviation", {}).get(figure),
        }
        for stage, name in (("I", "stage_1"), ("II", "stage_2"))
        for protocol in ("unseen_keys", "known_keys")
        for who, figures in report[name][protocol].items()
        for figure, value in figures.items()
        if figure in ("f1", "exact", "within_one_step")
    ]


def _stage_1(truth: Truth, runs: Sequence[HeldOut], threshold: float) -> Figures:
    """Figures of whether a tag is visible. `decision` is what an unlabelled tag would get: policy, then model."""
    seen = [said.chance >= threshold for said in runs]
    return {
        "decision": _averaged([binary_figures(truth.visible, said & ~truth.ruled) for said in seen]),
        "model": _averaged([binary_figures(truth.visible, said) for said in seen]),
        "key_majority": _averaged([binary_figures(truth.visible, said.key_visible) for said in runs]),
        "policy": binary_figures(truth.visible, ~truth.ruled),
        "all_yes": binary_figures(truth.visible, np.ones_like(truth.visible)),
    }


def _stage_2(truth: Truth, runs: Sequence[HeldOut]) -> Figures:
    """Figures of the step, on visible labels."""
    seen = truth.visible
    steps = truth.steps[seen]
    return {
        "model": _averaged([step_figures(steps, decided_steps(said.step_chances[seen])) for said in runs]),
        "most_probable_step": _averaged([step_figures(steps, said.step_chances[seen].argmax(axis=1)) for said in runs]),
        "key_median": _averaged([step_figures(steps, said.key_step[seen]) for said in runs]),
        "middle_step": _averaged([step_figures(steps, said.middle_step[seen]) for said in runs]),
    }


def binary_figures(truth: BoolArray, said: BoolArray) -> dict[str, float]:
    """F1, precision, recall and accuracy of (N,) answers."""
    hits, true, called = (int(which.sum()) for which in (truth & said, truth, said))
    f1, precision, recall = 2 * hits / max(1, true + called), hits / max(1, called), hits / max(1, true)
    return _rounded({"f1": f1, "precision": precision, "recall": recall, "accuracy": (truth == said).mean()})


def step_figures(truth: IntArray, said: IntArray) -> dict[str, float]:
    """Shares of (N,) steps that are hit, and that are one off at most; the mean number of steps off."""
    off = np.abs(truth - said)
    return _rounded({"exact": (off == 0).mean(), "within_one_step": (off <= 1).mean(), "mean_steps_off": off.mean()})


def _rounded(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(float(figure), 4) for name, figure in figures.items()}


def _averaged(runs: Sequence[dict[str, float]]) -> Figures:
    """Means over assignments of keys to folds; with several, their deviations too."""
    values = {name: np.array([run[name] for run in runs]) for name in runs[0]}
    means: Figures = {**_rounded({name: found.mean() for name, found in values.items()})}
    if len(runs) > 1:
        means["deviation"] = _rounded({name: found.std(ddof=1) for name, found in values.items()})
    return means


def _intervals(truth: Truth, said: HeldOut, threshold: float) -> Figures:
    """95 % intervals of the main figures on unseen keys, by drawing keys anew with all their labels."""
    visible = (said.chance >= threshold) & ~truth.ruled
    off = np.where(truth.visible, np.abs(truth.steps - decided_steps(said.step_chances)), len(GSD_STEPS_M))
    sums = np.stack([truth.visible & visible, truth.visible, visible, off == 0, off <= 1], axis=1).astype(np.float64)
    names = sorted(set(truth.keys))
    place = {name: i for i, name in enumerate(names)}
    by_key = np.zeros((len(names), sums.shape[1]))
    np.add.at(by_key, [place[key] for key in truth.keys], sums)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)
    hits, true, called, exact, near = (drawn @ by_key).T
    shares = {
        "f1": 2 * hits / np.maximum(1, true + called),
        "exact": exact / np.maximum(1, true),
        "within_one_step": near / np.maximum(1, true),
    }
    return {name: np.round(np.percentile(found, [2.5, 97.5]), 4).tolist() for name, found in shares.items()}


def _calibration(truth: Truth, runs: Sequence[HeldOut]) -> Figures:
    """Whether the probabilities of stage I are what they say, on unseen keys of the labels that the model decides."""
    asked = ~truth.ruled if (~truth.ruled).any() else np.ones_like(truth.ruled)
    visible = truth.visible[asked]
    chances = [said.chance[asked] for said in runs]
    base = float(visible.mean())
    return {
        "labels": int(asked.sum()),
        **_averaged([calibration_figures(p, visible) for p in chances]),
        "brier_of_the_share_of_visible_labels": round(base * (1 - base), 4),
        "reliability": _reliability(chances[0], visible),
    }


def calibration_figures(chance: NDArray[np.float64], visible: BoolArray) -> dict[str, float]:
    """Brier score and expected calibration error of (N,) probabilities.

    The Brier score is the mean squared difference to 0 or 1; the expected error (Naeini et al. 2015) is the mean
    distance of a bin's mean probability from its share, weighted by labels.
    """
    bins = _bins(chance)
    gaps = [abs(float((chance[bins == b] - visible[bins == b]).sum())) for b in range(BINS)]
    brier = ((chance - visible) ** 2).mean()
    return _rounded({"brier": brier, "expected_error": sum(gaps) / max(1, len(chance))})


def _bins(chance: NDArray[np.float64]) -> IntArray:
    return np.minimum((chance * BINS).astype(np.int64), BINS - 1)


def _reliability(chance: NDArray[np.float64], visible: BoolArray) -> list[dict[str, float]]:
    bins = _bins(chance)
    return [
        {
            "from": round(b / BINS, 2),
            "to": round((b + 1) / BINS, 2),
            "labels": int((bins == b).sum()),
            "mean_probability": round(float(chance[bins == b].mean()), 4),
            "share_visible": round(float(visible[bins == b].mean()), 4),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]


def _curve(truth: Truth, said: HeldOut) -> list[dict[str, float]]:
    """Precision and recall of the decision (policy, then model) on unseen keys at several thresholds."""
    points = []
    for threshold in CURVE:
        figures = binary_figures(truth.visible, (said.chance >= threshold) & ~truth.ruled)
        points.append({"threshold": threshold, **{name: figures[name] for name in ("precision", "recall", "f1")}})
    return points


def _confusion(truth: Truth, said: HeldOut, threshold: float) -> Figures:
    """Labels (rows) by decision (columns) on unseen keys, not visible first."""
    visible = (said.chance >= threshold) & ~truth.ruled
    decided = np.where(visible, decided_steps(said.step_chances) + 1, 0)
    table = np.zeros((len(GRADES), len(GRADES)), np.int64)
    np.add.at(table, (truth.steps + 1, decided), 1)
    return {"grades": list(GRADES), "labels_by_decision": table.tolist()}
