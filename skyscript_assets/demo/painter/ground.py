"""Areas of ground: which material an area is made of, and the coarse maps that say what lies between mapped areas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from scipy import ndimage

from skyscript_assets.demo.painter.grid import Block, Grid
from skyscript_assets.demo.painter.layers import LayerBuilder, Style, burn
from skyscript_assets.demo.painter.noise import F32, CoarseField, lattice, rng_of, spectral_tile
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.palette import MATERIAL_INDEX, MATERIALS, RGB, Surface
from skyscript_assets.demo.painter.shapes import frames_of
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import Tags, is_yes, layer_of

PAVED_SURFACES: dict[str, str] = {
    "asphalt": "parking",
    "paved": "square",
    "chipseal": "parking",
    "concrete": "platform",
    "concrete:plates": "platform",
    "paving_stones": "square",
    "sett": "square",
    "cobblestone": "square",
    "gravel": "gravel",
    "fine_gravel": "gravel",
    "compacted": "gravel",
    "pebblestone": "gravel",
    "unpaved": "gravel",
    "dirt": "dirt",
    "ground": "dirt",
    "earth": "dirt",
    "sand": "sand",
    "grass": "grass",
    "wood": "deck",
}
"""Material of a paved area by its `surface`."""

_NATURAL = {
    ("natural", "wood"): "wood",
    ("landuse", "forest"): "wood",
    ("natural", "scrub"): "scrub",
    ("natural", "shrubbery"): "scrub",
    ("natural", "heath"): "heath",
    ("natural", "moor"): "heath",
    ("natural", "fell"): "heath",
    ("natural", "tundra"): "heath",
    ("natural", "grassland"): "meadow",
    ("natural", "wetland"): "wetland",
    ("natural", "mud"): "dirt",
    ("natural", "sand"): "sand",
    ("natural", "beach"): "sand",
    ("natural", "dune"): "sand",
    ("natural", "bare_rock"): "rock",
    ("natural", "rock"): "rock",
    ("natural", "stone"): "rock",
    ("natural", "scree"): "gravel",
    ("natural", "shingle"): "gravel",
    ("natural", "water"): "water",
    ("natural", "bay"): "water",
    ("waterway", "riverbank"): "water",
    ("waterway", "dock"): "water",
    ("water", "river"): "water",
    ("landuse", "reservoir"): "water",
    ("landuse", "basin"): "water",
    ("landuse", "pond"): "water",
    ("landuse", "salt_pond"): "water",
    ("landuse", "grass"): "grass",
    ("landuse", "village_green"): "grass",
    ("landuse", "recreation_ground"): "grass",
    ("landuse", "greenfield"): "rough",
    ("landuse", "brownfield"): "soil",
    ("landuse", "meadow"): "meadow",
    ("landuse", "farmland"): "farmland",
    ("landuse", "farm"): "farmland",
    ("landuse", "vineyard"): "farmland",
    ("landuse", "plant_nursery"): "farmland",
    ("landuse", "orchard"): "orchard",
    ("landuse", "allotments"): "allotments",
    ("landuse", "flowerbed"): "flowerbed",
    ("landuse", "farmyard"): "farmyard",
    ("landuse", "cemetery"): "cemetery",
    ("amenity", "grave_yard"): "cemetery",
    ("landuse", "construction"): "construction",
    ("landuse", "landfill"): "construction",
    ("landuse", "quarry"): "quarry",
    ("landuse", "railway"): "soil",
    ("leisure", "park"): "park",
    ("leisure", "garden"): "park",
    ("leisure", "nature_reserve"): "",
    ("leisure", "golf_course"): "grass",
    ("golf", "fairway"): "turf",
    ("golf", "green"): "turf",
    ("golf", "tee"): "turf",
    ("golf", "bunker"): "sand",
    ("golf", "rough"): "meadow",
    ("golf", "water_hazard"): "water",
    ("leisure", "common"): "grass",
    ("leisure", "dog_park"): "grass",
    ("leisure", "swimming_area"): "water",
}
_MADE = {
    ("leisure", "swimming_pool"): "pool",
    ("amenity", "fountain"): "pool",
    ("leisure", "playground"): "playground",
    ("leisure", "fitness_station"): "playground",
    ("leisure", "slipway"): "platform",
    ("leisure", "bandstand"): "platform",
    ("amenity", "parking"): "parking",
    ("amenity", "parking_space"): "parking",
    ("amenity", "bicycle_parking"): "square",
    ("amenity", "motorcycle_parking"): "parking",
    ("amenity", "fuel"): "parking",
    ("amenity", "bus_station"): "parking",
    ("amenity", "taxi"): "parking",
    ("amenity", "marketplace"): "square",
    ("place", "square"): "square",
    ("railway", "platform"): "platform",
    ("highway", "platform"): "platform",
    ("public_transport", "platform"): "platform",
    ("man_made", "pier"): "deck",
    ("man_made", "breakwater"): "rock",
    ("man_made", "groyne"): "rock",
    ("man_made", "bridge"): "platform",
    ("man_made", "wastewater_plant"): "works",
    ("power", "substation"): "gravel",
    ("aeroway", "apron"): "platform",
    ("aeroway", "runway"): "parking",
    ("aeroway", "taxiway"): "parking",
    ("aeroway", "helipad"): "platform",
}
_PITCHES = {
    "tennis": "clay",
    "soccer": "turf",
    "football": "turf",
    "american_football": "turf",
    "rugby": "turf",
    "cricket": "turf",
    "baseball": "turf",
    "athletics": "tartan",
    "running": "tartan",
    "basketball": "hard_court",
    "handball": "hard_court",
    "multi": "artificial",
    "padel": "hard_court",
    "skateboard": "hard_court",
    "roller_skating": "hard_court",
    "field_hockey": "artificial",
    "hockey": "gravel_court",
    "ice_hockey": "gravel_court",
    "beachvolleyball": "sand_court",
    "volleyball": "sand_court",
    "equestrian": "sand_court",
    "horse_racing": "sand_court",
    "boules": "gravel_court",
}
_PITCH_SURFACES = {
    "grass": "turf",
    "artificial_turf": "artificial",
    "tartan": "tartan",
    "clay": "clay",
    "sand": "sand_court",
    "gravel": "gravel_court",
    "fine_gravel": "gravel_court",
    "asphalt": "hard_court",
    "concrete": "hard_court",
    "acrylic": "hard_court",
}
_KEYS = (
    "golf",
    "leisure",
    "amenity",
    "natural",
    "landuse",
    "waterway",
    "water",
    "railway",
    "highway",
    "public_transport",
    "man_made",
    "power",
    "aeroway",
    "place",
)
_MADE_FIRST_ORDER = {"place": -3.0, "highway": 2.0, "railway": 3.0, "public_transport": 3.0, "man_made": -2.0}


def pitch_material(tags: Tags) -> str:
    """Material of a sports pitch: by its surface, else by its sport, else turf."""
    surface = _PITCH_SURFACES.get(tags.get("surface", ""))
    return surface or _PITCHES.get(tags.get("sport", "").split(";")[0], "turf")


def area_material(tags: Tags) -> tuple[str, bool, float] | None:
    """(material, whether people made it, so that its edges are crisp, painting order), or None."""
    if tags.get("leisure") in {"pitch", "track"} or (
        tags.get("leisure") == "stadium" and "building" not in tags and "sport" in tags
    ):
        return ("tartan" if tags.get("leisure") == "track" else pitch_material(tags)), True, 1.0
    if is_yes(tags, "highway") and tags.get("highway") not in {"platform", "proposed", "construction", "elevator"}:
        return _highway_area(tags)
    if is_yes(tags, "area:highway"):
        return ("asphalt" if tags["area:highway"] not in {"footway", "cycleway", "path"} else "paving"), True, 2.0
    for key in _KEYS:
        made = _MADE.get((key, tags.get(key, "")))
        if made is not None:
            surface = PAVED_SURFACES.get(tags.get("surface", "")) if made in {"parking", "square"} else None
            return surface or made, True, _MADE_FIRST_ORDER.get(key, 0.0)
        natural = _NATURAL.get((key, tags.get(key, "")))
        if natural:
            return _leaves(natural, tags), False, 1.0 if natural == "water" else 0.0
    return None


def _highway_area(tags: Tags) -> tuple[str, bool, float]:
    """Squares, footways and service areas mapped as ground plans."""
    motor = tags["highway"] in {"service", "residential", "unclassified", "living_street", "tertiary", "secondary"}
    surface = PAVED_SURFACES.get(tags.get("surface", ""))
    return surface or ("parking" if motor else "square"), True, 2.0


def _leaves(material: str, tags: Tags) -> str:
    """A wood by its kind of leaves."""
    if material != "wood":
        return material
    return {"needleleaved": "conifers", "broadleaved": "broadleaves"}.get(tags.get("leaf_type", ""), "wood")


_CROPS: tuple[RGB, ...] = (
    (140, 146, 92),
    (176, 164, 116),
    (104, 124, 72),
    (122, 134, 82),
    (150, 134, 112),
    (168, 160, 106),
    (118, 126, 84),
)
"""Colours of fields: unripe and ripe grain, green crops, bare soil, stubble."""


def add_area(item: MapObject, ground: LayerBuilder, built: LayerBuilder, seed: int) -> str | None:
    """Add an area to the layer it belongs to and return the name of its material."""
    found = area_material(item.tags)
    if found is None:
        return None
    name, made, order = found
    surface = int(MATERIALS[MATERIAL_INDEX[name]].surface)
    level = max(0, layer_of(item.tags))
    tone = 0.92 + 0.16 * unit_hash("area tone", seed, item.object_id)
    angle, period, stripes, colour = 0.0, 0.0, 0.0, None
    if name in {"farmland", "turf", "orchard"}:
        frame = frames_of(np.array([item.geometry], dtype=object))
        angle = math.atan2(frame.uy[0], frame.ux[0])
        period, stripes = {"farmland": (1.6, 0.06), "turf": (8.0, 0.035), "orchard": (5.0, 0.05)}[name]
    if name == "farmland":
        colour = _CROPS[int(unit_hash("crop", seed, item.object_id) * len(_CROPS))]
    style = Style(
        MATERIAL_INDEX[name], tone, level, 5.5 * level if made else 0.0, colour, 1.0, surface, angle, period, stripes
    )
    size = math.log1p(shapely.area(item.geometry)) / 100.0
    (built if made else ground).add(item.geometry, 100.0 * level + order - size, style)
    return name


@dataclass(frozen=True)
class Surroundings:
    """Coarse maps of the canvas, each a field in 0..1.

    Attributes:
        urban: How densely it is built.
        settled: Whether people live or work nearby: gardens and yards instead of wild growth.
        works: Whether it is industrial or commercial ground.
        shore: In and beside water: near 1 at the shore, near 0 far out.
        vigour: Broad noise, mean 0: lush or dry.
        growth: Broad noise, mean 0: where trees gather.
    """

    urban: CoarseField
    settled: CoarseField
    works: CoarseField
    shore: CoarseField
    vigour: CoarseField
    growth: CoarseField


_COARSE_M = 3.0
_COARSE_MARGIN_M = 150.0


def make_surroundings(
    grid: Grid, buildings: list[shapely.Geometry], zones: list[MapObject], water: list[shapely.Geometry], seed: int
) -> Surroundings:
    """The coarse maps of a canvas, 3 m a node."""
    rows, cols, start = lattice(grid.size_m, _COARSE_M, _COARSE_MARGIN_M)
    window = Block(
        int(start / _COARSE_M), int(start / _COARSE_M), rows, cols, (slice(0, rows), slice(0, cols)), _COARSE_M
    )

    def mask(geometries: list[shapely.Geometry]) -> F32:
        return (burn(np.array(geometries, dtype=object), window) > 0).astype(np.float32)

    def field(values: F32) -> CoarseField:
        return CoarseField(values.astype(np.float32), start + _COARSE_M / 2, start + _COARSE_M / 2, _COARSE_M)

    def blur(values: F32, metres: float) -> F32:
        blurred: F32 = ndimage.gaussian_filter(values, metres / _COARSE_M, truncate=3)
        return blurred

    cover = mask(buildings)
    homes = [zone.geometry for zone in zones]
    works = [z.geometry for z in zones if z.tags.get("landuse") in {"industrial", "retail", "port", "depot"}]
    wet = mask(water)
    settled = np.clip(blur(cover, 25.0) * 14.0, 0, 1)
    size = 1 << max(7, math.ceil(math.log2(max(rows, cols))))
    return Surroundings(
        urban=field(np.clip((blur(cover, 30.0) - 0.17) / 0.12, 0, 1)),
        settled=field(np.maximum(settled, blur(mask(homes), 6.0))),
        works=field(blur(mask(works), 5.0)),
        shore=field(np.clip(1.6 * (1 - blur(wet, 9.0)), 0, 1)),
        vigour=field(spectral_tile(rng_of(seed, "vigour"), size, 4.0, 40.0)[:rows, :cols]),
        growth=field(spectral_tile(rng_of(seed, "growth"), size, 5.0, 30.0)[:rows, :cols]),
    )


def water_areas(areas: list[tuple[str, shapely.Geometry]]) -> list[shapely.Geometry]:
    """Those of (material, geometry) that are water."""
    return [geometry for name, geometry in areas if MATERIALS[MATERIAL_INDEX[name]].surface == Surface.WATER]
