"""Tiles kept on this machine, as they came: a run that was killed and a plan that changes ask for none twice."""

import contextlib
import tempfile
from pathlib import Path

from skyscript_assets.lib.files import replacing

KEPT_SHARE = 0.8
"""Share of the limit down to which old tiles are removed, so that it is not reached again at once."""


def shared_folder(cache: Path | None) -> contextlib.AbstractContextManager[Path | str]:
    """The cache's folder, or a passing one where there is none."""
    return contextlib.nullcontext(cache) if cache is not None else tempfile.TemporaryDirectory(prefix="skyscript-")


class TileCache:
    """Tiles of one scene in a folder; an empty file is a tile without an image.

    The folders beside it are the caches of other scenes; `limit_bytes` is what all of them may take.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit, self._written = folder, limit_bytes, 0

    def path(self, column: int, row: int) -> Path:
        """Where a tile is kept, if it is."""
        return self._folder / str(row) / str(column)

    def write(self, column: int, row: int, data: bytes) -> None:
        """Keep a tile; a reader never meets half of one."""
        path = self.path(column, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
        self._written += 1

    def prune(self) -> None:
        """Remove the oldest tiles of all scenes, those of other scenes first, where they take more than the limit."""
        if not self._written:
            return
        found = []
        for path in self._folder.parent.glob("*/*/*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                # Where a clock was set back, the tiles that were just fetched look like the oldest.
                found.append((path.is_relative_to(self._folder), stat.st_mtime_ns, stat.st_size, path))
        size = sum(entry[2] for entry in found)
        if size <= self._limit:
            return
        for _, _, bytes_, path in sorted(found):
            path.unlink(missing_ok=True)
            size -= bytes_
            if size <= self._limit * KEPT_SHARE:
                return
