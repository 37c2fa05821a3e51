"""The outputs below one root: found, read, made, and put in the place of earlier ones.

    root/asset/region/source                 what readers see: a symbolic link to the current version
    root/.versions/asset/region/source/NAME  an immutable version; its name tells what `Head` holds
    root/.staging/asset+region+source        an output that is being made, with its lock and a note

In an object store versions lie in the same place. What is current is told by the last of the names
`.pointers/asset/region/source/NUMBER.NAME`: a writer adds the next one when all files of its version are there, and
where two writers take one number, the order of names decides, for everybody alike. No condition and no clock is needed,
and a request that is repeated does no harm. For other readers, `asset/region/source/output.json` follows. Outputs are
made and read through a local scratch folder of the same form.
"""

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from skyscript_assets.lib.errors import (
    DigestMismatchError,
    NoSpaceError,
    OutputSchemaError,
    SkyScriptError,
    StorageError,
    UpstreamMissingError,
    no_space,
)
from skyscript_assets.lib.files import digest, file_sha256, inside, locked, write_text
from skyscript_assets.lib.storage.records import RECORD, Head, OutputKey, OutputRecord, parse_record, short_digest
from skyscript_assets.lib.storage.remote import ObjectStore

MIN_FREE_BYTES = 256 * 1024 * 1024
"""Free space below which no output is begun."""

FULL_BYTES = 64 * 1024
"""Free space below which a failure to write is one of space."""

VERSIONS, POINTERS, STAGING = ".versions", ".pointers", ".staging"

_NO_LINK = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL)  # the last one: a folder of further partitions
_verified: set[Path] = set()  # versions whose files this process has read and found to be those of the record


class Store:
    """The outputs below one root.

    Args:
        root: A local folder or the address of an object store (`s3://bucket/folder`).
        scratch: Local folder for staging and for copies of remote outputs; needed for an address only.

    Raises:
        StorageError: the root is no address, or needs a package that is not installed.
    """

    def __init__(self, root: str | Path, scratch: Path | None = None) -> None:
        self.root = str(root)
        self.remote = None
        scheme, separator, path = self.root.partition("://")
        if separator and scheme not in ("file", "local"):
            if scratch is None:
                raise StorageError(f"{root} is remote: give a local scratch folder as well")
            self.remote, path = ObjectStore(self.root), str(scratch)
        self.local = Path(path if separator else self.root).absolute()

    def staging(self, key: OutputKey, ending: str = "") -> Path:
        """Where an output is made; with an ending its note (`.json`) or its lock (`.lock`)."""
        return self.local / STAGING / f"{key.path.replace('/', '+')}{ending}"

    def versions(self, key: OutputKey) -> Path:
        """The local folder of an output's versions."""
        return self.local / VERSIONS / key.path

    def head(self, key: OutputKey) -> Head | None:
        """What is current of an output, or None; a local record that is broken is its `problem`.

        Raises:
            StorageError: the data folder cannot be read.
        """
        if self.remote is not None:
            return current(self.pointers(key.path).get(key))
        link = self.local / key.path
        try:
            head = Head.of(link.readlink().name)
            self._raw(key, head)
        except OutputSchemaError as error:
            return dataclasses.replace(head, problem=str(error))
        except OSError as error:
            if error.errno in _NO_LINK:
                return None
            raise StorageError(f"{link} cannot be read ({error})") from error
        return head

    def record(self, key: OutputKey) -> OutputRecord | None:
        """The record of a complete output, or None.

        Raises:
            OutputSchemaError: the record is unreadable or of a later layout.
            StorageError: the data folder cannot be read.
        """
        head = self.head(key)
        return None if head is None else self._record(key, head)

    def _record(self, key: OutputKey, head: Head) -> OutputRecord:
        return parse_record(self._raw(key, head), f"{self.root}/{key.path}/{RECORD}")

    def _raw(self, key: OutputKey, head: Head) -> bytes:
        """A record's bytes, which are those that were written."""
        if head.problem:
            raise OutputSchemaError(head.problem)
        place = f"{VERSIONS}/{key.path}/{head.version}/{RECORD}"
        try:
            raw = (self.local / place).read_bytes() if self.remote is None else self.remote.read(place)
            reason = "it was changed"
        except (OSError, StorageError) as error:
            raw, reason = b"", str(error)
        if short_digest(raw) != head.record_digest:
            shown = f"{self.root}/{key.path}/{RECORD}"
            raise OutputSchemaError(f"{shown} is not the record that was written ({reason}): skyscript run {key}")
        return raw

    def folder(self, key: OutputKey, *, verify: bool = False, head: Head | None = None) -> Path:
        """The local folder of the current version, or another one; it stays as it is when the output is replaced.

        A remote one is copied into the scratch folder first. Files are there and have their sizes; with `verify` their
        bytes are read, once a process, and are those of the record.

        Raises:
            UpstreamMissingError: there is no complete output of that name.
            OutputSchemaError: its record is unreadable.
            DigestMismatchError: a file is not the one that was written.
        """
        head = head or self.head(key)
        if head is None:
            raise UpstreamMissingError(f"{key} has not been materialized: run `skyscript run {key}` first")
        folder = self.versions(key) / head.version
        if self.remote is None:
            check_files(key, folder, self._record(key, head), verify=verify)
            return folder
        with contextlib.suppress(FileNotFoundError, OutputSchemaError, DigestMismatchError):
            check_files(key, folder, parse_record((folder / RECORD).read_bytes(), str(folder)), verify=verify)
            os.utime(folder)  # it is in use: `skyscript gc` looks at this
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        self._fetch(self.remote, key, folder, self._record(key, head))
        return folder

    def _fetch(self, remote: ObjectStore, key: OutputKey, folder: Path, record: OutputRecord) -> None:
        """Copy a version into the scratch folder, where it is whole or not at all."""
        copy = folder.with_name(f"copy.-.0.0.{secrets.token_hex(8)}")
        with self._explaining(key):
            try:
                for name, (_, sha256) in record.files.items():
                    target = inside(copy, name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    place = f"{VERSIONS}/{key.path}/{folder.name}/{name}"
                    if remote.fetch(place, target) != sha256:
                        raise _mismatch(key, f"{self.root}/{place}", "its SHA-256 is another one")
                copy.mkdir(parents=True, exist_ok=True)
                write_text(copy / RECORD, record.text)
                if not folder.exists():  # else another process was faster
                    copy.rename(folder)
                _verified.add(folder)
            finally:
                shutil.rmtree(copy, ignore_errors=True)

    def pointers(self, below: str = "") -> dict[OutputKey, list[tuple[str, float]]]:
        """Pointers of remote outputs by one listing, name and time of change of each, the current one last."""
        found = defaultdict(list)
        for item in () if self.remote is None else self.remote.below(f"{POINTERS}/{below}"):
            _, asset, *partition, name = item["path"].split("/")
            if name[:8].isdigit():
                found[OutputKey(asset, tuple(partition))].append((name, item["last_modified"].timestamp()))
        return {key: sorted(pointers) for key, pointers in found.items()}

    def linked(self, asset: str, partition: tuple[str, ...] = ()) -> Iterator[OutputKey]:
        """Names of the local outputs of an asset, below some partition keys."""
        path = self.local.joinpath(asset, *partition)
        if path.is_symlink():
            yield OutputKey(asset, partition)
        elif path.is_dir():
            for inner in path.iterdir():
                yield from self.linked(asset, (*partition, inner.name))

    def cache(self, name: str) -> Path:
        """A local folder for things that can be made again at any time."""
        folder = self.local / ".cache" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def size_bytes(self) -> int:
        """Bytes below the local root, caches, staging and earlier versions included."""
        return sum(path.stat().st_size for path in self.local.rglob("*") if path.is_file())

    @contextlib.contextmanager
    def writing(self, key: OutputKey, fingerprint: str) -> Iterator[Path]:
        """A staging folder for an output, locked against other processes.

        It keeps what an earlier attempt with the same fingerprint left there, and is empty otherwise. Call `complete`
        inside the block; leaving the block without it keeps the staging folder for the next attempt.

        Raises:
            OutputBusyError: another process is writing the same output.
            NoSpaceError: the disk is full or nearly so.
            StorageError: something in the data folder cannot be read or written.
        """
        staging, note = self.staging(key), self.staging(key, ".json")
        with self._explaining(key), self.lock(key):
            if (free := shutil.disk_usage(self.local).free) < MIN_FREE_BYTES:
                needed = f"{MIN_FREE_BYTES / 1e6:.0f} MB are needed to begin {key}"
                raise NoSpaceError(f"{self.local} has {free / 1e6:.0f} MB free, {needed}")
            if not note.is_file() or note.read_text(encoding="utf-8") != fingerprint:
                note.unlink(missing_ok=True)
                shutil.rmtree(staging, ignore_errors=True)
                write_text(note, fingerprint)
            staging.mkdir(exist_ok=True)
            (staging / RECORD).unlink(missing_ok=True)
            yield staging

    def complete(
        self,
        key: OutputKey,
        *,
        fingerprint: str,
        made_from: Mapping[str, Any],
        counts: Mapping[str, Any],
        unversioned: Collection[str] = (),
    ) -> OutputRecord:
        """Give a staged output its record and its name, in place of an earlier one.

        `unversioned` names files that are no part of the data version: they tell of the making, or only show the rest.
        """
        staging = self.staging(key)
        for left in staging.rglob(".*.tmp"):  # by an attempt that was killed
            left.unlink()
        files = {
            path.relative_to(staging).as_posix(): (path.stat().st_size, file_sha256(path))
            for path in sorted(staging.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        content = digest({name: sha256 for name, (_, sha256) in files.items() if name not in unversioned})
        record = OutputRecord(str(key), fingerprint, dict(made_from), dict(counts), files, content)
        write_text(staging / RECORD, record.text)
        self._publish(key, record)
        return record

    def remove(self, key: OutputKey) -> None:
        """Take an output's name away; its versions stay for those that read them, until `skyscript gc` removes them.

        Raises:
            OutputBusyError: another process is writing it.
            StorageError: the data folder cannot be written.
        """
        link = self.local / key.path
        with self._explaining(key), self.lock(key):
            if link.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    os.utime(link)
                link.unlink()
            if self.remote is not None:
                pointers = self.pointers(key.path).get(key, [])
                self.remote.delete([*(f"{POINTERS}/{key.path}/{name}" for name, _ in pointers), f"{key.path}/{RECORD}"])

    def finish(self, key: OutputKey, fingerprint: str) -> OutputRecord | None:
        """Give an output its name that a killed run had completed and not yet named; None where there is none."""
        note, staging = self.staging(key, ".json"), self.staging(key)
        if not note.is_file():
            return None
        with self._explaining(key), self.lock(key):
            noted, _, version = note.read_text(encoding="utf-8").partition("\n")
            place = staging if staging.exists() else self.versions(key) / version
            raw = (place / RECORD).read_bytes() if (place / RECORD).is_file() else b""
            if noted != fingerprint or short_digest(raw) != Head.of(version).record_digest:
                return None
            os.replace(place, staging)
            self._publish(key, record := parse_record(raw, str(place)))
        return record

    def _publish(self, key: OutputKey, record: OutputRecord) -> None:
        """Name what was staged; each step leaves the earlier output current, or this one, and `finish` goes on."""
        folder, note = self.versions(key) / record.version, self.staging(key, ".json")
        # No name is used twice: the earlier version may be damaged, or just be removed by `skyscript gc`.
        if self.remote is not None or folder.exists():
            folder = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
        write_text(note, f"{record.fingerprint}\n{folder.name}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.staging(key), folder)
        _verified.add(folder)
        if self.remote is not None:
            self._upload(self.remote, key, folder, record)
        link, temporary = self.local / key.path, self.staging(key, ".link")
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.utime(link)  # until now the version that it leads to is in use: `skyscript gc` looks at this
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(folder, link.parent))
        os.replace(temporary, link)
        note.unlink()

    def _upload(self, remote: ObjectStore, key: OutputKey, folder: Path, record: OutputRecord) -> None:
        for name in (*record.files, RECORD):
            remote.put(f"{VERSIONS}/{key.path}/{folder.name}/{name}", folder / name)
        last, _ = self.pointers(key.path).get(key, [("00000000", 0.0)])[-1]
        remote.put(f"{POINTERS}/{key.path}/{int(last[:8]) + 1:08d}.{folder.name}", b"")
        # The last writer to look sees the last pointer, so that this file ends as what that one names.
        shown = None
        while (head := current(self.pointers(key.path)[key])) != shown and head is not None:
            place = f"{VERSIONS}/{key.path}/{head.version}"
            about = json.loads(remote.read(f"{place}/{RECORD}"))
            up = "../" * (1 + key.path.count("/"))
            remote.put(f"{key.path}/{RECORD}", json.dumps({"folder": f"{up}{place}", **about}, indent=1).encode())
            shown = head

    @contextlib.contextmanager
    def lock(self, key: OutputKey) -> Iterator[None]:
        """Keep other processes of this machine from writing an output.

        Raises:
            OutputBusyError: one of them is writing it.
            StorageError: the data folder cannot be written.
        """
        path = self.staging(key, ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            message = f"the data folder {self.local} cannot be written ({error}); set SKYSCRIPT_DATA"
            raise StorageError(message) from error
        with locked(path, key):
            yield

    @contextlib.contextmanager
    def _explaining(self, key: OutputKey) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Of a disk that is full GDAL says no more than that writing failed.
            full = not isinstance(error, SkyScriptError) and shutil.disk_usage(self.local).free < FULL_BYTES
            if full or no_space(error):
                raise NoSpaceError(
                    f"no space is left in {self.local} while writing {key} ({error}); free some and run again: "
                    "finished parts are kept"
                ) from error
            # A file that is not there is a mistake of the stage, not of the folder.
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                place = os.fsdecode(error.filename2 or error.filename or "")
                if Path(place).is_relative_to(self.local):
                    raise StorageError(
                        f"{place} cannot be used ({error.strerror}) while making {key}; let this user read and "
                        "write it, or set SKYSCRIPT_DATA"
                    ) from error
            raise


class Heads(dict[OutputKey, Head | None]):
    """What is current of each output of a store now: looked up once, remotely by one listing of all."""

    def __init__(self, store: Store) -> None:
        super().__init__((key, current(pointers)) for key, pointers in store.pointers().items())
        self._store = store

    def __missing__(self, key: OutputKey) -> Head | None:
        self[key] = None if self._store.remote is not None else self._store.head(key)
        return self[key]

    def names(self, asset: str) -> list[OutputKey]:
        """Names of the complete outputs of an asset, sorted."""
        listed = (key for key in self if key.asset == asset and self[key])
        return sorted(self._store.linked(asset) if self._store.remote is None else listed)


def current(pointers: list[tuple[str, float]] | None) -> Head | None:
    """The head that the last of an output's pointers names."""
    return Head.of(pointers[-1][0].partition(".")[2]) if pointers else None


def check_files(key: OutputKey, folder: Path, record: OutputRecord, *, verify: bool) -> None:
    """Compare the files of a version with its record: their sizes, and with `verify` once a process their bytes.

    Raises:
        DigestMismatchError: one is missing or another one.
    """
    verify = verify and folder not in _verified
    for name, (size, sha256) in record.files.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            reason = "it is missing" if found is None else f"{found} bytes instead of {size}"
            raise _mismatch(key, folder / name, reason)
        if verify and file_sha256(folder / name) != sha256:
            raise _mismatch(key, folder / name, "its SHA-256 is another one")
    if verify:
        _verified.add(folder)


def _mismatch(key: OutputKey, place: object, reason: str) -> DigestMismatchError:
    return DigestMismatchError(f"{place} is not the file that was written ({reason}): skyscript run --force {key}")
