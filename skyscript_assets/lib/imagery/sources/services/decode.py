"""Tiles as services send them, decoded to 8-bit RGB and which pixels hold data.

A tile is untrusted: its kind and size are looked at before a pixel of it is decoded.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.secrets import told

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
"""Formats of tiles, as Pillow names them; nothing else gets to guess at the bytes."""


def decode_tile(data: bytes, width: int, height: int, nodata: tuple[int, int, int] | None = None) -> Pixels:
    """Decode a tile of a known size: PNG (of any mode, 8 or 16 bits), JPEG, WebP or TIFF.

    A pixel holds no data where it is fully transparent or of the colour `nodata`; a tile of one colour holds none at
    all: no photograph is, but what services send where they have nothing is white, grey or black.

    Raises:
        CorruptInputError: it is none of these, not whole, or of another size.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.size != (width, height):
            raise CorruptInputError(
                f"has {image.width} x {image.height} pixels instead of {width} x {height}; where the service is right, "
                "correct tile_px in sources.yaml"
            )
        with image:
            rgb, valid = _rgb_and_valid(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CorruptInputError(f"is no whole PNG, JPEG, WebP or TIFF image ({_reason(error, data)})") from error
    if nodata is not None:
        valid &= (rgb != np.array(nodata, dtype=np.uint8)).any(axis=2)
    if (rgb == rgb[:1, :1]).all():
        valid[:] = False
    rgb[~valid] = 0
    return Pixels(rgb, valid)


def _rgb_and_valid(image: Any) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """RGB (height, width, 3) and which pixels are not transparent, of an opened image of any mode."""
    if image.mode.startswith("I"):
        return _from_16_bit_grey(image)
    if image.mode in ("RGB", "L", "CMYK") and "transparency" not in image.info:
        rgb = np.array(image.convert("RGB"))
        return rgb, np.ones(rgb.shape[:2], dtype=bool)
    rgba = np.array(image.convert("RGBA"))
    return np.ascontiguousarray(rgba[..., :3]), rgba[..., 3] != 0


def _from_16_bit_grey(image: Any) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """16-bit grey levels by their upper byte, as Pillow takes 16-bit colours."""
    levels = np.array(image).astype(np.uint16)
    hidden = image.info.get("transparency")
    valid = np.ones(levels.shape, dtype=bool) if hidden is None else levels != hidden
    return np.repeat((levels >> 8).astype(np.uint8)[..., np.newaxis], 3, axis=2), valid


def _reason(error: Exception, data: bytes) -> str:
    """What is wrong with a tile in a few words; Pillow's own may hold the address of an object."""
    if data[:512].lstrip().startswith(b"<"):
        return "it is a web page or an XML message"
    return "cannot identify it" if "cannot identify" in str(error) else told(str(error), 120)
