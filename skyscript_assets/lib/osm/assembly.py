"""Areas of relations, and of closed ways that are no plain rings, made by libosmium's area assembler.

Which rings there are, which are holes, and what is no area at all is OpenStreetMap's own matter
(wiki: "Relation:multipolygon"), and libosmium is its reference. It is given only the ways that matter, with their
nodes' locations, as OPL text (osmcode.org/opl-file-format); neither tags nor ids of nodes change an area's shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import osmium
from numpy.typing import NDArray

from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Objects
from skyscript_assets.lib.osm.runs import ranges

Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_DIGITS = 10
"""Digits of a longitude: three before and seven behind the point."""


def assembled(text: Path | bytes) -> Iterator[tuple[str, int, bytes | None]]:
    """Areas in the order in which libosmium completes them.

    Args:
        text: What `ways_text` and `relations_text` wrote, ways before relations: a file, or the text itself.

    Yields:
        `a` for an area of a way or `r` for one of a relation; the OSM id; WKB in EPSG:4326, a Polygon or MultiPolygon,
        None where no rings could be made. A relation of which a way is missing, or a way's node has no location, yields
        nothing.
    """
    source = osmium.io.FileBuffer(text, "opl") if isinstance(text, bytes) else osmium.io.File(str(text), "opl")
    manager = osmium.area.AreaManager()
    with osmium.io.Reader(source, osmium.osm.RELATION) as reader:
        osmium.apply(reader, manager.first_pass_handler())
    areas = osmium.BufferIterator()
    # The iterator does not keep its handler alive: this name does.
    handler = manager.second_pass_to_buffer(areas)
    wkb = osmium.geom.WKBFactory()
    with osmium.io.Reader(source) as reader:
        # Areas are taken out of the buffer as they come, so that it never holds more than a few.
        for _ in chain(osmium.OsmFileIterator(reader, handler), [None]):
            for area in areas if areas else ():
                letter = "a" if area.from_way() else "r"
                try:
                    yield letter, area.orig_id(), bytes.fromhex(wkb.create_multipolygon(area))
                except RuntimeError:  # an area without rings is what libosmium makes where it cannot build them
                    yield letter, area.orig_id(), None


def ways_text(ways: Objects, places: NDArray[np.int32], rows: Int64, *, own: bool) -> bytes:
    """Ways with the locations of their nodes.

    Args:
        ways: The ways.
        places: [refs, 2] longitudes and latitudes of their nodes, 1e-7 degrees, `NOWHERE` for those that are missing.
        rows: [n] the ways that are wanted.
        own: Whether they are wanted for areas of their own, or for those of relations.
    """
    first = ways.ref_offsets[rows]
    counts = ways.ref_offsets[rows + 1] - first
    nodes = _nodes_text(places[ranges(first, counts)])
    ends = np.cumsum(counts).tolist()
    tags = b" Tarea=yes" if own else b""
    return b"".join(
        b"w%d%s N%s\n" % (osm_id, tags, b",".join(nodes[end - count : end]))
        for osm_id, count, end in zip(ways.ids[rows].tolist(), counts.tolist(), ends, strict=True)
    )


def _nodes_text(places: NDArray[np.int32]) -> list[bytes]:
    """Each location as `n1x24.9384000y60.1699000`, written digit by digit for all of them at once."""
    columns: list[NDArray[np.uint8]] = []
    kept: list[Bools] = []

    def add(characters: NDArray[np.uint8] | int, wanted: Bools | bool) -> None:
        columns.append(np.broadcast_to(np.asarray(characters, np.uint8), len(places)))
        kept.append(np.broadcast_to(np.asarray(wanted, np.bool_), len(places)))

    valid = places[:, 0] != NOWHERE
    add(ord("n"), wanted=True)
    add(ord("1"), wanted=True)
    for letter, value in zip(b"xy", places.T.astype(np.int64), strict=True):
        add(letter, valid)
        add(ord("-"), (value < 0) & valid)
        size = np.abs(value)
        for digit in range(_DIGITS - 1, -1, -1):
            if digit == 6:
                add(ord("."), valid)
            add(ord("0") + size // 10**digit % 10, valid)
    add(ord(","), wanted=True)
    text = np.stack(columns, axis=1)[np.stack(kept, axis=1)].tobytes()
    return text.split(b",")[:-1]


def relations_text(relations: Objects) -> bytes:
    """Multipolygon relations with the ways among their members."""
    lines = []
    # A role other than these is one that libosmium does not know.
    known = {b"outer", b"inner", b""}
    bounds = relations.ref_offsets.tolist()
    for osm_id, first, last in zip(relations.ids.tolist(), bounds[:-1], bounds[1:], strict=True):
        refs, roles = relations.refs[first:last].tolist(), relations.roles[first:last].tolist()
        names = (relations.tags.strings[place].as_buffer().to_pybytes() for place in roles)
        members = (b"w%d@%s" % (ref, name if name in known else b"x") for ref, name in zip(refs, names, strict=True))
        lines.append(b"r%d Ttype=multipolygon M%s\n" % (osm_id, b",".join(members)))
    return b"".join(lines)
