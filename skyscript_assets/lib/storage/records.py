"""Names and records of outputs, and what the name of a version tells without its record."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from skyscript_assets.lib.errors import OutputSchemaError, StorageError
from skyscript_assets.lib.files import is_name

SCHEMA_VERSION = 3
"""Version of the layout of outputs and their records; a higher one found on disk cannot be read."""

RECORD = "output.json"

VERSION = re.compile(r"([^./]+)\.([^./]+)\.(\d+)\.(\d+)\.([0-9a-f]{16})(?:\.[0-9a-f]{8})?")
"""Name of a version, see `Head`; a last part is there where the name alone would not be new."""


@dataclass(frozen=True, order=True)
class OutputKey:
    """Name of an output: the asset, and the partition keys in the order of the dimensions' names."""

    asset: str
    partition: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join((self.asset, *self.partition))

    @property
    def path(self) -> str:
        """Its place below a root.

        Raises:
            StorageError: a part of the name would lead elsewhere.
        """
        for part in (self.asset, *self.partition):
            if not is_name(part):
                raise StorageError(f"{part!r} of output {self} cannot be a folder's name; rename it in the settings")
        return str(self)


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

    @property
    def failed(self) -> int:
        """Items that failed and may be tried again."""
        return int(self.counts.get("failed", 0))

    @property
    def text(self) -> str:
        """The record as it is kept."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def version(self) -> str:
        """Name of the version; `Head.of` takes it apart."""
        record_digest = short_digest(self.text.encode())
        facts = (self.fingerprint, self.data_version, self.size_bytes, self.failed, record_digest)
        return ".".join(map(str, facts))


@dataclass(frozen=True)
class Head:
    """What the name of a version tells.

    Attributes:
        fingerprint: Digest of everything the output was made from.
        data_version: Digest of its content.
        size_bytes: Size of all its files together.
        failed: Items that failed and may be tried again.
        record_digest: Start of its record's SHA-256.
        problem: Why it cannot be read, None where nothing is known to be wrong.
    """

    version: str
    fingerprint: str = ""
    data_version: str = ""
    size_bytes: int = 0
    failed: int = 0
    record_digest: str = ""
    problem: str | None = None

    @classmethod
    def of(cls, version: str) -> Self:
        """Take a name apart; one that is none has a problem."""
        found = VERSION.fullmatch(version)
        if found is None:
            return cls(version, problem=f"{version!r} is no name of a version that this release knows")
        fingerprint, data_version, size, failed, record_digest = found.groups()
        return cls(version, fingerprint, data_version, int(size), int(failed), record_digest)


def short_digest(raw: bytes) -> str:
    """Digest of a record's bytes, short enough for a name."""
    return hashlib.sha256(raw).hexdigest()[:16]


def parse_record(raw: bytes, path: str) -> OutputRecord:
    """A record from its bytes.

    Raises:
        OutputSchemaError: they are none, or of a later layout.
    """
    try:
        values = json.loads(raw)
        version = int(values["schema_version"])
        if version > SCHEMA_VERSION:
            raise OutputSchemaError(
                f"{path} has layout {version}, this version reads up to {SCHEMA_VERSION}: upgrade, or use another "
                "data folder"
            )
        files = {str(name): (int(size), str(sha256)) for name, (size, sha256) in values["files"].items()}
        return OutputRecord(**{**values, "files": files})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputSchemaError(f"{path} is not a record ({error})") from error
