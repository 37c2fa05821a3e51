"""A trained model on disk: what differs from its base, what it was trained on, and how the loss went.

`model.json` says which base, seed and recipe; `model.safetensors` holds the tensors that training changed;
`history.parquet` the losses.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.errors import CorruptInputError, DigestMismatchError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.files import replacing, write_json
from skyscript_assets.lib.settings.models import (
    AlignRecipe,
    ClipRecipe,
    JointBase,
    OpenClipBase,
    PackagedWeights,
    TrainedModel,
)
from skyscript_assets.lib.tables import fields, rows_to_table, write_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.weights import file_sha256, reason
from skyscript_assets.lib.training.optimisation import unmoved_from
from skyscript_assets.lib.training.selection import counts_of

FORMAT = 1
"""Version of `model.json`."""

HISTORY_SCHEMA = pa.schema(
    [("step", pa.int64()), ("epoch", pa.int32()), ("split", pa.string()), *fields(pa.float64(), "loss", "lr")]
)
"""Columns of `history.parquet`. `step` counts optimiser steps done; a `train` row is a batch, a `val` row an epoch."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run did.

    Attributes:
        captions: Distinct captions of the training pairs.
        cells: Grid cells that they lie in.
        epochs: Epochs begun.
        best_epoch: Epoch (from 1) whose weights were kept; None where nothing was trained.
        first_loss: Training loss of the first batch.
        train_loss: Mean training loss of the last epoch.
        val_loss: Validation loss of the weights kept, before interpolation; None without validation pairs.
        logit_scale: Factor of the cosines in the end (CLIP: at most 100).
        unmoved_from: Absolute value from which weights were too large for the learning rate to move in float32.
    """

    recipe: str
    pairs: int = 0
    captions: int = 0
    cells: int = 0
    val_pairs: int = 0
    steps: int = 0
    epochs: int = 0
    best_epoch: int | None = None
    first_loss: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    logit_scale: float | None = None
    unmoved_from: float | None = None

    @classmethod
    def of(
        cls,
        recipe: AlignRecipe | ClipRecipe,
        train: pa.Table,
        val: pa.Table,
        history: Sequence[Mapping[str, Any]],
        best_epoch: int,
        model: ClipModel,
    ) -> Self:
        """What a run did, by its history, which ends with its last epoch."""
        batches = [row for row in history if row["split"] == "train"]
        epochs = int(history[-1]["epoch"])
        return cls(
            recipe=recipe.kind,
            **counts_of(train),
            val_pairs=len(val),
            steps=len(batches),
            epochs=epochs,
            best_epoch=best_epoch,
            first_loss=batches[0]["loss"],
            train_loss=float(np.mean([row["loss"] for row in batches if row["epoch"] == epochs])),
            val_loss={row["epoch"]: row["loss"] for row in history if row["split"] == "val"}.get(best_epoch),
            logit_scale=model.logit_scale,
            unmoved_from=unmoved_from(recipe.lr),
        )


def history_row(step: int, epoch: int, split: str, loss: float, lr: float) -> dict[str, Any]:
    """One row of `history.parquet`."""
    return {"step": step, "epoch": epoch, "split": split, "loss": loss, "lr": lr}


def save_checkpoint(
    model: ClipModel,
    base_digest: str,
    names: Iterable[str],
    settings: TrainedModel,
    summary: TrainingSummary,
    history: Sequence[Mapping[str, Any]],
    out: Path,
) -> None:
    """Write `model.safetensors`, `history.parquet` and, last, `model.json`.

    `base_digest` is that of the base before training, `names` are state entries of the network that training changed.
    """
    from safetensors.torch import save_file

    state = model.network.state_dict()
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(names)}
    with replacing(out / "model.safetensors") as temporary:
        save_file(tensors, temporary)
    write_table(out / "history.parquet", rows_to_table(history, HISTORY_SCHEMA))
    record = {
        "format": FORMAT,
        "title": settings.title,
        "base": settings.base,
        "base_digest": base_digest,
        "seed": model.seed,
        "recipe": settings.recipe.model_dump(mode="json"),
        "share": settings.share,
        "sources": settings.sources,
        "regions": settings.regions,
        "most_pairs": settings.pairs,
        "tensors": sorted(tensors),
        "sha256": file_sha256(out / "model.safetensors"),
        "training": asdict(summary),
    }
    write_json(out / "model.json", record)


def write_untrained(base: ClipModel, settings: TrainedModel, out: Path) -> TrainingSummary:
    """The checkpoint of a recipe that changes no weights: no tensors, no history, the base as it is."""
    summary = TrainingSummary(recipe=settings.recipe.kind)
    save_checkpoint(base, base.digest, (), settings, summary, (), out)
    return summary


def load_checkpoint(
    folder: Path, base: JointBase | OpenClipBase, weights: Mapping[str, PackagedWeights], file: Path | None = None
) -> ClipModel:
    """The model of a `trained_checkpoint` folder: its base, with the tensors that training changed.

    `file` is what `weights_file` found of the base.

    Raises:
        UpstreamMissingError: the folder holds no checkpoint.
        CorruptInputError: a file is broken, or its tensors do not fit.
        OutputSchemaError: a later version wrote it.
        DigestMismatchError: the weights or the base are not the ones it was made with.
        PretrainedWeightsError: the base cannot be loaded.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    record = _read_record(folder)
    path = folder / "model.safetensors"
    if file_sha256(path) != record["sha256"]:
        raise DigestMismatchError(f"{path} is not the file that model.json describes; train the model again")
    model = load_base(base, weights, int(record["seed"]), file)
    if model.digest != record["base_digest"]:
        raise DigestMismatchError(
            f"{folder}: trained from another base than {record['base']!r} now is "
            f"({record['base_digest'][:12]}, now {model.digest[:12]}); train the model again"
        )
    try:
        tensors = load_file(path)
        found = model.network.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise CorruptInputError(f"{path}: does not fit the base ({reason(error)}); train the model again") from error
    if found.unexpected_keys:
        raise CorruptInputError(f"{path}: the base has no {found.unexpected_keys[0]}; train the model again")
    model.weights_changed()
    return model


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / "model.json"
    if not path.is_file() or not (folder / "model.safetensors").is_file():
        raise UpstreamMissingError(f"{folder} holds no checkpoint: materialize trained_checkpoint first")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise CorruptInputError(f"{path}: is not a checkpoint's record; train the model again") from error
    if version != FORMAT:
        raise OutputSchemaError(f"{path}: format {version} is not {FORMAT}, which this version reads")
    return dict(record)


def plot_history(history: pa.Table, png: Path) -> None:
    """Draw a training curve, rows of `history.parquet`: loss of batches and of validation, over steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for split, style in (("train", {"linewidth": 0.8, "alpha": 0.7}), ("val", {"marker": "o", "markersize": 3})):
        rows = history.filter(pc.equal(history["split"], split))
        if rows.num_rows:
            axes.plot(rows["step"].to_numpy(), rows["loss"].to_numpy(), label=split, **style)
    if history.num_rows:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "nothing was trained", ha="center", transform=axes.transAxes)
    axes.set(xlabel="optimiser steps", ylabel="contrastive loss")
    axes.spines[["top", "right"]].set_visible(False)
    # Without the software tag, which names matplotlib's version, equal histories give equal files.
    figure.savefig(png, dpi=120, format="png", metadata={"Software": None})
