import math

import numpy as np
import pytest

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.chips.spread import collisions, crowded, effective_number, gini


def given_up(*chips: tuple[int, float, int, tuple[float, float, float]], most: float = 0.5) -> list[bool]:
    """Chips told by object, rank, stratum, and the corner and side of a square."""
    owners, ranks, strata, squares = zip(*chips, strict=True)
    boxes = np.array([(x, y, x + side, y + side) for x, y, side in squares], dtype=np.float64)
    return crowded(np.array(owners), np.array(ranks, np.float64), np.array(strata), boxes, most).tolist()


def test_of_two_chips_of_a_stratum_on_much_the_same_ground_the_lower_rank_stays() -> None:
    assert given_up((1, 0.7, 0, (0, 0, 10)), (2, 0.2, 0, (4, 0, 10))) == [True, False]
    assert given_up((1, 0.7, 0, (0, 0, 10)), (2, 0.2, 0, (5, 0, 10))) == [False, False]
    assert given_up((1, 0.7, 0, (0, 0, 10)), (2, 0.2, 1, (4, 0, 10))) == [False, False]
    assert given_up((1, 0.7, 0, (0, 0, 10)), (2, 0.2, 0, (0, 0, 10)), most=1.0) == [False, False]


def test_a_small_chip_within_a_large_one_gives_way_or_makes_it_give_way() -> None:
    assert given_up((1, 0.1, 0, (0, 0, 100)), (2, 0.2, 0, (50, 50, 5)), (3, 0.3, 0, (90, 90, 30))) == [
        False,
        True,
        False,
    ]
    assert given_up((1, 0.3, 0, (0, 0, 100)), (2, 0.2, 0, (50, 50, 5))) == [True, False]


def test_the_dates_of_an_object_stay_together() -> None:
    dates = ((1, 0.1, 0, (0, 0, 10)), (1, 0.1, 0, (0, 0, 10)))
    assert given_up(*dates) == [False, False]
    assert given_up((2, 0.05, 0, (1, 0, 10)), dates[0], (1, 0.1, 5, (500, 0, 10))) == [False, True, True]


def chips(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    corner, size = rng.uniform(0, 100, (n, 2)), rng.uniform(3, 12, (n, 2))
    return np.arange(n), rng.random(n), rng.integers(0, 3, n), np.concatenate([corner, corner + size], axis=1)


def naive(owners: np.ndarray, ranks: np.ndarray, strata: np.ndarray, boxes: np.ndarray, most: float) -> BoolArray:
    kept: list[int] = []
    for i in np.argsort(ranks):
        sides = np.minimum(boxes[i, 2:], boxes[kept, 2:]) - np.maximum(boxes[i, :2], boxes[kept, :2])
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        shared = np.prod(np.maximum(sides, 0), axis=1) / np.minimum(areas[i], areas[kept])
        if not (shared[strata[kept] == strata[i]] > most).any():
            kept.append(int(i))
    return ~np.isin(owners, kept)


def test_the_grid_finds_what_a_search_of_all_pairs_finds_in_any_order() -> None:
    rows = chips(600)
    found = crowded(*rows, 0.5)
    assert 100 < found.sum() < 500
    assert found.tolist() == naive(*rows, 0.5).tolist()
    order = np.random.default_rng(2).permutation(600)
    assert crowded(*(column[order] for column in rows), 0.5).tolist() == found[order].tolist()
    assert crowded(*(column[:0] for column in rows), 0.5).tolist() == []


def test_effective_number_gini_and_collisions_are_those_of_their_formulas() -> None:
    assert effective_number([5, 5, 5, 5]) == 4.0
    assert effective_number([3, 1]) == round(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))), 2)
    assert (effective_number([]), gini([]), collisions([], 512), collisions([1], 512)) == (0.0, 0.0, 0.0, 0.0)
    assert gini([2, 2, 2]) == 0.0
    assert gini([0, 0, 0, 8]) == 0.75
    assert collisions([512], 512) == pytest.approx(511)
    assert collisions([1] * 512, 512) == 0.0
    assert collisions([2, 2], 4) == pytest.approx(1.0)
