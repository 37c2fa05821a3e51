"""Whether a chip can be used: a few measures of its pixels, and the limits of the settings that reject it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.settings import ChipSettings

Reason = Literal["no-data", "cloud", "blank", "blurred", "unreadable", "too-small"]
REASONS: tuple[Reason, ...] = ("no-data", "cloud", "blank", "blurred", "unreadable", "too-small")
"""Why a chip is rejected: its pixels (the first four), its file, or the planner (too few pixels)."""

WHITE_LEVEL = 200
"""A near-white pixel has no channel below this level of 255 ..."""

WHITE_CHROMA = 30
"""... and channels that differ by this much at most."""

FLAT_LAPLACIAN = 12
"""Greatest absolute Laplacian, in grey levels, of a pixel without texture."""

HASH_SIDE = 8
"""Side of the square of low frequencies that makes up the perceptual hash: 64 bits."""

HASH_IMAGE_SIDE = 32
"""Side of the thumbnail that is transformed."""


@dataclass(frozen=True)
class Quality:
    """Measures of a chip.

    Attributes:
        nodata_share: Share of pixels without data, 0..1.
        cloud_share: Share of the valid pixels that are near-white and without texture, 0..1.
        sharpness: Variance of the Laplacian of the grey image over valid pixels, grey levels squared.
        contrast: Standard deviation of the grey image over valid pixels, grey levels.
        phash: Perceptual hash, 16 hexadecimal digits.
    """

    nodata_share: float
    cloud_share: float
    sharpness: float
    contrast: float
    phash: str


def measure(rgb: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Quality:
    """Measure a chip.

    Grey is ITU-R BT.601 luma in whole levels. Sharpness is the variance of the Laplacian (Pech-Pacheco et al., ICPR
    2000, focus measure LAPV) with the 3 x 3 kernel [[0, 1, 0], [1, -4, 1], [0, 1, 0]], over the pixels whose whole
    kernel is inside and valid. All sums are of whole numbers, and results are rounded: every machine gives the same.

    Args:
        rgb: uint8 (height, width, 3).
        valid: bool (height, width), where there is data.
    """
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    level = grey.astype(np.int16)
    laplacian = np.zeros_like(level)
    laplacian[1:-1, 1:-1] = level[:-2, 1:-1] + level[2:, 1:-1] + level[1:-1, :-2] + level[1:-1, 2:]
    laplacian[1:-1, 1:-1] -= 4 * level[1:-1, 1:-1]
    known = np.zeros_like(valid)
    known[1:-1, 1:-1] = valid[1:-1, 1:-1] & valid[:-2, 1:-1] & valid[2:, 1:-1] & valid[1:-1, :-2] & valid[1:-1, 2:]
    red, green, blue = np.moveaxis(rgb, -1, 0)
    darkest = np.minimum(np.minimum(red, green), blue)
    chroma = np.maximum(np.maximum(red, green), blue) - darkest
    white = valid & (darkest >= WHITE_LEVEL) & (chroma <= WHITE_CHROMA) & (np.abs(laplacian) <= FLAT_LAPLACIAN)
    n_valid = int(valid.sum())
    return Quality(
        nodata_share=round(1.0 - n_valid / valid.size, 6),
        cloud_share=round(int(white.sum()) / max(1, n_valid), 6),
        sharpness=round(_variance(laplacian[known]), 4),
        contrast=round(math.sqrt(_variance(level[valid])), 4),
        phash=perceptual_hash(grey),
    )


def _variance(values: NDArray[np.int16]) -> float:
    """Variance of whole numbers, from exact sums; 0 where there are none."""
    if values.size == 0:
        return 0.0
    wide = values.astype(np.int64)
    total, squares = int(wide.sum()), int((wide * wide).sum())
    return (squares * values.size - total * total) / values.size**2


def perceptual_hash(grey: NDArray[np.uint8]) -> str:
    """64-bit DCT hash of a grey image, uint8 (height, width): near for pictures that look alike.

    The 8 x 8 lowest frequencies of the DCT-II of a 32 x 32 thumbnail, each above their median or not (Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1).
    """
    thumbnail = Image.fromarray(grey).resize((HASH_IMAGE_SIDE, HASH_IMAGE_SIDE), Image.Resampling.LANCZOS)
    # Rounded, so that a sum taken in another order on another processor does not turn a bit over.
    low = np.round(_DCT @ np.asarray(thumbnail, dtype=np.float64) @ _DCT.T, 6)
    bits = (low > np.median(low)).ravel()
    return np.packbits(bits).tobytes().hex()


def rejection(quality: Quality, settings: ChipSettings) -> Reason | None:
    """Why a chip is rejected by its pixels, or None where it is accepted; the first reason of `REASONS` counts."""
    if quality.nodata_share > settings.max_nodata_share:
        return "no-data"
    if quality.cloud_share > settings.max_cloud_share:
        return "cloud"
    if quality.contrast < settings.min_contrast:
        return "blank"
    if quality.sharpness < settings.min_sharpness:
        return "blurred"
    return None


def _dct_matrix(rows: int, size: int) -> NDArray[np.float64]:
    """The first `rows` basis vectors of the DCT-II of a length, not normalised."""
    k, n = np.arange(rows)[:, np.newaxis], np.arange(size)
    return np.asarray(2.0 * np.cos(math.pi * k * (2 * n + 1) / (2 * size)))


_DCT = _dct_matrix(HASH_SIDE, HASH_IMAGE_SIDE)
