"""An OSM PBF as a file: its header, where its blocks lie, how they are packed, and in which order they come.

Format: OSM wiki, "PBF Format", and fileformat.proto of openstreetmap/OSM-binary.
"""

import contextlib
import lzma
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.pbf.blocks import Block, Kind
from skyscript_assets.lib.osm.pbf.wire import fields

MAX_HEADER_BYTES = 64 * 1024
"""Greatest size of a BlobHeader (wiki: PBF Format, "File format")."""

MAX_BLOB_BYTES = 32 * 1024 * 1024
"""Greatest size of a blob, packed and unpacked (the same section)."""

KNOWN_FEATURES = frozenset({"OsmSchema-V0.6", "DenseNodes"})
"""Required features that are understood here; `HistoricalInformation`, above all, is not."""

SORTED = "Sort.Type_then_ID"
"""Optional feature of a file with nodes first, then ways, then relations, each by id."""

_ORDER: dict[Kind, int] = {"nodes": 0, "dense": 0, "ways": 1, "relations": 2}
_T = TypeVar("_T")
_PROBLEMS = (ValueError, IndexError, zlib.error, lzma.LZMAError, pa.ArrowException)


class PbfFile:
    """A sorted OSM PBF: where its blobs lie, and which of them hold which kind of objects.

    Attributes:
        required: Features that a reader must know.
        optional: Features that it may pass over.
        box: West, south, east and north in degrees as its header states them, None where it states no box.
        blocks: Data blocks in it.
    """

    def __init__(self, path: Path) -> None:
        """Find the blobs; nothing is read but the file's header and theirs.

        Raises:
            CorruptInputError: the file is cut off or no PBF.
        """
        self.path = path
        self.required: tuple[str, ...] = ()
        self.optional: tuple[str, ...] = ()
        self.box: Bounds | None = None
        self._blobs: list[tuple[int, int]] = []
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                while file.tell() < size:
                    self._next(file, size)
        except _PROBLEMS as error:
            raise CorruptInputError(f"{path} is not a whole PBF ({error}); get the extract again") from error
        self.blocks = len(self._blobs)

    def _next(self, file: BinaryIO, size: int) -> None:
        """Note a blob and go to the one behind it."""
        name, length = _blob_header(file)
        place = file.tell()
        if place + length > size:
            raise ValueError(f"it ends after {size} bytes, in the middle of a block")
        if not self._blobs and place < MAX_HEADER_BYTES and name not in (b"OSMHeader", b"OSMData"):
            raise ValueError("it does not begin with an OSM header")
        if name == b"OSMData":
            self._blobs.append((place, length))
        elif name == b"OSMHeader":
            header = fields(memoryview(_unpacked(file.read(length))))
            known = [(number, value) for number, value in header if isinstance(value, memoryview)]
            self.required, self.optional = (
                tuple(bytes(value).decode() for number, value in known if number == n) for n in (4, 5)
            )
            self.box = next((_box(value) for number, value in known if number == 1), None)
        file.seek(place + length)

    @cached_property
    def _starts(self) -> tuple[int, int]:
        """The first blocks that begin with ways or relations; CorruptInputError where it needs unknown features."""
        if unknown := sorted(set(self.required) - KNOWN_FEATURES):
            raise CorruptInputError(
                f"{self.path} needs {', '.join(unknown)}, which is not understood; give a plain extract without history"
            )
        return self._first_of(1), self._first_of(2)

    def sections(self) -> tuple[range, range, range]:
        """Blocks that hold nodes, ways and relations; the one in which two kinds meet belongs to both."""
        ways, relations = self._starts
        return range(ways), range(max(0, ways - 1), relations), range(max(0, relations - 1), self.blocks)

    def read(self, decode: Callable[[Sequence[Block]], _T], numbers: Iterable[int]) -> _T:
        """What some blocks hold of one kind, by `nodes_of`, `ways_of` or `relations_of`.

        Raises:
            CorruptInputError: a block cannot be read, or the file is not sorted.
        """
        with self._blame(numbers):
            found = list(self._each(numbers))
            for number, block in zip(numbers, found, strict=True):
                self._check_order(number, _kinds(block))
            return decode(found)

    @contextlib.contextmanager
    def _blame(self, blocks: Iterable[int]) -> Iterator[None]:
        try:
            yield
        except _PROBLEMS as error:
            raise CorruptInputError(
                f"{self.path}: data blocks {min(blocks)} to {max(blocks)} cannot be read ({error}); "
                "get the extract again"
            ) from error

    def _each(self, numbers: Iterable[int]) -> Iterator[Block]:
        with self.path.open("rb") as file:
            for number in numbers:
                place, size = self._blobs[number]
                file.seek(place)
                yield Block.of(_unpacked(file.read(size)))

    def _check_order(self, number: int, kinds: list[int]) -> None:
        """Raise CorruptInputError where a block holds what a sorted file would have elsewhere."""
        if not kinds:
            return
        ways, relations = self._starts
        first = (number >= ways) + (number >= relations)
        # Only the last block of a section may go on with the next kind.
        shared = number + 1 in (ways, relations) or first == 2
        if kinds != sorted(kinds) or kinds[0] != first or (kinds[-1] > first and not shared):
            raise unsorted_error(self.path)

    def _first_of(self, order: int) -> int:
        """The first block that begins with objects of this or a later kind, found by bisection."""
        low, high = 0, self.blocks
        while low < high:
            middle = (low + high) // 2
            with self._blame(range(middle, high)):
                # A block without objects counts as the next one that has some.
                begins = next((kinds[0] for kinds in map(_kinds, self._each(range(middle, high))) if kinds), order)
            low, high = (low, middle) if begins >= order else (middle + 1, high)
        return low


def _kinds(block: Block) -> list[int]:
    return [_ORDER[kind] for kind, _ in block.groups]


def _box(message: memoryview) -> Bounds:
    """A HeaderBBox: left, right, top and bottom in nanodegrees, as signed integers."""
    sides = {number: (value >> 1 ^ -(value & 1)) / 1e9 for number, value in fields(message) if isinstance(value, int)}
    west, east, north, south = (sides.get(number, 0.0) for number in (1, 2, 3, 4))
    return west, south, east, north


def unsorted_error(path: Path) -> CorruptInputError:
    """What is said of a file whose objects are not in the order of type and id."""
    return CorruptInputError(
        f"{path} is not sorted: nodes, ways and relations must follow each other by id (negative ids first, -1 before "
        "-2); bring it in order with `osmium sort`, or give it new ids with `osmium renumber`"
    )


def _blob_header(file: BinaryIO) -> tuple[bytes, int]:
    """Type and size of the blob that comes next; the file then stands at its content."""
    head = file.read(4)
    if len(head) < 4:
        raise ValueError("the length of a block is cut off")
    (length,) = struct.unpack(">I", head)
    if length > MAX_HEADER_BYTES:
        raise ValueError("a block does not begin with a header")
    content = file.read(length)
    if len(content) < length:
        raise ValueError("the header of a block is cut off")
    found = dict(fields(memoryview(content)))
    name, size = found.get(1), found.get(3)
    if not isinstance(name, memoryview) or not isinstance(size, int):
        raise ValueError("a block does not tell its kind and length")
    if size > MAX_BLOB_BYTES:
        raise ValueError(f"a block of {size} bytes is larger than the format allows")
    return bytes(name), size


def _unpacked(blob: bytes) -> bytes:
    """Content of a Blob."""
    found = dict(fields(memoryview(blob)))
    size = found.get(2, 0)
    if not isinstance(size, int) or size > MAX_BLOB_BYTES:
        raise ValueError(f"a block unpacks to {size} bytes, more than the format allows")
    if isinstance(raw := found.get(1), memoryview):
        return bytes(raw)
    if isinstance(packed := found.get(3), memoryview):
        stream = zlib.decompressobj()
        content = stream.decompress(packed, size)
        if len(content) < size or stream.unconsumed_tail or not (stream.eof or stream.decompress(b"", 1) == b""):
            raise ValueError("a block is not as long as it says")
        return content
    if isinstance(packed := found.get(4), memoryview):
        return lzma.LZMADecompressor().decompress(packed, size)
    for number, codec in ((6, "lz4_raw"), (7, "zstd")):
        if isinstance(packed := found.get(number), memoryview):
            try:
                return pa.Codec(codec).decompress(pa.py_buffer(packed), size, asbytes=True)  # type: ignore[no-any-return]
            except OSError as error:  # it is no file that fails here
                raise ValueError(str(error)) from error
    raise ValueError("a block is packed in a way that is not known")
