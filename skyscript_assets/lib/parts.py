"""Numbered parts of an output that is being made: what a killed run has finished, the next one keeps.

A part is a table and, where its stage wants one, a file beside it. The table is written last: a part is whole when its
table is there, made from the same, and its file has the size that it had then. In the end the tables are joined by the
stage into one and removed; the files stay as they are.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skyscript_assets.lib.files import link_or_copy
from skyscript_assets.lib.tables import read_table, write_table


class Parts:
    """The parts of one output.

    Args:
        folder: Existing folder in which the output is made; a run that was killed has left its parts there.
        suffix: Ending of the file beside each table (`.tar`); "" where there is none.
    """

    def __init__(self, folder: Path, suffix: str = "") -> None:
        self._folder, self._suffix = folder, suffix
        self._numbers: set[int] = set()

    def file(self, number: int) -> Path:
        """Where the file beside a part's table lies."""
        return self._folder / f"part-{number:05d}{self._suffix}"

    def _table(self, number: int) -> Path:
        return self._folder / f".part-{number:05d}.parquet"

    def _metadata(self, number: int, made_from: str) -> dict[bytes, bytes]:
        size = self.file(number).stat().st_size if self.file(number).exists() else 0
        return {b"skyscript:made_from": made_from.encode(), b"skyscript:file_bytes": str(size).encode()}

    @property
    def next_number(self) -> int:
        """One more than the greatest number of a part."""
        return max(self._numbers, default=-1) + 1

    def keep(self, number: int, made_from: str) -> bool:
        """Keep a part that an earlier run has finished, made from what has this digest; whether there is one."""
        try:
            found = pq.read_schema(self._table(number)).metadata or {}
        except (OSError, pa.ArrowInvalid):
            found = {}
        whole = self._metadata(number, made_from).items() <= found.items()
        if whole:
            self._numbers.add(number)
        else:
            self._table(number).unlink(missing_ok=True)
        return whole

    def finish(self, number: int, made_from: str, table: pa.Table) -> None:
        """Write the table of a part whose file is there: it is whole now."""
        write_table(self._table(number), table.replace_schema_metadata(self._metadata(number, made_from)))
        self._numbers.add(number)

    def take(self, file: Path) -> None:
        """Take the file of a finished output's part as it is, by a link where that can be; its rows are known."""
        number = int(file.name.removeprefix("part-").removesuffix(self._suffix))
        for path in (self.file(number), self._table(number)):
            path.unlink(missing_ok=True)
        link_or_copy(file, self.file(number))
        self._numbers.add(number)

    def tables(self) -> Iterator[pa.Table]:
        """The tables of the parts, by number; one is in memory at a time."""
        for number in sorted(self._numbers):
            if self._table(number).exists():
                yield read_table(self._table(number)).replace_schema_metadata(None)

    def files(self) -> list[Path]:
        """The files of the parts, by number."""
        return [self.file(number) for number in sorted(self._numbers) if self.file(number).exists()]

    def clear(self) -> None:
        """Remove the tables, and whatever a killed run or an earlier, larger output has left beside the files."""
        left = {path for pattern in (".part-*", "..part-*", "part-*") for path in self._folder.glob(pattern)}
        for path in left - set(self.files()):
            path.unlink()
