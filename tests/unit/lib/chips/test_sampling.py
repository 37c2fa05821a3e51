import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from skyscript_assets.lib.chips.sampling import (
    Snapshot,
    TagPairs,
    draw,
    longer_sides_m,
    match_tags,
    object_codes,
    probabilities,
    read_snapshot,
    strata,
    suits,
    unit_hashes,
)
from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.vocabulary import limits_px

TREES, PIER, ROAD = 0, 1, 2
SNAPSHOT = Snapshot(
    keys=("landuse", "man_made", "road"),
    values=("trees", "pier", "a"),
    coarsest_gsd_m=np.array([10.0, 0.6, 1.0]),
    counts={0.3: np.array([1000, 5, 40]), 10.0: np.array([100, 0, 0])},
    gsds=(0.3, 10.0),
    area_side_m=np.zeros(3),
)
CODES = object_codes(pa.chunked_array([pa.array([f"n{i}" for i in range(4000)])]))
NOWHERE = np.zeros((4000, 2))
ALL_TREES = TagPairs(np.arange(4000), np.full(4000, TREES))


def settings(**changes: Any) -> PlanSettings:
    return PlanSettings(**{"snapshot": "s", "quota": 100, **changes})


def drawn_trees(n: int, quota: int = 100, **more: Any) -> set[int]:
    mask = draw(ALL_TREES, CODES, NOWHERE, SNAPSHOT, np.array([n, 0, 0]), settings(quota=quota, **more))
    return set(np.flatnonzero(mask).tolist())


def tags_column(*rows: dict[str, str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([list(row.items()) for row in rows], TAGS_TYPE)])


@hypothesis_settings(deadline=None)
@given(
    n=st.integers(1, 5000),
    more=st.integers(0, 5000),
    quota=st.integers(1, 3000),
    less=st.integers(0, 3000),
    rare_below=st.none() | st.integers(0, 6000),
    seed=st.integers(0, 99),
)
def test_draws_are_nested_when_a_tag_becomes_more_frequent_or_its_quota_smaller(
    n: int, more: int, quota: int, less: int, rare_below: int | None, seed: int
) -> None:
    wide = drawn_trees(n, quota, rare_below=rare_below, seed=seed)
    assert drawn_trees(n + more, quota, rare_below=rare_below, seed=seed) <= wide
    assert drawn_trees(n, max(1, quota - less), rare_below=rare_below, seed=seed) <= wide


def test_about_quota_objects_are_drawn_of_a_frequent_tag_and_all_of_a_rare_one() -> None:
    assert 80 < len(drawn_trees(4000)) < 120
    assert len(drawn_trees(4000, quota=5000)) == 4000
    assert len(drawn_trees(0)) == 4000


def test_an_object_is_drawn_or_not_whoever_else_is_there() -> None:
    few = TagPairs(np.arange(0, 400), np.full(400, TREES))
    mask = draw(few, CODES[::10], NOWHERE[::10], SNAPSHOT, np.array([1000, 0, 0]), settings())
    assert {10 * i for i in np.flatnonzero(mask)} == {i for i in drawn_trees(1000) if i % 10 == 0}


def test_a_rare_tag_draws_all_its_objects_whatever_the_quota() -> None:
    assert len(drawn_trees(4000, rare_below=4001)) == 4000
    assert len(drawn_trees(4000, rare_below=4000)) < 200
    few = settings(sampling="squares", square_share=0.3)
    assert probabilities(np.array([99, 100, 0]), few).tolist() == [1.0, 0.3, 1.0]


def test_another_seed_is_another_sample() -> None:
    assert drawn_trees(1000) != drawn_trees(1000, seed=1)


def test_tags_draw_independently_of_each_other() -> None:
    counts = np.array([200, 0, 200])
    both = [
        draw(TagPairs(np.arange(4000), np.full(4000, tag)), CODES, NOWHERE, SNAPSHOT, counts, settings())
        for tag in (TREES, ROAD)
    ]
    assert 900 < (both[0] & both[1]).sum() < 1100


def test_the_papers_way_draws_whole_squares_and_then_all_objects_of_rare_tags() -> None:
    rng = np.random.default_rng(1)
    places = rng.uniform(-1.0, 1.0, (4000, 2))
    tags = np.where(np.arange(4000) % 100 == 0, PIER, TREES)
    pairs = TagPairs(np.arange(4000), tags)
    drawn = draw(
        pairs, CODES, places, SNAPSHOT, np.array([3960, 40, 0]), settings(sampling="squares", square_share=0.2)
    )
    assert drawn[tags == PIER].all()
    common = drawn[tags == TREES]
    assert 0.17 < common.mean() < 0.23
    squares = [tuple(square) for square in np.floor(places[tags == TREES] / 0.01).tolist()]
    assert not {s for s, yes in zip(squares, common, strict=True) if yes} & {
        s for s, yes in zip(squares, common, strict=True) if not yes
    }
    wider = draw(
        pairs, CODES, places, SNAPSHOT, np.array([3960, 40, 0]), settings(sampling="squares", square_share=0.3)
    )
    assert (wider >= drawn).all()


def test_what_a_tag_wants_is_its_quota_or_all_it_has() -> None:
    counts = np.array([1000, 40, 100])
    assert probabilities(counts, settings()).tolist() == [0.1, 1.0, 1.0]
    assert probabilities(counts, settings(sampling="squares")).tolist() == [0.1, 1.0, 0.1]


def test_hash_numbers_are_uniform_and_the_same_on_every_machine() -> None:
    numbers = unit_hashes(CODES, "seed", 1)
    assert numbers[:2] == pytest.approx([0.23673384271030662, 0.6540648081459353])
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(400, abs=80)
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers, unit_hashes(CODES, "seed", 2))[0, 1]) < 0.05


def test_ids_have_codes_of_their_own_and_odd_ones_are_named() -> None:
    ids = ["n1", "w1", "a1", "r1", "n2", "n-1", "a-1", "w999999999999"]
    assert len(set(object_codes(pa.chunked_array([ids])).tolist())) == len(ids)
    for odd in ("x1", "n", "1", "n1.5", "", None):
        with pytest.raises(ValueError, match="no letter of 'nwar'"):
            object_codes(pa.chunked_array([pa.array(["n1", odd])]))


@pytest.mark.parametrize("rule", ["focus", "paper"])
def test_the_size_rule_at_one_gsd_is_the_vocabularys(rule: Literal["focus", "paper"]) -> None:
    chips = settings(rule=rule)
    sides = np.concatenate([np.arange(0, 400, 0.5), [16 * 0.3, 1000 / 1.5 * 0.3]])
    gsd = np.full(len(sides), 0.3)
    for kind in ("node", "line", "area"):
        found = suits(np.full(len(sides), kind), sides, gsd, gsd, chips)
        least, most = limits_px(kind, chips)
        assert (found == (sides >= least * 0.3) & (sides <= most * 0.3)).all()


def test_between_two_edges_neither_visibility_nor_counts_change() -> None:
    edges = SNAPSHOT.edges().tolist()
    assert edges == sorted([0.6 * 1.05, 1.05, 10.5, 3.0**0.5])
    for low, high in itertools.pairwise([0.01, *edges, 50.0]):
        inner = np.linspace(low, high, 7)[1:-1].tolist()
        assert len({(tuple(SNAPSHOT.visible(gsd)), SNAPSHOT.nearest_gsd(gsd)) for gsd in inner}) == 1


def test_a_stratum_is_the_rarest_tag_and_ties_go_by_alphabet() -> None:
    pairs = TagPairs(np.array([0, 0, 0, 1, 1, 3]), np.array([TREES, PIER, ROAD, TREES, ROAD, TREES]))
    assert strata(pairs, np.array([9, 2, 5]), 4).tolist() == [PIER, ROAD, -1, TREES]
    assert strata(pairs, np.array([7, 7, 7]), 4).tolist() == [TREES, TREES, -1, TREES]


def test_tags_are_found_on_objects_in_any_order_and_chunking() -> None:
    column = tags_column({"road": "a", "landuse": "trees"}, {}, {"road": "b"}, {"man_made": "pier"})
    split = pa.chunked_array([column.chunk(0).slice(0, 1), column.chunk(0).slice(1)])
    for tags in (column, split, column.slice(0)):
        found = match_tags(tags, SNAPSHOT)
        assert list(zip(found.objects.tolist(), found.tags.tolist(), strict=True)) == [(0, TREES), (0, ROAD), (3, PIER)]
    later = match_tags(column.slice(2), SNAPSHOT)
    assert (later.objects.tolist(), later.tags.tolist()) == ([1], [PIER])


def test_tags_are_found_in_lists_and_in_any_spelling_each_once() -> None:
    column = tags_column(
        {"landuse": "Trees; grass;trees", "man_made": "mast;pier"},
        {"road": "b;c"},
        {"road": "A"},
        {"landuse": "as;trees"},
    )
    found = match_tags(column, SNAPSHOT)
    assert list(zip(found.objects.tolist(), found.tags.tolist(), strict=True)) == [(0, TREES), (0, PIER), (3, TREES)]


TAG_VALUES = st.text(alphabet="aAb;.,0 3m\u200b", max_size=12)


@hypothesis_settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["k", "l", "m"]), TAG_VALUES), max_size=12), st.integers(0, 3))
def test_tags_are_found_where_the_normal_values_of_an_object_hold_them(rows: list[dict[str, str]], start: int) -> None:
    tags = sorted({(key, value) for row in rows for key, listed in row.items() for value in normal_values(listed)})[::2]
    names = tuple(k for k, _ in tags), tuple(v for _, v in tags)
    snapshot = Snapshot(*names, np.ones(len(tags)), {}, (), np.zeros(len(tags)))
    found = match_tags(tags_column(*rows).slice(start), snapshot)
    assert list(zip(found.objects.tolist(), found.tags.tolist(), strict=True)) == [
        (place, number)
        for place, row in enumerate(rows[start:])
        for number, (key, value) in enumerate(tags)
        if value in normal_values(row.get(key, ""))
    ]


@pytest.mark.parametrize("empty", [pa.chunked_array([], TAGS_TYPE), tags_column({}), tags_column()])
def test_no_tags_make_no_pairs(empty: pa.ChunkedArray) -> None:
    assert len(match_tags(empty, SNAPSHOT).objects) == 0


def test_a_tag_is_visible_up_to_its_coarsest_gsd_and_a_little_beyond() -> None:
    assert SNAPSHOT.visible(0.6).tolist() == [True, True, True]
    assert SNAPSHOT.visible(0.62).tolist() == [True, True, True]
    assert SNAPSHOT.visible(0.7).tolist() == [True, False, True]
    assert SNAPSHOT.visible(30.0).tolist() == [False, False, False]


def test_counts_are_those_of_the_nearest_gsd() -> None:
    assert SNAPSHOT.nearest_gsd(0.298) == 0.3
    assert SNAPSHOT.count_at(8.0)[TREES] == 100
    nothing = Snapshot((), (), np.zeros(0), {}, (), np.zeros(0))
    assert nothing.nearest_gsd(0.5) == 0.5
    assert nothing.count_at(0.5).tolist() == []


def test_a_tag_whose_coarsest_gsd_was_just_missed_has_its_count_at_another_gsd() -> None:
    counts = {0.6: np.array([70, 70]), 1.02: np.array([0, 0])}
    snapshot = Snapshot(("a", "b"), ("x", "x"), np.array([1.0, 10.0]), counts, (0.6, 1.02), np.zeros(2))
    assert snapshot.visible(1.02).tolist() == [True, True]
    assert snapshot.count_at(1.02).tolist() == [70, 0]


def test_a_snapshot_is_read_for_one_region_or_for_its_tags_alone(tmp_path: Path) -> None:
    tags = [("road", "a", 1.0), ("landuse", "trees", 10.0)]
    pq.write_table(
        pa.table({"key": [t[0] for t in tags], "value": [t[1] for t in tags], "coarsest_gsd_m": [t[2] for t in tags]}),
        tmp_path / "tags.parquet",
    )
    counts = [("road", "a", "here", 0.3, 7), ("landuse", "trees", "there", 0.3, 9), ("gone", "x", "here", 0.3, 1)]
    names = ["key", "value", "region", "gsd_m", "n_plannable"]
    columns = {name: list(column) for name, column in zip(names, zip(*counts, strict=True), strict=True)}
    pq.write_table(pa.table(columns), tmp_path / "snapshot.parquet")
    here = read_snapshot(tmp_path, "here")
    assert (here.keys, here.values) == (("landuse", "road"), ("trees", "a"))
    assert {gsd: n.tolist() for gsd, n in here.counts.items()} == {0.3: [0, 7]}
    assert read_snapshot(tmp_path).counts == {}


def test_a_missing_snapshot_is_an_upstream_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match=r"tags\.parquet"):
        read_snapshot(tmp_path, "here")


def test_the_longer_side_of_a_box_is_in_metres_on_the_ground() -> None:
    boxes = [
        {"xmin": 7.0, "ymin": 59.9, "xmax": 7.01, "ymax": 60.1},
        {"xmin": 7.0, "ymin": 60, "xmax": 7.4, "ymax": 60},
    ]
    sides = longer_sides_m(pa.chunked_array([pa.array(boxes, BBOX_TYPE)]))
    assert sides == pytest.approx([0.2 * 111_319.49, 0.4 * 111_319.49 / 2], rel=1e-3)
