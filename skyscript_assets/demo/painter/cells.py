"""What varies from cell to cell of the Web Mercator grid: sun, tone, vigour of plants, age of roads, random colours.

Between the centres of cells everything is interpolated, so that no border shows; only the random colours of the control
change abruptly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skyscript_assets.demo.painter.grid import Block, Grid
from skyscript_assets.demo.painter.noise import F32, CoarseField, lattice
from skyscript_assets.demo.painter.palette import Surface, srgb_to_linear
from skyscript_assets.lib.geometry import cells_of_bounds, unit_hash

_STEP_M = 24.0
_MARGIN_M = 200.0

_SPREADS = {"tone": 0.05, "warmth": 0.02, "vigour": 0.28, "age": 0.10, "azimuth": 6.0, "elevation": 2.5}
"""Greatest departure from the mean: brightness, warmth and age as shares, vigour in deviations, angles in degrees."""


@dataclass(frozen=True)
class Cells:
    """The fields of a painting that go by cell.

    Attributes:
        fields: By name of `_SPREADS`: departure from the mean.
        column: Cell column, counted from the westernmost cell of the canvas.
        row: Cell row, counted from the northernmost.
        shape: (rows, columns) of cells.
        random: (cells, surfaces + 1, 3) linear colours of the control, or None.
    """

    fields: dict[str, CoarseField]
    column: CoarseField
    row: CoarseField
    shape: tuple[int, int]
    random: F32 | None

    def index(self, block: Block) -> npt.NDArray[np.intp]:
        """The number of the cell of every pixel of a block."""
        rows = np.clip(np.floor(self.row.at(block)), 0, self.shape[0] - 1).astype(np.intp)
        cols = np.clip(np.floor(self.column.at(block)), 0, self.shape[1] - 1).astype(np.intp)
        return rows * self.shape[1] + cols


def make_cells(grid: Grid, zoom: int, seed: int, *, random_colours: bool) -> Cells:
    """The cells of a canvas.

    Args:
        grid: The canvas.
        zoom: Zoom of the Web Mercator tiles.
        seed: Seed of the painting.
        random_colours: Whether every surface of a cell gets a colour of its own.
    """
    rows, cols, start = lattice(grid.size_m, _STEP_M, _MARGIN_M)
    x, y = np.meshgrid(start + np.arange(cols) * _STEP_M, start + np.arange(rows) * _STEP_M)
    longitude, latitude = grid.to_degrees(x, y)
    bounds = (longitude.min(), latitude.min(), longitude.max(), latitude.max())
    names = cells_of_bounds((float(bounds[0]), float(bounds[1]), float(bounds[2]), float(bounds[3])), zoom)
    x0, y0 = names[0]
    shape = (names[-1][1] - y0 + 1, names[-1][0] - x0 + 1)
    n = float(1 << zoom)
    column = (longitude + 180.0) / 360.0 * n - x0
    row = (1.0 - np.arcsinh(np.tan(np.radians(latitude))) / np.pi) / 2.0 * n - y0

    def field(values: npt.NDArray[np.float64]) -> CoarseField:
        return CoarseField(values.astype(np.float32), start, start, _STEP_M)

    fields = {
        name: field(_between(_drawn(names, shape, seed, name) * spread, column, row))
        for name, spread in _SPREADS.items()
    }
    random = _random_colours(names, seed) if random_colours else None
    return Cells(fields, field(column), field(row), shape, random)


def _drawn(names: list[tuple[int, int]], shape: tuple[int, int], seed: int, what: str) -> npt.NDArray[np.float64]:
    values = [2 * unit_hash("cell", seed, what, *name) - 1 for name in names]
    return np.array(values).reshape(shape)


def _between(
    values: npt.NDArray[np.float64], column: npt.NDArray[np.float64], row: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Bilinear interpolation between the cells' centres."""
    padded = np.pad(values, 1, mode="edge")
    i = np.clip(np.floor(row + 0.5), 0, padded.shape[0] - 2).astype(int)
    j = np.clip(np.floor(column + 0.5), 0, padded.shape[1] - 2).astype(int)
    t, u = np.clip(row + 0.5 - i, 0, 1), np.clip(column + 0.5 - j, 0, 1)
    top = padded[i, j] * (1 - u) + padded[i, j + 1] * u
    bottom = padded[i + 1, j] * (1 - u) + padded[i + 1, j + 1] * u
    result: npt.NDArray[np.float64] = top * (1 - t) + bottom * t
    return result


def _random_colours(names: list[tuple[int, int]], seed: int) -> F32:
    colours = np.zeros((len(names), max(Surface) + 1, 3), np.float32)
    for index, name in enumerate(names):
        for surface in Surface:
            rgb = [40 + 175 * unit_hash("colour", seed, int(surface), channel, *name) for channel in range(3)]
            colours[index, surface] = srgb_to_linear(rgb)
    return colours
