"""Which objects belong to another region: an object in two regions belongs to the first by name.

Both regions' plans can tell this alone, from their objects and boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.tables import BBOX_TYPE, read_table

_NEEDED_SCHEMA = pa.schema([("object_id", pa.string()), ("bbox", BBOX_TYPE)])


def owned_by_earlier(earlier: Mapping[str, tuple[Path, Bounds]], bbox: Bounds) -> pa.Array:
    """Ids of the objects on a region's ground that an earlier region plans.

    An object is planned by a region only where its box's centre lies in the region's box. One that merely reaches into
    an earlier region is therefore left to the region that its centre is in.

    Args:
        earlier: `objects.parquet` and box (degrees) of each region that comes before by name; those without common
            ground are not read.
        bbox: (west, south, east, north) of the region, degrees.

    Raises:
        UpstreamMissingError: a table is missing.
        CorruptInputError: a table is not whole.
        OutputSchemaError: a table lacks a column.
    """
    found = [pa.array([], pa.string())]
    for path, other in earlier.values():
        west, south = max(bbox[0], other[0]), max(bbox[1], other[1])
        east, north = min(bbox[2], other[2]), min(bbox[3], other[3])
        if west > east or south > north:
            continue
        table = read_table(path, _NEEDED_SCHEMA, columns=_NEEDED_SCHEMA.names)
        box = {side: pc.struct_field(table["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")}
        x, y = (box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2
        common = np.flatnonzero((x >= west) & (x <= east) & (y >= south) & (y <= north))
        found.append(table["object_id"].take(common).combine_chunks())
    return pa.concat_arrays(found)


OVERLAP_SCHEMA = pa.schema([("object_id", pa.string()), ("owner", pa.string())])
OVERLAP_FILE = "overlap.parquet"


def write_region_overlap(
    region: str, bbox: Bounds, objects: Path, earlier: Mapping[str, tuple[Path, Bounds]], out: Path
) -> object:
    """Interim."""
    rows = [(i, name) for name, one in earlier.items() for i in owned_by_earlier({name: one}, bbox).to_pylist()]
    from skyscript_assets.lib.tables import write_table

    table = pa.table({"object_id": [r[0] for r in rows], "owner": [r[1] for r in rows]}, schema=OVERLAP_SCHEMA)
    write_table(out / OVERLAP_FILE, table)
    import types

    return types.SimpleNamespace(objects=len(rows))
