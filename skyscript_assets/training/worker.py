"""One process of a training run; Dagster is not needed.

    python -m skyscript_assets.training.worker job.json
    torchrun --nproc-per-node 4 -m skyscript_assets.training.worker job.json    # also by srun, with torchrun's options

The job is what `trained_checkpoint` leaves in its staging folder, or a file written by hand (see `Job`). At SIGTERM or
SIGINT all processes end after the same step, the first one writes the state, and the status is 143 or 130; the same
command goes on from there. On several hosts all of them have to see the job's folders.
"""

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

from dagster_pipes import open_dagster_pipes
from pydantic import Field

from skyscript_assets.lib.errors import OutputBusyError, SkyScriptError, StoppedError
from skyscript_assets.lib.settings.base import Model, read_yaml
from skyscript_assets.lib.settings.models import Base, PackagedWeights, TrainedModel
from skyscript_assets.lib.settings.plant import TrainingSettings
from skyscript_assets.lib.threads import cores, limit_libraries
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training.pretrain import Listener, TrainingEvent, train_clip
from skyscript_assets.lib.training.ranks import joined

ERROR, EVENTS = "error.json", "events.jsonl"
"""Files of a run that has not ended: what failed first, beside the job, and how it stood, beside the checkpoint."""

EVERY_S = 1.0
"""Seconds between two events that are passed on."""

_log = logging.getLogger("training")


class Job(Model):
    """A model to train, and where everything lies."""

    manifest: Path = Field(description="`manifest.parquet`.")
    chips: dict[str, Path] = Field(description="Folders of chips by `region/source`.")
    out: Path = Field(description="Folder that receives the checkpoint.")
    model: TrainedModel = Field(description="Settings of the model.")
    base: Base = Field(description="Settings of its base.")
    weights: dict[str, PackagedWeights] = Field(default_factory=dict, description="Packaged weights by name.")
    file: Path | None = Field(None, description="The base's weights where open_clip does not find them by itself.")
    machine: TrainingSettings = Field(TrainingSettings(), description="What is computed on.")


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


def main() -> None:
    """Train the job that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, help="file that says what to train")
    parser.add_argument("--attended", action="store_true", help="stop when standard input ends: its writer is gone")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    signals, told = _Signals(attended=options.attended), options.job.with_name(ERROR)
    limit_libraries()
    try:
        _train(read_yaml(options.job, Job), signals)
    except StoppedError as stopped:
        sys.exit(128 + stopped.signum)
    except SkyScriptError as error:
        with contextlib.suppress(OSError), told.open("x", encoding="utf-8") as file:  # the first one is heard
            json.dump([type(error).__name__, str(error)], file)
        sys.exit(str(error))


def _train(job: Job, signals: _Signals) -> None:
    import torch

    job.out.mkdir(parents=True, exist_ok=True)
    with joined() as ranks, contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(job)) if ranks.rank == 0 else lambda _: None
        if torch.cuda.is_available():
            stack.enter_context(alone_on(str(torch.cuda.get_device_properties().uuid)))
        train_clip(
            job.manifest,
            {(key.split("/")[0], key.split("/")[-1]): folder for key, folder in job.chips.items()},
            load_base(job.base, job.weights, job.model.seed, job.file),
            job.model,
            job.out,
            signals.check,
            max(1, min(16, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))),
            machine=job.machine,
            ranks=ranks,
            listener=listener,
        )


@contextlib.contextmanager
def alone_on(gpu: str) -> Iterator[None]:
    """Hold a GPU of this host against other runs; raises OutputBusyError where another one holds it."""
    with Path(tempfile.gettempdir(), f"skyscript-{gpu}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told = f"GPU {gpu} is held by another training run ({lock.name})"
            raise OutputBusyError(f"{told}: wait for it, or name others (plant.yaml: training.devices)") from None
        yield


@contextlib.contextmanager
def _listener(job: Job) -> Iterator[Listener]:
    """Who hears how the run stands: the log, JSON lines, and Dagster and TensorBoard where they are there."""
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context((job.out / EVENTS).open("a", encoding="utf-8"))
        fcntl.flock(lines, fcntl.LOCK_EX)  # a run that was told to end may still be writing its state
        pipes = stack.enter_context(open_dagster_pipes()) if "DAGSTER_PIPES_CONTEXT" in os.environ else None
        board, last = None, 0.0
        if job.machine.tensorboard and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            board = stack.enter_context(SummaryWriter(job.machine.tensorboard))

        def hear(event: TrainingEvent) -> None:
            nonlocal last
            if time.monotonic() - last < EVERY_S and event.step < event.total:
                return
            last, figures = time.monotonic(), asdict(event)
            _log.info(", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
            lines.write(json.dumps(figures) + "\n")
            lines.flush()
            if pipes:
                pipes.report_custom_message(figures)
            if board:
                for name, value in figures.items():
                    board.add_scalar(name, value, event.step)

        yield hear


if __name__ == "__main__":
    main()
