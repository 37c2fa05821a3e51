"""How partitions of levels stand: what has to be made, from what, and what is under way already."""

from collections import Counter
from collections.abc import Sequence
from functools import cache

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from skyscript_assets.asset import Stage
from skyscript_assets.assets import LEVELS, STAGES, Level
from skyscript_assets.automation.decision import Need
from skyscript_assets.lib.files import digest
from skyscript_assets.lib.settings.base import seen
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.partitions import Partition, key_of, partitions_of
from skyscript_assets.provenance import State
from skyscript_assets.resources import Plant

ASKED_BY = "skyscript/asked_by"
"""Tag of a run: the sensor or schedule that asked for it."""

_GOING_ON = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING])


class Standing:
    """One look at the outputs of a plant and the runs of an instance: one query of runs, one of backfills.

    `claimed` are assets, with partition keys, that are queued, running, or the target of a backfill; `asked_by` counts
    the runs that have not ended by who asked for them.
    """

    def __init__(self, plant: Plant, instance: dg.DagsterInstance) -> None:
        self.outputs = plant.outputs(STAGES)
        self.asked_by, self.claimed = Counter[str](), set[tuple[str, str | None]]()
        self._names = {level.name: {stage.name for stage in level.stages} for level in LEVELS}
        self._beside = {name: names for names in self._names.values() for name in names}
        self._state, self._settled = cache(self.outputs.state), cache(self._is_settled)
        for run in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
            selected = {key.to_user_string() for key in run.asset_selection or ()} or self._names.get(
                run.job_name, set()
            )
            self.claimed.update((name, run.tags.get("dagster/partition")) for name in selected)
            self.asked_by[run.tags.get(ASKED_BY, "")] += 1
        for backfill in instance.get_backfills(filters=_GOING_ON):
            if backfill.asset_backfill_data is not None:
                targets = backfill.asset_backfill_data.target_subset.iterate_asset_partitions()
                self.claimed.update((asset.to_user_string(), key) for asset, key in targets)

    def is_in_flight(self, level: Level, partition: Partition) -> bool:
        """Whether a partition of a level is being made."""
        return any((stage.name, key_of(partition)) in self.claimed for stage in level.stages)

    def needs(self, levels: Sequence[Level]) -> dict[Need, tuple[Level, Partition]]:
        """Partitions of levels that are not current: level by level, heavy ones first."""
        return {
            self._need(level, partition): (level, partition)
            for level in levels
            for partition in partitions_of(level.scheme, self.outputs.settings)
            if any(self._state(stage, partition) is not State.CURRENT for stage in level.stages)
        }

    def _need(self, level: Level, partition: Partition) -> Need:
        waits_for, made_from, names = None, [], self._names[level.name]
        for stage in level.stages:
            provenance = self.outputs.provenance(stage, partition)
            for key in (*provenance.required, *provenance.inputs):
                if key.asset not in names and not self._settled(*self._made_by(key)):
                    waits_for = waits_for or str(key)
            # What the level makes itself is no part of it: a run that fails half-way changes nothing here.
            inputs = [item for item in provenance.made_from["inputs"].items() if item[0].partition("/")[0] not in names]
            output = str(stage.key(self.outputs.settings, partition))
            made_from.append([output, stage.code_version, seen(provenance.config), inputs])
        name = "/".join((level.name, *partition))
        return Need(name, digest(made_from)[:16], waits_for, self.is_in_flight(level, partition))

    def why(self, level: Level, partition: Partition) -> str:
        """What is missing or stale in a partition that is not current."""
        states = [(stage, self._state(stage, partition)) for stage in level.stages]
        stage, state = next((stage, state) for stage, state in states if state is not State.CURRENT)
        found = self.outputs.differences(stage, partition)[:1] if state is State.STALE else []
        word = "missing" if state is State.BLOCKED else state.value
        return f"{word}: {'.'.join((stage.name, *(difference.what for difference in found)))}"

    def _is_settled(self, stage: Stage, partition: Partition) -> bool:
        """Whether no run of its own level would change an output now: it is current, and so is what it is made from."""
        if self._state(stage, partition) is not State.CURRENT or (stage.name, key_of(partition)) in self.claimed:
            return False
        inputs = () if stage.frozen_as else self.outputs.provenance(stage, partition).inputs
        return all(self._settled(*self._made_by(key)) for key in inputs if key.asset in self._beside[stage.name])

    def _made_by(self, key: OutputKey) -> tuple[Stage, Partition]:
        stage = self.outputs.stages[key.asset]
        return stage, () if stage.frozen_as else key.partition
