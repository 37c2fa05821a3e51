"""What the ground is made of: surface classes, materials with their colours and tags, seasons.

Colours are written as 8-bit sRGB, as one reads them off a photograph, and painted as linear reflectance.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from skyscript_assets.lib.arrays import FloatArray
from skyscript_assets.lib.osm.meaning import Tags, is_yes

Value = TypeVar("Value")
F32 = npt.NDArray[np.float32]
RGB = tuple[float, float, float]


class Surface(IntEnum):
    """Classes of `surfaces.tif`: the topmost surface that is painted at a pixel."""

    BUILDING = 1
    ROAD = 2
    PATH = 3
    RAIL = 4
    WATER = 5
    TREES = 6
    GRASS = 7
    FARMLAND = 8
    SAND = 9
    BARE = 10
    PAVED = 11
    PITCH = 12


SURFACE_NAMES: dict[int, str] = {int(surface): surface.name.lower() for surface in Surface}


@dataclass(frozen=True)
class Look:
    """How a shape is painted.

    Attributes:
        a: sRGB at one end of its mix.
        b: sRGB at the other end.
        surface: Class it gives to the pixels; None leaves what is there.
        grain: Relative deviation of brightness from pixel to pixel, `patch` that from metre to metre.
        green: 1 where it follows the season as plants do, 0 where it does not.
        crowns: Chances that a conifer, a broadleaved tree, a lone tree or bush stands; below 0 where they form groves.
        tone: Factor on the brightness.
        opacity: Share of its colour in the pixels it covers.
        height_m: Height of its top above the ground.
        rows: Direction (radians from x to y), distance (m) and relative strength of its rows.
    """

    a: RGB
    b: RGB
    surface: Surface | None = None
    grain: float = 0.04
    patch: float = 0.05
    green: float = 0.0
    crowns: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tone: float = 1.0
    opacity: float = 1.0
    height_m: float = 0.0
    rows: tuple[float, float, float] = (0.0, 1.0, 0.0)


def plain(colour: RGB, height_m: float = 0.0, surface: Surface | None = None, opacity: float = 1.0) -> Look:
    """The look of a thing of one colour."""
    return Look(colour, colour, surface, 0.0, 0.0, opacity=opacity, height_m=height_m)


_S = Surface
MATERIALS: dict[str, Look] = {
    # ground that nobody mapped
    "yard": Look((128, 126, 123), (152, 147, 140), _S.PAVED, 0.05, 0.055),
    "garden": Look((98, 115, 74), (134, 139, 98), _S.GRASS, 0.09, 0.08, 1.0, (0, 0, 0.42)),
    "rough": Look((98, 110, 70), (138, 136, 98), _S.GRASS, 0.11, 0.11, 1.0, (-1, -1, 0.25)),
    "soil": Look((132, 126, 100), (148, 140, 114), _S.BARE, 0.07, 0.08),
    # plants
    "grass": Look((96, 119, 70), (130, 140, 94), _S.GRASS, 0.07, 0.07, 1.0, (0, 0, 0.05)),
    "park": Look((92, 114, 68), (124, 134, 88), _S.GRASS, 0.07, 0.08, 1.0, (0, 0.1, 0.55)),
    "meadow": Look((110, 122, 76), (148, 146, 104), _S.GRASS, 0.1, 0.11, 1.0, (0, 0, 0.03)),
    "scrub": Look((96, 110, 66), (131, 130, 88), _S.GRASS, 0.12, 0.2, 1.0, (0, 0.3, 0.9)),
    "wood": Look((62, 76, 44), (84, 90, 56), _S.TREES, 0.14, 0.25, 1.0, (0.72, 0.45, 0)),
    "conifers": Look((58, 70, 44), (76, 82, 54), _S.TREES, 0.14, 0.25, 0.5, (0.96, 0.06, 0)),
    "broadleaves": Look((66, 84, 44), (90, 98, 58), _S.TREES, 0.14, 0.25, 1.0, (0.04, 0.97, 0)),
    "farmland": Look((128, 134, 78), (158, 150, 98), _S.FARMLAND, 0.05, 0.04, 0.7, rows=(0, 1.6, 0.06)),
    # bare ground and water
    "sand": Look((205, 189, 153), (222, 208, 176), _S.SAND),
    "rock": Look((150, 144, 137), (128, 122, 114), _S.BARE, 0.1, 0.18, 0.0, (0, 0, 0.08)),
    "gravel": Look((176, 165, 145), (158, 147, 127), _S.BARE, 0.06, 0.07),
    "dirt": Look((154, 137, 112), (138, 123, 100), _S.BARE, 0.07, 0.12),
    "farmyard": Look((150, 139, 120), (132, 128, 100), _S.BARE, 0.09, 0.18, 0.0, (0, 0, 0.15)),
    "water": Look((41, 62, 66), (78, 92, 76), _S.WATER, 0.0, 0.05),
    "pool": Look((92, 180, 196), (104, 190, 203), _S.WATER, 0.03, 0.05),
    # made ground, roads and paths; pitches
    "asphalt": Look((121, 120, 120), (134, 132, 129), _S.PAVED, 0.035, 0.04),
    "paving": Look((154, 150, 143), (142, 138, 132), _S.PAVED, 0.06, 0.06),
    "concrete": Look((164, 160, 153), (150, 147, 143), _S.PAVED),
    "playground": Look((196, 178, 144), (186, 166, 134), _S.PAVED),
    "ballast": Look((122, 111, 102), (134, 123, 113), _S.RAIL, 0.09, 0.06),
    "turf": Look((92, 128, 62), (124, 142, 82), _S.PITCH, 0.06, 0.08, 1.0, rows=(0, 8.0, 0.035)),
    "artificial": Look((72, 122, 72), (76, 126, 77), _S.PITCH, 0.03, 0.03),
    "tartan": Look((165, 92, 75), (156, 88, 73), _S.PITCH, 0.03, 0.03),
    "clay": Look((178, 120, 88), (170, 113, 84), _S.PITCH, 0.04, 0.05),
    "hard_court": Look((84, 112, 132), (86, 115, 130), _S.PITCH, 0.03, 0.03),
    "sand_court": Look((208, 192, 158), (216, 202, 170), _S.PITCH),
}

_AREAS = {
    "asphalt": "amenity=parking amenity=parking_space amenity=fuel amenity=bus_station aeroway=runway aeroway=taxiway",
    "concrete": "railway=platform highway=platform man_made=bridge man_made=pier aeroway=apron",
    "dirt": "natural=mud landuse=construction landuse=landfill landuse=quarry landuse=brownfield landuse=railway",
    "farmland": "landuse=farmland landuse=farm landuse=vineyard landuse=plant_nursery",
    "garden": "landuse=allotments landuse=flowerbed",
    "grass": "landuse=grass landuse=village_green landuse=recreation_ground leisure=golf_course leisure=dog_park",
    "gravel": "natural=scree natural=shingle power=substation",
    "meadow": "natural=grassland natural=wetland landuse=meadow golf=rough",
    "park": "leisure=park leisure=garden landuse=cemetery amenity=grave_yard",
    "paving": "amenity=marketplace amenity=bicycle_parking place=square man_made=wastewater_plant",
    "playground": "leisure=playground leisure=fitness_station",
    "pool": "leisure=swimming_pool amenity=fountain",
    "rock": "natural=bare_rock natural=rock natural=stone man_made=breakwater man_made=groyne",
    "rough": "landuse=greenfield natural=heath natural=moor",
    "sand": "natural=sand natural=beach natural=dune golf=bunker",
    "scrub": "natural=scrub landuse=orchard",
    "turf": "golf=fairway golf=green golf=tee",
    "water": "natural=water natural=bay waterway=riverbank waterway=dock landuse=reservoir landuse=basin water=river",
    "wood": "natural=wood landuse=forest",
    "farmyard": "landuse=farmyard",
}
_COVERS = {
    "asphalt": "asphalt chipseal",
    "concrete": "concrete concrete:plates concrete:lanes",
    "paving": "paved paving_stones stone sett cobblestone unhewn_cobblestone",
    "gravel": "gravel fine_gravel compacted pebblestone unpaved",
    "dirt": "dirt ground earth sand grass wood",
}
_COURTS = {
    "artificial": "artificial_turf multi field_hockey",
    "tartan": "tartan athletics running",
    "clay": "clay tennis",
    "hard_court": "asphalt concrete acrylic basketball handball padel skateboard roller_skating",
    "sand_court": "sand gravel fine_gravel beachvolleyball volleyball equestrian horse_racing",
    "turf": "grass",
}
"""Materials by tags of areas, by `surface`, and by `surface` or `sport` of pitches."""


def by_word(table: Mapping[Value, str]) -> dict[str, Value]:
    """What each word of a table of values and their words stands for."""
    return {word: value for value, words in table.items() for word in words.split()}


_COVER_OF, _COURT_OF, _AREA_OF = by_word(_COVERS), by_word(_COURTS), by_word(_AREAS)
_STREETS = {"service", "residential", "unclassified", "living_street", "tertiary", "secondary"}


def cover_of(tags: Tags, usual: str) -> str:
    """The material of a road, path or square by its `surface`, else the usual one."""
    return _COVER_OF.get(tags.get("surface", ""), usual)


def area_material(tags: Tags) -> str | None:
    """The material of an area by its tags, None where they do not tell one."""
    leisure, highway = tags.get("leisure"), tags.get("highway", "")
    if leisure in {"pitch", "track"} or (leisure == "stadium" and "building" not in tags and "sport" in tags):
        court = _COURT_OF.get(tags.get("surface", "")) or _COURT_OF.get(tags.get("sport", "").split(";")[0], "turf")
        return "tartan" if leisure == "track" else court
    if is_yes(tags, "highway") and highway not in {"platform", "proposed", "construction", "elevator"}:
        return cover_of(tags, "asphalt" if highway in _STREETS else "paving")
    if is_yes(tags, "area:highway"):
        return "paving" if tags["area:highway"] in {"footway", "cycleway", "path"} else "asphalt"
    pairs = (f"{key}={value}" for key, value in sorted(tags.items()))
    found = next((_AREA_OF[pair] for pair in pairs if pair in _AREA_OF), None)
    if found == "wood":
        return {"needleleaved": "conifers", "broadleaved": "broadleaves"}.get(tags.get("leaf_type", ""), found)
    return cover_of(tags, found) if found in {"asphalt", "paving"} else found


def srgb_to_linear(colour: npt.ArrayLike) -> F32:
    """Linear reflectance in 0..1 of 8-bit sRGB values (IEC 61966-2-1)."""
    v = np.asarray(colour, dtype=np.float64) / 255.0
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def parse_colour(text: str | None) -> RGB | None:
    """A colour as OSM writes it (`#b4c9b3`, `dark_red`), dulled as paint weathers, or None where it is none."""
    if not text or len(text) > 32:
        return None
    try:
        rgb = ImageColor.getrgb(text.strip().lower().replace("_", "").replace(" ", ""))[:3]
    except ValueError:
        return None
    grey = sum(rgb) / 3
    red, green, blue = (38 + 0.72 * (grey + 0.7 * (value - grey)) for value in rgb)
    return red, green, blue


_STRAW, _AUTUMN = np.array((150.0, 138.0, 104.0)), np.array((158.0, 132.0, 66.0))


class Season(NamedTuple):
    """What a date does to plants: `green` (1: full growth), `autumn` (1: height of its colours), `leaf` (0: bare)."""

    green: float
    autumn: float
    leaf: float

    def tint(self, summer: npt.ArrayLike, follows: npt.ArrayLike) -> FloatArray:
        """Summer colours (..., 3) of plants on this date; `follows` (..., 1) says how far each takes part (0 to 1)."""
        colours, share = np.asarray(summer, np.float64), np.asarray(follows)
        dry = colours + (_STRAW - colours) * (1 - self.green) * 0.75 * share
        return np.asarray(dry + (_AUTUMN - dry) * self.autumn * 0.25 * share)


def season_of(date: dt.date, latitude_deg: float) -> Season:
    """The season of a temperate calendar, half a year later in the south, and endless summer between the tropics."""
    if abs(latitude_deg) < 23.44:
        return Season(1.0, 0.0, 1.0)
    day = (date.timetuple().tm_yday + (0 if latitude_deg > 0 else 183)) % 365
    green = 0.5 - 0.5 * math.cos(2 * math.pi * (day - 15) / 365)
    autumn = math.exp(-(((day - 280) / 18) ** 2))
    leaf = 1.0 if 130 <= day <= 285 else max(0.15, 1 - min(abs(day - 130), abs(day - 285)) / 15)
    return Season(min(1.0, 1.25 * green), autumn, leaf)


_NEEDLES, _LEAVES = ((49, 62, 39), (68, 82, 50)), ((66, 90, 44), (110, 126, 66))
_BARE = np.array((128.0, 117.0, 102.0))


def crown_colours(season: Season) -> F32:
    """Linear colours (leaves or needles, end of the mix, 3) of crowns in a season."""
    turned = Season(1.0, season.autumn, 1.0).tint(_LEAVES, [[0.6], [2.6]])
    return srgb_to_linear([_BARE + (turned - _BARE) * season.leaf, _NEEDLES])
