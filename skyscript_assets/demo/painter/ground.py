"""What lies on the ground: areas, roads, railways, fences and streams, with the marks and the cars on them."""

from dataclasses import replace

import numpy as np
import shapely

from skyscript_assets.demo.painter.fields import rng_of
from skyscript_assets.demo.painter.kernels import URBAN
from skyscript_assets.demo.painter.layers import DECK_M, GROUND, THINGS, Studio, built
from skyscript_assets.demo.painter.looks import MATERIALS, PAINTER, Look, Surface, area_material, cover_of, plain
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.props import add_cars
from skyscript_assets.demo.painter.shapes import Frame, beside, frame_of, line_parts, stations
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import is_yes, layer_of, number
from skyscript_assets.lib.osm.roads import road_class, road_width_m

_MARKED = {"motorway", "trunk", "primary", "secondary", "tertiary"}
_WHITE = (228, 227, 222)


def add_area(studio: Studio, item: MapObject) -> None:
    """Add an area to the ground, or to made ground where its edges are crisp, and what is on it; small ones on top."""
    name = area_material(item.tags) or "grass"
    look, level, frame = MATERIALS[name], max(0, layer_of(item.tags)), frame_of(item.geometry)
    chance = unit_hash("area", studio.seed, item.object_id)
    if name == "farmland":
        crops = PAINTER.palettes["fields"]
        red, green, blue = crops[int(unit_hash("crop", studio.seed, item.object_id) * len(crops))]
        look = replace(look, a=(red, green, blue), b=(red * 1.08, green * 1.06, blue * 1.04))
    crisp = look.surface in {Surface.PAVED, Surface.PITCH} or name == "pool"
    rows = (float(np.arctan2(frame.uy, frame.ux)), *look.rows[1:])
    look = replace(look, tone=0.92 + 0.16 * chance, height_m=DECK_M * level if crisp else 0.0, rows=rows)
    studio.add(built(level) if crisp else GROUND, [item.geometry], look, -np.log1p(item.geometry.area))
    if look.surface == Surface.PITCH:
        lines = shapely.intersection(_pitch_lines(item, name, frame), shapely.buffer(item.geometry, -0.2))
        studio.stroke(built(level, marks=1), lines, 0.3, plain(_WHITE, look.height_m, None, 0.65))
    elif item.tags.get("amenity") == "parking":
        _add_bays(studio, item, frame, level)


def _pitch_lines(item: MapObject, material: str, frame: Frame) -> list[shapely.Geometry]:
    """Line markings by what a pitch is made of, fitted into the smallest rectangle around it."""
    a, b = frame.a, frame.b
    if material == "tartan":
        return [shapely.boundary(shapely.buffer(item.geometry, -1.22 * lane)) for lane in range(1, 5)]
    if a < 7:
        return []
    if material == "clay":  # ITF: courts of 23.77 x 10.97 m, as many side by side as there is room for
        courts = max(1, int(2 * a // 17.0)) if b > 11.5 else 1
        sides = ((11.89, 5.49), (11.89, 4.12), (6.4, 4.12), (6.4, 0.0), (0.0, 5.9))
        boxes = [(v, u) if courts > 1 else (u, v) for u, v in sides]
        middles = 17.0 * (np.arange(courts) - (courts - 1) / 2)
        return [_box(frame, middle - u, middle + u, v) for middle in middles for u, v in boxes]
    # Laws of the Game, law 1: areas of 16.5 and 5.5 m, circle of 9.15 m; smaller on small pitches and other courts
    u, v = max(1.0, a - 2.0), max(1.0, b - 2.0)
    scale = min(1.0, u / 50.0, v / 30.0)
    circle = shapely.boundary(shapely.buffer(shapely.Point(frame.x, frame.y), 9.15 * scale, quad_segs=12))
    ends = [(end * u, end * (u - d * scale), w * scale) for end in (-1, 1) for d, w in ((16.5, 20.16), (5.5, 9.16))]
    return [circle, *(_box(frame, *sides) for sides in [(-u, 0.0, v), (0.0, u, v), *ends])]


def _box(frame: Frame, u0: float, u1: float, v: float) -> shapely.Geometry:
    return shapely.LinearRing(frame.on_ground([u0, u1, u1, u0], [-v, -v, v, v]))


def _add_bays(studio: Studio, item: MapObject, frame: Frame, level: int) -> None:
    """Bays of 5 m at both sides of aisles of 6 m along a parking ground, some of them taken."""
    rows = np.arange(-frame.b + 2.7, frame.b - 2.4, 16.3)
    rows, along = np.concatenate([rows, rows + 11.2]), np.arange(-frame.a + 1.6, frame.a - 1.2, 2.54)
    places = frame.on_ground(*np.meshgrid(along, rows[rows < frame.b - 2.4]))
    places = places[shapely.contains_xy(shapely.buffer(item.geometry, -1.4), *places.T)]
    ux, uy = -frame.uy * np.ones(len(places)), frame.ux * np.ones(len(places))
    for side in (-1.27, 1.27):
        x, y = (places + side * np.array([frame.ux, frame.uy])).T
        studio.dashes(built(level, marks=1), (x, y, ux, uy), 2.5, 0.26, plain(_WHITE, DECK_M * level, None, 0.5))
    rng = rng_of(studio.seed, "parked", item.object_id)
    taken = rng.random(len(places)) < 0.3 + 0.5 * unit_hash("occupancy", studio.seed, item.object_id)
    turn, (x, y) = np.where(rng.random(len(places)) < 0.5, 1.0, -1.0), (places + rng.normal(0, 0.12, places.shape)).T
    add_cars(studio, rng, x[taken], y[taken], (ux * turn)[taken], (uy * turn)[taken])


def road_look(studio: Studio, item: MapObject, name: str, rank: int) -> Look:
    """Material of a road, path or platform by its surface, else its class; streets have one tone."""
    firm, street = item.tags.get("tracktype") == "grade1", item.tags.get("name") or item.tags.get("ref") or name
    material = "asphalt" if firm else cover_of(item.tags, PAINTER.usual.get(name, "asphalt"))
    surface = Surface.ROAD if rank >= 20 or name == "track" else Surface.PAVED if rank >= 17 else Surface.PATH
    tone = (1.0 if surface == Surface.ROAD else 1.1) * (0.86 + 0.26 * unit_hash("street", studio.seed, street))
    return replace(MATERIALS[material], surface=surface, tone=tone)


def add_road(studio: Studio, item: MapObject) -> None:
    """Add a road or path: verge or pavement, kerb, body, lane marks; a bridge has edges."""
    lines, level, (name, road) = line_parts(item.geometry), max(0, layer_of(item.tags)), road_class(item.tags)
    if not lines:
        return
    width = road_width_m(item.tags, road)
    look = replace(road_look(studio, item, name, road.rank), height_m=DECK_M * level)
    bands = [(0.0, look, float(road.rank))]
    if level:
        bands.append((1.4, replace(MATERIALS["concrete"], height_m=look.height_m + 0.6), road.rank - 0.5))
    elif road.rank >= 22:
        middle = shapely.line_interpolate_point(lines[0], 0.5, normalized=True)
        bands.append((0.7, MATERIALS["concrete"], 1.0))
        if studio.fields.value(URBAN, middle.x, middle.y) > 0.5:
            bands.append((5.6, MATERIALS["paving"], -30.0))
        else:
            studio.add(GROUND, shapely.buffer(lines, width / 2 + 3.5), MATERIALS["grass"], 0.5)
    for wider_m, band, order in bands:
        strips = shapely.buffer(lines, (width + wider_m) / 2, quad_segs=3, cap_style="flat" if level else "round")
        studio.add(built(level), strips, band, order)
    if is_yes(item.tags, "highway") and road.rank >= 20:
        studio.roads.extend((line, width, level) for line in lines)
    lanes, white = int(number(item.tags, "lanes", 1, 10) or 2), plain(_WHITE, DECK_M * level, None, 0.75)
    for line in lines if name in _MARKED and width >= 6.0 else []:
        for lane in range(1, lanes):
            at = stations(beside(line, width * (lane / lanes - 0.5)), 9.0, 4.0)
            studio.dashes(built(level, marks=1), at, 1.6, 0.3, white)
        if width >= 9.0:
            edges = [beside(line, side * width) for side in (-0.46, 0.46)]
            studio.stroke(built(level, marks=1), edges, 0.2, white)


def add_crossings(studio: Studio, points: list[shapely.Point]) -> None:
    """Zebra stripes where a marked crossing lies on a motor road, across its whole width."""
    tree = shapely.STRtree([line for line, _, _ in studio.roads])
    for node, road in tree.query_nearest(points, max_distance=1.5, all_matches=False).T:
        point, (line, width, level) = points[node], studio.roads[road]
        at = shapely.line_locate_point(line, point)
        back, ahead = shapely.get_coordinates(shapely.line_interpolate_point(line, [max(0.0, at - 1.0), at + 1.0]))
        ux, uy = (ahead - back) / max(np.hypot(*(ahead - back)), 1e-6)
        across = np.arange(-width / 2 + 0.5, width / 2 - 0.2, 1.1)
        stripes = point.x - uy * across, point.y + ux * across, ux, uy
        studio.dashes(built(level, marks=1), stripes, 1.5, 0.54, plain(_WHITE, DECK_M * level, None, 0.85))


def add_rail(studio: Studio, item: MapObject) -> None:
    """Add a track: ballast, sleepers, rails; a tram has rails in the street alone."""
    lines, level = line_parts(item.geometry), max(0, layer_of(item.tags))
    tram, height = item.tags["railway"] == "tram", DECK_M * level
    if not tram:
        studio.add(built(level), shapely.buffer(lines, 2.2), replace(MATERIALS["ballast"], height_m=height), 10.0)
        studio.add(GROUND, shapely.buffer(lines, 5.5), MATERIALS["soil"], 0.6)
    sleepers = plain((150, 145, 138) if tram else (96, 84, 74), height, Surface.RAIL, 0.28 if tram else 0.4)
    studio.stroke(built(level, marks=1), lines, 2.5, sleepers)
    rails = [beside(line, side) for line in lines for side in (-0.76, 0.76)]
    studio.stroke(built(level, marks=1), rails, 0.3, plain((173, 168, 163), height, None, 0.55))


def add_barrier(studio: Studio, item: MapObject) -> None:
    """Add a hedge, wall or fence along a line or around an area."""
    kind, height = item.tags.get("barrier", ""), number(item.tags, "height", 0.1, 12.0)
    width, look = 0.5 if "wall" in kind else 0.3, plain((138, 132, 124), height or 1.2)
    if kind == "hedge":
        width, look = 1.1, plain((70, 92, 50), height or 1.6, Surface.TREES)
    studio.stroke(THINGS, line_parts(item.geometry), width, look)


def add_stream(studio: Studio, item: MapObject) -> None:
    """Add a waterway that is mapped as a line."""
    usual = {"river": 14.0, "canal": 9.0, "stream": 2.2}.get(item.tags["waterway"], 1.3)
    width = number(item.tags, "width", 0.5, 200.0) or usual
    studio.add(GROUND, shapely.buffer(line_parts(item.geometry), width / 2), MATERIALS["water"], 2.0)
