"""Images of others as a viewer shows them, or the reason why not."""

import contextlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from skyscript_assets.lib.errors import CorruptInputError

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")

MAX_BYTES = 128_000_000
"""Largest image file read."""

MAX_PIXELS = 64_000_000
"""Largest image accepted: a small file can claim to unpack into a huge one."""

MAX_ASPECT = 50
"""Longest side accepted, in shortest sides: a strip becomes huge when its shortest side is resized."""

DARKEST_16_BIT = 4096
"""Values of 16 bits that all lie below are of fewer bits, and would come out almost black."""

_PHOTOMETRIC, _BITS, _WHITE_IS_ZERO = 262, 258, 0


def read_file(path: Path, name: str) -> bytes:
    """The bytes of an image file; `name` is what the message calls it.

    Raises:
        CorruptInputError: it is too large.
        OSError: it cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise CorruptInputError(f"{name}: is larger than {MAX_BYTES // 1_000_000} MB")
    return path.read_bytes()


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """An encoded image as RGB, [height, width, 3], as a viewer shows it: upright, 16 bits scaled, alpha left out.

    It is of one of `FORMATS`, whatever its name says; `name` is what the message calls it.

    Raises:
        CorruptInputError: it is no whole image, is too large, or nobody can know how bright its values are.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            sides = sorted(image.size)
            if sides[0] * sides[1] > MAX_PIXELS or sides[1] > MAX_ASPECT * sides[0]:
                raise ValueError(
                    f"{image.width} x {image.height} pixels, at most {MAX_PIXELS // 1_000_000} million, and one side "
                    f"{MAX_ASPECT} times the other, are read"
                )
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            if image.format == "JPEG" and image.mode in ("RGB", "L") and not turned:
                # What it is strict about, such as bytes too many, Pillow may show.
                with contextlib.suppress(ValueError):
                    return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"), dtype=np.uint8)
            return _as_shown(ImageOps.exif_transpose(image) if turned else image)
    except UnidentifiedImageError:
        # Pillow's own words name the address of an object.
        kinds = f"no image of 1, 3 or 4 bands of {', '.join(FORMATS)}"
        reason = kinds if data else "the file is empty"
    except (OSError, SyntaxError, ValueError, OverflowError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
    raise CorruptInputError(f"{name}: cannot be decoded ({reason})")


def _as_shown(image: Image.Image) -> NDArray[np.uint8]:
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode in ("I", "F"):
        raise ValueError("values of 32 bits or fractions, whose brightness is not known")
    if image.mode.startswith("I;16"):
        # Pillow clips these to 255 when it converts them, which shows nearly all of them in white.
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        rgb = np.stack([255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey] * 3, axis=2)
    else:
        rgb = np.asarray(image.convert("RGB"))
    if (image.mode.startswith("I;16") or 16 in tags.get(_BITS, ())) and rgb.max() < DARKEST_16_BIT // 256:
        raise ValueError(f"16 bits whose values end below {DARKEST_16_BIT}, almost black: scale them to 8 bits")
    return rgb
