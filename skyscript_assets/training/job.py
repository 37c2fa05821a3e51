"""What the processes of one training run are given, as a file; and how one of them tells why it failed."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from skyscript_assets.lib import errors
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.settings.base import Model
from skyscript_assets.lib.settings.models import Base, PackagedWeights, TrainedModel
from skyscript_assets.lib.settings.plant import TrainingSettings

JOB, ERROR, EVENTS, LOG = "job.json", "error.json", "events.jsonl", "worker.log"
"""Files in the folder of a run that has not ended: the job, the first failure, events, what processes print."""


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


def tell_error(out: Path, error: Exception, rank: int) -> None:
    """Leave word of an error in the folder of the run; of several processes the first one is heard."""
    message = str(error) if isinstance(error, SkyScriptError) else f"rank {rank}: {type(error).__name__}: {error}"
    told = json.dumps({"kind": type(error).__name__, "message": message})
    try:
        with (out / ERROR).open("x", encoding="utf-8") as file:
            file.write(told)
    except FileExistsError:
        return


def told_error(out: Path) -> SkyScriptError | None:
    """The error that a process left word of, as one of its class."""
    try:
        told = json.loads((out / ERROR).read_text(encoding="utf-8"))
        kind, message = getattr(errors, told["kind"], SkyScriptError), str(told["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not (isinstance(kind, type) and issubclass(kind, SkyScriptError)) or kind is errors.CheckFailedError:
        kind = SkyScriptError
    return kind(message)
