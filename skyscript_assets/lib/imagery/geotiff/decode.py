"""Blocks of tiled GeoTIFFs decoded without GDAL: JPEG by libjpeg-turbo, DEFLATE by libdeflate.

GDAL decodes a block row by row into a buffer for each band; here it comes as RGB in one go. Only what is common is done
(8 bits, bands side by side in a block); everything else, and every block that is not as expected, is left to GDAL.
"""

import abc
import math
import os
from typing import Any

import deflate
import numpy as np
import simplejpeg
from numpy.typing import NDArray

SLACK_BYTES = 1 << 16
"""A stored block may be this much larger than its pixels before it is left to GDAL."""

MAX_BANDS = 4
"""Files with more bands are left to GDAL, which decodes their blocks once for all of them as well."""


class TiffBlocks(abc.ABC):
    """The blocks of a tiled 8-bit GeoTIFF, bands side by side: of a rasterio dataset and a descriptor of its file."""

    def __init__(self, dataset: Any, file: int) -> None:
        self._dataset = dataset
        self._file = file
        self._shape: tuple[int, int, int] = (*dataset.block_shapes[0], dataset.count)
        self._buffer = memoryview(bytearray(math.prod(self._shape) + SLACK_BYTES))

    def read(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """The block in a row and column of blocks, uint8 (rows, columns, bands); None where it is not as expected."""
        names = (f"BLOCK_{what}_{column}_{row}" for what in ("OFFSET", "SIZE"))
        place = [self._dataset.get_tag_item(name, "TIFF", bidx=1) for name in names]
        if None in place:
            return None
        offset, size = map(int, place)
        data = self._buffer[:size]
        try:
            got = os.preadv(self._file, [data], offset)
        except (OSError, OverflowError):  # a place that no file has
            return None
        return self._decode(data) if got == size else None

    @abc.abstractmethod
    def _decode(self, data: memoryview) -> NDArray[np.uint8] | None:
        """Pixels of a stored block, (rows, columns, bands), or None where it is not as expected."""


class JpegBlocks(TiffBlocks):
    """YCbCr blocks of three bands, decoded straight into RGB.

    Luma is GDAL's to a level or so; where colours are stored at half the resolution, their interpolation is that of
    libjpeg-turbo (and Pillow), from which another libjpeg inside GDAL may differ at sharp edges: the standard leaves it
    open.
    """

    def __init__(self, dataset: Any, file: int) -> None:
        super().__init__(dataset, file)
        tables = dataset.get_tag_item("JPEGTABLES", "TIFF", bidx=1)
        # TIFF Technical Note 2: the tables are an abbreviated stream of their own; without its end and the block's
        # start, the two make one whole stream.
        self._tables = bytes.fromhex(tables)[:-2] if tables else b""

    def _decode(self, data: memoryview) -> NDArray[np.uint8] | None:
        whole = b"".join((self._tables, data[2:])) if self._tables else data
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(whole)
            if (height, width) != self._shape[:2] or colours != "YCbCr":
                return None
            rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(whole, colorspace="RGB")
        except ValueError:
            return None
        return rgb


class DeflateBlocks(TiffBlocks):
    """Blocks compressed by DEFLATE, as they are or as differences of neighbours (predictor 2)."""

    def __init__(self, dataset: Any, file: int) -> None:
        super().__init__(dataset, file)
        self._differences = dataset.tags(ns="IMAGE_STRUCTURE").get("PREDICTOR") == "2"

    def _decode(self, data: memoryview) -> NDArray[np.uint8] | None:
        try:
            values = deflate.zlib_decompress(data, math.prod(self._shape))
        except deflate.DeflateError:
            return None
        if len(values) != math.prod(self._shape):
            return None
        block: NDArray[np.uint8] = np.frombuffer(values, dtype=np.uint8).reshape(self._shape)
        if self._differences:
            from skyscript_assets.lib.imagery.geotiff.predictor import undo_differences

            undo_differences(block)
        return block


def tiff_blocks(dataset: Any, file: int) -> TiffBlocks | None:
    """The blocks of an open rasterio dataset with a descriptor of its file, or None where they are left to GDAL."""
    side_by_side = dataset.count == 1 or getattr(dataset.interleaving, "name", None) == "pixel"
    tiled = dataset.driver == "GTiff" and dataset.profile["tiled"]
    if not (tiled and side_by_side and set(dataset.dtypes) == {"uint8"} and dataset.count <= MAX_BANDS):
        return None
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    match structure.get("COMPRESSION"), structure.get("PREDICTOR", "1"):
        case "YCbCr JPEG", _ if dataset.count == 3:
            return JpegBlocks(dataset, file)
        # Of other colours, such as CMYK, GDAL gives what is not stored.
        case "DEFLATE", "1" | "2" if "SOURCE_COLOR_SPACE" not in structure:
            return DeflateBlocks(dataset, file)
    return None
