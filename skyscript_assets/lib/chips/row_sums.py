"""Sums over sampled rows of a chip, of which `quality` makes its measures: one pass, compiled."""

from typing import NamedTuple

import numpy as np
from numpy import int16, int32, int64, uint16, uint64
from numpy.typing import NDArray

from skyscript_assets.lib.compiled import compiled

WHITE = 200
"""A near-white pixel has no channel below this of 255 ..."""

WHITE_CHROMA = 30
"""... and channels that differ by this much at most."""

FLAT_LAPLACIAN = 12
"""Greatest absolute Laplacian, in grey values, of a pixel without texture."""


class RowSums(NamedTuple):
    """Whole numbers of a chip's sampled rows; compiled code knows them by their places.

    `seen` pixels are valid, with the sums of their grey values and of the squares of these; `known` ones are valid as
    all four neighbours are, with the sums of their Laplacians and of the squares of these; `white` ones are valid,
    near-white and flat.
    """

    seen: int
    grey: int
    grey_squares: int
    known: int
    laplacian: int
    laplacian_squares: int
    white: int


def row_sums(rgb: NDArray[np.uint8], mask: NDArray[np.bool_] | None, step: int) -> tuple[RowSums, NDArray[np.int16]]:
    """Sum over every `step`-th row from the second to the last but one, without the first and the last column.

    Of `rgb`, uint8 (height, width, 3) of three pixels a side or more, where `mask`, bool (height, width), has data or
    is None, it gives the sums, and the grey values of each sampled row and its two neighbours, added: int16 (sampled
    rows, width).
    """
    height, width = rgb.shape[:2]
    bands = np.empty((len(range(1, height - 1, step)), width), dtype=np.int16)
    sums = np.zeros(len(RowSums._fields), dtype=np.int64)
    known = np.ascontiguousarray(np.ones((0, 0), dtype=np.bool_) if mask is None else mask)
    _sum_rows(np.ascontiguousarray(rgb), known, mask is None, step, bands, sums)
    return RowSums(*sums.tolist()), bands


@compiled("void(Array(uint8, 1, 'C', True), int16[::1])")
def luma(rgb: NDArray[np.uint8], grey: NDArray[np.int16]) -> None:
    """Grey in whole numbers of a row of pixels: ITU-R BT.601 with weights in 256ths.

    From `rgb`, uint8 (3 width,), into `grey`, int16 (width,).
    """
    # Numbers of 16 bits throughout (the greatest is 65,408), from neighbouring addresses: this becomes vector code.
    for x in range(grey.size):
        red, green, blue = uint16(rgb[3 * x]), uint16(rgb[3 * x + 1]), uint16(rgb[3 * x + 2])
        weighted = uint16(uint16(77) * red) + uint16(uint16(150) * green) + uint16(uint16(29) * blue)
        grey[x] = int16(uint16(weighted + uint16(128)) >> uint16(8))


@compiled("int64(int16[::1], int16[::1], int64[::1])")
def _add_whole_row(grey: NDArray[np.int16], laplacian: NDArray[np.int16], sums: NDArray[np.int64]) -> int:
    """Add a row that is valid to the sums; how many of its pixels are as light as near-white ones."""
    total = squares = lap_total = lap_squares = bright = int64(0)
    for x in range(1, grey.size - 1):
        value, lap = int32(grey[x]), int32(laplacian[x])
        total += value
        squares += int32(value * value)
        lap_total += lap
        lap_squares += int32(lap * lap)
        bright += value >= WHITE
    sums[0] += grey.size - 2
    sums[1] += total
    sums[2] += squares
    sums[3] += grey.size - 2
    sums[4] += lap_total
    sums[5] += lap_squares
    return int(bright)


@compiled("int64(int16[::1], int16[::1], Array(boolean, 2, 'C', True), int64[::1])")
def _add_masked_row(
    grey: NDArray[np.int16], laplacian: NDArray[np.int16], mask: NDArray[np.bool_], sums: NDArray[np.int64]
) -> int:
    """Add the valid pixels of a row to the sums, given the mask of it and of its neighbours; how many are light."""
    bright = int64(0)
    for x in range(1, grey.size - 1):
        if not mask[1, x]:
            continue
        value, lap = int64(grey[x]), int64(laplacian[x])
        sums[0] += 1
        sums[1] += value
        sums[2] += value * value
        bright += value >= WHITE
        if mask[0, x] and mask[2, x] and mask[1, x - 1] and mask[1, x + 1]:
            sums[3] += 1
            sums[4] += lap
            sums[5] += lap * lap
    return int(bright)


@compiled("void(Array(uint8, 3, 'C', True), Array(boolean, 2, 'C', True), boolean, int64, int16[:, ::1], int64[::1])")
def _sum_rows(
    rgb: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    whole: bool,
    step: int,
    bands: NDArray[np.int16],
    sums: NDArray[np.int64],
) -> None:
    width = rgb.shape[1]
    grey = np.empty((3, width), int16)
    above, here, below = grey[0], grey[1], grey[2]
    laplacian = np.empty(width, int16)
    for number in range(bands.shape[0]):
        y = number * step + 1
        for k in range(3):
            luma(rgb[y - 1 + k].reshape(3 * width), grey[k])
        for x in range(width):
            bands[number, x] = int16(above[x] + here[x] + below[x])
        for x in range(1, width - 1):
            laplacian[x] = int16(above[x] + below[x] + here[x - 1] + here[x + 1] - 4 * here[x])
        if whole:
            bright = _add_whole_row(here, laplacian, sums)
        else:
            bright = _add_masked_row(here, laplacian, mask[y - 1 : y + 2], sums)
        # Grey is a weighted mean: where it is below `WHITE`, so is a channel. Most rows need no second look.
        for x in range(1, width - 1 if bright else 0):
            light = here[x] >= WHITE and abs(laplacian[x]) <= FLAT_LAPLACIAN
            if light and (whole or mask[y, x]):
                red, green, blue = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
                darkest = min(red, green, blue)
                sums[6] += darkest >= WHITE and max(red, green, blue) - darkest <= WHITE_CHROMA


@compiled("uint64(Array(float64, 2, 'C', True))")
def bits_above_median(values: NDArray[np.float64]) -> int:
    """A bit for each of 64 values, float64 (8, 8), the first one the highest: whether it lies above their median.

    Values are rounded to 6 digits, so that a sum taken in another order on another processor does not turn a bit over.
    """
    rounded = np.rint(values.ravel() * 1e6)
    ordered = np.sort(rounded)
    middle = (ordered[31] + ordered[32]) / 2
    bits = uint64(0)
    for value in rounded:
        bits = bits << uint64(1) | uint64(value > middle)
    return int(bits)
