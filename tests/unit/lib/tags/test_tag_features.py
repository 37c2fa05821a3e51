"""What a tag's row of features is made of, and what becomes of a tag that the vocabulary does not know."""

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
    COOCCURRENCE_SCHEMA,
    LEAST_SIDE_M,
    TagStatistics,
    base_rows,
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


def vocabulary(folder: Path, rows: Sequence[tuple[Any, ...]], beside: Sequence[tuple[Any, ...]] = ()) -> TagStatistics:
    names = SCHEMA.names
    write_table(
        folder / "vocabulary.parquet", rows_to_table([dict(zip(names, row, strict=True)) for row in rows], SCHEMA)
    )
    others = [dict(zip(COOCCURRENCE_SCHEMA.names, row, strict=True)) for row in beside]
    write_table(folder / "cooccurrence.parquet", rows_to_table(others, COOCCURRENCE_SCHEMA))
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
    statistics = vocabulary(
        tmp_path,
        [*TREES, *WALLS],
        [("barrier", "city_wall", "material", "stone", 0.5), ("natural", "tree", "x", "y", 1.0)],
    )
    tags = [("natural", "tree"), ("barrier", "city_wall"), ("barrier", "no")]
    found = tag_features(tags, 2, statistics, bag_of_words)
    assert list(found) == ["text", "value", "geometry", "shape", "beside"]
    for block in found.values():
        assert len(block) == 3
        # The mean over all pairs counts each tag with itself: half of the one distance there is.
        assert ((block[0] - block[1]) ** 2).sum() / 2 == pytest.approx(1.0)


def test_a_tag_that_the_vocabulary_does_not_know_is_neutral(tmp_path: Path, bag_of_words: Encode) -> None:
    statistics = vocabulary(tmp_path, [*TREES, *WALLS])
    tags = [("natural", "tree"), ("barrier", "city_wall"), ("new", "thing")]
    found = tag_features(tags, 2, statistics, bag_of_words)
    geometry = found["geometry"][2]
    assert all(np.isfinite(block).all() for block in found.values())
    np.testing.assert_allclose(geometry[:6], 0.0)  # kinds, count and sides: the labelled tags' mean
    assert (geometry[6:] >= 0.0).all()
    assert (found["beside"][2] == 0.0).all()


def test_a_point_has_no_size_and_says_so(tmp_path: Path, bag_of_words: Encode) -> None:
    rows = [("highway", "stop", "a", "node", 5, None, None), *TREES, *WALLS]
    statistics = vocabulary(tmp_path, rows)
    tags = [("highway", "stop"), ("natural", "tree"), ("barrier", "city_wall")]
    block = tag_features(tags, 3, statistics, bag_of_words)["geometry"]
    np.testing.assert_allclose(block[0, 4:6], 0.0, atol=1e-12)
    assert block[0, 6] > block[1, 6] == block[2, 6]


def test_the_tags_beside_count_by_their_share(tmp_path: Path, bag_of_words: Encode) -> None:
    beside = [
        ("surface", "a", "highway", "track", 0.9),
        ("surface", "a", "leisure", "pitch", 0.1),
        ("surface", "b", "highway", "track", 0.3),
        ("surface", "c", "leisure", "pitch", 0.3),
    ]
    statistics = vocabulary(tmp_path, [("surface", v, "a", "line", 9, 5.0, 1.0) for v in "abc"], beside)
    found = tag_features([("surface", v) for v in "abc"], 3, statistics, bag_of_words)
    a, b, c = found["beside"]
    np.testing.assert_allclose(a, 0.9 * b + 0.1 * c)


def test_shape_tells_yes_from_a_number_and_counts_namespaces(tmp_path: Path, bag_of_words: Encode) -> None:
    statistics = vocabulary(tmp_path, [("lanes", "2", "a", "line", 9, 5.0, 1.0)])
    tags = [("lanes", "2"), ("bridge", "yes"), ("parking:lane:both", "no_stopping"), ("layer", "-1")]
    found = tag_features(tags, 4, statistics, bag_of_words)
    shape = found["shape"]
    yes, number, words, colons = shape[:, 0], shape[:, 7], shape[:, 9], shape[:, 10]
    assert yes.argmax() == 1
    assert sorted(np.argsort(number)[-2:].tolist()) == [0, 3]
    assert words.argmax() == colons.argmax() == 2
