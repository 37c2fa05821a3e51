"""Areas of relations, and of closed ways that are no plain rings, made by libosmium's area assembler.

Which rings there are, which are holes, and what is no area at all is OpenStreetMap's own matter
(wiki: "Relation:multipolygon"), and libosmium is its reference. It is given only the ways that matter, with their
nodes' locations, as OPL text (osmcode.org/opl-file-format); neither tags nor ids of nodes change an area's shape.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import osmium
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Objects
from skyscript_assets.lib.osm.ragged import offsets_of, ranges

_ROLES = ("outer", "inner", "")


def assembled(text: Path | bytes) -> Iterator[tuple[str, int, bytes | None]]:
    """Areas in the order in which libosmium completes them, from what `ways_text` and then `relations_text` wrote.

    `text` is a file, or the text itself. Of each area come `a` if it is one of a way or `r` of a relation; the OSM id;
    WKB in EPSG:4326, a Polygon or MultiPolygon, None where no rings could be made. A relation of which a way is
    missing, or a way's node has no location, yields nothing.
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


def ways_text(ways: Objects, places: NDArray[np.int32], rows: IntArray, *, own: bool) -> bytes:
    """Some of the ways, [n] rows, with the locations of their nodes: for areas of their `own`, or those of relations.

    `places` are [refs, 2] longitudes and latitudes, 1e-7 degrees, `NOWHERE` for those that are missing.
    """
    first = ways.ref_offsets[rows]
    counts = ways.ref_offsets[rows + 1] - first
    longitudes, latitudes = places[ranges(first, counts)].T
    located = pc.binary_join_element_wise("n1x", _degrees(longitudes), "y", _degrees(latitudes), "")
    nodes = pc.if_else(pa.array(longitudes != NOWHERE), located, "n1")
    ids = pa.array(ways.ids[rows]).cast(pa.string())
    return _lines("w", ids, " Tarea=yes N" if own else " N", _listed(nodes, offsets_of(counts)))


def _lines(*columns: str | pa.StringArray) -> bytes:
    """Lines of text, each made of the same columns."""
    lines = pc.binary_join_element_wise(*columns, "\n", "")
    (joined,) = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "")
    return bytes(joined.as_buffer())


def _listed(texts: pa.StringArray, offsets: IntArray) -> pa.StringArray:
    """Lists of texts, ragged, each with commas between."""
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), texts), ",")


def _degrees(values: NDArray[np.int32]) -> pa.StringArray:
    """Whole numbers of 1e-7 degrees as decimal text."""
    halves = np.stack((values, np.where(values < 0, -1, 0)), axis=1).astype(np.int64)
    decimals = pa.Array.from_buffers(pa.decimal128(10, 7), len(values), [None, pa.py_buffer(halves)])
    return decimals.cast(pa.string())


def relations_text(relations: Objects) -> bytes:
    """Multipolygon relations with the ways among their members."""
    known = pc.is_in(relations.tags.strings, value_set=pa.array(_ROLES))
    # A role other than these is one that libosmium does not know.
    roles = pc.if_else(known, relations.tags.strings, "x").take(pa.array(relations.roles))
    members = pc.binary_join_element_wise("w", pa.array(relations.refs).cast(pa.string()), "@", roles, "")
    listed = _listed(members, relations.ref_offsets)
    return _lines("r", pa.array(relations.ids).cast(pa.string()), " Ttype=multipolygon M", listed)
