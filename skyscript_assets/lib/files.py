"""Files that are whole or absent, their names, and what is known of them: digests, stamps."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skyscript_assets.lib.errors import CorruptInputError, NoSpaceError, OutputBusyError, StorageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
"""What may be the name of a file or folder here: it leads nowhere, hides nothing and is one name on every system."""

MAX_NAME = 100
"""Most characters; a ustar header has room for as many."""


def is_name(text: str) -> bool:
    """Whether a text may be the name of a file or folder."""
    return len(text) <= MAX_NAME and NAME.fullmatch(text) is not None


def inside(folder: Path, name: str) -> Path:
    """A file in a folder, by a relative path that stands in a table or record.

    Raises:
        CorruptInputError: it leads out of the folder.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise CorruptInputError(f"{folder}: {name[:200]!r} leads out of it; make again the output that names it")
    return folder / name


def check_room(folder: Path, needed: int, what: str, kept: int = 0) -> None:
    """Raise NoSpaceError where a disk has less room than bytes are needed for `what`; `kept` ones are there already."""
    free = shutil.disk_usage(folder).free + kept
    if needed > free:
        raise NoSpaceError(f"{folder}: {needed} bytes are {what}, {free} are free; free some and run again")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write a file under; it takes the place of `path` when the block ends well.

    Several processes may do so at once: the last one wins, and no reader meets half a file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path, what: object) -> Iterator[None]:
    """Keep other processes of this machine from what a file or folder, which is there, stands for.

    Raises:
        OutputBusyError: one of them has it.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputBusyError(f"{what} is being written by another process; wait for it to end") from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[Path]:
    """An empty folder to write into, which becomes `out` when the block ends well; what a kill left of one is removed.

    Raises:
        StorageError: `out` is there, or cannot be written.
        OutputBusyError: another process is writing it.
    """
    folder = out.with_name(f".{out.name}.partial")
    try:
        if out.exists():
            raise StorageError(f"{out} exists: name a folder that does not, or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, out):
            for left in folder.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            try:
                yield folder
                os.replace(folder, out)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{out} cannot be written ({error}); make room, or name another folder") from error


@contextlib.contextmanager
def picture_file(path: Path) -> Iterator[io.BytesIO]:
    """A buffer to save a picture into; it becomes the file, whole or not at all, when the block ends well.

    Pillow, and matplotlib by it, take a file for written of which a full disk took only the beginning.
    """
    buffer = io.BytesIO()
    yield buffer
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stamp(path: Path) -> dict[str, Any]:
    """Size and modification time of a file: a cheap sign that it has changed; all None where it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return {"path": str(path), "size": None, "mtime_ns": None}
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
