import dataclasses
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from skyscript_assets.asset import Counts, Stage, asset
from skyscript_assets.lib.errors import DigestMismatchError, NotCoveredError, UpstreamMissingError
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.partitions import Scheme, inputs_of, partitions_of
from skyscript_assets.provenance import Outputs, Run, State

calls: list[str] = []
content = {"text": "a"}


@asset(Scheme.REGION, group="g", kinds=[], config=lambda settings, partition: content["text"])
def extract(run: Run[Any]) -> Counts:
    """An extract."""
    calls.append("extract")
    (run.out / "x").write_text(content["text"].upper())
    return {"n": 1}


@asset(Scheme.REGION_SOURCE, group="g", kinds=[], upstream=("extract",))
def chips(run: Run[Any]) -> Counts:
    """Chips."""
    calls.append("chips")
    (run.out / "y").write_text((run.input("extract") / "x").read_text())
    return {"n": 2}


@asset(Scheme.SINGLE, group="g", kinds=[], upstream=("chips",))
def gathered(run: Run[Any]) -> Counts:
    """All chips."""
    (run.out / "z").write_text(",".join("|".join(pair) for pair in run.pairs("chips")))
    return {"missing": len(run.missing)}


@asset(Scheme.SINGLE, group="g", kinds=[], upstream=("extract",), optional=frozenset({"extract"}))
def whatever(run: Run[Any]) -> Counts:
    """What there is of the extracts."""
    (run.out / "w").write_text(",".join(region for (region,) in run.folders("extract")))
    return {"missing": list(run.missing)}


@asset(Scheme.SINGLE, group="g", kinds=[], upstream=("extract",), frozen_as=lambda settings: "snap-1")
def snapshot(run: Run[Any]) -> Counts:
    """A snapshot."""
    calls.append("snapshot")
    (run.out / "s").write_text("x")
    return {}


STAGES: dict[str, Stage] = {s.name: s for s in (extract, chips, gathered, whatever, snapshot)}


@pytest.fixture
def settings() -> Settings:
    calls.clear()
    content["text"] = "a"
    return load_settings(PACKAGED_PROFILES / "demo")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def everything(settings: Settings, store: Store) -> None:
    for s in STAGES.values():
        for parts in partitions_of(s.scheme, settings):
            Outputs(STAGES, settings, store).materialize(s, parts)


def test_what_is_current_is_not_made_again(settings: Settings, store: Store) -> None:
    everything(settings, store)
    made = len(calls)
    everything(settings, store)
    assert len(calls) == made
    assert Outputs(STAGES, settings, store).materialize(extract, ("kotka",)).reused


def test_an_unreadable_record_is_a_state_of_that_output_alone(settings: Settings, store: Store) -> None:
    everything(settings, store)
    key, pair = OutputKey("extract", ("kotka",)), OutputKey("chips", ("kotka", "SYN1"))
    (store.folder(key) / "output.json").write_text("{")
    outputs = Outputs(STAGES, settings, store)
    assert outputs.state(extract, ("kotka",)) is State.BROKEN
    assert "output.json" in str(outputs.problem(key))
    assert outputs.differences(extract, ("kotka",)) == []
    assert outputs.state(extract, ("helsinki",)) is State.CURRENT
    assert outputs.problem(OutputKey("extract", ("helsinki",))) is None
    assert outputs.provenance(chips, ("kotka", "SYN1")).required == (key,)
    with pytest.raises(UpstreamMissingError, match="skyscript run extract/kotka"):
        outputs.materialize(chips, ("kotka", "SYN1"))
    assert not outputs.materialize(extract, ("kotka",)).reused
    assert outputs.problem(key) is None
    assert Outputs(STAGES, settings, store).state(chips, pair.partition) is State.CURRENT


def test_a_read_only_folder_is_looked_at(settings: Settings, store: Store, tmp_path: Path) -> None:
    everything(settings, store)
    before = sorted(tmp_path.rglob("*"))
    outputs = Outputs(STAGES, settings, Store(tmp_path))
    assert outputs.state(extract, ("kotka",)) is State.CURRENT
    assert Outputs(STAGES, settings, Store(tmp_path / "nothing")).state(extract, ("kotka",)) is State.MISSING
    assert sorted(tmp_path.rglob("*")) == before


def test_a_body_reads_what_its_provenance_names_although_it_is_replaced(settings: Settings, store: Store) -> None:
    everything(settings, store)
    outputs, pair = Outputs(STAGES, settings, store), ("kotka", "SYN1")
    told = outputs.provenance(chips, pair).made_from["inputs"]
    content["text"] = "b"
    Outputs(STAGES, settings, store).materialize(extract, ("kotka",))
    made = outputs.materialize(chips, pair, force=True)
    assert made.record.made_from["inputs"] == told
    assert (made.run.out / "y").read_text() == "A"
    assert Outputs(STAGES, settings, store).state(chips, pair) is State.STALE


def test_an_input_that_was_damaged_is_told_when_a_body_reads_it_and_not_before(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(settings, store)
    damaged, pair = store.folder(OutputKey("extract", ("kotka",))) / "x", ("kotka", "SYN1")
    damaged.write_text("Z")
    monkeypatch.setattr("skyscript_assets.lib.storage.store._verified", set())  # as in another process
    assert Outputs(STAGES, settings, store).materialize(chips, pair).reused
    with pytest.raises(DigestMismatchError, match=f"{damaged} .* skyscript run --force extract/kotka"):
        Outputs(STAGES, settings, store).materialize(chips, pair, force=True)
    Outputs(STAGES, settings, store).materialize(extract, ("kotka",), force=True)
    assert not Outputs(STAGES, settings, store).materialize(chips, pair, force=True).reused


def test_what_a_killed_run_had_completed_is_named_and_not_made_again(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr("skyscript_assets.lib.storage.store.write_text", lambda path, text: path.write_text(text))
        with pytest.raises(KeyboardInterrupt):
            Outputs(STAGES, settings, store).materialize(extract, ("kotka",))
    made = len(calls)
    assert not Outputs(STAGES, settings, store).materialize(extract, ("kotka",)).reused
    assert len(calls) == made
    assert Outputs(STAGES, settings, store).state(extract, ("kotka",)) is State.CURRENT


def test_force_makes_it_again(settings: Settings, store: Store) -> None:
    everything(settings, store)
    assert not Outputs(STAGES, settings, store).materialize(extract, ("kotka",), force=True).reused


def test_a_changed_input_makes_what_is_downstream_stale(settings: Settings, store: Store) -> None:
    everything(settings, store)
    content["text"] = "b"
    assert Outputs(STAGES, settings, store).state(extract, ("kotka",)) is State.STALE
    assert Outputs(STAGES, settings, store).state(chips, ("kotka", "SYN1")) is State.CURRENT
    Outputs(STAGES, settings, store).materialize(extract, ("kotka",))
    assert Outputs(STAGES, settings, store).state(chips, ("kotka", "SYN1")) is State.STALE


def test_an_input_made_again_with_equal_content_changes_nothing_downstream(settings: Settings, store: Store) -> None:
    everything(settings, store)
    content["text"] = "A"
    Outputs(STAGES, settings, store).materialize(extract, ("kotka",))
    assert Outputs(STAGES, settings, store).state(chips, ("kotka", "SYN1")) is State.CURRENT


def test_a_frozen_snapshot_stays_as_it_is(settings: Settings, store: Store) -> None:
    everything(settings, store)
    content["text"] = "b"
    Outputs(STAGES, settings, store).materialize(extract, ("kotka",))
    assert Outputs(STAGES, settings, store).materialize(snapshot, ()).reused
    assert Outputs(STAGES, settings, store).heads.names("snapshot") == [OutputKey("snapshot", ("snap-1",))]


def test_a_missing_upstream_names_the_key_and_the_command(settings: Settings, store: Store) -> None:
    with pytest.raises(UpstreamMissingError, match="skyscript run extract/kotka"):
        Outputs(STAGES, settings, store).materialize(chips, ("kotka", "SYN1"))
    assert Outputs(STAGES, settings, store).state(chips, ("kotka", "SYN1")) is State.BLOCKED
    assert Outputs(STAGES, settings, store).state(extract, ("kotka",)) is State.MISSING


def test_gathering_fails_unless_the_settings_allow_what_is_missing(settings: Settings, store: Store) -> None:
    for region in settings.regions:
        Outputs(STAGES, settings, store).materialize(extract, (region,))
    pairs = partitions_of(Scheme.REGION_SOURCE, settings)
    for parts in pairs[1:]:
        Outputs(STAGES, settings, store).materialize(chips, parts)
    with pytest.raises(UpstreamMissingError, match="/".join(pairs[0])):
        Outputs(STAGES, settings, store).materialize(gathered, ())
    manifest = settings.plant.manifest.model_copy(update={"allow_missing": ("|".join(pairs[0]),)})
    plant = settings.plant.model_copy(update={"manifest": manifest})
    outcome = Outputs(STAGES, settings.model_copy(update={"plant": plant}), store).materialize(gathered, ())
    assert outcome.record.counts == {"missing": 1}


def test_what_is_optional_may_be_missing_and_is_read_once_it_is_there(settings: Settings, store: Store) -> None:
    outcome = Outputs(STAGES, settings, store).materialize(whatever, ())
    assert outcome.record.counts == {"missing": [f"extract/{region}" for region in settings.regions]}
    Outputs(STAGES, settings, store).materialize(extract, ("kotka",))
    assert Outputs(STAGES, settings, store).state(whatever, ()) is State.STALE
    outcome = Outputs(STAGES, settings, store).materialize(whatever, ())
    assert (outcome.run.out / "w").read_text() == "kotka"
    assert "extract/kotka" not in outcome.record.counts["missing"]


def test_pairs_that_cannot_overlap_are_left_out_and_refused(settings: Settings, store: Store) -> None:
    far = BBox(west=0, south=0, east=1, north=1)
    region = settings.regions["kotka"].model_copy(update={"bbox": far})
    source = settings.sources["SYN1"].model_copy(update={"extent": BBox(west=20, south=60, east=30, north=61)})
    changed = settings.model_copy(
        update={
            "regions": {**settings.regions, "kotka": region},
            "sources": {**settings.sources, "SYN1": source},
        }
    )
    assert ("kotka", "SYN1") not in partitions_of(Scheme.REGION_SOURCE, changed)
    assert ("helsinki", "SYN1") in partitions_of(Scheme.REGION_SOURCE, changed)
    with pytest.raises(NotCoveredError, match="outside the extent of source SYN1"):
        Outputs(STAGES, changed, store).materialize(chips, ("kotka", "SYN1"))
    assert OutputKey("chips", ("kotka", "SYN1")) not in inputs_of(gathered, STAGES, changed, ())


def test_heavy_partitions_come_first(settings: Settings) -> None:
    gsds = [settings.sources[source].gsd_m for _, source in partitions_of(Scheme.REGION_SOURCE, settings)]
    assert gsds == sorted(gsds)


def test_a_body_computes_on_one_thread(settings: Settings, store: Store) -> None:
    found = []

    def build(_run: Run[Any]) -> Counts:
        found.extend(info["num_threads"] for info in threadpool_info())
        return {}

    threadpool_limits(2)
    stage = dataclasses.replace(extract, build=build)
    Outputs({"extract": stage}, settings, store).materialize(stage, ("helsinki",))
    assert found
    assert set(found) == {1}


def test_a_stage_is_told_which_output_it_replaces(settings: Settings, store: Store) -> None:
    told: list[OutputKey | None] = []

    def build(run: Run[Any]) -> Counts:
        told.append(run.previous)
        return {}

    telling = dataclasses.replace(extract, build=build)
    for _ in range(2):
        Outputs(STAGES, settings, store).materialize(telling, ("kotka",), force=True)
    assert told == [None, OutputKey("extract", ("kotka",))]
