"""Who computes: numerical libraries on one thread, and threads of ours side by side on batches.

A sum that a library shares out over threads has other last bits on another number of cores. A batch is therefore
computed by one thread, and batches are composed in the same way everywhere; several at a time fill the cores, and on a
busy machine nobody spins while it waits for the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import threadpool_limits

from skyscript_assets.lib.lookahead import in_order

if TYPE_CHECKING:
    from torch import Tensor

Batch = TypeVar("Batch")

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What numerical libraries read when they are loaded."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def limit_libraries() -> None:
    """From now on numerical libraries compute on the thread that calls them, also those that are loaded later.

    It is never undone, so that stages which run at the same time in one process cannot undo it for each other.
    """
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    threadpool_limits(1)
    if "torch" in sys.modules:  # its own matrix library is found by nobody else
        sys.modules["torch"].set_num_threads(1)


def forward_passes(network: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Generator[Tensor, None, None]:
    """What a network on the CPU makes of each batch, in their order; each by one thread, several at a time.

    The network is called on several threads at once; no gradients are kept. Batches are taken on the caller's thread,
    as they are needed.
    """
    import torch

    def alone(batch: Batch) -> Tensor:
        torch.set_num_threads(1)  # OpenMP keeps this number for each thread
        with torch.inference_mode():
            return network(batch)

    return in_order(alone, batches, threads=cores())
