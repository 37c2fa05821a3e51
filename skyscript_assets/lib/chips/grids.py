"""The pixel grids on which chips are cut: a scene's own, or a local UTM grid of its GSD.

A scene that is north up with pixels that are square on the ground is read as it is, at whole columns and rows; any
other (degrees, rotated, sheared) is resampled to UTM, on multiples of its GSD. Which chips lie there belongs to
`placing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import CRSError

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import WEB_MERCATOR_LATITUDE_LIMIT, utm_crs, within_180
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.registration.shift import NO_SHIFT, Shift, move

SQUARE_TOLERANCE = 0.01
"""Relative difference of a pixel's sides on the ground, or radians off a right angle, above which it is resampled."""

FOOTPRINT_SLACK_PX = 1.5
"""A footprint in degrees follows the image's edge to about a pixel."""

EDGE_PIECES = 64
"""Pieces into which a footprint's longest side is cut before it is projected: straight lines bend."""


@dataclass(frozen=True)
class Grid:
    """Square, north-up pixels in a projected CRS.

    Attributes:
        crs: `EPSG:n` or WKT.
        origin: x and y of the corner of column 0, row 0, in CRS units.
        step: Width and (negative) height of a pixel in CRS units.
        gsd_m: Metres on the ground per pixel at the scene's centre.
        limits: First column and row, one past the last column and row; shape [4].
        footprint: Ground with data, in pixels of this grid, prepared.
        resampled: Whether these are not the scene's own pixels.
        to_crs: From degrees to the CRS.
        shift: What OSM coordinates are moved by before they are placed.
    """

    crs: str
    origin: tuple[float, float]
    step: tuple[float, float]
    gsd_m: float
    limits: IntArray
    footprint: shapely.Geometry
    resampled: bool
    to_crs: Transformer
    shift: Shift = NO_SHIFT

    def pixels(self, lonlat: FloatArray) -> FloatArray:
        """Columns and rows, [n, 2], where the image shows OSM's places, [n, 2] degrees; infinite outside the CRS."""
        lonlat = move(lonlat, self.shift)
        x, y = self.to_crs.transform(lonlat[:, 0], lonlat[:, 1])
        return np.column_stack([(x - self.origin[0]) / self.step[0], (y - self.origin[1]) / self.step[1]])

    def bounds(self, windows: IntArray) -> FloatArray:
        """(west, south, east, north) in degrees, [n, 4], of windows (x0, y0, x1, y1), [n, 4].

        Of a window across the antimeridian east is beyond 180; one around a pole is wider than half the globe.
        This is where OSM has their ground: a shift is taken back. Chips of scenes that are shifted differently thus
        share a split where they show the same ground.
        Corners and the middles of the edges are looked at: between them an edge bulges by far less than a pixel.
        """
        x0, y0, x1, y1 = windows.T.astype(np.float64)
        xm, ym = (x0 + x1) / 2, (y0 + y1) / 2
        lon, lat = self.to_crs.transform(
            self.origin[0] + np.stack([x0, xm, x1, x1, x1, xm, x0, x0]) * self.step[0],
            self.origin[1] + np.stack([y0, y0, y0, ym, y1, y1, y1, ym]) * self.step[1],
            direction="INVERSE",
        )
        lon += np.where((np.ptp(lon, axis=0) > 180.0) & (lon < 0.0), 360.0, 0.0)
        bounds = np.column_stack([lon.min(axis=0), lat.min(axis=0), lon.max(axis=0), lat.max(axis=0)])
        back = (-self.shift[0], -self.shift[1])
        return np.concatenate([move(bounds[:, :2], back), move(bounds[:, 2:], back)], axis=1)

    def transform(self, column: int, row: int) -> list[float]:
        """Affine (a, b, c, d, e, f) of a chip whose first pixel is this one."""
        (width, height), (x, y) = self.step, self.origin
        return [width, 0.0, x + column * width, 0.0, height, y + row * height]

    def gsds_at(self, latitude_deg: FloatArray) -> FloatArray:
        """Metres on the ground per pixel at latitudes, on which those of EPSG:3857 depend."""
        cosines = np.cos(np.radians(latitude_deg))
        return self.step[0] * cosines if _is_mercator(self.crs) else np.full(len(cosines), self.gsd_m)


def grids(scene: Scene, points: FloatArray, shift: Shift = NO_SHIFT) -> Iterator[tuple[Grid, IntArray]]:
    """The grids of a scene, each with the places that lie on it.

    Args:
        scene: The scene.
        points: Longitude and latitude, [n, 2], degrees, of OSM; NaN lies nowhere.
        shift: The scene's offset, which moves OSM's places onto the image.

    Yields:
        A grid, and the indices of the points inside the scene's footprint that are cut on it.

    Raises:
        SceneError: the CRS cannot be read, or does not suit the footprint.
    """
    points = move(np.column_stack([within_180(points[:, 0]), points[:, 1]]), shift)
    shapely.prepare(scene.footprint)
    inside = np.flatnonzero(shapely.intersects_xy(scene.footprint, points[:, 0], points[:, 1]))
    if len(inside) == 0:
        return
    try:
        crs = _crs_of(scene.crs)
    except CRSError as error:
        raise SceneError(f"scene {scene.scene_id}: its CRS {scene.crs[:80]!r} cannot be read ({error})") from error
    if _square_on_ground(scene, crs):
        yield replace(_native(scene), shift=shift), inside
        return
    zones = np.clip((points[inside, 0] + 180.0) // 6.0, 0, 59)
    south = points[inside, 1] < 0
    for zone, southern in sorted(set(zip(zones.tolist(), south.tolist(), strict=True))):
        grid = replace(_utm(scene, zone * 6.0 - 177.0, southern), shift=shift)
        yield grid, inside[(zones == zone) & (south == southern)]


# Thousands of scenes have a handful of CRSs, and each takes milliseconds.
_crs_of = lru_cache(maxsize=64)(CRS.from_user_input)


@lru_cache(maxsize=64)
def _from_lonlat(crs: str) -> Transformer:
    return Transformer.from_crs(4326, crs, always_xy=True)


@lru_cache(maxsize=64)
def _is_mercator(crs: str) -> bool:
    return bool(_crs_of(crs).to_epsg() == 3857)


def _square_on_ground(scene: Scene, crs: CRS) -> bool:
    """Whether the scene is north up with pixels that are square on the ground, measured at its centre."""
    a, b, c, d, e, f = scene.transform
    if crs.is_geographic or b != 0 or d != 0 or a <= 0 or e >= 0:
        return False
    x, y, reach = c + a * scene.width / 2, f + e * scene.height / 2, 16
    lon, lat = _from_lonlat(scene.crs).transform([x, x + reach * a, x], [y, y, y + reach * e], direction="INVERSE")
    if not np.isfinite([lon, lat]).all():
        raise SceneError(f"scene {scene.scene_id}: its centre lies outside the domain of its CRS {scene.crs[:80]}")
    azimuths, _, lengths = Geod(ellps="WGS84").inv([lon[0]] * 2, [lat[0]] * 2, lon[1:], lat[1:])
    skew = np.radians((azimuths[1] - azimuths[0]) % 360.0 - 90.0)
    return bool(abs(lengths[0] / lengths[1] - 1.0) <= SQUARE_TOLERANCE and abs(skew) <= SQUARE_TOLERANCE)


def _native(scene: Scene) -> Grid:
    a, _, c, _, e, f = scene.transform
    footprint = scene.footprint
    if _is_mercator(scene.crs):
        footprint = shapely.clip_by_rect(
            footprint, -180.0, -WEB_MERCATOR_LATITUDE_LIMIT, 180.0, WEB_MERCATOR_LATITUDE_LIMIT
        )
    return _grid(scene, scene.crs, (c, f), (a, e), footprint, resampled=False)


def _utm(scene: Scene, meridian_deg: float, southern: bool) -> Grid:
    crs = utm_crs(meridian_deg, -1.0 if southern else 1.0)
    # A scene may be far wider than the zone, where its projection is of no use; a zone may reach past 180 degrees.
    near = [
        shapely.clip_by_rect(scene.footprint, max(west, -180.0), -84.0, min(west + 12.0, 180.0), 84.0)
        for west in (meridian_deg - 6.0, meridian_deg - 366.0, meridian_deg + 354.0)
        if west < 180.0 and west + 12.0 > -180.0
    ]
    name, step = f"EPSG:{crs.to_epsg()}", (scene.gsd_m, -scene.gsd_m)
    return _grid(scene, name, (0.0, 0.0), step, shapely.union_all(near), resampled=True)


def _grid(
    scene: Scene,
    name: str,
    origin: tuple[float, float],
    step: tuple[float, float],
    footprint: shapely.Geometry,
    *,
    resampled: bool,
) -> Grid:
    limits = np.array([0, 0, scene.width, scene.height], dtype=np.int64)
    grid = Grid(name, origin, step, scene.gsd_m, limits, footprint, resampled, _from_lonlat(name))
    # Each polygon alone: those of a scene across the antimeridian lie at both ends of the globe, and meet projected.
    polygons = shapely.get_parts(footprint)
    west, south, east, north = shapely.bounds(polygons).T
    polygons = shapely.segmentize(polygons, np.maximum(np.maximum(east - west, north - south), 1e-9) / EDGE_PIECES)
    polygons = shapely.transform(polygons, grid.pixels)
    if not np.isfinite(shapely.get_coordinates(polygons)).all():
        raise SceneError(f"scene {scene.scene_id}: its footprint lies outside the domain of its CRS {name[:80]}")
    projected = shapely.union_all(shapely.buffer(shapely.make_valid(polygons), FOOTPRINT_SLACK_PX))
    shapely.prepare(projected)
    if resampled:
        bounds = shapely.bounds(projected)
        limits = np.concatenate([np.floor(bounds[:2]), np.ceil(bounds[2:])]).astype(np.int64)
    return replace(grid, footprint=projected, limits=limits)
