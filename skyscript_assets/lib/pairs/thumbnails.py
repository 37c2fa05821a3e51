"""Whether two images show the same: thumbnails of them, less what is coarse.

A perceptual hash is made of the coarsest waves of an image, so that two lakes or fields may share it. What is finer
than the hash sees, and its colours, tell them apart, and outlive compression, resizing and other brightness.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.chips.quality import measure
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.images import Place, images_in
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.towers.images import decode

Thumbnails = Callable[[IntArray], NDArray[np.uint8]]
"""Thumbnails [k, 768] of some rows, rising, of a table of chips."""

THUMBNAIL_SIDE = 16
THUMBNAIL_BYTES = 3 * THUMBNAIL_SIDE**2

FLAT = 1.0
"""Length of a texture, in grey values, below which there is none."""

THREADS, IMAGES_AHEAD = 2, 64

ROWS_AT_ONCE = 8192

TEXTURE_SIGMA = 2.0
"""Standard deviation, thumbnail pixels, of the blur that is taken off: what the hash sees is no second witness."""


def thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean colours of 16 x 16 equal parts of an image (height, width, 3), row by row: uint8 [768]."""
    small = Image.fromarray(rgb).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8).ravel()


def fingerprint(image: bytes, name: str) -> dict[str, Any]:
    """What an image of any format is known by: `sha256`, `phash` as chips have it, `thumbnail`.

    Raises:
        CorruptInputError: it cannot be decoded; the message begins with `name`.
    """
    pixels = decode(image, name)
    hashed = measure(pixels, None, (0, 0, 0, 0)).phash
    return {"sha256": hashlib.sha256(image).hexdigest(), "phash": hashed, "thumbnail": thumbnail(pixels)}


def thumbnails_of(partitions: Sequence[PartitionFolders], lengths: Sequence[int]) -> Thumbnails:
    """Reads thumbnails of the pairs of some partitions, of these lengths, by their rows in the table of all.

    The function raises what `read_pairs` and `Images.pixels` do.
    """

    def read(rows: IntArray) -> NDArray[np.uint8]:
        found, end = [np.zeros((0, THUMBNAIL_BYTES), dtype=np.uint8)], 0
        for folders, length in zip(partitions, lengths, strict=True):
            start, end = end, end + length
            mine = rows[(rows >= start) & (rows < end)] - start
            if len(mine):
                places = map(Place.of, read_pairs(folders, Place._fields).take(mine).to_pylist())
                pixels = in_order(images_in(folders.chips).pixels, places, threads=THREADS, ahead=IMAGES_AHEAD)
                found.append(np.stack([*map(thumbnail, pixels)]))
        return np.concatenate(found)

    return read


def textures(thumbnails: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Thumbnails [k, 768] less what is coarse in each colour, of length 1, or 0 where they are flat."""
    from scipy import ndimage

    found = np.empty(thumbnails.shape, dtype=np.float16)
    for start in range(0, len(thumbnails), ROWS_AT_ONCE):
        some = thumbnails[start : start + ROWS_AT_ONCE].reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
        colours = some.astype(np.float32)
        fine = colours - ndimage.gaussian_filter(colours, (0, TEXTURE_SIGMA, TEXTURE_SIGMA, 0))
        fine = (fine - fine.mean(axis=(1, 2), keepdims=True)).reshape(len(fine), -1)
        length = np.linalg.norm(fine, axis=1, keepdims=True)
        found[start : start + ROWS_AT_ONCE] = np.where(length > FLAT, fine / np.maximum(length, FLAT), 0.0)
    return found


def likeness(textures: NDArray[np.float16], pairs: IntArray) -> FloatArray:
    """Correlation of the textures of pairs of rows [m, 2]: -1 to 1, 0 where one is flat; [m]."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        first, second = textures[pairs[start : start + ROWS_AT_ONCE].T].astype(np.float32)
        found[start : start + ROWS_AT_ONCE] = np.einsum("ij,ij->i", first, second)
    return found
