"""Training in processes of its own, one or two that share batches: killed, stopped, diverging, and under Dagster."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from skyscript_assets import runs
from skyscript_assets.assets import STAGES
from skyscript_assets.lib.errors import DivergedError, OutputBusyError, SettingsError, SkyScriptError, StoppedError
from skyscript_assets.lib.progress import silent
from skyscript_assets.lib.settings.base import seen
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.training.launch import train_apart
from skyscript_assets.training.worker import EVENTS, Job, alone_on
from tests.training_jobs import RECIPE, make_base, make_job, rank_of, ranks_of, start
from tests.unit.lib.conftest import Town, make_town
from tests.workshop import Workshop, tiny_files, write_profile

pytestmark = pytest.mark.integration
STEPS = 50


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    return make_town(tmp_path_factory.mktemp("town") / "data", 48)


@pytest.fixture(scope="module")
def folder_base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_base(tmp_path_factory.mktemp("tiny-vit"))


@pytest.fixture(scope="module")
def job_in(town: Town, folder_base: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    return lambda out, machine=None, **fields: make_job(
        town, folder_base, out, machine, **{"checkpoint_steps": 3, "max_steps": STEPS} | fields
    )


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    return said


def until_step(out: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has told how it stands."""
    while not (out / EVENTS).exists() or not (out / EVENTS).read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def losses(out: Path) -> np.ndarray:
    return read_table(out / "history.parquet")["loss"].to_numpy()


@pytest.fixture(scope="module")
def undisturbed(
    job_in: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """The folder of a run that nobody disturbs, by its number of ranks."""
    known: dict[int, Path] = {}

    def run(ranks: int) -> Path:
        if ranks not in known:
            known[ranks] = tmp_path_factory.mktemp("undisturbed") / "out"
            job_in(known[ranks])
            process = start(known[ranks], ranks)
            said = ended(process)
            assert process.returncode == 0, said
        return known[ranks]

    return run


def assert_equal(one: Path, other: Path) -> None:
    for name in ("model.safetensors", "history.parquet", "model.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def assert_near(one: Path, other: Path, folder_base: dict[str, Any]) -> None:
    """Equal but for the order of sums: losses to 1e-5, weights to a thousandth of what training moved them.

    AdamW divides by the size of a gradient, so that where this is zero but for rounding (keys' biases) a weight drifts.
    """
    np.testing.assert_allclose(losses(one), losses(other), atol=1e-5)
    before = load_file(Path(folder_base["name"].partition(":")[2]) / "open_clip_model.safetensors")
    apart = sum(float(((weights(other)[name] - tensor) ** 2).sum()) for name, tensor in weights(one).items())
    moved = sum(float(((before[name] - tensor) ** 2).sum()) for name, tensor in weights(one).items())
    assert moved > 0
    assert apart < 1e-6 * moved, (apart / moved) ** 0.5


def test_two_processes_equal_one_after_fifty_steps(
    undisturbed: Callable[[int], Path], folder_base: dict[str, Any]
) -> None:
    assert len(losses(undisturbed(1))) == STEPS + 13
    assert_near(undisturbed(1), undisturbed(2), folder_base)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_is_asked_to_end_writes_its_state_and_goes_on_with_the_same_bytes(
    ranks: int, undisturbed: Callable[[int], Path], job_in: Callable[..., Any], tmp_path: Path
) -> None:
    job_in(out := tmp_path / "out")
    process = start(out, ranks)
    until_step(out, process)
    process.terminate()
    said = ended(process)
    # torchrun has a status of its own, 1; each process below it ends with 143.
    assert process.returncode == (143 if ranks == 1 else 1), said
    *_, last = sorted((out / "states").glob("*.pt"))
    assert torch.load(last, weights_only=True)["step"] == int(last.name[5:14])
    process = start(out, ranks)
    said = ended(process)
    assert process.returncode == 0, said
    assert_equal(undisturbed(ranks), out)


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1)])
def test_a_killed_run_goes_on_with_another_number_of_processes(
    ranks: tuple[int, int],
    undisturbed: Callable[[int], Path],
    job_in: Callable[..., Any],
    folder_base: dict[str, Any],
    tmp_path: Path,
) -> None:
    job_in(out := tmp_path / "out")
    process = start(out, ranks[0])
    until_step(out, process)
    while not list(out.glob("states/step-*.pt")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    process = start(out, ranks[1])
    said = ended(process)
    assert process.returncode == 0, said
    assert_near(undisturbed(1), out, folder_base)


def test_a_process_that_dies_ends_all_and_is_named(job_in: Callable[..., Any], tmp_path: Path) -> None:
    job_in(out := tmp_path / "out", epochs=1000, max_steps=3000)
    process = start(out, 2)
    until_step(out, process)
    ranks = ranks_of(process)
    os.kill(ranks["1"], signal.SIGKILL)
    said = ended(process)
    assert process.returncode == 1
    assert "rank      : 1" in said.partition("Root Cause")[2]
    assert "SIGKILL" in said.partition("Root Cause")[2]
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())


def test_processes_end_with_their_writer(job_in: Callable[..., Any], tmp_path: Path) -> None:
    job_in(out := tmp_path / "out", epochs=1000, max_steps=3000)
    process = start(out, 1, "--attended", stdin=subprocess.PIPE)
    until_step(out, process)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 143
    assert list((out / "states").glob("*.pt"))
    process.stdout.close()  # type: ignore[union-attr]


def test_a_job_that_is_wrong_is_told(job_in: Callable[..., Any], tmp_path: Path) -> None:
    job = job_in(out := tmp_path / "out")
    job["model"]["recipe"]["batch_size"] = "many"
    job["machine"]["devises"] = "cpu"
    del job["manifest"]
    (out / "job.json").write_text(json.dumps(job))
    process = start(out)
    said = ended(process)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "3 problems" in said
    assert "manifest: this key is required" in said
    assert "model.recipe.clip.batch_size: Input should be a valid integer" in said
    assert "machine.devises: unknown key" in said
    assert json.loads((out / "error.json").read_text())[0] == "SettingsError"
    (out / "job.json").unlink()
    assert "job.json: the file is missing" in ended(start(out))


# ------------------------------------------------------------------------------------------- what starts the processes


def test_without_dagster_counts_come_back_and_nothing_is_left_but_the_checkpoint(
    undisturbed: Callable[[int], Path], job_in: Callable[..., Any], tmp_path: Path
) -> None:
    job = Job.model_validate(job_in(out := tmp_path / "out", machine={"devices": ["cpu", "cpu"]}))
    counts = train_apart(job, silent)
    assert (counts["steps"], counts["pairs"]) == (STEPS, 36)
    assert sorted(path.name for path in out.iterdir()) == ["history.parquet", "model.json", "model.safetensors"]
    assert_equal(undisturbed(2), out)


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
def test_a_run_that_diverges_fails_as_what_it_is_and_its_last_state_loads(
    devices: list[str], job_in: Callable[..., Any], tmp_path: Path
) -> None:
    job = job_in(out := tmp_path / "out", {"devices": devices}, lr=1e6, warmup_steps=0, checkpoint_steps=1)
    with pytest.raises(DivergedError, match=r"step \d+ of 50, lr [\d.e+]+, samples such as a\d+_SYN1.*Lower"):
        train_apart(Job.model_validate(job), silent)
    *_, last = sorted((out / "states").glob("*.pt"))
    state = torch.load(last, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())
    process = start(out)
    assert "loss" in ended(process)
    assert process.returncode == 1


def test_what_a_process_cannot_do_is_told_with_its_last_words(job_in: Callable[..., Any], tmp_path: Path) -> None:
    job = Job.model_validate(job_in(out := tmp_path / "out"))
    with pytest.raises(SettingsError, match="there is no GPU 63, but 0 of them"):
        train_apart(job.model_copy(update={"machine": job.machine.model_copy(update={"devices": (63,)})}), silent)
    (out / "states").write_text("a file where a folder has to be")
    with pytest.raises(SkyScriptError, match=r"training ended with status 1; .*FileExistsError"):
        train_apart(job, silent)
    uneven = job_in(tmp_path / "uneven", {"devices": ["cpu", "cpu"]}, batch_size=9)
    with pytest.raises(SettingsError, match="batch_size 9 cannot be shared by 2 devices"):
        train_apart(Job.model_validate(uneven), silent)


def test_two_runs_do_not_share_a_gpu() -> None:
    with alone_on("GPU-test"):
        with pytest.raises(OutputBusyError, match="GPU GPU-test is held by another training run"):
            with alone_on("GPU-test"):
                pytest.fail("two hold it")
    with alone_on("GPU-test"):
        pass


@pytest.fixture
def plant(town: Town, folder_base: dict[str, Any], tmp_path: Path) -> Iterator[Workshop]:
    """A profile with one model that takes some time, and what that is trained on."""
    files = tiny_files()
    recipe = RECIPE | {"epochs": 100, "checkpoint_steps": 1000}
    files["models"]["bases"]["tiny"] = folder_base
    files["models"]["models"]["continued"] = {"title": "C", "base": "tiny", "sources": ["SYN1"], "recipe": recipe}
    files["plant"]["training"] = {"devices": ["cpu", "cpu"]}
    manifest = read_table(town.manifest)
    for name, value in (("region", "kotka"), ("source", "SYN1"), ("image_shard", "kotka/SYN1/part-00000.tar")):
        column = pa.array([value] * len(manifest))
        manifest = manifest.set_column(manifest.schema.get_field_index(name), name, column)
    with dg.DagsterInstance.ephemeral() as instance:
        plant = Workshop(write_profile(tmp_path / "profile", files), tmp_path / "data", instance)
        plant.put("pretrained_weights", (), lambda out: (out / "weights.json").write_text("{}"))
        plant.put(
            "image_chips", ("kotka", "SYN1"), lambda out: os.link(town.chips / "part-00000.tar", out / "part-00000.tar")
        )
        plant.put("training_manifest", (), lambda out: write_table(out / "manifest.parquet", manifest))
        yield plant


def test_the_curve_grows_in_dagster_and_a_run_that_is_ended_ends_all(
    plant: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skyscript_assets.training.launch.OBSERVED_S", 0.0)
    key = dg.AssetKey("trained_checkpoint")
    job = plant.defs.resolve_job_def("models")

    def check() -> None:
        if len(plant.instance.fetch_observations(key, limit=100).records) > 1:
            raise StoppedError(signal.SIGTERM)

    monkeypatch.setattr(runs, "check", check)
    done = job.execute_in_process(
        instance=plant.instance, partition_key="continued", asset_selection=[key], raise_on_error=False
    )
    assert not done.success
    records = plant.instance.fetch_observations(key, limit=100).records
    curve = [{name: value.value for name, value in record.asset_observation.metadata.items()} for record in records]
    assert {record.partition_key for record in records} == {"continued"}
    assert all(
        {"training curve", "loss", "lr", "samples_per_s", "left_s", "memory_mb"} <= point.keys() for point in curve
    )
    assert curve[-1]["step"] < curve[0]["step"] < 600
    staging = next((plant.data / ".staging").glob("trained_checkpoint*/states"))
    *_, last = sorted(staging.glob("*.pt"))
    assert torch.load(last, weights_only=True)["step"] >= curve[0]["step"]
    children = Path("/proc/self/task").glob("*/children")
    assert not any(rank_of(int(pid)) for path in children for pid in path.read_text().split())


def test_devices_make_nothing_stale(plant: Workshop) -> None:
    machine = plant.settings.plant.training
    other = plant.settings.plant.model_copy(update={"training": machine.model_copy(update={"devices": "cpu"})})
    stage = STAGES["trained_checkpoint"]
    two, one = (
        stage.config(plant.settings.model_copy(update={"plant": some}), ("continued",))
        for some in (plant.settings.plant, other)
    )
    assert two != one
    assert seen(two) == seen(one)
