import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from skyscript_assets.lib.benchmarks import metrics as module
from skyscript_assets.lib.benchmarks.metrics import (
    Draws,
    average_precision,
    class_means,
    roc_auc,
    top1_credit,
    wrong_before,
)


def drawn(seed: int, tied: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((80, 3)) < [0.1, 0.5, 0.9]
    truth[0], truth[1] = True, False
    scores = rng.normal(size=(80, 3)) + truth
    return truth, np.round(scores, 0) if tied else scores


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.booleans())
def test_areas_agree_with_scikit_learn_with_and_without_ties(seed: int, tied: bool) -> None:
    truth, scores = drawn(seed, tied)
    for ours, theirs in ((roc_auc, roc_auc_score), (average_precision, average_precision_score)):
        expected = [theirs(truth[:, c], scores[:, c]) for c in range(3)]
        np.testing.assert_allclose(ours(truth, scores)[0], expected, rtol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 80))
def test_a_drawn_cluster_counts_as_its_items_repeated(seed: int, clusters: int) -> None:
    truth, scores = drawn(seed, tied=True)
    rng = np.random.default_rng(seed)
    member = rng.integers(0, clusters, 80)
    counts = rng.integers(0, 4, (2, clusters)).astype(float)
    counts[:, member[:2]] = 1
    for ours, theirs in ((roc_auc, roc_auc_score), (average_precision, average_precision_score)):
        values = ours(truth, scores, Draws(member, counts))
        for row, weights in zip(values, counts[:, member], strict=True):
            expected = [theirs(truth[:, c], scores[:, c], sample_weight=weights) for c in range(3)]
            np.testing.assert_allclose(row, expected, rtol=1e-10)


def test_a_class_without_positives_or_without_negatives_has_no_area() -> None:
    truth = np.array([[True, False], [True, False]])
    scores = np.array([[0.1, 0.2], [0.3, 0.4]])
    assert np.isnan(roc_auc(truth, scores)).all()
    assert np.isnan(average_precision(truth, scores)).all()


def test_equal_scores_are_at_chance_level() -> None:
    truth = np.array([[True], [False], [False], [True]])
    assert roc_auc(truth, np.zeros((4, 1)))[0, 0] == 0.5
    assert top1_credit(np.zeros((3, 4)), np.array([0, 1, 3])).tolist() == [0.25] * 3


def test_top1_credits_only_the_highest_score() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.1, 0.3], [0.4, 0.4, 0.1]])
    assert top1_credit(scores, np.array([0, 1, 1])).tolist() == [1.0, 0.0, 0.5]


def test_recall_of_each_class_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 4, 60), rng.normal(size=(60, 4))
    expected = recall_score(labels, scores.argmax(1), average=None)
    np.testing.assert_allclose(class_means(top1_credit(scores, labels), labels, 4)[0], expected)


def test_a_class_without_items_has_no_recall() -> None:
    recalls = class_means(np.array([1.0, 0.0]), np.array([0, 0]), 2)
    assert recalls[0, 0] == 0.5
    assert np.isnan(recalls[0, 1])


def before(similarity: np.ndarray, matches: np.ndarray) -> list[int]:
    """Ranks where the similarities of queries and items are those given."""
    return wrong_before(similarity, np.eye(similarity.shape[1]), csr_array(matches)).tolist()


def test_any_matching_item_in_the_first_k_is_a_hit() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    assert before(similarity, np.array([[False, True, False, True], [True, False, False, False]])) == [1, 3]


def test_a_scorer_that_gives_everything_the_same_score_retrieves_nothing() -> None:
    assert before(np.ones((3, 3)), np.eye(3, dtype=bool)) == [2, 2, 2]


def test_a_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a matching item"):
        before(np.ones((1, 2)), np.zeros((1, 2), dtype=bool))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_ranks_do_not_depend_on_the_blocks_and_are_those_of_a_sort(seed: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    queries, items = rng.normal(size=(13, 4)), rng.normal(size=(17, 4))
    matches = rng.random((13, 17)) < 0.15
    matches[np.arange(13), rng.integers(0, 17, 13)] = True
    expected = [int(np.flatnonzero(row[np.argsort(-q)])[0]) for q, row in zip(queries @ items.T, matches, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIMILARITIES_AT_ONCE", at_once)
        assert wrong_before(queries, items, csr_array(matches)).tolist() == expected


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    scores = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.6, 0.4], [0.6, 0.4]]))
    bins = module.reliability(scores, 1.0, np.array([1.0, 0.0, 1.0, 1.0]))
    np.testing.assert_allclose(bins, [[2, 0.6, 1.0], [2, 0.8, 0.5]])
    assert module.calibration_error(bins) == pytest.approx((0.4 + 0.3) / 2)
    assert module.reliability(np.array([[900.0, 0.0]]), 100.0, np.ones(1)).tolist() == [[1, 1, 1]]
