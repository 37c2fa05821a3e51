from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.chips.sampling import (
    Snapshot,
    TagPairs,
    draw,
    longer_sides_m,
    match_tags,
    read_snapshot,
    strata,
)
from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE
from skyscript_assets.lib.tags.normalise import normal_values

TREES, PIER, ROAD = 0, 1, 2
SNAPSHOT = Snapshot(
    keys=("landuse", "man_made", "road"),
    values=("trees", "pier", "a"),
    coarsest_gsd_m=np.array([10.0, 0.6, 1.0]),
    counts={0.3: np.array([1000, 5, 40]), 10.0: np.array([100, 0, 0])},
)
IDS = [f"n{i}" for i in range(4000)]
ALL_TREES = TagPairs(np.arange(4000), np.full(4000, TREES))


def drawn_trees(n: int, quota: int = 100, seed: int = 0) -> set[int]:
    mask = draw(ALL_TREES, IDS, SNAPSHOT, np.array([n, 0, 0]), quota, seed)
    return set(np.flatnonzero(mask).tolist())


def tags_column(*rows: dict[str, str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([list(row.items()) for row in rows], TAGS_TYPE)])


def test_draws_are_nested_when_a_tag_becomes_more_frequent_or_its_quota_smaller() -> None:
    assert drawn_trees(2000) < drawn_trees(1000) < drawn_trees(500)
    assert drawn_trees(1000, quota=50) < drawn_trees(1000, quota=100)


def test_about_quota_objects_are_drawn_of_a_frequent_tag_and_all_of_a_rare_one() -> None:
    assert 80 < len(drawn_trees(4000)) < 120
    assert len(drawn_trees(4000, quota=5000)) == 4000
    assert len(drawn_trees(0)) == 4000


def test_an_object_is_drawn_or_not_whoever_else_is_there() -> None:
    few = TagPairs(np.arange(0, 400), np.full(400, TREES))
    mask = draw(few, IDS[::10], SNAPSHOT, np.array([1000, 0, 0]), 100, 0)
    assert {IDS[::10][i] for i in np.flatnonzero(mask)} == {IDS[i] for i in drawn_trees(1000) if i % 10 == 0}


def test_another_seed_is_another_sample() -> None:
    assert drawn_trees(1000) != drawn_trees(1000, seed=1)


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


@given(st.lists(st.dictionaries(st.sampled_from(["k", "l", "m"]), TAG_VALUES), max_size=12), st.integers(0, 3))
def test_tags_are_found_where_the_normal_values_of_an_object_hold_them(rows: list[dict[str, str]], start: int) -> None:
    tags = sorted({(key, value) for row in rows for key, listed in row.items() for value in normal_values(listed)})[::2]
    snapshot = Snapshot(tuple(k for k, _ in tags), tuple(v for _, v in tags), np.ones(len(tags)), {})
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
    nothing = Snapshot((), (), np.zeros(0), {})
    assert nothing.nearest_gsd(0.5) == 0.5
    assert nothing.count_at(0.5).tolist() == []


def test_a_tag_whose_coarsest_gsd_was_just_missed_has_its_count_at_another_gsd() -> None:
    counts = {0.6: np.array([70, 70]), 1.02: np.array([0, 0])}
    snapshot = Snapshot(("a", "b"), ("x", "x"), np.array([1.0, 10.0]), counts)
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
