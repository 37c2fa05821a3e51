"""From an OSM extract to a table of its tagged objects: nodes, lines and areas with geometry and measures.

A PBF is read in blocks: relations first, to know the ways they need, then nodes into an index of locations, then ways.
Every step works on all objects of some blocks at once, on as many threads as there are cores, and holds no more than
these blocks; libosmium assembles the areas that are not plain rings. Other formats are brought into a PBF first.
"""

import contextlib
import shutil
import xml.parsers.expat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import osmium
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, IntArray
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import check_room
from skyscript_assets.lib.geometry import TURNS, Bounds, within_180
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.osm.assembly import assembled, relations_text, ways_text
from skyscript_assets.lib.osm.extract import read_staged
from skyscript_assets.lib.osm.hilbert_table import HilbertTable
from skyscript_assets.lib.osm.locations import NodeLocations, order_of
from skyscript_assets.lib.osm.measures import hilbert_index
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Nodes, Objects, Tags, nodes_of, relations_of, ways_of
from skyscript_assets.lib.osm.pbf.file import PbfFile, unsorted_error
from skyscript_assets.lib.osm.polygons import Ground
from skyscript_assets.lib.osm.shapes import (
    MEMBERS_MISSING,
    NO_WAYS,
    UNITS_PER_DEGREE,
    Shaped,
    Shapes,
    areas_of,
    shape_areas,
    shape_nodes,
    shape_ways,
    turned,
)
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, fields, rows_to_table, write_table
from skyscript_assets.lib.threads import cores

OBJECT_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "object_id", "osm_type"),
        ("osm_id", pa.int64()),
        ("version", pa.int32()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("tags", TAGS_TYPE),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
        *fields(pa.float64(), "area_m2", "length_m"),
    ]
)
"""Columns of `objects.parquet`; geometry is WKB in EPSG:4326, `timestamp` may be null, nothing else is."""

INVALID_SCHEMA = pa.schema([("object_id", pa.string()), ("reason", pa.string())])
"""Columns of `invalid.parquet`."""

OSM_TYPES = {"n": "node", "w": "way", "a": "way", "r": "relation"}
"""OSM's type of an object, by the first letter of its object id."""

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


@dataclass
class _Rows:
    """What some blocks gave: rows of the table with their places on the curve, and what else is to be told."""

    tables: list[tuple[pa.Table, NDArray[np.uint64]]] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)
    letters: Counter[str] = field(default_factory=Counter)
    types: set[str] = field(default_factory=set)
    outside: int = 0


def write_objects(extract_folder: Path, out: Path, progress: Progress = silent, origin: str = "") -> dict[str, Any]:
    """Write `objects.parquet` and `invalid.parquet` of a staged extract.

    Every node, way and area with at least one tag becomes a row if it touches the region's ground; the tag `type`
    alone does not make a relation tagged. Closed ways follow `lib.osm.areas`; multipolygon and boundary relations
    are areas. An object that has no valid geometry is listed with the reason instead, wherever it lies. Messages name
    the extract by its `origin`, or else by its path.

    Returns:
        Numbers of `nodes`, `lines` and `areas`, of tagged objects `outside` the region's ground, and of `invalid` ones,
        also by reason (`invalid_reasons`).

    Raises:
        UpstreamMissingError: `extract.json` or the extract is missing.
        CorruptInputError: either cannot be read, or the extract is not sorted or holds an object twice.
        NoSpaceError: the disk has less room than unpacking needs.
    """
    staged, bounds, polygon = read_staged(extract_folder)
    scratch = out / ".scratch"
    # A run that was killed left its own there.
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    path = staged if staged.suffix == ".pbf" else scratch / "extract.osm.pbf"
    try:
        if path is not staged:
            _bring_into_pbf(staged, path)
        with _system_memory():
            return _Writing(PbfFile(path), bounds, polygon, out, scratch, progress).run()
    except CorruptInputError as error:
        name = origin or str(staged)
        raise CorruptInputError(str(error).replace(str(path), name).replace(str(staged), name)) from error
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
    """A filter of osmium that drops deleted objects: invisible ones, and those that JOSM marks for deletion."""

    def __init__(self, path: Path) -> None:
        self._marked: set[tuple[str, int]] = set()
        with pa.input_stream(path) as file:
            parts = chain([b""], iter(lambda: file.read(1 << 20), b""))
            texts = (before[-9:] + part for before, part in pairwise(parts))
            if not any(space + b"action" in text for text in texts for space in (b" ", b"\n", b"\t")):
                return
        parser = xml.parsers.expat.ParserCreate()
        parser.StartElementHandler = self._begin
        with pa.input_stream(path) as file:
            parser.ParseFile(file)

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        if attributes.get("action") == "delete":
            self._marked.add((name[:1], int(attributes["id"])))

    def _drop(self, obj: Any) -> bool:
        return bool(obj.deleted) or (bool(self._marked) and (obj.type_str(), obj.id) in self._marked)

    node = way = relation = _drop


def _bring_into_pbf(path: Path, target: Path) -> None:
    """Bring an extract of another format into a PBF, as fast to write as to read."""
    # Looked after beforehand: osmium's writer does not survive a full disk.
    check_room(target.parent, path.stat().st_size * _UNPACKED.get(path.suffix, 1), f"needed to unpack {path}")
    try:
        with (
            osmium.io.Reader(path) as reader,
            osmium.SimpleWriter(osmium.io.File(str(target), "pbf,pbf_compression=none")) as writer,
        ):
            osmium.apply(reader, _Deleted(path), writer)
    except (RuntimeError, xml.parsers.expat.ExpatError, KeyError, ValueError) as error:
        raise CorruptInputError(f"{path} cannot be read ({error}); get the extract again") from error


class _Writing:
    """One run of `write_objects`."""

    def __init__(
        self, file: PbfFile, bounds: Bounds, polygon: Ground | None, out: Path, scratch: Path, progress: Progress
    ) -> None:
        self._file, self._bounds, self._polygon, self._out, self._scratch = file, bounds, polygon, out, scratch
        # A region at the antimeridian has its relations assembled with the globe turned by half.
        self._turned = (bounds[0] > 0.0 and bounds[2] >= 180.0) or (bounds[0] <= -180.0 and bounds[2] < 0.0)
        self._progress = progress
        self._threads = cores()
        self._found = _Rows()
        self._locations = NodeLocations(scratch)
        self._last: dict[str, int] = {}
        self._done = 0
        self._needed: IntArray = np.zeros(0, np.int64)

    def run(self) -> dict[str, Any]:
        """Read the extract and write both tables."""
        nodes, ways, relations = self._file.sections()
        self._total = len(nodes) + len(ways) + len(relations)
        found_relations = self._ahead(partial(self._file.read, relations_of), relations, WAY_BLOCKS)
        areas = [self._with_ways(found) for found in found_relations]
        self._needed = np.unique(np.concatenate([np.zeros(0, np.int64), *(some.refs for some in areas)]))
        table = HilbertTable(self._out / "objects.parquet", OBJECT_SCHEMA, self._scratch, self._borders(nodes))
        with (self._scratch / "members.opl").open("wb") as members:
            for batch in self._ahead(self._nodes, nodes, NODE_BLOCKS):
                for found, rows in batch:
                    self._check_order("n", found.ids)
                    self._locations.add(found.ids, found.places)
                    self._take(rows, table)
            self._locations.finish()
            for ids, text, rows in self._ahead(self._ways, ways, WAY_BLOCKS):
                self._check_order("w", ids)
                members.write(text)
                self._take(rows, table)
            for some in areas:
                members.write(relations_text(some))
        for shaped in _shape_relations(areas, Path(members.name)):
            if self._turned:
                shaped.shapes = [shapes.moved(180.0) for shapes in shaped.shapes]
            self._take(self._rows(shaped), table)
        table.finish(sorted(self._found.types))
        return self._summary()

    def _ahead(self, work: Callable[[range], _T], blocks: range, at_once: int) -> Iterator[_T]:
        """What work on some blocks at a time gives, in order and a few ahead of its use."""
        batches = [blocks[i : i + at_once] for i in range(0, len(blocks), at_once)]
        for some, found in zip(batches, in_order(work, batches, threads=self._threads), strict=True):
            yield found
            self._done += len(some)
            self._progress(self._done, self._total, "blocks")

    def _take(self, rows: _Rows, table: HilbertTable) -> None:
        """Add to the table and to what is to be told."""
        for some, keys in rows.tables:
            table.add(some, keys)
        found = self._found
        found.invalid += rows.invalid
        found.letters += rows.letters
        found.types |= rows.types
        found.outside += rows.outside

    def _summary(self) -> dict[str, Any]:
        found = self._found
        invalid = [{"object_id": object_id, "reason": reason} for object_id, reason in sorted(found.invalid)]
        write_table(self._out / "invalid.parquet", rows_to_table(invalid, INVALID_SCHEMA))
        return {
            "nodes": found.letters["n"],
            "lines": found.letters["w"],
            "areas": found.letters["a"] + found.letters["r"],
            "outside": found.outside,
            "invalid": len(invalid),
            "invalid_reasons": dict(sorted(Counter(row["reason"] for row in invalid).items())),
        }

    def _borders(self, nodes: range) -> NDArray[np.uint64]:
        """Where to cut the Hilbert curve so that each piece can be sorted in memory: by a sample of the nodes."""
        buckets = -(-self._file.path.stat().st_size * SPILL_RATIO // BUCKET_BYTES)
        if buckets < 2 or not nodes:
            return np.zeros(0, np.uint64)
        sampled = nodes[:: max(1, len(nodes) // _SAMPLE_BLOCKS)]
        places = np.concatenate([found.places for block in sampled for found in self._file.read(nodes_of, [block])])
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

    def _with_ways(self, relations: Objects) -> Objects:
        """Relations that are areas; those without ways are noted."""
        self._check_order("r", relations.ids)
        areas = areas_of(relations)
        empty = np.diff(areas.ref_offsets) == 0
        self._found.invalid += [(f"r{osm_id}", NO_WAYS) for osm_id in areas.ids[empty].tolist()]
        return areas.at(np.flatnonzero(~empty))

    def _nodes(self, blocks: range) -> list[tuple[Nodes, _Rows]]:
        """Nodes of some blocks, and rows of the tagged ones."""
        return [(nodes, self._rows(shape_nodes(nodes))) for nodes in self._file.read(nodes_of, blocks)]

    def _ways(self, blocks: range) -> tuple[IntArray, bytes, _Rows]:
        """Ids of the ways of some blocks, those that relations need as text, and rows of the tagged ones."""
        every = self._file.read(ways_of, blocks)
        tagged = np.diff(every.tags.offsets) > 0
        member = _is_in(every.ids, self._needed)
        used = np.flatnonzero(tagged | member)
        ways = every.at(used)
        places = self._locations.find(ways.refs)
        if ways.places is not None:
            stated = ways.places[:, 0] != NOWHERE
            places[stated] = ways.places[stated]
        text = ways_text(ways, turned(places) if self._turned else places, np.flatnonzero(member[used]), own=False)
        return every.ids, text, self._rows(shape_ways(ways, places, tagged[used]))

    def _rows(self, shaped: Shaped) -> _Rows:
        """Rows of what touches the ground; the others are counted."""
        rows = _Rows(invalid=shaped.invalid)
        for shapes in (shapes for every in shaped.shapes for shapes in self._in_frame(every)):
            rows.types |= shapes.types
            kept = np.flatnonzero(self._touched(shapes))
            rows.outside += len(shapes.boxes) - len(kept)
            rows.letters[shapes.letter] += len(kept)
            if len(kept):
                rows.tables.append(self._table(shapes if len(kept) == len(shapes.boxes) else shapes.at(kept)))
        return rows

    def _in_frame(self, every: Shapes) -> Iterator[Shapes]:
        """Them at the longitudes of the region's box, which go on beyond 180 degrees where it lies across them."""
        west, _, east, _ = self._bounds
        low, high = every.boxes[:, 0], every.boxes[:, 2]
        if east <= 180.0 and high.max(initial=0.0) < 180.0:
            yield every
            return
        turn = np.select([(low + turn <= east) & (high + turn >= west) for turn in TURNS], TURNS, 0.0)
        for degrees in np.unique(turn).tolist():
            some = every.at(np.flatnonzero(turn == degrees))
            yield some.moved(degrees) if degrees else some

    def _touched(self, shapes: Shapes) -> BoolArray:
        """[n] which of them touch the ground."""
        west, south, east, north = self._bounds
        boxes = shapes.boxes
        inside: BoolArray = (
            (boxes[:, 0] <= east) & (boxes[:, 2] >= west) & (boxes[:, 1] <= north) & (boxes[:, 3] >= south)
        )
        if self._polygon is not None and inside.any():
            shapely.prepare(self._polygon)
            near = np.flatnonzero(inside)
            geometry = shapely.from_wkb(shapes.geometry.take(pa.array(near)).to_numpy(zero_copy_only=False))
            inside[near] = shapely.intersects(self._polygon, geometry)
        return inside

    def _table(self, shapes: Shapes) -> tuple[pa.Table, NDArray[np.uint64]]:
        """Rows of the table, and their places on the Hilbert curve."""
        objects, boxes = shapes.objects, shapes.boxes
        ids = pa.array(objects.ids)
        arrays = [
            pc.binary_join_element_wise(shapes.letter, ids.cast(pa.string()), ""),
            pa.repeat(pa.scalar(OSM_TYPES[shapes.letter]), len(ids)),
            ids,
            pa.array(np.maximum(objects.versions, 0).astype(np.int32)),
            pa.array(objects.timestamps_ms, pa.timestamp("ms", tz="UTC"), mask=objects.timestamps_ms == 0),
            self._tags(objects.tags),
            shapes.geometry,
            pa.StructArray.from_arrays([pa.array(side) for side in boxes.T], fields=list(BBOX_TYPE)),
            pa.array(shapes.area_m2),
            pa.array(shapes.length_m),
        ]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2.0
        return pa.Table.from_arrays(arrays, schema=OBJECT_SCHEMA), hilbert_index(
            within_180(centres[:, 0]), centres[:, 1]
        )

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


def _shape_relations(relations: list[Objects], members: Path) -> Iterator[Shaped]:
    """Areas of relations, some at a time, from the ways that were gathered."""
    place = {
        osm_id: (batch, row) for batch, some in enumerate(relations) for row, osm_id in enumerate(some.ids.tolist())
    }
    made = assembled(members)
    while some := list(islice(made, AREAS_AT_ONCE)):
        shaped = Shaped()
        by_batch: dict[int, tuple[list[int], list[bytes | None]]] = {}
        for _, osm_id, geometry in some:
            batch, row = place.pop(osm_id)
            rows, geometries = by_batch.setdefault(batch, ([], []))
            rows.append(row)
            geometries.append(geometry)
        for batch, (rows, geometries) in by_batch.items():
            shape_areas(shaped, "r", relations[batch].at(np.array(rows, np.int64)), geometries)
        yield shaped
    yield Shaped(invalid=[(f"r{osm_id}", MEMBERS_MISSING) for osm_id in place])


def _is_in(ids: IntArray, wanted: IntArray) -> BoolArray:
    """Which ids are among the wanted ones, which are sorted."""
    if len(wanted) == 0:
        return np.zeros(len(ids), np.bool_)
    return np.asarray(wanted.take(np.searchsorted(wanted, ids), mode="clip") == ids, np.bool_)
