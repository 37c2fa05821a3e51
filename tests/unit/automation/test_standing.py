"""What a sensor finds to be needed, with the small plant."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from skyscript_assets.automation import standing
from skyscript_assets.automation.decision import Need
from skyscript_assets.automation.standing import Standing
from skyscript_assets.lib.storage import Head
from skyscript_assets.resources import Plant
from tests.small_plant import FOLDER, LEVELS, PAIRS, STAGES, change, small_profile


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    monkeypatch.setattr(standing, "LEVELS", LEVELS)
    monkeypatch.setattr(standing, "STAGES", STAGES)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return Plant(settings_folder=str(small_profile(tmp_path / "profile", 2, 2)), data=str(tmp_path / "data"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def make(plant: Plant, asset: str, *partition: str) -> None:
    plant.outputs(STAGES).materialize(STAGES[asset], partition)


def needs(plant: Plant, instance: dg.DagsterInstance) -> dict[str, Need]:
    return {need.name: need for need in Standing(plant, instance).needs([PAIRS])}


def test_pairs_come_heavy_ones_first_and_wait_for_what_is_missing(plant: Plant, instance: dg.DagsterInstance) -> None:
    make(plant, "rules")
    make(plant, "extract", "r0")
    found = needs(plant, instance)
    assert list(found) == ["pairs/r0/S0", "pairs/r1/S0", "pairs/r0/S1", "pairs/r1/S1"]
    assert [need.waits_for for need in found.values()] == [None, "extract/r1"] * 2
    assert Standing(plant, instance).why(PAIRS, ("r0", "S0")) == "missing: cut"


def test_a_current_pair_is_no_need_and_a_stale_one_says_why(plant: Plant, instance: dg.DagsterInstance) -> None:
    for name in (("rules",), ("extract", "r0"), ("cut", "r0", "S0"), ("told", "r0", "S0")):
        make(plant, *name)
    assert "pairs/r0/S0" not in needs(plant, instance)
    change("r0", "moved")
    make(plant, "extract", "r0")
    assert "pairs/r0/S0" in needs(plant, instance)
    assert Standing(plant, instance).why(PAIRS, ("r0", "S0")) == "stale: cut.inputs.extract/r0"


def test_a_stale_input_is_waited_for(plant: Plant, instance: dg.DagsterInstance) -> None:
    for name in (("rules",), ("extract", "r0")):
        make(plant, *name)
    change("rules", "others")
    assert needs(plant, instance)["pairs/r0/S0"].waits_for == "rules"


def test_the_fingerprint_is_of_what_comes_from_outside_the_level(plant: Plant, instance: dg.DagsterInstance) -> None:
    for name in (("rules",), ("extract", "r0")):
        make(plant, *name)
    before = needs(plant, instance)["pairs/r0/S0"].fingerprint
    make(plant, "cut", "r0", "S0")
    assert needs(plant, instance)["pairs/r0/S0"].fingerprint == before
    change("r0", "moved")
    make(plant, "extract", "r0")
    assert needs(plant, instance)["pairs/r0/S0"].fingerprint != before


def test_an_output_that_cannot_be_read_is_needed(plant: Plant, instance: dg.DagsterInstance) -> None:
    for name in (("rules",), ("extract", "r0"), ("cut", "r0", "S0"), ("told", "r0", "S0")):
        make(plant, *name)
    found = Standing(plant, instance)
    found.outputs.heads[STAGES["told"].key(plant.settings(), ("r0", "S0"))] = Head("", problem="torn")
    assert "pairs/r0/S0" in {need.name for need in found.needs([PAIRS])}
    assert found.why(PAIRS, ("r0", "S0")) == "unreadable: told"


def test_runs_in_flight_claim_their_assets_and_partition(plant: Plant, instance: dg.DagsterInstance) -> None:
    for name in (("rules",), ("extract", "r0")):
        make(plant, *name)
    started = dg.DagsterRunStatus.STARTED
    run(instance, "pairs", started, {"dagster/partition": "r0|S0", standing.ASKED_BY: "missing_pairs"})
    run(instance, "pairs", dg.DagsterRunStatus.FAILURE, {"dagster/partition": "r0|S1"})
    run(instance, "__ASSET_JOB", started, {"dagster/partition": "r1"}, "extract")
    found = Standing(plant, instance)
    assert found.is_in_flight(PAIRS, ("r0", "S0"))
    assert not found.is_in_flight(PAIRS, ("r0", "S1"))
    assert found.claimed == {("cut", "r0|S0"), ("told", "r0|S0"), ("extract", "r1")}
    assert found.asked_by["missing_pairs"] == 1


def test_an_input_that_is_being_made_again_is_waited_for(plant: Plant, instance: dg.DagsterInstance) -> None:
    for name in (("rules",), ("extract", "r0")):
        make(plant, *name)
    assert needs(plant, instance)["pairs/r0/S0"].waits_for is None
    run(instance, "regions", dg.DagsterRunStatus.STARTED, {"dagster/partition": "r0"})
    assert needs(plant, instance)["pairs/r0/S0"].waits_for == "extract/r0"


def run(
    instance: dg.DagsterInstance, job: str, status: dg.DagsterRunStatus, tags: dict[str, str], *assets: str
) -> None:
    selected = frozenset(map(dg.AssetKey, assets)) or None
    instance.add_run(dg.DagsterRun(job_name=job, status=status, tags=tags, asset_selection=selected))
