"""Cross-validation: what is held out, what figures mean, and that no figure is of labels that were trained on."""

import numpy as np
import pytest

from skyscript_assets.lib.tags.agreement import GRADES
from skyscript_assets.lib.tags.labels import Label
from skyscript_assets.lib.tags.model import kernel
from skyscript_assets.lib.tags.validation import (
    FOLDS,
    Truth,
    assign_folds,
    binary_figures,
    cross_validate,
    figure_rows,
    hold_out,
    step_figures,
)

GSDS = (0.1, 0.6, 10.0)


def random_truth(keys: int = 40, values: int = 5, seed: int = 0) -> tuple[Truth, np.ndarray]:
    """Labels that follow the features, without noise."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(keys * values, 3))
    labels = {}
    for i, row in enumerate(rows):
        gsd = GSDS[int(np.clip(round(1 + row[1]), 0, 2))] if row[0] > 0 else None
        labels[f"key{i % keys}", f"v{i}"] = Label(gsd is not None, gsd, "so", i)
    return Truth.of(labels), rows


def test_a_key_is_never_on_both_sides_and_assignments_differ() -> None:
    names = [f"key{i % 37}" for i in range(200)]
    folds = assign_folds(names, 0)
    assert {len({folds[i] for i, name in enumerate(names) if name == key}) for key in set(names)} == {1}
    sizes = np.bincount([folds[names.index(key)] for key in set(names)], minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1
    assert (folds != assign_folds(names, 1)).any()
    np.testing.assert_array_equal(folds, assign_folds(names, 0))


def test_a_label_does_not_reach_its_own_prediction() -> None:
    truth, rows = random_truth()
    similar, folds = kernel(rows, rows), assign_folds(truth.keys, 0)
    said = hold_out(similar, truth, folds)
    held = folds == 3
    lies = Truth(truth.tags, np.where(held, ~truth.visible, truth.visible), np.where(held, 2, truth.steps), truth.ruled)
    lied = hold_out(similar, lies, folds)
    np.testing.assert_array_equal(said.chance[held], lied.chance[held])
    np.testing.assert_array_equal(said.step_chances[held], lied.step_chances[held])
    assert (said.chance[~held] != lied.chance[~held]).any()


def test_what_follows_the_features_is_found_and_beats_the_baselines() -> None:
    truth, rows = random_truth()
    report = cross_validate(rows, truth, 0.5, 0.5)
    stage_1, stage_2 = report["stage_1"]["unseen_keys"], report["stage_2"]["unseen_keys"]
    assert stage_1["model"]["f1"] > 0.9 > stage_1["all_yes"]["f1"]
    assert stage_2["model"]["exact"] > stage_2["middle_step"]["exact"] + 0.1
    assert report["calibration"]["brier"] < report["calibration"]["brier_of_the_share_of_visible_labels"] / 2
    low, high = report["intervals"]["f1"]
    assert low <= stage_1["decision"]["f1"] <= high


def test_labels_without_any_pattern_give_no_better_than_the_baselines() -> None:
    truth, rows = random_truth()
    report = cross_validate(np.random.default_rng(9).normal(size=rows.shape), truth, 0.5, 0.5)
    stage_1 = report["stage_1"]["unseen_keys"]
    assert stage_1["model"]["accuracy"] < 0.62
    calibration = report["calibration"]
    assert calibration["brier"] > calibration["brier_of_the_share_of_visible_labels"] - 0.01


def test_an_unseen_key_has_no_majority_of_its_own() -> None:
    labels = {}
    for i in range(30):
        for j in range(4):
            labels[f"key{i}", f"v{j}"] = Label(i % 3 == 0, 1.0 if i % 3 == 0 else None, "so", 0)
    truth = Truth.of(labels)
    report = cross_validate(np.random.default_rng(0).normal(size=(120, 3)), truth, 0.5, 0.5)["stage_1"]
    assert report["known_keys"]["key_majority"]["accuracy"] == 1.0
    assert report["unseen_keys"]["key_majority"]["accuracy"] == pytest.approx(2 / 3, abs=1e-3)


def test_tables_count_every_label_once() -> None:
    truth, rows = random_truth()
    report = cross_validate(rows, truth, 0.5, 0.5)
    confusion = np.array(report["confusion"]["labels_by_decision"])
    assert confusion.shape == (len(GRADES), len(GRADES))
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(truth.steps + 1, minlength=len(GRADES)))
    assert sum(row["labels"] for row in report["calibration"]["reliability"]) == len(truth.tags)
    recalls = [point["recall"] for point in report["precision_recall"]]
    assert recalls == sorted(recalls, reverse=True)


def test_the_policy_decides_before_the_model() -> None:
    labels = {("religion", f"v{i}"): Label(False, None, "belief", 0) for i in range(20)}
    labels |= {("natural", f"v{i}"): Label(True, 1.0, "so", 0) for i in range(20)}
    truth = Truth.of(labels)
    assert truth.ruled.sum() == 20
    figures = cross_validate(np.random.default_rng(0).normal(size=(40, 3)), truth, 0.0, 0.0)["stage_1"]["unseen_keys"]
    assert figures["model"]["precision"] == 0.5
    assert figures["decision"]["precision"] == figures["policy"]["precision"] == 1.0


def test_figures_are_what_their_names_say() -> None:
    truth, said = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert binary_figures(truth, said) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.5}
    steps = step_figures(np.array([0, 1, 2, 5]), np.array([0, 2, 4, 5]))
    assert steps == {"exact": 0.5, "within_one_step": 0.75, "mean_steps_off": 0.75}


def test_unseen_keys_have_a_threshold_of_their_own() -> None:
    truth, rows = random_truth()
    plain, strict = (cross_validate(rows, truth, 0.5, least) for least in (0.5, 0.9))
    figures = [report["stage_1"]["unseen_keys"]["model"] for report in (plain, strict)]
    assert figures[1]["recall"] < figures[0]["recall"]
    assert strict["stage_1"]["known_keys"] == plain["stage_1"]["known_keys"]
    assert strict["unseen_threshold"] == 0.9
    unused = [sum(row[0] for row in report["confusion"]["labels_by_decision"]) for report in (plain, strict)]
    assert unused[1] > unused[0]


def test_figures_become_rows_for_the_eye() -> None:
    truth, rows = random_truth()
    report = cross_validate(rows, truth, 0.5, 0.5)
    shown = figure_rows(report)
    assert list(shown[0]) == ["stage", "labels held out", "decided by", "figure", "value", "deviation"]
    first = next(row for row in shown if row["decided by"] == "decision")
    assert (first["value"], first["labels held out"]) == (
        report["stage_1"]["unseen_keys"]["decision"]["f1"],
        "whole keys",
    )
