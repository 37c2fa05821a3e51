"""Partition definitions of the settings' regions, sources, models and benchmarks, and how assets map across them."""

from __future__ import annotations

import dagster as dg

from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.stages import Parts, Scheme, keys_of


def definitions(settings: Settings) -> dict[Scheme, dg.PartitionsDefinition | None]:
    """The partitions definition of every scheme; None for assets without partitions."""
    single = {name: dg.StaticPartitionsDefinition(keys_of(name, settings)) for name in _DIMENSIONS}
    found: dict[Scheme, dg.PartitionsDefinition | None] = {}
    for scheme in Scheme:
        if not scheme.dimensions:
            found[scheme] = None
        elif len(scheme.dimensions) == 1:
            found[scheme] = single[scheme.dimensions[0]]
        else:
            found[scheme] = dg.MultiPartitionsDefinition({name: single[name] for name in scheme.dimensions})
    return found


_DIMENSIONS = ("region", "source", "model", "benchmark")


def key_to_parts(scheme: Scheme, key: str | None) -> Parts:
    """Partition keys of a Dagster partition key (`region|source` in a multi-partition)."""
    return tuple(key.split("|")) if key is not None and scheme.dimensions else ()


def parts_to_key(parts: Parts) -> str | None:
    """The Dagster partition key of partition keys; None without partitions."""
    return "|".join(parts) or None


def mapping(own: Scheme, upstream: Scheme) -> dg.PartitionMapping | None:
    """How a downstream scheme uses an upstream one that it shares no dimension with: all of it.

    None leaves it to Dagster, which pairs equal keys of shared dimensions and gathers all into an unpartitioned asset.
    """
    apart = not set(own.dimensions) & set(upstream.dimensions)
    return dg.AllPartitionMapping() if apart and own.dimensions and upstream.dimensions else None
