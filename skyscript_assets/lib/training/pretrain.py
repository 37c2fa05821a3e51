"""Continual pre-training by the paper's recipe, open_clip's network and loss, or by what a recipe changes in it.

Paper (SkyScript, training details): AdamW (0.9, 0.98, 1e-6), weight decay 1.0, warm-up and cosine, batch 512, 20
epochs, AMP, its augmentation. A batch is shared out over as many devices as there are, and on each over micro batches:
the loss is that of the whole batch (GradCache, arXiv 2101.06983: features first, then their gradients, then those of
the weights), so that neither changes the result but for rounding.
Images are read by place (shard, offset, length), so an epoch is shuffled over all pairs of all regions and sources.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any

import numpy as np

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.errors import SettingsError, StoppedError
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.models import ClipRecipe, TrainedModel
from skyscript_assets.lib.settings.plant import TrainingSettings
from skyscript_assets.lib.threads import cores
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.training import optimisation
from skyscript_assets.lib.training.batches import deal_batches
from skyscript_assets.lib.training.checkpoint import TrainingSummary, history_row, save_checkpoint
from skyscript_assets.lib.training.loader import IMAGE_COLUMNS, Batch, ChipFolders, Split
from skyscript_assets.lib.training.losses import loss_of
from skyscript_assets.lib.training.ranks import Ranks
from skyscript_assets.lib.training.selection import select_pairs
from skyscript_assets.lib.training.state import States

if TYPE_CHECKING:
    from torch import Tensor

MAX_VAL_PAIRS = 5000
"""Pairs the validation loss is taken on after each epoch (the paper sets 5,000 aside)."""

PAPER_GPUS = 4
"""GPUs over which the paper spread its batches."""

STATES = "states"
"""Folder, in that of the checkpoint, of the states of a run that has not ended."""


@dataclass(frozen=True)
class TrainingEvent:
    """How a run stands.

    Attributes:
        epoch: Epoch, from 1.
        loss: Of the last step's batch.
        lr: Its learning rate.
        samples_per_s: Pairs trained on in a second, since this process began.
        left_s: Seconds left at this rate.
        memory_mb: Peak memory of the first device, or of its process, MB.
    """

    step: int
    total: int
    epoch: int
    loss: float
    lr: float
    samples_per_s: float
    left_s: float
    memory_mb: float


Listener = Callable[[TrainingEvent], None]
"""Called whenever losses were read; has to be quick."""


def train_clip(
    manifest_path: Path,
    chips: ChipFolders,
    base: ClipModel,
    settings: TrainedModel,
    out: Path,
    progress: Progress = silent,
    threads: int | None = None,
    *,
    machine: TrainingSettings | None = None,
    ranks: Ranks | None = None,
    listener: Listener = lambda _: None,
) -> TrainingSummary:
    """Train both towers and write the checkpoint; the weights after the last step are kept, as in the paper.

    Where the recipe locks the text tower, it is used as it is and the image tower alone learns (LiT, arXiv 2111.07991).
    The cosine ends with the last step that is taken. A killed run with the same inputs continues from the state it
    wrote last, to the same result: order, augmentation and dropout depend on seed and step alone. So it does on another
    number of processes, but for rounding, for dropout and for batch norm, which sees what one device holds. A run that
    is asked to end writes its state first; one that diverges leaves the state of before. All processes call this
    alike; the first one writes.

    `base` is trained in place; the image shards of the manifest lie in `chips`. A StoppedError of `progress` ends the
    run in all processes. `threads` read and augment: by default one for each core, 16 at most.

    Raises:
        TooLittleDataError: fewer pairs than a batch, or a single caption or cell.
        UpstreamMissingError: the manifest or a shard is missing.
        CorruptInputError: a chip cannot be read.
        DivergedError: the loss or a gradient is no finite number.
        SettingsError: the recipe is another one, the base is no CLIP, a batch cannot be shared out evenly, or the
            memory of a device does not suffice for what the settings put there at a time.
    """
    recipe, machine, ranks = settings.recipe, machine or TrainingSettings(), ranks or Ranks()
    if not isinstance(recipe, ClipRecipe):
        raise SettingsError(f"{settings.title}: recipe {recipe.kind!r} is not continual pre-training")
    if getattr(base.network, "logit_bias", None) is not None:
        raise SettingsError(f"models.yaml: base {settings.base!r} is a SigLIP; the recipe trains CLIP models")
    ranks.refuse_uneven(f"models.yaml: {settings.title}: batch_size", recipe.batch_size)
    columns = [*recipe.columns, "focus_box", *IMAGE_COLUMNS]
    train, val = select_pairs(manifest_path, settings, columns, recipe.batch_size)
    base_digest, state = base.digest, base.network.state_dict()
    start = {name: tensor.clone() for name, tensor in state.items()} if recipe.interpolation < 1 else {}
    places = (recipe, chips, base, settings.seed, threads or min(16, cores()), ranks)
    split = Split(train, *places)
    states = States(out / STATES, _identity(base_digest, settings, split))
    run = _Run(base, recipe, settings.seed, split, Split(val, *places), states, machine, ranks)
    history = run.to_the_end(progress, listener)
    optimisation.interpolate(start, state, state, recipe.interpolation)
    base.network.eval()
    base.weights_changed()
    summary = TrainingSummary.of(recipe, train, val, history, history[-1]["epoch"], base)
    if ranks.rank == 0:
        save_checkpoint(base, base_digest, base.network.state_dict(), settings, summary, history, out)
        states.remove()
    return summary


def _identity(base_digest: str, settings: TrainedModel, train: Split) -> str:
    """Digest of what a run depends on: a state of another run is not continued."""
    digest = hashlib.sha256(json.dumps([base_digest, settings.model_dump(mode="json")], sort_keys=True).encode())
    for chip_id, row in zip(
        train.rows["chip_id"].to_pylist(), train.said.first(np.arange(len(train.rows))), strict=True
    ):
        digest.update(f"{chip_id}\x1f{train.said.texts[row]}\x1e".encode())
    return digest.hexdigest()


def read_every(device: Any) -> int:
    """Steps after which losses are read: on a GPU to read one waits for all that was asked of it, on a CPU nothing."""
    return 10 if device.type == "cuda" else 1


def _towers(network: Any) -> Any:
    """A module of the network whose outputs are what a loss is taken of: embeddings and the log of the scale."""
    from torch import nn

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            # Similarities and softmax in float32: half precision cannot tell the best of near-equal pairs apart.
            images, texts = network.encode_image(pixels).float(), network.encode_text(ids).float()
            return images, texts, network.logit_scale.clone()

    return Towers()


class _Run:
    """One training run: network, optimiser, schedule, and the state that survives a kill."""

    def __init__(
        self,
        base: ClipModel,
        recipe: ClipRecipe,
        seed: int,
        train: Split,
        val: Split,
        states: States,
        machine: TrainingSettings,
        ranks: Ranks,
    ) -> None:
        import torch
        from open_clip_train.scheduler import cosine_lr

        self._base, self._recipe, self._seed = base, recipe, seed
        self._train, self._val, self._states = train, val, states
        self._machine, self._ranks = machine, ranks
        self._loss_of = loss_of(recipe.loss)
        self._per_epoch = len(train.rows) // recipe.batch_size
        self.total = min(self._per_epoch * recipe.epochs, recipe.max_steps or self._per_epoch * recipe.epochs)
        device = base.device
        self._read_every = read_every(device)
        constants = (recipe.lr, recipe.weight_decay, recipe.betas, recipe.eps)
        for name, parameter in base.network.named_parameters():
            parameter.requires_grad_(not recipe.lock_text or name.startswith("visual.") or name == "logit_scale")
        learnt = {name: parameter for name, parameter in base.network.named_parameters() if parameter.requires_grad}
        self._optimiser = optimisation.adamw(learnt, *constants, fused=self._read_every > 1)
        self._schedule = cosine_lr(self._optimiser, recipe.lr, recipe.warmup_steps, self.total)
        self._amp = recipe.precision != "fp32" and device.type == "cuda"
        self._dtype = torch.bfloat16 if recipe.precision == "amp_bf16" else torch.float16
        # bfloat16 has the range of float32, so that only float16 needs its gradients scaled.
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._amp and self._dtype == torch.float16)
        self._bad = torch.zeros((), dtype=torch.bool, device=device)
        self._step = 0
        self._unread: list[tuple[int, int, float, IntArray, Tensor, Tensor]] = []
        self._history: list[dict[str, Any]] = []
        if machine.gradient_checkpointing:
            base.network.set_grad_checkpointing()
        self._resume()
        self._alone = _towers(base.network)
        self._towers = ranks.together(self._alone)
        self._began, self._first = time.monotonic(), self._step

    def _resume(self) -> None:
        """Continue from the state that a killed run left, if there is one."""
        if (state := self._states.last()) is None:
            return
        self._base.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self._step, self._history = state["step"], state["history"]

    def _save(self) -> None:
        self._read()
        if self._ranks.rank:
            return
        state = {
            "network": self._base.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self._step,
            "history": self._history,
        }
        self._states.save(self._step, state, epoch_ends=self._step % self._per_epoch == 0)

    def to_the_end(self, progress: Progress, listener: Listener) -> list[dict[str, Any]]:
        """Take the steps that are left and return the whole history."""
        with self._telling_what_to_lower():
            for batch, ids, pixels in self._train.batches(self._order()):
                epoch = batch[0] or 0
                self._take_step(batch, ids, pixels)
                epoch_ends = self._step % self._per_epoch == 0
                if self._step % self._read_every == 0 or epoch_ends or self._step == self.total:
                    listener(self._read())
                if epoch_ends or self._step == self.total:
                    self._validate(epoch)
                if (epoch_ends or self._step % self._recipe.checkpoint_steps == 0) and self._step < self.total:
                    self._save()
                self._stop_if_asked(progress)
        return self._history

    def _stop_if_asked(self, progress: Progress) -> None:
        """Where one process was asked to end, all do so after the same step."""
        signum = 0
        try:
            progress(self._step, self.total, "steps")
        except StoppedError as stopped:
            signum = stopped.signum
        if signum := self._ranks.greatest(signum):
            self._save()
            raise StoppedError(signum)

    def _order(self) -> Iterator[Batch]:
        """The batch of every step that is left."""
        first = self._step // self._per_epoch
        left = itertools.chain.from_iterable(self._epoch(epoch + 1) for epoch in range(first, self._recipe.epochs))
        return itertools.islice(left, self._step - first * self._per_epoch, self.total - first * self._per_epoch)

    def _epoch(self, epoch: int) -> Iterator[Batch]:
        rng, said = np.random.default_rng([self._seed, epoch]), self._train.said
        batches = deal_batches(said.codes, self._recipe.batch_size, rng)
        return ((epoch, batch, said.draw(batch, rng)) for batch in batches)

    def _take_step(self, batch: Batch, ids: Tensor, pixels: Tensor) -> None:
        lr = self._schedule(self._step)
        self._base.network.train()
        if self._recipe.lock_text and (tower := self._base.text_head.owner) is not self._base.network:
            tower.eval()  # without dropout
        self._optimiser.zero_grad()
        loss = self._backward(batch, ids, pixels)
        # Scaled gradients of float16 may overflow: the scaler leaves such a step out and goes on.
        norm = loss if self._scaler.is_enabled() else optimisation.gradient_norm(self._base.network.parameters())
        self._bad |= ~(loss.isfinite() & norm.isfinite())
        if self._read_every > 1 and not self._scaler.is_enabled():
            # The fused optimiser looks at this on the device, and leaves the weights as they are from here on.
            self._optimiser.__dict__["found_inf"] = self._bad.float()
        self._unread.append((self._step, batch[0] or 0, lr, batch[1], loss, norm))
        if self._read_every == 1:
            self._read()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        optimisation.bound_logit_scale(self._base.network)
        self._step += 1

    def _loss(self, split: Split, batch: Batch, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        """The recipe's loss of a whole batch, (N, E) each."""
        import torch

        places, matches = split.said.matching(*batch[1:])
        if matches is None:
            return self._loss_of(images, texts, scale, None)
        return self._loss_of(images, texts[places], scale, torch.from_numpy(matches).to(images.device))

    def _backward(self, batch: Batch, ids: Tensor, pixels: Tensor) -> Tensor:
        """The loss of the whole batch, of which this process has a share; gradients of it are left on the weights."""
        import torch

        size = self._machine.micro_batch or len(pixels)
        chunks = list(zip(torch.split(ids, size), torch.split(pixels, size), strict=True))
        once = len(chunks) == 1
        with torch.set_grad_enabled(once):
            found = [self._embeddings(number, *chunk) for number, chunk in enumerate(chunks)]
        images, texts = (
            self._ranks.gathered(torch.cat([outputs[side].detach() for outputs in found])).requires_grad_()
            for side in (0, 1)
        )
        scale = found[-1][2].detach().requires_grad_()
        loss = self._loss(self._train, batch, images, texts, scale)
        # After a loss that is no number, no scaled gradient is one, so that the scaler leaves the weights as they are.
        scaled = self._scaler.scale(loss)
        scaled = torch.where(self._bad, torch.nan, scaled) if self._scaler.is_enabled() else scaled
        scaled.backward()  # type: ignore[no-untyped-call]
        share, gradients = self._ranks.rank * len(pixels), []
        for rows in (images, texts):
            assert rows.grad is not None
            # Of all processes together the mean is taken afterwards, but each has the gradient of its own pairs alone.
            factor = self._ranks.size / (PAPER_GPUS if self._recipe.gradient == "paper" else 1)
            gradients.append(torch.split(rows.grad[share : share + len(pixels)] * factor, size))
        for number, (chunk, *gradient) in enumerate(zip(chunks, *gradients, strict=True)):
            last = number == len(chunks) - 1
            with contextlib.nullcontext() if last or self._ranks.size == 1 else self._towers.no_sync():
                outputs = found[0] if once else self._embeddings(number, *chunk)
                told = zip(outputs, [*gradient, scale.grad] if last else gradient, strict=False)
                learnt = [pair for pair in told if pair[0].requires_grad]
                torch.autograd.backward([output for output, _ in learnt], [gradient for _, gradient in learnt])
        return loss.detach()

    def _embeddings(self, number: int, ids: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image and text embeddings of a micro batch, and the log of the scale."""
        import torch

        device = self._base.device
        # Dropout and stochastic depth draw from a seed of their own at each step: a continued run draws the same.
        draw = self._step + self.total * (self._ranks.rank + self._ranks.size * number)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), self._autocast():
            torch.manual_seed(int(unit_hash("dropout", self._seed, draw) * 2**53))
            outputs: tuple[Tensor, Tensor, Tensor] = self._towers(self._base.pixels(pixels), ids)
        return outputs

    def _autocast(self) -> Any:
        import torch

        return torch.autocast(self._base.device.type, dtype=self._dtype, enabled=self._amp)

    def _read(self) -> TrainingEvent:
        """Read the losses of the steps since the last look, and tell how the run stands.

        Raises:
            DivergedError: one was no number; the weights are as they were before.
        """
        import torch

        found = [torch.stack([loss, norm]) for *_, loss, norm in self._unread]
        figures = torch.stack(found).tolist() if found else []
        for (step, epoch, lr, batch, *_), (loss, norm) in zip(self._unread, figures, strict=True):
            samples = self._train.named(batch)
            optimisation.refuse_divergence(
                loss, norm, f"step {step + 1} of {self.total}, lr {lr:g}, samples such as {samples}"
            )
            self._history.append(history_row(step + 1, epoch, "train", loss, lr))
        self._unread.clear()
        return self._event()

    def _event(self) -> TrainingEvent:
        import torch

        last = next(row for row in reversed(self._history) if row["split"] == "train")
        per_s = (last["step"] - self._first) / max(time.monotonic() - self._began, 1e-9)
        cuda = self._base.device.type == "cuda"
        memory = torch.cuda.max_memory_allocated() / 1e6 if cuda else getrusage(RUSAGE_SELF).ru_maxrss / 1e3
        return TrainingEvent(
            **{name: last[name] for name in ("step", "epoch", "loss", "lr")},
            total=self.total,
            samples_per_s=per_s * self._recipe.batch_size,
            left_s=(self.total - last["step"]) / per_s if per_s else math.inf,
            memory_mb=memory,
        )

    def _validate(self, epoch: int) -> None:
        """Append the mean loss of plain views of the validation pairs, in the same batches each time."""
        import torch

        said, pairs = self._val.said, min(MAX_VAL_PAIRS, len(self._val.rows))
        size = min(pairs, self._recipe.batch_size)
        size -= size % self._ranks.size
        if size < 2:
            return
        self._base.network.eval()
        dealt = deal_batches(said.codes, size, np.random.default_rng(0))[: pairs // size]
        losses = []
        with torch.no_grad(), self._autocast():
            for batch, ids, pixels in self._val.batches((None, pairs, said.first(pairs)) for pairs in dealt):
                part = self._machine.micro_batch or len(pixels)
                chunks = zip(torch.split(ids, part), torch.split(pixels, part), strict=True)
                found = [self._alone(self._base.pixels(some), tokens) for tokens, some in chunks]
                images, texts = (self._ranks.gathered(torch.cat([rows[side] for rows in found])) for side in (0, 1))
                losses.append(self._loss(self._val, batch, images, texts, self._base.network.logit_scale))
        mean = float(np.mean([loss.item() for loss in losses]))
        self._history.append(history_row(self._step, epoch, "val", mean, self._history[-1]["lr"]))

    @contextlib.contextmanager
    def _telling_what_to_lower(self) -> Iterator[None]:
        """Raise a SettingsError that says what to lower where memory did not suffice."""
        import torch

        try:
            yield
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
                raise
            held = self._machine.micro_batch or self._recipe.batch_size // self._ranks.size
            tries = [f"plant.yaml: training.micro_batch below {held}"] if held > 1 else []
            if not self._machine.gradient_checkpointing:
                tries.append("training.gradient_checkpointing: true")
            if self._base.device.type == "cuda" and not self._amp:
                tries.append("the recipe's precision amp_bf16 (models.yaml)")
            told = (
                f"step {self._step + 1}: the memory of {self._base.device} does not suffice for {held} pairs at a time"
            )
            raise SettingsError(f"{told}; try {', '.join(tries) or 'a smaller base'}. The run goes on") from error
