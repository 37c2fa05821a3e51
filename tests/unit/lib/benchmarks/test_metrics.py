import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from skyscript_assets.lib.benchmarks.metrics import (
    Draws,
    average_precision,
    class_means,
    recall_at,
    roc_auc,
    top1_credit,
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


def test_any_matching_item_in_the_first_k_is_a_hit() -> None:
    similarity = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4]])
    matches = np.array([[False, True, False, True], [True, False, False, False]])
    assert recall_at(similarity, matches, (1, 2, 3, 4)).tolist() == [0.0, 0.5, 0.5, 1.0]


def test_a_scorer_that_gives_everything_the_same_score_retrieves_nothing() -> None:
    assert recall_at(np.ones((3, 3)), np.eye(3, dtype=bool), (1, 2)).tolist() == [0.0, 0.0]


def test_a_query_without_a_right_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a matching item"):
        recall_at(np.ones((1, 2)), np.zeros((1, 2), dtype=bool))
