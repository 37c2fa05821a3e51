"""The ground of each pair as STAC items in Parquet (stac-geoparquet 1.0)."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from skyscript_assets.lib.release.data import DATA_SCHEMA, batches
from skyscript_assets.lib.tables import BBOX_TYPE, fields, geo_metadata, rows_to_table, write_tables

_SAME = ("datetime", "attribution", "region", "source", "split", "object_id")
_ASSET = pa.struct([*fields(pa.string(), "href", "type", "title"), ("roles", pa.list_(pa.string()))])
ITEM_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "type", "stac_version"),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
        ("links", pa.list_(pa.struct(fields(pa.string(), "href", "rel", "type")))),
        ("assets", pa.struct([("pair", _ASSET)])),
        ("collection", pa.string()),
        ("gsd", pa.float64()),
        *fields(pa.string(), "title", "license"),
        *(DATA_SCHEMA.field(name) for name in _SAME),
    ]
)
"""Columns of `items.parquet`; geometry is WKB in OGC:CRS84. The asset is the Parquet file that has the pair."""


def write_items(collection: str, release: Path) -> None:
    """Write `items.parquet`, some rows in memory at a time."""
    links = [{"href": "./collection.json", "rel": "collection", "type": "application/json"}]
    geo = {b"geo": geo_metadata(ITEM_SCHEMA, "geometry"), b"stac-geoparquet": b'{"version": "1.0.0"}'}
    same = {"type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "license": "other", "links": links}
    schema = ITEM_SCHEMA.with_metadata(geo)

    def item(file: str, row: dict[str, Any]) -> dict[str, Any]:
        asset = {"href": f"./{file}", "type": "application/x-parquet", "roles": ["data"]}
        pair = asset | {"title": f"The row of chip_id {row['chip_id']}"}
        told = {"id": row["chip_id"], "collection": collection, "gsd": row["gsd_m"], "title": row["text"]}
        return row | same | told | ground(*row["bbox"]) | {"assets": {"pair": pair}}

    found = batches(release, ("chip_id", "text", "bbox", "gsd_m", *_SAME))
    tables = (rows_to_table([item(file, row) for row in batch.to_pylist()], schema) for file, batch in found)
    write_tables(release / "items.parquet", schema, tables)


def ground(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """Geometry and box of an item; across the antimeridian two polygons, and a west beyond the east."""
    shape: Any = shapely.box(west, south, min(east, 180.0), north)
    if east > 180.0:
        east -= 360.0
        shape = shapely.MultiPolygon([shape, shapely.box(-180.0, south, east, north)])
    return {"geometry": shapely.to_wkb(shape), "bbox": {"xmin": west, "ymin": south, "xmax": east, "ymax": north}}
