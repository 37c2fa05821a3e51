"""Crops of chips made square and jittered in colour, to the byte as Pillow does it, compiled for rows of planes.

Pixels lie in planes, uint8 (rows, 3, columns): both passes of the resampling then add whole rows with a weight each,
which processors do for many pixels at a time.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy import float32, int32, uint8
from numpy.typing import NDArray

from skyscript_assets.lib.compiled import compiled

BITS = 22
"""Binary places of the weights (Pillow's Resample.c: 32, less 8 of the pixel and 2 for sums that overshoot)."""

HALF = 1 << (BITS - 1)

BICUBIC_REACH = 2.0
"""Source pixels on either side of a target's middle that bicubic weighs, where nothing is made smaller."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def resized(image: NDArray[np.uint8], box: Sequence[int], size: int) -> NDArray[np.uint8]:
    """A box of an image (height, width, 3) as a square, in planes (size, 3, size).

    Bicubic with a = -0.5, stretched where pixels become fewer. Columns come first, are rounded, then rows, as in Pillow
    before 13, which begins with the rows of tall crops. Pixels just beyond the box have their say, as there.
    """
    height, width = image.shape[:2]
    left, across = _weights(width, box[0], box[2], size)
    top, down = _weights(height, box[1], box[3], size)
    x0, y0, x1, y1 = left[0], top[0], left[-1] + across.shape[1], top[-1] + down.shape[1]
    columns = _weighted_rows(_turned_rows(image[y0:y1, x0:x1].transpose(1, 2, 0)), left - x0, across)
    rows = _turned_rows(columns.reshape(size, 3, y1 - y0).transpose(2, 1, 0))
    return _weighted_rows(rows, top - y0, down).reshape(size, 3, size)


def _turned_rows(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(planes).reshape(len(planes), -1)


@compiled("Tuple((int64[::1], int32[:, ::1]))(int64, float64, float64, int64)")
def _weights(length: int, low: float, high: float, size: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """First source pixel of each target pixel, and the weights from there on, (size, taps) of `BITS` binary places."""
    scale = (high - low) / size
    wide = max(scale, 1.0)
    reach = BICUBIC_REACH * wide
    taps = min(length, 2 * math.ceil(reach) + 1)
    first, weights = np.empty(size, np.int64), np.zeros((size, taps), np.int32)
    found = np.empty(taps, np.float64)
    for at in range(size):
        middle = low + (at + 0.5) * scale
        start, end = max(0, int(middle - reach + 0.5)), min(length, int(middle + reach + 0.5))
        first[at], total = min(start, length - taps), 0.0
        for tap in range(end - start):
            x = abs((tap + start - middle + 0.5) * (1.0 / wide))
            weight = (1.5 * x - 2.5) * x * x + 1 if x < 1 else (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0
            found[tap] = weight
            total += weight
        for tap in range(end - start):
            whole = found[tap] / total * (1 << BITS)
            weights[at, start - first[at] + tap] = int(whole + 0.5) if whole >= 0 else int(whole - 0.5)
    return first, weights


@compiled("uint8[:, ::1](uint8[:, ::1], int64[::1], int32[:, ::1])")
def _weighted_rows(rows: NDArray[np.uint8], first: NDArray[np.int64], weights: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Rows of a target, each the sum of weighted rows of the source, rounded and within 0 to 255."""
    size, width = len(first), rows.shape[1]
    out, sums = np.empty((size, width), np.uint8), np.empty(width, np.int32)
    for at in range(size):
        sums[:] = HALF
        for tap in range(weights.shape[1]):
            weight, row = weights[at, tap], rows[first[at] + tap]
            for x in range(width):
                sums[x] += weight * int32(row[x])
        for x in range(width):
            out[at, x] = min(max(sums[x] >> BITS, 0), 255)
    return out


@compiled("uint8[:, :, ::1](uint8[:, :, ::1], float64, float64, float64)")
def jittered(planes: NDArray[np.uint8], brightness: float, contrast: float, saturation: float) -> NDArray[np.uint8]:
    """Planes (rows, 3, columns) by factors of brightness, contrast and saturation.

    The three are linear in the pixel for a given image, so they are applied as one 3 x 3 matrix and one offset, and
    values are clipped once at the end; torchvision clips after each step.
    """
    rows, _, columns = planes.shape
    grey = np.int64(0)
    for y in range(rows):
        for x in range(columns):
            pixel = 19595 * int32(planes[y, 0, x]) + 38470 * int32(planes[y, 1, x]) + 7471 * int32(planes[y, 2, x])
            grey += (pixel + 0x8000) >> 16  # LUMA in whole numbers, as Pillow has it
    offset = float32((1.0 - contrast) * brightness * (grey / (rows * columns)))
    out = np.empty_like(planes)
    factor = brightness * contrast
    for channel in range(3):
        red, green, blue = (1.0 - saturation) * LUMA[0], (1.0 - saturation) * LUMA[1], (1.0 - saturation) * LUMA[2]
        red += saturation * (channel == 0)
        green += saturation * (channel == 1)
        blue += saturation * (channel == 2)
        r, g, b = float32(factor * red), float32(factor * green), float32(factor * blue)
        for y in range(rows):
            for x in range(columns):
                value = r * float32(planes[y, 0, x]) + g * float32(planes[y, 1, x]) + b * float32(planes[y, 2, x])
                out[y, channel, x] = uint8(min(max(value + offset + float32(0.5), float32(0)), float32(255)))
    return out


@compiled("uint8[:, :, ::1](uint8[:, :, ::1], int64)")
def turned(planes: NDArray[np.uint8], turns: int) -> NDArray[np.uint8]:
    """Planes (size, 3, size) as an image (size, size, 3), turned by so many right angles against the clock."""
    size = len(planes)
    out = np.empty((size, size, 3), np.uint8)
    for i in range(size):
        for j in range(size):
            y, x = (j, size - 1 - i) if turns & 1 else (i, j)
            if turns & 2:
                y, x = size - 1 - y, size - 1 - x
            out[i, j, 0], out[i, j, 1], out[i, j, 2] = planes[y, 0, x], planes[y, 1, x], planes[y, 2, x]
    return out
