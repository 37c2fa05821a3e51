"""The canvas of a painting: its CRS, its pixels, and the blocks it is painted in.

Inside the painter everything is in local metres: x to the east and y to the south of the canvas' north-western corner.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from skyscript_assets.lib.arrays import FloatArray
from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import Bounds, utm_crs

BLOCK_PX, FILE_TILE_PX, MAX_PIXELS = 1536, 256, 400_000_000
"""Side of a block without margins, about; side of the files' tiles; most painted pixels that a painting may have."""

Geometries = npt.NDArray[np.object_]
Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Block:
    """A window of painted pixels of `pixel_m` metres: a core (rows, columns) that is kept, and margins around it.

    With margins, from which shadows and crowns reach into the core, it begins at `row` and `col`, perhaps below 0.
    """

    row: int
    col: int
    height: int
    width: int
    core: tuple[slice, slice]
    pixel_m: float

    @property
    def bounds(self) -> Bounds:
        """(least x, least y, greatest x, greatest y) in local metres, with margins."""
        p = self.pixel_m
        return self.col * p, self.row * p, (self.col + self.width) * p, (self.row + self.height) * p


@dataclass(frozen=True)
class Grid:
    """The pixels of a painting, in the WGS 84 UTM zone of its centre (`epsg`).

    A finished pixel of `gsd_m` metres is painted as `supersampling` pixels a side; `left` and `top` are easting and
    northing of the north-western corner, `width` and `height` finished columns and rows.
    """

    epsg: int
    gsd_m: float
    supersampling: int
    left: float
    top: float
    width: int
    height: int

    @property
    def pixel_m(self) -> float:
        """Side of a painted pixel, metres."""
        return self.gsd_m / self.supersampling

    @property
    def size_m(self) -> tuple[float, float]:
        """(width, height) in metres."""
        return self.width * self.gsd_m, self.height * self.gsd_m

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine (a, b, c, d, e, f) from corners of finished pixels to the CRS."""
        return (self.gsd_m, 0.0, self.left, 0.0, -self.gsd_m, self.top)

    def to_local(self, geometries: Geometries) -> Geometries:
        """Geometries in EPSG:4326 as local metres, x to the east and y to the south."""
        transformer = Transformer.from_crs(4326, self.epsg, always_xy=True)

        def project(lonlat: FloatArray) -> FloatArray:
            east, north = transformer.transform(lonlat[:, 0], lonlat[:, 1])
            return np.column_stack([np.asarray(east) - self.left, self.top - np.asarray(north)])

        return np.asarray(shapely.transform(geometries, project))

    def to_degrees(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Longitudes and latitudes of places in local metres."""
        transformer = Transformer.from_crs(self.epsg, 4326, always_xy=True)
        longitude, latitude = transformer.transform(self.left + x, self.top - y)
        return np.asarray(longitude), np.asarray(latitude)

    def footprint(self) -> shapely.Polygon:
        """The canvas in EPSG:4326."""
        corners = shapely.get_coordinates(shapely.box(0, 0, *self.size_m))
        return shapely.Polygon(np.column_stack(self.to_degrees(*corners.T)))

    def blocks(self) -> Iterator[Window]:
        """The blocks without margins as (row, column, height, width) in painted pixels, row by row.

        Sides are divided evenly; edges of blocks are edges of the file's tiles.
        """
        tile, sides = FILE_TILE_PX * self.supersampling, []
        for pixels in (self.height * self.supersampling, self.width * self.supersampling):
            side = -(-pixels // (-(-pixels // BLOCK_PX) * tile)) * tile
            sides.append([(first, min(side, pixels - first)) for first in range(0, pixels, side)])
        for row, height in sides[0]:
            for col, width in sides[1]:
                yield row, col, height, width


def make_grid(bbox: Bounds, gsd_m: float, where: str) -> Grid:
    """The canvas that covers a box (west, south, east, north) in EPSG:4326, its corner on a multiple of the pixel.

    Raises:
        SceneError: the box is empty, or the painting would be too large; it names the place, `where`.
    """
    west, south, east, north = bbox
    if not (west < east and south < north):
        raise SceneError(f"{where}: there is no ground to paint in the box {bbox}; check the region's bbox")
    epsg = int(utm_crs((west + east) / 2, (south + north) / 2).to_epsg() or 0)
    transformer = Transformer.from_crs(4326, epsg, always_xy=True)
    xmin, ymin, xmax, ymax = transformer.transform_bounds(west, south, east, north, densify_pts=21)
    if not np.isfinite([xmin, ymin, xmax, ymax]).all():
        raise SceneError(f"{where}: the box {bbox} does not fit into a UTM zone; split the region")
    left, top = math.floor(xmin / gsd_m) * gsd_m, math.ceil(ymax / gsd_m) * gsd_m
    width, height = math.ceil((xmax - left) / gsd_m - 1e-6), math.ceil((top - ymin) / gsd_m - 1e-6)
    factor = min(4, max(1, math.ceil(gsd_m / 0.5 - 1e-9)))  # pixels of more than half a metre are painted finer
    if width * height * factor**2 > MAX_PIXELS:
        raise SceneError(
            f"{where}: a painting of {width} x {height} pixels at {gsd_m} m is too large "
            f"(painted {factor} x {factor} finer, at most {MAX_PIXELS / 1e6:.0f} million pixels): "
            "raise gsd_m of the source or split the region"
        )
    return Grid(epsg, gsd_m, factor, left, top, max(1, width), max(1, height))
