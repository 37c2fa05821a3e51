"""Everything of a profile, in order: walk the levels, request a run for each partition that is not current.

The runs are ordinary Dagster runs, in process, on the instance that the UI shows; a partition that is current in the
store and recorded in the instance gets none.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg

from skyscript_assets import runs
from skyscript_assets.asset import Stage
from skyscript_assets.assets import LEVELS, STAGES, Level
from skyscript_assets.checks import FRESH
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.progress import Progress, listening, silent
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import Partition, inputs_of, key_of, not_covered, partition_of, partitions_of
from skyscript_assets.provenance import Outputs, State

MAX_FOUND = 300
"""Characters of what a check found that a warning shows: examples may be many."""


@dataclass(frozen=True)
class Step:
    """A partition of a level, or of one of its assets, that may need a run."""

    level: Level
    partition: Partition
    only: str | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the run makes."""
        return self.level.stages if self.only is None else (STAGES[self.only],)

    @property
    def title(self) -> str:
        """The partition key, or the level's name where it has none."""
        return key_of(self.partition) or self.level.name


@dataclass(frozen=True)
class StepResult:
    """What became of a step.

    Attributes:
        error: What went wrong, failed checks included; None where it went well.
        seconds: Time of each asset of the run, by name.
        warnings: What the checks found that failed with severity WARN, but for `fresh`.
    """

    step: Step
    ran: bool
    error: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def steps_of(settings: Settings) -> list[Step]:
    """Every partition of every level, in the order in which they run."""
    return [Step(level, partition) for level in LEVELS for partition in partitions_of(level.scheme, settings)]


def retry_steps(names: Sequence[str], settings: Settings, store: Store) -> list[Step]:
    """The outputs that have failed items to be tried again: all of them, or those of some names.

    Raises:
        SkyScriptError: there is no output of a name, or it has not been made.
    """
    steps, outputs = [step_named(name, settings) for name in names], Outputs(STAGES, settings, store)
    steps = steps or [
        Step(level, partition, only=stage.name)
        for level in LEVELS
        for stage in level.stages
        for partition in partitions_of(stage.scheme, settings)
    ]
    heads = [outputs.head(step.stages[0].key(settings, step.partition)) for step in steps]
    for name, head in zip(names, heads, strict=False):
        if head is None:
            raise SkyScriptError(f"{name} has not been materialized, nothing can be tried again: skyscript run {name}")
    return [step for step, head in zip(steps, heads, strict=True) if head is not None and head.failed]


def steps_to(names: Sequence[str], settings: Settings, store: Store) -> list[Step]:
    """The steps that make outputs of some names, each after those that make what it needs and is missing.

    Raises:
        SkyScriptError: there is no output of a name.
    """
    outputs, steps = Outputs(STAGES, settings, store), dict[Step, None]()

    def add(step: Step) -> None:
        for key in inputs_of(step.stages[0], STAGES, settings, step.partition):
            if outputs.head(key) is None and key.asset not in step.stages[0].optional:
                add(step_named(key.path, settings))
        steps[step] = None

    for name in names:
        add(step_named(name, settings))
    return list(steps)


def is_current(step: Step, outputs: Outputs, instance: dg.DagsterInstance) -> bool:
    """Whether every output of a step is current in the store and recorded in the instance."""
    return all(
        outputs.state(stage, step.partition) is State.CURRENT and _recorded(stage, step.partition, outputs, instance)
        for stage in step.stages
    )


def _recorded(stage: Stage, partition: Partition, outputs: Outputs, instance: dg.DagsterInstance) -> bool:
    head = outputs.head(stage.key(outputs.settings, partition))
    key = key_of(partition)
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(stage.name), asset_partitions=[key] if key else None), limit=1
    ).records
    if head is None or not records or records[0].asset_materialization is None:
        return False
    tags = records[0].asset_materialization.tags or {}
    return tags.get("dagster/data_version") == head.data_version


def run_all(
    defs: dg.Definitions,
    settings: Settings,
    store: Store,
    instance: dg.DagsterInstance,
    *,
    steps: Sequence[Step] | None = None,
    begin: Callable[[Step], None] | None = None,
    progress: Progress = silent,
    force: bool = False,
    retry: bool = False,
) -> Iterator[StepResult]:
    """Run what is not current, level by level; a level that failed ends the walk after its other partitions ran.

    Levels that can do without what failed are walked all the same (`Level.spared_by`). The result of each step comes,
    current ones included. Without `steps` it is everything; `begin` is called before a run starts, `progress` hears the
    work of the stages; with `force` outputs are made again although nothing has changed, with `retry` what failed in
    current ones is tried again.

    Raises:
        StoppedError: the process was asked to end.
    """
    failed: Step | None = None
    looked_at: Level | None = None
    for step in steps_of(settings) if steps is None else steps:
        if failed is not None and step.level.name not in (failed.level.name, *failed.level.spared_by):
            return
        if failed is not None and step.only is not None and step.partition == failed.partition:
            continue  # what it is made from may well be what failed
        runs.check()
        # No run of a level makes anything that another one of it reads: one look will do for all, at single assets not.
        if step.level is not looked_at or step.only is not None:
            outputs, looked_at = Outputs(STAGES, settings, store), step.level
        if not force and not retry and is_current(step, outputs, instance):
            yield StepResult(step, ran=False)
            continue
        if begin is not None:
            begin(step)
        with listening(progress):
            result = _run(defs, step, instance, force=force, retry=retry)
        if result.error is not None:
            failed = step
        yield result


def _run(defs: dg.Definitions, step: Step, instance: dg.DagsterInstance, *, force: bool, retry: bool) -> StepResult:
    job = defs.resolve_job_def(step.level.name)
    config = {
        # The terminal shows the steps; the full log of a run is in the UI.
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        "ops": {stage.name: {"config": {"force": force, "retry": retry}} for stage in step.stages},
    }
    started, run_id = time.monotonic(), str(uuid.uuid4())
    result = job.execute_in_process(
        run_config=config,
        partition_key=key_of(step.partition),
        asset_selection=None if step.only is None else [dg.AssetKey(step.only)],
        instance=instance,
        raise_on_error=False,
        run_id=run_id,
        # No daemon could start it again: the next command does.
        tags={**runs.process_tags(run_id), "dagster/max_retries": "0"},
    )
    runs.check()
    seconds: dict[str, float] = {}
    error: str | None = None
    for event in result.all_events:
        if event.is_step_success and event.step_key in STAGES:
            seconds[event.step_key] = event.step_success_data.duration_ms / 1000
        if event.is_step_failure and error is None:
            error = f"{event.step_key}: {message_of(event.step_failure_data)}"
        if event.is_run_failure and error is None:
            error = message_of(event.job_failure_data)
    if error is None and not result.success:
        error = f"the run ended after {time.monotonic() - started:.1f} s without a result; see run {result.run_id}"
    unmet = {
        f"{each.asset_key.to_user_string()}.{each.check_name}": each for each in result.get_asset_check_evaluations()
    }
    unmet = {name: check for name, check in unmet.items() if not check.passed}
    failed = tuple(name for name, check in unmet.items() if check.severity is dg.AssetCheckSeverity.ERROR)
    # Once a check: what follows from an empty table, or a poor one, is empty too.
    warned = {check.check_name: name for name, check in reversed(unmet.items()) if name not in failed}
    warnings = tuple(_warning(name, unmet[name]) for check, name in sorted(warned.items()) if check != FRESH)
    if error is None and failed:
        error = f"failed checks: {', '.join(failed)}"
    return StepResult(step, ran=True, error=error, seconds=seconds, warnings=warnings)


def _warning(name: str, check: dg.AssetCheckEvaluation) -> str:
    """What a check wants and what it found, in one line."""
    stage = STAGES[check.asset_key.to_user_string()]
    wanted = next(known.description for known in stage.checks if known.name == check.check_name)
    found = {name: value.value for name, value in check.metadata.items() if name != "partition"}
    told = str(found) if len(str(found)) <= MAX_FOUND else f"{str(found)[:MAX_FOUND]} ..., all of it in the UI"
    return f"{name} failed ({wanted} Found: {told})"


def message_of(failure: object) -> str:
    """The message of a failed step or run: that of the deliberate failure, else of the innermost exception."""
    user = getattr(failure, "user_failure_data", None)
    if user is not None and user.description:
        return str(user.description)
    error = getattr(failure, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return str(error.message).strip() if error is not None else "unknown error"


def step_named(name: str, settings: Settings) -> Step:
    """The step that makes an output named `asset/key/key` (or `asset/key|key`).

    Raises:
        SkyScriptError: there is no such asset or partition; the message lists what there is.
    """
    asset, _, rest = name.partition("/")
    if asset not in STAGES:
        raise SkyScriptError(f"there is no asset {asset!r}; assets are {', '.join(STAGES)}")
    stage = STAGES[asset]
    level = next(level for level in LEVELS if stage in level.stages)
    partition = () if stage.frozen_as else partition_of(stage.scheme, rest.replace("/", "|") or None)
    known = partitions_of(stage.scheme, settings)
    if partition not in known:
        with contextlib.suppress(KeyError, ValueError):  # of keys that there are not, or another number of them
            if reason := not_covered(stage.scheme, partition, settings):
                raise SkyScriptError(f"{name}: {reason}")
        listed = ", ".join(f"{asset}/{'/'.join(key)}" for key in known[:12])
        raise SkyScriptError(f"{name}: there is no such partition; there are {listed or asset}")
    return Step(level, partition, only=asset)
