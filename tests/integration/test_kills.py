"""Processes that are killed, stopped, or kept waiting in the midst of a stage, and what the next one makes of that."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from skyscript_assets import runs
from skyscript_assets.assets import STAGES
from skyscript_assets.lib.imagery.scenes import write_scenes
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.provenance import Outputs
from tests.workshop import Workshop, ortho_files, write_profile

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
PARTITION, KEY = ("kotka", "ORTHO"), OutputKey("image_chips", ("kotka", "ORTHO"))
STATUS = dg.DagsterRunStatus


class Yard(Workshop):
    """A workshop in which `image_chips` takes some seconds; its processes have an instance on disk."""

    def start(self, *options: str) -> subprocess.Popen[str]:
        """`skyscript run` of the chips."""
        return subprocess.Popen(
            [sys.executable, "-m", "skyscript_assets.cli", "run", str(KEY), *options],
            env={**os.environ, **self.variables},
            cwd=self.profile.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def variables(self) -> dict[str, str]:
        home = self.profile.parent
        given = {"SKYSCRIPT_SETTINGS": self.profile, "SKYSCRIPT_DATA": self.data, "DAGSTER_HOME": home / ".dagster"}
        return {"PYTHONPATH": str(ROOT), "COLUMNS": "200", **{name: str(path) for name, path in given.items()}}

    def parts(self) -> dict[str, tuple[int, int]]:
        """Number and time of the file of each part that is finished and not yet in place."""
        found = (self.data / ".staging").glob("**/part-*.tar")
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    def undisturbed(self) -> Any:
        """The chips' files, made in this process."""
        return Outputs(STAGES, self.settings, self.store).materialize(STAGES["image_chips"], PARTITION).record.files

    def run(self) -> dg.DagsterRun:
        """The latest run."""
        return self.instance.get_runs(limit=1)[0]

    def slots(self) -> set[str]:
        """Runs that hold slots of pools or wait for them."""
        return self.instance.event_log_storage.get_concurrency_run_ids()


def until(reached: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    while not reached():
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@pytest.fixture
def new_yard(
    tmp_path: Path, demo_packages: None, write_raster: Any, scene_of: Any, textured: Any, write_chip_plan: Any
) -> Iterator[Callable[[str], Yard]]:
    """Makes yards, each with a data folder of its own, on one instance whose pools have one slot."""
    path = write_raster(tmp_path / "ortho.tif", textured(1200, 1200), compress="deflate")
    files = ortho_files(path)
    files["plant"]["chips"] = {"part_size": 50}
    write_profile(tmp_path / "profile", files)
    (tmp_path / ".dagster").mkdir()
    config = (ROOT / "dagster.yaml").read_text(encoding="utf-8").replace("default_limit: 2", "default_limit: 1")
    (tmp_path / ".dagster" / "dagster.yaml").write_text(config, encoding="utf-8")
    scene = scene_of(path, region="kotka", source="ORTHO")
    windows = [(scene, number % 1000, number // 10, 200, 200) for number in range(3000)]
    with dg.DagsterInstance.from_config(str(tmp_path / ".dagster")) as instance:

        def make(name: str) -> Yard:
            yard = Yard(tmp_path / "profile", tmp_path / name, instance)
            yard.put("scene_index", PARTITION, lambda out: write_scenes(out, [scene]))
            yard.put("chip_plan", PARTITION, lambda out: write_chip_plan(out, windows))
            return yard

        yield make


@pytest.fixture
def yard(new_yard: Callable[[str], Yard]) -> Yard:
    return new_yard("data")


@pytest.fixture
def holder(yard: Yard) -> Iterator[str]:
    """A run of a process that lives, this one, which holds the pool's only slot."""
    run_id = "1a2b3c4d-0000-4000-8000-000000000000"
    storage = yard.instance.event_log_storage
    yard.instance.add_run(dg.DagsterRun("pairs", run_id=run_id, status=STATUS.STARTED, tags=runs.process_tags(run_id)))
    storage.initialize_concurrency_limit_to_default("imagery")
    assert storage.claim_concurrency_slot("imagery", run_id, "image_chips").is_claimed
    return run_id


def test_a_stage_that_is_asked_to_end_does_so_between_parts_and_continues(new_yard: Callable[[str], Yard]) -> None:
    yard = new_yard("data")
    process = yard.start()
    until(lambda: len(yard.parts()) > 2, process)
    process.terminate()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "stopped; finished parts are kept: the same command continues" in said
    assert yard.run().status is STATUS.CANCELED
    assert yard.slots() == set()
    kept = yard.parts()
    assert 2 < len(kept) < 60
    continued = yard.start()
    until(lambda: len(yard.parts()) > len(kept) or continued.poll() is not None)
    assert kept.items() <= yard.parts().items(), "finished parts are not made again"
    assert continued.wait() == 0, continued.communicate()[0]
    record = yard.store.record(KEY)
    assert record is not None
    assert record.files == new_yard("undisturbed").undisturbed()


def test_a_stage_that_was_killed_twice_leaves_nothing_to_wait_for(yard: Yard) -> None:
    for number in (1, 2):
        process = yard.start()
        until(lambda number=number: len(yard.parts()) > 2 * number, process)
        process.kill()
        process.wait()
        assert yard.run().status is STATUS.STARTED
        assert len(yard.slots()) == 1
    last = yard.start()
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert "its process" in said
    assert [run.status for run in yard.instance.get_runs()] == [STATUS.SUCCESS, STATUS.FAILURE, STATUS.FAILURE]
    assert yard.slots() == set()


def test_a_wait_for_a_pool_is_told_and_ends_at_a_signal(yard: Yard, holder: str) -> None:
    process = yard.start()
    assert process.stdout is not None
    line = process.stdout.readline()
    held = f"1 of 1 slots are held by run {holder[:8]} on host {socket.gethostname()}, pid {os.getpid()}"
    assert line == f"image_chips waits for pool imagery: {held}\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, said
    assert yard.run().status is STATUS.CANCELED
    assert yard.slots() == {holder}


def test_a_wait_for_a_pool_has_an_end(yard: Yard, holder: str) -> None:
    process = yard.start("--wait", "0.01")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"waited 0.01 minutes for pool imagery: 1 of 1 slots are held by run {holder[:8]}" in said
    assert yard.run().status is STATUS.FAILURE
    assert yard.slots() == {holder}


@pytest.fixture
def workspace(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseWorkspaceRequestContext]:
    """What a daemon launches runs by: a code server in a process of its own."""
    for name, value in yard.variables.items():
        monkeypatch.setenv(name, value)
    target = ModuleTarget("skyscript_assets.definitions", None, None, "plant")
    with WorkspaceProcessContext(yard.instance, target) as process:
        yield process.create_request_context()


def launch(yard: Yard, workspace: BaseWorkspaceRequestContext) -> str:
    """Launch a run of the chips as a daemon does; returns its id when some parts are finished."""
    location = workspace.get_code_location("plant")
    (repository,) = location.get_repositories().values()
    chips = [dg.AssetKey("image_chips")]
    job = location.get_job(
        JobSubsetSelector("plant", repository.name, "pairs", op_selection=None, asset_selection=chips)
    )
    plan = location.get_execution_plan(job, {}, None, None, instance=yard.instance).execution_plan_snapshot
    tags = {"dagster/partition": "|".join(PARTITION)}
    tags |= {f"dagster/partition/{name}": key for name, key in zip(("region", "source"), PARTITION, strict=True)}
    run = yard.instance.create_run(
        job_name="pairs",
        run_id=None,
        run_config={},
        status=None,
        tags=tags,
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=plan.step_keys_to_execute,
        execution_plan_snapshot=plan,
        job_snapshot=job.job_snapshot,
        parent_job_snapshot=job.parent_job_snapshot,
        asset_selection=set(chips),
        asset_check_selection=None,
        resolved_op_selection=job.resolved_op_selection,
        op_selection=None,
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
        asset_graph=repository.asset_graph,
    )
    yard.instance.launch_run(run.run_id, workspace)
    until(lambda: len(yard.parts()) > 2)
    return run.run_id


def process_of(yard: Yard, run_id: str) -> int:
    run = yard.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags[runs.HOST_TAG] == socket.gethostname()
    return int(run.tags[runs.PROCESS_TAG].split()[1])


def test_a_run_of_a_daemon_that_dies_with_its_code_server_is_closed(
    yard: Yard, workspace: BaseWorkspaceRequestContext
) -> None:
    run_id = launch(yard, workspace)
    pid = process_of(yard, run_id)
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    for one in (parent, pid):
        os.kill(one, signal.SIGKILL)
    until(lambda: runs._started(str(pid)) is None)
    assert yard.run().status is STATUS.STARTED
    assert yard.slots() == {run_id}
    (line,) = runs.close_dead_runs(yard.instance)
    assert f"its process {pid} is gone" in line
    assert yard.run().status is STATUS.FAILURE
    assert yard.run().tags["dagster/will_retry"] == "true"
    assert yard.slots() == set()


def test_a_run_of_a_daemon_that_is_terminated_keeps_its_parts(
    yard: Yard, workspace: BaseWorkspaceRequestContext
) -> None:
    run_id = launch(yard, workspace)
    assert yard.instance.run_launcher.terminate(run_id)
    until(lambda: yard.run().is_finished)
    assert yard.run().status is STATUS.CANCELED
    until(lambda: yard.slots() == set())
    assert 2 < len(yard.parts()) < 60


def test_a_run_of_a_daemon_that_is_cut_off_is_to_be_tried_again(
    yard: Yard, workspace: BaseWorkspaceRequestContext
) -> None:
    run_id = launch(yard, workspace)
    os.kill(process_of(yard, run_id), signal.SIGTERM)
    until(lambda: yard.run().is_finished)
    assert yard.run().status is STATUS.FAILURE
    until(lambda: yard.run().tags.get("dagster/will_retry") == "true")
    assert 2 < len(yard.parts()) < 60
