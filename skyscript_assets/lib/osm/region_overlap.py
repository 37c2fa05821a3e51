"""Which objects of a region belong to another one: an object in two regions belongs to the first by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.geometry import TURNS, Bounds
from skyscript_assets.lib.tables import BBOX_TYPE, read_table, write_table

OVERLAP_FILE = "overlap.parquet"

OVERLAP_SCHEMA = pa.schema([("object_id", pa.string()), ("owner", pa.string())])
"""Columns of `overlap.parquet`, sorted by object_id: objects of a region, and the earlier region each belongs to."""

_NEEDED_SCHEMA = pa.schema([("object_id", pa.string()), ("bbox", BBOX_TYPE)])


def write_region_overlap(
    region: str, bbox: Bounds, objects: Path, earlier: Mapping[str, tuple[Path, Bounds]], out: Path
) -> dict[str, Any]:
    """Write `overlap.parquet`: the objects of a region that an earlier region plans.

    An object is planned by a region only where its box's centre lies in the region's box, (west, south, east, north) in
    degrees. One that merely reaches into an earlier region is therefore left to the region that its centre is in. Of
    the tables and boxes of `earlier` regions those that do not come before by name, or share no ground, are not read.

    Returns numbers of `objects` that belong elsewhere, and by region, of its `owners`. Raises what `read_table` does.
    """
    ids = read_table(objects, columns=["object_id"])["object_id"].combine_chunks()
    found = OVERLAP_SCHEMA.empty_table()
    owners = {}
    for name, (path, other) in sorted(earlier.items()):
        # One of two regions may lie across the antimeridian, with longitudes beyond 180 degrees.
        turns = [turn for turn in TURNS if bbox[0] + turn <= other[2] and other[0] <= bbox[2] + turn]
        south, north = max(bbox[1], other[1]), min(bbox[3], other[3])
        if name >= region or not turns or south > north:
            continue
        table = read_table(path, _NEEDED_SCHEMA, columns=_NEEDED_SCHEMA.names)
        box = {side: pc.struct_field(table["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")}
        x, y = (box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2
        inside = (x >= other[0]) & (x <= other[2]) & (y >= south) & (y <= north)
        inside &= np.logical_or.reduce([(x >= bbox[0] + turn) & (x <= bbox[2] + turn) for turn in turns])
        there = table["object_id"].filter(pa.array(inside))
        there = there.filter(pc.is_in(there, value_set=ids))
        there = there.filter(pc.invert(pc.is_in(there, value_set=found["object_id"].combine_chunks())))
        owners[name] = len(there)
        found = pa.concat_tables([found, pa.table([there, pa.repeat(name, len(there))], schema=OVERLAP_SCHEMA)])
    write_table(out / OVERLAP_FILE, found.sort_by("object_id").combine_chunks())
    return {"objects": found.num_rows, "owners": owners}
