"""Sensors through Dagster's own daemon: a dozen looks at pairs that fail, run and wait; the daemon as a process."""

import http.server
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.selector import PartitionRangeSelector, PartitionsByAssetSelector, PartitionsSelector
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.scheduler.instigation import SensorInstigatorData, TickStatus
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.sensor import execute_sensor_iteration

from skyscript_assets.automation.decision import FIRST_PAUSE_S
from skyscript_assets.automation.failures import failures
from skyscript_assets.lib.errors import SceneError
from skyscript_assets.partitions import partition_of
from skyscript_assets.resources import Plant
from tests.small_plant import FOLDER, STAGES, break_pair, change, mend_pair, put_clock_forward, small_profile

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TARGET = ModuleTarget("tests.small_location", None, str(ROOT), "tests.small_location")


class SmallPlant:
    """The small plant on an instance that queues runs; what becomes of a run is told by the test."""

    def __init__(self, folder: Path, process: WorkspaceProcessContext) -> None:
        self.process, self.instance = process, process.instance
        self.plant = Plant(settings_folder=str(folder / "profile"), data=str(folder / "data"))
        repository = next(iter(process.create_request_context().code_locations)).get_repositories()["__repository__"]
        self.sensor = repository.get_sensor("missing_pairs")
        self.instance.start_sensor(self.sensor)

    @property
    def state(self) -> Any:
        return self.instance.get_instigator_state(self.sensor.get_remote_origin_id(), self.sensor.selector_id)

    @property
    def tick(self) -> Any:
        """The latest look."""
        return self.instance.get_ticks(self.sensor.get_remote_origin_id(), self.sensor.selector_id, limit=1)[0]

    def make(self, asset: str, key: str | None = None) -> None:
        self.plant.outputs(STAGES).materialize(STAGES[asset], partition_of(STAGES[asset].scheme, key))

    def look(self) -> list[str]:
        """One look of the daemon; the pairs that it asked for."""
        before = {run.run_id for run in self.instance.get_runs()}
        # As if a second had gone by, for the daemon and for the sensor.
        rested = self.state.instigator_data._replace(last_tick_timestamp=None, last_tick_start_timestamp=None)
        self.instance.update_instigator_state(self.state.with_data(rested))
        put_clock_forward(1.1)
        logger = logging.getLogger("sensors")
        errors = execute_sensor_iteration(
            self.process, logger, threadpool_executor=None, submit_threadpool_executor=None
        )
        assert [error for error in errors if error] == []
        assert self.tick.status in (TickStatus.SUCCESS, TickStatus.SKIPPED), self.tick.error
        asked = [run for run in self.instance.get_runs(ascending=True) if run.run_id not in before]
        return [run.tags["dagster/partition"] for run in asked]

    def runs(self, *statuses: dg.DagsterRunStatus) -> dict[str, dg.DagsterRun]:
        """Runs of some statuses by pair."""
        found = self.instance.get_runs(dg.RunsFilter(statuses=list(statuses) or None), ascending=True)
        return {run.tags["dagster/partition"]: run for run in found}

    def begin(self, *pairs: str) -> None:
        for pair in pairs:
            self._report(pair, DagsterEventType.RUN_START)

    def end(self, *pairs: str) -> None:
        """End runs as the stages do."""
        for pair in pairs:
            try:
                self.make("cut", pair)
                self.make("told", pair)
                self._report(pair, DagsterEventType.RUN_SUCCESS)
            except SceneError:  # a pair that is broken
                self._report(pair, DagsterEventType.RUN_FAILURE)

    def _report(self, pair: str, event: DagsterEventType) -> None:
        run = next(
            run for run in self.instance.get_runs() if run.tags["dagster/partition"] == pair and not run.is_finished
        )
        self.instance.report_dagster_event(DagsterEvent(event.value, run.job_name), run.run_id)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallPlant]:
    """Two regions and four sources; rules and extracts are made."""
    for name, value in environment(tmp_path, 2, 4).items():
        monkeypatch.setenv(name, value)

    with (
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
        WorkspaceProcessContext(instance, TARGET) as process,
    ):
        plant = SmallPlant(tmp_path, process)
        for key in ("r0", "r1"):
            plant.make("extract", key)
        plant.make("rules")
        yield plant


def environment(folder: Path, regions: int, sources: int) -> dict[str, str]:
    return {
        FOLDER: str(folder),
        "SKYSCRIPT_SETTINGS": str(small_profile(folder / "profile", regions, sources)),
        "SKYSCRIPT_DATA": str(folder / "data"),
        "PYTHONPATH": str(ROOT),
    }


def test_a_dozen_looks_at_pairs_that_fail_run_and_wait(small: SmallPlant) -> None:
    bad, good = ["r0|S0", "r1|S0", "r0|S1", "r1|S1"], ["r0|S2", "r1|S2", "r0|S3", "r1|S3"]
    break_pair(*bad)
    assert small.look() == bad, "heavy ones first, no more than four at once"
    tags = small.runs()["r0|S0"].tags
    assert {tags["region"], tags["source"]} == {"r0", "S0"}
    assert (tags["skyscript/why"], tags["skyscript/asked_by"]) == ("missing: cut", "missing_pairs")
    assert small.look() == [], "queued ones count"
    small.begin(*bad)
    assert small.look() == [], "and running ones"
    small.end("r0|S0", "r1|S0")
    assert small.look() == good[:2], "failed ones starve nobody"
    small.end("r0|S1", "r1|S1")
    assert small.look() == good[2:]
    small.end(*good[:2])
    assert small.look() == [], "what is current is not asked for, what has failed not yet"
    put_clock_forward(FIRST_PAUSE_S)
    assert small.look() == bad[:2], "after the pause they come again, as many as there is room for"
    assert small.runs()["r0|S0"].tags["skyscript/why"] == "retry 1 of 8"
    small.end(*good[2:], *bad[:2])
    assert sorted(small.look()) == sorted(bad[2:])
    small.end(*bad[2:])
    put_clock_forward(FIRST_PAUSE_S)
    assert small.look() == [], "the second pause is twice as long"
    change("r1", "moved")
    assert small.look() == [], "what waits for its extract is not asked for"
    assert "waiting for what they are made from, such as extract/r1" in small.tick.skip_reason
    small.make("extract", "r1")
    assert small.look() == ["r1|S0", "r1|S1", "r1|S2", "r1|S3"], "another input counts at once"
    assert small.runs()["r1|S3"].tags["skyscript/why"] == "stale: cut.inputs.extract/r1"
    mend_pair("r1|S0", "r1|S1")
    small.end("r1|S0", "r1|S1", "r1|S2", "r1|S3")
    assert set(small.look()) <= {"r0|S0", "r0|S1"}, "only failures are left"
    keys = [run.tags["dagster/run_key"] for run in small.instance.get_runs()]
    assert len(keys) == len(set(keys))
    assert len(small.state.instigator_data.cursor) < 4 * 100, "the memory holds what has failed and nothing else"


def test_what_others_run_is_not_asked_for(small: SmallPlant) -> None:
    graph = small.process.create_request_context().asset_graph
    pair = PartitionsSelector(ranges=[PartitionRangeSelector(start="r0|S0", end="r0|S0")])
    backfill = PartitionBackfill.from_partitions_by_assets(
        backfill_id="mine",
        asset_graph=graph,
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=small.instance,
        partitions_by_assets=[PartitionsByAssetSelector(asset_key=dg.AssetKey("told"), partitions=pair)],
        title=None,
        description=None,
        run_config=None,
    )
    small.instance.add_backfill(backfill)
    started = dg.DagsterRunStatus.STARTED
    small.instance.add_run(dg.DagsterRun(job_name="pairs", status=started, tags={"dagster/partition": "r1|S0"}))
    assert small.look() == ["r0|S1", "r1|S1", "r0|S2", "r1|S2"]
    small.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    small.end("r1|S0", "r0|S1")
    assert small.look() == ["r0|S0"], "once there is room for it; the user's run has made the other one"


def test_a_cursor_that_cannot_be_read_starts_anew(small: SmallPlant) -> None:
    break_pair("r0|S0")
    assert len(small.look()) == 4
    small.end("r0|S0", "r1|S0")
    data = small.state.instigator_data
    spoiled = SensorInstigatorData(cursor="nonsense", last_tick_timestamp=0.0, min_interval=data.min_interval)
    small.instance.update_instigator_state(small.state.with_data(spoiled))
    assert small.look() == ["r0|S0", "r0|S2"], "what has failed is asked for at once, what runs is not"
    assert small.runs()["r0|S0"].tags["skyscript/why"] == "missing: told"
    small.end("r0|S0", "r0|S2")
    assert "r0|S0" not in small.look()


def test_the_daemon_as_a_process_asks_retries_and_tells(tmp_path: Path, hook: "Hook") -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    env = {
        **os.environ,
        **environment(tmp_path, 1, 2),
        "DAGSTER_HOME": str(tmp_path / "home"),
        "SKYSCRIPT_WEBHOOK": hook.address,
        "FIRST_PAUSE_S": "3",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        break_pair("r0|S0")
        outputs = Plant(settings_folder=env["SKYSCRIPT_SETTINGS"], data=env["SKYSCRIPT_DATA"]).outputs(STAGES)
        outputs.materialize(STAGES["rules"], ())
        outputs.materialize(STAGES["extract"], ("r0",))

        with dg.DagsterInstance.get() as instance:
            with WorkspaceProcessContext(instance, TARGET) as process:
                location = next(iter(process.create_request_context().code_locations))
                for name in ("missing_pairs", "failures"):
                    instance.start_sensor(location.get_repositories()["__repository__"].get_sensor(name))
            place = ["-m", "tests.small_location", "-d", str(ROOT)]
            with (tmp_path / "daemon.log").open("w") as log:
                daemon = subprocess.Popen(
                    [sys.executable, "-m", "dagster._daemon", "run", *place], env=env, stdout=log, stderr=log, cwd=ROOT
                )
            try:
                until(lambda: len(of_pair(instance, "r0|S0")) > 1 and len(hook.got) > 0)
                mend_pair("r0|S0")
                until(lambda: any(run.is_success for run in of_pair(instance, "r0|S0")))
            finally:
                daemon.send_signal(signal.SIGINT)
                daemon.wait(60)
            assert Counter(run.status for run in of_pair(instance, "r0|S1")) == {dg.DagsterRunStatus.SUCCESS: 1}
            tried = instance.get_run_records(dg.RunsFilter(tags={"dagster/partition": "r0|S0"}), ascending=True)
            for earlier, later in itertools.pairwise(tried):
                assert later.start_time > earlier.end_time, "never two at once"
    assert hook.got[0]["error"] == "told: r0/S0 is broken"
    assert hook.got[0]["link"] == f"http://127.0.0.1:3000/runs/{hook.got[0]['run_id']}"


def of_pair(instance: dg.DagsterInstance, pair: str) -> Sequence[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(tags={"dagster/partition": pair}))


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until something is true, so long at most that a test ends."""
    last = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < last, "it has not come true"
        time.sleep(0.5)


class Hook:
    """A webhook on this machine that answers a status after some time."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status, self.delay_s = 200, 0.0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805
                time.sleep(self.delay_s)
                self.got.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
                handler.send_response(self.status)
                handler.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/services/s3cret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    found = Hook()
    yield found
    found.server.shutdown()
    found.server.server_close()


def tell(webhook: str | None, capfd: pytest.CaptureFixture[str]) -> str:
    """What the sensor of failures logs of a failed run."""

    @dg.op
    def told() -> None:
        raise dg.Failure("https://a.example/x?token=hidden is refused")

    @dg.job(name="pairs", tags={"dagster/partition": "r0|S0"})
    def pairs() -> None:
        told()

    with dg.DagsterInstance.ephemeral() as instance:
        result = pairs.execute_in_process(instance=instance, raise_on_error=False)
        event, run = result.get_run_failure_event(), result.dagster_run
        capfd.readouterr()
        failures(webhook, None)(dg.build_run_status_sensor_context("failures", event, instance, run).for_run_failure())
    return capfd.readouterr().err


def test_a_failure_is_logged_in_one_line_without_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = tell("", capfd).splitlines()
    assert "pairs r0|S0 failed: told: https://a.example/x is refused (run " in line
    assert "hidden" not in line


def test_a_webhook_gets_the_failure(hook: Hook, capfd: pytest.CaptureFixture[str]) -> None:
    tell(hook.address, capfd)
    (got,) = hook.got
    assert (got["job"], got["partition"]) == ("pairs", "r0|S0")
    assert got["text"].endswith(f"(run {got['run_id'][:8]})")
    assert "hidden" not in json.dumps(got)
    assert "link" not in got


@pytest.mark.parametrize(
    ("status", "delay_s", "problem"), [(500, 0.0, "fails for now"), (404, 0.0, "404"), (200, 2.0, "no answer")]
)
def test_a_webhook_that_fails_is_logged_and_breaks_nothing(
    hook: Hook,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    delay_s: float,
    problem: str,
) -> None:
    monkeypatch.setattr("skyscript_assets.automation.failures.ANSWER_S", 0.5)
    hook.status, hook.delay_s = status, delay_s
    log = tell(hook.address, capfd)
    assert problem in log
    assert "s3cret" not in log


@pytest.mark.parametrize("webhook", ["file:///etc/passwd", "http://[bad/s3cret", "nonsense"])
def test_a_webhook_that_is_no_address_is_logged(webhook: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = tell(webhook, capfd)
    assert "SKYSCRIPT_WEBHOOK was not told" in log
    assert "s3cret" not in log
