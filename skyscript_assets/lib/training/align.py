"""Alignment of two locked towers: their projections are trained on features that were computed once.

This is not the paper's continual pre-training (that is `train`): the towers never change, the learning rate is its own.
It makes a model of two towers that never met within seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
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
from skyscript_assets.lib.training.batches import codes_of, deal_batches
from skyscript_assets.lib.training.checkpoint import TrainingSummary, history_row, save_checkpoint
from skyscript_assets.lib.training.optimisation import (
    adamw,
    bound_logit_scale,
    contrastive_loss,
    gradient_norm,
    matching_loss,
    refuse_divergence,
)
from skyscript_assets.lib.training.selection import TrainingPairs, select_pairs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

INITIAL_BIAS = -5.0
"""Start of the sigmoid loss's bias: about one pair in 150 matches (SigLIP starts at -10 for batches of 32,000)."""


class _Captions:
    """Whole captions: each pair has one text of its own in a batch.

    Attributes:
        texts: All distinct texts, sorted.
        titles: Code of each pair's first caption (N,); equal captions have equal codes.
    """

    def __init__(self, pairs: TrainingPairs, recipe: AlignRecipe) -> None:
        captions = [pairs.captions(column, recipe.prefix) for column in _columns(recipe)]
        texts, rows = np.unique(np.array(captions, dtype=object), return_inverse=True)
        self.texts: list[str] = texts.tolist()
        self._rows = rows.reshape(len(captions), len(pairs)).T
        self.titles: IntArray = self._rows[:, 0]

    def draw(self, batch: IntArray, rng: np.random.Generator) -> tuple[IntArray, None]:
        """One of each pair's captions: its text row, and no matches but its own."""
        column: IntArray = rng.integers(self._rows.shape[1], size=(len(batch),))
        return self._rows[batch, column], None

    def first(self, batch: IntArray) -> tuple[IntArray, None]:
        """Each pair's first caption."""
        return self._rows[batch, 0], None


class _Statements:
    """What the captions state of each pair: a text may be true of many pairs.

    Attributes:
        texts: All distinct texts, sorted.
        titles: Code of each pair's caption (N,).
    """

    def __init__(self, pairs: TrainingPairs, recipe: AlignRecipe) -> None:
        from scipy.sparse import csr_array

        stated = pairs.table["statements"].combine_chunks()
        columns = [pc.struct_field(stated.flatten(), name) for name in ("clause", "main", "kind")]
        words = sorted({text for column in columns for text in column.unique().to_pylist()})
        self.texts = [recipe.prefix + text for text in words]
        rows = np.column_stack([pc.index_in(column, pa.array(words, pa.string())).to_numpy() for column in columns])
        forms = [list(dict.fromkeys(row)) for row in rows.tolist()]
        starts = np.cumsum([0, *pc.list_value_length(stated).to_pylist()]).tolist()
        # For each pair and object the rows of its texts, the whole clause first, each once.
        self._forms = [forms[start:end] for start, end in pairwise(starts)]
        true = [sorted({row for forms in objects for row in forms}) for objects in self._forms]
        ends = np.cumsum([0, *map(len, true)])
        texts = np.array([row for rows in true for row in rows], np.int64)
        shape = (len(pairs), max(1, len(words)))
        self._true = csr_array((np.ones(len(texts), np.float32), texts, ends), shape=shape)
        self.titles: IntArray = codes_of(pairs.captions("title_multi_objects", ""))

    def draw(self, batch: IntArray, rng: np.random.Generator) -> tuple[IntArray, NDArray[np.float32]]:
        """One statement of each pair, each text once, and which texts are true of which pairs (N, M)."""
        rows = []
        for pair in batch:
            forms = self._forms[pair][rng.integers(len(self._forms[pair]))]
            rows.append(forms[rng.integers(len(forms))])
        return self._matched(batch, rows)

    def first(self, batch: IntArray) -> tuple[IntArray, NDArray[np.float32]]:
        """The focus object's whole clause of each pair, as in `draw`."""
        return self._matched(batch, [self._forms[pair][0][0] for pair in batch])

    def _matched(self, batch: IntArray, rows: list[int]) -> tuple[IntArray, NDArray[np.float32]]:
        texts = np.unique(np.array(rows, np.int64))
        return texts, self._true[batch][:, texts].toarray()


@dataclass(frozen=True)
class _Split:
    """A split: image features (N, views, D), what is said of each pair, and the texts' features (T, D)."""

    images: NDArray[np.float16]
    said: _Captions | _Statements
    texts: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def train_alignment(
    manifest_path: Path,
    features: Mapping[tuple[str, str], Path],
    base: ClipModel,
    settings: TrainedModel,
    out: Path,
    progress: Progress = silent,
) -> TrainingSummary:
    """Train the projections and the logit scale, and write the checkpoint.

    AdamW, linear warm-up and cosine; each epoch takes one stored view of every chip at random and deals captions so
    that equal ones seldom meet (`deal_batches`). Whole captions are trained with open_clip's ClipLoss; statements, each
    true of many chips, with the pairwise sigmoid loss (`matching_loss`). After each epoch the loss on the validation
    pairs is taken (plain views, the first caption or statement, the same batches each time); the weights of the epoch
    with the lowest one are kept, or the last where there are no validation pairs. The control `shuffle_captions` deals
    the training captions out anew among the training pairs, once, and leaves all else as it is, validation included.

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
    train, val = select_pairs(manifest_path, settings, ["title", *_columns(recipe)], recipe.batch_size)
    told = train
    if recipe.shuffle_captions:
        dealt = np.random.default_rng([settings.seed, 0]).permutation(len(train))
        told = replace(train, table=train.table.take(dealt))
    kind = _Statements if recipe.column == "statements" else _Captions
    images = _images(pa.concat_tables([train.table, val.table]), features, base.tower_digest)
    said = (kind(told, recipe), kind(val, recipe))
    splits = [
        _Split(of_split, captions, base.text_features(captions.texts))
        for of_split, captions in zip(np.split(images, [len(train)]), said, strict=True)
    ]
    trainer = _Trainer(base, recipe, settings.seed, *splits)
    base_digest = base.digest
    best_epoch, history = trainer.run(progress)
    base.weights_changed()
    summary = TrainingSummary.of(recipe.kind, train, val, history, best_epoch, base)
    save_checkpoint(base, base_digest, trainer.parameters, settings, summary, history, out)
    return summary


def _columns(recipe: AlignRecipe) -> tuple[str, ...]:
    """Columns of the training manifest that a recipe trains on."""
    several = {"both": ("title", "title_multi_objects"), "statements": ("title_multi_objects", "statements")}
    return several.get(recipe.column, (recipe.column,))


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
        import torch
        from open_clip_train.scheduler import cosine_lr

        names = {*base.image_head.names, *base.text_head.names, "logit_scale"}
        self.parameters = {name: p for name, p in base.network.named_parameters() if name in names}
        self.steps_per_epoch = len(train) // recipe.batch_size
        self._base, self._recipe, self._seed = base, recipe, seed
        self._train, self._val = train, val
        # Cosines do not depend on the bias, so it is learnt here and not kept.
        self._bias = torch.nn.Parameter(torch.tensor(INITIAL_BIAS, device=base.device))
        self._optimiser = adamw({**self.parameters, "bias": self._bias}, recipe.lr, recipe.weight_decay)
        total = self.steps_per_epoch * recipe.epochs
        self._schedule = cosine_lr(self._optimiser, recipe.lr, recipe.warmup_steps, total)
        # The same batches after every epoch, so that the losses compare.
        size = min(recipe.batch_size, len(val))
        self._val_batches = deal_batches(val.said.titles, size, np.random.default_rng(0)) if size > 1 else None

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
        view: IntArray = rng.integers(views, size=(pairs,))
        batches = deal_batches(self._train.said.titles, self._recipe.batch_size, rng)
        for step, batch in enumerate(batches, start=(epoch - 1) * self.steps_per_epoch):
            lr = self._schedule(step)
            images = self._tensor(self._train.images[batch, view[batch]])
            loss = self._loss(images, self._train.texts, *self._train.said.draw(batch, rng))
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            total = self.steps_per_epoch * self._recipe.epochs
            norm = float(gradient_norm(self.parameters.values()))
            refuse_divergence(loss.item(), norm, f"step {step + 1} of {total}, lr {lr:g}")
            self._optimiser.step()
            bound_logit_scale(self._base.network)
            history.append(history_row(step + 1, epoch, "train", loss.item(), lr))
            progress(step + 1, total, "steps")

    def _loss(
        self, images: Tensor, texts: NDArray[np.float32], rows: IntArray, matches: NDArray[np.float32] | None
    ) -> Tensor:
        image, text = self._base.image_head(images), self._base.text_head(self._tensor(texts[rows]))
        scale = self._base.network.logit_scale
        if matches is None:
            return contrastive_loss(image, text, scale)
        return matching_loss(image, text, self._tensor(matches), scale, self._bias)

    def _val_loss(self, batches: list[IntArray]) -> float:
        """Mean loss of plain views and each pair's first caption or statement."""
        import torch

        with torch.no_grad():
            losses = [
                self._loss(
                    self._tensor(self._val.images[batch, 0]), self._val.texts, *self._val.said.first(batch)
                ).item()
                for batch in batches
            ]
        return float(np.mean(losses))

    def _tensor(self, features: NDArray[np.float16] | NDArray[np.float32]) -> torch.Tensor:
        import torch

        return torch.from_numpy(features.astype(np.float32)).to(self._base.device)
