import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyscript_assets.lib.parts import Parts

TABLE = pa.table({"x": [1, 2]})


def left_by_a_run(folder: Path, count: int = 3, suffix: str = ".tar") -> Parts:
    """Parts as a run leaves them that is killed before its end."""
    parts = Parts(folder, suffix)
    for number in range(count):
        if suffix:
            parts.file(number).write_bytes(bytes(10 + number))
        parts.finish(number, "inputs", pa.table({"x": [number]}))
    return parts


@pytest.mark.parametrize("suffix", [".tar", ""])
def test_whole_parts_of_the_same_inputs_are_kept_and_their_tables_joined_in_order(tmp_path: Path, suffix: str) -> None:
    left_by_a_run(tmp_path, suffix=suffix)
    parts = Parts(tmp_path, suffix)
    assert [parts.keep(number, "inputs") for number in (2, 0, 3, 1)] == [True, True, False, True]
    assert parts.next_number == 3
    assert pa.concat_tables(parts.tables())["x"].to_pylist() == [0, 1, 2]
    assert next(parts.tables()).schema.metadata is None
    assert [path.name for path in parts.files()] == ([f"part-0000{n}.tar" for n in range(3)] if suffix else [])


def shorter(parts: Parts, table: Path) -> None:
    parts.file(1).write_bytes(bytes(3))


def away(parts: Parts, table: Path) -> None:
    parts.file(1).unlink()


def torn(parts: Parts, table: Path) -> None:
    table.write_bytes(table.read_bytes()[:-20])


@pytest.mark.parametrize("spoil", [shorter, away, torn])
def test_a_part_whose_file_or_table_is_not_whole_is_made_again(
    tmp_path: Path, spoil: Callable[[Parts, Path], None]
) -> None:
    table = tmp_path / ".part-00001.parquet"
    spoil(left_by_a_run(tmp_path), table)
    parts = Parts(tmp_path, ".tar")
    assert [parts.keep(number, "inputs") for number in range(3)] == [True, False, True]
    assert not table.exists(), "a table must not vouch for the file that comes next"


def test_a_part_of_other_inputs_is_made_again(tmp_path: Path) -> None:
    left_by_a_run(tmp_path)
    assert not Parts(tmp_path, ".tar").keep(0, "other inputs")


def test_a_part_may_have_no_file(tmp_path: Path) -> None:
    parts = Parts(tmp_path, ".tar")
    parts.finish(0, "inputs", TABLE)
    assert parts.files() == []
    assert Parts(tmp_path, ".tar").keep(0, "inputs")
    (tmp_path / "part-00000.tar").write_bytes(b"half")
    assert not Parts(tmp_path, ".tar").keep(0, "inputs")


@pytest.mark.parametrize("links", [True, False])
def test_files_of_a_finished_output_are_taken_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    finished, out = tmp_path / "finished", tmp_path / "out"
    for folder in (finished, out):
        folder.mkdir()
    left_by_a_run(finished)
    (out / "part-00001.tar").write_bytes(b"of a killed run")
    parts = Parts(out, ".tar")
    for path in sorted(finished.glob("part-*.tar")):
        parts.take(path)
    assert parts.next_number == 3
    assert [path.read_bytes() for path in parts.files()] == [bytes(10 + number) for number in range(3)]
    assert (finished / "part-00002.tar").samefile(out / "part-00002.tar") == links
    assert list(parts.tables()) == []


def test_in_the_end_only_the_files_of_the_parts_are_left(tmp_path: Path) -> None:
    left_by_a_run(tmp_path, count=5)
    for name in (".part-00003.tar.tmp", "..part-00004.parquet.1-2.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "chips.parquet").write_bytes(b"the joined table")
    parts = Parts(tmp_path, ".tar")
    assert all(parts.keep(number, "inputs") for number in range(2))
    parts.clear()
    assert {path.name for path in tmp_path.iterdir()} == {"part-00000.tar", "part-00001.tar", "chips.parquet"}


def test_a_table_comes_back_as_it_was(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.finish(7, "inputs", TABLE.replace_schema_metadata({"a": "b"}))
    (table,) = parts.tables()
    assert table.equals(TABLE, check_metadata=True)
    assert pq.read_schema(tmp_path / ".part-00007.parquet").metadata
