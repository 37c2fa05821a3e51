"""The objects of a region as a plan reads them: ids, sizes and tags of all, the geometry of those that are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.chips.plan import Ground, PlanInputs
from skyscript_assets.lib.chips.sampling import (
    Drawn,
    Snapshot,
    TagPairs,
    longer_sides_m,
    match_tags,
    object_codes,
    unit_hashes,
)
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.region_overlap import OVERLAP_SCHEMA
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_table

OBJECT_ROWS = 262_144
"""Objects whose tags are in memory at a time."""

_NEEDED_SCHEMA = pa.schema(
    [("object_id", pa.string()), ("timestamp", pa.timestamp("ms", tz="UTC")), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)]
)


@dataclass(frozen=True)
class Objects:
    """The objects centred on the region's own ground that no other region plans, in the order of `objects.parquet`.

    Attributes:
        total: Rows of that table.
        rows: Rows of these objects in it.
        ids: Object ids.
        codes: Their hash codes.
        kinds: node, line or area.
        longer_side_m: Longer side of their boxes, metres.
        centres: Longitude and latitude of their boxes' centres, [n, 2].
        edited_s: Time of the last edit, seconds since 1970, NaN where unknown.
        tags: The snapshot's tags on them.
    """

    total: int
    rows: IntArray
    ids: pa.ChunkedArray
    codes: HashArray
    kinds: npt.NDArray[np.str_]
    longer_side_m: FloatArray
    centres: FloatArray
    edited_s: FloatArray
    tags: TagPairs


@dataclass(frozen=True)
class Focus:
    """The drawn objects with their geometry, all arrays of one length.

    `index` leads to an object's row in `Objects`. `points` [n, 2] is the longitude and latitude that the tile has in
    its middle before the shift: the point, the box's centre or the vertex; NaN where no vertex lies in the region.
    """

    index: IntArray
    ids: list[str]
    codes: HashArray
    kinds: npt.NDArray[np.str_]
    geometry: npt.NDArray[np.object_]
    points: FloatArray


def read_objects(inputs: PlanInputs, ground: Ground, snapshot: Snapshot) -> Objects:
    """Read the objects of the region's own ground without their geometry.

    Raises:
        UpstreamMissingError: a table is missing.
        OutputSchemaError: one lacks a column.
        CorruptInputError: one is broken, or object ids repeat.
    """
    path, bbox = inputs.objects, ground.bbox
    table = read_table(path, _NEEDED_SCHEMA, columns=["object_id", "timestamp", "bbox"])
    try:
        codes = object_codes(table["object_id"])
    except ValueError as error:
        raise CorruptInputError(f"{path}: {error}; materialize osm_objects again") from error
    if len(np.unique(codes)) != len(codes):
        raise CorruptInputError(f"{path}: object ids repeat; materialize osm_objects again")
    west, south, east, north = (
        pc.struct_field(table["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")
    )
    centres = np.column_stack([(west + east) / 2, (south + north) / 2])
    elsewhere = read_table(inputs.overlap, OVERLAP_SCHEMA)["object_id"].combine_chunks()
    own = np.logical_and.reduce((centres >= bbox[:2]) & (centres <= bbox[2:]), axis=1)
    own &= ~pc.is_in(table["object_id"], value_set=elsewhere).to_numpy()
    rows = np.flatnonzero(own)
    table = table.take(rows)
    letters = pc.utf8_slice_codeunits(table["object_id"], 0, 1).to_numpy().astype("<U1")
    return Objects(
        total=len(own),
        rows=rows,
        ids=table["object_id"],
        codes=codes[rows],
        kinds=np.where(letters == "n", "node", np.where(letters == "w", "line", "area")),
        longer_side_m=longer_sides_m(table["bbox"]),
        centres=centres[rows],
        edited_s=table["timestamp"].cast(pa.int64()).to_numpy().astype(np.float64) / 1000.0,
        tags=_read_tags(path, own, snapshot),
    )


def _read_tags(path: Path, own: BoolArray, snapshot: Snapshot) -> TagPairs:
    """The snapshot's tags on the own objects, numbered among themselves, with the tags of some rows in memory."""
    done = seen = 0
    objects, tags = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for batch in pq.ParquetFile(path).iter_batches(OBJECT_ROWS, columns=["tags"]):
        mine = own[done : done + batch.num_rows]
        pairs = match_tags(pa.chunked_array([batch["tags"].filter(pa.array(mine))]), snapshot)
        objects.append(pairs.objects + seen)
        tags.append(pairs.tags)
        done, seen = done + batch.num_rows, seen + int(mine.sum())
    return TagPairs(np.concatenate(objects), np.concatenate(tags))


def read_focus(path: Path, objects: Objects, draws: Mapping[int, Drawn], bbox: Bounds, seed: int) -> Focus:
    """Read the geometry of the drawn objects alone, and choose a vertex of each line.

    Args:
        path: `objects.parquet` of the region.
        objects: What else is known of them.
        draws: What is drawn, by band of GSDs.
        bbox: (west, south, east, north) in degrees: vertices outside are not chosen.
        seed: Seed of the choice.

    Raises:
        CorruptInputError: a geometry is broken.
    """
    drawn = [drawn.pairs.objects for drawn in draws.values()]
    index = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *drawn]))
    ids, codes, kinds = objects.ids.take(index).to_pylist(), objects.codes[index], objects.kinds[index]
    try:
        geometry = shapely.from_wkb(_geometry_at(path, objects.rows[index]))
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is broken ({error}); materialize osm_objects again") from error
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    points = (bounds[:, :2] + bounds[:, 2:]) / 2
    lines = np.flatnonzero(kinds == "line")
    points[lines] = _vertices(geometry[lines], codes[lines], bbox, seed)
    return Focus(index, ids, codes, kinds, geometry, points)


def _geometry_at(path: Path, rows: IntArray) -> npt.NDArray[np.object_]:
    """WKB of some rows, rising, of a table; one row group is in memory at a time."""
    file = pq.ParquetFile(path)
    found, first = [np.zeros(0, dtype=np.object_)], 0
    for group in range(file.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
        if len(here):
            found.append(file.read_row_group(group, columns=["geometry"])["geometry"].take(here - first).to_numpy())
        first = last
    return np.concatenate(found)


def _vertices(lines: npt.NDArray[np.object_], codes: HashArray, bbox: Bounds, seed: int) -> FloatArray:
    """A random vertex of each line among those inside the region, NaN where there is none; [n, 2] degrees."""
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    inside = ((coordinates >= bbox[:2]) & (coordinates <= bbox[2:])).all(axis=1)
    coordinates, owner = coordinates[inside], owner[inside]
    counts = np.bincount(owner, minlength=len(lines))
    first = np.cumsum(counts) - counts
    chosen = np.full((len(lines), 2), np.nan)
    some = np.flatnonzero(counts)
    pick = (unit_hashes(codes[some], seed, "vertex") * counts[some]).astype(np.int64)
    chosen[some] = coordinates[first[some] + pick]
    return chosen
