"""Starts the processes of a training run, hears them, and ends them: under Dagster by its Pipes, or plainly."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from skyscript_assets import runs
from skyscript_assets.lib.errors import SettingsError, SkyScriptError
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.settings.plant import TrainingSettings
from skyscript_assets.training.job import ERROR, EVENTS, JOB, LOG, Job, told_error

LOOK_S, OBSERVED_S = 0.5, 5.0
"""Seconds between two looks at the processes, and between two observations of the curve that Dagster keeps."""

END_S = 60.0
"""Seconds that processes are given to write their state and end; then they are killed."""

MODULE = "skyscript_assets.training.worker"


def train_apart(job: Job, progress: Progress) -> Mapping[str, Any]:
    """Train a job in processes of its own, one for each device, and return what was done.

    They end with this process, however that ends; the first one writes its state before. Progress may raise what it
    likes to end them.

    Raises:
        SettingsError: there is no such device.
        SkyScriptError: of the class and with the message of the process that failed first.
    """
    devices, visible = _devices(job.machine)
    for name in (ERROR, LOG):
        (job.out / name).unlink(missing_ok=True)
    write_text(job.out / JOB, job.model_dump_json(indent=1))
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(devices), "-m", MODULE)
    command = [sys.executable, *(several if devices > 1 else ("-m", MODULE)), str(job.out / JOB), "--attended"]
    with _heard() as (variables, events), (job.out / LOG).open("ab") as log:
        environment = {**os.environ, **variables, "CUDA_VISIBLE_DEVICES": visible}
        with subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        ) as process:
            try:
                _attend(process, events, progress)
            finally:
                _end(process)
    if process.returncode:
        raise told_error(job.out) or SkyScriptError(_last_words(job.out, process.returncode))
    counts: Mapping[str, Any] = json.loads((job.out / "model.json").read_text(encoding="utf-8"))["training"]
    for name in (JOB, EVENTS, LOG):
        (job.out / name).unlink(missing_ok=True)
    return counts


def _devices(machine: TrainingSettings) -> tuple[int, str]:
    """How many processes, and the GPUs that they see, as CUDA_VISIBLE_DEVICES tells them."""
    import torch

    there = torch.cuda.device_count()
    known = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(there)))).split(",")
    wanted = list(range(there)) if machine.devices == "auto" else machine.devices
    if wanted == "cpu" or not wanted:
        return 1, ""
    gpus = [device for device in wanted if isinstance(device, int)]
    if gpus and max(gpus) >= there:
        raise SettingsError(f"plant.yaml: training.devices: there is no GPU {max(gpus)} here, but {there} of them")
    return len(wanted), ",".join(known[gpu] for gpu in gpus)


@contextlib.contextmanager
def _heard() -> Iterator[tuple[Mapping[str, str], Callable[[], list[Any]]]]:
    """Variables for the processes, and what gives the events that came since it was last asked."""
    try:
        context = dg.AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        yield {}, list
        return
    given, observed = 0, 0.0
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():  # Dagster warns of a method of its own
            warnings.simplefilter("ignore", dg.PreviewWarning)
            session = stack.enter_context(
                dg.open_pipes_session(context, dg.PipesEnvContextInjector(), dg.PipesTempFileMessageReader())
            )

        def events() -> list[Any]:
            nonlocal given, observed
            new = list(session.get_custom_messages()[given:])
            given += len(new)
            if new and (time.monotonic() - observed > OBSERVED_S or new[-1]["step"] == new[-1]["total"]):
                observed = time.monotonic()
                partition = context.partition_key if context.has_partition_key else None
                context.log_event(dg.AssetObservation(context.asset_key, partition=partition, metadata=new[-1]))
            return new

        yield session.get_bootstrap_env_vars(), events


def _attend(process: subprocess.Popen[bytes], events: Callable[[], list[Any]], progress: Progress) -> None:
    while process.poll() is None:
        for event in events()[-1:]:
            progress(event["step"], event["total"], "steps")
        runs.check()
        runs.STOP.heard.wait(LOOK_S)
    events()


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _last_words(out: Path, status: int) -> str:
    """What is told of processes that ended without a word."""
    lines = (out / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    found = re.search(r"Root Cause.*?rank\s*: (\d+).*?exitcode\s*: (-?\d+)", "\n".join(lines), re.DOTALL)
    who, status = (f"rank {found[1]}", int(found[2])) if found else ("the training process", status)
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = " (the system does so when memory runs out)" if status == -signal.SIGKILL else ""
    return f"{who} {how}{hint}; its state is kept, run again to go on. It said last: {' / '.join(lines[-3:])[-500:]}"
