"""The canvas of a painting: its CRS, its pixels, and the blocks it is painted in.

Inside the painter everything is in local metres: x to the east and y to the south of the canvas' north-western corner.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import Bounds, utm_crs

BLOCK_PX = 1536
"""Side of a block without its margins, about, in painted pixels."""

FILE_TILE_PX = 256
"""Side of the tiles of the finished files, pixels; every one is written once."""

MAX_PIXELS = 400_000_000
"""Most pixels that a painting may have, those of supersampling included."""

MAX_SUPERSAMPLING = 4


@dataclass(frozen=True)
class Block:
    """A window of painted pixels: the part that is kept, and margins from which shadows and crowns reach into it.

    Attributes:
        row: First row with margins, painted pixels; may be negative.
        col: First column with margins.
        height: Rows with margins.
        width: Columns with margins.
        core: The part that is kept, as (rows, columns) of the block.
        pixel_m: Side of a painted pixel, metres.
    """

    row: int
    col: int
    height: int
    width: int
    core: tuple[slice, slice]
    pixel_m: float

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) with margins."""
        return self.height, self.width

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine (a, b, c, d, e, f) from pixel corners of the block to local metres."""
        p = self.pixel_m
        return (p, 0.0, self.col * p, 0.0, p, self.row * p)

    @property
    def bounds(self) -> Bounds:
        """(least x, least y, greatest x, greatest y) in local metres, with margins."""
        p = self.pixel_m
        return self.col * p, self.row * p, (self.col + self.width) * p, (self.row + self.height) * p

    def xs(self) -> npt.NDArray[np.float32]:
        """Local x of the columns' centres, metres."""
        return ((np.arange(self.width) + (self.col + 0.5)) * self.pixel_m).astype(np.float32)

    def ys(self) -> npt.NDArray[np.float32]:
        """Local y of the rows' centres, metres."""
        return ((np.arange(self.height) + (self.row + 0.5)) * self.pixel_m).astype(np.float32)


@dataclass(frozen=True)
class Grid:
    """The pixels of a painting.

    Attributes:
        epsg: Code of its CRS, the WGS 84 UTM zone of the region's centre.
        gsd_m: Side of a pixel of the finished image, metres.
        supersampling: Painted pixels along the side of a finished one.
        left: Easting of the western edge.
        top: Northing of the northern edge.
        width: Finished columns.
        height: Finished rows.
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
    def crs(self) -> str:
        """The CRS as `EPSG:n`."""
        return f"EPSG:{self.epsg}"

    @property
    def size_m(self) -> tuple[float, float]:
        """(width, height) in metres."""
        return self.width * self.gsd_m, self.height * self.gsd_m

    @property
    def area_km2(self) -> float:
        """Ground covered, square kilometres."""
        return self.size_m[0] * self.size_m[1] / 1e6

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine (a, b, c, d, e, f) from corners of finished pixels to the CRS."""
        return (self.gsd_m, 0.0, self.left, 0.0, -self.gsd_m, self.top)

    def to_local(self, geometries: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """Geometries in EPSG:4326 as local metres, x to the east and y to the south."""
        transformer = Transformer.from_crs(4326, self.epsg, always_xy=True)

        def project(lonlat: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            east, north = transformer.transform(lonlat[:, 0], lonlat[:, 1])
            return np.column_stack([np.asarray(east) - self.left, self.top - np.asarray(north)])

        projected: npt.NDArray[np.object_] = shapely.transform(geometries, project)
        return projected

    def to_degrees(
        self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Longitudes and latitudes of places in local metres."""
        transformer = Transformer.from_crs(self.epsg, 4326, always_xy=True)
        longitude, latitude = transformer.transform(self.left + x, self.top - y)
        return np.asarray(longitude), np.asarray(latitude)

    def footprint(self) -> shapely.Polygon:
        """The canvas in EPSG:4326."""
        width, height = self.size_m
        x, y = np.array([0, width, width, 0, 0.0]), np.array([0, 0, height, height, 0.0])
        return shapely.Polygon(np.column_stack(self.to_degrees(x, y)))

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """The blocks without margins as (row, column, height, width) in painted pixels, row by row."""
        rows, cols = self.height * self.supersampling, self.width * self.supersampling
        tall, wide = self._block_side(rows), self._block_side(cols)
        for row in range(0, rows, tall):
            for col in range(0, cols, wide):
                yield row, col, min(tall, rows - row), min(wide, cols - col)

    def _block_side(self, pixels: int) -> int:
        """An even division of a side into blocks whose edges are edges of the file's tiles."""
        step = FILE_TILE_PX * self.supersampling
        return -(-pixels // (-(-pixels // BLOCK_PX) * step)) * step


def supersampling_of(gsd_m: float) -> int:
    """Painted pixels along a finished one: pixels of more than half a metre are painted finer and averaged."""
    return min(MAX_SUPERSAMPLING, max(1, math.ceil(gsd_m / 0.5 - 1e-9)))


def make_grid(bbox: Bounds, gsd_m: float, where: str) -> Grid:
    """The canvas that covers a box in degrees, its corner on a multiple of the pixel.

    Args:
        bbox: (west, south, east, north), EPSG:4326.
        gsd_m: Side of a finished pixel, metres.
        where: Region and source, for the message.

    Raises:
        SceneError: the box is empty, or the painting would be too large.
    """
    west, south, east, north = bbox
    if not (west < east and south < north):
        raise SceneError(f"{where}: there is no ground to paint in the box {bbox}; check the region's bbox")
    crs = utm_crs((west + east) / 2, (south + north) / 2)
    epsg = int(crs.to_epsg() or 0)
    transformer = Transformer.from_crs(4326, crs, always_xy=True)
    xmin, ymin, xmax, ymax = transformer.transform_bounds(west, south, east, north, densify_pts=21)
    if not np.isfinite([xmin, ymin, xmax, ymax]).all():
        raise SceneError(f"{where}: the box {bbox} does not fit into a UTM zone; split the region")
    left, top = math.floor(xmin / gsd_m) * gsd_m, math.ceil(ymax / gsd_m) * gsd_m
    width, height = math.ceil((xmax - left) / gsd_m - 1e-6), math.ceil((top - ymin) / gsd_m - 1e-6)
    factor = supersampling_of(gsd_m)
    if width * height * factor**2 > MAX_PIXELS:
        raise SceneError(
            f"{where}: a painting of {width} x {height} pixels at {gsd_m} m is too large "
            f"(painted {factor} x {factor} finer, at most {MAX_PIXELS / 1e6:.0f} million pixels): "
            "raise gsd_m of the source or split the region"
        )
    return Grid(epsg, gsd_m, factor, left, top, max(1, width), max(1, height))
