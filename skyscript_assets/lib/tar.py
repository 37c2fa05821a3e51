"""Tar shards: plain USTAR files of many small members, each readable by its offset alone.

Shards written here are byte-identical for the same members in the same order: no times, owners or extensions. Which
members a shard holds, and what they mean, belongs to its users.
"""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.files import MAX_NAME, is_name, replacing

BLOCK = 512
"""Size of a tar block in bytes (POSIX.1-2017, pax, "ustar Interchange Format")."""

RECORD = 20 * BLOCK
"""Archives are padded to whole records of 20 blocks, the default blocking factor of `tar`."""

MAX_MEMBER_BYTES = 8**11 - 1
"""Largest size that the eleven octal digits of the ustar size field can state."""

BUFFER_BYTES = 1 << 20
"""Small members wait until they are so many bytes."""


class TarEntry(NamedTuple):
    """Where a member's data lies in its shard, in bytes from the start of the file."""

    offset: int
    length: int


class TarShard:
    """A shard being written, used as a context manager.

    The file appears under its name, whole, when the block ends without an error; until then it is a hidden temporary
    file beside it, which an error removes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._offset = 0
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._file = stack.enter_context(stack.enter_context(replacing(self.path)).open("wb", BUFFER_BYTES))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._stack:
                assert self._file is not None
                self._file.write(bytes(2 * BLOCK + -(self._offset + 2 * BLOCK) % RECORD))
        else:
            self._stack.__exit__(kind, error, trace)
        self._file = None

    def __len__(self) -> int:
        """Members added so far."""
        return len(self._names)

    @property
    def size_bytes(self) -> int:
        """Bytes written so far, headers and padding included, the end of the archive not."""
        return self._offset

    def add(self, name: str, data: bytes) -> TarEntry:
        """Append a member and return where its data lies; its name is a new one, a file's (`lib.files.is_name`).

        Raises:
            ValueError: the name or the size cannot be stored, or the shard is not open.
        """
        if self._file is None:
            raise ValueError(f"{self.path} is not open for writing")
        if name in self._names:
            raise ValueError(f"{self.path}: member {name} was added before")
        entry = TarEntry(self._offset + BLOCK, len(data))
        for piece in (_header(name, len(data)), data, _PADDING[: -len(data) % BLOCK]):
            self._offset += self._file.write(piece)
        self._names.add(name)
        return entry


def read_member(path: Path, offset: int, length: int) -> bytes:
    """The data of a member, from the place that `TarShard.add` returned.

    Raises:
        UpstreamMissingError: the shard does not exist.
        CorruptInputError: the shard ends before the member does.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        raise UpstreamMissingError(f"{path} does not exist: materialize its asset again") from None
    if len(data) != length:
        raise CorruptInputError(f"{path} is truncated: bytes {offset} to {offset + length} are not all there")
    return data


def _header(name: str, size: int) -> bytes:
    """The 512 bytes before a member: a regular file of mode 0644, owner 0, time 0."""
    if not is_name(name):  # whoever unpacks a shard makes files of these
        raise ValueError(f"{name!r} is no tar member name: use up to {MAX_NAME} letters, digits, _, - and single dots")
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{name}: {size} bytes are more than a tar member can hold")
    digits = b"%011o" % size
    # The checksum is the sum of all header bytes with its own field taken as eight spaces.
    checksum = sum(name.encode()) + sum(digits) + _CONSTANT_SUM
    return b"%b%b%b%b%06o\0 %b" % (name.encode().ljust(100, b"\0"), _BEFORE_SIZE, digits, _AFTER_SIZE, checksum, _AFTER)


_BEFORE_SIZE, _AFTER_SIZE = b"0000644\x000000000\x000000000\x00", b"\x0000000000000\x00"
_AFTER = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
_CONSTANT_SUM = sum(_BEFORE_SIZE) + sum(_AFTER_SIZE) + sum(_AFTER) + 8 * 0x20
_PADDING = bytes(BLOCK)
