"""What the ground is made of: surface classes, materials with their colours and tags, seasons.

Colours are written as 8-bit sRGB, as one reads them off a photograph, and painted as linear reflectance.
"""

import datetime as dt
import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ImageColor
from pydantic import BeforeValidator

from skyscript_assets.lib.arrays import FloatArray
from skyscript_assets.lib.osm.meaning import Tags, is_yes
from skyscript_assets.lib.settings.base import ByWord, Model, read_yaml
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES

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


ByName = Annotated[Surface | None, BeforeValidator(lambda name: Surface[name.upper()])]
"""A surface, by its name in small letters."""
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
    surface: ByName = None
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


class Prop(Model):
    """How nodes of some tags look: a square of half a side or, from 2.5 m, a disc."""

    half_m: float
    height_m: float
    colour: RGB
    surface: ByName = None
    tags: tuple[str, ...]


class Painter(Model):
    """`settings/painter.yaml`, which tells what each list is."""

    materials: dict[str, Look]
    areas: ByWord
    covers: ByWord
    courts: ByWord
    usual: ByWord
    props: tuple[Prop, ...]
    roofs: dict[str, RGB]
    heights: dict[str, float]
    palettes: dict[str, tuple[RGB, ...]]
    zones: frozenset[str]
    lines: tuple[tuple[str, frozenset[str]], ...]
    built_areas: frozenset[str]
    unseen_roads: frozenset[str]


PAINTER = read_yaml(PACKAGED_PROFILES / "painter.yaml", Painter)
MATERIALS = PAINTER.materials
_STREETS = {"service", "residential", "unclassified", "living_street", "tertiary", "secondary"}


def cover_of(tags: Tags, usual: str) -> str:
    """The material of a road, path or square by its `surface`, else the usual one."""
    return PAINTER.covers.get(tags.get("surface", ""), usual)


def area_material(tags: Tags) -> str | None:
    """The material of an area by its tags, None where they do not tell one."""
    leisure, highway = tags.get("leisure"), tags.get("highway", "")
    if leisure in {"pitch", "track"} or (leisure == "stadium" and "building" not in tags and "sport" in tags):
        court = PAINTER.courts.get(tags.get("surface", "")) or PAINTER.courts.get(
            tags.get("sport", "").split(";")[0], "turf"
        )
        return "tartan" if leisure == "track" else court
    if is_yes(tags, "highway") and highway not in {"platform", "proposed", "construction", "elevator"}:
        return cover_of(tags, "asphalt" if highway in _STREETS else "paving")
    if is_yes(tags, "area:highway"):
        return "paving" if tags["area:highway"] in {"footway", "cycleway", "path"} else "asphalt"
    pairs = (f"{key}={value}" for key, value in sorted(tags.items()))
    found = next((PAINTER.areas[pair] for pair in pairs if pair in PAINTER.areas), None)
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
