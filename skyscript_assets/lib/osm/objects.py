"""From an OSM extract to a table of its tagged objects: nodes, lines and areas with geometry and measures.

Reading is osmium's: it keeps node locations, assembles areas and checks them while it streams the file twice. Here
objects are gathered column by column, and everything that can be done for all of them at once is done by shapely,
numpy and Arrow.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np
import osmium
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.areas import RELATION_AREA_TYPES, closed_way_kind
from skyscript_assets.lib.osm.measures import areas_m2, hilbert_index, lengths_m
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, rows_to_table, write_table

OBJECT_SCHEMA = pa.schema(
    [
        ("object_id", pa.string()),
        ("osm_type", pa.string()),
        ("osm_id", pa.int64()),
        ("version", pa.int32()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("tags", TAGS_TYPE),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
        ("area_m2", pa.float64()),
        ("length_m", pa.float64()),
    ]
)
"""Columns of `objects.parquet`; geometry is WKB in EPSG:4326, `timestamp` may be null, nothing else is."""

INVALID_SCHEMA = pa.schema([("object_id", pa.string()), ("reason", pa.string())])
"""Columns of `invalid.parquet`."""

OSM_TYPES = {"n": "node", "w": "way", "a": "way", "r": "relation"}
"""OSM's type of an object, by the first letter of its object id."""

NO_LOCATION = "node without a location"
NODES_MISSING = "nodes missing from the extract"
TOO_FEW_PLACES = "line of fewer than two places"
TOO_FEW_NODES = "area of fewer than four nodes"
NO_WAYS = "relation without ways"
MEMBERS_MISSING = "members missing from the extract"
NO_RINGS = "rings cross or do not close"

_UNIX_EPOCH = dt.datetime.fromtimestamp(0, tz=dt.UTC)
_TELL_EVERY = 20_000


@dataclass(frozen=True)
class ObjectsSummary:
    """What a region's extract holds."""

    nodes: int
    lines: int
    areas: int
    outside: int
    """Tagged objects of the extract that do not touch the region's box."""
    invalid: int
    invalid_reasons: dict[str, int]

    @property
    def objects(self) -> int:
        """Rows of `objects.parquet`."""
        return self.nodes + self.lines + self.areas


@dataclass
class _Columns:
    """Objects as they are read; one element of each list an object."""

    object_ids: list[str] = field(default_factory=list)
    osm_ids: list[int] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    timestamps: list[dt.datetime | None] = field(default_factory=list)
    tags: list[dict[str, str]] = field(default_factory=list)
    wkb: list[bytes] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)

    def add(self, letter: str, osm_id: int, obj: Any, tags: dict[str, str], hex_wkb: str) -> None:
        stamp = obj.timestamp
        self.object_ids.append(f"{letter}{osm_id}")
        self.osm_ids.append(osm_id)
        self.versions.append(obj.version)
        self.timestamps.append(None if stamp == _UNIX_EPOCH else stamp)
        self.tags.append(tags)
        self.wkb.append(bytes.fromhex(hex_wkb))


def write_objects(extract_folder: Path, out: Path, progress: Progress = silent) -> ObjectsSummary:
    """Write `objects.parquet` and `invalid.parquet` of a staged extract.

    Every node, way and area with at least one tag becomes a row if its box touches the region's box; the tag `type`
    alone does not make a relation tagged. Closed ways follow `lib.osm.areas`; multipolygon and boundary relations
    are areas. An object that has no valid geometry is listed with the reason instead, wherever it lies.

    Args:
        extract_folder: Output of `stage_extract`: `extract.json` and the file it names.
        out: Existing folder for the two tables.
        progress: Told the objects read; their total is not known beforehand.

    Raises:
        UpstreamMissingError: `extract.json` or the extract is missing.
        CorruptInputError: either cannot be read.
    """
    path, bounds = _staged(extract_folder)
    columns = _read(path, progress)
    geometries = shapely.from_wkb(np.array(columns.wkb, dtype=object))
    single = (shapely.get_type_id(geometries) == shapely.GeometryType.MULTIPOLYGON) & (
        shapely.get_num_geometries(geometries) == 1
    )
    geometries[single] = shapely.get_geometry(geometries[single], 0)
    valid = _note_invalid(columns, geometries)
    boxes = shapely.bounds(geometries).reshape(-1, 4)
    west, south, east, north = bounds
    inside = (boxes[:, 0] <= east) & (boxes[:, 2] >= west) & (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
    table, types = _table(columns, geometries, boxes, np.flatnonzero(valid & inside))
    write_table(out / "objects.parquet", table, geometry="geometry", geometry_types=types)
    invalid = [{"object_id": object_id, "reason": reason} for object_id, reason in sorted(columns.invalid)]
    write_table(out / "invalid.parquet", rows_to_table(invalid, INVALID_SCHEMA))
    letters = Counter(object_id[0] for object_id in table["object_id"].to_pylist())
    return ObjectsSummary(
        nodes=letters["n"],
        lines=letters["w"],
        areas=letters["a"] + letters["r"],
        outside=int((valid & ~inside).sum()),
        invalid=len(invalid),
        invalid_reasons=dict(sorted(Counter(row["reason"] for row in invalid).items())),
    )


def _staged(folder: Path) -> tuple[Path, Bounds]:
    """The staged extract and the box of the ground to use."""
    facts_path = folder / "extract.json"
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        path, bounds = folder / facts["file"], tuple(float(side) for side in facts["bbox"])
    except FileNotFoundError:
        raise UpstreamMissingError(f"{facts_path} does not exist: materialize osm_extract first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptInputError(f"{facts_path} cannot be read ({error!r}); materialize osm_extract again") from error
    if len(bounds) != 4:
        raise CorruptInputError(f"{facts_path}: bbox needs four numbers; materialize osm_extract again")
    if not path.is_file():
        raise UpstreamMissingError(f"{path} does not exist: materialize osm_extract first")
    return path, bounds


def _read(path: Path, progress: Progress) -> _Columns:
    """All tagged objects of an extract."""
    columns = _Columns()
    try:
        _gather(_tagged_objects(path, progress), columns)
    except UnicodeDecodeError as error:
        raise CorruptInputError(f"{path} holds text that is not UTF-8 ({error}); get the extract again") from error
    except RuntimeError as error:  # all that osmium raises while it reads
        raise CorruptInputError(
            f"{path} cannot be read ({error}); get the extract again, or bring it in order with `osmium sort`"
        ) from error
    if len(set(columns.object_ids)) < len(columns.object_ids):
        repeated, count = Counter(columns.object_ids).most_common(1)[0]
        raise CorruptInputError(
            f"{path} holds {repeated} {count} times; give an extract without copies (`osmium merge` makes one)"
        )
    return columns


def _tagged_objects(path: Path, progress: Progress) -> Iterator[Any]:
    processor = osmium.FileProcessor(path).with_areas().with_filter(osmium.filter.EmptyTagFilter())
    done = 0
    for done, obj in enumerate(processor, start=1):
        if not obj.deleted:
            yield obj
        if done % _TELL_EVERY == 0:
            progress(done, 0, "objects")
    progress(done, done, "objects")


def _gather(objects: Iterator[Any], columns: _Columns) -> None:
    """Sort what osmium yields into columns; what is announced as an area but never assembled becomes invalid."""
    wkb = osmium.geom.WKBFactory()
    expected_ways: dict[int, dict[str, str]] = {}
    expected_relations: set[int] = set()
    for obj in objects:
        if obj.is_way():
            _add_way(obj, wkb, columns, expected_ways)
        elif obj.is_area():
            _add_area(obj, wkb, columns, expected_ways, expected_relations)
        elif obj.is_node():
            _add_node(obj, wkb, columns)
        elif obj.tags.get("type") in RELATION_AREA_TYPES and len(obj.tags) > 1:
            if any(member.type == "w" for member in obj.members):
                expected_relations.add(obj.id)
            else:
                columns.invalid.append((f"r{obj.id}", NO_WAYS))
    columns.invalid.extend((f"a{osm_id}", NODES_MISSING) for osm_id in expected_ways)
    columns.invalid.extend((f"r{osm_id}", MEMBERS_MISSING) for osm_id in expected_relations)


def _add_node(node: Any, wkb: Any, columns: _Columns) -> None:
    try:
        point = wkb.create_point(node)
    except osmium.InvalidLocationError:
        columns.invalid.append((f"n{node.id}", NO_LOCATION))
    else:
        columns.add("n", node.id, node, dict(node.tags), point)


def _add_way(way: Any, wkb: Any, columns: _Columns, expected: dict[int, dict[str, str]]) -> None:
    """A way as a line; a closed one that is an area is noted until osmium has assembled it."""
    tags = dict(way.tags)
    kind = closed_way_kind(tags) if way.is_closed() else "line"
    if kind != "line":
        if len(way.nodes) < 4:
            columns.invalid.append((f"a{way.id}", TOO_FEW_NODES))
        else:
            expected[way.id] = tags
    if kind != "area":
        # The factory raises where it meets a missing node, but passes over those at a line's beginning.
        if len(way.nodes) > 0 and not way.nodes[0].location.valid():
            columns.invalid.append((f"w{way.id}", NODES_MISSING))
            return
        try:
            line = wkb.create_linestring(way)
        except osmium.InvalidLocationError:
            columns.invalid.append((f"w{way.id}", NODES_MISSING))
        except RuntimeError:  # a line of one place
            columns.invalid.append((f"w{way.id}", TOO_FEW_PLACES))
        else:
            columns.add("w", way.id, way, tags, line)


def _add_area(area: Any, wkb: Any, columns: _Columns, ways: dict[int, dict[str, str]], relations: set[int]) -> None:
    osm_id = area.orig_id()
    if area.from_way():
        letter, tags = "a", ways.pop(osm_id, None)
        if tags is None:
            return
    else:
        # An area of a relation carries the relation's tags but `type`.
        letter, tags = "r", dict(area.tags)
        relations.discard(osm_id)
    try:
        polygon = wkb.create_multipolygon(area)
    except RuntimeError:  # osmium leaves an area without rings where it cannot build them
        columns.invalid.append((f"{letter}{osm_id}", NO_RINGS))
    else:
        columns.add(letter, osm_id, area, tags, polygon)


def _note_invalid(columns: _Columns, geometries: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Which geometries are valid; the others are listed."""
    valid: NDArray[np.bool_] = shapely.is_valid(geometries)
    for i in np.flatnonzero(~valid):
        reason = shapely.is_valid_reason(geometries[i]).partition("[")[0]
        columns.invalid.append((columns.object_ids[i], f"polygon is not valid: {reason}"))
    return valid


def _table(
    columns: _Columns, geometries: NDArray[np.object_], boxes: NDArray[np.float64], keep: NDArray[np.intp]
) -> tuple[pa.Table, list[str]]:
    """The kept objects in Hilbert order of their boxes' centres, and the names of the geometry types among them."""
    centres = (boxes[keep, :2] + boxes[keep, 2:]) / 2.0
    ids = np.array(columns.object_ids, dtype=np.str_)[keep]
    keep = keep[np.lexsort((ids, hilbert_index(centres[:, 0], centres[:, 1])))]
    geometries, boxes = geometries[keep], boxes[keep]
    object_ids = [columns.object_ids[i] for i in keep]
    arrays = [
        pa.array(object_ids, pa.string()),
        pa.array([OSM_TYPES[object_id[0]] for object_id in object_ids], pa.string()),
        pa.array([columns.osm_ids[i] for i in keep], pa.int64()),
        pa.array([columns.versions[i] for i in keep], pa.int32()),
        pa.array([columns.timestamps[i] for i in keep], pa.timestamp("ms", tz="UTC")),
        _tags_array([columns.tags[i] for i in keep]),
        pa.array(shapely.to_wkb(geometries), pa.binary()),
        pa.StructArray.from_arrays([pa.array(side) for side in boxes.T], fields=list(BBOX_TYPE)),
        pa.array(areas_m2(geometries)),
        pa.array(lengths_m(geometries)),
    ]
    types = [shapely.GeometryType(i).name for i in np.unique(shapely.get_type_id(geometries))]
    names = {"POINT": "Point", "LINESTRING": "LineString", "POLYGON": "Polygon", "MULTIPOLYGON": "MultiPolygon"}
    return pa.Table.from_arrays(arrays, schema=OBJECT_SCHEMA), [names[name] for name in types]


def _tags_array(tags: list[dict[str, str]]) -> pa.MapArray:
    offsets = list(accumulate(map(len, tags), initial=0))
    keys = pa.array(list(chain.from_iterable(tags)), pa.string())
    values = pa.array(list(chain.from_iterable(t.values() for t in tags)), pa.string())
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), keys, values)
