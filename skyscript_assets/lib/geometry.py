"""Geometry that several stages share: ground sample distance, metric CRSs, tiles of the Web Mercator grid, the split.

Coordinates are (x, y) = (longitude, latitude) in EPSG:4326 unless a name says otherwise.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

from pyproj import CRS

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Bounds = tuple[float, float, float, float]
"""(west, south, east, north)."""

WEB_MERCATOR_LATITUDE_LIMIT = 85.0511287798066
"""Latitude in degrees at which EPSG:3857 becomes square."""

WGS84_RADIUS_M = 6_378_137.0
"""Semi-major axis of WGS 84, metres."""

STATED_GSD_FACTOR = 2.0
"""Factor by which a ground sample distance may differ from the source's `gsd_m` before that is a mistake."""


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone: the same on every machine, in any order of calls."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)


def metres_per_degree(latitude_deg: float) -> tuple[float, float]:
    """Length of a degree of longitude and of latitude in metres, on the sphere of WGS 84's radius."""
    metres = math.pi / 180.0 * WGS84_RADIUS_M
    return metres * math.cos(math.radians(latitude_deg)), metres


def ground_gsd_m(crs: CRS, pixel_size: float, latitude_deg: float) -> float:
    """Ground sample distance in metres of a pixel of `pixel_size` CRS units at a latitude.

    EPSG:3857 stretches by 1 / cos(latitude) (EPSG guidance note 7-2, 1.3.3.2); degrees are turned into metres along
    the meridian; other projected CRSs count as true to scale.
    """
    if crs.is_geographic:
        return pixel_size * metres_per_degree(latitude_deg)[1]
    if crs.to_epsg() == 3857:
        return pixel_size * math.cos(math.radians(latitude_deg))
    return pixel_size * metres_per_unit(crs)


def metres_per_unit(crs: CRS) -> float:
    """Metres in a unit of a projected CRS."""
    return float(crs.axis_info[0].unit_conversion_factor or 1.0)


def is_stated_gsd(gsd_m: float, stated_m: float) -> bool:
    """Whether a ground sample distance may be the one that a source states: within `STATED_GSD_FACTOR`."""
    return stated_m / STATED_GSD_FACTOR <= gsd_m <= stated_m * STATED_GSD_FACTOR


def utm_crs(longitude_deg: float, latitude_deg: float) -> CRS:
    """The WGS 84 UTM zone of a place (EPSG:326xx north, EPSG:327xx south), without the Norwegian exceptions."""
    zone = min(60, max(1, int((longitude_deg + 180.0) // 6.0) + 1))
    return CRS.from_epsg((32600 if latitude_deg >= 0 else 32700) + zone)


def cell_of(longitude_deg: float, latitude_deg: float, zoom: int) -> tuple[int, int]:
    """(x, y) of the Web Mercator tile of a zoom that holds a place (slippy-map numbering, y grows southward)."""
    n = 1 << zoom
    lat = max(-WEB_MERCATOR_LATITUDE_LIMIT, min(WEB_MERCATOR_LATITUDE_LIMIT, latitude_deg))
    x = math.floor((longitude_deg + 180.0) / 360.0 * n)
    y = math.floor((1.0 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2.0 * n)
    return min(n - 1, max(0, x)), min(n - 1, max(0, y))


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


def split_of_cell(x: int, y: int) -> Split:
    """The split of a tile: (x + 2y) mod 5 = 0 is test, half of the tiles with remainder 3 validation, else train."""
    remainder = (x + 2 * y) % 5
    if remainder == 0:
        return "test"
    if remainder == 3 and unit_hash("validation", x, y) < 0.5:
        return "val"
    return "train"


def split_of_bounds(bounds: Bounds, zoom: int) -> Split | None:
    """The one split that a box in degrees lies in, or None where it touches several."""
    splits = {split_of_cell(x, y) for x, y in cells_of_bounds(bounds, zoom)}
    return splits.pop() if len(splits) == 1 else None
