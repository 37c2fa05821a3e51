from pathlib import Path

import pyarrow as pa
import pytest

from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.region_overlap import OVERLAP_SCHEMA, write_region_overlap
from skyscript_assets.lib.tables import BBOX_TYPE, read_table, rows_to_table, write_table

SCHEMA = pa.schema([("object_id", pa.string()), ("bbox", BBOX_TYPE)])
FIRST: Bounds = (0.0, 0.0, 2.0, 2.0)
SECOND: Bounds = (1.0, 0.0, 3.0, 2.0)


def table(path: Path, boxes: dict[str, Bounds]) -> Path:
    sides = ("xmin", "ymin", "xmax", "ymax")
    rows = [{"object_id": i, "bbox": dict(zip(sides, box, strict=True))} for i, box in boxes.items()]
    write_table(path, rows_to_table(rows, SCHEMA))
    return path


def owners(folder: Path) -> list[tuple[str, str]]:
    found = read_table(folder / "overlap.parquet", OVERLAP_SCHEMA)
    assert found.schema.equals(OVERLAP_SCHEMA)
    return [(row["object_id"], row["owner"]) for row in found.to_pylist()]


BOXES: dict[str, Bounds] = {
    "n1": (0.5, 1.0, 0.5, 1.0),
    "n2": (1.5, 1.0, 1.5, 1.0),
    "a3": (1.8, 1.0, 2.9, 1.2),
    "a4": (0.0, 0.0, 3.0, 2.0),
}


def test_an_object_in_two_regions_belongs_to_the_first_where_its_centre_is_in_both(tmp_path: Path) -> None:
    path = table(tmp_path / "objects.parquet", BOXES)
    found = write_region_overlap("second", SECOND, path, {"first": (path, FIRST)}, tmp_path)
    assert owners(tmp_path) == [("a4", "first"), ("n2", "first")]
    assert found == {"objects": 2, "owners": {"first": 2}}
    assert read_table(path).num_rows == 4


def test_an_object_in_three_regions_belongs_to_the_first_by_name_whatever_their_order(tmp_path: Path) -> None:
    path = table(tmp_path / "objects.parquet", BOXES | {"n5": (2.5, 1.0, 2.5, 1.0)})
    earlier = {"b": (path, (1.2, 0.0, 3.0, 2.0)), "a": (path, FIRST)}
    found = write_region_overlap("c", SECOND, path, earlier, tmp_path)
    assert owners(tmp_path) == [("a3", "b"), ("a4", "a"), ("n2", "a"), ("n5", "b")]
    assert found == {"objects": 4, "owners": {"a": 2, "b": 2}}


def test_objects_that_the_region_does_not_have_and_regions_after_it_are_left_out(tmp_path: Path) -> None:
    own = table(tmp_path / "own.parquet", {"n2": BOXES["n2"]})
    other = table(tmp_path / "other.parquet", BOXES)
    write_region_overlap("second", SECOND, own, {"first": (other, FIRST)}, tmp_path)
    assert owners(tmp_path) == [("n2", "first")]
    missing = tmp_path / "missing.parquet"
    assert write_region_overlap("second", SECOND, own, {"third": (missing, FIRST)}, tmp_path)["objects"] == 0


def test_regions_without_common_ground_are_not_read(tmp_path: Path) -> None:
    own, missing = table(tmp_path / "own.parquet", BOXES), tmp_path / "missing.parquet"
    for earlier in ({"first": (missing, (5.0, 5.0, 6.0, 6.0))}, {}):
        assert write_region_overlap("second", SECOND, own, earlier, tmp_path) == {"objects": 0, "owners": {}}
        assert owners(tmp_path) == []
    with pytest.raises(UpstreamMissingError):
        write_region_overlap("second", SECOND, own, {"first": (missing, FIRST)}, tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((179.0, 0.0, 181.0, 1.0), (-180.0, 0.0, -179.5, 1.0), ["n2", "n3"]),
        ((-180.0, 0.0, -179.5, 1.0), (179.0, 0.0, 181.0, 1.0), ["n2", "n3"]),
        ((179.0, 0.0, 180.0, 1.0), (-180.0, 0.0, -179.0, 1.0), ["n2"]),
        ((-180.0, 0.0, 180.0, 1.0), (179.0, 0.0, 181.0, 1.0), ["n1", "n2", "n3", "n4"]),
    ],
)
def test_regions_at_the_antimeridian_share_ground(
    tmp_path: Path, first: Bounds, second: Bounds, expected: list[str]
) -> None:
    def seen_by(region: Bounds) -> dict[str, Bounds]:
        """The places at the longitudes that a region has them at."""
        boxes = {}
        for name, x in {"n1": 179.5, "n2": 180.0, "n3": -179.8, "n4": -179.2}.items():
            at = next((x + turn for turn in (0.0, 360.0, -360.0) if region[0] <= x + turn <= region[2]), x)
            boxes[name] = (at, 0.5, at, 0.5)
        return boxes

    theirs = table(tmp_path / "first.parquet", seen_by(first))
    ours = table(tmp_path / "second.parquet", seen_by(second))
    write_region_overlap("second", second, ours, {"first": (theirs, first)}, tmp_path)
    assert [object_id for object_id, _ in owners(tmp_path)] == expected
