"""Images a second through the demo's frozen image tower: the plain trunk, and the one the plant uses, in turn.

    python benchmarks/towers.py

Prints the median of the rounds as Markdown, and how many times as fast the one in use is.
"""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import torch
from measuring import PROFILE, in_turn, options_of, parser_of, print_rates

from skyscript_assets.lib.threads import cores, forward_passes
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.fusion import fused

USED = "folded, batches of 8, a thread a batch (used)"


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=256, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = options_of(parser)
    model = load_base(PROFILE.bases["lite0-minilm"], PROFILE.weights, seed=0)
    trunk = model.network.visual.trunk.eval()
    fast = fused(trunk, model.image_size)
    plain = trunk.to(memory_format=torch.channels_last)
    variants: dict[str, tuple[Any, Any, int]] = {
        "plain trunk, batches of 32, threads share a batch": (shared, plain, 32),
        "plain trunk, batches of 8, threads share a batch": (shared, plain, 8),
        "batch norm and padding folded, batches of 32, threads share a batch": (shared, fast, 32),
        "folded, batches of 8, threads share a batch": (shared, fast, 8),
        USED: (forward_passes, fast, 8),
    }
    rates = in_turn(
        {name: partial(rate, *variant, model.image_size, options.images) for name, variant in variants.items()},
        options.rounds,
    )
    print_rates("images", rates, USED)


def shared(tower: Any, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """What a tower makes of batches one after another, each on the threads of torch."""
    torch.set_num_threads(cores())
    with torch.inference_mode():
        yield from map(tower, batches)


def rate(passes: Any, tower: Any, batch: int, side: int, images: int) -> float:
    """Images a second, after one batch of warming up."""
    pixels = torch.randn(min(batch, images), 3, side, side).to(memory_format=torch.channels_last)
    list(passes(tower, [pixels]))
    started = time.perf_counter()
    found = sum(len(features) for features in passes(tower, [pixels] * max(1, images // batch)))
    return found / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
