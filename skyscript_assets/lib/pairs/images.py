"""Images of pairs by their place: read from files that stay open, or from an object store, checked and decoded."""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from skyscript_assets.lib.errors import CorruptInputError, StorageError, UpstreamMissingError
from skyscript_assets.lib.files import inside
from skyscript_assets.lib.storage.remote import ObjectStore
from skyscript_assets.lib.towers.images import MAX_BYTES
from skyscript_assets.lib.towers.views import UInt8Array, decode_image

MAX_OPEN = 256
"""Files kept open: opening costs more than reading where the disk is another machine's."""

REMEDY = "materialize image_chips and training_manifest again"


class Place(NamedTuple):
    """Where the image of a pair lies, in bytes from the start of its shard, and its digest where that is known."""

    chip_id: str
    shard: str
    offset: int
    length: int
    sha256: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """That of a row of `read_pairs`."""
        return cls(*(row[name] for name in cls._fields))


class Images:
    """Images by their place; threads may share it.

    `path_of` gives the file of a shard, or its path below the object store `remote`; `decode` makes pixels of bytes and
    a name for messages; `remedy` tells what to do about an image that is not the one that was listed.
    """

    def __init__(
        self,
        path_of: Callable[[str], Path],
        decode: Callable[[bytes, str], UInt8Array] = decode_image,
        remedy: str = REMEDY,
        remote: ObjectStore | None = None,
    ) -> None:
        self._path_of, self._decode, self._remedy, self.remote = path_of, decode, remedy, remote
        # A file that leaves the cache is closed when the last thread that reads from it is done.
        self._opened = functools.lru_cache(MAX_OPEN)(lambda shard: path_of(shard).open("rb", buffering=0))

    def pixels(self, place: Place) -> UInt8Array:
        """An image as (height, width, 3). Raises as `read` does, and CorruptInputError where it cannot be decoded."""
        return self._decode(self.read(place), f"{place.shard}: {place.chip_id}")

    def read(self, place: Place) -> bytes:
        """The bytes of an image.

        Raises:
            UpstreamMissingError: its shard does not exist.
            CorruptInputError: the shard ends before it, or it is not the image that was listed.
            StorageError, UnreachableError: the shard cannot be read.
        """
        chip_id, shard, offset, length, sha256 = place
        try:
            data = self._bytes(shard, offset, length) if offset >= 0 and 0 < length <= MAX_BYTES else b""
        except FileNotFoundError as error:
            told = f"{shard} does not exist, which holds the image of {chip_id}"
            raise UpstreamMissingError(f"{told}; {self._remedy}") from error
        except (OSError, StorageError) as error:
            raise StorageError(f"{shard}: the image of {chip_id} cannot be read ({error}); {self._remedy}") from error
        if not 0 < length == len(data):
            told = f"{shard} is truncated: {length} bytes at {offset}, the image of {chip_id}, are not all there"
            raise CorruptInputError(f"{told}; {self._remedy}")
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            told = f"{shard}: the image of {chip_id} is not the one that was listed: damaged, or made again since"
            raise CorruptInputError(f"{told}; {self._remedy}")
        return data

    def _bytes(self, shard: str, offset: int, length: int) -> bytes:
        if self.remote is not None:
            return self.remote.read_range(self._path_of(shard).as_posix(), offset, length)
        file = self._opened(shard)  # held here, it stays open
        return os.pread(file.fileno(), length, offset)


def images_in(chips: Path) -> Images:
    """Those of an `image_chips` folder, by its own shards."""
    return Images(lambda shard: inside(chips, shard), remedy=f"materialize image_chips again, here {chips}")


def chip_images(folder_of: Callable[[str, str], Path], remote: ObjectStore | None = None) -> Images:
    """The images of chips by `image_shard` of the training manifest, given the image_chips of a region and source."""

    def path_of(shard: str) -> Path:
        region, source, tar = shard.split("/")
        return inside(folder_of(region, source), tar)

    return Images(path_of, remote=remote)
