"""What a tag's row of features is made of, and what becomes of a tag that the vocabulary does not know."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tags import features
from skyscript_assets.lib.tags.features import (
    BASE_COLUMNS,
    BASE_FILE,
    LEAST_SIDE_M,
    TagStatistics,
    base_rows,
    lexicon,
    read_statistics,
    tag_features,
)
from skyscript_assets.lib.tags.text import text_reason

pytestmark = pytest.mark.usefixtures("packaged")

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("key", "value", "region", "kind")]
    + [("n", pa.int64()), ("longer_side_m", pa.float64()), ("shorter_side_m", pa.float64())]
)


def vocabulary(folder: Path, rows: Sequence[tuple[Any, ...]]) -> TagStatistics:
    names = SCHEMA.names
    write_table(
        folder / "vocabulary.parquet", rows_to_table([dict(zip(names, row, strict=True)) for row in rows], SCHEMA)
    )
    return read_statistics(folder)


TREES = [("natural", "tree", "a", "node", 90, None, None), ("natural", "tree", "b", "area", 10, 8.0, 2.0)]
WALLS = [("barrier", "city_wall", "a", "line", 30, 100.0, 10.0), ("barrier", "city_wall", "b", "line", 10, 1.0, 0.0)]


def test_statistics_are_summed_over_regions_and_kinds(tmp_path: Path) -> None:
    found = vocabulary(tmp_path, [*TREES, *WALLS, ("name", "Anna", "a", "node", 5, None, None)])
    assert found.counts == {("barrier", "city_wall"): 40, ("natural", "tree"): 100}
    assert found.kinds == {("barrier", "city_wall"): (0, 40, 0), ("natural", "tree"): (10, 0, 90)}
    assert found.values == {"barrier": 1, "natural": 1}
    assert found.texts == {"name": 1}


def test_sides_are_geometric_means_weighted_by_objects(tmp_path: Path) -> None:
    found = vocabulary(tmp_path, [*TREES, *WALLS])
    assert found.sides_m["natural", "tree"] == pytest.approx((8.0, 2.0))
    longer, shorter = found.sides_m["barrier", "city_wall"]
    assert longer == pytest.approx(100.0**0.75)
    assert shorter == pytest.approx(10.0**0.75 * LEAST_SIDE_M**0.25)


def test_counts_of_the_regions_are_added_to_what_is_packaged(tmp_path: Path, packaged: Callable[[str], None]) -> None:
    packaged("natural,tree,32,30,0,2,2,2,,\nnatural,peak,9,0,0,9,,,,\n")
    found = vocabulary(tmp_path, [*TREES, ("name", "Anna", "a", "node", 5, None, None)])
    assert found.counts == {("natural", "tree"): 100}
    assert found.kinds == {("natural", "tree"): (40, 0, 92), ("natural", "peak"): (0, 0, 9)}
    assert found.values == {"natural": 2}
    assert found.sides_m["natural", "tree"] == pytest.approx((8.0**0.25 * 2.0**0.75, 2.0))
    assert read_statistics(None).counts == {}
    assert read_statistics(None).kinds == {("natural", "tree"): (30, 0, 2), ("natural", "peak"): (0, 0, 9)}


def test_the_packaged_vocabulary_says_whose_it_is_and_holds_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BASE_FILE", BASE_FILE)
    note, header, *rows = BASE_FILE.read_text(encoding="utf-8").splitlines()
    assert "OpenStreetMap contributors, ODbL" in note
    assert header == ",".join(BASE_COLUMNS)
    assert BASE_FILE.stat().st_size < 1_000_000
    counts = [list(map(int, row.split(",")[2:6])) for row in rows]
    assert all(n == sum(kinds) >= 2 for n, *kinds in counts)
    assert [n for n, *_ in counts] == sorted((n for n, *_ in counts), reverse=True)
    found = list(base_rows())
    assert len({(key, value) for key, value, *_ in found}) == len(rows) > 2000
    assert [row for row in found if text_reason(row[0], row[1])] == []
    key, value, kind, n, longer, shorter = found[0]
    assert (key, value, kind) == ("building", "yes", "area")
    assert n > 50_000
    assert 10 < shorter < longer < 30


def test_blocks_weigh_the_same_between_labelled_tags(tmp_path: Path, bag_of_words: Encode) -> None:
    tags = [("natural", "tree"), ("barrier", "city_wall"), ("barrier", "no")]
    found = tag_features(tags, 2, vocabulary(tmp_path, [*TREES, *WALLS]), bag_of_words)
    assert list(found) == ["text", "geometry", "shape", "words"]
    for block in found.values():
        assert len(block) == 3
        # The mean over all pairs counts each tag with itself: half of the one distance there is.
        assert ((block[0] - block[1]) ** 2).sum() / 2 == pytest.approx(1.0)


def test_a_tag_that_no_vocabulary_counts_looks_like_others_of_its_key(tmp_path: Path, bag_of_words: Encode) -> None:
    rocks = [("natural", "rock", "a", "area", 10, 32.0, 2.0), ("natural", "stone", "a", "node", 4, None, None)]
    statistics = vocabulary(tmp_path, [*TREES, *WALLS, *rocks])
    tags = [("natural", "tree"), ("barrier", "city_wall"), ("natural", "new"), ("new", "thing")]
    found = tag_features(tags, 2, statistics, bag_of_words)
    assert all(np.isfinite(block).all() for block in found.values())
    tree, wall, new, thing = found["geometry"]
    # Of trees 10 %, of rocks all and of stones nothing is an area; sides are the mean of those that have any.
    assert (new[0] - wall[0]) / (tree[0] - wall[0]) == pytest.approx((0.1 + 1.0 + 0.0) / 3 / 0.1)
    logs = [np.log(side) for side in (8.0, 32.0)]
    longer = np.log(100.0) * 0.75
    assert (new[4] - wall[4]) / (tree[4] - wall[4]) == pytest.approx((np.mean(logs) - longer) / (logs[0] - longer))
    np.testing.assert_allclose(thing, 0.0, atol=1e-12)  # a key of which nothing is known: the labelled tags' mean


def test_words_name_a_kind_and_a_size_by_the_longest_phrase(tmp_path: Path, bag_of_words: Encode) -> None:
    tags = [
        ("a", "forest"),
        ("b", "woods"),
        ("amenity", "post_box"),
        ("amenity", "box"),
        ("barrier", "yes"),
        ("x", "y"),
    ]
    words = tag_features(tags, 6, vocabulary(tmp_path, [*TREES]), bag_of_words)["words"]
    forest, woods, post_box, _, barrier, nothing = words
    np.testing.assert_allclose(forest, woods)  # both cover, 300 m; a plural is its singular
    assert forest[-2] == words[:, -2].max()
    assert post_box[-2] == words[:, -2].min()
    assert ((barrier - nothing) ** 2).sum() > 0.1  # the value says nothing: its key's words count
    assert nothing[-1] == words[:, -1].max() > woods[-1]


def test_the_list_of_words_has_a_size_for_what_can_be_seen() -> None:
    words, kinds = lexicon()
    assert len(words) > 1500
    unseen = {"activity", "rule", "indoor", "belief", "hidden", "absence", "person"}
    assert unseen < set(kinds)
    assert [word for word, (kind, size) in words.items() if kind in unseen and not math.isnan(size)] == []
    assert [word for word, (_, size) in words.items() if not (math.isnan(size) or 0.1 <= size <= 1000)] == []
    assert [word for word in words if word != word.lower().replace(" ", "_")] == []


def test_a_point_has_no_size_and_says_so(tmp_path: Path, bag_of_words: Encode) -> None:
    rows = [("highway", "stop", "a", "node", 5, None, None), *TREES, *WALLS]
    statistics = vocabulary(tmp_path, rows)
    tags = [("highway", "stop"), ("natural", "tree"), ("barrier", "city_wall")]
    block = tag_features(tags, 3, statistics, bag_of_words)["geometry"]
    np.testing.assert_allclose(block[0, 4:6], 0.0, atol=1e-12)
    assert block[0, 6] > block[1, 6] == block[2, 6]


def test_shape_tells_yes_from_a_number_and_counts_namespaces(tmp_path: Path, bag_of_words: Encode) -> None:
    statistics = vocabulary(tmp_path, [("lanes", "2", "a", "line", 9, 5.0, 1.0)])
    tags = [("lanes", "2"), ("bridge", "yes"), ("parking:lane:both", "no_stopping"), ("layer", "-1")]
    found = tag_features(tags, 4, statistics, bag_of_words)
    shape = found["shape"]
    yes, number, words, colons = shape[:, 0], shape[:, 7], shape[:, 9], shape[:, 10]
    assert yes.argmax() == 1
    assert sorted(np.argsort(number)[-2:].tolist()) == [0, 3]
    assert words.argmax() == colons.argmax() == 2
