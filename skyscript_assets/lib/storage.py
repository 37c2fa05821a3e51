"""Where outputs lie: one folder an asset and partition, complete when it holds `output.json`.

An output is made in a staging folder and takes its name only when it is whole, so no reader meets half of one and a
killed run leaves the earlier output as it was. A staging folder outlives its process: the next attempt with the same
fingerprint finds the parts that were finished. The root is a local folder or any address that fsspec knows (`s3://`,
`gs://`); remote outputs are made and read through a local scratch folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from skyscript_assets.lib.errors import (
    DISK_FULL,
    NoSpaceError,
    OutputBusyError,
    OutputSchemaError,
    StorageError,
    UpstreamMissingError,
)
from skyscript_assets.lib.files import digest, file_sha256, write_json

SCHEMA_VERSION = 2
"""Version of the layout of outputs and their records; a higher one found on disk cannot be read."""

MIN_FREE_BYTES = 256 * 1024 * 1024
"""Free space below which no output is begun."""

_RECORD = "output.json"


@dataclass(frozen=True, order=True)
class OutputKey:
    """Name of an output: the asset, and the partition keys in the order of the dimensions' names."""

    asset: str
    partition: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join((self.asset, *self.partition))


@dataclass(frozen=True)
class OutputRecord:
    """What is known of a complete output.

    Attributes:
        key: The output's name as text.
        fingerprint: Digest of everything it was made from.
        made_from: That itself: `code` (its version), `settings` (those that the stage reads), `inputs` (the data
            version of each, by name).
        counts: What the stage counted.
        files: (size in bytes, SHA-256) of each file, by relative path.
        data_version: Digest of the content alone: no times, paths or code version.
    """

    key: str
    fingerprint: str
    made_from: Mapping[str, Any]
    counts: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]
    data_version: str
    schema_version: int = SCHEMA_VERSION

    @property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(size for size, _ in self.files.values())


class Store:
    """The outputs below one root.

    Args:
        root: A local folder or an fsspec address.
        scratch: Local folder for staging and for copies of remote outputs; needed for a remote root only.

    Raises:
        StorageError: the root is no address, or needs a package that is not installed.
    """

    def __init__(self, root: str | Path, scratch: Path | None = None) -> None:
        try:
            self.root = UPath(root)
            self.is_local = self.root.protocol in ("", "file", "local")
            if not self.is_local:
                _ = self.root.fs  # finds out whether the package for it is installed
        except ImportError as error:
            raise StorageError(f"{root}: {error} (for s3: pip install 'skyscript-assets[s3]')") from error
        except ValueError as error:
            raise StorageError(f"{root} is no address of a data folder ({error}); set SKYSCRIPT_DATA") from error
        if not self.is_local and scratch is None:
            raise StorageError(f"{root} is remote: give a local scratch folder as well")
        self.local = Path(str(self.root.path if self.is_local else scratch)).absolute()

    @property
    def _staging_root(self) -> Path:
        return self.local / ".staging"

    def _local_folder(self, key: OutputKey) -> Path:
        return self.local.joinpath(key.asset, *key.partition)

    def _staging(self, key: OutputKey) -> Path:
        return self._staging_root / "+".join((key.asset, *key.partition))

    # ------------------------------------------------------------------------------------------------------- reading

    def record(self, key: OutputKey) -> OutputRecord | None:
        """The record of a complete output, or None.

        Raises:
            OutputSchemaError: the record is unreadable or of a later layout.
            StorageError: the data folder cannot be read.
        """
        folder = self._local_folder(key)
        source = UPath(folder) if self.is_local else self.root.joinpath(key.asset, *key.partition)
        path = source / _RECORD
        try:
            if self.is_local and not folder.exists():
                self._recover(key)
            raw = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise OutputSchemaError(f"{path} is not a record ({error}); delete its folder and run again") from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read ({error})") from error
        return _parse_record(raw, str(path))

    def folder(self, key: OutputKey) -> Path:
        """A local folder with a complete output; a remote one is copied into the scratch folder first.

        Raises:
            UpstreamMissingError: there is no complete output of that name.
        """
        record = self.record(key)
        if record is None:
            raise UpstreamMissingError(f"{key} has not been materialized: run `skyscript run {key}` first")
        folder = self._local_folder(key)
        if not self.is_local and not _holds(folder, record):
            remote = self.root.joinpath(key.asset, *key.partition)
            shutil.rmtree(folder, ignore_errors=True)
            for name in record.files:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with remote.joinpath(name).open("rb") as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
            write_json(folder / _RECORD, _record_json(record))
        return folder

    def keys(self, asset: str) -> list[OutputKey]:
        """Names of the complete outputs of an asset, sorted."""
        base = self.root / asset
        if not base.exists():
            return []
        depth = len(base.parts)
        return sorted(OutputKey(asset, tuple(path.parts[depth:-1])) for path in base.glob(f"**/{_RECORD}"))

    def asset_folder(self, asset: str) -> Path:
        """The local folder that holds all partitions of an asset."""
        return self.local / asset

    def cache(self, name: str) -> Path:
        """A local folder for things that can be made again at any time."""
        folder = self.local / ".cache" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def size_bytes(self) -> int:
        """Bytes below the local root, caches and staging included."""
        return sum(path.stat().st_size for path in self.local.rglob("*") if path.is_file())

    # ------------------------------------------------------------------------------------------------------- writing

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
        staging = self._staging(key)
        try:
            self._staging_root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"the data folder {self.local} cannot be written ({error}); set SKYSCRIPT_DATA"
            ) from error
        try:
            with self._lock(key):
                self._need_space(key)
                note = staging.with_name(f"{staging.name}.json")
                same = note.is_file() and note.read_text(encoding="utf-8") == fingerprint
                if not same or (staging / _RECORD).exists():
                    shutil.rmtree(staging, ignore_errors=True)
                    note.write_text(fingerprint, encoding="utf-8")
                staging.mkdir(parents=True, exist_ok=True)
                yield staging
        except OSError as error:
            if error.errno in DISK_FULL:
                raise NoSpaceError(
                    f"no space is left in {self.local} while writing {key}; free some and run again: "
                    "finished parts are kept"
                ) from error
            # A file that is not there is a mistake of the stage, not of the folder.
            if not isinstance(error, FileNotFoundError) and self._is_inside(error.filename):
                raise StorageError(
                    f"{error.filename} cannot be used ({error.strerror}) while making {key}; let this user read and "
                    "write it, or set SKYSCRIPT_DATA"
                ) from error
            raise

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
        staging, folder = self._staging(key), self._local_folder(key)
        for left in staging.rglob(".*.tmp"):  # by an attempt that was killed
            left.unlink()
        files = {
            path.relative_to(staging).as_posix(): (path.stat().st_size, file_sha256(path))
            for path in sorted(staging.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }
        content = digest({name: sha256 for name, (_, sha256) in files.items() if name not in unversioned})
        record = OutputRecord(str(key), fingerprint, dict(made_from), dict(counts), files, content)
        write_json(staging / _RECORD, _record_json(record))
        folder.parent.mkdir(parents=True, exist_ok=True)
        old = staging.with_name(f"{staging.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(staging, folder)
        shutil.rmtree(old, ignore_errors=True)
        staging.with_name(f"{staging.name}.json").unlink(missing_ok=True)
        if not self.is_local:
            self._upload(key, record)
        return record

    def _upload(self, key: OutputKey, record: OutputRecord) -> None:
        folder, remote = self._local_folder(key), self.root.joinpath(key.asset, *key.partition)
        with contextlib.suppress(FileNotFoundError):
            (remote / _RECORD).unlink()
        remote.mkdir(parents=True, exist_ok=True)
        for name in (*record.files, _RECORD):
            target = remote.joinpath(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("rb") as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)

    @contextlib.contextmanager
    def _lock(self, key: OutputKey) -> Iterator[None]:
        path = self._staging(key).with_name(f"{self._staging(key).name}.lock")
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputBusyError(f"{key} is being written by another process; wait for it to end") from error
            yield

    def _recover(self, key: OutputKey) -> None:
        """Finish or undo the swap of a process that was killed between its two renames."""
        staging, folder = self._staging(key), self._local_folder(key)
        old = staging.with_name(f"{staging.name}.old")
        if not (staging / _RECORD).exists() and not old.exists():
            return
        with contextlib.suppress(OutputBusyError), self._lock(key):
            whole = staging if (staging / _RECORD).exists() else old
            if whole.exists() and not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                os.replace(whole, folder)

    def _is_inside(self, name: object) -> bool:
        return isinstance(name, str | bytes) and Path(os.fsdecode(name)).is_relative_to(self.local)

    def _need_space(self, key: OutputKey) -> None:
        free = shutil.disk_usage(self.local).free
        if free < MIN_FREE_BYTES:
            raise NoSpaceError(
                f"{self.local} has {free / 1e6:.0f} MB free, {MIN_FREE_BYTES / 1e6:.0f} MB are needed to begin {key}"
            )


def _record_json(record: OutputRecord) -> dict[str, Any]:
    return dataclasses.asdict(record)


def _parse_record(raw: Any, path: str) -> OutputRecord:
    try:
        version = int(raw["schema_version"])
        if version > SCHEMA_VERSION:
            raise OutputSchemaError(
                f"{path} has layout {version}, this version reads up to {SCHEMA_VERSION}: upgrade, or use another "
                "data folder"
            )
        files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in raw["files"].items()}
        return OutputRecord(**{**raw, "files": files})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputSchemaError(f"{path} is not a record ({error}); delete its folder and run again") from error


def _holds(folder: Path, record: OutputRecord) -> bool:
    try:
        local = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return bool(local.get("data_version") == record.data_version)
