"""What the blocks of an OSM PBF hold: columns of ids, places, refs and tags, of many blocks at once.

What the objects mean is not decided here, nor where blocks lie in a file.

Format: OSM wiki, "PBF Format", and osmformat.proto of openstreetmap/OSM-binary.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, IntArray
from skyscript_assets.lib.osm.pbf.wire import Messages, chained, column, deltas, fields, running, signed
from skyscript_assets.lib.osm.ragged import kept_offsets, offsets_of, ranges

Kind = Literal["nodes", "dense", "ways", "relations"]
Places = NDArray[np.int32]
"""[n, 2] longitudes and latitudes, 1e-7 degrees."""

NANODEGREES = 100
"""Nanodegrees in one unit of location, 1e-7 degrees; also the format's default granularity."""

MAX_LONGITUDE, MAX_LATITUDE = 1_800_000_000, 900_000_000
"""Greatest valid place, 1e-7 degrees."""

NOWHERE = -(1 << 31)
"""Longitude and latitude of a node without a valid place."""

_KINDS: dict[int, Kind] = {1: "nodes", 2: "dense", 3: "ways", 4: "relations"}
"""Groups of other kinds, such as changesets, are passed over."""

_WAY_MEMBER = 1
_NOTHING = memoryview(b"")


@dataclass(frozen=True)
class Tags:
    """Tags of n objects, ragged arrays of keys and values.

    Attributes:
        offsets: [n + 1] where each object's tags begin.
        keys: [tags] place of the key in `strings`.
        values: [tags] place of the value in `strings`.
        strings: Strings of the blocks they come from; not yet known to be UTF-8, and not all of them are text.
    """

    offsets: IntArray
    keys: IntArray
    values: IntArray
    strings: pa.StringArray

    def at(self, rows: IntArray) -> Self:
        """The tags of some objects."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        taken = ranges(self.offsets[rows], counts)
        return type(self)(offsets_of(counts), self.keys[taken], self.values[taken], self.strings)


@dataclass(frozen=True)
class Objects:
    """Objects of one kind in the order of the file.

    Attributes:
        ids: [n] OSM ids.
        versions: [n], 0 where the file has none.
        timestamps_ms: [n] milliseconds since 1970, 0 where the file has none.
        refs: [refs] node ids of ways, way ids of relations, empty for nodes.
        ref_offsets: [n + 1] where each object's refs begin.
        roles: [refs] place of a member's role in `tags.strings`, empty but for relations.
        places: [refs, 2] longitude and latitude of each node, 1e-7 degrees, where ways carry them, else `NOWHERE`; None
            where no way does.
    """

    ids: IntArray
    versions: IntArray
    timestamps_ms: IntArray
    tags: Tags
    refs: IntArray
    ref_offsets: IntArray
    roles: IntArray
    places: Places | None = None

    def at(self, rows: IntArray) -> Self:
        """Some of the objects, with their tags and refs."""
        counts = self.ref_offsets[rows + 1] - self.ref_offsets[rows]
        taken = ranges(self.ref_offsets[rows], counts)
        return type(self)(
            self.ids[rows],
            self.versions[rows],
            self.timestamps_ms[rows],
            self.tags.at(rows),
            self.refs[taken],
            offsets_of(counts),
            self.roles[taken] if len(self.roles) else self.roles,
            None if self.places is None else self.places[taken],
        )


@dataclass(frozen=True)
class Nodes:
    """All nodes of some blocks, and the tagged ones among them.

    Attributes:
        ids: [n] OSM ids.
        places: [n, 2] longitude and latitude, 1e-7 degrees.
        tagged: The nodes that have tags.
        rows: [tagged] their rows in `ids`.
    """

    ids: IntArray
    places: Places
    tagged: Objects
    rows: IntArray

    def shown(self, visible: BoolArray) -> Self:
        """Those that are marked as visible, [n]: the others are deleted."""
        if visible.all():
            return self
        kept = visible[self.rows]
        rows = (np.cumsum(visible) - 1)[self.rows[kept]]
        return type(self)(self.ids[visible], self.places[visible], self.tagged.at(np.flatnonzero(kept)), rows)


@dataclass(frozen=True)
class Block:
    """One PrimitiveBlock: its string table, its groups, and how its numbers are to be read."""

    strings: memoryview
    groups: list[tuple[Kind, memoryview]]
    granularity: int
    offsets_deg9: tuple[int, int]
    date_granularity_ms: int

    @classmethod
    def of(cls, raw: bytes) -> Self:
        """Take a block apart, but for the content of its groups.

        Raises:
            ValueError: it is not OSM data.
            IndexError: it is cut off.
        """
        strings = _NOTHING
        groups: list[tuple[Kind, memoryview]] = []
        numbers = {17: NANODEGREES, 18: 1000, 19: 0, 20: 0}
        for number, value in fields(memoryview(raw)):
            if isinstance(value, int):
                numbers[number] = value if value < 1 << 63 else value - (1 << 64)
            elif number == 1:
                strings = value
            elif number == 2 and len(value) and (kind := _KINDS.get(value[0] >> 3)) is not None:
                groups.append((kind, value))
        return cls(strings, groups, numbers[17], (numbers[20], numbers[19]), numbers[18])


@dataclass(frozen=True)
class _Groups:
    """Groups of one kind from several blocks.

    Attributes:
        contents: [n] content of each group.
        blocks: [n] the block it is from.
        first_string: [n] place in `strings` of the first string of the group's block.
        strings_of: [n] how many strings the block has.
    """

    contents: list[memoryview]
    blocks: list[Block]
    strings: pa.StringArray
    first_string: IntArray
    strings_of: IntArray

    @classmethod
    def of(cls, blocks: Iterable[Block], kind: Kind) -> Self:
        """The groups of one kind."""
        pairs = [(content, block) for block in blocks for found, content in block.groups if found == kind]
        tables = {id(block): block.strings for _, block in pairs}
        strings, firsts = _strings(list(tables.values()))
        place = {key: i for i, key in enumerate(tables)}
        rows = np.array([place[id(block)] for _, block in pairs], np.int64)
        return cls(
            [content for content, _ in pairs],
            [block for _, block in pairs],
            strings,
            firsts[:-1][rows],
            np.diff(firsts)[rows],
        )

    def string_places(self, numbers: IntArray, group: IntArray) -> IntArray:
        """Place in `strings` of string numbers of groups."""
        if np.any((numbers < 0) | (numbers >= self.strings_of[group])):
            raise ValueError("an object has a string that its block lacks")
        return 2 * (self.first_string[group] + numbers)


def _strings(tables: Sequence[memoryview]) -> tuple[pa.StringArray, IntArray]:
    """The strings of several string tables, and which of them is the first of each table.

    String i is entry 2 * i of the array: the bytes of the format that lie between two strings are entries as well,
    which spares a copy of all text.
    """
    data = b"".join(tables)
    octets = np.frombuffer(data + b"\0\0\0", np.uint8)
    # A string is 0x0A (field 1, length-delimited), its length as a varint of one or two bytes, and its bytes: OSM's 255
    # characters are 1020 bytes at most.
    begins = np.flatnonzero(octets[:-3] == 0x0A)
    low, high = octets[begins + 1].astype(np.int64), octets[begins + 2].astype(np.int64)
    short = low < 128
    texts = begins + np.where(short, 2, 3)
    ends = texts + np.where(short, low, (low & 127) | high << 7)
    likely = short | (high < 128)
    begins, texts, ends = begins[likely], texts[likely], ends[likely]
    rows, counts = chained(begins, ends, offsets_of(np.array([len(table) for table in tables], np.int64)))
    borders = np.stack((texts[rows], ends[rows]), axis=1).ravel()
    offsets = pa.py_buffer((borders if len(borders) else np.zeros(1)).astype(np.int32))
    array = pa.StringArray.from_buffers(max(0, len(borders) - 1), offsets, pa.py_buffer(data))
    return array, offsets_of(counts)


def nodes_of(blocks: Sequence[Block]) -> list[Nodes]:
    """Nodes of some blocks in the order of the file, all at once where they are not dense here and plain there.

    Raises:
        ValueError: they are not OSM data.
    """
    groups = [replace(block, groups=[own]) for block in blocks for own in block.groups if own[0] in ("dense", "nodes")]
    runs = itertools.groupby(groups, key=lambda block: block.groups[0][0])
    return [(_dense_nodes if kind == "dense" else _plain_nodes)(_Groups.of(run, kind)) for kind, run in runs]


def _dense_nodes(groups: _Groups) -> Nodes:
    """DenseNodes: a column for each attribute (osmformat.proto)."""
    columns = [_one_message(content) for content in groups.contents]
    infos = [dict(fields(message.get(5, _NOTHING))) for message in columns]
    ids, offsets = deltas([message.get(1, _NOTHING) for message in columns])
    group = np.repeat(np.arange(len(columns), dtype=np.int64), np.diff(offsets))
    lat, lon = (_same(deltas([message.get(n, _NOTHING) for message in columns]), offsets) for n in (8, 9))
    versions = _optional(column([_content(info.get(1)) for info in infos]), offsets)
    stamps = _optional(deltas([_content(info.get(2)) for info in infos]), offsets)
    pairs, pair_offsets = column([message.get(10, _NOTHING) for message in columns])
    tags, rows = _dense_tags(groups, pairs, pair_offsets, offsets)
    stamps = stamps[rows] * _per_group(groups, group[rows], "date_granularity_ms")
    tagged = Objects(ids[rows], versions[rows], stamps, tags, *_no_refs(len(rows)))
    nodes = Nodes(ids, _places(groups, group, lon, lat), tagged, rows)
    visible, of = column([_content(info.get(6)) for info in infos])
    return nodes.shown(_optional(((visible == 0).astype(np.int64), of), offsets) == 0) if len(visible) else nodes


def _dense_tags(groups: _Groups, pairs: IntArray, pair_offsets: IntArray, offsets: IntArray) -> tuple[Tags, IntArray]:
    """Tags of the tagged nodes, and which nodes these are.

    `pairs` holds key, value, key, value, ... and a 0 after each node; a group without any tag may leave it out.
    """
    ends = np.flatnonzero(pairs == 0)
    group = np.searchsorted(pair_offsets, ends, side="right") - 1
    seen = np.bincount(group, minlength=len(groups.contents))
    if np.any((seen != np.diff(offsets)) & (np.diff(pair_offsets) != 0)):
        raise ValueError("it has tags for other nodes than it holds")
    # The nodes that have an end in `pairs`: all of the groups that have one.
    rows = ranges(offsets[:-1][seen > 0], seen[seen > 0])
    counts = np.diff(ends, prepend=-1) - 1
    tagged = counts > 0
    if np.any(counts & 1):
        raise ValueError("a key has no value")
    texts = np.delete(pairs, ends)
    places = groups.string_places(texts, np.repeat(group, counts))
    return Tags(offsets_of(counts[tagged] // 2), places[::2], places[1::2], groups.strings), rows[tagged]


def _plain_nodes(groups: _Groups) -> Nodes:
    """Node messages, as few programs write them today."""
    messages = Messages.of(groups.contents)
    ids = signed(messages.number(1))
    lat, lon = signed(messages.number(8)), signed(messages.number(9))
    objects, visible = _objects(groups, messages, ids)
    rows = np.flatnonzero(np.diff(objects.tags.offsets))
    return Nodes(ids, _places(groups, messages.group, lon, lat), objects.at(rows), rows).shown(visible)


def ways_of(blocks: Iterable[Block]) -> Objects:
    """Ways of some blocks, with the ids of their nodes, and their places where ways carry them (`LocationsOnWays`).

    Raises:
        ValueError: they are not OSM data.
    """
    groups = _Groups.of(blocks, "ways")
    messages = Messages.of(groups.contents)
    steps, offsets = messages.packed(8)
    objects, visible = _objects(groups, messages, messages.number(1))
    places = _way_places(groups, messages, offsets)
    ways = replace(objects, refs=running(signed(steps), offsets), ref_offsets=offsets, places=places)
    return ways if visible.all() else ways.at(np.flatnonzero(visible))


def _way_places(groups: _Groups, messages: Messages, offsets: IntArray) -> Places | None:
    """Places of the nodes of ways that carry them (fields 9 and 10, deltas); some ways of a block may not."""
    (lat, own), (lon, of_lon) = messages.packed(9), messages.packed(10)
    if len(lat) == len(lon) == 0:
        return None
    counts, refs = np.diff(own), np.diff(offsets)
    if not np.array_equal(own, of_lon) or np.any((counts != refs) & (counts != 0)):
        raise ValueError("a way has more nodes than places")
    places = np.full((offsets[-1], 2), NOWHERE, np.int32)
    places[np.repeat(counts > 0, refs)] = _places(
        groups, np.repeat(messages.group, counts), running(signed(lon), own), running(signed(lat), own)
    )
    return places


def relations_of(blocks: Iterable[Block]) -> Objects:
    """Relations of some blocks, with the ids and roles of those of their members that are ways.

    Raises:
        ValueError: they are not OSM data.
    """
    groups = _Groups.of(blocks, "relations")
    messages = Messages.of(groups.contents)
    objects, visible = _objects(groups, messages, messages.number(1))
    steps, offsets = messages.packed(9)
    members = running(signed(steps), offsets)
    kinds, kind_offsets = messages.packed(10)
    roles, role_offsets = messages.packed(8)
    if not (np.array_equal(offsets, kind_offsets) and np.array_equal(offsets, role_offsets)):
        raise ValueError("a relation has more members than roles")
    roles = groups.string_places(roles, np.repeat(messages.group, np.diff(offsets)))
    ways = kinds == _WAY_MEMBER
    objects = replace(objects, refs=members[ways], ref_offsets=kept_offsets(ways, offsets), roles=roles[ways])
    return objects if visible.all() else objects.at(np.flatnonzero(visible))


def _objects(groups: _Groups, messages: Messages, ids: IntArray) -> tuple[Objects, BoolArray]:
    """What all kinds of messages share: id, tags, version and time; and which of them, [n], are not deleted."""
    keys, offsets = messages.packed(2)
    values, value_offsets = messages.packed(3)
    if not np.array_equal(offsets, value_offsets):
        raise ValueError("an object has more keys than values")
    group = np.repeat(messages.group, np.diff(offsets))
    tags = Tags(offsets, groups.string_places(keys, group), groups.string_places(values, group), groups.strings)
    info = messages.inner(4)
    stamps = info.number(2) * _per_group(groups, messages.group, "date_granularity_ms")
    return Objects(ids, info.number(1), stamps, tags, *_no_refs(len(ids))), info.number(6, default=1) != 0


def _places(groups: _Groups, group: IntArray, lon: IntArray, lat: IntArray) -> Places:
    """[n, 2] longitude and latitude, 1e-7 degrees (osmformat.proto: offset + granularity * value, in nanodegrees)."""
    if any(block.granularity != NANODEGREES or block.offsets_deg9 != (0, 0) for block in groups.blocks):
        scale = _per_group(groups, group, "granularity")
        east = np.array([block.offsets_deg9[0] for block in groups.blocks], np.int64)[group]
        north = np.array([block.offsets_deg9[1] for block in groups.blocks], np.int64)[group]
        lon, lat = (east + scale * lon) // NANODEGREES, (north + scale * lat) // NANODEGREES
    inside = (np.abs(lon) <= MAX_LONGITUDE) & (np.abs(lat) <= MAX_LATITUDE)
    places = np.stack((lon, lat), axis=1)
    places[~inside] = NOWHERE
    return places.astype(np.int32)


def _per_group(groups: _Groups, group: IntArray, name: str) -> IntArray:
    return np.array([getattr(block, name) for block in groups.blocks], np.int64)[group]


def _no_refs(n: int) -> tuple[IntArray, IntArray, IntArray]:
    return np.zeros(0, np.int64), np.zeros(n + 1, np.int64), np.zeros(0, np.int64)


def _one_message(group: memoryview) -> dict[int, memoryview]:
    """The columns of the one DenseNodes message of a group."""
    (message,) = (_content(value) for _, value in fields(group))
    return {number: _content(value) for number, value in fields(message)}


def _content(value: int | memoryview | None) -> memoryview:
    return value if isinstance(value, memoryview) else _NOTHING


def _same(column: tuple[IntArray, IntArray], offsets: IntArray) -> IntArray:
    if not np.array_equal(column[1], offsets):
        raise ValueError("it has more ids than places")
    return column[0]


def _optional(column: tuple[IntArray, IntArray], offsets: IntArray) -> IntArray:
    """A column that some groups may lack; those get zeros."""
    values, own = column
    if np.array_equal(own, offsets):
        return values
    lacking = np.diff(own) == 0
    if np.any((np.diff(own) != np.diff(offsets)) & ~lacking):
        raise ValueError("it has more ids than versions")
    answer = np.zeros(offsets[-1], np.int64)
    answer[np.repeat(~lacking, np.diff(offsets))] = values
    return answer
