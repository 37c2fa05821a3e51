"""Alignment of two locked towers: their projections are trained on features that were computed once.

This is not the paper's continual pre-training (that is `train`): the towers never change, the learning rate is its own.
It makes a model of two towers that never met within seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.errors import CorruptInputError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.pairs.features import read_chip_features
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.models import AlignRecipe, TrainedModel
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.training import optimisation
from skyscript_assets.lib.training.batches import deal_batches
from skyscript_assets.lib.training.checkpoint import TrainingSummary, history_row, save_checkpoint
from skyscript_assets.lib.training.losses import loss_of
from skyscript_assets.lib.training.selection import select_pairs
from skyscript_assets.lib.training.texts import Texts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class _Split:
    """A split: image features (N, views, D), what is said of each pair, and the texts' features (T, D)."""

    images: NDArray[np.float16]
    said: Texts
    texts: NDArray[np.float32]


def train_alignment(
    manifest_path: Path,
    features: Mapping[tuple[str, str], Path],
    base: ClipModel,
    settings: TrainedModel,
    out: Path,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train the projections and the logit scale, and write the checkpoint.

    AdamW, linear warm-up and cosine; each epoch takes one stored view of every chip and one of its texts, both at
    random. After each epoch the loss on the validation pairs is taken (plain views, each pair's first text, the same
    batches each time); the weights of the epoch with the lowest one are kept, or the last where there are no validation
    pairs, and mixed with those of the start by `interpolation` (WiSE-FT, arXiv 2109.01903, section 3). The control
    `shuffle_captions` deals the training captions out anew among the training pairs, once, and leaves all else as it
    is, validation included.

    `features` are `chip_features` folders by (region, source). `base` was loaded with the model's seed; its projections
    are trained in place.

    Raises:
        TooLittleDataError: fewer pairs than a batch, or a single caption or cell.
        UpstreamMissingError: the manifest or the features of a (region, source) are missing.
        OutputSchemaError: the features are of another tower than the base's.
        DivergedError: the loss or a gradient is no finite number.
        SettingsError: the recipe is another one, or the base has no projections of its own to train.
    """
    recipe = settings.recipe
    if not isinstance(recipe, AlignRecipe):
        raise SettingsError(f"{settings.title}: recipe {recipe.kind!r} is not an alignment")
    if not (base.image_head.names and base.text_head.names):
        raise SettingsError(
            f"models.yaml: base {settings.base!r} has no linear projections, so it cannot be aligned; use recipe clip"
        )
    train, val = select_pairs(manifest_path, settings, recipe.columns, recipe.batch_size)
    told = train
    if recipe.shuffle_captions:
        told = told.take(np.random.default_rng([settings.seed, 0]).permutation(len(train)))
    images = _images(pa.concat_tables([train, val]), features, base.tower_digest)
    said = (Texts(told, recipe), Texts(val, recipe))
    splits = [
        _Split(of_split, captions, base.text_features(captions.texts))
        for of_split, captions in zip(np.split(images, [len(train)]), said, strict=True)
    ]
    trainer = _Trainer(base, recipe, settings.seed, *splits)
    base_digest = base.digest
    best_epoch, history = trainer.run(progress)
    base.weights_changed()
    summary = TrainingSummary.of(recipe, train, val, history, best_epoch, base)
    save_checkpoint(base, base_digest, trainer.parameters, settings, summary, history, out)
    return summary


def _images(pairs: pa.Table, folders: Mapping[tuple[str, str], Path], tower: str) -> NDArray[np.float16]:
    """Features of the pairs' chips, (N, views, D), with the views that all partitions have."""
    present = pairs.group_by(["region", "source"]).aggregate([])
    known = {}
    for key in sorted(zip(present["region"].to_pylist(), present["source"].to_pylist(), strict=True)):
        if key not in folders:
            raise UpstreamMissingError(f"chip_features {'/'.join(key)} does not exist, but the manifest has its pairs")
        known[key] = read_chip_features(folders[key], tower)
    _, views, dim = np.min([found.shape for _, found in known.values()], axis=0)
    images = np.empty((len(pairs), views, dim), np.float16)
    for (region, source), (known_ids, found) in known.items():
        of_key = pc.and_(pc.equal(pairs["region"], region), pc.equal(pairs["source"], source)).to_numpy()
        chip_ids = pairs["chip_id"].filter(of_key)
        rows = pc.index_in(chip_ids, pa.array(known_ids, pa.string()))
        if rows.null_count:
            chip_id = chip_ids.filter(pc.is_null(rows))[0]
            raise CorruptInputError(f"chip_features {region}/{source} lacks {chip_id}; materialize chip_features again")
        images[of_key] = found[rows.to_numpy(), :views]
    return images


class _Trainer:
    """The loop over epochs; what it changes are `parameters` of the base's network."""

    def __init__(self, base: ClipModel, recipe: AlignRecipe, seed: int, train: _Split, val: _Split) -> None:
        from open_clip_train.scheduler import cosine_lr

        names = {*base.image_head.names, *(() if recipe.lock_text else base.text_head.names), "logit_scale"}
        self.parameters = {name: p for name, p in base.network.named_parameters() if name in names}
        self.steps_per_epoch = len(train.images) // recipe.batch_size
        self._base, self._recipe, self._seed = base, recipe, seed
        self._train, self._val = train, val
        self._loss_of = loss_of(recipe.loss)
        self._optimiser = optimisation.adamw(self.parameters, recipe.lr, recipe.weight_decay)
        total = self.steps_per_epoch * recipe.epochs
        self._schedule = cosine_lr(self._optimiser, recipe.lr, recipe.warmup_steps, total)
        # The same batches after every epoch, so that the losses compare.
        size = min(recipe.batch_size, len(val.images))
        self._val_batches = deal_batches(val.said.codes, size, np.random.default_rng(0)) if size > 1 else None

    def run(self, progress: Progress) -> tuple[int, list[dict[str, Any]]]:
        """All epochs; ends with the weights of the best one, whose number (from 1) is returned with the history."""
        history: list[dict[str, Any]] = []
        best_loss, best_epoch, best = np.inf, self._recipe.epochs, None
        start = {name: p.detach().clone() for name, p in self.parameters.items()}
        for epoch in range(1, self._recipe.epochs + 1):
            self._run_epoch(epoch, history, progress)
            if self._val_batches is None:
                continue
            loss = self._val_loss(self._val_batches)
            history.append(history_row(epoch * self.steps_per_epoch, epoch, "val", loss, history[-1]["lr"]))
            if loss < best_loss:
                best_loss, best_epoch = loss, epoch
                best = {name: p.detach().clone() for name, p in self.parameters.items()}
        optimisation.interpolate(start, best or self.parameters, self.parameters, self._recipe.interpolation)
        return best_epoch, history

    def _run_epoch(self, epoch: int, history: list[dict[str, Any]], progress: Progress) -> None:
        rng = np.random.default_rng([self._seed, epoch])
        pairs, views, _ = self._train.images.shape
        view: IntArray = rng.integers(views, size=(pairs,))
        batches = deal_batches(self._train.said.codes, self._recipe.batch_size, rng)
        for step, batch in enumerate(batches, start=(epoch - 1) * self.steps_per_epoch):
            lr = self._schedule(step)
            loss = self._loss(self._train, batch, view[batch], self._train.said.draw(batch, rng))
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            total = self.steps_per_epoch * self._recipe.epochs
            norm = float(optimisation.gradient_norm(self.parameters.values()))
            optimisation.refuse_divergence(loss.item(), norm, f"step {step + 1} of {total}, lr {lr:g}")
            self._optimiser.step()
            optimisation.bound_logit_scale(self._base.network)
            history.append(history_row(step + 1, epoch, "train", loss.item(), lr))
            progress(step + 1, total, "steps")

    def _loss(self, split: _Split, batch: IntArray, views: IntArray | int, rows: IntArray) -> Tensor:
        places, matches = split.said.matching(batch, rows)
        image = self._base.image_head(self._tensor(split.images[batch, views]))
        text = self._base.text_head(self._tensor(split.texts[rows[places]]))
        known = None if matches is None else self._tensor(matches)
        return self._loss_of(image, text, self._base.network.logit_scale, known)

    def _val_loss(self, batches: list[IntArray]) -> float:
        """Mean loss of plain views and each pair's first text."""
        import torch

        with torch.no_grad():
            losses = [self._loss(self._val, batch, 0, self._val.said.first(batch)).item() for batch in batches]
        return float(np.mean(losses))

    def _tensor(self, features: NDArray[np.float16] | NDArray[np.float32]) -> torch.Tensor:
        import torch

        return torch.from_numpy(features.astype(np.float32)).to(self._base.device)
