"""What an output was made from, and what that decides: whether to make it, reuse it, continue it or complain.

Everything that runs goes through `materialize`; `skyscript status`, the schedule and the freshness check ask
`state_of`.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.files import digest
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import SCHEMA_VERSION, Manifest, OutputKey, Store
from skyscript_assets.stages import Parts, Stage, StageRun, check_covered, inputs_of

_log = logging.getLogger(__name__)


class State(enum.Enum):
    """How an output stands to what it would be made from now."""

    CURRENT = "current"
    STALE = "stale"
    MISSING = "missing"
    BLOCKED = "waiting for upstream"


@dataclass(frozen=True)
class Provenance:
    """What a partition would be made from now.

    Attributes:
        inputs: Manifest of each input that exists.
        missing: Names of inputs that do not exist.
        allowed: Those of `missing` that the settings allow to be missing.
        fingerprint: Digest of code version, settings read and the inputs' data versions.
    """

    inputs: Mapping[OutputKey, Manifest]
    missing: tuple[OutputKey, ...]
    allowed: tuple[OutputKey, ...]
    fingerprint: str

    @property
    def required(self) -> tuple[OutputKey, ...]:
        """Missing inputs without which nothing can be made."""
        return tuple(key for key in self.missing if key not in self.allowed)


@dataclass(frozen=True)
class Outcome:
    """A materialization: the manifest, whether nothing had to be done, and the run for previews."""

    manifest: Manifest
    reused: bool
    run: StageRun


def provenance_of(
    stage: Stage, stages: Mapping[str, Stage], settings: Settings, store: Store, parts: Parts
) -> Provenance:
    """Look up what a partition would be made from."""
    manifests = {key: store.manifest(key) for key in inputs_of(stage, stages, settings, parts)}
    present = {key: manifest for key, manifest in manifests.items() if manifest is not None}
    missing = tuple(key for key, manifest in manifests.items() if manifest is None)
    names = settings.plant.manifest.allow_missing
    allowed = tuple(key for key in missing if "|".join(key.parts) in names)
    made_from = (
        {"frozen": stage.frozen_as(settings)}
        if stage.frozen_as
        else {
            "settings": stage.reads(settings, parts),
            "inputs": {str(key): manifest.data_version for key, manifest in present.items()},
        }
    )
    fingerprint = digest({"layout": SCHEMA_VERSION, "code": stage.code_version, **made_from})
    return Provenance(present, missing, allowed, fingerprint)


def state_of(stage: Stage, stages: Mapping[str, Stage], settings: Settings, store: Store, parts: Parts) -> State:
    """How a partition's output stands to what it would be made from now."""
    manifest = store.manifest(stage.key(settings, parts))
    provenance = provenance_of(stage, stages, settings, store, parts)
    if manifest is None:
        return State.BLOCKED if provenance.required else State.MISSING
    return State.CURRENT if manifest.fingerprint == provenance.fingerprint else State.STALE


def materialize(
    stage: Stage,
    stages: Mapping[str, Stage],
    settings: Settings,
    store: Store,
    parts: Parts,
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
        SkyScriptError: whatever the stage's body finds wrong.
    """
    check_covered(stage.scheme, parts, settings)
    key = stage.key(settings, parts)
    provenance = provenance_of(stage, stages, settings, store, parts)
    if provenance.required:
        order = list(stages)
        missing = sorted(provenance.required, key=lambda item: order.index(item.asset))
        raise UpstreamMissingError(_missing_message(key, missing))
    manifest = store.manifest(key)
    current = manifest is not None and manifest.fingerprint == provenance.fingerprint
    retry = retry and current and not force
    if manifest is None or not current or force or (retry and failed_items(manifest)):
        reused = False
        manifest = _make(stage, settings, store, parts, provenance, progress, retry=retry)
        _log.info("%s: %s", key, dict(manifest.counts))
    else:
        reused = True
    return Outcome(manifest, reused, _run(settings, store, parts, provenance, store.folder(key), progress))


def failed_items(manifest: Manifest) -> int:
    """Items of an output that failed and may be tried again."""
    return int(manifest.counts.get("failed", 0))


def _make(
    stage: Stage,
    settings: Settings,
    store: Store,
    parts: Parts,
    provenance: Provenance,
    progress: Progress,
    *,
    retry: bool,
) -> Manifest:
    key = stage.key(settings, parts)
    with store.writing(key, provenance.fingerprint) as out:
        run = _run(settings, store, parts, provenance, out, progress)
        if store.manifest(key) is not None:
            run = dataclasses.replace(run, previous=key, retry=retry)
        counts = stage.build(run)
        return store.complete(
            key,
            code_version=stage.code_version,
            fingerprint=provenance.fingerprint,
            inputs={str(item): found.data_version for item, found in provenance.inputs.items()},
            counts=counts,
            unversioned=stage.unversioned,
        )


def _run(
    settings: Settings, store: Store, parts: Parts, provenance: Provenance, out: Path, progress: Progress
) -> StageRun:
    return StageRun(
        settings=settings,
        parts=parts,
        out=out,
        inputs=tuple(sorted(provenance.inputs)),
        missing=tuple(map(str, provenance.allowed)),
        store=store,
        progress=progress,
    )


def _missing_message(key: OutputKey, missing: Sequence[OutputKey]) -> str:
    names = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    commands = " && ".join(f"skyscript run {item}" for item in missing[:3])
    return (
        f"{key} is made from {names}, not materialized yet. Materialize first: {commands} (all in order: skyscript run)"
    )
