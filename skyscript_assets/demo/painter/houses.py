"""Buildings from above: heights, roof shapes, materials and colours by tag, else by hash from plausible mixes."""

import numpy as np
import shapely

from skyscript_assets.demo.painter import kernels as k
from skyscript_assets.demo.painter.fields import rng_of
from skyscript_assets.demo.painter.layers import ROOFS, THINGS, Shape, Studio
from skyscript_assets.demo.painter.looks import PAINTER, Look, Surface, parse_colour, plain
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.shapes import Frame, frame_of, line_parts, rectangles
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import Tags, is_yes, number

_SHAPES = {
    k.FLAT: "flat skillion lean_to",
    k.GABLED: "gabled gambrel saltbox round",
    k.HIPPED: "hipped half-hipped mansard pyramidal conical cone",
    k.DOME: "dome onion",
}
_SHAPE_OF = {word: shape for shape, words in _SHAPES.items() for word in words.split()}
_LARGE = {"industrial", "retail", "warehouse", "commercial", "office", "garages", "supermarket"}
_LIGHT = {"roof", "greenhouse", "glasshouse", "carport"}


def add_building(studio: Studio, item: MapObject) -> None:
    """Add a building: its roof, with chimneys where it is pitched, vents and machines where it is flat."""
    tags, frame, area = item.tags, frame_of(item.geometry), item.geometry.area
    urban = studio.fields.value(k.URBAN, frame.x, frame.y)
    chance = {what: unit_hash(what, studio.seed, item.object_id) for what in ("roof", "height", "pitch", "colour")}
    shape = _shape(tags, area, frame, urban, chance["roof"])
    height, rise = _height(tags, area, urban, chance["height"]), number(tags, "roof:height", 0.0, 40.0)
    if rise is None:
        rise = {k.FLAT: 0.0, k.DOME: frame.b}.get(shape, (0.32 + 0.28 * chance["pitch"]) * min(frame.b, 7.0))
    rise = rise if shape == k.DOME else min(rise, 0.8 * height)
    eaves = max(1.5, height - rise)
    colour = parse_colour(tags.get("roof:colour")) or PAINTER.roofs.get(tags.get("roof:material", ""))
    if colour is None:
        mix = PAINTER.palettes["flat" if shape == k.FLAT else "town" if urban > 0.5 and area > 80 else "country"]
        colour = (206, 206, 202) if "man_made" in tags else mix[int(chance["colour"] * len(mix))]
    tone, seams = 0.82 + 0.36 * chance["pitch"], (float(np.arctan2(frame.ux, -frame.uy)), 1.3, 0.025)
    look = Look(colour, colour, Surface.BUILDING, 0.04, 0.04, tone=tone, height_m=eaves, rows=seams)
    rings = [shapely.get_coordinates(ring) for ring in line_parts(item.geometry)]
    walls = np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in rings])
    roof = (float(shape), rise, frame.x, frame.y, frame.ux, frame.uy, frame.a, frame.b)
    studio.shapes[ROOFS].append(Shape(eaves + 0.5 * rise, item.geometry, look, roof, walls))
    if area > 55 and shape != k.DOME and tags.get("building") not in _LIGHT:
        _furnish(studio, item, frame, eaves + 0.75 * rise, flat=shape == k.FLAT)


def _shape(tags: Tags, area: float, frame: Frame, urban: float, chance: float) -> int:
    """Tagged shape, else by kind and size; only rectangular plans have gables, others slope to all their walls."""
    kind, shape = tags.get("building", ""), _SHAPE_OF.get(tags.get("roof:shape", ""))
    if shape is None:
        flat = 0.22 if area < 350 else 0.55 if area < 1200 else 0.85
        flat = flat * (1 - urban) + urban * (0.9 if area < 60 else 0.3 if area < 3500 else 0.6)
        flat = max(flat, 0.75) if kind in _LARGE else flat
        flat = 1.0 if kind in _LIGHT or "man_made" in tags else flat
        shape = k.FLAT if chance < flat else k.GABLED if chance < flat + (1 - flat) * 0.75 else k.HIPPED
    irregular = area < 0.82 * 4 * frame.a * frame.b
    return k.HIPPED if irregular and shape == k.GABLED else shape


def _height(tags: Tags, area: float, urban: float, chance: float) -> float:
    """Height in metres by tag, by levels (3.1 m each and 1.5 m of roof), else by kind and surroundings."""
    height, levels = number(tags, "height", 1.0, 330.0), number(tags, "building:levels", 0.5, 100.0)
    if height is not None or levels is not None:
        return 3.1 * (levels or 0.0) + 1.5 if height is None else height
    low, town = 2.8 if area < 45 else 4.6 if area < 250 else 7.0, 4.0 if area < 80 else 18.0
    by_place = 23.0 if is_yes(tags, "building:part") else low * (1 - urban) + town * urban
    return PAINTER.heights.get(tags.get("building", ""), by_place) * (0.8 + 0.4 * chance)


def _furnish(studio: Studio, item: MapObject, frame: Frame, top_m: float, *, flat: bool) -> None:
    rng, area = rng_of("fittings", studio.seed, item.object_id), item.geometry.area
    wanted = int(rng.poisson(min(40.0, area / (260.0 if flat else 190.0)))) + (0 if flat else 1)
    inner = shapely.buffer(item.geometry, -2.2 if flat else -0.25 * min(6.0, area**0.5))
    if wanted == 0 or inner.is_empty:
        return
    x0, y0, x1, y1 = inner.bounds
    places = rng.uniform((x0, y0), (x1, y1), (4 * wanted, 2))
    for n, (x, y) in enumerate(places[shapely.contains_xy(inner, *places.T)][:wanted]):
        large = flat and n % 7 == 0
        half, shade = rng.uniform(1.4, 3.2) if large else rng.uniform(0.35, 0.8), float(rng.integers(85, 165))
        box = rectangles(x, y, frame.ux, frame.uy, half, half * rng.uniform(0.5, 1.0))
        studio.add(THINGS, box, plain((shade, shade - 6, shade - 9), top_m + (2.2 if large else 0.9)))
