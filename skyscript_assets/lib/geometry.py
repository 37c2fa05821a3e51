"""Geometry that several stages share: ground sample distance, metric CRSs, tiles of the Web Mercator grid, the split.

Coordinates are (x, y) = (longitude, latitude) in EPSG:4326 unless a name says otherwise.
"""

import hashlib
import itertools
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from pyproj import CRS, Geod, Transformer

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Bounds = tuple[float, float, float, float]
"""(west, south, east, north). Where a box lies across the antimeridian, its east goes on beyond 180 degrees."""
Places = FloatArray | float

TURNS = (0.0, 360.0, -360.0)
"""What may be added to the longitudes of one box for them to meet those of another one, degrees."""

WEB_MERCATOR_LATITUDE_LIMIT = 85.0511287798066
"""Latitude in degrees at which EPSG:3857 becomes square."""

WGS84_RADIUS_M = 6_378_137.0
"""Semi-major axis of WGS 84, metres."""

_CRS_NAME = re.compile(r"(?:(?:[^,]*[:/])?(EPSG|ESRI|OGC|CRS|OSGEO)(?:\.XML)?(?:[:/][\d.:]*[:/]|[:#]))?#?(\w+)")
_WEB_MERCATOR_CODES = frozenset({"900913", "3785", "3587", "41001", "102100", "102113"})
"""Codes of several authorities for what is EPSG:3857 now."""

_REACH_PX = 16
"""Pixels over which sides are measured: too many for a projection's noise, too few for its bend."""

TRUE_TO_SCALE = 0.002
"""Relative difference of metres on the ground from a grid's up to which they count as the same: UTM has 0.001."""

STATED_GSD_FACTOR = 2.0
"""Factor by which a ground sample distance may differ from the source's `gsd_m` before that is a mistake."""

SPLIT_PERIOD = 5
"""Cells in a row or column after which the split's pattern begins again: so many hold a test cell and a train cell."""


def across_180(west: float, south: float, east: float, north: float) -> Bounds:
    """A box as it is written elsewhere: with west > east across the antimeridian (RFC 7946, 5.2)."""
    return west, south, round(east + 360.0, 9) if east < west else east, north


def holds_ground(box: Bounds) -> bool:
    """Whether a box is one on the globe; across the antimeridian it has its sides mistaken if wider than half of it."""
    west, south, east, north = box
    return -180 <= west < east <= max(180.0, west + 180.0) and west <= 180 and -90 <= south < north <= 90


def within_180(longitude_deg: FloatArray) -> FloatArray:
    """Longitudes of a region across the antimeridian brought back to -180..180."""
    beyond = np.abs(longitude_deg) > 180.0
    return np.where(beyond, (longitude_deg + 180.0) % 360.0 - 180.0, longitude_deg) if beyond.any() else longitude_deg


def hash_bits(*parts: object) -> int:
    """64 bits that depend on the parts alone: the same on every machine, in any order of calls."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest(), "big")


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return (hash_bits(*parts) >> 11) / float(1 << 53)


def metres_per_degree(latitude_deg: float) -> tuple[float, float]:
    """Length of a degree of longitude and of latitude in metres, on the sphere of WGS 84's radius."""
    metres = math.pi / 180.0 * WGS84_RADIUS_M
    return metres * math.cos(math.radians(latitude_deg)), metres


def crs_label(name: str) -> str:
    """`EPSG:3067` for `urn:ogc:def:crs:EPSG::3067` and the like, EPSG:3857 for its old codes, else the name itself."""
    match = _CRS_NAME.fullmatch(str(name).strip().upper())
    if match and match[2] in _WEB_MERCATOR_CODES:
        return "EPSG:3857"
    if match and (match[1] or match[2].isdigit()):
        return "OGC:CRS84" if match[2] in ("84", "CRS84") else f"{match[1] or 'EPSG'}:{match[2]}"
    return name


@lru_cache(maxsize=64)
def parse_crs(name: str) -> CRS:
    """The horizontal CRS that a name or WKT means, without heights; CRSError where PROJ knows none."""
    crs = CRS.from_user_input(crs_label(name))
    crs = crs.sub_crs_list[0] if crs.is_compound else crs
    return crs.to_2d() if len(crs.axis_info) > 2 else crs


@lru_cache(maxsize=64)
def from_lonlat(crs: CRS | str) -> Transformer:
    """From longitude and latitude to a CRS (itself or its name); thousands of scenes have a handful of them."""
    return Transformer.from_crs(4326, parse_crs(crs) if isinstance(crs, str) else crs, always_xy=True)


def pixel_on_ground(crs: CRS | str, transform: Sequence[float], x: Places, y: Places) -> FloatArray:
    """Width and height of a pixel in metres and the angle between its sides in radians, measured along geodesics.

    Of a raster's CRS and affine (a, b, c, d, e, f), and of places in the CRS, x and y of any shape. The answer is of
    shape [3, ...], on WGS 84 (Karney, Algorithms for geodesics, 2013); not finite where the CRS places nothing.
    """
    a, b, _, d, e, _ = (half * _REACH_PX / 2 for half in transform)
    ends_x, ends_y = np.stack([x - a, x - b, x + a, x + b]), np.stack([y - d, y - e, y + d, y + e])
    lon, lat = from_lonlat(crs).transform(ends_x, ends_y, direction="INVERSE")
    azimuths, _, lengths = Geod(ellps="WGS84").inv(lon[:2], lat[:2], lon[2:], lat[2:])
    return np.stack([*(lengths / _REACH_PX), np.radians((azimuths[1] - azimuths[0]) % 360.0)])


def ground_gsd_m(crs: CRS | str, transform: Sequence[float], x: Places, y: Places) -> FloatArray:
    """Ground sample distance in metres: the longer side of a pixel at each place, as `pixel_on_ground` has it."""
    return np.asarray(pixel_on_ground(crs, transform, x, y)[:2].max(axis=0))


def metres_per_unit(crs: CRS) -> float:
    """Metres in a unit of a projected CRS."""
    return float(crs.axis_info[0].unit_conversion_factor or 1.0)


def is_stated_gsd(gsd_m: float, stated_m: float) -> bool:
    """Whether a ground sample distance may be the one that a source states: within `STATED_GSD_FACTOR`.

    Pixels of 0.3 m are a little less on the ground where UTM zones meet, and still half of a stated 0.6 m.
    """
    factor = STATED_GSD_FACTOR * (1.0 + TRUE_TO_SCALE)
    return stated_m / factor <= gsd_m <= stated_m * factor


def utm_crs(longitude_deg: float, latitude_deg: float) -> CRS:
    """The WGS 84 UTM zone of a place (EPSG:326xx north, EPSG:327xx south), without the Norwegian exceptions."""
    zone = min(60, max(1, int((longitude_deg + 180.0) // 6.0) + 1))
    return CRS.from_epsg((32600 if latitude_deg >= 0 else 32700) + zone)


def cells_of(longitude_deg: Places, latitude_deg: Places, zoom: int) -> tuple[IntArray, IntArray]:
    """Columns and rows (x, y) of the Web Mercator tiles that hold places (slippy-map numbering, y grows southward)."""
    n = 1 << zoom
    lat = np.radians(np.clip(latitude_deg, -WEB_MERCATOR_LATITUDE_LIMIT, WEB_MERCATOR_LATITUDE_LIMIT))
    x = np.floor((within_180(np.asarray(longitude_deg)) + 180.0) / 360.0 * n)
    y = np.floor((1.0 - np.arcsinh(np.tan(lat)) / np.pi) / 2.0 * n)
    return np.clip(x, 0, n - 1).astype(np.int64), np.clip(y, 0, n - 1).astype(np.int64)


def cell_of(longitude_deg: float, latitude_deg: float, zoom: int) -> tuple[int, int]:
    """(x, y) of the tile that holds one place: see `cells_of`."""
    x, y = cells_of(longitude_deg, latitude_deg, zoom)
    return int(x), int(y)


def cell_bounds(x: int, y: int, zoom: int) -> Bounds:
    """(west, south, east, north) in degrees of a Web Mercator tile."""
    n = 1 << zoom

    def latitude(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1.0 - 2.0 * row / n))))

    return (x / n * 360.0 - 180.0, latitude(y + 1), (x + 1) / n * 360.0 - 180.0, latitude(y))


def cells_of_bounds(bounds: Bounds, zoom: int) -> list[tuple[int, int]]:
    """Every tile that a box in degrees touches, row by row."""
    west, south, east, north = bounds
    x0, y0 = cell_of(west, north, zoom)
    x1, y1 = cell_of(east, south, zoom)
    return [(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]


def splits_of(x: IntArray, y: IntArray) -> IntArray:
    """Index in `SPLITS` of the split of each tile, [n].

    (x + 2y) mod 5 = 0 is test, half of the tiles with remainder 3 validation, all others are train.
    """
    remainder = (x + 2 * y) % SPLIT_PERIOD
    found = np.where(remainder == 0, SPLITS.index("test"), SPLITS.index("train"))
    hashed = np.flatnonzero(remainder == 3)
    validation = [_for_validation(*cell) for cell in zip(x[hashed].tolist(), y[hashed].tolist(), strict=True)]
    found[hashed[np.array(validation, dtype=np.bool_)]] = SPLITS.index("val")
    return found


@lru_cache(maxsize=65_536)
def _for_validation(x: int, y: int) -> bool:
    return unit_hash("validation", x, y) < 0.5


def split_of_cell(x: int, y: int) -> Split:
    """The split of one tile: see `splits_of`."""
    return SPLITS[int(splits_of(np.array([x]), np.array([y]))[0])]


def touch_splits(bounds: FloatArray, zoom: int) -> BoolArray:
    """Which boxes (west, south, east, north) in degrees, [n, 4], touch tiles of several splits."""
    x0, y0 = cells_of(bounds[:, 0], bounds[:, 3], zoom)
    x1, y1 = cells_of(bounds[:, 2], bounds[:, 1], zoom)
    x1 += np.where(x1 < x0, 1 << zoom, 0)  # across the antimeridian the columns begin again
    # A row or a column of a whole period has both a test cell and a train cell.
    several = (x1 - x0 >= SPLIT_PERIOD - 1) | (y1 - y0 >= SPLIT_PERIOD - 1)
    few = ~several
    splits = splits_of(x0, y0)
    columns, rows = (range(int(reach[few].max(initial=0)) + 1) for reach in (x1 - x0, y1 - y0))
    for right, down in itertools.product(columns, rows):
        several |= splits_of(np.minimum(x0 + right, x1) % (1 << zoom), np.minimum(y0 + down, y1)) != splits
    return several
