"""What osmium does not say of a PBF extract: the features of its header, and whether its last block has begun only.

The layout is that of https://wiki.openstreetmap.org/wiki/PBF_Format. Everything else of a PBF is read by osmium.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from skyscript_assets.lib.errors import CorruptInputError

SORTED = "Sort.Type_then_ID"
"""Feature of a file with nodes first, then ways, then relations, each by id."""

MAX_BLOB_BYTES = 32 << 20
"""Largest block that the format allows."""


@dataclass(frozen=True)
class Features:
    """Features of a PBF by name: those that a reader must know, and those that it may pass over."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def read_features(path: Path) -> Features:
    """The features of a file's header; none where it is no PBF, or where the header is packed other than by zlib.

    Raises:
        CorruptInputError: the header is damaged.
    """
    with path.open("rb") as file:
        try:
            blob_header = _blob_header(file)
            if b"OSMHeader" not in blob_header:
                return Features()
            blob = dict(_fields(file.read(min(_blob_bytes(blob_header), MAX_BLOB_BYTES))))
            header = _bytes(blob[1]) if 1 in blob else _inflated(_bytes(blob.get(3, b"")))
            named = [(number, _bytes(value).decode()) for number, value in _fields(header) if number in (4, 5)]
        except (ValueError, IndexError, zlib.error) as error:
            raise CorruptInputError(f"{path} has a damaged header ({error}); get the extract again") from error
    return Features(*(tuple(name for number, name in named if number == wanted) for wanted in (4, 5)))


def check_blocks(path: Path) -> None:
    """Go from block to block of a PBF without reading what they hold; osmium takes up to three odd bytes for its end.

    Raises:
        CorruptInputError: the last block is not whole.
    """
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            try:
                blob_header = _blob_header(file)
                if position == 0 and b"OSMHeader" not in blob_header:
                    return
                position = file.tell() + _blob_bytes(blob_header)
            except (ValueError, IndexError) as error:
                raise CorruptInputError(
                    f"{path} is not whole (the block at byte {position}: {error}); get the extract again"
                ) from error
            file.seek(position)
    if position > size:
        raise CorruptInputError(
            f"{path} is not whole (it ends after {size} bytes, in the middle of a block); get the extract again"
        )


def _blob_header(file: IO[bytes]) -> bytes:
    """The header of the next block; no bytes where what comes is no PBF.

    Raises:
        ValueError: it is cut.
    """
    size = file.read(4)
    if size[:2] != b"\0\0":
        return b""
    if len(size) < 4:
        raise ValueError("its length is cut")
    header = file.read(int.from_bytes(size, "big"))
    if len(header) < int.from_bytes(size, "big"):
        raise ValueError("its beginning is cut")
    return header


def _blob_bytes(blob_header: bytes) -> int:
    """Length of a block behind its header."""
    lengths = [value for number, value in _fields(blob_header) if number == 3]
    if len(lengths) != 1 or not isinstance(lengths[0], int):
        raise ValueError("its length is missing")
    return lengths[0]


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, MAX_BLOB_BYTES) if data else b""


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("bytes were expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of every field of a Protocol Buffers message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if position + length > len(data):
            raise ValueError("a field is cut")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, and where the next one begins."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
