"""Which objects of a region no picture from above shows: what `meaning` hides, what lies in buildings and woods."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.osm.meaning import GONE, LIFE_STAGES, MEANING, is_hidden, layer_of
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_batches, read_geometry

SIGHT_SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)])
"""Columns of `objects.parquet` that are read; geometry where boxes of buildings and points, woods and ways meet."""

ROWS = 262_144
"""Objects whose tags are in memory at a time."""

_HIDING_KEYS = frozenset({"tunnel", "indoor", "location", "parking", "covered", "level", "layer"})

UNDER_COVER = 0.5
"""Share of a narrow line's length within woods and buildings from which it is out of sight."""


def out_of_sight(path: Path) -> BoolArray:
    """Which rows of `objects.parquet` cannot be seen from above: neither counted nor planned nor said.

    Raises what `read_batches` and `read_geometry` do.
    """
    marks, boxes = [np.zeros((5, 0), dtype=np.bool_)], [np.zeros((0, 4))]
    for batch in read_batches(path, SIGHT_SCHEMA, ROWS):
        tags, kinds = batch["tags"], pc.utf8_slice_codeunits(batch["object_id"], 0, 1)
        keys, values, owner = entries(tags)
        suspect = pc.or_(_among(keys, _HIDING_KEYS | GONE), _among(values, GONE))
        suspect = pc.or_(suspect, pc.match_substring_regex(keys, f"^({'|'.join(sorted(LIFE_STAGES))})(:|$)"))
        some = np.flatnonzero(_owners(owner, suspect, len(tags)))
        hidden = np.zeros(len(tags), dtype=np.bool_)
        hidden[some] = [is_hidden(dict(one)) for one in tags.take(some).to_pylist()]
        closed = pc.and_(pc.equal(keys, "building"), pc.invert(_among(values, MEANING.open_buildings)))
        nodes, lines, areas = (_among(kinds, letters).to_numpy(zero_copy_only=False) for letters in ("n", "w", "ar"))
        both = pc.binary_join_element_wise(keys, values, "=")
        which = (closed, _among(both, MEANING.woods), _among(keys, MEANING.out_of_doors), _among(both, MEANING.narrow))
        roofs, woods, free, narrow = (_owners(owner, of, len(tags)) for of in which)
        shown = np.stack((areas & roofs, areas & woods, nodes & ~free, lines & narrow)) & ~hidden
        marks.append(np.vstack((hidden, shown)))
        sides = (pc.struct_field(batch["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append(np.column_stack(list(sides)))
    marked, extents = np.concatenate(marks, axis=1), np.concatenate(boxes)
    found: BoolArray = marked[0]
    built, wooded, inside, ways = map(np.flatnonzero, marked[1:])
    found[inside] = _inside(path, built, extents, shapely.points(extents[inside, :2]))
    found[ways] = _covered(path, np.union1d(built, wooded), ways, extents)
    return found


def layers(tags: pa.MapArray) -> IntArray:
    """OSM's layer of each object (`meaning.layer_of`), from its tags."""
    keys, values, owner = entries(tags)
    suspect = pc.or_(_among(keys, ("layer", "bridge")), _among(values, ("bridge",)))
    some = np.flatnonzero(_owners(owner, suspect, len(tags)))
    found = np.zeros(len(tags), dtype=np.int64)
    found[some] = [layer_of(dict(one)) for one in tags.take(some).to_pylist()]
    return found


def entries(tags: pa.MapArray) -> tuple[pa.Array, pa.Array, IntArray]:
    """Keys and values of all tags of some objects, and the object that each belongs to."""
    offsets = tags.offsets.to_numpy()
    first, length = int(offsets[0]), int(offsets[-1] - offsets[0])
    owner = np.repeat(np.arange(len(tags), dtype=np.int64), np.diff(offsets))
    return tags.keys.slice(first, length), tags.items.slice(first, length), owner


def _among(texts: pa.Array, wanted: Iterable[str]) -> pa.Array:
    return pc.is_in(texts, value_set=pa.array(sorted(wanted), pa.string()))


def _owners(owner: IntArray, which: pa.Array, n: int) -> BoolArray:
    """The objects of which a tag is marked, as a mask."""
    mask = np.zeros(n, dtype=np.bool_)
    mask[owner[which.to_numpy(zero_copy_only=False)]] = True
    return mask


def _inside(path: Path, areas: IntArray, boxes: FloatArray, places: npt.NDArray[np.object_]) -> BoolArray:
    """Which points lie within one of some areas, rows of the table, whose boxes are given."""
    area, point = shapely.STRtree(places).query(shapely.box(*boxes[areas].T))
    used, place = np.unique(area, return_inverse=True)
    within = np.zeros(len(places), dtype=np.bool_)
    if len(used):
        outlines = read_geometry(path, areas[used])
        shapely.prepare(outlines)
        within[point[shapely.contains(outlines[place], places[point])]] = True
    return within


def _covered(path: Path, covers: IntArray, ways: IntArray, boxes: FloatArray) -> BoolArray:
    """Which lines lie below roofs and trees for `UNDER_COVER` of their length or more; both are rows of the table."""
    under = np.zeros(len(ways), dtype=np.bool_)
    near = np.unique(shapely.STRtree(shapely.box(*boxes[ways].T)).query(shapely.box(*boxes[covers].T))[1])
    if len(near):
        ends, of = shapely.get_coordinates(read_geometry(path, ways[near]), return_index=True)
        steps, middles = np.diff(ends, axis=0), (ends[1:] + ends[:-1]) / 2
        # Degrees of longitude are shorter than those of latitude, and a step between two lines has no length.
        length = np.hypot(steps[:, 0] * np.cos(np.radians(middles[:, 1])), steps[:, 1]) * (of[1:] == of[:-1])
        hidden = length * _inside(path, covers, boxes, shapely.points(middles))
        under[near] = np.bincount(of[1:], hidden - UNDER_COVER * length, len(near)) >= 0.0
    return under
