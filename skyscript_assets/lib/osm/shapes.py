"""The geometry of objects: points of nodes, lines and areas of ways, areas of relations, with boxes and measures.

All objects of some blocks are shaped at once. What has no valid geometry is named, with the reason.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.osm import wkb
from skyscript_assets.lib.osm.areas import RELATION_AREA_TYPES, closed_way_kinds
from skyscript_assets.lib.osm.assembly import assembled, ways_text
from skyscript_assets.lib.osm.measures import path_lengths_m, ring_areas_m2
from skyscript_assets.lib.osm.pbf.blocks import MAX_LONGITUDE as HALF
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Nodes, Objects, Places
from skyscript_assets.lib.osm.ragged import closed, kept_offsets, offsets_of, ranges, reduced
from skyscript_assets.lib.osm.rings import plain_rings

NO_LOCATION = "node without a location"
NODES_MISSING = "nodes missing from the extract"
TOO_FEW_PLACES = "line of fewer than two places"
TOO_FEW_NODES = "area of fewer than four nodes"
NO_WAYS = "relation without ways"
MEMBERS_MISSING = "members missing from the extract"
NO_RINGS = "rings cross or do not close"
BEYOND = "around a pole, or across 180 degrees in a region that does not end there"

UNITS_PER_DEGREE = 10_000_000
"""Locations are whole numbers of 1e-7 degrees."""


@dataclass(frozen=True)
class Shapes:
    """Objects of one sort with their geometry.

    Attributes:
        letter: First letter of their object ids: n node, w line of a way, a area of a way, r area of a relation.
        objects: The objects, n of them.
        geometry: [n] WKB, EPSG:4326.
        boxes: [n, 4] west, south, east, north, degrees.
        area_m2: [n] 0 for points and lines.
        length_m: [n] of an area that of all its rings, 0 for points.
        types: GeoParquet geometry types among them.
    """

    letter: str
    objects: Objects
    geometry: pa.Array
    boxes: FloatArray
    area_m2: FloatArray
    length_m: FloatArray
    types: frozenset[str]

    def at(self, rows: IntArray) -> Self:
        """Some of them."""
        geometry = self.geometry.take(pa.array(rows))
        of = self.boxes[rows], self.area_m2[rows], self.length_m[rows]
        return type(self)(self.letter, self.objects.at(rows), geometry, *of, self.types)

    def moved(self, degrees: float) -> Self:
        """All of them so many degrees further east."""
        shapes = shapely.from_wkb(self.geometry.to_numpy(zero_copy_only=False))
        shapes = shapely.transform(shapes, lambda places: np.round(places + np.array([degrees, 0.0]), 7))
        boxes = np.round(self.boxes + np.array([degrees, 0.0, degrees, 0.0]), 7)
        return replace(self, geometry=pa.array(shapely.to_wkb(shapes), pa.binary()), boxes=boxes)


@dataclass
class Shaped:
    """What was made of some objects: shapes, and (object id, reason) of those without valid geometry."""

    shapes: list[Shapes] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)

    def note(self, letter: str, ids: IntArray, reason: str) -> None:
        """Name objects that have no valid geometry for a reason."""
        self.invalid += [(f"{letter}{osm_id}", reason) for osm_id in ids.tolist()]


def shape_nodes(nodes: Nodes) -> Shaped:
    """Points of tagged nodes."""
    found = Shaped()
    placed = nodes.places[nodes.rows, 0] != NOWHERE
    found.note("n", nodes.tagged.ids[~placed], NO_LOCATION)
    tagged = nodes.tagged if placed.all() else nodes.tagged.at(np.flatnonzero(placed))
    places = nodes.places[nodes.rows[placed]] / UNITS_PER_DEGREE
    if len(places):
        none = np.zeros(len(places))
        boxes = np.hstack((places, places))
        found.shapes = [Shapes("n", tagged, wkb.points(places), boxes, none, none, frozenset({"Point"}))]
    return found


def shape_ways(ways: Objects, places: Places, tagged: BoolArray) -> Shaped:
    """Lines and areas of tagged ways, [n].

    One that is wide as its longitudes stand, but narrow once the globe is turned by half, lies across the antimeridian:
    it is shaped turned, and its longitudes then go on beyond 180 degrees. `places` are [refs, 2] longitudes and
    latitudes of their nodes, 1e-7 degrees, `NOWHERE` for those that are missing.
    """
    found, offsets = Shaped(), ways.ref_offsets
    if not tagged.any():
        return found
    complete = ~reduced(np.logical_or, places[:, 0] == NOWHERE, offsets)
    area, line = closed_way_kinds(ways.tags)
    across = beyond = wide = complete & (_widths(places, offsets) > HALF)
    if wide.any():
        across = wide & (_widths(turned(places), offsets) <= HALF)
        beyond = wide & ~across & around(places[:, 0] / UNITS_PER_DEGREE, offsets)
    for turn in (False, True) if across.any() else (False,):
        here, mine, some = turned(places) if turn else places, tagged & (across == turn), Shaped()
        ends_meet = closed(here, offsets)
        lines, areas = mine & (line | ~ends_meet), mine & area & ends_meet
        some.note("w", ways.ids[lines & beyond], BEYOND)
        some.note("a", ways.ids[areas & beyond], BEYOND)
        _shape_lines(some, ways, here, lines & ~beyond, complete)
        _shape_closed_ways(some, ways, here, areas & ~beyond, complete)
        found.invalid += some.invalid
        found.shapes += [shapes.moved(180.0) for shapes in some.shapes] if turn else some.shapes
    return found


def turned(places: Places) -> Places:
    """Places with the globe turned by half: those at the antimeridian come to longitude 0."""
    return places + np.where(places[:, :1] < 0, HALF, -HALF).astype(np.int32) * np.array([1, 0], np.int32)


def _widths(places: Places, offsets: IntArray) -> IntArray:
    """[n] from the westernmost to the easternmost place of each list; all 0 where none can be wide."""
    longitudes = places[:, 0]
    if int(longitudes.max(initial=0)) - int(longitudes.min(initial=0)) <= HALF:
        return np.zeros(len(offsets) - 1, np.int64)
    low, high = (reduced(edge, longitudes, offsets) for edge in (np.minimum, np.maximum))
    return np.asarray(high.astype(np.int64) - low)


def around(longitudes: FloatArray, offsets: IntArray) -> BoolArray:
    """[n] whether lists of longitudes, degrees, step over more than half the globe but not over all of it."""
    steps = np.abs(np.diff(longitudes, prepend=longitudes[:1]))
    steps[offsets[:-1][offsets[:-1] < len(steps)]] = 0.0
    return reduced(np.logical_or, (steps > 180.0) & (steps < 360.0), offsets)


def _shape_lines(found: Shaped, ways: Objects, places: Places, wanted: BoolArray, complete: BoolArray) -> None:
    """Lines, without places that repeat the one before."""
    found.note("w", ways.ids[wanted & ~complete], NODES_MISSING)
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
        found.note("w", ways.ids[rows[short]], TOO_FEW_PLACES)
        taken = taken[np.repeat(~short, counts)]
        rows, counts = rows[~short], counts[~short]
    if len(rows) == 0:
        return
    offsets = offsets_of(counts)
    degrees = taken / UNITS_PER_DEGREE
    lines, lengths = wkb.lines(degrees, offsets), path_lengths_m(degrees, offsets)
    none = np.zeros(len(rows))
    boxes = _boxes(taken, offsets)
    found.shapes.append(Shapes("w", ways.at(rows), lines, boxes, none, lengths, frozenset({"LineString"})))


def _shape_closed_ways(found: Shaped, ways: Objects, places: Places, wanted: BoolArray, complete: BoolArray) -> None:
    """Areas of closed ways: plain rings at once, the others by libosmium."""
    enough = np.diff(ways.ref_offsets) >= 4
    found.note("a", ways.ids[wanted & ~enough], TOO_FEW_NODES)
    found.note("a", ways.ids[wanted & enough & ~complete], NODES_MISSING)
    rows = np.flatnonzero(wanted & enough & complete)
    if len(rows) == 0:
        return
    counts = ways.ref_offsets[rows + 1] - ways.ref_offsets[rows]
    taken = places[ranges(ways.ref_offsets[rows], counts)]
    plain = plain_rings(taken, offsets_of(counts))
    if not plain.all():
        odd = rows[~plain]
        made = {osm_id: shape for _, osm_id, shape in assembled(ways_text(ways, places, odd, own=True))}
        shape_areas(found, "a", ways.at(odd), [made.get(osm_id) for osm_id in ways.ids[odd].tolist()])
        taken = taken[np.repeat(plain, counts)]
        rows, counts = rows[plain], counts[plain]
    if len(rows) == 0:
        return
    offsets = offsets_of(counts)
    degrees = taken / UNITS_PER_DEGREE
    area = ring_areas_m2(degrees, offsets)
    lengths = path_lengths_m(degrees, offsets)
    # Outer rings run counterclockwise, in GeoParquet as in libosmium.
    turned = np.repeat(area < 0, counts)
    place = np.arange(len(degrees))
    mirrored = np.repeat(offsets[:-1] + offsets[1:] - 1, counts) - place
    geometry = wkb.polygons(degrees[np.where(turned, mirrored, place)], offsets)
    boxes = _boxes(taken, offsets)
    found.shapes.append(Shapes("a", ways.at(rows), geometry, boxes, np.abs(area), lengths, frozenset({"Polygon"})))


def shape_areas(found: Shaped, letter: str, objects: Objects, geometries: list[bytes | None]) -> None:
    """Add areas that libosmium assembled: WKB of each object, None where no rings could be made."""
    shapes = shapely.from_wkb(np.array(geometries, object))
    single = shapely.get_num_geometries(shapes) == 1
    shapes[single] = shapely.get_geometry(shapes[single], 0)
    made, valid = ~shapely.is_missing(shapes), shapely.is_valid(shapes)
    found.note(letter, objects.ids[~made], NO_RINGS)
    for row in np.flatnonzero(made & ~valid).tolist():
        reason = shapely.is_valid_reason(shapes[row]).partition("[")[0]
        found.invalid.append((f"{letter}{objects.ids[row]}", f"polygon is not valid: {reason}"))
    kept = np.flatnonzero(valid)
    if len(kept) == 0:
        return
    shapes = shapes[kept]
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
    boxes = shapely.bounds(shapes).reshape(-1, 4)
    types = frozenset({shape.geom_type for shape in shapes})
    beyond = np.bincount(owner, weights=around(places[:, 0], offsets), minlength=len(kept)) > 0
    found.note(letter, objects.ids[kept[beyond]], BEYOND)
    shaped = Shapes(letter, objects.at(kept), geometry, boxes, area, length, types)
    found.shapes.append(shaped.at(np.flatnonzero(~beyond)) if beyond.any() else shaped)


def areas_of(relations: Objects) -> Objects:
    """The relations that are areas by their tag `type` and have another tag; `type` itself stays behind."""
    tags = relations.tags
    is_type = pc.equal(tags.strings, "type").to_numpy(zero_copy_only=False)[tags.keys]
    is_area = pc.is_in(tags.strings, value_set=pa.array(sorted(RELATION_AREA_TYPES))).to_numpy(zero_copy_only=False)
    said = reduced(np.logical_or, is_type & is_area[tags.values], tags.offsets)
    kept = replace(
        tags, offsets=kept_offsets(~is_type, tags.offsets), keys=tags.keys[~is_type], values=tags.values[~is_type]
    )
    return replace(relations, tags=kept).at(np.flatnonzero(said & (np.diff(tags.offsets) > 1)))


def _boxes(places: Places, offsets: IntArray) -> FloatArray:
    """[n, 4] boxes (west, south, east, north) in degrees of n lists of places, of which none is empty."""
    low, high = (edge.reduceat(places, offsets[:-1], axis=0) for edge in (np.minimum, np.maximum))
    return np.hstack((low, high)) / UNITS_PER_DEGREE
