"""What lies below a root and no output needs: earlier versions, aborted work, uploads without a pointer.

This is the one place that looks at clocks: what was in use until a while ago stays, so that processes which began to
read or write it can end. A version is in use until another one takes its place, and as long as a body runs on this
machine that may have begun to read it.
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyscript_assets.lib.errors import OutputBusyError
from skyscript_assets.lib.storage.records import VERSION, OutputKey
from skyscript_assets.lib.storage.remote import ObjectStore
from skyscript_assets.lib.storage.store import POINTERS, STAGING, VERSIONS, Heads, Store

SET_BACK_S = 86_400.0
"""By so much a clock may have been set back since a body began: what came after that then looks older than it."""

_UPLOAD = re.compile(rf"{re.escape(VERSIONS)}/(?P<output>.+?)/(?P<version>{VERSION.pattern})/")


@dataclass(frozen=True)
class Left:
    """Something that no output needs.

    Attributes:
        key: The output that it was part of.
        what: `version`, `staging`, `upload` or `pointer`; the last two are in the object store.
        before: Time before which it must have been in use last.
        places: The folder, or the objects.
    """

    key: OutputKey
    what: str
    size_bytes: int
    before: float
    places: tuple[str, ...]


def left_over(store: Store, older_than_s: float) -> Iterator[Left]:
    """Everything that no output needs and nobody has used for some seconds.

    Raises:
        StorageError: the root cannot be read.
        UnreachableError: the object store cannot be reached.
    """
    before = time.time() - older_than_s
    if store.remote is not None:
        yield from _remote(store, store.remote, before)
    before = min([before, *_bodies_began(store.local / STAGING)])
    for key, what, folder in (*_versions(store), *_staged(store)):
        if _used(folder) < before:
            size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
            yield Left(key, what, size, before, (str(folder),))


def remove(store: Store, left: Left) -> None:
    """Remove what is left over, unless somebody uses it again."""
    if left.what in ("upload", "pointer") and store.remote is not None:
        store.remote.delete(left.places)
        return
    (folder,) = map(Path, left.places)
    with contextlib.suppress(OutputBusyError), store.lock(left.key):
        if _used(folder) < left.before:
            shutil.rmtree(folder)


def _used(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


def _bodies_began(staging: Path) -> Iterator[float]:
    for lock in staging.glob("*.lock"):
        with lock.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                yield lock.stat().st_mtime - SET_BACK_S


def _staged(store: Store) -> Iterator[tuple[OutputKey, str, Path]]:
    for folder in (store.local / STAGING).glob("*"):
        if folder.is_dir() and not folder.is_symlink():
            yield _key(folder.name.split("+")), "staging", folder


def _versions(store: Store) -> Iterator[tuple[OutputKey, str, Path]]:
    """Versions that are not current."""
    heads, root = Heads(store), store.local / VERSIONS
    for path, names, _ in os.walk(root):
        versions = {name for name in names if VERSION.fullmatch(name)}
        names[:] = set(names) - versions
        if versions:
            key = _key(Path(path).relative_to(root).parts)
            now = heads[key]
            yield from ((key, "version", Path(path, name)) for name in versions if now is None or name != now.version)


def _remote(store: Store, remote: ObjectStore, before: float) -> Iterator[Left]:
    """A pointer is left when the next one is old enough, and a version when none of the others names it."""
    uploads: dict[tuple[OutputKey, str], list[tuple[str, int, float]]] = defaultdict(list)
    for item in remote.below(VERSIONS):
        if found := _UPLOAD.match(item["path"]):
            facts = (item["path"], item["size"], item["last_modified"].timestamp())
            uploads[_key(found["output"].split("/")), found["version"]].append(facts)
    kept = set()
    for key, pointers in store.pointers().items():
        later = [*(made for _, made in pointers[1:]), float("inf")]
        for (name, made), replaced in zip(pointers, later, strict=True):
            if max(made, replaced) < before:
                yield Left(key, "pointer", 0, before, (f"{POINTERS}/{key}/{name}",))
            else:
                kept.add((key, name.partition(".")[2]))
    for (key, version), files in uploads.items():
        if (key, version) not in kept and max(made for *_, made in files) < before:
            yield Left(key, "upload", sum(size for _, size, _ in files), before, tuple(place for place, *_ in files))


def _key(parts: Sequence[str]) -> OutputKey:
    return OutputKey(parts[0], tuple(parts[1:]))
