"""`@asset`: one declaration from which an asset of Dagster, its lineage, its checks and its state follow.

The assets themselves are declared in `skyscript_assets.assets`. A body is given what its `config` made of the settings
and nothing else of them; how it is run against the store is told in `provenance`, its partitions in `partitions`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pyarrow as pa

from skyscript_assets import checks, metadata, runs
from skyscript_assets.checks import Check
from skyscript_assets.lib.errors import CheckFailedError, SkyScriptError, StoppedError, may_pass
from skyscript_assets.lib.progress import broadcast
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.partitions import Partition, Scheme, Upstream, dependency, partition_of
from skyscript_assets.provenance import Run
from skyscript_assets.resources import Plant

_log = logging.getLogger(__name__)

RETRIES = dg.RetryPolicy(max_retries=3, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""Of faults that may pass, in every stage. No policy of the op: by that Dagster would try again whatever happened."""

Counts = Mapping[str, Any]
Build = Callable[[Run[Any]], Counts]
Preview = Callable[[Run[Any]], Mapping[str, dg.MetadataValue]]


class Rebuild(dg.Config):
    """Launchpad config of every asset.

    `force` makes the output again although nothing it is made from has changed; `retry` tries those items of a current
    output again that failed, and keeps the others.
    """

    force: bool = False
    retry: bool = False


@dataclass(frozen=True, eq=False)
class Stage:
    """One asset of the plant; there is one object for each.

    Attributes:
        build: Body: reads the inputs of its run, writes into `run.out`, returns counts.
        upstream: Assets it is made from.
        optional: Assets of `upstream` of which any partition may be missing; what is there is read.
        after: Assets that a backfill waits for though nothing of them is read here: what later stages of the level
            read, so that all of the level is ready at once, for one run.
        kinds: Dagster kinds, shown as icons.
        code_version: Raised when the same inputs would give another output.
        tables: Parquet files it writes, with their columns; the first one is the main table.
        columns_from: Columns of the main table that are taken over as they are, by the asset that they come from.
        config: Everything outside the store that shapes the output: settings, digests of the user's files. What it
            returns is all that body and preview get of the settings; fields marked `UNSEEN` make nothing stale.
        needs: Which of the upstream partitions that the schemes tell a partition really uses.
        preview: Metadata shown in the UI, made from the finished folder.
        unique: Column of the main table that must hold no value twice.
        empty: What the check `rows` says of a main table without rows.
        more_checks: Checks besides those of its tables.
        unversioned: Files that are no part of the data version: a list of failures, pictures of the rest.
        frozen_as: Name under which an output stays as it is, whatever becomes of its inputs.
    """

    name: str
    scheme: Scheme
    build: Build
    group: str
    kinds: frozenset[str]
    upstream: tuple[str | Upstream, ...] = ()
    optional: frozenset[str] = frozenset()
    after: tuple[str, ...] = ()
    code_version: str = "1"
    tables: Mapping[str, pa.Schema] = field(default_factory=dict)
    columns_from: Mapping[str, Sequence[str]] = field(default_factory=dict)
    config: Callable[[Settings, Partition], Any] = lambda _settings, _partition: None
    needs: Callable[[Settings, Partition, OutputKey], bool] = lambda _settings, _partition, _key: True
    preview: Preview = lambda _run: {}
    unique: str | None = None
    empty: Literal["fails", "warns", "passes"] = "fails"
    more_checks: tuple[Check, ...] = ()
    pool: str | None = None
    unversioned: frozenset[str] = frozenset()
    frozen_as: Callable[[Settings], str] | None = None

    @property
    def description(self) -> str:
        """The body's docstring."""
        return " ".join((self.build.__doc__ or "").split())

    @property
    def checks(self) -> tuple[Check, ...]:
        """What an output is checked for by looking at it alone."""
        return (*checks.of_tables(self.tables, self.unique, self.empty), *self.more_checks)

    def key(self, settings: Settings, partition: Partition) -> OutputKey:
        """Name of an output in the store: the partition keys, or the name it is frozen under."""
        return OutputKey(self.name, (self.frozen_as(settings),) if self.frozen_as else partition)

    def refuse_broken(self, key: OutputKey, folder: Path, counts: Counts) -> None:
        """Judge what was made by the blocking checks.

        Raises:
            CheckFailedError: one failed.
        """
        for check in (check for check in self.checks if check.blocking):
            passed, evidence = check.judge(folder, counts)
            if not passed:
                found = f"({check.description} Found: {dict(evidence)})"
                remedy = "was not put in place; what it is made from must be mended first"
                raise CheckFailedError(
                    f"{key} failed its check {check.name} {found} and {remedy}", check.name, evidence
                )


def asset(
    scheme: Scheme, *, group: str, kinds: Sequence[str] = ("parquet",), **options: Any
) -> Callable[[Build], Stage]:
    """Declare the decorated body as an asset named after it; options are the fields of `Stage`. Most write tables."""

    def declare(build: Build) -> Stage:
        return Stage(name=build.__name__, scheme=scheme, build=build, group=group, kinds=frozenset(kinds), **options)

    return declare


def definition(
    stage: Stage,
    stages: Mapping[str, Stage],
    settings: Settings,
    partitions: Mapping[Scheme, dg.PartitionsDefinition | None],
) -> dg.AssetsDefinition:
    """The Dagster asset of a stage: it runs the body against the store, shows what was made, and judges it."""

    @dg.asset(
        name=stage.name,
        deps=[dependency(stage, upstream, stages, settings) for upstream in (*stage.upstream, *stage.after)],
        partitions_def=partitions[stage.scheme],
        group_name=stage.group,
        kinds=set(stage.kinds),
        owners=["team:skyscript"],
        description=stage.description,
        code_version=stage.code_version,
        metadata={**metadata.column_schemas(stage.tables), **metadata.code_reference(stage.build)},
        check_specs=checks.specs(stage),
        pool=stage.pool,
    )
    def made(context: dg.AssetExecutionContext, config: Rebuild, plant: Plant) -> Iterator[Any]:
        partition = partition_of(stage.scheme, context.partition_key if context.has_partition_key else None)
        outputs = plant.outputs(stages)
        tell = broadcast(metadata.log_progress(context.log))

        def progress(done: int, total: int, unit: str) -> None:
            tell(done, total, unit)
            runs.check()

        try:
            runs.check()
            with runs.signals_deferred():
                outcome = outputs.materialize(
                    stage, partition, force=config.force, retry=config.retry, progress=progress
                )
        except StoppedError as stopped:
            raise runs.cancelled(context.instance, context.run.run_id, stopped) from stopped
        except CheckFailedError as error:
            verdict = checks.Verdict(passed=False, evidence=error.evidence)
            yield checks.result(error.check, verdict, partition, warn=False)
            raise dg.Failure(description=str(error)) from error
        except Exception as error:
            raise _told(error, stage.key(outputs.settings, partition), context) from error
        record, preview = outcome.record, stage.preview(outcome.run)
        shown = {  # the picture first; where a count has its name, the preview stands
            **preview,
            **metadata.follow(outcome.run.out, stage.tables),
            **metadata.counts(record.counts),
            **preview,
            **metadata.column_lineage(stage.columns_from),
            "reused": outcome.reused,
            "size": dg.MetadataValue.text(f"{record.size_bytes / 1e6:,.1f} MB"),
            "folder": dg.MetadataValue.path(str(outputs.store.local / record.key)),
            "inputs": dg.MetadataValue.json({**record.made_from["inputs"], "missing": list(outcome.run.missing)}),
        }
        yield dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(record.data_version))
        yield from checks.results(outputs, stage, partition, outcome)

    return made


def _told(error: Exception, key: OutputKey, context: dg.AssetExecutionContext) -> Exception:
    """What Dagster is told of an error: to try again, after a pause, or that the step has failed, and why."""
    message = str(error)
    if not isinstance(error, SkyScriptError):
        message = f"{key}: {type(error).__name__}: {error} (nobody foresaw this: please report it with its traceback)"
    if not may_pass(error) or context.retry_number >= RETRIES.max_retries:
        return dg.Failure(description=message)
    seconds = RETRIES.calculate_delay(context.retry_number + 1)
    note = f"try {context.retry_number + 1} of {RETRIES.max_retries + 1} failed, the next follows in {seconds:.0f} s"
    context.log.warning(f"{note}: {message}")
    _log.warning("%s: %s: %s", key, note, message)
    runs.rest(seconds, context.instance, context.run.run_id)
    # The pause is over: Dagster's own is deaf to signals.
    return dg.RetryRequested(max_retries=RETRIES.max_retries, seconds_to_wait=0)
