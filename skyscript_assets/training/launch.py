"""Starts the processes of a training run, hears them, and ends them: under Dagster by its Pipes, or plainly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from skyscript_assets import metadata, runs
from skyscript_assets.lib import errors
from skyscript_assets.lib.errors import SettingsError, SkyScriptError
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.settings.plant import TrainingSettings
from skyscript_assets.lib.tables import rows_to_table
from skyscript_assets.lib.training.checkpoint import HISTORY_SCHEMA, history_row, plot_history
from skyscript_assets.training.worker import ERROR, EVENTS, Job

LOOK_S, END_S = 0.5, 60.0
"""Seconds between two looks at the processes, and what these are given to end."""

OBSERVED_S, OBSERVED_SHARE = 5.0, 0.05
"""Least seconds between two observations of the curve, and share of the time so far: a day is some 200 pictures."""

MODULE, JOB, LOG = "skyscript_assets.training.worker", "job.json", "worker.log"


def train_apart(job: Job, progress: Progress) -> Mapping[str, Any]:
    """Train a job in processes of its own, one for each device, and return what was done.

    They end with this process, however that ends; the first one writes its state before.

    Raises:
        SettingsError: there is no such device.
        SkyScriptError: of the class and with the message of the process that failed first.
    """
    number, gpus = _devices(job.machine)
    (job.out / ERROR).unlink(missing_ok=True)
    write_text(job.out / JOB, job.model_dump_json(indent=1))
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)) if number > 1 else ()
    command = (sys.executable, *several, "-m", MODULE, str(job.out / JOB), "--attended")
    with _heard() as (variables, events), (job.out / LOG).open("wb") as log:
        given = {**os.environ, **variables, "CUDA_VISIBLE_DEVICES": gpus}
        streams = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, env=given, **streams) as process:  # type: ignore[call-overload]  # noqa: S603
            try:
                while process.poll() is None:
                    for event in events()[-1:]:
                        progress(event["step"], event["total"], "steps")
                    runs.check()
                    runs.STOP.heard.wait(LOOK_S)
                events()
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
                process.kill()
    if process.returncode:
        raise _failure(job.out, process.returncode)
    for name in (JOB, EVENTS, LOG):
        (job.out / name).unlink()
    counts: Mapping[str, Any] = json.loads((job.out / "model.json").read_text(encoding="utf-8"))["training"]
    return counts


def _devices(machine: TrainingSettings) -> tuple[int, str]:
    """How many processes, and the GPUs that they see, as CUDA_VISIBLE_DEVICES tells them."""
    import torch

    there = torch.cuda.device_count()
    known = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(there)))).split(",")
    wanted = range(there) if machine.devices == "auto" else machine.devices
    gpus = [device for device in wanted if isinstance(device, int)]
    if max(gpus, default=-1) >= there:
        raise SettingsError(f"plant.yaml: training.devices: there is no GPU {max(gpus)}, but {there} of them")
    return 1 if machine.devices == "cpu" else max(1, len(wanted)), ",".join(known[gpu] for gpu in gpus)


@contextlib.contextmanager
def _heard() -> Iterator[tuple[Mapping[str, str], Callable[[], list[Any]]]]:
    """Variables for the processes, and what gives the events that came since it was last asked."""
    try:
        context = dg.AssetExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        yield {}, list
        return
    told, began, observed, curve = 0, time.monotonic(), 0.0, list[dict[str, Any]]()
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():  # Dagster warns of a method of its own
            warnings.simplefilter("ignore", dg.PreviewWarning)
            pipes = dg.open_pipes_session(context, dg.PipesEnvContextInjector(), dg.PipesTempFileMessageReader())
            session = stack.enter_context(pipes)

        def events() -> list[Any]:
            nonlocal told, observed
            new, now = list(session.get_custom_messages()[told:]), time.monotonic()
            told += len(new)
            curve.extend(history_row(row["step"], row["epoch"], "train", row["loss"], row["lr"]) for row in new)
            pause = max(OBSERVED_S, OBSERVED_SHARE * (now - began))
            if new and (now - observed > pause or new[-1]["step"] == new[-1]["total"]):
                observed, history = now, rows_to_table(curve, HISTORY_SCHEMA)
                drawn = metadata.drawn(lambda path: plot_history(history, path), "Loss by step, so far")
                told_of = {"training curve": drawn, **new[-1]}
                context.log_event(
                    dg.AssetObservation(context.asset_key, partition=context.partition_key, metadata=told_of)
                )
            return new

        yield session.get_bootstrap_env_vars(), events


def _failure(out: Path, status: int) -> SkyScriptError:
    """What the process that failed first left word of, or else how the run ended."""
    with contextlib.suppress(OSError, ValueError):
        kind, message = json.loads((out / ERROR).read_text(encoding="utf-8"))
        return getattr(errors, kind, SkyScriptError)(message)
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    lines = (out / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    last = "; ".join(" ".join(line.split()) for line in lines if any(map(str.isalpha, line)))[-500:]
    return SkyScriptError(f"training ended {how}; its state is kept, run again to go on. It said last: {last}")
