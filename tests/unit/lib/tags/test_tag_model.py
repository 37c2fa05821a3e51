"""The two Gaussian processes: closed forms against refits, probabilities, calibration."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from skyscript_assets.lib.tags.model import BIAS, LENGTH, NOISE, GroundabilityModel, _Process, decided_steps, kernel


@pytest.fixture(scope="module")
def town() -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64], list[str]]:
    """300 tags under 60 keys: visible where the first number is positive, coarser the larger the second."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 4))
    visible = rows[:, 0] + 0.3 * rng.normal(size=300) > 0
    steps = np.clip(np.round(2.5 + 1.5 * rows[:, 1] + 0.3 * rng.normal(size=300)), 0, 5).astype(np.int64)
    return rows, visible, np.where(visible, steps, -1), [f"key{i % 60}" for i in range(300)]


def test_the_process_is_the_gaussian_process_of_scikit_learn(town) -> None:
    rows, visible, _, keys = town
    targets = np.where(visible, 1.0, -1.0)
    process = _Process.fit(kernel(rows, rows), targets, keys)
    length = np.sqrt(2.0 / LENGTH)  # exp(-LENGTH / 4 * d) = exp(-d / (2 * length ** 2))
    of_sklearn = GaussianProcessRegressor(
        ConstantKernel(BIAS) + RBF(length) + WhiteKernel(NOISE), optimizer=None, alpha=0.0
    ).fit(rows, targets - targets.mean())
    asked = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_allclose(process.says(kernel(asked, rows)), of_sklearn.predict(asked) + targets.mean(), atol=1e-9)


def test_what_is_said_without_a_key_is_what_a_refit_without_it_says(town) -> None:
    rows, visible, _, keys = town
    targets = np.where(visible, 1.0, -1.0)
    similar = kernel(rows, rows)
    process = _Process.fit(similar, targets, keys)
    out = np.array([key == "key7" for key in keys])
    # The mean of all labels stays: that is one number of three hundred labels.
    inverse = np.linalg.inv(similar[np.ix_(~out, ~out)] + NOISE * np.eye(int((~out).sum())))
    refit = similar[np.ix_(out, ~out)] @ inverse @ (targets[~out] - targets.mean()) + targets.mean()
    np.testing.assert_allclose(process.left_out[out], refit, atol=1e-9)


def test_probabilities_of_unseen_tags_are_calibrated(town) -> None:
    rows, visible, steps, keys = town
    train = np.arange(300) < 200
    model = GroundabilityModel.fit(
        kernel(rows[train], rows[train]), visible[train], steps[train], keys[:200], np.ones(200, np.bool_)
    )
    asked = kernel(rows[~train], rows[train])
    chance = model.chance(asked)
    assert ((chance > 0.5) == visible[~train]).mean() > 0.85
    assert ((chance - visible[~train]) ** 2).mean() < 0.12
    sure = (chance > 0.9) | (chance < 0.1)
    assert ((chance > 0.5) == visible[~train])[sure].mean() > 0.9


def test_steps_have_probabilities_that_sum_to_one_and_grow_coarser_together(town) -> None:
    rows, visible, steps, keys = town
    model = GroundabilityModel.fit(kernel(rows, rows), visible, steps, keys, np.ones(300, np.bool_))
    chances = model.step_chances(kernel(rows, rows))
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    assert (chances >= 0.0).all()
    decided = decided_steps(chances)
    assert np.abs(decided - steps)[visible].mean() < 0.5
    # One number orders all tags: cumulative probabilities never cross.
    above = 1.0 - np.cumsum(chances, axis=1)
    order = np.argsort(above[:, 2])
    assert (np.diff(above[order], axis=0) > -1e-9).all()


def test_the_median_step_has_the_least_expected_error() -> None:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(6, 0.4), size=200)
    apart = np.abs(np.arange(6)[:, None] - np.arange(6)[None, :])
    expected = chances @ apart
    np.testing.assert_allclose(expected[np.arange(200), decided_steps(chances)], expected.min(axis=1))


def test_a_model_that_cannot_tell_says_the_share_of_visible_labels(town) -> None:
    _, visible, steps, keys = town
    blind = np.ones((300, 300)) + BIAS
    model = GroundabilityModel.fit(blind, visible, steps, keys, np.ones(300, np.bool_))
    np.testing.assert_allclose(model.chance(blind), visible.mean(), atol=0.02)


def test_calibration_on_labels_of_one_answer_falls_back_to_all(town) -> None:
    rows, visible, steps, keys = town
    similar = kernel(rows, rows)
    everything = GroundabilityModel.fit(similar, visible, steps, keys, np.ones(300, np.bool_))
    seen_only = GroundabilityModel.fit(similar, visible, steps, keys, visible)
    np.testing.assert_array_equal(seen_only.chance(similar), everything.chance(similar))
