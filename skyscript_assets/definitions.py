"""The code location: every stage as a Dagster asset, with its checks, jobs, schedule and resource.

This is the one module that reads the environment: `SKYSCRIPT_SETTINGS` (a profile's folder, or the name of a packaged
one), `SKYSCRIPT_DATA` (root of the outputs) and `SKYSCRIPT_SCRATCH` (local folder for a remote root). Partition keys
depend on the settings, the set of assets never does.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from skyscript_assets import checks, jobs, metadata, partitions, schedules
from skyscript_assets.assets import STAGES
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.progress import broadcast
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.provenance import materialize
from skyscript_assets.resources import Plant
from skyscript_assets.stages import Scheme, Stage

OWNER = "team:skyscript"


class Rebuild(dg.Config):
    """Launchpad config of every asset.

    Attributes:
        force: Make the output again although nothing it is made from has changed.
        retry: Try again those items of a current output that failed, and keep the others.
    """

    force: bool = False
    retry: bool = False


def plant_from_environment() -> Plant:
    """The resource that the environment describes; the packaged `demo` and `data/` where it is silent."""
    profile = os.environ.get("SKYSCRIPT_SETTINGS") or "demo"
    packaged = PACKAGED_PROFILES / profile
    folder = packaged if "/" not in profile and packaged.is_dir() else Path(profile).expanduser()
    return Plant(
        settings_folder=str(folder.absolute()),
        data=os.environ.get("SKYSCRIPT_DATA") or "data",
        scratch=os.environ.get("SKYSCRIPT_SCRATCH"),
    )


def build_defs(settings: Settings, plant: Plant, **overrides: Any) -> dg.Definitions:
    """The whole graph for a profile; tests build it with other resources through `overrides`."""
    by_scheme = partitions.definitions(settings)
    return dg.Definitions(
        assets=[_asset(stage, by_scheme) for stage in STAGES.values()],
        asset_checks=checks.all_checks(STAGES),
        jobs=jobs.all_jobs(),
        schedules=[schedules.missing_pairs],
        resources={"plant": plant, **overrides},
        # A run is a process already. With one for each step, of which every check is one, most of a run's time went
        # into starting them.
        executor=dg.in_process_executor,
    )


def _asset(stage: Stage, by_scheme: dict[Scheme, dg.PartitionsDefinition | None]) -> dg.AssetsDefinition:
    """A stage as an asset: run it against the store, then show what it made."""

    @dg.asset(
        name=stage.name,
        deps=[
            dg.AssetDep(name, partition_mapping=partitions.mapping(stage.scheme, STAGES[name].scheme))
            for name in stage.upstream
        ],
        partitions_def=by_scheme[stage.scheme],
        group_name=stage.group,
        kinds=set(stage.kinds),
        owners=[OWNER],
        description=stage.description,
        code_version=stage.code_version,
        metadata=_column_schemas(stage),
        pool=stage.pool,
        retry_policy=dg.RetryPolicy(max_retries=stage.retries, delay=5, backoff=dg.Backoff.EXPONENTIAL)
        if stage.retries
        else None,
    )
    def asset(context: dg.AssetExecutionContext, config: Rebuild, plant: Plant) -> dg.MaterializeResult[None]:
        parts = partitions.key_to_parts(stage.scheme, context.partition_key if context.has_partition_key else None)
        outcome = _or_fail(
            lambda: materialize(
                stage,
                STAGES,
                plant.settings(),
                plant.store(),
                parts,
                force=config.force,
                retry=config.retry,
                progress=broadcast(metadata.log_progress(context.log)),
            )
        )
        manifest = outcome.manifest
        shown = {
            **metadata.counts(manifest.counts),
            **stage.preview(outcome.run),
            "reused": outcome.reused,
            "size": dg.MetadataValue.text(f"{manifest.size_bytes / 1e6:,.1f} MB"),
            "folder": dg.MetadataValue.path(str(outcome.run.out)),
            "inputs": dg.MetadataValue.json({**manifest.inputs, "missing": list(outcome.run.missing)}),
        }
        return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(manifest.data_version))

    return asset


def _or_fail(work: Callable[[], Any]) -> Any:
    """Run work; an error raised on purpose ends the step with its one message and is not tried again."""
    try:
        return work()
    except SkyScriptError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def _column_schemas(stage: Stage) -> dict[str, Any]:
    names = list(stage.tables)
    found: dict[str, Any] = {f"columns of {name}": metadata.column_schema(stage.tables[name]) for name in names[1:]}
    if names:
        found["dagster/column_schema"] = metadata.column_schema(stage.tables[names[0]])
    return found


_plant = plant_from_environment()
defs = build_defs(load_settings(Path(_plant.settings_folder)), _plant)
