"""Small things with a height: vehicles, boats, tanks, poles, stones, kiosks, fittings on roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from skyscript_assets.demo.painter.layers import LayerBuilder, Style
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.palette import RGB, Surface
from skyscript_assets.demo.painter.shapes import F64, rectangles
from skyscript_assets.lib.osm.meaning import number


@dataclass(frozen=True)
class PointThing:
    """A thing mapped as a point: half sides in metres, height, colour, whether it is round, the class it gives."""

    half_m: tuple[float, float]
    height_m: float
    colour: RGB
    round: bool = False
    surface: int = 0


POINT_THINGS: dict[tuple[str, str | None], PointThing] = {
    ("highway", "street_lamp"): PointThing((0.17, 0.17), 7.0, (150, 150, 148)),
    ("man_made", "flagpole"): PointThing((0.17, 0.17), 9.0, (225, 225, 222)),
    ("man_made", "utility_pole"): PointThing((0.2, 0.2), 9.0, (110, 96, 82)),
    ("power", "pole"): PointThing((0.2, 0.2), 10.0, (110, 96, 82)),
    ("man_made", "mast"): PointThing((0.6, 0.6), 28.0, (170, 168, 165)),
    ("man_made", "tower"): PointThing((2.0, 2.0), 26.0, (165, 160, 155), surface=int(Surface.BUILDING)),
    ("man_made", "water_tower"): PointThing(
        (6.0, 6.0), 30.0, (188, 186, 180), round=True, surface=int(Surface.BUILDING)
    ),
    ("man_made", "chimney"): PointThing((1.6, 1.6), 34.0, (150, 110, 95), round=True, surface=int(Surface.BUILDING)),
    ("man_made", "storage_tank"): PointThing(
        (5.0, 5.0), 8.0, (206, 206, 202), round=True, surface=int(Surface.BUILDING)
    ),
    ("man_made", "silo"): PointThing((3.0, 3.0), 14.0, (186, 186, 182), round=True, surface=int(Surface.BUILDING)),
    ("man_made", "street_cabinet"): PointThing((0.6, 0.3), 1.3, (120, 126, 120)),
    ("man_made", "advertising"): PointThing((0.6, 0.6), 3.0, (120, 120, 118), round=True),
    ("amenity", "fountain"): PointThing((2.6, 2.6), 0.5, (140, 172, 178), round=True, surface=int(Surface.WATER)),
    ("amenity", "shelter"): PointThing((2.2, 1.3), 2.5, (120, 122, 124)),
    ("amenity", "kiosk"): PointThing((2.0, 1.6), 3.0, (130, 124, 116)),
    ("amenity", "charging_station"): PointThing((0.4, 0.3), 1.6, (210, 214, 214)),
    ("amenity", "recycling"): PointThing((2.2, 0.7), 1.6, (70, 100, 78)),
    ("historic", "monument"): PointThing((1.6, 1.6), 6.0, (150, 146, 140)),
    ("historic", "memorial"): PointThing((0.7, 0.7), 2.4, (120, 118, 114)),
    ("natural", "stone"): PointThing((0.8, 0.7), 0.9, (150, 146, 140), round=True),
    ("natural", "rock"): PointThing((1.5, 1.2), 1.3, (146, 140, 133), round=True),
    ("barrier", "block"): PointThing((0.6, 0.4), 0.8, (176, 172, 165)),
    ("power", "transformer"): PointThing((1.4, 1.1), 2.2, (140, 146, 140)),
}
_HOUSE = PointThing((2.6, 2.2), 3.2, (118, 108, 102), surface=int(Surface.BUILDING))

CAR_COLOURS: tuple[RGB, ...] = (
    (222, 223, 222),
    (232, 232, 230),
    (184, 187, 190),
    (168, 170, 173),
    (120, 122, 126),
    (74, 76, 80),
    (48, 49, 53),
    (52, 54, 58),
    (132, 48, 44),
    (62, 82, 118),
    (92, 104, 112),
    (150, 142, 126),
)
_GLASS: RGB = (54, 62, 70)


def add_thing(item: MapObject, things: LayerBuilder) -> None:
    """Add what a point object shows; a power tower is a lattice on a square base."""
    point, tags = item.geometry, item.tags
    if tags.get("power") == "tower":
        _add_pylon(point, things)
        return
    thing = next((POINT_THINGS[pair] for pair in tags.items() if pair in POINT_THINGS), _HOUSE)
    height = number(tags, "height", 0.3, 120.0) or thing.height_m
    if thing.round:
        shape = shapely.buffer(point, (thing.half_m[0] + thing.half_m[1]) / 2, quad_segs=6)
    else:
        shape = rectangles(point.x, point.y, 1.0, 0.0, *thing.half_m)[0]
    things.add(shape, 1.0, Style(-1, 1.0, 0, height, thing.colour, 1.0, thing.surface))
    if tags.get("amenity") == "fountain":
        things.add(shapely.buffer(point, 0.5), 1.1, Style(-1, 1.0, 0, 1.2, (220, 228, 230), 0.9, thing.surface))


POINT_THINGS[("power", "tower")] = PointThing((3.0, 3.0), 30.0, (150, 152, 152))


def _add_pylon(point: shapely.Point, things: LayerBuilder) -> None:
    """Four legs, diagonals and two cross-arms."""
    steel = Style(-1, 1.0, 0, 9.0, (142, 144, 144), 0.75)
    corners = np.array([(-3, -3), (3, -3), (3, 3), (-3, 3)]) + np.array([point.x, point.y])
    for first, second in ((0, 2), (1, 3), (0, 1), (1, 2), (2, 3), (3, 0)):
        things.add(shapely.buffer(shapely.LineString([corners[first], corners[second]]), 0.17), 2.0, steel)
    arm = Style(-1, 1.0, 0, 26.0, (158, 160, 160), 0.9)
    for offset in (-0.5, 0.5):
        things.add(rectangles(point.x, point.y + offset, 1.0, 0.0, 6.0, 0.2)[0], 2.1, arm)


def add_power_line(item: MapObject, marks: LayerBuilder) -> None:
    """Faint wires: three for a line, one for a minor line."""
    wires = (-5.0, 0.0, 5.0) if item.tags["power"] == "line" else (0.0,)
    for offset in wires:
        wire = item.geometry if offset == 0 else shapely.offset_curve(item.geometry, offset)
        if not wire.is_empty:
            marks.add(shapely.buffer(wire, 0.15, quad_segs=1), 9.0, Style(-1, 1.0, 9, 0.0, (150, 152, 154), 0.30))


def add_cars(things: LayerBuilder, rng: np.random.Generator, x: F64, y: F64, ux: F64, uy: F64) -> None:
    """Cars at places, heading along unit vectors: body, windscreens, roof."""
    n = len(x)
    if n == 0:
        return
    half = rng.uniform(2.0, 2.4, n)
    van = rng.random(n) < 0.1
    half = np.where(van, half + 0.5, half)
    height = np.where(van, 2.1, 1.45)
    colours = [CAR_COLOURS[index] for index in rng.integers(0, len(CAR_COLOURS), n)]
    body = rectangles(x, y, ux, uy, half, 0.90)
    body = shapely.buffer(shapely.buffer(body, -0.3), 0.3, quad_segs=2)
    cabin = rectangles(x - ux * 0.2, y - uy * 0.2, ux, uy, half * 0.66, 0.80)
    top = rectangles(x - ux * 0.3, y - uy * 0.3, ux, uy, np.where(van, half * 0.6, half * 0.36), 0.72)
    for index in range(n):
        red, green, blue = colours[index]
        h = float(height[index])
        things.add(body[index], 3.0, Style(-1, 1.0, 0, h * 0.65, (red, green, blue)))
        things.add(cabin[index], 3.1, Style(-1, 1.0, 0, h, _GLASS))
        things.add(top[index], 3.2, Style(-1, 1.05, 0, h, (red, green, blue)))


def add_truck(things: LayerBuilder, rng: np.random.Generator, x: float, y: float, ux: float, uy: float) -> None:
    """A lorry or a bus: a long pale box and a cab."""
    half = float(rng.uniform(3.8, 6.2))
    shade = float(rng.integers(150, 232))
    box = rectangles(x - ux, y - uy, ux, uy, half, 1.25)[0]
    cab = rectangles(x + ux * (half + 0.3), y + uy * (half + 0.3), ux, uy, 1.1, 1.2)[0]
    things.add(box, 3.0, Style(-1, 1.0, 0, 3.4, (shade, shade, shade - 3)))
    things.add(cab, 3.1, Style(-1, 1.0, 0, 2.8, CAR_COLOURS[int(rng.integers(0, len(CAR_COLOURS)))]))


def add_boat(things: LayerBuilder, rng: np.random.Generator, x: float, y: float) -> None:
    """A small boat with a pointed bow, a deck and its cabin."""
    angle, half = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(2.2, 5.5))
    ux, uy = float(np.cos(angle)), float(np.sin(angle))
    outline = np.array([(-1, -0.28), (0.35, -0.32), (1, 0), (0.35, 0.32), (-1, 0.28)]) * half
    hull = np.column_stack([x + outline[:, 0] * ux - outline[:, 1] * uy, y + outline[:, 0] * uy + outline[:, 1] * ux])
    things.add(shapely.Polygon(hull), 3.0, Style(-1, 1.0, 0, 0.9, (226, 226, 222)))
    cabin = rectangles(x - ux * half * 0.15, y - uy * half * 0.15, ux, uy, half * 0.3, half * 0.17)[0]
    things.add(cabin, 3.1, Style(-1, 1.0, 0, 1.8, (120, 128, 136)))


def add_shed(things: LayerBuilder, rng: np.random.Generator, x: float, y: float) -> None:
    """A garden shed that no map knows: a small house of two roof halves."""
    angle = float(rng.uniform(0, np.pi))
    ux, uy = float(np.cos(angle)), float(np.sin(angle))
    a, b = float(rng.uniform(1.3, 2.4)), float(rng.uniform(1.0, 1.6))
    shade = rng.uniform(0.7, 1.15)
    for side in (-1, 1):
        half = rectangles(x - side * uy * b / 2, y + side * ux * b / 2, ux, uy, a, b / 2)[0]
        tone = float(shade * (1.0 + 0.12 * side))
        style = Style(-1, tone, 0, 2.5 - 0.1 * side, (122, 110, 103), 1.0, int(Surface.BUILDING))
        things.add(half, 3.0, style)


def add_fittings(
    things: LayerBuilder,
    places: F64,
    axis: tuple[float, float],
    height_m: float,
    rng: np.random.Generator,
    *,
    flat: bool,
) -> None:
    """Chimneys on pitched roofs; vents, shafts and machines on flat ones, square to the building's axis.

    Args:
        things: Layer that gets them.
        places: (n, 2) local metres.
        axis: Unit vector along the building.
        height_m: Height of the roof.
        rng: Where chance comes from.
        flat: Whether the roof is flat.
    """
    for index, (x, y) in enumerate(places):
        if flat:
            half = float(rng.uniform(1.4, 3.2)) if index % 7 == 0 else float(rng.uniform(0.35, 0.9))
            rise, shade = (2.2 if half > 1.3 else 0.8), float(rng.integers(92, 176))
            colour = (shade, shade - 1, shade - 3)
        else:
            half, rise = float(rng.uniform(0.32, 0.48)), 0.9
            shade = float(rng.integers(80, 130))
            colour = (shade, shade - 12, shade - 18)
        box = rectangles(x, y, *axis, half, half * float(rng.uniform(0.5, 1.0)))[0]
        things.add(box, 4.0, Style(-1, 1.0, 0, height_m + rise, colour))
