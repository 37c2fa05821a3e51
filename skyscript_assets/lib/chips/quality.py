"""Whether a chip can be used: a few measures of its pixels, and the limits of the settings that reject it.

Measuring must cost less than encoding: what is a statistic of all pixels is taken from evenly spaced rows.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.settings.plant import ChipSettings

Reason = Literal["no-data", "focus-hidden", "cloud", "blank", "blurred", "too-small", "unreadable"]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a chip is rejected: its pixels (the first five), the size of its object in it, or that it could not be read."""

SAMPLED_ROWS = 48
"""At least so many rows of a chip are measured; all of them where it has less than twice as many."""

HASH_SIDE = 8
"""Side of the square of low frequencies that makes up the perceptual hash: 64 bits."""

HASH_IMAGE_SIDE = 32
"""Side of the thumbnail that is transformed."""


@dataclass(frozen=True)
class Quality:
    """Measures of a chip.

    Attributes:
        nodata_share: Share of pixels without data, 0..1.
        focus_valid_share: Share of the focus box that holds data, 0..1.
        cloud_share: Share of the measured valid pixels that are near-white and without texture, 0..1.
        sharpness: Variance of the Laplacian of the grey image over measured valid pixels, grey values squared.
        contrast: Standard deviation of the grey image over measured valid pixels, grey values.
        phash: Perceptual hash, 16 hexadecimal digits.
    """

    nodata_share: float
    focus_valid_share: float
    cloud_share: float
    sharpness: float
    contrast: float
    phash: str


def measure(rgb: NDArray[np.uint8], mask: NDArray[np.bool_] | None, focus_box: Sequence[int]) -> Quality:
    """Measure a chip.

    Sharpness is the variance of the Laplacian (Pech-Pacheco et al., ICPR 2000, focus measure LAPV) with the 3 x 3
    kernel [[0, 1, 0], [1, -4, 1], [0, 1, 0]], over the pixels whose whole kernel is inside and valid. It, cloud and
    contrast are taken from every k-th row, from the second to the last but one, k = (height - 2) // `SAMPLED_ROWS` or
    1, without the first and the last column; the hash sees these rows and their neighbours. All sums but the hash's
    are of whole numbers, and results are rounded: every machine gives the same.

    Args:
        rgb: uint8 (height, width, 3), three pixels a side or more; of a smaller chip nothing but validity is measured.
        mask: bool (height, width), where there is data; None where there is everywhere.
        focus_box: (x0, y0, x1, y1) of the focus object in pixels, half open.
    """
    from skyscript_assets.lib.chips.row_sums import row_sums

    height, width = rgb.shape[:2]
    mask = None if mask is None or mask.all() else mask
    shares = (0.0, 1.0)
    if mask is not None:
        x0, y0, x1, y1 = focus_box
        focus = mask[y0:y1, x0:x1]
        nodata_share = round(1.0 - int(np.count_nonzero(mask)) / mask.size, 6)
        shares = (nodata_share, round(int(np.count_nonzero(focus)) / max(1, focus.size), 6))
    if min(height, width) < 3:
        return Quality(*shares, cloud_share=0.0, sharpness=0.0, contrast=0.0, phash="0" * (HASH_SIDE**2 // 4))
    step = max(1, (height - 2) // SAMPLED_ROWS)
    sums, bands = row_sums(rgb, mask, step)
    return Quality(
        *shares,
        cloud_share=round(sums.white / max(1, sums.seen), 6),
        sharpness=round(_variance(sums.known, sums.laplacian, sums.laplacian_squares), 4),
        contrast=round(math.sqrt(_variance(sums.seen, sums.grey, sums.grey_squares)), 4),
        phash=perceptual_hash(bands),
    )


def _variance(count: int, total: int, squares: int) -> float:
    """Variance of whole numbers from their exact sums; 0 where there are none."""
    return (squares * count - total * total) / count**2 if count else 0.0


def perceptual_hash(grey: NDArray[Any]) -> str:
    """64-bit DCT hash of a grey image (height, width) of any scale: near for pictures that look alike.

    The 8 x 8 lowest frequencies of the DCT-II of a 32 x 32 thumbnail, each above their median or not (Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1). A pixel of the
    thumbnail is the mean of the ground it covers.
    """
    from skyscript_assets.lib.chips.row_sums import bits_above_median

    down, across = (_frequencies(size) for size in grey.shape)
    return f"{bits_above_median(down @ grey.astype(np.float64) @ across.T):016x}"


def rejection(quality: Quality, focus_box: Sequence[int], settings: ChipSettings) -> Reason | None:
    """Why a chip is rejected, or None where it is accepted; the first reason of `REASONS` counts.

    A focus box of one pixel is that of a point, which has no size and is not too small.
    """
    x0, y0, x1, y1 = focus_box
    broken: dict[Reason, bool] = {
        "no-data": quality.nodata_share > settings.max_nodata_share,
        "focus-hidden": quality.focus_valid_share < settings.min_focus_valid_share,
        "cloud": quality.cloud_share > settings.max_cloud_share,
        "blank": quality.contrast < settings.min_contrast,
        "blurred": quality.sharpness < settings.min_sharpness,
        "too-small": 1 < max(x1 - x0, y1 - y0) < settings.min_focus_px,
    }
    return next((reason for reason, is_so in broken.items() if is_so), None)


@functools.lru_cache(maxsize=4096)
def _frequencies(size: int) -> NDArray[np.float64]:
    """Matrix (8, size) from a row of pixels to the lowest DCT-II frequencies, not normalised, of its thumbnail."""
    edges = np.arange(HASH_IMAGE_SIDE + 1) * (size / HASH_IMAGE_SIDE)
    first, last = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    pixels = np.arange(size)
    covered = np.clip(np.minimum(last, pixels + 1) - np.maximum(first, pixels), 0, None) / (last - first)
    k, n = np.arange(HASH_SIDE)[:, np.newaxis], np.arange(HASH_IMAGE_SIDE)
    return np.asarray(2.0 * np.cos(math.pi * k * (2 * n + 1) / (2 * HASH_IMAGE_SIDE)) @ covered)
