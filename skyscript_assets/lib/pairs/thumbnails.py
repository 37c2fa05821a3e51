"""Whether two images show the same: thumbnails of them, less what is coarse.

A perceptual hash is made of the coarsest waves of an image, so that two lakes or fields may share it. What is finer
than the hash sees, and its colours, tell them apart, and outlive compression, resizing and other brightness.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.shards import read_image
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.towers.views import decode_image

Thumbnails = Callable[[IntArray], NDArray[np.uint8]]
"""Thumbnails [k, 768] of some rows, rising, of a table of chips."""

THUMBNAIL_SIDE = 16
THUMBNAIL_BYTES = 3 * THUMBNAIL_SIDE**2

THREADS, IMAGES_AHEAD = 2, 64

TEXTURE_SIGMA = 2.0
"""Standard deviation, thumbnail pixels, of the blur that is taken off: what the hash sees is no second witness."""


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean colours of 16 x 16 equal parts of an image (height, width, 3), row by row: uint8 [768]."""
    small = Image.fromarray(rgb).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8).ravel()


def thumbnails_of(partitions: Sequence[PartitionFolders], lengths: Sequence[int]) -> Thumbnails:
    """Reads thumbnails of the pairs of some partitions, by their rows in the table of all.

    Args:
        partitions: Where the partitions lie.
        lengths: Pairs of each, as `read_pairs` gives them.

    Returns:
        A function that raises what `read_pairs`, `read_image` and `decode_image` do.
    """

    def shown(row: Mapping[str, Any], folder: Path) -> NDArray[np.uint8]:
        return thumbnail(decode_image(read_image(row, folder), row["chip_id"]))

    def read(rows: IntArray) -> NDArray[np.uint8]:
        found, end = [np.zeros((0, THUMBNAIL_BYTES), dtype=np.uint8)], 0
        for folders, length in zip(partitions, lengths, strict=True):
            start, end = end, end + length
            mine = rows[(rows >= start) & (rows < end)] - start
            if len(mine):
                places = read_pairs(folders, {"shard", "offset", "length", "sha256"}).take(mine).to_pylist()
                work = functools.partial(shown, folder=folders.chips)
                found.append(np.stack(list(in_order(work, places, threads=THREADS, ahead=IMAGES_AHEAD))))
        return np.concatenate(found)

    return read


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> FloatArray:
    """Correlation of thumbnails [m, 768] less what is coarse in each colour: -1 to 1, 0 where one is flat; [m]."""
    return np.asarray(np.einsum("ij,ij->i", _texture(first), _texture(second)))


def _texture(thumbnails: NDArray[np.uint8]) -> FloatArray:
    from scipy import ndimage

    colours = thumbnails.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3).astype(np.float64)
    fine = colours - ndimage.gaussian_filter(colours, (0, TEXTURE_SIGMA, TEXTURE_SIGMA, 0))
    fine = (fine - fine.mean(axis=(1, 2), keepdims=True)).reshape(len(fine), -1)
    return np.asarray(fine / np.maximum(np.linalg.norm(fine, axis=1, keepdims=True), 1e-6))
