"""Roads, paths, railways, barriers and streams: their bodies and the marks upon them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from skyscript_assets.demo.painter.layers import LayerBuilder, Style
from skyscript_assets.demo.painter.noise import CoarseField
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.palette import MATERIAL_INDEX, MATERIALS, RGB, Surface
from skyscript_assets.demo.painter.shapes import Geometries, line_parts, rectangles, stations, strips
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import Tags, layer_of, number
from skyscript_assets.lib.osm.roads import road_class, road_width_m

DECK_M = 5.5
"""Height of a bridge above what it crosses, per level."""


_MATERIALS = {
    "track": "dirt_road",
    "pedestrian": "paving",
    "cycleway": "asphalt_path",
    "footway": "asphalt_path",
    "bridleway": "dirt_path",
    "path": "dirt_path",
    "steps": "steps",
    "platform": "platform",
    "pier": "deck",
    "breakwater": "rock",
    "groyne": "rock",
}
"""Materials of classes that are not of asphalt."""

_MARKED = {"motorway", "trunk", "primary", "secondary", "tertiary"}
_KERBED = {
    "primary",
    "secondary",
    "tertiary",
    "primary_link",
    "secondary_link",
    "tertiary_link",
    "unclassified",
    "residential",
    "living_street",
    "road",
    "busway",
    "raceway",
    "turning_circle",
    "service",
}
_ROAD_SURFACES = {
    "concrete": "concrete",
    "concrete:plates": "concrete",
    "concrete:lanes": "concrete",
    "sett": "sett",
    "cobblestone": "sett",
    "unhewn_cobblestone": "sett",
    "paving_stones": "sett",
    "gravel": "dirt_road",
    "fine_gravel": "dirt_road",
    "compacted": "dirt_road",
    "unpaved": "dirt_road",
    "dirt": "dirt_road",
    "ground": "dirt_road",
    "earth": "dirt_road",
    "sand": "dirt_road",
    "grass": "dirt_road",
}
_PATH_SURFACES = {
    "asphalt": "asphalt_path",
    "concrete": "paving",
    "sett": "paving",
    "cobblestone": "paving",
    "paving_stones": "paving",
    "stone": "paving",
    "gravel": "gravel_path",
    "fine_gravel": "gravel_path",
    "compacted": "gravel_path",
    "unpaved": "gravel_path",
    "dirt": "dirt_path",
    "ground": "dirt_path",
    "earth": "dirt_path",
    "grass": "dirt_path",
    "wood": "deck",
}
_WHITE: RGB = (226, 225, 220)
_STEEL: RGB = (173, 168, 163)


def road_material(tags: Tags, name: str) -> str:
    """The material of a road by its surface, else its class."""
    base = MATERIALS[MATERIAL_INDEX[_MATERIALS.get(name, "asphalt")]].surface
    table = _ROAD_SURFACES if base == Surface.ROAD else _PATH_SURFACES if base == Surface.PATH else {}
    if tags.get("tracktype") == "grade1" and base == Surface.ROAD:
        return "asphalt"
    return table.get(tags.get("surface", ""), _MATERIALS.get(name, "asphalt"))


def add_road(
    item: MapObject, ground: LayerBuilder, built: LayerBuilder, marks: LayerBuilder, urban: CoarseField, seed: int
) -> None:
    """Add a road or path: verge, kerb, body, lane marks; `urban` says where there are pavements in place of verges."""
    name, road = road_class(item.tags)
    material = road_material(item.tags, name)
    width, level = road_width_m(item.tags, road), max(0, layer_of(item.tags))
    lines = np.array(line_parts(item.geometry), dtype=object)
    if len(lines) == 0:
        return
    surface = int(MATERIALS[MATERIAL_INDEX[material]].surface)
    street = item.tags.get("name") or item.tags.get("ref") or name
    tone = 0.86 + 0.26 * unit_hash("street", seed, street) + 0.04 * unit_hash("way", seed, item.object_id)
    order, height = 100.0 * level + road.rank, DECK_M * level
    bridge = level > 0
    if bridge:
        built.add_all(
            strips(lines, width + 1.4, flat=True),
            order - 0.5,
            Style(MATERIAL_INDEX["platform"], 1.0, level, height + 0.6, surface=surface),
        )
    elif name in _KERBED and road.rank >= 22:
        built.add_all(strips(lines, width + 0.7), order - 15, Style(MATERIAL_INDEX["platform"], 1.05, surface=surface))
    elif name not in _KERBED and road.rank >= 25:
        built.add_all(
            strips(lines, width + 2.4), order - 15, Style(MATERIAL_INDEX["gravel"], 0.9, surface=int(Surface.BARE))
        )
    if road.rank >= 23 and not bridge:
        middle = shapely.line_interpolate_point(lines[0], 0.5, normalized=True)
        if urban.value(middle.x, middle.y) > 0.5:
            pavement = Style(MATERIAL_INDEX["square"], 0.97, surface=int(Surface.PAVED))
            built.add_all(strips(lines, width + 5.6), -5.0, pavement)
        else:
            verge = Style(MATERIAL_INDEX["grass"], 0.97, surface=int(Surface.GRASS))
            ground.add_all(strips(lines, width + 7.0), 0.5, verge)
    style = Style(MATERIAL_INDEX[material], tone, level, height, surface=surface)
    built.add_all(strips(lines, width, flat=bridge), order, style)
    if road.rank >= 20 and surface == Surface.ROAD:
        _add_wear(lines, width, level, marks, tone)
    if name in _MARKED and width >= 6.0 and material == "asphalt":
        _add_lane_marks(lines, item.tags, width, level, marks)
    if name == "steps":
        _add_treads(lines, width, level, marks)


def _add_wear(lines: Geometries, width: float, level: int, marks: LayerBuilder, tone: float) -> None:
    """Darker or paler bands where wheels run: old, pale roads darken, new, dark ones pale."""
    colour: RGB = (92, 91, 90) if tone > 0.98 else (150, 148, 145)
    for offset in (-0.25, 0.25):
        for line in lines:
            band = _offset(line, offset * width)
            marks.add(
                shapely.buffer(band, 0.13 * width, quad_segs=2), level - 0.5, Style(-1, 1, level, 0, colour, 0.13)
            )


def _add_lane_marks(lines: Geometries, tags: Tags, width: float, level: int, marks: LayerBuilder) -> None:
    """Dashes between lanes, lines along the edges of the larger roads."""
    lanes = int(number(tags, "lanes", 1, 10) or (2 if width >= 6 else 1))
    dash = Style(-1, 1.0, level, 0.0, _WHITE, 0.75)
    for line in lines:
        for lane in range(1, lanes):
            offset = width * (lane / lanes - 0.5)
            shifted = _offset(line, offset)
            for part in line_parts(shifted):
                x, y, ux, uy = stations(part, 9.0, 4.0)
                marks.add_all(rectangles(x, y, ux, uy, 1.6, 0.15), level, dash)
        if width >= 9.0:
            for side in (-0.46, 0.46):
                edge = _offset(line, side * width)
                marks.add(shapely.buffer(edge, 0.13, quad_segs=1), level, Style(-1, 1, level, 0, _WHITE, 0.55))


def _add_treads(lines: Geometries, width: float, level: int, marks: LayerBuilder) -> None:
    """Dark edges of steps, wide enough to be seen."""
    for line in lines:
        x, y, ux, uy = stations(line, 1.0, 0.4)
        style = Style(-1, 1.0, level, 0.0, (92, 88, 84), 0.45)
        marks.add_all(rectangles(x, y, ux, uy, 0.17, width / 2), level, style)


def _offset(line: shapely.Geometry, distance: float) -> shapely.Geometry:
    """A parallel line; where none can be made, the line itself."""
    if abs(distance) < 0.05 or shapely.length(line) < 0.5:
        return line
    try:
        parallel = shapely.offset_curve(line, distance, quad_segs=2)
    except shapely.errors.GEOSException:
        return line
    return line if parallel is None or parallel.is_empty else parallel


def add_rail(item: MapObject, ground: LayerBuilder, built: LayerBuilder, marks: LayerBuilder) -> None:
    """Add a track: ballast, sleepers, rails; a tram has rails in the street alone."""
    lines = np.array(line_parts(item.geometry), dtype=object)
    if len(lines) == 0:
        return
    level = max(0, layer_of(item.tags))
    kind = item.tags["railway"]
    if kind not in {"tram"}:
        style = Style(MATERIAL_INDEX["ballast"], 1.0, level, DECK_M * level, surface=int(Surface.RAIL))
        built.add_all(strips(lines, 4.4, flat=level > 0), 100.0 * level + 10.0, style)
        if level == 0:
            ground.add_all(strips(lines, 11.0), 0.6, Style(MATERIAL_INDEX["trackside"]))
        marks.add_all(strips(lines, 2.6, flat=True), level - 0.4, Style(-1, 1, level, 0, (96, 84, 74), 0.40))
    else:
        marks.add_all(
            strips(lines, 2.4, flat=True), level + 0.3, Style(-1, 1, level, 0, (150, 145, 138), 0.28, int(Surface.RAIL))
        )
    steel = (118, 96, 80) if kind in {"abandoned", "disused"} else _STEEL
    for line in lines:
        for side in (-0.76, 0.76):
            rail = shapely.buffer(_offset(line, side), 0.15, quad_segs=1, cap_style="flat")
            marks.add(rail, level + 0.4, Style(-1, 1.0, level, 0.0, steel, 0.6 if kind != "tram" else 0.5))


def add_crossings(
    nodes: list[MapObject], roads: list[tuple[shapely.Geometry, float, int]], marks: LayerBuilder
) -> None:
    """Zebra stripes where a marked crossing lies on a motor road, across its whole width.

    Args:
        nodes: Crossing nodes.
        roads: (line, width in metres, level) of the motor roads.
        marks: Layer that gets the stripes.
    """
    if not roads or not nodes:
        return
    lines = np.array([line for line, _, _ in roads], dtype=object)
    points = np.array([node.geometry for node in nodes], dtype=object)
    pairs = shapely.STRtree(lines).query_nearest(points, max_distance=1.5, all_matches=False)
    for node, road in pairs.T:
        line, width, level = roads[road]
        at = shapely.line_locate_point(line, points[node])
        near = shapely.line_interpolate_point(line, [max(0.0, at - 1.0), at + 1.0])
        dx, dy = near[1].x - near[0].x, near[1].y - near[0].y
        length = float(np.hypot(dx, dy))
        if length < 1e-6:
            continue
        ux, uy = dx / length, dy / length
        across = np.arange(-width / 2 + 0.5, width / 2 - 0.2, 1.1)
        x, y = points[node].x - uy * across, points[node].y + ux * across
        marks.add_all(rectangles(x, y, ux, uy, 1.5, 0.27), level + 0.1, Style(-1, 1.0, level, 0.0, _WHITE, 0.85))


@dataclass(frozen=True)
class Fence:
    """How a barrier is built: width and height in metres, colour, the class it gives."""

    width_m: float
    height_m: float
    colour: RGB
    surface: int = 0


FENCES: dict[str, Fence] = {
    "hedge": Fence(1.1, 1.6, (70, 92, 50), int(Surface.TREES)),
    "wall": Fence(0.4, 1.6, (150, 144, 136)),
    "city_wall": Fence(2.0, 6.0, (150, 142, 130), int(Surface.BUILDING)),
    "retaining_wall": Fence(0.5, 0.9, (152, 147, 140)),
    "fence": Fence(0.3, 1.3, (112, 106, 98)),
    "guard_rail": Fence(0.3, 0.8, (160, 160, 158)),
    "kerb": Fence(0.3, 0.1, (176, 172, 166)),
    "jersey_barrier": Fence(0.6, 0.8, (178, 174, 168)),
}
_OTHER_FENCE = Fence(0.3, 1.0, (128, 123, 116))


def add_barrier(item: MapObject, things: LayerBuilder) -> None:
    """Add a fence, wall or hedge along a line, or filling an area that is one."""
    fence = FENCES.get(item.tags.get("barrier", ""), _OTHER_FENCE)
    height = number(item.tags, "height", 0.1, 12.0) or fence.height_m
    style = Style(-1, 1.0, 0, height, fence.colour, 1.0, fence.surface)
    if item.is_area and fence.surface:
        things.add(item.geometry, 1.0, style)
        return
    for line in line_parts(item.geometry):
        things.add(shapely.buffer(line, fence.width_m / 2, quad_segs=2, cap_style="flat"), 1.0, style)


def add_stream(item: MapObject, ground: LayerBuilder) -> list[shapely.Geometry]:
    """Add a waterway that is mapped as a line and return its water."""
    widths = {"river": 14.0, "canal": 9.0, "stream": 2.2, "ditch": 1.2, "drain": 1.4}
    width = number(item.tags, "width", 0.5, 200.0) or widths[item.tags["waterway"]]
    water = list(strips(np.array(line_parts(item.geometry), dtype=object), width))
    style = Style(MATERIAL_INDEX["water"], surface=int(Surface.WATER))
    ground.add_all(water, 2.0, style)
    return water
