import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from skyscript_assets.lib import threads
from skyscript_assets.lib.threads import VARIABLES, forward_passes

LIMITED = """
import numpy
{before}
from skyscript_assets.lib.threads import forward_passes, limit_libraries
limit_libraries()
import sklearn.linear_model, torch
from threadpoolctl import threadpool_info
batches = [torch.ones(1)] * 8
counts = [info["num_threads"] for info in threadpool_info()] + [torch.get_num_threads()]
counts += map(int, forward_passes(lambda batch: batch * torch.get_num_threads(), batches))
print(*counts)
"""


@pytest.mark.parametrize("before", ["", "import sklearn.linear_model, torch; torch.ones(9).sum()"])
def test_libraries_that_are_loaded_and_those_that_come_later_compute_on_one_thread(before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED.format(before=before)],
        env=os.environ | dict.fromkeys(VARIABLES, "4"),
        capture_output=True,
        text=True,
        check=True,
    )
    counts = done.stdout.split()
    assert len(counts) > 10
    assert set(counts) == {"1"}


def test_batches_run_side_by_side_each_on_one_thread_and_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    both, caller = threading.Barrier(2, timeout=60), threading.get_ident()
    taken_on: set[int] = set()

    def batches() -> Iterator[torch.Tensor]:
        for number in range(8):
            taken_on.add(threading.get_ident())
            yield torch.tensor([number, 0.0], requires_grad=True)

    def network(batch: torch.Tensor) -> torch.Tensor:
        both.wait()
        return batch + torch.tensor([0.0, torch.get_num_threads()])

    found = list(forward_passes(network, batches()))
    assert torch.stack(found).tolist() == [[number, 1.0] for number in range(8)]
    assert not any(rows.requires_grad for rows in found)
    assert taken_on == {caller}
