"""Images and texts a second through the demo's frozen towers: plain, and as the plant uses them, in turn.

    python benchmarks/towers.py

Prints the medians of the rounds as Markdown, and how many times as fast the ones in use are. Texts are 2 to
60 words long, as captions of all styles are.
"""

import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import PROFILE, in_turn, options_of, parser_of, print_rates

from skyscript_assets.lib.threads import cores, forward_passes
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.fusion import fused
from skyscript_assets.lib.towers.model import TEXT_BATCH, ClipModel

USED = "folded, batches of 8, a thread a batch (used)"
USED_TEXTS = f"cut to the longest, of like length, batches of {TEXT_BATCH} (used)"


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=256, help="images in a round")
    parser.add_argument("--texts", type=int, default=512, help="texts in a round")
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
    print_rates("images/s", rates, USED)
    rng = np.random.default_rng(0)
    texts = [f"{'building ' * words}{number}" for number, words in enumerate(rng.integers(2, 61, options.texts))]
    variants_of_text: dict[str, tuple[bool, bool, int]] = {
        "whole context, as they come, batches of 64": (False, False, 64),
        "cut to the longest, as they come, batches of 64": (True, False, 64),
        "cut to the longest, of like length, batches of 64": (True, True, 64),
        USED_TEXTS: (True, True, TEXT_BATCH),
    }
    rates = in_turn(
        {name: partial(text_rate, model, texts, *variant) for name, variant in variants_of_text.items()}, options.rounds
    )
    print()
    print_rates("texts/s", rates, USED_TEXTS)


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


def text_rate(model: ClipModel, texts: list[str], cut: bool, sort: bool, batch: int) -> float:
    """Texts a second through the text tower."""
    ids = model.tokenizer(texts)
    used = model._used(ids)
    order = torch.argsort(used, stable=True) if sort else torch.arange(len(texts))
    batches = [ids[rows, : int(used[rows].max()) if cut else None] for rows in order.split(batch)]
    started = time.perf_counter()
    for _ in forward_passes(model.network.encode_text, batches):
        pass
    return len(texts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
