"""Footprints: outlines in a raster's pixels placed on the globe, across the antimeridian and around the poles too."""

import math

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from skyscript_assets.lib.imagery.reader import Coefficients

MAX_LONGITUDE = 540.0
"""Greatest longitude that is taken as one: rasters of 0..360 degrees exist, and reach over their own edge."""


def place(in_pixels: shapely.Geometry, transform: Coefficients, to_wgs84: Transformer) -> shapely.Geometry | None:
    """Place polygons in pixel coordinates, their sides divided finely enough to bend, on the globe.

    Longitudes are followed along each ring, so that a ring across the antimeridian stays in one piece before it is cut
    there; a ring that goes around a pole is closed through it. `transform` is affine (a, b, c, d, e, f) from pixel
    corners to the raster's CRS, `to_wgs84` leads from that to longitude and latitude. The answer is a valid Polygon or
    MultiPolygon in EPSG:4326 within 180 degrees, or None where a vertex lies on no place.
    """
    placed = []
    for polygon in shapely.get_parts(in_pixels):
        rings = [_ring(np.asarray(ring.coords), transform, to_wgs84) for ring in (polygon.exterior, *polygon.interiors)]
        if None in rings:
            return None
        placed.append(shapely.difference(rings[0], shapely.union_all(rings[1:])) if rings[1:] else rings[0])
    footprint = shapely.make_valid(shapely.union_all(placed)) if placed[1:] else placed[0]
    return shapely.normalize(polygons(footprint))


def outline_of(crs: CRS, transform: Coefficients, width: int, height: int, pieces: int) -> shapely.Geometry | None:
    """The edge of a raster as `place` gives it, its longer side divided into `pieces`."""
    frame = shapely.segmentize(shapely.box(0, 0, width, height), max(width, height) / pieces)
    return place(frame, transform, Transformer.from_crs(crs, 4326, always_xy=True))


def _ring(points: NDArray[np.float64], transform: Coefficients, to_wgs84: Transformer) -> shapely.Geometry | None:
    """The ground that a ring encloses; None where it leaves the globe."""
    a, b, c, d, e, f = transform
    columns, rows = points[:, 0], points[:, 1]
    longitude, latitude = to_wgs84.transform(a * columns + b * rows + c, d * columns + e * rows + f)
    if not ((np.abs(longitude) <= MAX_LONGITUDE) & (np.abs(latitude) <= 90)).all():
        return None
    longitude = np.unwrap(longitude, period=360.0)
    ring = np.column_stack([longitude, latitude])
    if round((longitude[-1] - longitude[0]) / 360) != 0:
        pole = math.copysign(90.0, float(latitude.mean()))
        ring = np.vstack([ring, [[longitude[-1], pole], [longitude[0], pole], ring[0]]])
    return wrapped(shapely.make_valid(shapely.Polygon(ring)))


def wrapped(ground: shapely.Geometry) -> shapely.Geometry:
    """Ground at any longitude brought to -180..180."""
    west, _, east, _ = shapely.bounds(ground)
    if west >= -180 and east <= 180:
        return ground
    pieces = []
    for turn in range(math.floor((west + 180) / 360), math.floor((east + 180) / 360) + 1):
        piece = shapely.intersection(ground, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        pieces.append(shapely.transform(piece, lambda points, turn=turn: points - [360.0 * turn, 0.0]))
    return shapely.union_all(pieces)


def polygons(geometry: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a geometry: cutting and mending may leave lines and points beside them."""
    parts = [part for part in shapely.get_parts(geometry) if part.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts != [geometry] else geometry
