import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from skyscript_assets.lib import tables
from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError

SCHEMA = pa.schema([("id", pa.string()), ("tags", tables.TAGS_TYPE), ("n", pa.int64())])
ROWS = [{"id": "a", "tags": {"k": "v"}, "n": 1}, {"id": "b", "tags": {}, "n": 2}]


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    tables.write_table(path, tables.rows_to_table(ROWS, SCHEMA))
    table = tables.read_table(path, SCHEMA)
    assert table["id"].to_pylist() == ["a", "b"]
    assert dict(table["tags"].to_pylist()[0]) == {"k": "v"}
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_equal_tables_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tables.write_table(tmp_path / name, tables.rows_to_table(ROWS, SCHEMA))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_table_with_geometry_says_so_in_geoparquet(tmp_path: Path) -> None:
    schema = pa.schema([("geometry", pa.binary()), ("bbox", tables.BBOX_TYPE)])
    tables.write_table(tmp_path / "g.parquet", schema.empty_table(), geometry="geometry", geometry_types=["Point"])
    geo = json.loads(pq.read_schema(tmp_path / "g.parquet").metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]


def test_a_missing_table_is_an_upstream_to_materialize(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match="materialize"):
        tables.read_table(tmp_path / "none.parquet")


def test_a_truncated_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    tables.write_table(path, tables.rows_to_table(ROWS, SCHEMA))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptInputError, match="t.parquet"):
        tables.read_table(path)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    tables.write_table(path, tables.rows_to_table(ROWS, SCHEMA))
    with pytest.raises(OutputSchemaError, match="column n should be string, found int64"):
        tables.read_table(path, pa.schema([("n", pa.string())]))
    with pytest.raises(OutputSchemaError, match="column x should be string, found None"):
        tables.read_table(path, pa.schema([("x", pa.string())]))
    assert tables.read_table(path, pa.schema([("n", pa.string())]), columns=["id"]).num_rows == 2


def test_the_geometry_of_some_rows_is_read_from_any_row_group(tmp_path: Path) -> None:
    points = shapely.points(np.arange(20.0), 0.0)
    pq.write_table(pa.table({"geometry": shapely.to_wkb(points)}), tmp_path / "objects.parquet", row_group_size=3)
    for rows in ([], [0], [2, 3, 11, 19]):
        found = tables.read_geometry(tmp_path / "objects.parquet", np.array(rows, dtype=np.int64))
        assert shapely.get_x(found).tolist() == rows
    pq.write_table(pa.table({"shape": [b""]}), tmp_path / "other.parquet")
    with pytest.raises(OutputSchemaError, match="geometry"):
        tables.read_geometry(tmp_path / "other.parquet", np.zeros(1, dtype=np.int64))
