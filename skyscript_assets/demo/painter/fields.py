"""What varies over a canvas: noise that repeats without a seam, and coarse maps between whose nodes is blended.

Both are functions of place alone, so that neighbouring blocks agree. Sun, tone and vigour of plants go by cell of the
Web Mercator grid, blended between their centres, so that no border shows; the control's random colours do show them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from skyscript_assets.demo.painter import kernels as k
from skyscript_assets.demo.painter.grid import Block, Grid
from skyscript_assets.demo.painter.kernels import F64
from skyscript_assets.demo.painter.layers import burn
from skyscript_assets.demo.painter.looks import F32, Surface, srgb_to_linear
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.geometry import cells_of_bounds, unit_hash

AZIMUTH_SPREAD_DEG, ELEVATION_SPREAD_DEG = 6.0, 2.5
"""Greatest departure of a cell's sun from the painting's."""


@dataclass(frozen=True)
class Fields:
    """The coarse `maps` of `kernels`, `step_m` metres from node to node and the first at `start_m` both ways.

    `cell` (rows, columns) numbers the cell of each node, `random` (cells, surface codes, 3) holds the control's linear
    colours, else it is None.
    """

    maps: F32
    start_m: float
    step_m: float
    cell: npt.NDArray[np.intp]
    random: F32 | None

    def value(self, which: int, x: float, y: float) -> float:
        """A map at a place in local metres, blended between the nodes around it."""
        return k.between(self.maps, which, (y - self.start_m) / self.step_m, (x - self.start_m) / self.step_m)

    def place(self, block: Block) -> F64:
        """The `place` of `kernels`."""
        scale = block.pixel_m / self.step_m
        return np.array([block.row, block.col, block.pixel_m, scale, 0.5 * scale - self.start_m / self.step_m])


def rng_of(*parts: object) -> np.random.Generator:
    """A generator that depends on the parts alone."""
    return np.random.default_rng(int(unit_hash(*parts) * (1 << 53)))


def spectral_tile(rng: np.random.Generator, size: int, shortest: float, longest: float) -> F32:
    """A tile of Gaussian noise, mean 0 and deviation 1, that repeats without a seam: 1/f between wavelengths (px)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1.0
    gain = np.exp(-((frequency * shortest) ** 2)) / np.maximum(frequency, 1.0 / longest)
    gain[0, 0] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * gain, s=(size, size))
    return np.asarray(noise / noise.std(), np.float32)


def make_noise(pixel_m: float, seed: int) -> F32:
    """The `noise` of `kernels`, (2, 1024, 1024)."""
    grain = spectral_tile(rng_of(seed, "grain"), 1024, 0.35, 3.0)
    return np.stack([grain, spectral_tile(rng_of(seed, "patch"), 1024, 0.8 / pixel_m, 7.0 / pixel_m)])


def make_fields(grid: Grid, around: Mapping[str, list[shapely.Geometry]], source: SyntheticSource, zoom: int) -> Fields:
    """The coarse maps of a canvas and a margin around it, for Web Mercator cells of a zoom.

    A place is made what it is by the geometries around it: `building`, `zone` and `works` (land by its use), `water`.
    """
    step, seed = max(5.0, 8 * grid.pixel_m), source.seed
    cols, rows = (math.ceil((side + 2 * 200.0) / step) + 2 for side in grid.size_m)
    corner = -round(200.0 / step)
    start = (corner + 0.5) * step
    whole = Block(corner, corner, rows, cols, (slice(0, rows), slice(0, cols)), step)

    def near(what: str, metres: float) -> F64:
        cover = burn(np.array(around.get(what, []), dtype=object), whole) > 0
        return np.asarray(ndimage.gaussian_filter(cover.astype(np.float64), metres / step, truncate=3))

    def noise(name: str, shortest_m: float, longest_m: float) -> F32:
        size = 1 << max(7, math.ceil(math.log2(max(rows, cols))))
        return spectral_tile(rng_of(seed, name), size, shortest_m / step, longest_m / step)[:rows, :cols]

    x, y = np.meshgrid(start + np.arange(cols) * step, start + np.arange(rows) * step)
    longitude, latitude = grid.to_degrees(x, y)
    cells = cells_of_bounds((longitude.min(), latitude.min(), longitude.max(), latitude.max()), zoom)
    (west, north), (east, south) = cells[0], cells[-1]
    shape, n = (south - north + 1, east - west + 1), float(1 << zoom)
    column = (longitude + 180.0) / 360.0 * n - west
    row = (1.0 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2.0 * n - north

    def by_cell(name: str, spread: float) -> F64:
        drawn = np.reshape([2 * unit_hash("cell", seed, name, *cell) - 1 for cell in cells], shape)
        return spread * np.asarray(ndimage.map_coordinates(drawn, [row - 0.5, column - 0.5], order=1, mode="nearest"))

    azimuth = np.radians(source.sun_azimuth_deg + by_cell("azimuth", AZIMUTH_SPREAD_DEG))
    departure = by_cell("elevation", ELEVATION_SPREAD_DEG)
    elevation = np.radians(np.clip(source.sun_elevation_deg + departure, 5.0, 89.5))
    maps = np.empty((len(k.MAPS), rows, cols), np.float32)
    maps[k.URBAN] = np.clip((near("building", 30.0) - 0.17) / 0.12, 0, 1)
    maps[k.PAVED] = 1.2 * maps[k.URBAN] + 0.85 * near("works", 5.0)
    maps[k.SETTLED] = np.maximum(np.clip(near("building", 25.0) * 14.0, 0, 1), near("zone", 6.0))
    maps[k.SHORE] = np.clip(1.6 * (1 - near("water", 9.0)), 0, 1)
    maps[k.VIGOUR] = noise("vigour", 12.0, 120.0) + by_cell("vigour", 0.56)
    maps[k.GROWTH] = noise("growth", 15.0, 90.0)
    maps[k.TONE], maps[k.WARMTH] = by_cell("tone", 0.05), by_cell("warmth", 0.02)
    maps[k.EAST], maps[k.SOUTH] = np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth)
    maps[k.UP] = np.sin(elevation)
    random = None
    if source.colours == "random":
        places = [(code, channel) for code in range(max(Surface) + 1) for channel in range(3)]
        drawn = [[40 + 175 * unit_hash("colour", seed, *place, *cell) for place in places] for cell in cells]
        random = srgb_to_linear(np.reshape(drawn, (len(cells), -1, 3)))
    return Fields(maps, start, step, row.astype(np.intp) * shape[1] + column.astype(np.intp), random)
