"""The pairs of a split as batches on the device: read, augmented and copied ahead of their use."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.images import Place, chip_images
from skyscript_assets.lib.settings.models import ClipRecipe
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.views import UInt8Array, augmented_view, view_rng
from skyscript_assets.lib.training.ranks import Ranks
from skyscript_assets.lib.training.texts import Texts

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_COLUMNS = ("image_shard", "image_offset", "image_length", "image_sha256")

Batch = tuple[int | None, IntArray, IntArray]
"""Epoch, from 1 (None: the plain views), numbers of pairs, and the row of the text that each takes."""

ChipFolders = Mapping[tuple[str, str], Path]
"""Folders of chips by region and source."""

BATCHES_AHEAD = 2
"""Batches that threads make while one is trained on."""

PAIRS_A_TASK = 8
"""Pairs that a thread takes at a time, at most; fewer where a batch would not keep all threads busy."""


class Split:
    """The pairs of a split: texts, whose tokens are made once, and images, which threads make into views."""

    def __init__(
        self,
        pairs: pa.Table,
        recipe: ClipRecipe,
        chips: ChipFolders,
        base: ClipModel,
        seed: int,
        threads: int,
        ranks: Ranks,
    ) -> None:
        self.said, self._crop = Texts(pairs, recipe), recipe.crop
        self.rows = pairs.select([*Place._fields[:1], *IMAGE_COLUMNS, "focus_box"]).combine_chunks()
        self._images, self._base, self._seed = chip_images(lambda *pair: chips[pair]), base, seed
        self._threads, self._ranks = threads, ranks
        share = recipe.batch_size // ranks.size
        self._of_task = max(1, min(PAIRS_A_TASK, share // threads))
        self._ahead = BATCHES_AHEAD * -(-share // self._of_task)
        self._ids: Tensor | None = None
        self._tokenised = np.zeros(len(self.said.texts), bool)

    def named(self, batch: IntArray) -> str:
        """The first chips of a batch, for messages."""
        return ", ".join(self.rows["chip_id"].take(pa.array(batch[:3])).to_pylist())

    def batches(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """Each batch with token ids (n, length) and pixels (n, size, size, 3) of this process's share, on the device.

        Copies run on a stream of their own beside the work on the batch before, out of memory that is pinned for them.
        """
        import torch

        device = self._base.device
        of_device = torch.get_device_module(device)
        stream, ahead = of_device.Stream(), deque[Any]()
        for batch, *tensors in self._made(batches):
            with of_device.stream(stream):
                moved = [tensor.to(device, non_blocking=True) for tensor in tensors]
                ahead.append((batch, moved, stream.record_event()))
            if len(ahead) > 1:
                yield self._arrived(*ahead.popleft())
        while ahead:
            yield self._arrived(*ahead.popleft())

    def _arrived(self, batch: Batch, moved: list[Tensor], copied: Any) -> tuple[Batch, Tensor, Tensor]:
        import torch

        using = torch.get_device_module(self._base.device).current_stream()
        using.wait_event(copied)
        for tensor in moved:
            if tensor.is_cuda:  # its memory is not given to the next copy while it is used
                tensor.record_stream(using)
        ids, pixels = moved
        return batch, ids, pixels

    def _made(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor, Tensor]]:
        """The same on the host; threads write views into the batches to come."""
        given: deque[tuple[Batch, Tensor]] = deque()
        filled = 0
        tasks = self._tasks(batches, given)
        with contextlib.closing(in_order(self._views, tasks, threads=self._threads, ahead=self._ahead)) as views:
            for made in views:
                filled += made
                if filled == len(given[0][1]):
                    batch, pixels = given.popleft()
                    yield batch, self._tokens(self._ranks.share(batch[2])), pixels
                    filled = 0

    def _tasks(self, batches: Iterable[Batch], given: deque[Any]) -> Iterator[tuple[UInt8Array, IntArray, Any]]:
        import torch

        side, pinned = self._base.image_size, self._base.device.type == "cuda"
        for batch in batches:
            epoch, pairs, _ = batch
            share = self._ranks.share(pairs)
            pixels = torch.empty((len(share), side, side, 3), dtype=torch.uint8, pin_memory=pinned)
            given.append((batch, pixels))
            for start in range(0, len(share), self._of_task):
                part = slice(start, start + self._of_task)
                yield pixels.numpy()[part], share[part], epoch

    def _views(self, task: tuple[UInt8Array, IntArray, int | None]) -> int:
        """Write images of pairs, as draws of the augmentation for this epoch or plain views; returns their number."""
        pixels, pairs, epoch = task
        for view, row in zip(pixels, self.rows.take(pa.array(pairs)).to_pylist(), strict=True):
            place = Place(row["chip_id"], *(row[name] for name in IMAGE_COLUMNS))
            image = self._images.pixels(place)
            focus = row["focus_box"] if self._crop == "focus" else None
            if epoch is None:
                view[:] = self._base.view(image, focus)
            else:
                draw = view_rng(self._seed, place.chip_id, epoch)
                view[:] = augmented_view(image, focus, self._base.image_size, draw)
        return len(pairs)

    def _tokens(self, rows: IntArray) -> Tensor:
        import torch

        new = np.unique(rows[~self._tokenised[rows]])
        if len(new):
            ids = self._base.tokenizer([self.said.texts[row] for row in new])
            if self._ids is None:
                self._ids = torch.zeros((len(self.said.texts), ids.shape[1]), dtype=torch.int32)
            self._ids[new] = ids.int()
            self._tokenised[new] = True
        assert self._ids is not None
        ids = self._base.fitted(self._ids[rows].long())
        return ids.pin_memory() if self._base.device.type == "cuda" else ids
