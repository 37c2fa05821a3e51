"""What a stage declares is what its body gets, and what makes its output stale."""

import dataclasses
import errno
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from skyscript_assets import asset as asset_module
from skyscript_assets import partitions
from skyscript_assets.asset import Counts, Stage, asset, definition
from skyscript_assets.assets import STAGES as PLANT_STAGES
from skyscript_assets.lib.errors import (
    CorruptInputError,
    NoSpaceError,
    OutputBusyError,
    PoolBusyError,
    RefusedError,
    SceneError,
    SettingsError,
    StorageError,
    UnreachableError,
)
from skyscript_assets.lib.settings.base import UNSEEN, Model
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Difference, Outputs, Run, State
from skyscript_assets.resources import Plant


class Sizes(Model):
    """Settings of a stage."""

    side: int
    threads: Annotated[int, UNSEEN] = 1
    url: str = "https://example.org/a?token=first"


given = Sizes(side=1)
seen_by_body: list[Run[Any]] = []


@asset(Scheme.SINGLE, group="g", kinds=["file"], config=lambda settings, partition: given)
def sized(run: Run[Sizes]) -> Counts:
    """A file of a size."""
    seen_by_body.append(run)
    if run.config.side < 0:
        raise SceneError("side must not be negative; correct sizes.side")
    (run.out / "file").write_text(str(run.config.side))
    return {"side": run.config.side}


STAGES: dict[str, Stage] = {"sized": sized}


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    global given
    given = Sizes(side=1)
    seen_by_body.clear()
    return Outputs(STAGES, load_settings(PACKAGED_PROFILES / "demo"), Store(tmp_path))


def now(outputs: Outputs, stage: Stage = sized, **changes: Any) -> Outputs:
    """The same outputs at a later look, with other settings."""
    global given
    given = given.model_copy(update=changes)
    return Outputs({"sized": stage}, outputs.settings, outputs.store)


def test_body_and_preview_get_the_config_and_nothing_else_of_the_settings(outputs: Outputs) -> None:
    outcome = outputs.materialize(sized, ())
    assert outcome.run.config == given
    assert seen_by_body[0].config == given
    assert not any(isinstance(value, type(outputs.settings)) for value in vars(seen_by_body[0]).values())


def test_only_what_is_seen_makes_an_output_stale(outputs: Outputs) -> None:
    outputs.materialize(sized, ())
    assert now(outputs, threads=8).state(sized, ()) is State.CURRENT
    assert now(outputs, side=2).state(sized, ()) is State.STALE


def test_a_secret_in_an_address_decides_and_is_not_kept(outputs: Outputs) -> None:
    record = outputs.materialize(sized, ()).record
    assert record.made_from["settings"]["url"] == "https://example.org/a"
    assert now(outputs, url="https://example.org/a?token=second").state(sized, ()) is State.STALE


def test_each_difference_is_listed(outputs: Outputs) -> None:
    assert outputs.differences(sized, ()) == []
    outputs.materialize(sized, ())
    assert now(outputs, threads=8).differences(sized, ()) == []
    assert now(outputs, side=2).differences(sized, ()) == [Difference("settings.side", 1, 2)]
    raised = dataclasses.replace(sized, code_version="2")
    assert now(outputs, raised).differences(raised, ()) == [
        Difference("code", "1", "2"),
        Difference("settings.side", 1, 2),
    ]


def fails(error: Exception, tries: int = 99) -> Stage:
    """A stage that fails so often."""

    def build(run: Run[Any]) -> Counts:
        """Fails."""
        seen_by_body.append(run)
        if len(seen_by_body) <= tries:
            raise error
        return {}

    return dataclasses.replace(sized, build=build)


@pytest.fixture
def materialize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Stage], dg.ExecuteInProcessResult]:
    """Materializes a stage in a run of Dagster, without pauses."""
    monkeypatch.setattr(asset_module, "RETRIES", dg.RetryPolicy(max_retries=2, delay=0))
    seen_by_body.clear()

    def run(stage: Stage) -> dg.ExecuteInProcessResult:
        settings = load_settings(PACKAGED_PROFILES / "demo")
        made = definition(stage, {"sized": stage}, settings, partitions.definitions(settings))
        plant = Plant(settings_folder=str(PACKAGED_PROFILES / "demo"), data=str(tmp_path))
        with dg.DagsterInstance.ephemeral() as instance:
            return dg.materialize([made], resources={"plant": plant}, instance=instance, raise_on_error=False)

    return run


def described(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = result.get_step_failure_events()
    return str(failure.step_failure_data.user_failure_data.description)


def io_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/data/x")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


PASSING = [
    UnreachableError("it may pass"),
    OutputBusyError("it may pass"),
    NoSpaceError("it may pass"),
    caused(StorageError("it may pass"), io_error(errno.EBUSY)),
]
LASTING = [
    SettingsError("it stays"),
    CorruptInputError("it stays"),
    RefusedError("it stays", 404),
    SceneError("it stays"),
    PoolBusyError("it stays"),
    caused(StorageError("it stays"), io_error(errno.EACCES)),
    caused(CorruptInputError("it stays"), io_error(errno.EBUSY)),
]


def name_of(error: Exception) -> str:
    return type(error).__name__


@pytest.mark.parametrize("error", PASSING, ids=name_of)
def test_a_fault_that_may_pass_is_tried_again_a_few_times(error: Exception, materialize: Callable) -> None:
    assert materialize(fails(error, tries=2)).success
    assert len(seen_by_body) == 3
    seen_by_body.clear()
    assert described(materialize(dataclasses.replace(fails(error), code_version="2"))) == "it may pass"
    assert len(seen_by_body) == 3


@pytest.mark.parametrize("error", LASTING, ids=name_of)
def test_an_error_that_stays_ends_the_step_with_its_message_at_once(error: Exception, materialize: Callable) -> None:
    assert described(materialize(fails(error))) == "it stays"
    assert len(seen_by_body) == 1


def test_an_unforeseen_error_ends_the_step_and_keeps_its_traceback(materialize: Callable) -> None:
    result = materialize(fails(ZeroDivisionError("by nothing")))
    assert described(result).startswith("sized: ZeroDivisionError: by nothing (nobody foresaw this: please report it")
    (failure,) = result.get_step_failure_events()
    assert "raise error" in failure.step_failure_data.error.cause.to_string()
    assert len(seen_by_body) == 1


@pytest.mark.parametrize(
    "error",
    [
        duckdb.IOException('Could not write file "/tmp/x.tmp": No space left on device'),
        pa.lib.ArrowException("Error writing bytes to file. Detail: [errno 28] No space left on device"),
        io_error(errno.ENOSPC),
        io_error(errno.EDQUOT),
    ],
    ids=name_of,
)
def test_a_full_disk_is_told_as_such_however_a_library_says_it(error: Exception, materialize: Callable) -> None:
    assert "no space is left" in described(materialize(fails(error)))
    assert len(seen_by_body) == 3


def test_every_stage_says_what_it_is_and_where_its_body_stands() -> None:
    settings = load_settings(PACKAGED_PROFILES / "demo")
    by_scheme = partitions.definitions(settings)
    for stage in PLANT_STAGES.values():
        spec = definition(stage, PLANT_STAGES, settings, by_scheme).get_asset_spec(dg.AssetKey(stage.name))
        assert spec.description == stage.description != ""
        assert spec.group_name
        (reference,) = spec.metadata["dagster/code_references"].code_references
        line = Path(reference.file_path).read_text(encoding="utf-8").splitlines()[reference.line_number - 1]
        assert line.startswith("@asset"), f"{stage.name}: {line}"
        taken = {column for columns in stage.columns_from.values() for column in columns}
        assert not stage.tables or taken <= set(next(iter(stage.tables.values())).names), stage.name
        assert {*stage.columns_from} <= {*PLANT_STAGES}, stage.name


@pytest.mark.parametrize("stage", PLANT_STAGES.values(), ids=PLANT_STAGES)
def test_what_can_tell_its_progress_is_given_the_listener_by_which_a_run_is_stopped(stage: Stage) -> None:
    code = stage.build.__code__
    called = [stage.build.__globals__.get(name) for name in code.co_names]
    if any("progress" in inspect.signature(function).parameters for function in called if inspect.isfunction(function)):
        assert "progress" in code.co_names
