"""What a stage of the plant is: one declaration from which its Dagster asset, lineage, checks and state follow.

The stages themselves are declared in `skyscript_assets.assets`; how one is run against the store is in `provenance`.
Nothing here depends on the settings: partition keys are looked up when they are needed.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyscript_assets.lib.errors import NotCoveredError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import OutputKey, Store

if TYPE_CHECKING:
    import dagster as dg
    import pyarrow as pa

Parts = tuple[str, ...]
"""Partition keys of one output, in the order of its scheme's dimensions."""


class Scheme(enum.Enum):
    """A partition scheme: the dimensions, ordered by name as Dagster orders them."""

    SINGLE = ()
    REGION = ("region",)
    REGION_SOURCE = ("region", "source")
    MODEL = ("model",)
    BENCHMARK = ("benchmark",)
    BENCHMARK_MODEL = ("benchmark", "model")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the partition dimensions."""
        return tuple(self.value)


@dataclass(frozen=True)
class StageRun:
    """What the body of a stage is given.

    Attributes:
        settings: The profile.
        parts: Partition keys, in the order of the scheme's dimensions.
        out: Folder to write into (or, for a preview, to read from).
        inputs: Names of the inputs that exist.
        missing: Names of inputs that the settings allow to be missing.
        store: The store, for caches and asset folders.
        progress: Listener.
        previous: The complete output that this run replaces, where there is one.
        retry: Whether only what failed in `previous`, which is current, is to be made again.
    """

    settings: Settings
    parts: Parts
    out: Path
    inputs: tuple[OutputKey, ...]
    missing: tuple[str, ...]
    store: Store
    progress: Progress = silent
    previous: OutputKey | None = None
    retry: bool = False

    def folders(self, asset: str) -> dict[Parts, Path]:
        """Folders of an input by partition, sorted."""
        return {key.parts: self.store.folder(key) for key in sorted(self.inputs) if key.asset == asset}

    def input(self, asset: str) -> Path:
        """The folder of an input that has one partition for this run."""
        (folder,) = self.folders(asset).values()
        return folder

    def pairs(self, asset: str) -> dict[tuple[str, str], Path]:
        """Folders of a region x source input, by (region, source), sorted."""
        return {(region, source): folder for (region, source), folder in self.folders(asset).items()}

    def region_facts(self, region: str | None = None) -> dict[str, Any]:
        """What the staged extract of a region, by default this run's own, says of itself."""
        folder = self.folders("osm_extract")[self.parts[0] if region is None else region,]
        facts: dict[str, Any] = json.loads((folder / "extract.json").read_text(encoding="utf-8"))
        return facts

    def region_bbox(self, region: str | None = None) -> tuple[float, float, float, float]:
        """Ground of a region, by default this run's own, in degrees (west, south, east, north)."""
        west, south, east, north = self.region_facts(region)["bbox"]
        return west, south, east, north


Counts = Mapping[str, Any]
Build = Callable[[StageRun], Counts]
Preview = Callable[[StageRun], Mapping[str, "dg.MetadataValue"]]
Reads = Callable[[Settings, Parts], Any]
Needs = Callable[[Settings, Parts, OutputKey], bool]


def _reads_nothing(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return None


def _needs_all(settings: Settings, parts: Parts, key: OutputKey) -> bool:  # noqa: ARG001
    return True


def _needs_none(settings: Settings, parts: Parts, key: OutputKey) -> bool:  # noqa: ARG001
    return False


def _previews_nothing(run: StageRun) -> Mapping[str, dg.MetadataValue]:  # noqa: ARG001
    return {}


@dataclass(frozen=True, eq=False)
class Stage:
    """One asset of the plant; there is one object for each.

    Attributes:
        name: Asset key.
        scheme: Partition scheme.
        build: Body: reads `run.inputs`, writes `run.out`, returns counts.
        upstream: Assets it is made from.
        group: Dagster group.
        kinds: Dagster kinds, shown as icons.
        code_version: Raised when the same inputs would give another output.
        tables: Parquet files it writes, with their columns; the first one is the main table.
        reads: Everything outside the store that shapes the output: settings, digests of the user's files.
        needs: Which of the upstream partitions with the same keys a partition really uses.
        beside: Which upstream partitions with other keys it uses besides.
        preview: Metadata shown in the UI, made from the finished folder.
        unique: Column of the main table that must hold no value twice.
        may_be_empty: Whether no rows is a proper result.
        pool: Dagster concurrency pool.
        retries: How often a failure that may pass is retried.
        unversioned: Files that are no part of the data version: a ledger, pictures of the rest.
        frozen_as: Name under which an output stays as it is, whatever becomes of its inputs.
    """

    name: str
    scheme: Scheme
    build: Build
    group: str
    kinds: frozenset[str]
    upstream: tuple[str, ...] = ()
    code_version: str = "1"
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)
    reads: Reads = _reads_nothing
    needs: Needs = _needs_all
    beside: Needs = _needs_none
    preview: Preview = _previews_nothing
    unique: str | None = None
    may_be_empty: bool = False
    pool: str | None = None
    retries: int = 0
    unversioned: frozenset[str] = frozenset()
    frozen_as: Callable[[Settings], str] | None = None

    @property
    def description(self) -> str:
        """The body's docstring."""
        return " ".join((self.build.__doc__ or "").split())

    def key(self, settings: Settings, parts: Parts) -> OutputKey:
        """Name of an output in the store: the partition keys, or the name it is frozen under."""
        return OutputKey(self.name, (self.frozen_as(settings),) if self.frozen_as else parts)


def stage(scheme: Scheme, *, group: str, kinds: Sequence[str], **options: Any) -> Callable[[Build], Stage]:
    """Declare the decorated body as a stage named after it; options are the fields of `Stage`."""

    def declare(build: Build) -> Stage:
        return Stage(name=build.__name__, scheme=scheme, build=build, group=group, kinds=frozenset(kinds), **options)

    return declare


# ---------------------------------------------------------------------------------------------------- partition keys


def keys_of(dimension: str, settings: Settings) -> list[str]:
    """Keys of a partition dimension, in the order of the settings."""
    of: dict[str, Mapping[str, object]] = {
        "region": settings.regions,
        "source": settings.sources,
        "model": settings.models,
        "benchmark": settings.benchmarks.benchmarks,
    }
    return list(of[dimension])


def partitions_of(scheme: Scheme, settings: Settings) -> list[Parts]:
    """Every partition of a scheme that can have content: pairs that cannot overlap are left out. Heavy ones first."""
    found: list[Parts] = [()]
    for dimension in scheme.dimensions:
        found = [(*parts, key) for parts in found for key in keys_of(dimension, settings)]
    found = [parts for parts in found if not_covered(scheme, parts, settings) is None]
    if scheme is Scheme.REGION_SOURCE:
        found.sort(key=lambda parts: (settings.sources[parts[1]].gsd_m, parts))
    return found


def not_covered(scheme: Scheme, parts: Parts, settings: Settings) -> str | None:
    """Why a partition cannot have content, or None where it can."""
    if scheme is Scheme.REGION_SOURCE:
        region, source = parts
        ground: BBox | None = settings.regions[region].bbox
        extent = settings.sources[source].extent
        if ground is not None and extent is not None and not ground.intersects(extent):
            return f"region {region} {ground.bounds} lies outside the extent of source {source} {extent.bounds}"
    if scheme is Scheme.BENCHMARK_MODEL:
        benchmark, model = parts
        wanted = settings.models[model].benchmarks
        if wanted is not None and benchmark not in wanted:
            return f"model {model} is not scored on {benchmark} (models.yaml: models.{model}.benchmarks)"
    return None


def check_covered(scheme: Scheme, parts: Parts, settings: Settings) -> None:
    """Refuse a partition that cannot have content.

    Raises:
        NotCoveredError: with the reason.
    """
    reason = not_covered(scheme, parts, settings)
    if reason is not None:
        raise NotCoveredError(f"nothing to make for {'|'.join(parts)}: {reason}")


def inputs_of(stage: Stage, stages: Mapping[str, Stage], settings: Settings, parts: Parts) -> list[OutputKey]:
    """Outputs that a partition of a stage is made from: the same keys where dimensions are shared, else all.

    `Stage.needs` and `Stage.beside` take away from that and add to it.
    """
    own = dict(zip(stage.scheme.dimensions, parts, strict=True))
    found: list[OutputKey] = []
    for name in stage.upstream:
        upstream = stages[name]
        for candidate in partitions_of(upstream.scheme, settings):
            theirs = dict(zip(upstream.scheme.dimensions, candidate, strict=True))
            same = all(own.get(dimension, key) == key for dimension, key in theirs.items())
            key = upstream.key(settings, candidate)
            if (stage.needs if same else stage.beside)(settings, parts, key):
                found.append(key)
    return found
