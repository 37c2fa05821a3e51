"""Processes that train one model together: which of them this is, and what they tell each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, each with a device of its own; torchrun's and Slurm's word for the number is the rank.

    Attributes:
        rank: Number of this process, from 0, which alone writes.
        size: How many there are.
        control: Group by which they agree without waiting for their devices.
    """

    rank: int = 0
    size: int = 1
    control: Any = None

    def share(self, batch: IntArray) -> IntArray:
        """The part of a batch that is this process's: whole batches are their parts in order of the ranks."""
        size = len(batch) // self.size
        return batch[self.rank * size : (self.rank + 1) * size]

    def refuse_uneven(self, what: str, size: int) -> None:
        """Raise SettingsError where so many pairs cannot be shared out evenly."""
        if size % self.size:
            raise SettingsError(f"{what} {size} cannot be shared by {self.size} devices: choose a multiple of them")

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes (N / size, E) in the order of the whole batch (N, E); no gradient passes."""
        import torch

        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.size)]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def greatest(self, value: int) -> int:
        """The greatest value that any process has."""
        import torch

        if self.size == 1:
            return value
        told = torch.tensor(value)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX, group=self.control)
        return int(told)

    def together(self, module: Any) -> Any:
        """A module whose gradients are the mean of those of all processes after a backward pass."""
        from torch.nn.parallel import DistributedDataParallel

        return module if self.size == 1 else DistributedDataParallel(module)


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, by its variables; without these, this process is alone."""
    import torch
    import torch.distributed as dist

    rank, size, local = (
        int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if cuda := torch.cuda.is_available():
        torch.cuda.set_device(local)
    if size == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(rank, size, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()
