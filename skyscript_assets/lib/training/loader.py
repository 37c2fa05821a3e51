"""The pairs of a split as batches on the device: read, augmented and copied ahead of their use."""

from __future__ import annotations

import contextlib
import itertools
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
from skyscript_assets.lib.training.batches import codes_of
from skyscript_assets.lib.training.ranks import Ranks
from skyscript_assets.lib.training.selection import TrainingPairs

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_COLUMNS = ("image_shard", "image_offset", "image_length", "image_sha256")

Batch = tuple[int | None, IntArray]
"""Epoch, from 1 (None: the plain views), and numbers of pairs."""

ChipFolders = Mapping[tuple[str, str], Path]
"""Folders of chips by region and source."""

BATCHES_AHEAD = 2
"""Batches that threads make while one is trained on."""


class Split:
    """The pairs of a split: captions, whose tokens are made once, and images, which threads make into views."""

    def __init__(
        self,
        pairs: TrainingPairs,
        recipe: ClipRecipe,
        chips: ChipFolders,
        base: ClipModel,
        seed: int,
        threads: int,
        ranks: Ranks,
    ) -> None:
        captions = pairs.captions(recipe.column, recipe.prefix)
        self.codes, self.texts = codes_of(captions), sorted(set(captions))
        self.rows = pairs.table.select([*Place._fields[:1], *IMAGE_COLUMNS, "focus_box"]).combine_chunks()
        self._images, self._base, self._seed = chip_images(lambda *pair: chips[pair]), base, seed
        self._threads, self._ranks = threads, ranks
        self._ahead = BATCHES_AHEAD * recipe.batch_size // ranks.size
        self._ids: Tensor | None = None
        self._tokenised = np.zeros(len(self.texts), bool)

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
        given: deque[tuple[Batch, IntArray, Tensor]] = deque()
        filled = 0
        tasks = self._tasks(batches, given)
        with contextlib.closing(in_order(self._view, tasks, threads=self._threads, ahead=self._ahead)) as views:
            for _ in views:
                filled += 1
                if filled == len(given[0][1]):
                    batch, share, pixels = given.popleft()
                    yield batch, self._tokens(share), pixels
                    filled = 0

    def _tasks(self, batches: Iterable[Batch], given: deque[Any]) -> Iterator[tuple[UInt8Array, dict[str, Any], Any]]:
        import torch

        side, pinned = self._base.image_size, self._base.device.type == "cuda"
        for epoch, batch in batches:
            share = self._ranks.share(batch)
            pixels = torch.empty((len(share), side, side, 3), dtype=torch.uint8, pin_memory=pinned)
            given.append(((epoch, batch), share, pixels))
            yield from zip(pixels.numpy(), self.rows.take(pa.array(share)).to_pylist(), itertools.repeat(epoch))

    def _view(self, task: tuple[UInt8Array, dict[str, Any], int | None]) -> None:
        """Write the pair's image: a draw of the augmentation for this epoch, or the plain view."""
        pixels, row, epoch = task
        place = Place(row["chip_id"], *(row[name] for name in IMAGE_COLUMNS))
        image = self._images.pixels(place)
        if epoch is None:
            pixels[:] = self._base.view(image, row["focus_box"])
        else:
            draw = view_rng(self._seed, place.chip_id, epoch)
            pixels[:] = augmented_view(image, row["focus_box"], self._base.image_size, draw)

    def _tokens(self, share: IntArray) -> Tensor:
        import torch

        codes = self.codes[share]
        new = np.unique(codes[~self._tokenised[codes]])
        if len(new):
            ids = self._base.tokenise([self.texts[code] for code in new])
            if self._ids is None:
                self._ids = torch.zeros((len(self.texts), ids.shape[1]), dtype=torch.int32)
            self._ids[new] = ids.int()
            self._tokenised[new] = True
        assert self._ids is not None
        ids = self._base.fitted(self._ids[codes].long())
        return ids.pin_memory() if self._base.device.type == "cuda" else ids
