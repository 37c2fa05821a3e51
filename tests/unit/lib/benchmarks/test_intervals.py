from dataclasses import replace

import numpy as np
import pytest

from skyscript_assets.lib.benchmarks import intervals as module
from skyscript_assets.lib.benchmarks.intervals import (
    ScoredItems,
    bootstrap,
    group_interval,
    intervals,
    tail_of,
)
from skyscript_assets.lib.errors import CorruptInputError


def items(quality: float, seed: int = 0, n: int = 200, cells: int = 20) -> ScoredItems:
    truth = np.random.default_rng(9).random((n, 3)) < 0.4
    scores = quality * truth + np.random.default_rng(seed).normal(size=(n, 3))
    return ScoredItems(tuple(map(str, range(n))), tuple(f"{i % cells}/0" for i in range(n)), truth, scores)


def test_the_interval_of_a_mean_agrees_with_the_standard_error_of_cell_means() -> None:
    rng = np.random.default_rng(0)
    clusters = [str(i // 10) for i in range(1000)]
    values = np.repeat(rng.normal(size=100), 10)
    (mean,) = intervals(clusters, 2000, lambda draws: draws.totals(values[:, None]) / draws.totals(np.ones((1000, 1))))
    error = values[::10].std(ddof=1) / 10
    assert mean.value == pytest.approx(values.mean())
    assert mean.low == pytest.approx(values.mean() - 1.96 * error, abs=0.03)
    assert mean.high == pytest.approx(values.mean() + 1.96 * error, abs=0.03)


def test_few_or_unequal_clusters_have_longer_intervals() -> None:
    equal = [str(i % 18) for i in range(180)]
    # Student's 97.5 % quantile for 17 degrees of freedom is 2.1098, and 2.1098 * sqrt(18 / 17) leaves 1.497 % beyond.
    assert tail_of(equal) == pytest.approx(0.01497, abs=1e-5)
    assert tail_of([str(i) for i in range(5000)]) == pytest.approx(0.025, abs=1e-4)
    assert tail_of([*equal, *["0"] * 180]) < tail_of(equal)
    assert 0.0 <= tail_of(["a"] * 1000 + ["b"]) < 1e-6


def test_items_of_one_cell_are_drawn_together() -> None:
    drawn = bootstrap(["a", "b", "a", "c"], 50, lambda draws: draws.counts[:, draws.member])
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
    assert (drawn[:, [0, 1, 3]].sum(1) == 3).all()


def test_draws_do_not_depend_on_how_many_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(list("abcd"), 30, lambda draws: draws.counts)
    monkeypatch.setattr(module, "MAX_COUNTS", 12)
    np.testing.assert_array_equal(bootstrap(list("abcd"), 30, lambda draws: draws.counts), whole)


def test_a_better_group_is_better_by_a_paired_interval_above_zero() -> None:
    good = [items(2.0, seed) for seed in range(3)]
    weak = [items(0.2, seed) for seed in range(3, 6)]
    difference = group_interval(good, 300, weak)
    assert difference.low is not None
    assert 0 < difference.low < difference.value < (difference.high or 0)


def test_a_group_compared_with_itself_differs_by_nothing() -> None:
    lone = [items(1.0)]
    difference = group_interval(lone, 100, lone)
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_seeds_that_differ_make_intervals_longer_and_fewer_seeds_more_so() -> None:
    seeds = [items(quality) for quality in (0.9, 1.0, 1.1, 1.0, 0.95)]
    (of_cells,) = intervals(seeds[0].clusters, 200, lambda draws: seeds[1].primary(draws)[:, None])
    alone, three, five = (group_interval(seeds[:n], 200) for n in (1, 3, 5))
    same = group_interval([seeds[1]] * 3, 200)
    assert (same.low, same.high) == (of_cells.low, of_cells.high)
    lengths = [figure.high - figure.low for figure in (alone, five, three)]
    assert lengths == sorted(lengths)
    apart = [items(quality) for quality in (0.0, 6.0)]
    assert (group_interval(apart, 100).low, group_interval(apart, 100).high) == (0.0, 1.0)
    difference = group_interval(apart, 100, seeds)
    assert (difference.low, difference.high) == (-1.0, 1.0)


def test_where_seeds_alone_differ_the_interval_is_students() -> None:
    ids = tuple(map(str, range(100)))
    group = [
        ScoredItems(ids, ids, np.eye(100, dtype=bool), np.eye(100), np.full(100, share)) for share in (0.4, 0.5, 0.6)
    ]
    interval = group_interval(group, 100)
    # Student's quantile for two degrees of freedom is 4.3027; 0.1 is the deviation, 0.4399 the median's share of it.
    reach = 4.3027 * 0.1 * np.sqrt(np.pi / (6 + np.pi - 2))
    assert (interval.low, interval.high) == pytest.approx((0.5 - reach, 0.5 + reach), abs=1e-4)


def test_the_figure_of_a_group_is_the_median_of_its_seeds() -> None:
    group = [items(quality) for quality in (0.1, 1.0, 3.0)]
    assert group_interval(group, 100).value == pytest.approx(group[1].primary()[0])


def test_single_cell_data_has_a_figure_and_no_interval() -> None:
    lone = items(1.0, cells=1)
    interval = group_interval([lone], 100)
    assert interval.value > 0.5
    assert (interval.low, interval.high) == (None, None)


def test_a_class_that_a_draw_misses_is_left_out_of_its_mean() -> None:
    rare = items(1.0)
    truth = rare.truth.copy()
    truth[:, 0] = False
    truth[0, 0] = True
    interval = group_interval([replace(rare, truth=truth)], 200)
    assert interval.low is not None


def test_models_scored_on_different_items_are_not_compared() -> None:
    first = items(1.0)
    for other in (items(1.0, n=199), replace(first, truth=~first.truth)):
        with pytest.raises(CorruptInputError, match="different items"):
            group_interval([first], 100, [other])


def test_single_label_items_are_compared_by_accuracy() -> None:
    def scored(credit: list[float]) -> ScoredItems:
        ids = tuple("abcd")
        return ScoredItems(ids, ids, np.eye(4, dtype=bool), np.eye(4), np.array(credit))

    difference = group_interval([scored([1, 1, 1, 0.5])], 100, [scored([0, 0, 0, 0.5])])
    assert difference.value == 0.75

    assert [i.value for i in intervals(tuple("abcd"), 10, scored([1, 1, 0, 0]).class_recall)] == [1, 1, 0, 0]
