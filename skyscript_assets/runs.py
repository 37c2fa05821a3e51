"""Runs and their processes: dead runs are closed, waits are visible and obey signals, a stop comes at a safe point.

A process that is killed leaves its run open in the instance, and its slots of pools claimed: Dagster waits for these
for ever, at full speed and deaf to signals. So each run here says which process it is, whoever comes next closes what
a process that is gone has left, and waits are made here.
"""

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from skyscript_assets.lib.errors import PoolBusyError, StoppedError

HOST_TAG, PROCESS_TAG = "skyscript/host", "skyscript/process"
POLL_S = 2.0
"""Seconds between two looks at a pool."""

_OPEN = [status for status in NOT_FINISHED_STATUSES if status is not dg.DagsterRunStatus.QUEUED]  # it has no process
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_log = logging.getLogger(__name__)


def process_tags(run_id: str) -> dict[str, str]:
    """Tags that tell which process a run is; none on a system without `/proc`.

    They begin with the run's own id: Dagster copies the tags of a run that it tries again.
    """
    pid = os.getpid()
    started = _started(str(pid))
    return {HOST_TAG: socket.gethostname(), PROCESS_TAG: f"{run_id} {pid} {started} {_boot()}"} if started else {}


def close_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Close the runs of this host whose process is gone, a line for each; free slots of runs that ended or are gone."""
    lines = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_OPEN, tags={HOST_TAG: socket.gethostname()})):
        run_id, pid, started, boot = (*run.tags.get(PROCESS_TAG, "").split(), "", "", "", "")[:4]
        if run_id != run.run_id or (boot == _boot() and started == _started(pid)):
            continue
        message = f"Process {pid} of this run is gone. Finished parts are kept: a new run continues."
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)
        lines.append(f"closed run {run_id[:8]} ({run.job_name}): its process {pid} is gone")
    storage = instance.event_log_storage
    claiming = storage.get_concurrency_run_ids() if storage.supports_global_concurrency_limits else set()
    for run_id in claiming:
        claimant = instance.get_run_by_id(run_id)
        if claimant is None or claimant.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
    return lines


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes runs whose process is gone and frees their slots; requests nothing.",
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Close dead runs of the host on which this code runs."""
    return dg.SkipReason("; ".join(close_dead_runs(context.instance)) or "no run was left by a process that is gone")


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: str) -> str | None:
    """Clock ticks from boot to the start of a process: no later one of its number shares them. None without one."""
    try:
        text = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before the last bracket may hold anything; a process that is only to be reaped is gone.
    state, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


class _Stop:
    """The signal that asked this process to end: the first SIGINT or SIGTERM while it listens; the second ends it.

    Signals are heard by a thread, whatever handlers Dagster has put up, and in the midst of a long call of a library.
    """

    def __init__(self) -> None:
        self.signum, self.heard = 0, threading.Event()

    def __enter__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.settimeout(0)
        self._before = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(ours,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._theirs.close()
        self.signum = 0
        self.heard.clear()

    def _listen(self, ours: socket.socket) -> None:
        with ours:
            while byte := ours.recv(1):
                if byte[0] in _SIGNALS and self.signum:
                    os._exit(128 + byte[0])
                if byte[0] in _SIGNALS:
                    self.signum = byte[0]
                    self.heard.set()


STOP = _Stop()
"""Listens inside a `with` block."""


def check() -> None:
    """Raise StoppedError if this process was asked to end."""
    if STOP.signum:
        raise StoppedError(STOP.signum)


@contextlib.contextmanager
def signals_deferred() -> Iterator[None]:
    """Inside the block no handler of a signal raises: only `check` does. Dagster's would within a half-written file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, lambda *_: None) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def rest(seconds: float, instance: dg.DagsterInstance, run_id: str) -> None:
    """Pause a run; end it if this process is asked to end."""
    try:
        with signals_deferred():
            STOP.heard.wait(seconds)
            check()
    except StoppedError as stopped:
        raise cancelled(instance, run_id, stopped) from stopped


def cancelled(instance: dg.DagsterInstance, run_id: str, stopped: StoppedError) -> dg.DagsterExecutionInterruptedError:
    """What ends a run for Dagster: one of the command line as canceled, one of a daemon as cut off."""
    run = instance.get_run_by_id(run_id)
    if run is not None and run.remote_job_origin is None:
        instance.report_run_canceling(run, str(stopped))
    return dg.DagsterExecutionInterruptedError(str(stopped))


def wait_for_database() -> None:
    """Let this process try a connection to PostgreSQL for two minutes; Dagster gives up after ten seconds.

    A run that finds no database for its events fails. A code server that finds none when it looks for runs that ended
    never looks again, nor does it end when told to. Dagster has no setting for this.
    """
    with contextlib.suppress(ImportError):  # the extra `postgres`
        from dagster_postgres import utils

        utils.retry_pg_connection_fn.__defaults__ = (60, 2.0)  # retries, seconds: of the function, which modules share
        vars(utils)["calculate_delay"] = lambda base_delay, **_: base_delay


def wait_here(instance: dg.DagsterInstance, longest_s: float = math.inf) -> None:
    """From now on runs on an instance wait for slots of pools here, not in Dagster: visibly and obeying signals.

    A run that waits longer than `longest_s` ends with PoolBusyError.
    """
    storage: Any = instance.event_log_storage
    claim = storage.claim_concurrency_slot

    def wait(pool: str, run_id: str, step: str, priority: int | None = None) -> Any:
        began, told = time.monotonic(), ""
        while not (status := claim(pool, run_id, step, priority)).is_claimed:
            close_dead_runs(instance)
            if storage.has_unassigned_slots(pool):  # their turn was not passed on by a process that was killed
                storage.assign_pending_steps([pool])
            if told != (told := _holders(instance, pool)):
                _log.warning("%s waits for pool %s: %s", step, pool, told)
                instance.report_engine_event(f"Waiting for pool {pool}: {told}", instance.get_run_by_id(run_id))
            if time.monotonic() - began > longest_s:
                raise PoolBusyError(
                    f"{step} waited {longest_s / 60:g} minutes for pool {pool}: {told}. Run again when that has ended, "
                    "wait longer (--wait MINUTES), or end it; nothing is lost"
                )
            rest(POLL_S, instance, run_id)
        return status

    storage.claim_concurrency_slot = wait


def _holders(instance: dg.DagsterInstance, pool: str) -> str:
    info = instance.event_log_storage.get_concurrency_info(pool)
    names = []
    for run_id in sorted({slot.run_id for slot in info.claimed_slots}):
        run = instance.get_run_by_id(run_id)
        tags = run.tags if run is not None else {}
        pid = (*tags.get(PROCESS_TAG, "").split(), "unknown", "unknown")[1]
        names.append(f"run {run_id[:8]} on host {tags.get(HOST_TAG, 'unknown')}, pid {pid}")
    return f"{len(info.claimed_slots)} of {info.slot_count} slots are held by {' and '.join(names) or 'earlier steps'}"


def attend(context: dg.InitResourceContext) -> None:
    """Do all this for a run that a daemon launched; called when its process begins, before its first step."""
    run, instance = context.run, context.instance
    if run is not None and run.remote_job_origin is not None and instance is not None:
        instance.add_run_tags(run.run_id, process_tags(run.run_id))
        STOP.__enter__()
        wait_here(instance)
