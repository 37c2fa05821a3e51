"""Alignment of two locked towers: their projections are trained on features that were computed once.

This is not the paper's continual pre-training (that is `lib.clip.train`): the towers never change, the learning rate is
its own. It makes a model of two towers that never met within seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.clip.checkpoint import TrainingSummary, history_row, save_checkpoint
from skyscript_assets.lib.clip.features import read_chip_features
from skyscript_assets.lib.clip.model import ClipModel
from skyscript_assets.lib.clip.optimisation import adamw, bound_logit_scale, contrastive_loss
from skyscript_assets.lib.clip.pairs import (
    IntArray,
    TrainingPairs,
    codes_of,
    deal_batches,
    require_enough,
    select_pairs,
)
from skyscript_assets.lib.errors import CorruptInputError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import AlignRecipe, TrainedModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PairFolders = Mapping[tuple[str, str], Path]
"""A folder for each (region, source)."""


@dataclass(frozen=True)
class _Split:
    """Features of a split: images (N, views, D), the rows of each pair's captions (N, columns), caption codes (N,)."""

    images: NDArray[np.float16]
    text_rows: IntArray
    codes: IntArray


def train_alignment(
    manifest_path: Path,
    features: PairFolders,
    base: ClipModel,
    settings: TrainedModel,
    out: Path,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train the projections and the logit scale, and write the checkpoint.

    AdamW, linear warm-up and cosine, open_clip's ClipLoss; each epoch takes one stored view of every chip at random and
    deals captions so that equal ones seldom meet (`deal_batches`). After each epoch the loss on the validation pairs is
    taken (plain views, the recipe's first column, the same batches each time); the weights of the epoch with the lowest
    one are kept, or the last where there are no validation pairs. The control `shuffle_captions` deals the training
    captions out anew among the training pairs, once, and leaves all else as it is, validation included.

    Args:
        manifest_path: `manifest.parquet`.
        features: `chip_features` folders by (region, source).
        base: The base, loaded with the model's seed; its projections are trained in place.
        settings: Settings of the model, with recipe `align`.
        out: Folder that receives the checkpoint.
        progress: Listener; counts optimiser steps.

    Raises:
        TooLittleDataError: fewer pairs than a batch, or a single caption or cell.
        UpstreamMissingError: the manifest or the features of a (region, source) are missing.
        OutputSchemaError: the features are of another tower than the base's.
        SettingsError: the recipe is another one, or the base has no projections of its own to train.
    """
    recipe = settings.recipe
    if not isinstance(recipe, AlignRecipe):
        raise SettingsError(f"{settings.title}: recipe {recipe.kind!r} is not an alignment")
    if not (base.image_head.names and base.text_head.names):
        raise SettingsError(
            f"models.yaml: base {settings.base!r} has no linear projections, so it cannot be aligned; use recipe clip"
        )
    train, val = select_pairs(manifest_path, settings, "train"), select_pairs(manifest_path, settings, "val")
    require_enough(train, train.captions("title", ""), recipe.batch_size, settings.title)
    texts, splits = _gather(train, val, features, base, recipe, settings.seed)
    trainer = _Trainer(base, recipe, settings.seed, texts, *splits)
    base_digest = base.digest
    best_epoch, history = trainer.run(progress)
    base.weights_changed()
    steps = trainer.steps_per_epoch * recipe.epochs
    train_losses = [row["loss"] for row in history if row["split"] == "train"]
    val_losses = {row["epoch"]: row["loss"] for row in history if row["split"] == "val"}
    summary = TrainingSummary(
        recipe=recipe.kind,
        pairs=len(train),
        captions=len(set(train.captions("title", ""))),
        cells=train.cells,
        val_pairs=len(val),
        steps=steps,
        epochs=recipe.epochs,
        best_epoch=best_epoch,
        first_loss=train_losses[0],
        train_loss=float(np.mean(train_losses[-trainer.steps_per_epoch :])),
        val_loss=val_losses.get(best_epoch),
        logit_scale=float(base.network.logit_scale.detach().exp()),
    )
    save_checkpoint(base, base_digest, trainer.parameters, settings, summary, history, out)
    return summary


def _gather(
    train: TrainingPairs, val: TrainingPairs, folders: PairFolders, base: ClipModel, recipe: AlignRecipe, seed: int
) -> tuple[NDArray[np.float32], tuple[_Split, _Split]]:
    """Text features of all distinct captions, and both splits."""
    columns = ["title", "title_multi_objects"] if recipe.column == "both" else [recipe.column]
    captions = {
        name: [pairs.captions(column, recipe.prefix) for column in columns]
        for name, pairs in (("train", train), ("val", val))
    }
    distinct = sorted({caption for split in captions.values() for column in split for caption in column})
    row_of = {caption: row for row, caption in enumerate(distinct)}
    known = {}
    for key in sorted({*_keys(train), *_keys(val)}):
        if key not in folders:
            raise UpstreamMissingError(f"chip_features {'/'.join(key)} does not exist, but the manifest has its pairs")
        known[key] = read_chip_features(folders[key], base.tower_digest)
    splits = []
    for name, pairs in (("train", train), ("val", val)):
        rows = np.array([[row_of[c] for c in column] for column in captions[name]], dtype=np.int64).T
        if name == "train" and recipe.shuffle_captions:
            rows = rows[np.random.default_rng([seed, 0]).permutation(len(rows))]
        splits.append(_Split(_images(pairs, known), rows, codes_of(rows[:, 0].tolist()) if len(pairs) else rows))
    return base.text_features(distinct), (splits[0], splits[1])


def _keys(pairs: TrainingPairs) -> list[tuple[str, str]]:
    return list(zip(pairs.table["region"].to_pylist(), pairs.table["source"].to_pylist(), strict=True))


def _images(pairs: TrainingPairs, known: Mapping[tuple[str, str], Any]) -> NDArray[np.float16]:
    """Features of the pairs' chips, (N, views, D), with the views that all partitions have."""
    if not len(pairs):
        return np.empty((0, 1, 1), np.float16)
    views = min(found.features.shape[1] for found in known.values())
    chip_ids = pairs.table["chip_id"].to_pylist()
    keys = _keys(pairs)
    images = np.empty((len(pairs), views, next(iter(known.values())).features.shape[2]), np.float16)
    row_of = {key: {chip_id: row for row, chip_id in enumerate(found.chip_ids)} for key, found in known.items()}
    for i, (key, chip_id) in enumerate(zip(keys, chip_ids, strict=True)):
        row = row_of[key].get(chip_id)
        if row is None:
            raise CorruptInputError(f"chip_features {'/'.join(key)} lacks {chip_id}; materialize chip_features again")
        images[i] = known[key].features[row, :views]
    return images


class _Trainer:
    """The loop over epochs; what it changes are `parameters` of the base's network."""

    def __init__(
        self,
        base: ClipModel,
        recipe: AlignRecipe,
        seed: int,
        texts: NDArray[np.float32],
        train: _Split,
        val: _Split,
    ) -> None:
        import torch
        from open_clip_train.scheduler import cosine_lr

        names = {*base.image_head.names, *base.text_head.names, "logit_scale"}
        self.parameters = {name: p for name, p in base.network.named_parameters() if name in names}
        self.steps_per_epoch = len(train.codes) // recipe.batch_size
        self._base, self._recipe, self._seed = base, recipe, seed
        self._train, self._val = train, val
        self._texts = torch.from_numpy(texts).to(base.device)
        self._optimiser = adamw(self.parameters, recipe.lr, recipe.weight_decay)
        total = self.steps_per_epoch * recipe.epochs
        self._schedule = cosine_lr(self._optimiser, recipe.lr, recipe.warmup_steps, total)
        # The same batches after every epoch, so that the losses compare.
        size = min(recipe.batch_size, len(val.codes))
        self._val_batches = deal_batches(val.codes, size, np.random.default_rng(0)) if size > 1 else None

    def run(self, progress: Progress) -> tuple[int, list[dict[str, Any]]]:
        """All epochs; ends with the weights of the best one, whose number (from 1) is returned with the history."""
        import torch

        history: list[dict[str, Any]] = []
        best_loss, best_epoch, best = np.inf, self._recipe.epochs, None
        for epoch in range(1, self._recipe.epochs + 1):
            self._run_epoch(epoch, history, progress)
            if self._val_batches is None:
                continue
            loss = self._val_loss(self._val_batches)
            history.append(history_row(epoch * self.steps_per_epoch, epoch, "val", loss, history[-1]["lr"]))
            if loss < best_loss:
                best_loss, best_epoch = loss, epoch
                best = {name: p.detach().clone() for name, p in self.parameters.items()}
        if best is not None:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(best[name])
        return best_epoch, history

    def _run_epoch(self, epoch: int, history: list[dict[str, Any]], progress: Progress) -> None:
        rng = np.random.default_rng([self._seed, epoch])
        pairs, views, _ = self._train.images.shape
        view = rng.integers(views, size=pairs)
        column = rng.integers(self._train.text_rows.shape[1], size=pairs)
        batches = deal_batches(self._train.codes, self._recipe.batch_size, rng)
        for step, batch in enumerate(batches, start=(epoch - 1) * self.steps_per_epoch):
            lr = self._schedule(step)
            images = self._tensor(self._train.images[batch, view[batch]])
            loss = self._loss(images, self._train.text_rows[batch, column[batch]])
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            bound_logit_scale(self._base.network)
            history.append(history_row(step + 1, epoch, "train", loss.item(), lr))
            progress(step + 1, self.steps_per_epoch * self._recipe.epochs, "steps")

    def _loss(self, images: Tensor, text_rows: IntArray) -> Tensor:
        import torch

        texts = self._texts[torch.from_numpy(text_rows).to(self._base.device)]
        scale = self._base.network.logit_scale
        return contrastive_loss(self._base.image_head(images), self._base.text_head(texts), scale)

    def _val_loss(self, batches: list[IntArray]) -> float:
        """Mean loss of plain views and the first caption column."""
        import torch

        with torch.no_grad():
            losses = [
                self._loss(self._tensor(self._val.images[batch, 0]), self._val.text_rows[batch, 0]).item()
                for batch in batches
            ]
        return float(np.mean(losses))

    def _tensor(self, features: NDArray[np.float16]) -> torch.Tensor:
        import torch

        return torch.from_numpy(features.astype(np.float32)).to(self._base.device)
