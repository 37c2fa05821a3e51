"""Views of a chip: the plain one, and the paper's augmentation with the focus object kept in sight.

Paper (SkyScript, training details): random resized crop of scale 0.67-1.0 and ratio 0.5-2.0, colour jitter 0.4,
rotation by 0, 90, 180 or 270 degrees, no flips. Two things are this project's own. The crop never loses the object that
the caption is about (its pixel box travels with the chip). And of colour jitter, which the paper gives as one number,
brightness, contrast and saturation vary, hue does not: captions speak of the colour of roofs.

Images are uint8 arrays (height, width, 3); boxes are (x0, y0, x1, y1) in pixels, half open.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError

UInt8Array = NDArray[np.uint8]
Box = tuple[int, int, int, int]

CROP_SCALE = (0.67, 1.0)
"""Share of the chip's area that a crop covers (paper)."""

CROP_RATIO = (0.5, 2.0)
"""Width over height of a crop (paper)."""

JITTER = 0.4
"""Factors of brightness, contrast and saturation lie in 1 ± this (paper: colour jitter 0.4)."""

CROP_TRIES = 10
"""Draws of a crop's shape before it falls back to the whole chip, as in torchvision's RandomResizedCrop."""

MAX_SIDE_PX = 4096
"""Images with a longer side are refused before they are decoded; the settings allow no larger tile."""


class Resize(NamedTuple):
    """How a tower wants an image to be made a square: the whole squashed, or its middle; and Pillow's filter."""

    squash: bool
    filter: Image.Resampling


CLIP_RESIZE = Resize(squash=False, filter=Image.Resampling.BICUBIC)


def decode_image(data: bytes, name: str) -> UInt8Array:
    """Pixels of a JPEG; `name` is what the message calls it.

    Raises:
        CorruptInputError: it is no whole JPEG, or a side is longer than `MAX_SIDE_PX`.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if max(height, width) > MAX_SIDE_PX:
            raise CorruptInputError(f"{name}: {width} x {height} pixels, at most {MAX_SIDE_PX} a side are read")
        image: UInt8Array = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise CorruptInputError(f"{name}: not a whole JPEG ({error}); materialize image_chips again") from error
    return image


def view_rng(seed: int, chip_id: str, view: int) -> np.random.Generator:
    """The generator of one view of one chip: the same whatever else is drawn, in any order."""
    digest = hashlib.blake2b(f"{seed}\x1f{chip_id}\x1f{view}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def centre_box(width: int, height: int, focus: Sequence[int] | None = None) -> Box:
    """The largest square in the middle, slid along the longer side just as far as keeps the focus box in view."""
    side = min(width, height)
    x0, y0 = round((width - side) / 2), round((height - side) / 2)
    if focus is not None:
        x0 = _slide(x0, side, width, focus[0], focus[2])
        y0 = _slide(y0, side, height, focus[1], focus[3])
    return (x0, y0, x0 + side, y0 + side)


def _slide(start: int, length: int, limit: int, low: int, high: int) -> int:
    """The start nearest to the given one whose crop shows the focus interval (its middle, where it is too long)."""
    first, last = _start_range(length, limit, low, high)
    return min(max(start, first), last)


def _start_range(length: int, limit: int, low: int, high: int) -> tuple[int, int]:
    """First and last start of a crop of `length` in [0, limit) that holds [low, high), or lies within it."""
    low, high = max(0, low), min(limit, high)
    if high - low <= length:
        return max(0, high - length), min(low, limit - length)
    # The focus is longer than the crop: stay inside it, and keep its middle.
    middle = (low + high) // 2
    return max(low, middle - length + 1), min(high - length, middle)


def focus_crop(width: int, height: int, focus: Sequence[int] | None, rng: np.random.Generator) -> Box:
    """A random crop (paper's scale and ratio) that holds the focus box, or what fits around its middle.

    Sides are those of the chip, in pixels; without a focus the crop falls anywhere.
    """
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    crop_width, crop_height = width, height
    for _ in range(CROP_TRIES):
        area = width * height * rng.uniform(*CROP_SCALE)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            crop_width, crop_height = w, h
            break
    box = focus or (0, 0, 0, 0)
    x_range = (0, width - crop_width) if focus is None else _start_range(crop_width, width, box[0], box[2])
    y_range = (0, height - crop_height) if focus is None else _start_range(crop_height, height, box[1], box[3])
    x0 = int(rng.integers(x_range[0], x_range[1], endpoint=True))
    y0 = int(rng.integers(y_range[0], y_range[1], endpoint=True))
    return (x0, y0, x0 + crop_width, y0 + crop_height)


def plain_view(image: UInt8Array, focus: Sequence[int] | None, size: int, wanted: Resize = CLIP_RESIZE) -> UInt8Array:
    """The view without augmentation, as open_clip makes it: the shortest side is resized, then the middle is cut out.

    A crop that is resized is not the same: here whole pixels are cut, and pixels beyond the edge have their say. Of an
    image (height, width, 3) it becomes a square of `size`, and slides towards the box of the focus object.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    short = size if wanted.squash else min(height, width)
    w, h = (size, size) if wanted.squash else (int(size * width / short), int(size * height / short))
    scaled = focus and [round(edge * size / short) for edge in focus]
    view = Image.fromarray(image).resize((w, h), wanted.filter)
    return np.asarray(view.crop(centre_box(w, h, scaled)))


def augmented_view(image: UInt8Array, focus: Sequence[int] | None, size: int, rng: np.random.Generator) -> UInt8Array:
    """One draw of the paper's augmentation, uint8 (size, size, 3)."""
    from skyscript_assets.lib.towers.resample import jittered, resized, turned

    planes = resized(image, focus_crop(image.shape[1], image.shape[0], focus, rng), size)
    planes = jittered(planes, *rng.uniform(1.0 - JITTER, 1.0 + JITTER, size=3))
    return turned(planes, int(rng.integers(4)))
