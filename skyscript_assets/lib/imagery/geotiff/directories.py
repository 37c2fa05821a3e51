"""Where the blocks of a TIFF file lie: its directories, read through a function that fetches bytes.

Only the structure is read (TIFF 6.0, and BigTIFF as libtiff has it), so that a window of a remote file can be fetched
in few requests before GDAL decodes it. The file is untrusted: counts, sizes and chains are bounded.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.reader import Window

MAX_DIRECTORIES = 64
MAX_TAGS = 1024
MAX_HEADER_BYTES = 64 << 20
"""Most bytes of directories and of values beside them: offsets of four million blocks."""

Fetch = Callable[[int, int], bytes]
"""(offset, length) -> exactly these bytes, else an error."""

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
_WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR = 256, 257, 277, 278, 284
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF file: full resolution, an overview, or the mask of one of these.

    Attributes:
        offsets: Where each block begins, (plane, block row, block column).
        sizes: Bytes of each block, of the same shape; 0 where there is none.
    """

    width: int
    height: int
    block_width: int
    block_height: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def ranges(self, window: Window) -> list[tuple[int, int]]:
        """(begin, end) in the file of every block under a window, in all planes."""
        rows = slice(window.row // self.block_height, -(-(window.row + window.height) // self.block_height))
        columns = slice(window.column // self.block_width, -(-(window.column + window.width) // self.block_width))
        begins, sizes = self.offsets[:, rows, columns].ravel(), self.sizes[:, rows, columns].ravel()
        return [(int(begin), int(begin + size)) for begin, size in zip(begins, sizes, strict=True) if size]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    @property
    def end(self) -> int:
        """Where its last block ends in the file."""
        return int((self.offsets + self.sizes)[self.sizes > 0].max(initial=0))


def read_directories(fetch: Fetch, name: str) -> list[Directory]:
    """The images of a TIFF file, which messages call `name`; the first is the one at full resolution.

    Raises:
        CorruptInputError: it is no TIFF file, or a broken one.
    """
    try:
        return _Reader(fetch, name).directories()
    except (struct.error, ValueError, KeyError, IndexError, OverflowError) as error:
        raise CorruptInputError(f"{name} has a broken TIFF directory ({error}): get it again") from error


class _Reader:
    def __init__(self, fetch: Fetch, name: str) -> None:
        self._fetch = fetch
        self._name = name
        self._left = MAX_HEADER_BYTES
        head = self._bytes(0, 16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = struct.unpack(f"{order}H", head[2:4])[0] if order else 0
        if version not in (42, 43):
            hint = "a VRT, which is refused where it is not your own file" if b"<VRT" in head else "another format"
            raise CorruptInputError(f"{name} is no TIFF file but {hint}: only GeoTIFF and COG are read from elsewhere")
        self._order, self._big = order, version == 43
        self._offset = f"{order}{'Q' if self._big else 'I'}"
        (self._first,) = struct.unpack(self._offset, head[8:16] if self._big else head[4:8])

    def directories(self) -> list[Directory]:
        found: list[Directory] = []
        seen: set[int] = set()
        offset = self._first
        while offset and len(seen) < MAX_DIRECTORIES:
            if offset in seen:
                raise CorruptInputError(f"{self._name} has TIFF directories that form a loop: get it again")
            seen.add(offset)
            values, offset = self._directory(offset)
            directory = self._image(values)
            if directory is not None:
                found.append(directory)
        if not found:
            raise CorruptInputError(f"{self._name} is a TIFF file without an image")
        return found

    def _bytes(self, offset: int, length: int) -> bytes:
        self._left -= length
        if self._left < 0:
            raise CorruptInputError(f"{self._name} has more than {MAX_HEADER_BYTES} bytes of TIFF directories")
        return self._fetch(offset, length)

    def _directory(self, offset: int) -> tuple[dict[int, NDArray[np.int64]], int]:
        """(integer values by tag, offset of the next directory); the values of all tags are fetched."""
        count_size, entry_size, inline = (8, 20, 8) if self._big else (2, 12, 4)
        (count,) = struct.unpack(self._order + ("Q" if self._big else "H"), self._bytes(offset, count_size))
        if count > MAX_TAGS:
            raise CorruptInputError(f"{self._name} states {count} tags in a TIFF directory: get it again")
        body = self._bytes(offset + count_size, count * entry_size + inline)
        values = {}
        for start in range(0, count * entry_size, entry_size):
            tag, kind, number = struct.unpack_from(self._order + ("HHQ" if self._big else "HHI"), body, start)
            length = _TYPE_BYTES.get(kind, 0) * number
            data = body[start + entry_size - inline : start + entry_size]
            if length > inline:
                (where,) = struct.unpack(self._offset, data)
                data = self._bytes(where, length)
            if kind in _INTEGERS:
                numbers = np.frombuffer(data[:length], self._order + _INTEGERS[kind])
                values[tag] = numbers.astype(np.int64)
        (following,) = struct.unpack(self._offset, body[count * entry_size :])
        return values, following

    def _image(self, values: dict[int, NDArray[np.int64]]) -> Directory | None:
        """The image that a directory describes, None for one without blocks."""

        def one(tag: int, default: int) -> int:
            return int(values[tag][0]) if tag in values and len(values[tag]) else default

        tiled = _TILES in values
        offsets, sizes = values.get(_TILES if tiled else _STRIPS), values.get(_TILE_BYTES if tiled else _STRIP_BYTES)
        width, height = one(_WIDTH, 0), one(_HEIGHT, 0)
        if offsets is None or sizes is None or width <= 0 or height <= 0:
            return None
        block_width = one(_TILE_WIDTH, 0) if tiled else width
        block_height = one(_TILE_HEIGHT, 0) if tiled else min(one(_ROWS_PER_STRIP, height), height)
        if block_width <= 0 or block_height <= 0:
            raise CorruptInputError(f"{self._name} states blocks of {block_width} x {block_height} pixels")
        planes = one(_SAMPLES, 1) if one(_PLANAR, 1) == 2 else 1
        shape = (planes, -(-height // block_height), -(-width // block_width))
        if offsets.min(initial=0) < 0 or sizes.min(initial=0) < 0:
            raise CorruptInputError(f"{self._name} states blocks beyond any file")
        return Directory(
            width=width,
            height=height,
            block_width=block_width,
            block_height=block_height,
            offsets=offsets[: np.prod(shape)].reshape(shape),
            sizes=sizes[: np.prod(shape)].reshape(shape),
        )
