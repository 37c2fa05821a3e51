"""Parquet tables as every stage writes and reads them: zstd, a fixed schema, finished before they get their name."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.files import replacing


def fields(kind: pa.DataType, *names: str) -> list[pa.Field]:
    """Columns of one type for a schema, or what a struct holds."""
    return [pa.field(name, kind) for name in names]


BBOX_TYPE = pa.struct(fields(pa.float64(), "xmin", "ymin", "xmax", "ymax"))
"""The GeoParquet 1.1 bbox covering column."""

TAGS_TYPE = pa.map_(pa.string(), pa.string())

ROW_GROUP_ROWS = 65_536
"""Rows in a row group of a Parquet file."""


def write_table(path: Path, table: pa.Table, geometry: str | None = None, geometry_types: Sequence[str] = ()) -> None:
    """Write a table, whole or not at all.

    With the name of a WKB column in EPSG:4326 the file is GeoParquet 1.1, with a covering where the table has a `bbox`
    column; `geometry_types` are those present, empty for "not known".
    """
    if geometry is not None:
        metadata = {**(table.schema.metadata or {}), b"geo": geo_metadata(table.schema, geometry, geometry_types)}
        table = table.replace_schema_metadata(metadata)
    write_tables(path, table.schema, [table])


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema below each other, each in row groups of its own, whole or not at all."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table, ROW_GROUP_ROWS)


def geo_metadata(schema: pa.Schema, geometry: str, geometry_types: Sequence[str] = ()) -> bytes:
    """The `geo` key of a GeoParquet 1.1 file whose geometry is WKB in OGC:CRS84 (the default when `crs` is absent)."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(geometry_types)}
    if "bbox" in schema.names:
        column["covering"] = {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
    return json.dumps({"version": "1.1.0", "primary_column": geometry, "columns": {geometry: column}}).encode()


def rows_to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table of exactly the schema's columns; maps may be given as dicts."""
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def read_table(path: Path, schema: pa.Schema | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table and check its columns. Raises what `check_table` does."""
    check_table(path, schema, columns)
    try:
        return pq.read_table(path, columns=list(columns) if columns else None)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from error


def read_batches(path: Path, schema: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of `schema`, some rows in memory at a time; raises as `read_table` does."""
    check_table(path, schema)
    try:
        yield from pq.ParquetFile(path).iter_batches(rows, columns=schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from error


def read_geometry(path: Path, rows: IntArray) -> npt.NDArray[np.object_]:
    """Read the geometry of some rows, rising, of `objects.parquet`; of the other rows few are in memory at a time.

    Raises:
        CorruptInputError: a geometry is not WKB; and what `check_table` raises.
    """
    import pyarrow.dataset as ds

    check_table(path, columns=["geometry"])
    scanner = ds.dataset(path).scanner(columns=["geometry"], batch_readahead=4)
    try:
        return np.asarray(shapely.from_wkb(scanner.take(pa.array(rows))["geometry"].to_numpy()))
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is broken ({error}); materialize osm_objects again") from error


def check_table(path: Path, schema: pa.Schema | None = None, columns: Sequence[str] | None = None) -> None:
    """Check that a table has the wanted columns, of the types that `schema` gives them, without reading its rows.

    Raises:
        UpstreamMissingError: the file does not exist.
        CorruptInputError: the file is not a whole Parquet file.
        OutputSchemaError: a column is missing or of another type.
    """
    if not path.is_file():
        raise UpstreamMissingError(f"{path} does not exist: materialize its asset first")
    try:
        known = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _torn(path, error) from error
    wanted = dict.fromkeys(columns or ()) | {
        field.name: field.type for field in schema or () if columns is None or field.name in columns
    }
    for name, kind in wanted.items():
        found = known.field(name).type if name in known.names else None
        if found is None or kind not in (None, found):
            raise OutputSchemaError(
                f"{path}: column {name} should be {kind or 'there'}, found {found}; "
                "it was written by another version: materialize its asset again"
            )


def _torn(path: Path, error: Exception) -> CorruptInputError:
    return CorruptInputError(f"{path} is not a whole Parquet file ({error}); materialize its asset again")
