"""Light on the canvas: shading by slope, shadows that things cast on what lies behind them, dimness between them.

The scene is a height field over flat ground. A shadow is found by lifting, along the sun's direction and by doubling
steps, the height that the light has to clear: after k rounds every pixel knows the highest obstacle among its 2^k
neighbours towards the sun.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from skyscript_assets.demo.painter.cells import Cells
from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.demo.painter.noise import F32

TILE_PX = 128
"""Side of the tiles in which the sun's direction is constant; aligned to the canvas, not to the block."""

MAX_SHADOW_M = 70.0
"""Longest shadow; what casts a longer one is cut."""

SUN_LIGHT = np.array([0.80, 0.775, 0.735], np.float32)
SKY_LIGHT = np.array([0.20, 0.225, 0.265], np.float32)
"""Shares of direct sun and blue sky in the light on flat open ground; they add to one."""

_LEAF_DEPTH_M = np.float32(1.3)
_LEAF_SLOPE = np.float32(0.6)
_WALL_SLOPE = 2.2
"""A steeper slope is a wall, which is not seen from above."""


@dataclass(frozen=True)
class Sun:
    """The mean sun of a painting, degrees; cells depart from it a little."""

    azimuth_deg: float
    elevation_deg: float
    cells: Cells

    def at(self, x: float, y: float) -> tuple[float, float, float]:
        """Unit vector to the sun at a place: (x, y, up) in local metres."""
        azimuth = math.radians(self.azimuth_deg + self.cells.fields["azimuth"].value(x, y))
        wanted = self.elevation_deg + self.cells.fields["elevation"].value(x, y)
        elevation = math.radians(min(89.5, max(5.0, wanted)))
        flat = math.cos(elevation)
        return flat * math.sin(azimuth), -flat * math.cos(azimuth), math.sin(elevation)

    def reach_m(self, height_m: float) -> float:
        """Length of the shadow of a thing, at the lowest sun of any cell."""
        return min(MAX_SHADOW_M, height_m / math.tan(math.radians(max(5.0, self.elevation_deg - 3.0))))


@dataclass(frozen=True)
class _Tile:
    """A tile of a block and the sun over it."""

    rows: slice
    cols: slice
    sun: tuple[float, float, float]


def _tiles(block: Block, sun: Sun) -> Iterator[_Tile]:
    for top in range(block.row // TILE_PX * TILE_PX, block.row + block.height, TILE_PX):
        for left in range(block.col // TILE_PX * TILE_PX, block.col + block.width, TILE_PX):
            rows = slice(max(0, top - block.row), min(block.height, top + TILE_PX - block.row))
            cols = slice(max(0, left - block.col), min(block.width, left + TILE_PX - block.col))
            centre = (left + TILE_PX / 2) * block.pixel_m, (top + TILE_PX / 2) * block.pixel_m
            yield _Tile(rows, cols, sun.at(*centre))


def shadow_heights(height_m: F32, tiles: list[_Tile], pixel_m: float) -> F32:
    """The height below which a pixel lies in shadow, of its own top at least."""
    lifted = height_m
    tallest, step = float(height_m.max(initial=0.0)), 1
    least_drop = min(tile.sun[2] / max(1e-6, math.hypot(tile.sun[0], tile.sun[1])) for tile in tiles)
    while step * pixel_m * least_drop < tallest and step * pixel_m <= MAX_SHADOW_M:
        result = lifted.copy()
        for tile in tiles:
            _lift(lifted, result, tile, step, pixel_m)
        lifted, step = result, step * 2
    return lifted


def _lift(source: F32, result: F32, tile: _Tile, step: int, pixel_m: float) -> None:
    """Raise a tile to what lies a step towards the sun, less the drop of the ray over it."""
    flat = math.hypot(tile.sun[0], tile.sun[1])
    if flat < 1e-6:
        return
    down, right = round(step * tile.sun[1] / flat), round(step * tile.sun[0] / flat)
    drop = np.float32(step * pixel_m * tile.sun[2] / flat)
    height, width = source.shape
    top, bottom = max(tile.rows.start, -down), min(tile.rows.stop, height - down)
    left, right_end = max(tile.cols.start, -right), min(tile.cols.stop, width - right)
    if top >= bottom or left >= right_end:
        return
    here = result[top:bottom, left:right_end]
    np.maximum(here, source[top + down : bottom + down, left + right : right_end + right] - drop, out=here)


def illuminate(colour: F32, height_m: F32, leafy: npt.NDArray[np.bool_], block: Block, sun: Sun) -> None:
    """Turn the albedo of a block into the light it sends up, in place.

    Args:
        colour: (3, rows, columns) linear albedo; becomes radiance where flat open ground keeps its albedo.
        height_m: (rows, columns) height of the top surface.
        leafy: Where the top surface is a crown: light enters it, so that its slopes and its own shadow are softer.
        block: The block.
        sun: The sun.
    """
    tiles = list(_tiles(block, sun))
    shadow = shadow_heights(height_m, tiles, block.pixel_m)
    shadow -= height_m
    shadow -= _LEAF_DEPTH_M * leafy
    shadow *= np.float32(2.5)
    np.clip(shadow, 0, 1, out=shadow)
    shadow = ndimage.uniform_filter(shadow, 3) if block.pixel_m < 0.4 else shadow
    slope_y, slope_x = _slopes(height_m, block.pixel_m)
    softness = np.float32(1.0) - (1 - _LEAF_SLOPE) * leafy
    slope_y *= softness
    slope_x *= softness
    window = max(3, int(9.0 / block.pixel_m) | 1)
    around = ndimage.uniform_filter(height_m, window) - height_m
    open_sky = 1.0 / (1.0 + np.float32(0.085) * np.maximum(around, 0))
    for tile in tiles:
        at = tile.rows, tile.cols
        sx, sy, sz = (np.float32(c) for c in tile.sun)
        facing = sz - sx * slope_x[at] - sy * slope_y[at]
        facing /= sz * np.sqrt(1 + slope_x[at] ** 2 + slope_y[at] ** 2)
        np.maximum(facing, 0.0, out=facing)
        facing *= 1 - shadow[at]
        for channel in range(3):
            light = facing * SUN_LIGHT[channel] + open_sky[at] * SKY_LIGHT[channel]
            colour[channel][at] *= light


def _slopes(height_m: F32, pixel_m: float) -> tuple[F32, F32]:
    """Rise per metre down the rows and along the columns; 0 at walls."""
    slopes = []
    for axis in (0, 1):
        slope = np.zeros_like(height_m)
        rise = np.diff(height_m, axis=axis) / np.float32(pixel_m)
        rise[np.abs(rise) > _WALL_SLOPE] = 0
        first: tuple[slice, ...] = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        second: tuple[slice, ...] = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        slope[first] += rise * np.float32(0.5)
        slope[second] += rise * np.float32(0.5)
        slopes.append(slope)
    return slopes[0], slopes[1]


def margins_px(reach_m: float, sun: Sun, pixel_m: float, least_m: float) -> tuple[int, int, int, int]:
    """Margins (top, bottom, left, right) in pixels from which shadows and crowns reach into a block.

    Args:
        reach_m: Longest shadow nearby.
        sun: The sun.
        pixel_m: Side of a pixel.
        least_m: Margin at every side.
    """
    margins = {}
    directions = {"top": (0.0, -1.0), "bottom": (0.0, 1.0), "left": (-1.0, 0.0), "right": (1.0, 0.0)}
    for side, (x, y) in directions.items():
        shares = []
        for spread in (-7.0, 0.0, 7.0):
            azimuth = math.radians(sun.azimuth_deg + spread)
            shares.append(max(0.0, math.sin(azimuth) * x - math.cos(azimuth) * y))
        margins[side] = math.ceil((least_m + reach_m * max(shares)) / pixel_m)
    return margins["top"], margins["bottom"], margins["left"], margins["right"]
