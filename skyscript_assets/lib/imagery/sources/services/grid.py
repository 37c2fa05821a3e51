"""The pixel grid of a service and its division into tiles: which tiles lie over a region, at which resolution.

Every kind of service ends here as one `TileGrid`: a WMTS matrix, a zoom of XYZ tiles, or the requests into which a WMS
is cut. Rows grow southward from the upper left corner, as in the WMTS standard (OGC 07-057r7, 6.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import WGS84_RADIUS_M, from_lonlat, ground_gsd_m, is_stated_gsd

EDGE_PIECES = 64
"""Pieces into which the longest side of the ground is cut before it is projected: straight lines bend."""

WEB_MERCATOR_HALF_M = math.pi * WGS84_RADIUS_M
"""Half of the side of the Web Mercator square, metres (OGC 07-057r7, annex E.4)."""


@dataclass(frozen=True)
class TileRange:
    """Tiles from (column, row) on, `columns` x `rows` of them."""

    column: int
    row: int
    columns: int
    rows: int


@dataclass(frozen=True)
class TileGrid:
    """Square, north-up pixels in tiles.

    Attributes:
        name: What the service calls it: a zoom or a tile matrix.
        crs: CRS of the grid, projected.
        left: x of the left edge of column 0, CRS units.
        top: y of the upper edge of row 0, CRS units.
        pixel: Side of a pixel, CRS units.
        tile_width: Columns of a tile, pixels.
        tile_height: Rows of a tile, pixels.
        limits: The tiles that there are; None where the grid has no end.
    """

    name: str
    crs: CRS
    left: float
    top: float
    pixel: float
    tile_width: int
    tile_height: int
    limits: TileRange | None

    def gsd_m(self, ground: shapely.Geometry) -> float:
        """Metres on the ground per pixel in the middle of an area in degrees."""
        place = shapely.centroid(ground)
        x, y = from_lonlat(self.crs).transform(place.x, place.y)
        return float(ground_gsd_m(self.crs, (self.pixel, 0.0, 0.0, 0.0, -self.pixel, 0.0), x, y))

    def tiles_over(self, ground: shapely.Geometry) -> TileRange | None:
        """The tiles over an area in degrees, None where the grid has none there."""
        x, y = project(ground, self.crs).T
        if len(x) == 0:
            return None
        width, height = self.pixel * self.tile_width, self.pixel * self.tile_height
        # Ground that ends on a tile's edge does not reach into the next one, whatever the last digit says.
        slack = 1e-6
        first = (math.floor((x.min() - self.left) / width + slack), math.floor((self.top - y.max()) / height + slack))
        last = (math.ceil((x.max() - self.left) / width - slack), math.ceil((self.top - y.min()) / height - slack))
        if self.limits is not None:
            bounds = self.limits
            first = (max(first[0], bounds.column), max(first[1], bounds.row))
            last = (min(last[0], bounds.column + bounds.columns), min(last[1], bounds.row + bounds.rows))
        found = TileRange(first[0], first[1], last[0] - first[0], last[1] - first[1])
        return found if min(found.columns, found.rows) > 0 else None

    def transform(self, tiles: TileRange) -> tuple[float, float, float, float, float, float]:
        """Affine (a, b, c, d, e, f) from the pixel corners of a range of tiles to the CRS."""
        left = self.left + tiles.column * self.tile_width * self.pixel
        top = self.top - tiles.row * self.tile_height * self.pixel
        return (self.pixel, 0.0, left, 0.0, -self.pixel, top)


def project(ground: shapely.Geometry, crs: CRS) -> NDArray[np.float64]:
    """Places along the outline of an area in degrees, [n, 2] in CRS units; what the CRS cannot place is left out."""
    west, south, east, north = shapely.bounds(ground)
    outline = shapely.get_coordinates(shapely.segmentize(ground, max(east - west, north - south) / EDGE_PIECES))
    x, y = from_lonlat(crs).transform(outline[:, 0], outline[:, 1])
    placed: NDArray[np.float64] = np.column_stack([x, y])
    return placed[np.isfinite(placed).all(axis=1)]


def web_mercator_grid(zoom: int, tile_px: int) -> TileGrid:
    """Zoom `zoom` of the usual web map (GoogleMapsCompatible of OGC 07-057r7, annex E.4), tiles of `tile_px` a side."""
    count, half = 1 << zoom, WEB_MERCATOR_HALF_M
    pixel, limits = 2 * half / (tile_px * count), TileRange(0, 0, count, count)
    return TileGrid(str(zoom), CRS.from_epsg(3857), -half, half, pixel, tile_px, tile_px, limits)


def nearest_grid(grids: Sequence[TileGrid], gsd_m: float, ground: shapely.Geometry, what: str) -> TileGrid:
    """The grid whose pixels amid an area are nearest to the wanted size on the ground, by ratio; the finer of equals.

    `what` is the source's key and what is looked at, for the message.

    Raises:
        SceneError: even the nearest differs by more than `STATED_GSD_FACTOR`.
    """
    offered = [grid.gsd_m(ground) for grid in grids]
    ratios = [abs(math.log(offer / gsd_m)) for offer in offered]
    best = min(range(len(grids)), key=lambda index: (round(ratios[index], 9), offered[index]))
    if not is_stated_gsd(offered[best], gsd_m):
        shown = ", ".join(f"{offer:.3g}" for offer in sorted(set(offered)))
        raise SceneError(
            f"{what} has no resolution near {gsd_m:g} m on the ground: it offers {shown} m at latitude "
            f"{shapely.centroid(ground).y:.1f}; correct gsd_m in sources.yaml"
        )
    return grids[best]
