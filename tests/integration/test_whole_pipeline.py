"""The whole pipeline on a square kilometre, through the command line and through Dagster."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from skyscript_assets import backfill
from skyscript_assets.assets import LEVELS, STAGES
from skyscript_assets.automation import sensors
from skyscript_assets.cli import main
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import Outputs, State
from tests.pins import PINS, changed, environment, versions
from tests.workshop import Workshop, tiny_files, write_profile

pytestmark = pytest.mark.integration

MADE_AGAIN = """
import os, sys
from pathlib import Path
os.sched_getaffinity = lambda _: set(range(int(sys.argv[1])))
from skyscript_assets.assets import STAGES
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import Outputs
settings, store = load_settings(Path(sys.argv[2]) / "profile"), Store(Path(sys.argv[2]) / "data")
for name in ("osm_objects", "image_chips", "chip_features", "clip_scores", "trained_checkpoint", "benchmark_scores"):
    for partition in partitions_of(STAGES[name].scheme, settings):
        Outputs(STAGES, settings, store).materialize(STAGES[name], partition, force=True)
"""
"""What computes, made again as on a machine with as many cores as the first argument says."""


SET_BACK = """
import time
from skyscript_assets import backfill
from skyscript_assets.cli import main
now, sleep, run = time.time, time.sleep, backfill._run
def rest(seconds):
    assert seconds < 60, f"{seconds} s are waited for"
    sleep(seconds)
def set_back(defs, step, *others, **options):
    if step.level.name == "manifest":
        time.time = lambda: now() - 3600
    return run(defs, step, *others, **options)
time.sleep, backfill._run = rest, set_back
main()
"""
"""`skyscript`, in a process whose clock is set back by an hour when all pairs are made."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, demo_packages: None) -> Path:
    """A folder in which the tiny profile was killed twice inside stages that hold a slot, and run to its end.

    Before the last levels the clock was set back.
    """
    home = tmp_path_factory.mktemp("plant")
    write_profile(home / "profile", tiny_files())
    # Its pools have two slots: a run that waited for those of the dead would wait for ever.
    shutil.copy(Path(__file__).resolve().parents[2] / "dagster.yaml", home)
    for stage in ("scene_offsets", "image_chips"):
        process = subprocess.Popen(
            [sys.executable, "-m", "skyscript_assets.cli", "demo"],
            env=environment(home),
            cwd=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and not (home / "data" / ".staging" / f"{stage}+kotka+SYN1").exists():
            time.sleep(0.02)
        time.sleep(random.random() / 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
    done = run(home, "demo", program=("-c", SET_BACK))
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def run(
    home: Path, *arguments: str, program: tuple[str, ...] = ("-m", "skyscript_assets.cli")
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env=environment(home) | {"COLUMNS": "80"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


def ask(home: Path, *arguments: str) -> Result:
    """A command that only reads, in this process."""
    return CliRunner().invoke(main, arguments, env=environment(home) | {"COLUMNS": "80"})


@pytest.fixture(scope="module")
def workshop(home: Path) -> Iterator[Workshop]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Workshop(home / "profile", home / "data", instance)


def test_a_run_that_was_killed_twice_continues_to_the_end(workshop: Workshop) -> None:
    for stage in STAGES.values():
        for partition in partitions_of(stage.scheme, workshop.settings):
            state = Outputs(STAGES, workshop.settings, workshop.store).state(stage, partition)
            assert state is State.CURRENT, stage.name


def test_outputs_have_the_bytes_that_are_pinned_for_their_code_versions(home: Path) -> None:
    assert set(json.loads(PINS.read_text(encoding="utf-8"))) == set(versions(home)), "python -m tests.pins"
    assert changed(home) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_outputs_have_the_same_bytes_on_any_number_of_threads_and_in_any_order_of_sets(
    home: Path, workshop: Workshop, threads: int
) -> None:
    before = versions(home)
    shutil.rmtree(workshop.store.cache("benchmark_features"))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONHASHSEED")
    subprocess.run(
        [sys.executable, "-c", MADE_AGAIN, str(threads), str(home)],
        env=environment(home) | dict.fromkeys(names, str(threads)),
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert versions(home) == before


def test_the_clock_was_set_back_between_two_levels_and_the_later_one_was_made_and_is_current(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        made = {
            name: record.timestamp
            for name in ("clip_scores", "training_manifest", "scoreboard")
            for record in instance.fetch_materializations(dg.AssetKey(name), limit=1).records
        }
    assert made["training_manifest"] < made["scoreboard"] < made["clip_scores"]


def test_no_run_is_left_open_and_no_slot_claimed(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        assert all(run.is_finished for run in instance.get_runs())
        assert instance.event_log_storage.get_concurrency_run_ids() == set()


def test_nothing_is_left_in_staging(workshop: Workshop) -> None:
    left = [path.name for path in (workshop.data / ".staging").iterdir() if path.is_dir()]
    assert left == []


def test_a_second_demo_starts_no_run_and_says_so(home: Path) -> None:
    done = run(home, "demo")
    assert done.returncode == 0
    assert "nothing has changed" in done.stdout
    assert "none started" in done.stdout


def test_every_partition_is_materialized_in_the_instance_that_the_ui_shows(home: Path, workshop: Workshop) -> None:
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        for stage in STAGES.values():
            if not stage.scheme.dimensions:
                assert instance.get_latest_materialization_event(dg.AssetKey(stage.name)) is not None
                continue
            found = instance.get_materialized_partitions(dg.AssetKey(stage.name))
            wanted = {"|".join(partition) for partition in partitions_of(stage.scheme, workshop.settings)}
            assert wanted <= set(found), stage.name


def test_markdown_that_the_ui_shows_is_a_picture_with_a_title_of_ours(home: Path) -> None:
    picture = re.compile(r"!\[[A-Z][A-Za-z ,-]+\]\(data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+\)")
    kinds = set()
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        for stage in STAGES:
            event = instance.get_latest_materialization_event(dg.AssetKey(stage))
            for name, value in event.asset_materialization.metadata.items():
                kinds.add(type(value))
                if isinstance(value, dg.MarkdownMetadataValue):
                    assert picture.fullmatch(value.value), f"{stage}: {name}"
    assert {dg.MarkdownMetadataValue, dg.TableMetadataValue} <= kinds


def test_every_check_passed_but_that_a_square_kilometre_shows_few_classes(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        records = instance.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION), limit=1000
        )
    evaluations = [r.event_log_entry.dagster_event.asset_check_evaluation_data for r in records]
    failed = [f"{e.asset_key.to_user_string()}.{e.check_name}" for e in evaluations if not e.passed]
    assert evaluations
    assert {name for name in failed if not name.endswith(".fresh")} == {"benchmark_data.classes_shown"}


def test_chips_captions_and_shards_belong_together(workshop: Workshop) -> None:
    pair = ("kotka", "SYN1")
    folder = {
        name: workshop.store.folder(OutputKey(name, pair)) for name in ("image_chips", "captions", "caption_shards")
    }
    chips = pq.read_table(folder["image_chips"] / "chips.parquet").to_pylist()
    ok = [chip["chip_id"] for chip in chips if chip["status"] == "ok"]
    captions = pq.read_table(folder["captions"] / "captions.parquet")["chip_id"].to_pylist()
    samples = pq.read_table(folder["caption_shards"] / "samples.parquet")["chip_id"].to_pylist()
    assert len(ok) > 20
    assert ok == captions
    assert sorted(samples) == sorted(ok)


def test_a_painting_lies_where_the_map_has_it(workshop: Workshop) -> None:
    folder = workshop.store.folder(OutputKey("scene_offsets", ("kotka", "SYN1")))
    (row,) = pq.read_table(folder / "offsets.parquet").to_pylist()
    assert row["status"] in ("estimated", "too-few-objects", "disagree")
    if row["status"] == "estimated":
        assert abs(row["dx_m"]) < 1 > abs(row["dy_m"])


def test_the_scoreboard_shows_every_model_and_says_synthetic(workshop: Workshop) -> None:
    text = (workshop.store.folder(OutputKey("scoreboard")) / "scoreboard.md").read_text(encoding="utf-8")
    for model in workshop.settings.models.values():
        assert model.title in text
    assert "synthetic" in text.lower()


def test_force_makes_an_output_again(home: Path, workshop: Workshop) -> None:
    before = workshop.store.record(OutputKey("chip_plan", ("kotka", "SYN1")))
    done = run(home, "run", "--force", "chip_plan/kotka/SYN1")
    after = workshop.store.record(OutputKey("chip_plan", ("kotka", "SYN1")))
    assert done.returncode == 0, done.stderr
    assert before == after, "the same inputs give the same bytes"


def test_status_counts_every_partition(home: Path) -> None:
    done = ask(home, "status")
    assert done.exit_code == 0
    assert "image_chips" in done.stdout
    assert "benchmark_scores" in done.stdout


def test_status_is_one_screen_and_one_document(home: Path) -> None:
    shown = ask(home, "status").stdout.splitlines()
    assert len(shown) < 40
    assert max(map(len, shown)) <= 80
    assert shown[-1] == "next: nothing, all is current"
    document = json.loads(ask(home, "status", "--json").stdout)
    assert {row["state"] for row in document["outputs"]} == {"current"}
    assert not any(row["last_run"] for row in document["outputs"])
    assert document["run_records"] is None


def test_why_follows_a_chip_from_tags_to_manifest_on_one_screen(home: Path, workshop: Workshop) -> None:
    manifest = workshop.store.folder(OutputKey("training_manifest")) / "manifest.parquet"
    pair = pq.read_table(manifest).to_pylist()[0]
    done = ask(home, "why", pair["chip_id"])
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 40
    assert max(map(len, done.stdout.splitlines())) <= 80
    words = " ".join(done.stdout.split())
    for told in (
        pair["chip_id"],
        pair["title"],
        pair["title_multi_objects"],
        f"split {pair['split']}",
        "openstreetmap",
    ):
        assert told in words
    assert f"{pair['score']:.4f}" in words
    assert pair["image_shard"] in words
    document = json.loads(ask(home, "why", pair["chip_id"], "--json").stdout)
    (source,) = document["sources"]
    assert source["outcome"] == "planned"
    assert source["not_current"] == {}
    (chip,) = source["chips"]
    assert chip["image"]["status"] == "ok"
    assert chip["manifest"]["rank_share"] == pair["rank_share"]
    assert {proof["phrase"] for proof in chip["captions"]["trace"]} >= {pair["title"].split(", ")[0]}


def test_pairs_are_exported_once_with_what_they_are_asked_for(home: Path, workshop: Workshop, tmp_path: Path) -> None:
    manifest = pq.read_table(workshop.store.folder(OutputKey("training_manifest")) / "manifest.parquet").to_pylist()
    wanted = {one["chip_id"]: one["natural_long"] for one in manifest if one["eligible"] and one["split"] == "train"}
    asked = ("export", str(tmp_path / "pairs"), "--format", "llava", "--style", "natural_long", "--split", "train")
    done = ask(home, *asked)
    assert done.exit_code == 0, done.output
    talks = json.loads((tmp_path / "pairs" / "train.json").read_text(encoding="utf-8"))
    assert {one["id"]: one["conversations"][1]["value"] for one in talks} == wanted
    again = ask(home, *asked)
    assert (again.exit_code, "exists" in again.stderr) == (1, True)
    assert ask(home, "export", str(tmp_path / "x"), "--tag", "building").exit_code == 2


def test_why_has_a_reason_for_objects_without_a_chip(home: Path, workshop: Workshop) -> None:
    kotka = ("kotka",)
    objects = pq.read_table(workshop.store.folder(OutputKey("osm_objects", kotka)) / "objects.parquet")["object_id"]
    plan = pq.read_table(workshop.store.folder(OutputKey("chip_plan", (*kotka, "SYN1"))) / "plan.parquet")["object_id"]
    without = sorted(set(objects.to_pylist()) - set(plan.to_pylist()))
    for object_id in without[:: len(without) // 3]:
        (source,) = json.loads(ask(home, "why", object_id, "--json").stdout)["sources"]
        assert source["outcome"] not in ("planned", "unknown", "waiting", "not in the plan")
        assert source["why"]
    nowhere = ask(home, "why", "n1")
    assert nowhere.exit_code == 1
    assert "there is no object n1 in kotka" in nowhere.stderr


def test_the_picture_comes_first_in_the_ui_and_a_command_follows_one_row(home: Path) -> None:
    pictures = {
        "scene_index": "synthetic orthophoto",
        "chip_plan": "map",
        "image_chips": "contact sheet",
        "captions": "contact sheet",
        "tag_vocabulary": "tag counts",
        "scoreboard": "plot",
    }
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        for asset in (*pictures, "osm_objects", "caption_shards", "training_manifest"):
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            shown = event.asset_materialization.metadata
            assert next(iter(shown)) == pictures.get(asset, next(iter(shown)))
            if "follow one" in shown and asset in ("image_chips", "osm_objects"):
                command, *rest = shown["follow one"].value.split()
                assert (command, len(rest)) == ("skyscript", 2)
                assert ask(home, *rest).exit_code == 0
            assert asset in ("scene_index", "tag_vocabulary", "scoreboard") or "follow one" in shown


def test_nothing_is_left_to_estimate_when_all_chips_are_cut(home: Path) -> None:
    done = ask(home, "estimate")
    assert done.exit_code == 0, done.stderr
    assert "kotka" not in done.stdout
    assert "0 more have no plan yet" in done.stdout


@pytest.mark.parametrize("sensor", sensors.SENSORS[:3], ids=lambda sensor: sensor.name)
def test_a_sensor_has_nothing_to_ask_for_when_all_is_current(
    workshop: Workshop, instance: dg.DagsterInstance, sensor: dg.SensorDefinition
) -> None:
    context = dg.build_sensor_context(instance=instance, resources={"plant": workshop.plant})
    result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert (result.run_requests, str(result.skip_reason)) == ([], str(dg.SkipReason("everything is current")))


def test_a_level_s_job_exists_for_each_partition_scheme(workshop: Workshop) -> None:
    names = {job.name for job in workshop.defs.resolve_all_job_defs()}
    assert {level.name for level in LEVELS} <= names


def test_a_partition_asked_for_before_its_upstream_names_what_to_run(
    workshop: Workshop, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    fresh = Workshop(workshop.profile, tmp_path / "data", instance)
    step = backfill.step_named("image_chips/kotka/SYN1", fresh.settings)
    (result,) = backfill.run_all(fresh.defs, fresh.settings, fresh.store, instance, steps=[step])
    assert result.error is not None
    assert "skyscript run chip_plan/kotka/SYN1" in result.error


def test_the_command_line_refuses_unknown_outputs(home: Path) -> None:
    runner = CliRunner(env=environment(home))
    assert "there is no asset" in runner.invoke(main, ["run", "nonsense"], catch_exceptions=False).output
    assert "there are image_chips/kotka/SYN1" in runner.invoke(main, ["run", "image_chips/mars/SYN1"]).output
