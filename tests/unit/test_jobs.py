import re
from pathlib import Path

from skyscript_assets.assets import LEVELS, STAGES
from skyscript_assets.definitions import defs
from skyscript_assets.lib.chips import planning
from skyscript_assets.partitions import Upstream


def test_every_level_is_a_job_over_its_assets_and_says_what_for() -> None:
    for level in LEVELS:
        assert level.job.description == level.description != ""
        resolved = defs.resolve_job_def(level.name)
        assert {key.to_user_string() for key in resolved.asset_layer.selected_asset_keys} == {
            stage.name for stage in level.stages
        }


def test_a_level_has_one_partition_scheme_and_every_stage_one_level() -> None:
    for level in LEVELS:
        assert {stage.scheme for stage in level.stages} == {level.scheme}
    assert sum(len(level.stages) for level in LEVELS) == len(STAGES)


def test_no_run_of_a_level_needs_another() -> None:
    for level in LEVELS:
        names = {stage.name for stage in level.stages}
        for stage in level.stages:
            others = {upstream.asset for upstream in stage.upstream if isinstance(upstream, Upstream)}
            assert not others & names, f"{stage.name} reads other partitions of its own level"


def test_a_stage_stands_behind_everything_that_it_is_made_from() -> None:
    order = list(STAGES)
    for stage in STAGES.values():
        for upstream in stage.upstream:
            name = _name(upstream)
            assert order.index(name) < order.index(stage.name), f"{stage.name} is before {name}"


def test_a_level_is_ready_as_a_whole() -> None:
    # A backfill asks for what is ready: what one stage of a level waits for, the first one must wait for too.
    for level in LEVELS:
        names = {stage.name for stage in level.stages}
        waits = {
            stage.name: {_name(upstream) for upstream in (*stage.upstream, *stage.after)} for stage in level.stages
        }
        first = set.intersection(*(found - names for found in waits.values() if not found & names))
        for name, found in waits.items():
            assert found - names <= first, f"{name} waits for {sorted(found - names - first)}, the level does not"


def test_what_a_stage_comes_after_stands_before_it() -> None:
    order = list(STAGES)
    for stage in STAGES.values():
        assert all(order.index(name) < order.index(stage.name) for name in stage.after)


def _name(upstream: str | Upstream) -> str:
    return upstream if isinstance(upstream, str) else upstream.asset


def test_the_command_that_makes_a_new_snapshot_names_all_that_a_source_s_resolution_goes_through() -> None:
    source = Path(planning.__file__).read_text(encoding="utf-8")
    (command,) = re.findall(r"skyscript run ((?:\w+ )+\w+)\"", source)
    through = {"image_sources"}
    for name, stage in STAGES.items():
        upstream = {dep if isinstance(dep, str) else dep.asset for dep in stage.upstream}
        if upstream & through:
            through.add(name)
        if name == "sampling_snapshot":
            break
    assert set(command.split()) == through
