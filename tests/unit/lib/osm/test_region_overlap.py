from pathlib import Path

import pyarrow as pa
import pytest

from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.region_overlap import owned_by_earlier
from skyscript_assets.lib.tables import BBOX_TYPE, read_table, rows_to_table, write_table

SCHEMA = pa.schema([("object_id", pa.string()), ("bbox", BBOX_TYPE)])
FIRST: Bounds = (0.0, 0.0, 2.0, 2.0)
SECOND: Bounds = (1.0, 0.0, 3.0, 2.0)


def table(path: Path, boxes: dict[str, Bounds]) -> Path:
    sides = ("xmin", "ymin", "xmax", "ymax")
    rows = [{"object_id": i, "bbox": dict(zip(sides, box, strict=True))} for i, box in boxes.items()]
    write_table(path, rows_to_table(rows, SCHEMA))
    return path


def test_an_object_in_two_regions_belongs_to_the_first_where_its_centre_is_in_both(tmp_path: Path) -> None:
    boxes = {
        "n1": (0.5, 1.0, 0.5, 1.0),
        "n2": (1.5, 1.0, 1.5, 1.0),
        "a3": (1.8, 1.0, 2.9, 1.2),
        "a4": (0.0, 0.0, 3.0, 2.0),
    }
    path = table(tmp_path / "objects.parquet", boxes)
    assert owned_by_earlier({"first": (path, FIRST)}, SECOND).to_pylist() == ["n2", "a4"]
    assert read_table(path).num_rows == 4


def test_regions_without_common_ground_are_not_read(tmp_path: Path) -> None:
    missing = tmp_path / "objects.parquet"
    assert owned_by_earlier({"first": (missing, (5.0, 5.0, 6.0, 6.0))}, SECOND).to_pylist() == []
    assert owned_by_earlier({}, SECOND).to_pylist() == []
    with pytest.raises(UpstreamMissingError):
        owned_by_earlier({"first": (missing, FIRST)}, SECOND)
