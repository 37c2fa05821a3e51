"""Noise: tiles that repeat without a seam, and coarse fields that are interpolated to pixels.

Both are functions of place alone, so that neighbouring blocks agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.lib.geometry import unit_hash

F32 = npt.NDArray[np.float32]


def rng_of(*parts: object) -> np.random.Generator:
    """A generator that depends on the parts alone."""
    return np.random.default_rng(int(unit_hash(*parts) * (1 << 53)))


T = TypeVar("T", bound=np.generic)


def wrap(tile: npt.NDArray[T], block: Block) -> npt.NDArray[T]:
    """The pixels of a repeating tile that fall on a block."""
    rows = np.arange(block.row, block.row + block.height) % tile.shape[0]
    cols = np.arange(block.col, block.col + block.width) % tile.shape[1]
    part: npt.NDArray[T] = tile.take(rows, axis=0).take(cols, axis=1)
    return part


def spectral_tile(
    rng: np.random.Generator, size: int, shortest: float, longest: float, stretch: tuple[float, float] = (1.0, 1.0)
) -> F32:
    """A tile of Gaussian noise that repeats without a seam: a 1/f spectrum between two wavelengths.

    Args:
        rng: Where chance comes from.
        size: Side, pixels.
        shortest: Shortest wavelength, pixels.
        longest: Longest wavelength, pixels.
        stretch: Factors on the frequencies of columns and rows; unequal ones make streaks.

    Returns:
        (size, size), mean 0, standard deviation 1.
    """
    fy = np.fft.fftfreq(size)[:, None] * stretch[1]
    fx = np.fft.rfftfreq(size)[None, :] * stretch[0]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1.0
    gain = np.exp(-((frequency * shortest) ** 2)) / np.maximum(frequency, 1.0 / longest)
    gain[0, 0] = 0.0
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * gain, s=(size, size))
    noise: F32 = (field / field.std()).astype(np.float32)
    return noise


@dataclass(frozen=True)
class CoarseField:
    """Values on a lattice of places, interpolated linearly between them.

    Attributes:
        values: (rows, columns) float32; node (i, j) lies at x = x0 + j * step, y = y0 + i * step.
        x0: Local x of the first column, metres.
        y0: Local y of the first row.
        step: Distance of nodes, metres.
    """

    values: F32
    x0: float
    y0: float
    step: float

    def at(self, block: Block) -> F32:
        """The field at the centres of a block's pixels."""
        i, t = _position(block.ys(), self.y0, self.step, self.values.shape[0])
        j, u = _position(block.xs(), self.x0, self.step, self.values.shape[1])
        first, last = int(j.min()), int(j.max()) + 2
        part = self.values[:, first:last]
        lines = part[i] * (1 - t)[:, None] + part[i + 1] * t[:, None]
        j = j - first
        rise = np.diff(lines, axis=1)
        field: F32 = np.take(rise, j, axis=1)
        field *= u[None, :]
        field += np.take(lines, j, axis=1)
        return field

    def value(self, x: float, y: float) -> float:
        """The field at one place, local metres."""
        i, t = _position(np.array([y], np.float32), self.y0, self.step, self.values.shape[0])
        j, u = _position(np.array([x], np.float32), self.x0, self.step, self.values.shape[1])
        a, b = self.values[i[0], j[0] : j[0] + 2], self.values[i[0] + 1, j[0] : j[0] + 2]
        top, bottom = a[0] + (a[1] - a[0]) * u[0], b[0] + (b[1] - b[0]) * u[0]
        return float(top + (bottom - top) * t[0])


def lattice(size_m: tuple[float, float], step: float, margin_m: float) -> tuple[int, int, float]:
    """(rows, columns, first coordinate) of a lattice that covers a canvas and a margin around it."""
    n = [int(np.ceil((side + 2 * margin_m) / step)) + 2 for side in size_m]
    return n[1], n[0], -margin_m


def _position(
    places: npt.NDArray[np.float32], start: float, step: float, count: int
) -> tuple[npt.NDArray[np.intp], F32]:
    at = (places - np.float32(start)) / np.float32(step)
    index = np.clip(np.floor(at), 0, count - 2).astype(np.intp)
    return index, np.clip(at - index, 0, 1).astype(np.float32)
