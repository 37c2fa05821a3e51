import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skyscript_assets.lib.benchmarks.controls import (
    DEFAULT_REGULARISATION,
    REGULARISATION,
    log_odds,
    metadata_features,
    probe_scores,
)


def drawn(items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(items, 12)).astype(np.float32) * 3 + 1
    features[:, 11] = 7.0
    truth = features[:, :3] + rng.normal(size=(items, 3)) > 1
    return features, truth


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10.0])
def test_log_odds_are_those_of_scikit_learn(strength: float) -> None:
    features, truth = drawn(120)
    asked, _ = drawn(30, seed=1)
    scaler = StandardScaler().fit(features)
    for column in range(3):
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=1000)
        expected = model.fit(scaler.transform(features), truth[:, column]).decision_function(scaler.transform(asked))
        ours = log_odds(features, truth, asked, strength)[:, column]
        np.testing.assert_allclose(ours, expected, rtol=0.02, atol=0.02)


def test_a_class_that_all_or_none_have_scores_zero() -> None:
    features, truth = drawn(40)
    truth[:, 0], truth[:, 1] = True, False
    scores = log_odds(features, truth, features, 1.0)
    assert (scores[:, :2] == 0).all()
    assert scores[:, 2].any()


def test_the_penalty_is_chosen_on_validation_windows() -> None:
    train, val = drawn(100), drawn(50, seed=2)
    scores, chosen = probe_scores(train, val, drawn(20, seed=3)[0])
    assert scores.shape == (20, 3)
    assert chosen in REGULARISATION


def test_without_usable_validation_windows_the_penalty_is_the_fixed_one() -> None:
    features, truth = drawn(60)
    for val in ((features[:0], truth[:0]), (features[:2], np.ones((2, 3), dtype=bool))):
        scores, chosen = probe_scores((features, truth), val, features)
        assert chosen == DEFAULT_REGULARISATION
        np.testing.assert_array_equal(scores, log_odds(features, truth, features, DEFAULT_REGULARISATION))


def test_metadata_is_size_gsd_region_and_source_and_nothing_else() -> None:
    items = pa.table(
        {
            "width": [128, 128],
            "height": [128, 64],
            "gsd_m": [1.0, 0.5],
            "region": ["a", "b"],
            "source": ["s", "s"],
            "image": [b"x", b"y"],
        }
    )
    expected = [[np.log(128), np.log(128), 0.0, 1, 0, 1], [np.log(128), np.log(64), np.log(0.5), 0, 1, 1]]
    np.testing.assert_allclose(metadata_features(items), expected)
