"""The pixel grids on which chips are cut: a scene's own, or a local UTM grid of its GSD.

A scene that is north up with pixels that are square on the ground is read as it is, at whole columns and rows; any
other (degrees, rotated, sheared) is resampled to UTM, on multiples of its GSD. Which chips lie there belongs to
`placing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import shapely
from pyproj import Transformer
from pyproj.exceptions import CRSError

from skyscript_assets.lib import geometry
from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.registration.shift import NO_SHIFT, Shift, move

SQUARE_TOLERANCE = 0.01
"""Relative difference of a pixel's sides on the ground, or radians off a right angle, above which it is resampled."""

FOOTPRINT_SLACK_PX = 1.5
"""A footprint in degrees follows the image's edge to about a pixel."""

GSD_NODES = 17
"""Places a side of a scene at which its GSD is measured; between them it changes evenly, by far less than matters."""

EDGE_PIECES = 64
"""Pieces into which a footprint's longest side is cut before it is projected: straight lines bend."""


@dataclass(frozen=True)
class Grid:
    """Square, north-up pixels in a projected CRS.

    Attributes:
        crs: `EPSG:n` or WKT.
        origin: x and y of the corner of column 0, row 0, in CRS units.
        step: Width and (negative) height of a pixel in CRS units.
        limits: First column and row, one past the last column and row; shape [4].
        footprint: Ground with data, in pixels of this grid, prepared.
        resampled: Whether these are not the scene's own pixels.
        to_crs: From degrees to the CRS.
        shift: What OSM coordinates are moved by before they are placed.
    """

    crs: str
    origin: tuple[float, float]
    step: tuple[float, float]
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


def grids(scene: Scene, points: FloatArray, shift: Shift = NO_SHIFT) -> Iterator[tuple[Grid, IntArray]]:
    """The grids of a scene, each with the indices of the places inside its footprint that are cut on it.

    Points are OSM's longitudes and latitudes, [n, 2], degrees; NaN lies nowhere. The shift moves them onto the image.

    Raises:
        SceneError: the CRS cannot be read, or does not suit the footprint.
    """
    points = move(np.column_stack([geometry.within_180(points[:, 0]), points[:, 1]]), shift)
    shapely.prepare(scene.footprint)
    inside = np.flatnonzero(shapely.intersects_xy(scene.footprint, points[:, 0], points[:, 1]))
    if len(inside) == 0:
        return
    if _square_on_ground(scene):
        yield replace(_native(scene), shift=shift), inside
        return
    zones = np.clip((points[inside, 0] + 180.0) // 6.0, 0, 59)
    south = points[inside, 1] < 0
    for zone, southern in sorted(set(zip(zones.tolist(), south.tolist(), strict=True))):
        grid = replace(_utm(scene, zone * 6.0 - 177.0, southern), shift=shift)
        yield grid, inside[(zones == zone) & (south == southern)]


def gsd_nodes(scene: Scene) -> FloatArray:
    """Metres on the ground per pixel of a scene's chips at places evenly spread over its image, [rows, columns].

    Of a scene that is resampled, and of one that has the same GSD everywhere, it is the scene's. It is never finer than
    what the scene shows, where its `effective_gsd_m` is known.
    """
    gsds = np.full((GSD_NODES, GSD_NODES), scene.gsd_m)
    if _square_on_ground(scene):
        a, _, c, _, e, f = scene.transform
        rows, columns = np.mgrid[0 : 1 : GSD_NODES * 1j, 0 : 1 : GSD_NODES * 1j]
        found = geometry.ground_gsd_m(
            scene.crs, scene.transform, c + a * columns * scene.width, f + e * rows * scene.height
        )
        if np.abs(found / scene.gsd_m - 1.0).max() > geometry.TRUE_TO_SCALE:
            gsds = found
    return gsds * max(1.0, (scene.effective_gsd_m or 0.0) / scene.gsd_m)


def gsds_at(scene: Scene, lonlat: FloatArray) -> FloatArray:
    """Metres on the ground per pixel of a scene's chips at places inside it, [n, 2] degrees: see `gsd_nodes`."""
    from scipy import ndimage

    nodes = gsd_nodes(scene)
    if np.ptp(nodes) == 0:
        return np.full(len(lonlat), nodes[0, 0])
    a, _, c, _, e, f = scene.transform
    x, y = geometry.from_lonlat(scene.crs).transform(lonlat[:, 0], lonlat[:, 1])
    place = np.stack([(y - f) / (e * scene.height), (x - c) / (a * scene.width)]) * (GSD_NODES - 1)
    return np.asarray(ndimage.map_coordinates(nodes, place, order=1, mode="nearest"))


def _square_on_ground(scene: Scene) -> bool:
    """Whether the scene is north up with pixels that are square on the ground, measured at its centre."""
    a, b, c, d, e, f = scene.transform
    try:
        geographic = geometry.parse_crs(scene.crs).is_geographic
    except CRSError as error:
        raise SceneError(f"scene {scene.scene_id}: its CRS {scene.crs[:80]!r} cannot be read ({error})") from error
    if geographic or b != 0 or d != 0 or a <= 0 or e >= 0:
        return False
    sides = geometry.pixel_on_ground(scene.crs, scene.transform, c + a * scene.width / 2, f + e * scene.height / 2)
    if not np.isfinite(sides).all():
        raise SceneError(f"scene {scene.scene_id}: its centre lies outside the domain of its CRS {scene.crs[:80]}")
    return bool(max(abs(sides[0] / sides[1] - 1.0), abs(sides[2] - np.pi / 2)) <= SQUARE_TOLERANCE)


def _native(scene: Scene) -> Grid:
    a, _, c, _, e, f = scene.transform
    footprint = scene.footprint
    method = getattr(geometry.parse_crs(scene.crs).coordinate_operation, "method_name", "")
    if "Mercator" in method and "Transverse" not in method:  # these have no poles
        footprint = shapely.clip_by_rect(
            footprint, -180.0, -geometry.WEB_MERCATOR_LATITUDE_LIMIT, 180.0, geometry.WEB_MERCATOR_LATITUDE_LIMIT
        )
    return _grid(scene, scene.crs, (c, f), (a, e), footprint, resampled=False)


def _utm(scene: Scene, meridian_deg: float, southern: bool) -> Grid:
    crs = geometry.utm_crs(meridian_deg, -1.0 if southern else 1.0)
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
    grid = Grid(name, origin, step, limits, footprint, resampled, geometry.from_lonlat(name))
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
