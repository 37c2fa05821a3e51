"""Decoded blocks of raster files: a bounded cache that threads share, and JPEG blocks decoded without GDAL.

Windows of a plan overlap, so a block is wanted many times; it is decoded once, brought to 8-bit RGB once, and kept
while there is room. What a block of a scene looks like belongs to `raster`.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

CACHE_BYTES = 192 << 20
"""Decoded pixels that are kept for all open scenes of a process together."""

JPEG_SLACK_BYTES = 1 << 16
"""A JPEG block may be this much larger than its pixels before it is left to GDAL."""


class Block(NamedTuple):
    """Decoded pixels: `rgb` uint8 (height, width, 3), black without data; `valid` bool, None where all hold data."""

    rgb: NDArray[np.uint8]
    valid: NDArray[np.bool_] | None

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.rgb.nbytes + (0 if self.valid is None else self.valid.nbytes)


class BlockCache:
    """Blocks by key, the least lately used dropped first; a block that two threads want is loaded by one of them.

    Args:
        limit: Bytes kept; one block is kept even where it is larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._blocks: OrderedDict[Hashable, Block] = OrderedDict()
        self._loading: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()
        self._users = 0

    def get(self, key: Hashable, load: Callable[[], Block]) -> Block:
        """The block of a key; `load` makes it where it is not there, and its error passes on to whoever asked."""
        while True:
            with self._lock:
                if (block := self._blocks.get(key)) is not None:
                    self._blocks.move_to_end(key)
                    return block
                begun = self._loading.get(key)
                if begun is None:
                    begun = self._loading[key] = threading.Event()
                    break
            begun.wait()
        try:
            block = load()
            self._keep(key, block)
        finally:
            with self._lock:
                del self._loading[key]
            begun.set()
        return block

    def _keep(self, key: Hashable, block: Block) -> None:
        with self._lock:
            self._blocks[key] = block
            self.nbytes += block.nbytes
            while self.nbytes > self.limit and len(self._blocks) > 1:
                self.nbytes -= self._blocks.popitem(last=False)[1].nbytes

    def join(self) -> None:
        """Count one more reader."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Count one reader less; the last one leaves nothing behind."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._blocks.clear()
                self.nbytes = 0


class JpegBlocks:
    """The JPEG blocks of a tiled GeoTIFF, decoded by libjpeg-turbo straight into RGB.

    GDAL decodes a block row by row into a buffer for each band, which takes several times as long. Luma is the same to
    a level or so; where colours are stored at half the resolution, their interpolation is that of libjpeg-turbo (and
    Pillow), from which another libjpeg inside GDAL may differ at sharp edges: the standard leaves it open.

    Args:
        dataset: Open rasterio dataset for which `suits` is true.
        file: Open descriptor of the same file.
    """

    def __init__(self, dataset: Any, file: int) -> None:
        self._dataset = dataset
        self._file = file
        self._shape = tuple(dataset.block_shapes[0])
        tables = dataset.get_tag_item("JPEGTABLES", "TIFF", bidx=1)
        # TIFF Technical Note 2: the tables are an abbreviated stream of their own; without its end and the block's
        # start, the two make one whole stream.
        self._tables = bytes.fromhex(tables)[:-2] if tables else b""

    @staticmethod
    def suits(dataset: Any) -> bool:
        """Whether a dataset is an 8-bit colour GeoTIFF whose blocks are YCbCr JPEGs of all three bands."""
        kinds = [getattr(kind, "name", None) for kind in (dataset.compression, dataset.interleaving)]
        return (
            dataset.driver == "GTiff"
            and dataset.count == 3
            and set(dataset.dtypes) == {"uint8"}
            and kinds == ["jpeg", "pixel"]
            and getattr(dataset.photometric, "name", None) == "ycbcr"
            and dataset.is_tiled
        )

    def read(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """The block in a row and column of blocks, uint8 (rows, columns, 3); None where it is not as expected."""
        place = [self._dataset.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1) for what in _PLACE]
        if None in place:
            return None
        offset, size = map(int, place)
        if size > 3 * self._shape[0] * self._shape[1] + JPEG_SLACK_BYTES:
            return None
        data = os.pread(self._file, size, offset)
        data = self._tables + data[2:] if self._tables else data
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if (height, width) != self._shape or colours != "YCbCr":
                return None
            rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            return None
        return rgb


_PLACE = ("OFFSET", "SIZE")
