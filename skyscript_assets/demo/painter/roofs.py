"""Buildings from above: heights, roof shapes, materials and colours by tag, else by hash from plausible mixes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.demo.painter.layers import LayerBuilder, burn
from skyscript_assets.demo.painter.noise import F32, CoarseField, rng_of
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.palette import RGB, parse_colour, srgb_to_linear
from skyscript_assets.demo.painter.props import add_fittings
from skyscript_assets.demo.painter.shapes import Frames, frames_of
from skyscript_assets.lib.geometry import Bounds, unit_hash
from skyscript_assets.lib.osm.meaning import Tags, is_yes, number

Reals = npt.NDArray[np.floating]


class Roof(IntEnum):
    """Shapes of roofs; WINGS is a pitched roof that follows the wings of an irregular ground plan."""

    FLAT = 0
    GABLED = 1
    HIPPED = 2
    PYRAMIDAL = 3
    SKILLION = 4
    DOME = 5
    ROUND = 6
    WINGS = 7


_SHAPES = {
    "flat": Roof.FLAT,
    "gabled": Roof.GABLED,
    "gambrel": Roof.GABLED,
    "saltbox": Roof.GABLED,
    "hipped": Roof.HIPPED,
    "half-hipped": Roof.HIPPED,
    "mansard": Roof.HIPPED,
    "pyramidal": Roof.PYRAMIDAL,
    "conical": Roof.PYRAMIDAL,
    "cone": Roof.PYRAMIDAL,
    "skillion": Roof.SKILLION,
    "lean_to": Roof.SKILLION,
    "dome": Roof.DOME,
    "onion": Roof.DOME,
    "round": Roof.ROUND,
}
_MATERIALS: dict[str, RGB] = {
    "copper": (142, 172, 156),
    "glass": (108, 128, 140),
    "concrete": (170, 167, 161),
    "roof_tiles": (158, 98, 76),
    "tile": (158, 98, 76),
    "tar_paper": (84, 83, 84),
    "asphalt": (92, 91, 92),
    "asphalt_shingle": (104, 99, 95),
    "bitumen": (84, 83, 84),
    "metal": (146, 150, 153),
    "zinc": (150, 154, 158),
    "metal_sheet": (146, 150, 153),
    "tin": (152, 156, 160),
    "slate": (92, 95, 101),
    "eternit": (152, 150, 147),
    "gravel": (158, 153, 145),
    "grass": (112, 124, 76),
    "plants": (112, 124, 76),
    "thatch": (140, 122, 92),
    "wood": (122, 102, 82),
    "plastic": (206, 206, 202),
    "solar_panels": (46, 54, 78),
}
_PITCHED_MIX: tuple[tuple[RGB, float], ...] = (
    ((146, 88, 68), 0.17),
    ((116, 70, 58), 0.12),
    ((92, 78, 70), 0.16),
    ((72, 73, 76), 0.22),
    ((110, 111, 113), 0.14),
    ((148, 146, 142), 0.10),
    ((84, 98, 88), 0.05),
    ((60, 58, 58), 0.04),
)
_TOWN_MIX: tuple[tuple[RGB, float], ...] = (
    ((118, 76, 64), 0.17),
    ((88, 88, 91), 0.26),
    ((66, 67, 70), 0.19),
    ((136, 138, 140), 0.15),
    ((128, 150, 136), 0.09),
    ((104, 96, 88), 0.14),
)
_FLAT_MIX: tuple[tuple[RGB, float], ...] = (
    ((92, 91, 92), 0.30),
    ((118, 116, 114), 0.20),
    ((150, 146, 139), 0.24),
    ((178, 176, 171), 0.12),
    ((204, 203, 199), 0.06),
    ((128, 112, 102), 0.08),
)
_FIXED_HEIGHTS = {
    "garage": 2.8,
    "garages": 2.9,
    "shed": 2.6,
    "carport": 2.5,
    "hut": 2.6,
    "kiosk": 3.0,
    "roof": 4.2,
    "greenhouse": 3.4,
    "glasshouse": 4.0,
    "house": 5.2,
    "detached": 5.2,
    "terrace": 5.6,
    "semidetached_house": 5.4,
    "residential": 5.4,
    "farm_auxiliary": 5.5,
    "barn": 7.0,
    "industrial": 8.0,
    "warehouse": 9.0,
    "retail": 7.0,
    "church": 14.0,
    "cathedral": 22.0,
    "chapel": 9.0,
    "school": 9.0,
    "kindergarten": 4.5,
    "public": 9.0,
}


@dataclass(frozen=True)
class Buildings:
    """Buildings in painting order (low ones first) as columns.

    Attributes:
        polygons: Ground plans, local metres.
        frames: Smallest rectangles around them.
        shape: `Roof` codes.
        eaves_m: Height of the eaves.
        rise_m: Height of the ridge above the eaves.
        colour: (n, 3) linear.
        wall: (n, 3) linear colour of the parapet or eaves' edge.
        rough: Relative deviation of brightness on the roof.
        bounds: (n, 4) boxes.
        tree: Spatial index.
    """

    polygons: npt.NDArray[np.object_]
    frames: Frames
    shape: npt.NDArray[np.int32]
    eaves_m: F32
    rise_m: F32
    colour: F32
    wall: F32
    rough: F32
    bounds: npt.NDArray[np.float64]
    tree: shapely.STRtree

    def inside(self, bounds: Bounds) -> npt.NDArray[np.intp]:
        """Numbers of the buildings that touch a box, in painting order."""
        found: npt.NDArray[np.intp] = np.sort(self.tree.query(shapely.box(*bounds)))
        return found


def make_buildings(items: list[MapObject], urban: CoarseField, things: LayerBuilder, seed: int) -> Buildings:
    """Decide how buildings look, and add chimneys, vents and shafts to the small things.

    Args:
        items: Objects of role building.
        urban: How densely the place is built, 0..1.
        things: Layer that gets what stands on roofs.
        seed: Seed of the painting.
    """
    polygons = np.array([item.geometry for item in items], dtype=object)
    frames = frames_of(polygons)
    areas = shapely.area(polygons)
    regular = areas / np.maximum(1e-6, 4 * frames.a * frames.b)
    looks = [
        _look(
            item,
            float(areas[i]),
            float(regular[i]),
            float(frames.b[i]),
            urban.value(float(frames.x[i]), float(frames.y[i])),
            seed,
        )
        for i, item in enumerate(items)
    ]
    for i, (item, look) in enumerate(zip(items, looks, strict=True)):
        _furnish(item, look, (float(areas[i]), float(frames.ux[i]), float(frames.uy[i])), things, seed)
    order = np.argsort(np.array([look.eaves_m + 0.5 * look.rise_m for look in looks]), kind="stable")
    return _columns(polygons, frames, looks, order)


@dataclass(frozen=True)
class _Look:
    """How one building looks."""

    shape: Roof
    eaves_m: float
    rise_m: float
    colour: RGB
    wall: RGB
    rough: float


def _look(item: MapObject, area: float, regular: float, half_width: float, urban: float, seed: int) -> _Look:
    tags, name = item.tags, item.object_id
    shape = _shape(tags, area, regular, urban, unit_hash("roof", seed, name))
    height = _height(tags, area, urban, unit_hash("height", seed, name))
    pitch = 0.32 + 0.28 * unit_hash("pitch", seed, name)
    span = min(half_width, 7.0)
    rise = number(tags, "roof:height", 0.0, 40.0)
    if rise is None:
        rise = {Roof.FLAT: 0.0, Roof.DOME: half_width, Roof.ROUND: 0.6 * span, Roof.SKILLION: 0.35 * span}.get(
            shape, pitch * span
        )
    rise = min(rise, 0.8 * height) if shape != Roof.DOME else rise
    colour = _colour(tags, shape, area, urban, unit_hash("roof colour", seed, name))
    shade = 0.90 + 0.2 * unit_hash("shade", seed, name)
    red, green, blue = (min(235.0, c * shade) for c in colour)
    wall = parse_colour(tags.get("building:colour") or tags.get("building:facade:colour"))
    edge = wall or (red * 0.6 + 62, green * 0.6 + 61, blue * 0.6 + 60)
    rough = 0.05 if shape == Roof.FLAT else 0.035
    return _Look(shape, max(1.5, height - rise), rise, (red, green, blue), edge, rough)


def _shape(tags: Tags, area: float, regular: float, urban: float, chance: float) -> Roof:
    """Tagged shape, else by kind, size and how rectangular the ground plan is."""
    tagged = _SHAPES.get(tags.get("roof:shape", ""))
    kind = tags.get("building", "")
    if tagged is None:
        if tags.get("man_made") in {"storage_tank", "silo", "gasometer", "canopy"} or kind in {"roof", "carport"}:
            return Roof.FLAT
        if kind in {"church", "cathedral", "chapel"}:
            tagged = Roof.GABLED
        elif kind in {"greenhouse", "glasshouse"}:
            tagged = Roof.ROUND
        else:
            flat = 0.22 if area < 350 else 0.55 if area < 1200 else 0.85
            if kind in {"industrial", "retail", "warehouse", "commercial", "office", "garages", "supermarket"}:
                flat = max(flat, 0.75)
            flat = flat * (1 - urban) + urban * (0.9 if area < 60 else 0.3 if area < 3500 else 0.6)
            tagged = Roof.FLAT if chance < flat else Roof.GABLED if chance < flat + (1 - flat) * 0.75 else Roof.HIPPED
    irregular = regular < 0.82 and tagged in {Roof.GABLED, Roof.HIPPED, Roof.SKILLION}
    return Roof.WINGS if irregular else tagged


def _height(tags: Tags, area: float, urban: float, chance: float) -> float:
    """Height in metres by tag, by levels (3.1 m each and 1.5 m of roof), else by kind and surroundings."""
    height = number(tags, "height", 1.0, 330.0)
    if height is not None:
        return height
    levels = number(tags, "building:levels", 0.5, 100.0)
    if levels is not None:
        return 3.1 * levels + 1.5
    kind = tags.get("building", "")
    if kind in _FIXED_HEIGHTS:
        return _FIXED_HEIGHTS[kind] * (0.85 + 0.3 * chance)
    if is_yes(tags, "building:part"):
        return 20.0 + 6.0 * chance
    low = 2.8 if area < 45 else 4.6 if area < 250 else 7.0
    town = 4.0 if area < 80 else 18.0
    return (low * (1 - urban) + town * urban) * (0.8 + 0.4 * chance)


def _colour(tags: Tags, shape: Roof, area: float, urban: float, chance: float) -> RGB:
    """Tagged colour, else the tagged material's, else drawn from the mix of its kind."""
    tagged = parse_colour(tags.get("roof:colour")) or _MATERIALS.get(tags.get("roof:material", ""))
    if tagged is not None:
        return tagged
    if tags.get("building") in {"greenhouse", "glasshouse"}:
        return 168, 180, 180
    if tags.get("man_made") in {"storage_tank", "silo", "gasometer"}:
        return 206, 206, 202
    mix = _FLAT_MIX if shape == Roof.FLAT else _TOWN_MIX if urban > 0.5 and area > 80 else _PITCHED_MIX
    total = 0.0
    for colour, share in mix:
        total += share
        if chance < total:
            return colour
    return mix[-1][0]


def _furnish(item: MapObject, look: _Look, size: tuple[float, float, float], things: LayerBuilder, seed: int) -> None:
    """Chimneys on pitched roofs of houses, vents and machines on larger flat ones, where they fit."""
    area, axis = size[0], size[1:]
    kind = item.tags.get("building", "")
    if area < 55 or kind in {"roof", "greenhouse", "glasshouse", "carport"} or look.shape in {Roof.DOME, Roof.ROUND}:
        return
    flat = look.shape == Roof.FLAT
    rng = rng_of(seed, "fittings", item.object_id)
    wanted = int(rng.poisson(min(40.0, area / (260.0 if flat else 190.0)))) + (0 if flat else 1)
    inner = shapely.buffer(item.geometry, -2.2 if flat else -0.25 * min(6.0, area**0.5))
    if wanted == 0 or inner.is_empty:
        return
    x0, y0, x1, y1 = inner.bounds
    places = rng.uniform((x0, y0), (x1, y1), (4 * wanted, 2))
    places = places[shapely.contains_xy(inner, places[:, 0], places[:, 1])][:wanted]
    top = look.eaves_m + (0.0 if flat else 0.75 * look.rise_m)
    add_fittings(things, places, axis, top, rng, flat=flat)


def _columns(
    polygons: npt.NDArray[np.object_], frames: Frames, looks: list[_Look], order: npt.NDArray[np.intp]
) -> Buildings:
    looks = [looks[index] for index in order]
    polygons = polygons[order]

    def column(values: list[float]) -> F32:
        return np.array(values, np.float32)

    return Buildings(
        polygons=polygons,
        frames=Frames(*(getattr(frames, name)[order] for name in ("x", "y", "ux", "uy", "a", "b"))),
        shape=np.array([look.shape for look in looks], np.int32),
        eaves_m=column([look.eaves_m for look in looks]),
        rise_m=column([look.rise_m for look in looks]),
        colour=srgb_to_linear(np.array([look.colour for look in looks]).reshape(-1, 3)),
        wall=srgb_to_linear(np.array([look.wall for look in looks]).reshape(-1, 3)),
        rough=column([look.rough for look in looks]),
        bounds=shapely.bounds(polygons).reshape(-1, 4),
        tree=shapely.STRtree(polygons),
    )


@dataclass(frozen=True)
class RoofPixels:
    """The roofs of a block.

    Attributes:
        pixels: Flat numbers of the pixels under a roof.
        building: For each, the number of its building.
        height_m: For each, the height of the roof.
        edge: For each, whether it is the outermost pixel of a flat roof.
        ridge: For each, 1 at the ridge and 0 at the eaves; 0.5 on flat roofs.
        along: For each, metres along the building's longer axis, for seams.
    """

    pixels: npt.NDArray[np.intp]
    building: npt.NDArray[np.intp]
    height_m: F32
    edge: npt.NDArray[np.bool_]
    ridge: F32
    along: F32


def roof_pixels(buildings: Buildings, numbers: npt.NDArray[np.intp], block: Block) -> RoofPixels:
    """Heights of the roofs over a block.

    Args:
        buildings: All buildings.
        numbers: Those that touch the block.
        block: The block.
    """
    burnt = burn(buildings.polygons[numbers], block)
    pixels = np.flatnonzero(burnt)
    rows, cols = np.divmod(pixels, block.width)
    building = numbers[burnt.ravel()[pixels] - 1]
    f = buildings.frames
    x = block.xs()[cols].astype(np.float32) - f.x[building].astype(np.float32)
    y = block.ys()[rows].astype(np.float32) - f.y[building].astype(np.float32)
    ux, uy = f.ux[building].astype(np.float32), f.uy[building].astype(np.float32)
    along, across = x * ux + y * uy, y * ux - x * uy
    u, v = along / f.a[building].astype(np.float32), across / f.b[building].astype(np.float32)
    relative = _relative_height(buildings, building, u, v)
    wings = np.flatnonzero(buildings.shape[numbers] == Roof.WINGS)
    if len(wings):
        distance = _wing_distances(buildings, numbers, wings, burnt, block)
        on_wings = buildings.shape[building] == Roof.WINGS
        span = np.minimum(f.b[building[on_wings]], 7.0)
        relative[on_wings] = np.minimum(1.0, distance.ravel()[pixels[on_wings]] / span)
    flat = buildings.shape[building] == Roof.FLAT
    edge = flat & _outermost(burnt).ravel()[pixels]
    height = buildings.eaves_m[building] + buildings.rise_m[building] * relative + 0.5 * edge
    return RoofPixels(pixels, building, height.astype(np.float32), edge, np.where(flat, 0.5, relative), along)


def _relative_height(buildings: Buildings, building: npt.NDArray[np.intp], u: Reals, v: Reals) -> F32:
    """Height above the eaves as a share of the rise, by shape, at u, v in -1..1 along and across."""
    au, av = np.abs(u), np.abs(v)
    shape = buildings.shape[building]
    ratio = (buildings.frames.a[building] / buildings.frames.b[building]).astype(np.float32)
    relative = np.zeros(len(u), np.float32)
    forms: dict[Roof, Callable[[npt.NDArray[np.intp]], Reals]] = {
        Roof.GABLED: lambda i: 1 - av[i],
        Roof.HIPPED: lambda i: np.minimum(1 - av[i], (1 - au[i]) * ratio[i]),
        Roof.PYRAMIDAL: lambda i: np.minimum(1 - av[i], 1 - au[i]),
        Roof.SKILLION: lambda i: 0.5 + 0.5 * v[i],
        Roof.DOME: lambda i: np.sqrt(np.maximum(0, 1 - u[i] ** 2 - v[i] ** 2)),
        Roof.ROUND: lambda i: np.sqrt(np.maximum(0, 1 - v[i] ** 2)),
    }
    for code, form in forms.items():
        chosen = np.flatnonzero(shape == code)
        if len(chosen):
            relative[chosen] = form(chosen)
    return np.clip(relative, 0, 1)


def _wing_distances(
    buildings: Buildings,
    numbers: npt.NDArray[np.intp],
    wings: npt.NDArray[np.intp],
    burnt: npt.NDArray[np.int32],
    block: Block,
) -> F32:
    """Distance to the wall in metres inside irregular buildings, measured on their whole ground plans."""
    distance = np.zeros(block.shape, np.float32)
    p = block.pixel_m
    for index in wings:
        number = int(numbers[index])
        x0, y0, x1, y1 = buildings.bounds[number]
        row, col = int(np.floor(y0 / p)) - 1, int(np.floor(x0 / p)) - 1
        height, width = int(np.ceil(y1 / p)) + 1 - row, int(np.ceil(x1 / p)) + 1 - col
        window = Block(row, col, height, width, (slice(0, height), slice(0, width)), p)
        inside = ndimage.distance_transform_edt(burn(buildings.polygons[number : number + 1], window)) * p
        top, left = max(row, block.row), max(col, block.col)
        bottom, right = min(row + height, block.row + block.height), min(col + width, block.col + block.width)
        here = (slice(top - block.row, bottom - block.row), slice(left - block.col, right - block.col))
        mine = burnt[here] == index + 1
        distance[here][mine] = inside[top - row : bottom - row, left - col : right - col][mine]
    return distance


def _outermost(burnt: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pixels of a building beside a pixel of another or of none."""
    outer = np.zeros(burnt.shape, bool)
    down, right = burnt[1:] != burnt[:-1], burnt[:, 1:] != burnt[:, :-1]
    outer[1:] |= down
    outer[:-1] |= down
    outer[:, 1:] |= right
    outer[:, :-1] |= right
    return outer
