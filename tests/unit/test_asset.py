"""What a stage declares is what its body gets, and what makes its output stale."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
import pytest

from skyscript_assets import partitions
from skyscript_assets.asset import Counts, Stage, asset, definition
from skyscript_assets.assets import STAGES as PLANT_STAGES
from skyscript_assets.lib.errors import SceneError
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


def test_an_error_raised_on_purpose_ends_the_step_with_its_message_and_is_not_tried_again(tmp_path: Path) -> None:
    global given
    given = Sizes(side=-1)
    seen_by_body.clear()
    settings = load_settings(PACKAGED_PROFILES / "demo")
    eager = dataclasses.replace(sized, retries=3)
    made = definition(eager, {"sized": eager}, settings, partitions.definitions(settings))
    plant = Plant(settings_folder=str(PACKAGED_PROFILES / "demo"), data=str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([made], resources={"plant": plant}, instance=instance, raise_on_error=False)
    (failure,) = result.get_step_failure_events()
    assert failure.step_failure_data.user_failure_data.description == "side must not be negative; correct sizes.side"
    assert len(seen_by_body) == 1


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
