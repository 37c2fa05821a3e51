"""Continual pre-training by the paper's recipe: open_clip's network and loss, both towers unlocked, on one device.

Paper (SkyScript, training details): AdamW (0.9, 0.98, 1e-6), weight decay 1.0, warm-up and cosine, batch 512, 20
epochs, AMP, its augmentation. The paper spreads a batch over four GPUs; here one device holds it: the loss is the same.
Images are read by place (shard, offset, length), so an epoch is shuffled over all pairs of all regions and sources.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.errors import SettingsError, StoppedError
from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.images import Place, chip_images
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.models import ClipRecipe, TrainedModel
from skyscript_assets.lib.threads import cores
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.views import UInt8Array, augmented_view, decode_image, view_rng
from skyscript_assets.lib.training.batches import codes_of, deal_batches
from skyscript_assets.lib.training.checkpoint import TrainingSummary, history_row, save_checkpoint
from skyscript_assets.lib.training.optimisation import adamw, bound_logit_scale, contrastive_loss, refuse_divergence
from skyscript_assets.lib.training.selection import TrainingPairs, select_pairs

if TYPE_CHECKING:
    from torch import Tensor

MAX_VAL_PAIRS = 5000
"""Pairs the validation loss is taken on after each epoch (the paper sets 5,000 aside)."""

IMAGE_COLUMNS = ("image_shard", "image_offset", "image_length", "image_sha256")

Batch = tuple[int | None, IntArray]
"""Epoch, from 1 (None: the plain views), and numbers of pairs."""

ChipFolders = Mapping[tuple[str, str], Path]
"""Folders of chips by region and source."""

BATCHES_AHEAD = 2
_STATE = "state.pt"


class _Split:
    """The pairs of a split: captions, and images that threads make into views ahead of their use."""

    def __init__(
        self, pairs: TrainingPairs, recipe: ClipRecipe, chips: ChipFolders, base: ClipModel, seed: int, threads: int
    ) -> None:
        self.captions = pairs.captions(recipe.columns[0], recipe.prefix)
        self.codes = codes_of(self.captions)
        self.places = [*map(Place, *(pairs.table[name].to_pylist() for name in ("chip_id", *IMAGE_COLUMNS)))]
        self._boxes = pairs.table["focus_box"].to_pylist()
        self._images, self._base, self._seed = chip_images(lambda *pair: chips[pair]), base, seed
        self._threads, self._ahead = threads, BATCHES_AHEAD * recipe.batch_size

    def view(self, pair: int, epoch: int | None) -> UInt8Array:
        """The pair's image: a draw of the augmentation for this epoch, or the plain view."""
        place = self.places[pair]
        image = decode_image(self._images.read(place), f"{place.shard}: {place.chip_id}")
        if epoch is None:
            return self._base.view(image, self._boxes[pair])
        draw = view_rng(self._seed, place.chip_id, epoch)
        return augmented_view(image, self._boxes[pair], self._base.image_size, draw)

    def batches(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[str], UInt8Array]]:
        """Each batch with its captions and pixels (N, size, size, 3)."""
        asked, given = itertools.tee(batches)
        pairs = ((int(pair), epoch) for epoch, batch in asked for pair in batch)
        views = in_order(lambda pair: self.view(*pair), pairs, threads=self._threads, ahead=self._ahead)
        for epoch, batch in given:
            pixels = np.stack(list(itertools.islice(views, len(batch))))
            yield (epoch, batch), [self.captions[pair] for pair in batch], pixels


def train_clip(
    manifest_path: Path,
    chips: ChipFolders,
    base: ClipModel,
    settings: TrainedModel,
    out: Path,
    progress: Progress = silent,
    threads: int | None = None,
) -> TrainingSummary:
    """Train both towers and write the checkpoint; the weights after the last step are kept, as in the paper.

    The cosine ends with the last step that is taken. A killed run with the same inputs continues from the state it
    wrote last, to the same result: order, augmentation and dropout depend on seed and step alone. One that is asked to
    end writes its state first; one that diverges leaves the state of before.

    Args:
        manifest_path: `manifest.parquet`.
        chips: The folders of chips that the manifest's image shards lie in.
        base: The base; its network is trained in place.
        settings: Settings of the model, with recipe `clip`.
        out: Folder that receives the checkpoint, and the state of an unfinished run.
        progress: Listener; counts optimiser steps.
        threads: Threads that read and augment; default: one for each core, 16 at most.

    Raises:
        TooLittleDataError: fewer pairs than a batch, or a single caption or cell.
        UpstreamMissingError: the manifest or a shard is missing.
        CorruptInputError: a chip cannot be read.
        DivergedError: the loss or a gradient is no finite number.
        SettingsError: the recipe is another one, or the base is no CLIP.
    """
    recipe = settings.recipe
    if not isinstance(recipe, ClipRecipe):
        raise SettingsError(f"{settings.title}: recipe {recipe.kind!r} is not continual pre-training")
    if getattr(base.network, "logit_bias", None) is not None:
        raise SettingsError(f"models.yaml: base {settings.base!r} is a SigLIP; the recipe trains CLIP models")
    train, val = select_pairs(
        manifest_path, settings, [recipe.columns[0], "focus_box", *IMAGE_COLUMNS], recipe.batch_size
    )
    base_digest = base.digest
    places = (recipe, chips, base, settings.seed, threads or min(16, cores()))
    run = _Run(base, recipe, settings.seed, _Split(train, *places), _Split(val, *places), out / _STATE)
    run.resume(_identity(base_digest, settings, run.train))
    history = run.to_the_end(progress)
    base.network.eval()
    base.weights_changed()
    summary = TrainingSummary.of(recipe.kind, train, val, history, history[-1]["epoch"], base)
    save_checkpoint(base, base_digest, base.network.state_dict(), settings, summary, history, out)
    (out / _STATE).unlink(missing_ok=True)
    return summary


def _identity(base_digest: str, settings: TrainedModel, train: _Split) -> str:
    """Digest of what a run depends on: a state of another run is not continued."""
    digest = hashlib.sha256(json.dumps([base_digest, settings.model_dump(mode="json")], sort_keys=True).encode())
    for place, caption in zip(train.places, train.captions, strict=True):
        digest.update(f"{place.chip_id}\x1f{caption}\x1e".encode())
    return digest.hexdigest()


class _Run:
    """One training run: network, optimiser, schedule, and the state that survives a kill."""

    def __init__(
        self, base: ClipModel, recipe: ClipRecipe, seed: int, train: _Split, val: _Split, state_path: Path
    ) -> None:
        import torch
        from open_clip_train.scheduler import cosine_lr

        self._base, self._recipe, self._seed = base, recipe, seed
        self.train, self._val, self._state_path = train, val, state_path
        self._per_epoch = len(train.codes) // recipe.batch_size
        self.total = min(self._per_epoch * recipe.epochs, recipe.max_steps or self._per_epoch * recipe.epochs)
        self._optimiser = adamw(
            dict(base.network.named_parameters()), recipe.lr, recipe.weight_decay, recipe.betas, recipe.eps
        )
        self._schedule = cosine_lr(self._optimiser, recipe.lr, recipe.warmup_steps, self.total)
        self._amp = recipe.precision != "fp32" and base.device.type == "cuda"
        self._dtype = torch.bfloat16 if recipe.precision == "amp_bf16" else torch.float16
        # bfloat16 has the range of float32, so that only float16 needs its gradients scaled.
        self._scaler = torch.amp.GradScaler(base.device.type, enabled=self._amp and self._dtype == torch.float16)
        self._step = 0
        self._history: list[dict[str, Any]] = []
        self._identity = ""

    # ---------------------------------------------------------------------------------------------------------- state

    def resume(self, identity: str) -> None:
        """Continue from the state that a killed run of this identity left, if there is one."""
        import torch

        self._identity = identity
        # torch.save writes zip archives; anything else is no state, and torch's old reader fails on it in many ways.
        if not zipfile.is_zipfile(self._state_path):
            return
        try:
            state = torch.load(self._state_path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
            return
        if state.get("identity") != identity:
            return
        self._base.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self._step, self._history = state["step"], state["history"]

    def _save(self) -> None:
        import torch

        state = {
            "identity": self._identity,
            "network": self._base.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "history": self._history,
        }
        with replacing(self._state_path) as temporary:
            torch.save(state, temporary)

    # ------------------------------------------------------------------------------------------------------- training

    def to_the_end(self, progress: Progress) -> list[dict[str, Any]]:
        """Take the steps that are left and return the whole history."""
        for (epoch, batch), captions, pixels in self.train.batches(self._order()):
            self._take_step(epoch or 0, batch, captions, pixels)
            if self._step % self._per_epoch == 0 or self._step == self.total:
                self._validate(epoch or 0)
            if self._step % self._recipe.checkpoint_steps == 0 and self._step < self.total:
                self._save()
            try:
                progress(self._step, self.total, "steps")
            except StoppedError:
                self._save()
                raise
        return self._history

    def _order(self) -> Iterator[Batch]:
        """(epoch from 1, pairs) of every step that is left."""
        first = self._step // self._per_epoch
        left = itertools.chain.from_iterable(self._epoch(epoch + 1) for epoch in range(first, self._recipe.epochs))
        return itertools.islice(left, self._step - first * self._per_epoch, self.total - first * self._per_epoch)

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        batches = deal_batches(self.train.codes, self._recipe.batch_size, np.random.default_rng([self._seed, epoch]))
        return ((epoch, batch) for batch in batches)

    def _take_step(self, epoch: int, batch: IntArray, captions: list[str], pixels: UInt8Array) -> None:
        import torch

        network, device = self._base.network, self._base.device
        lr = self._schedule(self._step)
        network.train()
        tokens = self._base.tokens(captions)
        # Dropout and stochastic depth draw from a seed of their own at each step: a continued run draws the same.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(int(unit_hash("dropout", self._seed, self._step) * 2**53))
            loss = self._loss(self._base.pixels(pixels), tokens)
        self._optimiser.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        samples = ", ".join(self.train.places[pair].chip_id for pair in batch[:3])
        where = f"step {self._step + 1} of {self.total}, lr {lr:g}, samples such as {samples}"
        # Scaled gradients of float16 may overflow: the scaler leaves such a step out and goes on.
        refuse_divergence(loss.item(), () if self._scaler.is_enabled() else network.parameters(), where)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        bound_logit_scale(network)
        self._step += 1
        self._history.append(history_row(self._step, epoch, "train", loss.item(), lr))

    def _loss(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        import torch

        network = self._base.network
        with torch.autocast(self._base.device.type, dtype=self._dtype, enabled=self._amp):
            images, texts = network.encode_image(pixels), network.encode_text(tokens)
        # Similarities and softmax in float32: half precision cannot tell the best of many near-equal pairs apart.
        return contrastive_loss(images.float(), texts.float(), network.logit_scale)

    def _validate(self, epoch: int) -> None:
        """Append the mean loss of plain views of the validation pairs, in the same batches each time."""
        import torch

        pairs = min(MAX_VAL_PAIRS, len(self._val.codes))
        size = min(pairs, self._recipe.batch_size)
        if size < 2:
            return
        self._base.network.eval()
        dealt = deal_batches(self._val.codes, size, np.random.default_rng(0))[: pairs // size]
        losses = []
        with torch.no_grad():
            for _, captions, pixels in self._val.batches((None, batch) for batch in dealt):
                losses.append(self._loss(self._base.pixels(pixels), self._base.tokens(captions)).item())
        self._history.append(history_row(self._step, epoch, "val", float(np.mean(losses)), self._history[-1]["lr"]))
