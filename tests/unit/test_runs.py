"""Which process a run is, what becomes of runs without one, and how waits and stages end when asked to."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy.exc
import yaml

from skyscript_assets import runs
from skyscript_assets.lib.errors import PoolBusyError, StoppedError

STATUS = dg.DagsterRunStatus


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("concurrency: {pools: {default_limit: 1, granularity: op}}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def add_run(instance: dg.DagsterInstance) -> Callable[..., str]:
    """Adds a run of some status and tags, which may hold the slot of a pool."""

    def add(
        run_id: str = "1a2b3c4d-0000-4000-8000-000000000000",
        status: dg.DagsterRunStatus = STATUS.STARTED,
        pool: str | None = None,
        **tags: str,
    ) -> str:
        instance.add_run(dg.DagsterRun("pairs", run_id=run_id, status=status, tags=tags))
        if pool is not None:
            instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
            assert instance.event_log_storage.claim_concurrency_slot(pool, run_id, "image_chips").is_claimed
        return run_id

    return add


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def held(instance: dg.DagsterInstance, pool: str = "imagery") -> int:
    return len(instance.event_log_storage.get_concurrency_info(pool).claimed_slots)


def tags_of_another_process(run_id: str, *, dead: bool) -> dict[str, str]:
    """Tags as a process sets them that has ended, but for its being reaped, or that lives."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    _, _, _, boot = runs.process_tags(run_id)[runs.PROCESS_TAG].split()
    started = runs._started(str(child.pid))
    if dead:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return {runs.HOST_TAG: socket.gethostname(), runs.PROCESS_TAG: f"{run_id} {child.pid} {started} {boot}"}


def test_a_run_of_a_process_that_lives_stays_with_its_slot(instance, add_run) -> None:
    run_id = add_run(pool="imagery", **runs.process_tags("1a2b3c4d-0000-4000-8000-000000000000"))
    other = "2a2b3c4d-0000-4000-8000-000000000000"
    add_run(other, **tags_of_another_process(other, dead=False))
    assert runs.close_dead_runs(instance) == []
    assert status(instance, run_id) is status(instance, other) is STATUS.STARTED
    assert held(instance) == 1


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_a_clock_that_was_set_makes_no_run_dead_and_none_alive(instance, add_run, monkeypatch, ahead_s: float) -> None:
    alive, dead = "1a2b3c4d-0000-4000-8000-000000000000", "2a2b3c4d-0000-4000-8000-000000000000"
    add_run(alive, **runs.process_tags(alive))
    add_run(dead, **tags_of_another_process(dead, dead=True))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + ahead_s)
    assert [line.split()[2] for line in runs.close_dead_runs(instance)] == [dead[:8]]
    assert status(instance, alive) is STATUS.STARTED


def test_a_run_whose_process_was_killed_is_closed_and_its_slot_freed(instance, add_run) -> None:
    run_id = "1a2b3c4d-0000-4000-8000-000000000000"
    add_run(run_id, pool="imagery", **tags_of_another_process(run_id, dead=True))
    (line,) = runs.close_dead_runs(instance)
    assert "1a2b3c4d (pairs)" in line
    assert status(instance, run_id) is STATUS.FAILURE
    assert held(instance) == 0
    assert instance.event_log_storage.get_concurrency_run_ids() == set()
    events = [record.event_log_entry for record in instance.get_records_for_run(run_id).records]
    assert any("Finished parts are kept: a new run continues" in event.message for event in events)
    assert runs.close_dead_runs(instance) == []


@pytest.mark.parametrize("word", [1, 2, 3], ids=["pid", "start", "boot"])
def test_a_number_that_another_process_has_now_is_no_sign_of_life(instance, add_run, word: int) -> None:
    tags = runs.process_tags("1a2b3c4d-0000-4000-8000-000000000000")
    words = tags[runs.PROCESS_TAG].split()
    words[word] = "1"
    run_id = add_run(**{**tags, runs.PROCESS_TAG: " ".join(words)})
    assert len(runs.close_dead_runs(instance)) == 1
    assert status(instance, run_id) is STATUS.FAILURE


def test_runs_of_other_hosts_and_copied_tags_are_left_alone(instance, add_run) -> None:
    first, second = "1a2b3c4d-0000-4000-8000-000000000000", "2a2b3c4d-0000-4000-8000-000000000000"
    dead = tags_of_another_process(first, dead=True)
    add_run(first, pool="imagery", **{**dead, runs.HOST_TAG: "elsewhere"})
    add_run(second, status=STATUS.STARTING, **dead)  # tried again by Dagster, which copies tags
    add_run("3a2b3c4d-0000-4000-8000-000000000000", **{runs.HOST_TAG: socket.gethostname(), runs.PROCESS_TAG: "?"})
    assert runs.close_dead_runs(instance) == []
    assert held(instance) == 1


def test_a_dead_run_that_was_being_cancelled_counts_as_cancelled(instance, add_run) -> None:
    run_id = "1a2b3c4d-0000-4000-8000-000000000000"
    add_run(run_id, status=STATUS.CANCELING, **tags_of_another_process(run_id, dead=True))
    runs.close_dead_runs(instance)
    assert status(instance, run_id) is STATUS.CANCELED


@pytest.mark.parametrize("gone", [True, False])
def test_slots_of_ended_and_deleted_runs_are_freed(instance, add_run, gone: bool) -> None:
    run_id = add_run(pool="imagery")
    run = instance.get_run_by_id(run_id)
    instance.run_storage.delete_run(run_id) if gone else instance.report_run_failed(run)
    assert held(instance) == 1
    runs.close_dead_runs(instance)
    assert held(instance) == 0


def test_the_sensor_closes_dead_runs_and_requests_nothing(instance, add_run) -> None:
    run_id = "1a2b3c4d-0000-4000-8000-000000000000"
    add_run(run_id, pool="imagery", **tags_of_another_process(run_id, dead=True))
    assert runs.dead_runs.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(instance=instance) as context:
        data = runs.dead_runs.evaluate_tick(context)
    assert data.run_requests == []
    assert "1a2b3c4d" in (data.skip_message or "")
    assert status(instance, run_id) is STATUS.FAILURE


def test_waiting_names_who_holds_the_slots_and_ends_after_its_time(instance, add_run, monkeypatch, caplog) -> None:
    monkeypatch.setattr(runs, "POLL_S", 0.01)
    add_run(pool="imagery", **runs.process_tags("1a2b3c4d-0000-4000-8000-000000000000"))
    waiting = add_run("2a2b3c4d-0000-4000-8000-000000000000")
    runs.wait_here(instance, longest_s=0.05)
    with pytest.raises(PoolBusyError, match="--wait MINUTES"):
        instance.event_log_storage.claim_concurrency_slot("imagery", waiting, "image_chips")
    (record,) = caplog.records
    said = f"1 of 1 slots are held by run 1a2b3c4d on host {socket.gethostname()}, pid {os.getpid()}"
    assert record.getMessage() == f"image_chips waits for pool imagery: {said}"
    (event,) = [record.event_log_entry for record in instance.get_records_for_run(waiting).records]
    assert said in event.message


def test_waiting_ends_when_the_holder_dies(instance, add_run, monkeypatch) -> None:
    monkeypatch.setattr(runs, "POLL_S", 0.01)
    run_id = "1a2b3c4d-0000-4000-8000-000000000000"
    add_run(run_id, pool="imagery", **tags_of_another_process(run_id, dead=True))
    waiting = add_run("2a2b3c4d-0000-4000-8000-000000000000")
    runs.wait_here(instance)
    assert instance.event_log_storage.claim_concurrency_slot("imagery", waiting, "image_chips").is_claimed


def test_a_slot_that_a_killed_process_did_not_pass_on_is_taken(instance, add_run, monkeypatch) -> None:
    monkeypatch.setattr(runs, "POLL_S", 0.01)
    storage = instance.event_log_storage
    holder, waiting = add_run(pool="imagery"), add_run("2a2b3c4d-0000-4000-8000-000000000000")
    assert not storage.claim_concurrency_slot("imagery", waiting, "image_chips").is_claimed
    with monkeypatch.context() as killed:
        killed.setattr(storage, "assign_pending_steps", lambda _keys: None)
        storage.free_concurrency_slots_for_run(holder)
    assert not storage.claim_concurrency_slot("imagery", waiting, "image_chips").is_claimed
    runs.wait_here(instance, longest_s=10)
    assert storage.claim_concurrency_slot("imagery", waiting, "image_chips").is_claimed


def test_the_first_signal_is_heard_by_check_and_nothing_else_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with runs.STOP, runs.signals_deferred():
        runs.check()
        os.kill(os.getpid(), signal.SIGTERM)
        assert runs.STOP.heard.wait(30)
        with pytest.raises(StoppedError) as stopped:
            runs.check()
    assert stopped.value.signum == signal.SIGTERM
    runs.check()  # outside nobody stops
    assert signal.getsignal(signal.SIGINT) is before


def test_a_pause_ends_at_a_signal_and_the_run_counts_as_being_cancelled(instance, add_run) -> None:
    run_id = add_run()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    with runs.STOP:
        timer.start()
        with pytest.raises(dg.DagsterExecutionInterruptedError, match="the same command continues"):
            runs.rest(3600, instance, run_id)
    assert status(instance, run_id) is STATUS.CANCELING


def test_a_second_signal_ends_a_process_at_once() -> None:
    code = (
        "import time; from skyscript_assets import runs\n"
        "with runs.STOP, runs.signals_deferred():\n"
        "    print('ready', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.parametrize("folder", [".", "deploy"])
def test_a_daemon_starts_crashed_runs_again_and_no_others(folder: str, tmp_path: Path) -> None:
    stated = yaml.safe_load((Path(__file__).parents[2] / folder / "dagster.yaml").read_text(encoding="utf-8"))
    stated.pop("storage", None)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 2
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_monitoring_enabled
        queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_user_code_failure_retries > 0


def test_a_connection_to_the_database_is_tried_for_longer_than_dagster_does(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("dagster_postgres.utils", reason="the extra `postgres` is not installed")
    run_storage = pytest.importorskip("dagster_postgres.run_storage.run_storage")
    pauses: list[float] = []
    monkeypatch.setattr(utils.time, "sleep", pauses.append)

    def connect() -> str:
        if sum(pauses) < 120:
            raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("connection refused"))
        return "connected"

    runs.wait_for_database()
    assert run_storage.retry_pg_connection_fn(connect) == "connected"
