import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from skyscript_assets.lib.benchmarks.captioning import captioner_figures, cider_d, retrieved


def test_cider_d_agrees_with_one_worked_by_hand() -> None:
    # Two images: "a" occurs in the references of both and weighs nothing, every other word log 2.
    scores = cider_d(["a red road", "a lake"], [["a red road"], ["a blue sea", "a lake"]])
    # Image 0: n-grams of 1, 2 and 3 words agree wholly, of 4 there are none: 3 of 4, times 10.
    # Image 1: nothing is shared with "a blue sea" that weighs; with "a lake" n-grams of 1 and 2 words agree.
    assert scores == pytest.approx([7.5, (0 + 5.0) / 2])
    # One word more costs exp(-1 / 72); said twice, a word is counted as often as the reference has it.
    longer = cider_d(["a red road road", "x"], [["a red road"], ["a lake"]])[0]
    ones = 2 / (math.sqrt(1 + 4) * math.sqrt(2))
    twos = 2 / (math.sqrt(3) * math.sqrt(2))
    threes = 1 / math.sqrt(2)
    assert longer == pytest.approx(10 / 4 * math.exp(-1 / 72) * (ones + twos + threes))


def test_captions_that_share_nothing_or_are_empty_score_zero() -> None:
    assert cider_d(["x y", "", "!?"], [["a b"], ["c"], ["c d"]]) == [0.0, 0.0, 0.0]


def test_an_image_never_gets_a_caption_that_is_its_own_alone() -> None:
    matches = csr_array(np.array([[1, 0, 1], [0, 1, 1]], dtype=bool))
    images, texts = np.eye(2), np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
    assert retrieved(images, texts, matches).tolist() == [2, 2]  # the third is true of both


def test_what_all_captions_begin_with_is_not_scored() -> None:
    matches = csr_array(np.eye(3, dtype=bool))
    images, texts = np.eye(3), np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    said = ["a road by a lake", "a road by a sea", "a wood"]
    plain = captioner_figures(images, texts, said, matches)
    prefixed = captioner_figures(images, texts, [f"It is {one}" for one in said], matches)
    assert plain == prefixed
    assert plain["clip_score"] == pytest.approx(2.5)
    assert captioner_figures(images[:1], texts[:1], ["a"], csr_array(np.ones((1, 1), dtype=bool))) == {}
