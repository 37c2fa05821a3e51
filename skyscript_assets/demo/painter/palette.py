"""What the ground is made of: surface classes, materials and their colours, seasons.

Colours are written as 8-bit sRGB, as one reads them off a photograph, and painted as linear reflectance.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

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
class Material:
    """How a kind of ground looks.

    Attributes:
        name: Its name inside the painter.
        surface: Its class.
        a: sRGB at one end of its mix.
        b: sRGB at the other end.
        grain: Relative deviation of brightness from pixel to pixel.
        patch: The same from metre to metre.
        mix: How strongly broad noise (tens of metres) moves it between a and b.
        green: 1 where it follows the season as plants do, 0 where it does not.
        conifers: Chance that a crown of the dense conifer field stands.
        broadleaves: Chance that a crown of the dense broadleaf field stands.
        lone: Chance that a crown of the field of single trees and bushes stands.
    """

    name: str
    surface: Surface
    a: RGB
    b: RGB
    grain: float = 0.04
    patch: float = 0.05
    mix: float = 0.3
    green: float = 0.0
    conifers: float = 0.0
    broadleaves: float = 0.0
    lone: float = 0.0


_S = Surface
MATERIALS: tuple[Material, ...] = (
    # ground that nobody mapped: chosen by how built-up the surroundings are
    Material("yard", _S.PAVED, (128, 126, 123), (152, 147, 140), 0.05, 0.055, 0.6),
    Material("garden", _S.GRASS, (98, 115, 74), (134, 139, 98), 0.09, 0.08, 0.40, 1.0, lone=0.42),
    Material("rough", _S.GRASS, (98, 110, 70), (138, 136, 98), 0.11, 0.11, 0.50, 1.0, lone=0.25),
    Material("soil", _S.BARE, (132, 126, 100), (148, 140, 114), 0.07, 0.08, 0.5),
    # plants
    Material("grass", _S.GRASS, (96, 119, 70), (130, 140, 94), 0.07, 0.07, 0.45, 1.0, lone=0.05),
    Material("park", _S.GRASS, (92, 114, 68), (124, 134, 88), 0.07, 0.08, 0.45, 1.0, broadleaves=0.10, lone=0.55),
    Material("meadow", _S.GRASS, (110, 122, 76), (148, 146, 104), 0.10, 0.11, 0.6, 1.0, lone=0.03),
    Material("scrub", _S.GRASS, (96, 110, 66), (131, 130, 88), 0.12, 0.20, 0.7, 1.0, broadleaves=0.30, lone=0.9),
    Material("heath", _S.GRASS, (110, 106, 78), (134, 116, 92), 0.12, 0.20, 0.8, 0.6, lone=0.2),
    Material("wood", _S.TREES, (62, 76, 44), (84, 90, 56), 0.14, 0.25, 0.6, 1.0, 0.72, 0.45),
    Material("conifers", _S.TREES, (58, 70, 44), (76, 82, 54), 0.14, 0.25, 0.6, 0.5, 0.96, 0.06),
    Material("broadleaves", _S.TREES, (66, 84, 44), (90, 98, 58), 0.14, 0.25, 0.6, 1.0, 0.04, 0.97),
    Material("orchard", _S.GRASS, (106, 126, 70), (142, 142, 90), 0.09, 0.12, 0.6, 1.0),
    Material("allotments", _S.GRASS, (104, 116, 70), (146, 128, 96), 0.14, 0.24, 0.9, 1.0, lone=0.5),
    Material("cemetery", _S.GRASS, (100, 120, 70), (132, 136, 90), 0.09, 0.12, 0.5, 1.0, lone=0.6),
    Material("wetland", _S.GRASS, (98, 102, 66), (142, 128, 88), 0.12, 0.26, 0.9, 0.8, lone=0.08),
    Material("farmland", _S.FARMLAND, (128, 134, 78), (158, 150, 98), 0.05, 0.04, 0.6, 0.7),
    Material("flowerbed", _S.GRASS, (110, 104, 74), (140, 108, 96), 0.22, 0.2, 0.5, 1.0),
    # bare ground
    Material("sand", _S.SAND, (205, 189, 153), (222, 208, 176), 0.04, 0.05, 0.4),
    Material("rock", _S.BARE, (150, 144, 137), (128, 122, 114), 0.10, 0.18, 0.7, lone=0.08),
    Material("trackside", _S.BARE, (134, 124, 110), (120, 116, 96), 0.08, 0.10, 0.7),
    Material("gravel", _S.BARE, (168, 160, 147), (150, 141, 127), 0.06, 0.07, 0.5),
    Material("dirt", _S.BARE, (150, 131, 106), (133, 117, 95), 0.07, 0.12, 0.6),
    Material("farmyard", _S.BARE, (150, 139, 120), (132, 128, 100), 0.09, 0.18, 0.8, lone=0.15),
    Material("construction", _S.BARE, (170, 149, 119), (142, 128, 110), 0.08, 0.22, 0.9),
    Material("quarry", _S.BARE, (182, 172, 157), (152, 142, 129), 0.09, 0.22, 0.9),
    Material("works", _S.PAVED, (143, 139, 133), (162, 154, 141), 0.06, 0.09, 0.8, lone=0.02),
    # water
    Material("water", _S.WATER, (41, 62, 66), (52, 74, 70), 0.0, 0.0, 0.4),
    Material("pool", _S.WATER, (92, 180, 196), (104, 190, 203), 0.03, 0.05, 0.2),
    # made ground
    Material("asphalt", _S.ROAD, (121, 120, 120), (133, 131, 128), 0.035, 0.035, 0.5),
    Material("concrete", _S.ROAD, (172, 168, 160), (160, 157, 151), 0.035, 0.05, 0.5),
    Material("sett", _S.ROAD, (140, 135, 130), (152, 144, 135), 0.09, 0.06, 0.5),
    Material("dirt_road", _S.ROAD, (166, 151, 127), (150, 138, 116), 0.06, 0.10, 0.6),
    Material("paving", _S.PATH, (160, 155, 149), (148, 143, 137), 0.05, 0.05, 0.5),
    Material("asphalt_path", _S.PATH, (134, 132, 130), (144, 141, 137), 0.035, 0.04, 0.5),
    Material("gravel_path", _S.PATH, (180, 168, 147), (165, 154, 133), 0.05, 0.06, 0.5),
    Material("dirt_path", _S.PATH, (152, 137, 111), (136, 126, 97), 0.08, 0.14, 0.6),
    Material("steps", _S.PATH, (168, 163, 156), (152, 148, 142), 0.05, 0.05, 0.4),
    Material("square", _S.PAVED, (158, 153, 146), (146, 141, 135), 0.06, 0.06, 0.5),
    Material("parking", _S.PAVED, (122, 121, 121), (136, 134, 131), 0.035, 0.05, 0.5),
    Material("platform", _S.PAVED, (156, 153, 149), (144, 141, 138), 0.04, 0.05, 0.4),
    Material("deck", _S.PAVED, (152, 136, 117), (141, 129, 115), 0.07, 0.06, 0.4),
    Material("ballast", _S.RAIL, (122, 111, 102), (134, 123, 113), 0.09, 0.06, 0.6),
    # sport
    Material("turf", _S.PITCH, (92, 128, 62), (124, 142, 82), 0.06, 0.08, 0.4, 1.0),
    Material("artificial", _S.PITCH, (72, 122, 72), (76, 126, 77), 0.03, 0.03, 0.3),
    Material("tartan", _S.PITCH, (165, 92, 75), (156, 88, 73), 0.03, 0.03, 0.3),
    Material("clay", _S.PITCH, (178, 120, 88), (170, 113, 84), 0.04, 0.05, 0.3),
    Material("hard_court", _S.PITCH, (84, 112, 132), (86, 115, 130), 0.03, 0.03, 0.3),
    Material("sand_court", _S.PITCH, (208, 192, 158), (216, 202, 170), 0.04, 0.05, 0.3),
    Material("gravel_court", _S.PITCH, (176, 163, 142), (166, 152, 132), 0.05, 0.06, 0.4),
    Material("playground", _S.PAVED, (196, 178, 144), (186, 166, 134), 0.05, 0.06, 0.3, lone=0.05),
)
MATERIAL_INDEX: dict[str, int] = {material.name: index for index, material in enumerate(MATERIALS)}

_STRAW: RGB = (150, 138, 104)
_AUTUMN: RGB = (158, 132, 66)


def srgb_to_linear(colour: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Linear reflectance in 0..1 of 8-bit sRGB values (IEC 61966-2-1)."""
    v = np.asarray(colour, dtype=np.float64) / 255.0
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def parse_colour(text: str | None) -> RGB | None:
    """A colour as OSM writes it (`#b4c9b3`, `red`, `dark_red`), or None where it is none; dulled as paint weathers.

    Pure display colours do not exist outdoors: a weathered surface keeps the hue, loses saturation and the extremes.
    """
    if not text or len(text) > 32:
        return None
    try:
        rgb = ImageColor.getrgb(text.strip().lower().replace("_", "").replace(" ", ""))[:3]
    except ValueError:
        return None
    grey = sum(rgb) / 3
    return tuple(38 + 0.72 * (grey + 0.7 * (value - grey)) for value in rgb)  # type: ignore[return-value]


@dataclass(frozen=True)
class Season:
    """What a date does to plants.

    Attributes:
        green: 1 in full growth, 0 in winter.
        autumn: 1 at the height of autumn colours.
        leaf: 1 where broadleaved trees carry their leaves, 0 where they are bare.
    """

    green: float
    autumn: float
    leaf: float

    def tint(self, colour: RGB, follows: float) -> RGB:
        """A plant's summer colour on this date; `follows` says how far it takes part (0 to 1)."""
        dry, turn = (1 - self.green) * 0.75 * follows, self.autumn * 0.25 * follows
        first = [c + (s - c) * dry for c, s in zip(colour, _STRAW, strict=True)]
        red, green, blue = (c + (s - c) * turn for c, s in zip(first, _AUTUMN, strict=True))
        return red, green, blue


def season_of(date: dt.date, latitude_deg: float) -> Season:
    """The season of a temperate calendar, half a year later in the south, and endless summer between the tropics."""
    if abs(latitude_deg) < 23.44:
        return Season(1.0, 0.0, 1.0)
    day = (date.timetuple().tm_yday + (0 if latitude_deg > 0 else 183)) % 365
    green = 0.5 - 0.5 * math.cos(2 * math.pi * (day - 15) / 365)
    autumn = math.exp(-(((day - 280) / 18) ** 2))
    leaf = 1.0 if 130 <= day <= 285 else max(0.15, 1 - min(abs(day - 130), abs(day - 285)) / 15)
    return Season(min(1.0, 1.25 * green), autumn, leaf)
