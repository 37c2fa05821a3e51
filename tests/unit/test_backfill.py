"""The walk over the levels, with two small stages in place of the plant's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from skyscript_assets import backfill, partitions
from skyscript_assets.asset import Counts, asset, definition
from skyscript_assets.assets import LEVELS, STAGES, Level
from skyscript_assets.checks import Check, Verdict
from skyscript_assets.lib.errors import SceneError, SkyScriptError
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import Scheme, partitions_of
from skyscript_assets.provenance import Outputs, Run
from skyscript_assets.resources import Plant

made: list[str] = []
broken: set[str] = set()


FEW_LOST = Check("few_lost", "Few are lost.", lambda _, counts: Verdict(counts["lost"] < 2, dict(counts)), warn=True)


@asset(Scheme.REGION, group="g", kinds=[], more_checks=(FEW_LOST,))
def first(run: Run[Any]) -> Counts:
    """First."""
    (region,) = run.partition
    made.append(f"first/{region}" + (" again" if run.retry else ""))
    if region in broken:
        raise SceneError(f"{region} is broken")
    (run.out / "x").write_text(region)
    return {"failed": 0 if run.retry else 1, "lost": 2 if region == "kotka" else 0, "why": {"no nodes": 2}}


@asset(Scheme.SINGLE, group="g", kinds=[], upstream=("first",))
def second(run: Run[Any]) -> Counts:
    """Second."""
    made.append("second")
    (run.out / "y").write_text("y")
    return {}


@asset(Scheme.SINGLE, group="g", kinds=[], upstream=("first",), optional=frozenset({"first"}))
def without(run: Run[Any]) -> Counts:
    """Made of what there is."""
    made.append("without")
    (run.out / "z").write_text("z")
    return {}


SMALL = {stage.name: stage for stage in (first, second, without)}
JOBS = ("regions", "gather", "anyway")
STEPS = ["helsinki", "kotka", "gather"]


@pytest.fixture
def settings() -> Settings:
    return load_settings(PACKAGED_PROFILES / "demo")


@pytest.fixture
def walk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings
) -> Iterator[Callable[..., list[backfill.StepResult]]]:
    """Walks over the small stages."""
    levels = (Level("regions", "First.", (first,)), Level("gather", "Second.", (second,)))
    monkeypatch.setattr(backfill, "LEVELS", levels)
    monkeypatch.setattr(backfill, "STAGES", SMALL)
    made.clear()
    broken.clear()
    by_scheme = partitions.definitions(settings)
    defs = dg.Definitions(
        assets=[definition(stage, SMALL, settings, by_scheme) for stage in SMALL.values()],
        jobs=[dg.define_asset_job(name, [stage.name]) for name, stage in zip(JOBS, SMALL.values(), strict=True)],
        resources={"plant": Plant(settings_folder=str(PACKAGED_PROFILES / "demo"), data=str(tmp_path))},
        executor=dg.in_process_executor,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        yield lambda **options: list(backfill.run_all(defs, settings, Store(tmp_path), instance, **options))


def test_every_partition_runs_once_level_by_level(walk: Callable[..., list[backfill.StepResult]]) -> None:
    results = walk()
    assert [result.step.title for result in results] == STEPS
    assert all(result.ran and result.error is None and result.seconds for result in results)
    assert made == ["first/helsinki", "first/kotka", "second"]
    assert not any(result.ran for result in walk())
    assert len(made) == 3


def test_a_level_that_failed_ends_the_walk_after_its_other_partitions(
    walk: Callable[..., list[backfill.StepResult]],
) -> None:
    broken.add("helsinki")
    results = walk()
    assert [(result.step.title, result.error) for result in results] == [
        ("helsinki", "first: helsinki is broken"),
        ("kotka", None),
    ]
    broken.clear()
    assert [result.ran for result in walk()] == [True, False, True]


def test_levels_that_can_do_without_what_failed_are_walked_and_then_the_walk_ends(
    walk: Callable[..., list[backfill.StepResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    regions, gather = backfill.LEVELS
    regions = Level("regions", "First.", (first,), spared_by=("anyway",))
    monkeypatch.setattr(backfill, "LEVELS", (regions, Level("anyway", "Third.", (without,)), gather))
    broken.add("helsinki")
    results = walk()
    assert [(result.step.title, result.error is None) for result in results] == [
        ("helsinki", False),
        ("kotka", True),
        ("anyway", True),
    ]
    assert made[-1] == "without"


def test_what_is_optional_is_not_made_for_an_output_that_is_asked_for(
    walk: Callable[..., list[backfill.StepResult]], monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    monkeypatch.setattr(backfill, "LEVELS", (*backfill.LEVELS, Level("anyway", "Third.", (without,))))
    assert [step.only for step in backfill.steps_to(["without"], settings, Store(tmp_path))] == ["without"]


def test_what_checks_warn_of_is_told_with_its_counts(walk: Callable[..., list[backfill.StepResult]]) -> None:
    results = walk()
    assert {result.step.title: result.warnings for result in results} == {
        "helsinki": (),
        "kotka": ("first.few_lost failed (Few are lost. Found: {'failed': 1, 'lost': 2, 'why': {'no nodes': 2}})",),
        "gather": (),
    }
    assert all(result.error is None for result in results)


def test_only_what_failed_is_tried_again(
    walk: Callable[..., list[backfill.StepResult]], settings: Settings, tmp_path: Path
) -> None:
    walk()
    steps = backfill.retry_steps((), settings, Store(tmp_path))
    assert [step.title for step in steps] == STEPS[:2]
    walk(steps=steps, retry=True)
    assert made[3:] == ["first/helsinki again", "first/kotka again"]
    assert backfill.retry_steps((), settings, Store(tmp_path)) == []


def test_what_was_never_made_cannot_be_tried_again(
    walk: Callable[..., list[backfill.StepResult]], settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(SkyScriptError, match="skyscript run first/kotka"):
        backfill.retry_steps(("first/kotka",), settings, Store(tmp_path))


def test_an_output_that_the_instance_does_not_know_is_recorded_without_being_made(
    walk: Callable[..., list[backfill.StepResult]], settings: Settings, tmp_path: Path
) -> None:
    walk()
    step = backfill.step_named("first/kotka", settings)
    with dg.DagsterInstance.ephemeral() as empty:
        assert not backfill.is_current(step, Outputs(backfill.STAGES, settings, Store(tmp_path)), empty)


def test_steps_of_the_plant_come_in_the_order_of_its_levels(settings: Settings) -> None:
    steps = backfill.steps_of(settings)
    order = [LEVELS.index(step.level) for step in steps]
    assert order == sorted(order)
    assert len(steps) == sum(len(partitions_of(level.scheme, settings)) for level in LEVELS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "there is no asset"),
        ("image_chips/mars/SYN1", "there are image_chips/"),
        ("osm_objects", "there are"),
    ],
)
def test_a_name_that_is_no_output_is_refused_with_what_there_is(settings: Settings, name: str, message: str) -> None:
    with pytest.raises(SkyScriptError, match=message):
        backfill.step_named(name, settings)


def test_a_named_output_comes_after_what_it_needs_and_is_missing(
    walk: Callable[..., list[backfill.StepResult]], settings: Settings, tmp_path: Path
) -> None:
    def steps(*names: str) -> list[tuple[str | None, tuple[str, ...]]]:
        found = backfill.steps_to(names, settings, Store(tmp_path))
        return [(step.only, step.partition) for step in found]

    every = [("first", ("helsinki",)), ("first", ("kotka",)), ("second", ())]
    assert steps("second") == every
    assert steps("second", "first/kotka") == every
    assert steps("first/kotka") == every[1:2]
    walk(steps=backfill.steps_to(["first/kotka"], settings, Store(tmp_path)))
    assert steps("second") == [every[0], every[2]]
    assert [result.error for result in walk(steps=backfill.steps_to(["second"], settings, Store(tmp_path)))] == [
        None
    ] * 2
    assert made == ["first/kotka", "first/helsinki", "second"]
    assert steps("second") == every[2:]


def test_captions_come_after_everything_from_the_extract_on(settings: Settings, tmp_path: Path) -> None:
    steps = backfill.steps_to(["captions/kotka/SYN1"], settings, Store(tmp_path / "nothing"))
    order = [step.only for step in steps]
    assert order[-1] == "captions"
    assert len(set(steps)) == len(steps)
    assert {step.partition for step in steps if step.only == "scene_index"} == {("kotka", "SYN1")}
    assert {"sampling_snapshot", "tag_groundability", "image_chips"} <= set(order)
    for earlier, later in (
        ("osm_extract", "osm_objects"),
        ("sampling_snapshot", "chip_plan"),
        ("chip_plan", "captions"),
    ):
        assert order.index(earlier) < order.index(later)


def test_what_is_made_from_a_failed_output_is_not_tried(walk: Callable[..., list[backfill.StepResult]]) -> None:
    broken.add("kotka")
    level = backfill.LEVELS[0]
    steps = [backfill.Step(level, (region,), only="first") for region in ("kotka", "kotka", "helsinki")]
    results = walk(steps=steps)
    assert [(result.step.title, result.error is None) for result in results] == [("kotka", False), ("helsinki", True)]


def test_names_may_be_written_with_either_separator(settings: Settings) -> None:
    (pair, *_) = partitions_of(STAGES["image_chips"].scheme, settings)
    slash, bar = (backfill.step_named(f"image_chips/{mark.join(pair)}", settings) for mark in "/|")
    assert slash == bar
    assert slash.stages == (STAGES["image_chips"],)


def test_a_warning_is_one_line_however_much_was_found() -> None:
    found = {"partition": SimpleNamespace(value="-"), "examples": SimpleNamespace(value=["a chip (train)"] * 90)}
    check = SimpleNamespace(asset_key=dg.AssetKey("training_manifest"), check_name="leaks", metadata=found)
    told = backfill._warning("training_manifest.leaks", check)  # type: ignore[arg-type]
    assert told.startswith("training_manifest.leaks failed (No pair had to be dropped")
    assert told.endswith("..., all of it in the UI)")
    assert len(told) < 500
