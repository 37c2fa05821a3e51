"""What an output was made from, and what that decides: whether to make it, reuse it, continue it or complain.

Everything that runs goes through `Outputs.materialize`; `skyscript status`, the schedule and the checks ask
`Outputs.state` and `Outputs.differences`.
"""

from __future__ import annotations

import enum
import functools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from skyscript_assets.lib.errors import DigestMismatchError, NotCoveredError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.files import digest
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.secrets import without_secrets
from skyscript_assets.lib.settings.base import seen
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import SCHEMA_VERSION, Head, Heads, OutputKey, OutputRecord, Store
from skyscript_assets.lib.threads import limit_libraries
from skyscript_assets.partitions import Partition, inputs_of, not_covered

if TYPE_CHECKING:
    from skyscript_assets.asset import Stage

_log = logging.getLogger(__name__)

Config = TypeVar("Config")


class State(enum.Enum):
    """How an output stands to what it would be made from now."""

    CURRENT = "current"
    STALE = "stale"
    MISSING = "missing"
    BLOCKED = "waiting for upstream"
    BROKEN = "unreadable"


class Difference(NamedTuple):
    """Something that an output would be made from now and was not, or the other way round; None is absent."""

    what: str
    before: Any
    now: Any


@dataclass(frozen=True)
class Run(Generic[Config]):
    """What the body and the preview of a stage are given, and all that they know of the settings.

    Attributes:
        config: What the stage's `config` made of the settings.
        partition: Partition keys, in the order of the scheme's dimensions.
        out: Folder to write into (or, for a preview, to read from).
        inputs: Names of the inputs that exist.
        missing: Names of inputs that are missing and may be.
        store: The store, for caches and the folders of inputs.
        previous: The complete output that this run replaces, where there is one.
        retry: Whether only what failed in `previous`, which is current, is to be made again.
        verify: Whether the bytes of inputs are compared with their digests before they are used, once a process.
        heads: The versions of the inputs that are told to be read, whatever is current by now.
    """

    config: Config
    partition: Partition
    out: Path
    inputs: tuple[OutputKey, ...]
    missing: tuple[str, ...]
    store: Store
    progress: Progress = silent
    previous: OutputKey | None = None
    retry: bool = False
    verify: bool = False
    heads: Mapping[OutputKey, Head | None] = field(default_factory=dict)

    def folders(self, asset: str) -> dict[Partition, Path]:
        """Folders of an input by partition, sorted."""
        wanted = (key for key in sorted(self.inputs) if key.asset == asset)
        folder = functools.partial(self.store.folder, verify=self.verify)
        return {key.partition: folder(key, head=self.heads.get(key)) for key in wanted}

    def replaced(self) -> Path | None:
        """The folder of `previous`; None where there is none, or where it is no longer what was written."""
        if self.previous is None:
            return None
        try:
            return self.store.folder(self.previous, verify=self.verify)
        except DigestMismatchError as error:
            _log.warning("nothing is taken over from the earlier output: %s", error)
            return None

    def input(self, asset: str) -> Path:
        """The folder of an input that has one partition for this run."""
        (folder,) = self.folders(asset).values()
        return folder

    def pairs(self, asset: str) -> dict[tuple[str, str], Path]:
        """Folders of an input with two dimensions, by its keys, sorted."""
        return {(first, second): folder for (first, second), folder in self.folders(asset).items()}

    def region_facts(self, region: str | None = None) -> dict[str, Any]:
        """What the staged extract of a region, by default this run's own, says of itself."""
        folder = self.folders("osm_extract")[self.partition[0] if region is None else region,]
        facts: dict[str, Any] = json.loads((folder / "extract.json").read_text(encoding="utf-8"))
        return facts

    def region_bbox(self, region: str | None = None) -> tuple[float, float, float, float]:
        """Ground of a region, by default this run's own, in degrees (west, south, east, north)."""
        west, south, east, north = self.region_facts(region)["bbox"]
        return west, south, east, north


@dataclass(frozen=True)
class Provenance:
    """What a partition would be made from now.

    Attributes:
        made_from: Code version, settings that the stage reads less secrets, data version of each input that exists.
        fingerprint: Digest of that, secrets included; of code version and name where an output is frozen.
        config: What the body is given of the settings.
        inputs: Inputs that exist.
        required: Missing inputs without which nothing can be made.
        allowed: Missing inputs that the settings, or the stage, allow to be missing.
    """

    made_from: Mapping[str, Any]
    fingerprint: str
    config: Any
    inputs: tuple[OutputKey, ...]
    required: tuple[OutputKey, ...]
    allowed: tuple[OutputKey, ...]


@dataclass(frozen=True)
class Outcome:
    """A materialization: the record, whether nothing had to be done, and the run for previews and checks."""

    record: OutputRecord
    reused: bool
    run: Run[Any]


@dataclass(frozen=True)
class Outputs:
    """The outputs of a profile, and how each stands. Each is looked up once: make another object for a later look."""

    stages: Mapping[str, Stage]
    settings: Settings
    store: Store

    @functools.cached_property
    def heads(self) -> Heads:
        """What is current of each output."""
        return Heads(self.store)

    def problem(self, key: OutputKey) -> str | None:
        """Why an output that is there cannot be read, or None."""
        head = self.heads[key]
        return None if head is None else head.problem

    def head(self, key: OutputKey) -> Head | None:
        """What is told of a complete output without its record; None where there is none that can be read."""
        head = self.heads[key]
        return None if head is None or head.problem else head

    def record(self, key: OutputKey) -> OutputRecord | None:
        """The record of a complete output that can be read, or None."""
        if self.head(key) is None:
            return None
        try:
            return self.store.record(key)
        except OutputSchemaError as error:
            self.heads[key] = Head("", problem=str(error))
            return None

    def provenance(self, stage: Stage, partition: Partition) -> Provenance:
        """What a partition would be made from now."""
        heads = {key: self.head(key) for key in inputs_of(stage, self.stages, self.settings, partition)}
        names = self.settings.plant.manifest.allow_missing
        missing = [key for key, head in heads.items() if head is None]
        allowed = tuple(key for key in missing if "|".join(key.partition) in names or key.asset in stage.optional)
        config = stage.config(self.settings, partition)
        read = seen(config)
        made_from = {
            "code": stage.code_version,
            "settings": read,
            "inputs": {str(key): head.data_version for key, head in heads.items() if head is not None},
        }
        decisive = made_from
        if stage.frozen_as is not None:
            decisive = {"code": stage.code_version, "frozen": stage.frozen_as(self.settings)}
        return Provenance(
            made_from=made_from | {"settings": _fit_to_keep(read)},
            fingerprint=digest({"layout": SCHEMA_VERSION, **decisive}),
            config=config,
            inputs=tuple(sorted(key for key, head in heads.items() if head is not None)),
            required=tuple(key for key in missing if key not in allowed),
            allowed=allowed,
        )

    def state(self, stage: Stage, partition: Partition) -> State:
        """How a partition's output stands to what it would be made from now."""
        key = stage.key(self.settings, partition)
        if self.problem(key) is not None:
            return State.BROKEN
        provenance = self.provenance(stage, partition)
        if (head := self.head(key)) is None:
            return State.BLOCKED if provenance.required else State.MISSING
        return State.CURRENT if head.fingerprint == provenance.fingerprint else State.STALE

    def differences(self, stage: Stage, partition: Partition) -> list[Difference]:
        """What a partition's output was made from, against what it would be made from now; none without an output.

        A frozen output is current all the same: that it differs is what it is frozen for.
        """
        record = self.record(stage.key(self.settings, partition))
        if record is None:
            return []
        before, now = dict(_leaves(record.made_from)), dict(_leaves(self.provenance(stage, partition).made_from))
        return [
            Difference(what, before.get(what), now.get(what))
            for what in sorted(before.keys() | now.keys())
            if before.get(what) != now.get(what)
        ]

    def materialize(
        self,
        stage: Stage,
        partition: Partition,
        *,
        force: bool = False,
        retry: bool = False,
        progress: Progress = silent,
    ) -> Outcome:
        """Make a partition's output, or return at once where it is already made from the same inputs.

        With `force` it is made again all the same, with `retry` only those of its items that its counts call failed.

        Raises:
            NotCoveredError: the partition cannot have content.
            UpstreamMissingError: an input does not exist; the message names it and the command that makes it.
            CheckFailedError: a blocking check failed; the earlier output stays.
            SkyScriptError: whatever the stage's body finds wrong.
        """
        if reason := not_covered(stage.scheme, partition, self.settings):
            raise NotCoveredError(f"nothing to make for {'|'.join(partition)}: {reason}")
        key = stage.key(self.settings, partition)
        provenance = self.provenance(stage, partition)
        if provenance.required:
            order = list(self.stages)
            missing = sorted(provenance.required, key=lambda item: order.index(item.asset))
            raise UpstreamMissingError(_missing_message(key, missing))
        record = self.record(key)
        run_in = functools.partial(
            Run[Any],
            config=provenance.config,
            partition=partition,
            inputs=provenance.inputs,
            missing=tuple(map(str, provenance.allowed)),
            store=self.store,
            progress=progress,
            heads=self.heads,
        )
        previous = None if record is None else key
        current = record is not None and record.fingerprint == provenance.fingerprint
        retry = retry and current and not force
        reused = record is not None and current and not force and not (retry and record.failed)
        if not reused and not current:
            record = self.store.finish(key, provenance.fingerprint)
        if record is None or (current and not reused):
            with self.store.writing(key, provenance.fingerprint) as out:
                limit_libraries()
                counts = stage.build(run_in(out=out, previous=previous, retry=retry, verify=True))
                stage.refuse_broken(key, out, counts)
                record = self.store.complete(
                    key,
                    fingerprint=provenance.fingerprint,
                    made_from=provenance.made_from,
                    counts=counts,
                    unversioned=stage.unversioned,
                )
            _log.info("%s: %s", key, dict(record.counts))
            self.heads[key] = Head.of(record.version)
        return Outcome(record, reused, run_in(out=self.store.folder(key)))


def _fit_to_keep(value: Any) -> Any:
    """JSON values in which no address has a secret."""
    if isinstance(value, dict):
        return {key: _fit_to_keep(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fit_to_keep(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) and value.startswith("http") else value


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value inside nested mappings, by its dotted name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _missing_message(key: OutputKey, missing: Sequence[OutputKey]) -> str:
    names = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    commands = " && ".join(f"skyscript run {item}" for item in missing[:3])
    return (
        f"{key} is made from {names}, not materialized yet. Materialize first: {commands} (all in order: skyscript run)"
    )
