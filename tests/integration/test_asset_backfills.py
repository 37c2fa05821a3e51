"""A backfill of everything as the UI starts it: the daemon's own iterations decide, runs end in any order."""

import logging
import random
import time
from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.backfill import execute_backfill_iteration

from skyscript_assets.assets import LEVELS, STAGES
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.partitions import key_of, partitions_of
from tests.workshop import served, tiny_files, write_profile

pytestmark = pytest.mark.integration

LEVEL_OF = {stage.name: level.name for level in LEVELS for stage in level.stages}
QUEUED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three regions, two of which overlap."""
    files = tiny_files()
    files["regions"]["regions"] = {
        name: {
            "title": name,
            "path": f"{name}.osm.pbf",
            "bbox": {"west": west, "south": 60, "east": west + 0.06, "north": 61},
        }
        for name, west in (("west", 24.90), ("middle", 24.95), ("away", 26.0))
    }
    return load_settings(write_profile(tmp_path_factory.mktemp("profile"), files))


@pytest.fixture(scope="module")
def daemon(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkspaceProcessContext]:
    """What the daemon has: an instance that queues runs, and the profile's code location in another process."""
    with served(settings, tmp_path_factory.mktemp("served")) as process:
        yield process


def start(daemon: WorkspaceProcessContext, name: str) -> None:
    """Ask for every partition of every asset, as the UI does."""
    graph = daemon.create_request_context().asset_graph
    selected = []
    for stage in STAGES:
        keys = graph.get(dg.AssetKey(stage)).partitions_def
        ranges = [PartitionRangeSelector(start=key, end=key) for key in keys.get_partition_keys()] if keys else None
        chosen = PartitionsSelector(ranges=ranges) if ranges else None
        selected.append(PartitionsByAssetSelector(asset_key=dg.AssetKey(stage), partitions=chosen))
    daemon.instance.add_backfill(
        PartitionBackfill.from_partitions_by_assets(
            backfill_id=name,
            asset_graph=graph,
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=daemon.instance,
            partitions_by_assets=selected,
            title=None,
            description=None,
            run_config=None,
        )
    )


def tick(daemon: WorkspaceProcessContext) -> None:
    errors = [error for error in execute_backfill_iteration(daemon, logging.getLogger("backfill")) if error]
    assert errors == []


def materialize(instance: dg.DagsterInstance, run: dg.DagsterRun, asset: dg.AssetKey) -> None:
    made = dg.AssetMaterialization(asset, partition=run.tags.get("dagster/partition"))
    data = StepMaterializationData(made)
    event = DagsterEvent(DagsterEventType.ASSET_MATERIALIZATION.value, run.job_name, event_specific_data=data)
    instance.report_dagster_event(event, run.run_id)


def succeed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    event = DagsterEvent(DagsterEventType.RUN_SUCCESS.value, run.job_name)
    instance.report_dagster_event(event, run.run_id)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_backfill_of_everything_takes_one_run_a_partition_and_level(
    daemon: WorkspaceProcessContext, settings: Settings, seed: int
) -> None:
    instance, chance, name = daemon.instance, random.Random(seed), f"everything-{seed}"
    start(daemon, name)
    while (backfill := instance.get_backfill(name)) and backfill.status is BulkActionStatus.REQUESTED:
        tick(daemon)
        queued = instance.get_runs(QUEUED)
        for run in chance.sample(queued, chance.randint(1, len(queued)) if queued else 0):
            assets = sorted(run.asset_selection or (), key=lambda key: list(STAGES).index(key.to_user_string()))
            for asset in assets:
                materialize(instance, run, asset)
                if chance.random() < 0.1:  # the daemon also looks while a run is on its way
                    tick(daemon)
            succeed(instance, run)
    assert backfill is not None
    assert backfill.status is BulkActionStatus.COMPLETED_SUCCESS
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": name}))
    found = Counter(
        (level, run.tags.get("dagster/partition"))
        for run in runs
        for level in {LEVEL_OF[asset.to_user_string()] for asset in run.asset_selection or ()}
    )
    wanted = Counter(
        (level.name, key_of(partition)) for level in LEVELS for partition in partitions_of(level.scheme, settings)
    )
    assert found == wanted
