"""Partitions: their keys, which can have content, what each is made from, and the same told to Dagster.

Dagster's partition mappings and `inputs_of` are made from one declaration, the stage's `upstream`, so that a backfill
started in the UI waits for everything that a run will read.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import OutputKey

if TYPE_CHECKING:
    from skyscript_assets.asset import Stage

Partition = tuple[str, ...]
"""Keys of one partition, in the order of its scheme's dimensions."""


class Scheme(enum.Enum):
    """A partition scheme: the dimensions, ordered by name as Dagster orders them."""

    SINGLE = ""  # not an empty tuple: in Python 3.11.2 (Debian 12) an enum loses one
    REGION = "region"
    REGION_SOURCE = "region source"
    MODEL = "model"
    BENCHMARK = "benchmark"
    BENCHMARK_MODEL = "benchmark model"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the partition dimensions."""
        return tuple(self.value.split())


@dataclass(frozen=True)
class Upstream:
    """An asset that a stage is made from, where equal keys do not tell which of its partitions.

    The asset is partitioned by the stage's own dimension; `used_by` tells from the settings which keys of the stage use
    each key of it.
    """

    asset: str
    used_by: Callable[[Settings], Mapping[str, Sequence[str]]]


def keys_of(dimension: str, settings: Settings) -> list[str]:
    """Keys of a partition dimension, in the order of the settings."""
    of: dict[str, Mapping[str, object]] = {"region": settings.regions, "source": settings.sources}
    of |= {"model": settings.models, "benchmark": settings.benchmarks.benchmarks}
    return list(of[dimension])


def partitions_of(scheme: Scheme, settings: Settings) -> list[Partition]:
    """Every partition of a scheme that can have content: pairs that cannot overlap are left out. Heavy ones first."""
    found = list(_matching(scheme, settings, {}))
    if scheme is Scheme.REGION_SOURCE:
        found.sort(key=lambda keys: (settings.sources[keys[1]].gsd_m, keys))
    return found


def _matching(scheme: Scheme, settings: Settings, given: Mapping[str, Sequence[str]]) -> Iterator[Partition]:
    """Partitions of a scheme that can have content and whose keys are among the given ones."""
    every = (given[name] if name in given else keys_of(name, settings) for name in scheme.dimensions)
    return (keys for keys in itertools.product(*every) if not_covered(scheme, keys, settings) is None)


def not_covered(scheme: Scheme, partition: Partition, settings: Settings) -> str | None:
    """Why a partition cannot have content, or None where it can."""
    if scheme is Scheme.REGION_SOURCE:
        region, source = partition
        ground, extent = settings.regions[region].bbox, settings.sources[source].extent
        if ground is not None and extent is not None and not ground.intersects(extent):
            return f"region {region} {ground.bounds} lies outside the extent of source {source} {extent.bounds}"
    if scheme is Scheme.BENCHMARK_MODEL:
        benchmark, model = partition
        wanted = settings.models[model].benchmarks
        if wanted is not None and benchmark not in wanted:
            return f"model {model} is not scored on {benchmark} (models.yaml: models.{model}.benchmarks)"
    return None


def inputs_of(stage: Stage, stages: Mapping[str, Stage], settings: Settings, partition: Partition) -> list[OutputKey]:
    """Outputs that a partition of a stage is made from, in the order of its `upstream`.

    They have the same keys where dimensions are shared and all keys elsewhere, or those that `Upstream` tells;
    `Stage.needs` takes away what this profile does not use.
    """
    own = {name: [key] for name, key in zip(stage.scheme.dimensions, partition, strict=True)}
    found: list[OutputKey] = []
    for upstream in stage.upstream:
        name, keys = upstream if isinstance(upstream, str) else upstream.asset, own
        if isinstance(upstream, Upstream):
            used_by = upstream.used_by(settings)
            keys = {stage.scheme.dimensions[0]: [key for key, users in used_by.items() if partition[0] in users]}
        made_by = stages[name]
        candidates = (made_by.key(settings, theirs) for theirs in _matching(made_by.scheme, settings, keys))
        found += [key for key in candidates if stage.needs(settings, partition, key)]
    return found


def definitions(settings: Settings) -> dict[Scheme, dg.PartitionsDefinition | None]:
    """The partitions definition of every scheme; None for assets without partitions."""
    names = {name for scheme in Scheme for name in scheme.dimensions}
    single = {name: dg.StaticPartitionsDefinition(keys_of(name, settings)) for name in names}
    found: dict[Scheme, dg.PartitionsDefinition | None] = {}
    for scheme in Scheme:
        own = {name: single[name] for name in scheme.dimensions}
        found[scheme] = dg.MultiPartitionsDefinition(own) if len(own) > 1 else next(iter(own.values()), None)
    return found


def dependency(stage: Stage, upstream: str | Upstream, stages: Mapping[str, Stage], settings: Settings) -> dg.AssetDep:
    """What Dagster is told of an upstream asset: only built-in mappings reach a daemon that asks a code server.

    Without a mapping Dagster pairs equal keys of shared dimensions and gathers all into an unpartitioned asset.
    """
    if isinstance(upstream, Upstream):
        used_by = {key: set(users) for key, users in upstream.used_by(settings).items()}
        return dg.AssetDep(upstream.asset, partition_mapping=dg.StaticPartitionMapping(used_by))
    own, theirs = stage.scheme.dimensions, stages[upstream].scheme.dimensions
    apart = bool(own and theirs) and not set(own) & set(theirs)
    return dg.AssetDep(upstream, partition_mapping=dg.AllPartitionMapping() if apart else None)


def partition_of(scheme: Scheme, key: str | None) -> Partition:
    """The keys in a Dagster partition key (`region|source` in a multi-partition)."""
    return tuple(key.split("|")) if key is not None and scheme.dimensions else ()


def key_of(partition: Partition) -> str | None:
    """The Dagster partition key of a partition; None without partitions."""
    return "|".join(partition) or None
