"""One process of a training run; Dagster is not needed.

    python -m skyscript_assets.training.worker job.json
    torchrun --nproc-per-node 4 -m skyscript_assets.training.worker job.json
    srun torchrun --nnodes $SLURM_NNODES --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m ...

The job is a file that `trained_checkpoint` leaves in its staging folder, or one written by hand. At SIGTERM or SIGINT
all processes end after the same step, the first of them writes the state, and the status is 143 or 130; the same
command goes on from there. On several hosts the job's folders have to be seen by all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from skyscript_assets.lib.errors import OutputBusyError, SkyScriptError, StoppedError
from skyscript_assets.lib.settings.base import read_yaml
from skyscript_assets.lib.threads import cores, limit_libraries
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training.pretrain import Listener, TrainingEvent, train_clip
from skyscript_assets.lib.training.ranks import joined
from skyscript_assets.training.job import EVENTS, Job, tell_error

EVERY_S = 1.0
"""Seconds between two events that are passed on."""

_log = logging.getLogger("training")


def main() -> None:
    """Train the job that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="file that says what to train")
    parser.add_argument("--attended", action="store_true", help="stop when standard input ends: its writer is gone")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    rank = int(os.environ.get("RANK", 0))
    try:
        job = read_yaml(options.job, Job)
    except SkyScriptError as error:
        sys.exit(str(error))
    try:
        _run(job, _Signals(attended=options.attended), rank)
    except StoppedError as stopped:
        sys.exit(128 + stopped.signum)
    except Exception as error:
        tell_error(job.out, error, rank)
        if isinstance(error, SkyScriptError):
            sys.exit(str(error))
        raise


def _run(job: Job, signals: _Signals, rank: int) -> None:
    limit_libraries()
    job.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as open_until_the_end:
        if rank == 0:  # one that was told to end may still be writing its state
            folder = os.open(job.out, os.O_RDONLY)
            open_until_the_end.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        ranks = open_until_the_end.enter_context(joined())
        if name := _gpu():
            open_until_the_end.enter_context(alone_on(name))
        listener = open_until_the_end.enter_context(_listeners(job)) if rank == 0 else lambda _: None
        train_clip(
            job.manifest,
            {_pair(key): folder for key, folder in job.chips.items()},
            load_base(job.base, job.weights, job.model.seed, job.file),
            job.model,
            job.out,
            progress=signals.check,
            threads=max(1, min(16, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))),
            machine=job.machine,
            ranks=ranks,
            listener=listener,
        )


def _pair(key: str) -> tuple[str, str]:
    region, _, source = key.partition("/")
    return region, source


class _Signals:
    """SIGTERM, SIGINT and the end of who attends: heard at once, obeyed after the step."""

    def __init__(self, *, attended: bool) -> None:
        self._signum = 0
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._heard)
        if attended:
            threading.Thread(target=self._attend, daemon=True).start()

    def _heard(self, signum: int, _: object) -> None:
        self._signum = signum

    def _attend(self) -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would be held when Python ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    def check(self, done: int, total: int, unit: str) -> None:  # noqa: ARG002
        """The listener of progress that ends the run."""
        if self._signum:
            raise StoppedError(self._signum)


def _gpu() -> str | None:
    import torch

    return str(torch.cuda.get_device_properties().uuid) if torch.cuda.is_available() else None


@contextlib.contextmanager
def alone_on(device: str) -> Iterator[None]:
    """Hold a device of this host against other runs.

    Raises:
        OutputBusyError: another run holds it.
    """
    path = Path(tempfile.gettempdir(), f"skyscript-{device}.lock")
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"GPU {device} is held by another training run ({path})"
            raise OutputBusyError(f"{told}: wait for it, or name others (plant.yaml: training.devices)") from None
        yield


@contextlib.contextmanager
def _listeners(job: Job) -> Iterator[Listener]:
    """Everyone who hears how the run stands: log, JSON lines, TensorBoard and Dagster where they are there."""
    with contextlib.ExitStack() as stack:
        heard: list[Listener] = [_logged, _lines(stack.enter_context((job.out / EVENTS).open("a", encoding="utf-8")))]
        if job.machine.tensorboard:
            heard.append(stack.enter_context(_tensorboard(Path(job.machine.tensorboard))))
        if "DAGSTER_PIPES_CONTEXT" in os.environ:
            heard.append(stack.enter_context(_pipes()))
        last = 0.0

        def listener(event: TrainingEvent) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= EVERY_S or event.step == event.total:
                last = now
                for hear in heard:
                    hear(event)

        yield listener


def _logged(event: TrainingEvent) -> None:
    _log.info(
        "step %d of %d, epoch %d: loss %.4f, lr %.3g, %.1f samples/s, %.0f s left, %.0f MB", *asdict(event).values()
    )


def _lines(file: IO[str]) -> Listener:
    def write(event: TrainingEvent) -> None:
        file.write(json.dumps(asdict(event)) + "\n")
        file.flush()

    return write


@contextlib.contextmanager
def _tensorboard(folder: Path) -> Iterator[Listener]:
    if importlib.util.find_spec("tensorboard") is None:
        _log.warning("plant.yaml: training.tensorboard: the package tensorboard is not installed")
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    def write(event: TrainingEvent) -> None:
        for name, value in asdict(event).items():
            writer.add_scalar(name, value, event.step)

    with SummaryWriter(folder) as writer:
        yield write


@contextlib.contextmanager
def _pipes() -> Iterator[Listener]:
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield lambda event: pipes.report_custom_message(asdict(event))


if __name__ == "__main__":
    main()
