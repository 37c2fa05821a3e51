"""From an OSM extract to a table of its tagged objects: nodes, lines and areas with geometry and measures.

A PBF is read in blocks: relations first, to know the ways they need, then nodes into an index of locations, then ways.
Every step works on all objects of some blocks at once, on as many threads as there are cores, and holds no more than
these blocks; libosmium assembles the areas that are not plain rings. Other formats are brought into a PBF first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import osmium
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.errors import DISK_FULL, CorruptInputError, NoSpaceError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm import wkb
from skyscript_assets.lib.osm.areas import RELATION_AREA_TYPES, closed_way_kinds
from skyscript_assets.lib.osm.assembly import assembled, relations_text, ways_text
from skyscript_assets.lib.osm.extract import read_staged
from skyscript_assets.lib.osm.hilbert_table import HilbertTable
from skyscript_assets.lib.osm.locations import NodeLocations, order_of
from skyscript_assets.lib.osm.measures import hilbert_index, path_lengths_m, ring_areas_m2
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Nodes, Objects, Tags
from skyscript_assets.lib.osm.pbf.file import PbfFile, unsorted_error
from skyscript_assets.lib.osm.ragged import any_of, closed, kept_offsets, offsets_of, ranges
from skyscript_assets.lib.osm.rings import plain_rings
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

UNITS_PER_DEGREE = 10_000_000
"""Locations are whole numbers of 1e-7 degrees."""

NODE_BLOCKS, WAY_BLOCKS = 8, 1
"""Blocks of a PBF (8,000 objects as a rule) that are worked on at once: enough to keep numpy busy, few enough for the
caches of a processor."""

AREAS_AT_ONCE = 4096

BUCKET_BYTES = 32 * 1024 * 1024
"""What is sorted at once."""

SPILL_RATIO = 6
"""Bytes of objects for one byte of a PBF, about: 4.7 for a mixture of five countries and cities."""

_SAMPLE_BLOCKS = 32

_UNPACKED = {".bz2": 12, ".gz": 10}
"""Size of packed XML as XML, at most; as a PBF that is not packed it is smaller."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class ObjectsSummary:
    """What a region's extract holds."""

    nodes: int
    lines: int
    areas: int
    outside: int
    """Tagged objects of the extract that do not touch the region's ground."""
    invalid: int
    invalid_reasons: dict[str, int]

    @property
    def objects(self) -> int:
        """Rows of `objects.parquet`."""
        return self.nodes + self.lines + self.areas


@dataclass(frozen=True)
class _Ground:
    """The ground to use: (west, south, east, north) in degrees, and a polygon inside where the settings give one."""

    bounds: Bounds
    polygon: shapely.Geometry | None

    def touched(self, boxes: FloatArray, geometries: pa.Array) -> BoolArray:
        """Which objects touch the ground: [n, 4] boxes in degrees, [n] WKB."""
        west, south, east, north = self.bounds
        inside: BoolArray = (
            (boxes[:, 0] <= east) & (boxes[:, 2] >= west) & (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
        )
        if self.polygon is not None and inside.any():
            shapely.prepare(self.polygon)
            near = np.flatnonzero(inside)
            shapes = shapely.from_wkb(geometries.take(pa.array(near)).to_numpy(zero_copy_only=False))
            inside[near] = shapely.intersects(self.polygon, shapes)
        return inside


@dataclass
class _Rows:
    """What some blocks gave: rows of the table with their places on the curve, and objects without geometry."""

    tables: list[tuple[pa.Table, NDArray[np.uint64]]] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)
    outside: int = 0
    letters: Counter[str] = field(default_factory=Counter)

    def add(self, other: _Rows) -> None:
        """Take over what another part found."""
        self.tables += other.tables
        self.invalid += other.invalid
        self.outside += other.outside
        self.letters += other.letters


def write_objects(extract_folder: Path, out: Path, progress: Progress = silent) -> ObjectsSummary:
    """Write `objects.parquet` and `invalid.parquet` of a staged extract.

    Every node, way and area with at least one tag becomes a row if it touches the region's ground; the tag `type`
    alone does not make a relation tagged. Closed ways follow `lib.osm.areas`; multipolygon and boundary relations
    are areas. An object that has no valid geometry is listed with the reason instead, wherever it lies.

    Args:
        extract_folder: Output of `stage_extract`: `extract.json` and the file it names.
        out: Existing folder for the two tables.
        progress: Told the blocks of the extract that are done.

    Raises:
        UpstreamMissingError: `extract.json` or the extract is missing.
        CorruptInputError: either cannot be read, or the extract is not sorted or holds an object twice.
        NoSpaceError: the disk is full.
    """
    path, bounds, polygon = read_staged(extract_folder)
    ground = _Ground(bounds, polygon)
    scratch = out / ".scratch"
    # A run that was killed left its own there.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        if path.suffix != ".pbf":
            path = _as_pbf(path, scratch / "extract.osm.pbf")
        with _system_memory():
            return _Writing(PbfFile(path), ground, out, scratch, progress).run()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpaceError(f"{out}: the disk is full ({error}); free some space and run again") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _system_memory() -> Iterator[None]:
    """Let Arrow take its memory from the C library: its own pool keeps a third more where threads share their work."""
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


class _Deleted:
    """A filter of osmium that drops deleted objects."""

    def _drop(self, obj: Any) -> bool:
        return bool(obj.deleted)

    node = way = relation = _drop


def _as_pbf(path: Path, target: Path) -> Path:
    """Bring an extract of another format into a PBF, as fast to write as to read."""
    # Looked after beforehand: osmium's writer does not survive a full disk.
    need = path.stat().st_size * _UNPACKED.get(path.suffix, 1)
    free = shutil.disk_usage(target.parent).free
    if need > free:
        raise NoSpaceError(f"{target.parent}: about {need} bytes are needed to unpack {path}, {free} are free")
    try:
        with (
            osmium.io.Reader(path) as reader,
            osmium.SimpleWriter(osmium.io.File(str(target), "pbf,pbf_compression=none")) as writer,
        ):
            osmium.apply(reader, _Deleted(), writer)
    except RuntimeError as error:  # all that osmium raises
        raise CorruptInputError(f"{path} cannot be read ({error}); get the extract again") from error
    return target


def _in_order(work: Callable[[range], _T], blocks: range, at_once: int, threads: int) -> Iterator[tuple[range, _T]]:
    """Work on blocks on several threads; results come in the order of the blocks, a few ahead of their use."""
    waiting: deque[tuple[range, Future[_T]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start in range(blocks.start, blocks.stop, at_once):
            some = range(start, min(start + at_once, blocks.stop))
            waiting.append((some, pool.submit(work, some)))
            if len(waiting) > threads:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


class _Writing:
    """One run of `write_objects`."""

    def __init__(self, file: PbfFile, ground: _Ground, out: Path, scratch: Path, progress: Progress) -> None:
        self._file, self._ground, self._out, self._scratch = file, ground, out, scratch
        self._progress = progress
        self._threads = len(os.sched_getaffinity(0))
        self._found = _Rows()
        self._locations = NodeLocations(scratch)
        self._last: dict[str, int] = {}
        self._done = 0
        self._needed: IntArray = np.zeros(0, np.int64)
        self._types: set[str] = set()

    def run(self) -> ObjectsSummary:
        """Read the extract and write both tables."""
        nodes, ways, relations = self._file.sections()
        self._total = len(nodes) + len(ways) + len(relations)
        areas = self._areas_of_relations(relations)
        self._needed = np.unique(np.concatenate([np.zeros(0, np.int64), *(part.refs for part in areas)]))
        with (
            HilbertTable(self._out / "objects.parquet", OBJECT_SCHEMA, self._scratch, self._borders(nodes)) as table,
            (self._scratch / "members.opl").open("wb") as members,
        ):
            for some, (found, rows) in _in_order(self._nodes, nodes, NODE_BLOCKS, self._threads):
                self._check_order("n", found.ids)
                self._locations.add(found.ids, found.places)
                self._take(rows, table, some)
            self._locations.finish()
            for some, (ids, text, rows) in _in_order(self._ways, ways, WAY_BLOCKS, self._threads):
                self._check_order("w", ids)
                members.write(text)
                self._take(rows, table, some)
            for part in areas:
                members.write(relations_text(part))
            members.close()
            for rows in self._relations(areas, Path(members.name)):
                self._take(rows, table, range(0))
            table.finish(sorted(self._types))
        return self._summary()

    def _take(self, rows: _Rows, table: HilbertTable, blocks: range) -> None:
        """Add to the table what some blocks gave."""
        for part, keys in rows.tables:
            table.add(part, keys)
        self._found.add(replace(rows, tables=[]))
        self._tell(blocks)

    def _tell(self, blocks: range) -> None:
        self._done += len(blocks)
        self._progress(self._done, self._total, "blocks")

    def _summary(self) -> ObjectsSummary:
        found = self._found
        invalid = [{"object_id": object_id, "reason": reason} for object_id, reason in sorted(found.invalid)]
        write_table(self._out / "invalid.parquet", rows_to_table(invalid, INVALID_SCHEMA))
        return ObjectsSummary(
            nodes=found.letters["n"],
            lines=found.letters["w"],
            areas=found.letters["a"] + found.letters["r"],
            outside=found.outside,
            invalid=len(invalid),
            invalid_reasons=dict(sorted(Counter(row["reason"] for row in invalid).items())),
        )

    def _borders(self, nodes: range) -> NDArray[np.uint64]:
        """Where to cut the Hilbert curve so that each piece can be sorted in memory: by a sample of the nodes."""
        buckets = -(-self._file.path.stat().st_size * SPILL_RATIO // BUCKET_BYTES)
        if buckets < 2 or not nodes:
            return np.zeros(0, np.uint64)
        sampled = nodes[:: max(1, len(nodes) // _SAMPLE_BLOCKS)]
        places = np.concatenate([self._file.nodes([block]).places for block in sampled])
        places = places[places[:, 0] != NOWHERE]
        keys = np.sort(hilbert_index(*(places.T / UNITS_PER_DEGREE)))
        return np.unique(keys[np.arange(1, buckets) * len(keys) // buckets]) if len(keys) else keys

    def _check_order(self, letter: str, ids: IntArray) -> None:
        """Raise CorruptInputError unless ids go on rising."""
        if len(ids) == 0:
            return
        order = order_of(ids)
        steps = np.diff(order, prepend=self._last.get(letter, order[0] - 1))
        if np.any(steps < 0):
            raise unsorted_error(self._file.path)
        if np.any(steps == 0):
            repeated = f"{letter}{ids[np.flatnonzero(steps == 0)[0]]}"
            raise CorruptInputError(
                f"{self._file.path} holds {repeated} more than once; "
                "give an extract without copies (`osmium merge` makes one)"
            )
        self._last[letter] = int(order[-1])

    # ------------------------------------------------------------------------------------------------------- relations

    def _areas_of_relations(self, blocks: range) -> list[Objects]:
        """Relations that are areas; those without ways are noted."""
        found = []
        for some, relations in _in_order(self._file.relations, blocks, WAY_BLOCKS, self._threads):
            self._check_order("r", relations.ids)
            areas = relations.at(_multipolygons(relations))
            empty = np.diff(areas.ref_offsets) == 0
            self._found.invalid += [(f"r{osm_id}", NO_WAYS) for osm_id in areas.ids[empty].tolist()]
            found.append(areas.at(np.flatnonzero(~empty)))
            self._tell(some)
        return found

    def _relations(self, parts: list[Objects], members: Path) -> Iterator[_Rows]:
        """Areas of relations from the ways that were gathered."""
        place = {osm_id: (part, row) for part in parts for row, osm_id in enumerate(part.ids.tolist())}
        for some in _chunks(assembled(members), AREAS_AT_ONCE):
            by_part: dict[int, tuple[Objects, list[int], list[bytes | None]]] = {}
            for _, osm_id, geometry in some:
                part, row = place.pop(osm_id)
                _, rows, geometries = by_part.setdefault(id(part), (part, [], []))
                rows.append(row)
                geometries.append(geometry)
            for part, rows, geometries in by_part.values():
                yield self._areas("r", _without_type(part.at(np.array(rows, np.int64))), geometries)
        yield _Rows(invalid=[(f"r{osm_id}", MEMBERS_MISSING) for osm_id in place])

    def _areas(self, letter: str, objects: Objects, geometries: list[bytes | None]) -> _Rows:
        """Rows of areas that libosmium assembled."""
        shapes = shapely.from_wkb(np.array(geometries, object))
        single = shapely.get_num_geometries(shapes) == 1
        shapes[single] = shapely.get_geometry(shapes[single], 0)
        made, valid = ~shapely.is_missing(shapes), shapely.is_valid(shapes)
        found = _Rows()
        for row in np.flatnonzero(~(made & valid)).tolist():
            reason = shapely.is_valid_reason(shapes[row]).partition("[")[0] if made[row] else ""
            found.invalid.append(
                (f"{letter}{objects.ids[row]}", f"polygon is not valid: {reason}" if made[row] else NO_RINGS)
            )
        kept = np.flatnonzero(valid)
        shapes = shapes[kept]
        self._types |= {
            name
            for number, name in ((3, "Polygon"), (6, "MultiPolygon"))
            if np.any(shapely.get_type_id(shapes) == number)
        }
        polygons, owner = shapely.get_parts(shapes, return_index=True)
        rings, polygon = shapely.get_rings(polygons, return_index=True)
        places, ring = shapely.get_coordinates(rings, return_index=True)
        offsets = offsets_of(np.bincount(ring, minlength=len(rings)).astype(np.int64))
        outer = np.diff(polygon, prepend=-1) > 0
        owner = owner[polygon]
        areas = np.abs(ring_areas_m2(places, offsets)) * np.where(outer, 1.0, -1.0)
        area, length = (
            np.bincount(owner, weights=of_rings, minlength=len(kept)).astype(np.float64)
            for of_rings in (areas, path_lengths_m(places, offsets))
        )
        geometry = pa.array(shapely.to_wkb(shapes), pa.binary())
        self._add(found, letter, objects.at(kept), geometry, shapely.bounds(shapes).reshape(-1, 4), area, length)
        return found

    # ----------------------------------------------------------------------------------------------------------- nodes

    def _nodes(self, blocks: range) -> tuple[Nodes, _Rows]:
        """Nodes of some blocks, and rows of the tagged ones."""
        nodes = self._file.nodes(blocks)
        found = _Rows()
        placed = nodes.places[nodes.rows, 0] != NOWHERE
        found.invalid = [(f"n{osm_id}", NO_LOCATION) for osm_id in nodes.tagged.ids[~placed].tolist()]
        tagged = nodes.tagged if placed.all() else nodes.tagged.at(np.flatnonzero(placed))
        places = nodes.places[nodes.rows[placed]] / UNITS_PER_DEGREE
        if len(places):
            self._types.add("Point")
        none = np.zeros(len(places))
        self._add(found, "n", tagged, wkb.points(places), np.hstack((places, places)), none, none)
        return nodes, found

    # ------------------------------------------------------------------------------------------------------------ ways

    def _ways(self, blocks: range) -> tuple[IntArray, bytes, _Rows]:
        """Ids of the ways of some blocks, those that relations need as text, and rows of the tagged ones."""
        every = self._file.ways(blocks)
        tagged = np.diff(every.tags.offsets) > 0
        member = _is_in(every.ids, self._needed)
        used = np.flatnonzero(tagged | member)
        ways, tagged, member = every.at(used), tagged[used], member[used]
        places = self._locations.find(ways.refs)
        offsets = ways.ref_offsets
        text = ways_text(ways, places, np.flatnonzero(member), own=False)
        found = _Rows()
        if tagged.any():
            complete = ~any_of(places[:, 0] == NOWHERE, offsets)
            ends_meet = closed(places, offsets)
            area, line = closed_way_kinds(ways.tags)
            self._way_lines(found, ways, places, tagged & (line | ~ends_meet), complete)
            self._way_areas(found, ways, places, tagged & area & ends_meet, complete)
        return every.ids, text, found

    def _way_lines(
        self, found: _Rows, ways: Objects, places: NDArray[np.int32], wanted: BoolArray, complete: BoolArray
    ) -> None:
        """Lines, without places that repeat the one before."""
        _note(found, "w", ways.ids[wanted & ~complete], NODES_MISSING)
        rows = np.flatnonzero(wanted & complete)
        counts = ways.ref_offsets[rows + 1] - ways.ref_offsets[rows]
        taken = places[ranges(ways.ref_offsets[rows], counts)]
        offsets = offsets_of(counts)
        new = np.ones(len(taken), np.bool_)
        new[1:] = (taken[1:] != taken[:-1]).any(axis=1)
        new[offsets[:-1][counts > 0]] = True
        if not new.all():
            counts = np.diff(kept_offsets(new, offsets))
            taken = taken[new]
        short = counts < 2
        if short.any():
            _note(found, "w", ways.ids[rows[short]], TOO_FEW_PLACES)
            taken = taken[np.repeat(~short, counts)]
            rows, counts = rows[~short], counts[~short]
        if len(rows) == 0:
            return
        self._types.add("LineString")
        offsets = offsets_of(counts)
        degrees = taken / UNITS_PER_DEGREE
        lengths = path_lengths_m(degrees, offsets)
        boxes = _boxes(taken, offsets)
        self._add(found, "w", ways.at(rows), wkb.lines(degrees, offsets), boxes, np.zeros(len(rows)), lengths)

    def _way_areas(
        self, found: _Rows, ways: Objects, places: NDArray[np.int32], wanted: BoolArray, complete: BoolArray
    ) -> None:
        """Areas of closed ways: plain rings at once, the others by libosmium."""
        enough = np.diff(ways.ref_offsets) >= 4
        _note(found, "a", ways.ids[wanted & ~enough], TOO_FEW_NODES)
        _note(found, "a", ways.ids[wanted & enough & ~complete], NODES_MISSING)
        rows = np.flatnonzero(wanted & enough & complete)
        if len(rows) == 0:
            return
        counts = ways.ref_offsets[rows + 1] - ways.ref_offsets[rows]
        taken = places[ranges(ways.ref_offsets[rows], counts)]
        plain = plain_rings(taken, offsets_of(counts))
        if not plain.all():
            self._odd_areas(found, ways, places, rows[~plain])
            taken = taken[np.repeat(plain, counts)]
            rows, counts = rows[plain], counts[plain]
        if len(rows) == 0:
            return
        self._types.add("Polygon")
        offsets = offsets_of(counts)
        degrees = taken / UNITS_PER_DEGREE
        area = ring_areas_m2(degrees, offsets)
        lengths = path_lengths_m(degrees, offsets)
        # Outer rings run counterclockwise, in GeoParquet as in libosmium.
        turned = np.repeat(area < 0, counts)
        place = np.arange(len(degrees))
        mirrored = np.repeat(offsets[:-1] + offsets[1:] - 1, counts) - place
        geometry = wkb.polygons(degrees[np.where(turned, mirrored, place)], offsets)
        self._add(found, "a", ways.at(rows), geometry, _boxes(taken, offsets), np.abs(area), lengths)

    def _odd_areas(self, found: _Rows, ways: Objects, places: NDArray[np.int32], rows: IntArray) -> None:
        """Areas of ways that are no plain rings."""
        made = {osm_id: shape for _, osm_id, shape in assembled(ways_text(ways, places, rows, own=True))}
        found.add(self._areas("a", ways.at(rows), [made.get(osm_id) for osm_id in ways.ids[rows].tolist()]))

    # ------------------------------------------------------------------------------------------------------------ rows

    def _add(
        self,
        found: _Rows,
        letter: str,
        objects: Objects,
        geometry: pa.Array,
        boxes: FloatArray,
        area: FloatArray,
        length: FloatArray,
    ) -> None:
        """Add rows of objects that touch the ground; the others are counted."""
        inside = self._ground.touched(boxes, geometry)
        if not inside.all():
            kept = np.flatnonzero(inside)
            found.outside += len(inside) - len(kept)
            objects, geometry = objects.at(kept), geometry.take(pa.array(kept))
            boxes, area, length = boxes[kept], area[kept], length[kept]
        if len(boxes) == 0:
            return
        found.letters[letter] += len(boxes)
        ids = pa.array(objects.ids)
        arrays = [
            pc.binary_join_element_wise(letter, ids.cast(pa.string()), ""),
            pa.repeat(pa.scalar(OSM_TYPES[letter]), len(ids)),
            ids,
            pa.array(np.maximum(objects.versions, 0).astype(np.int32)),
            pa.array(objects.timestamps_ms, pa.timestamp("ms", tz="UTC"), mask=objects.timestamps_ms == 0),
            self._tags(objects.tags),
            geometry,
            pa.StructArray.from_arrays([pa.array(side) for side in boxes.T], fields=list(BBOX_TYPE)),
            pa.array(area),
            pa.array(length),
        ]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
        table = pa.Table.from_arrays(arrays, schema=OBJECT_SCHEMA)
        found.tables.append((table, hilbert_index(centres[:, 0], centres[:, 1])))

    def _tags(self, tags: Tags) -> pa.MapArray:
        keys, values = (tags.strings.take(pa.array(places)) for places in (tags.keys, tags.values))
        try:
            keys.validate(full=True)
            values.validate(full=True)
        except pa.ArrowInvalid as error:
            raise CorruptInputError(
                f"{self._file.path} holds text that is not UTF-8 ({error}); get the extract again"
            ) from error
        return pa.MapArray.from_arrays(pa.array(tags.offsets.astype(np.int32)), keys, values)


def _multipolygons(relations: Objects) -> IntArray:
    """Relations that are areas by their type and have another tag."""
    strings = relations.tags.strings
    is_type = pc.equal(strings, "type").to_numpy(zero_copy_only=False)
    is_area = pc.is_in(strings, value_set=pa.array(sorted(RELATION_AREA_TYPES))).to_numpy(zero_copy_only=False)
    said = is_type[relations.tags.keys] & is_area[relations.tags.values]
    return np.flatnonzero(any_of(said, relations.tags.offsets) & (np.diff(relations.tags.offsets) > 1))


def _without_type(relations: Objects) -> Objects:
    """Relations without their tag `type`, which says nothing of their areas."""
    tags = relations.tags
    kept = ~pc.equal(tags.strings, "type").to_numpy(zero_copy_only=False)[tags.keys]
    return replace(
        relations, tags=Tags(kept_offsets(kept, tags.offsets), tags.keys[kept], tags.values[kept], tags.strings)
    )


def _is_in(ids: IntArray, wanted: IntArray) -> BoolArray:
    """Which ids are among the wanted ones, which are sorted."""
    if len(wanted) == 0:
        return np.zeros(len(ids), np.bool_)
    place = np.searchsorted(wanted, ids)
    place[place == len(wanted)] = 0
    return np.asarray(wanted[place] == ids, np.bool_)


def _boxes(places: NDArray[np.int32], offsets: IntArray) -> FloatArray:
    """[n, 4] boxes (west, south, east, north) of runs of places, degrees; no run is empty."""
    low, high = (edge.reduceat(places, offsets[:-1], axis=0) for edge in (np.minimum, np.maximum))
    return np.hstack((low, high)) / UNITS_PER_DEGREE


def _note(found: _Rows, letter: str, ids: IntArray, reason: str) -> None:
    found.invalid += [(f"{letter}{osm_id}", reason) for osm_id in ids.tolist()]


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
