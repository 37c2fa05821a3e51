"""Images a second through the demo's frozen image tower: the plain trunk, and the one the plant uses, side by side.

    python benchmarks/towers.py [--images 256] [--rounds 3]

Prints the median of the rounds as Markdown, and the ratio to the plain trunk. Rounds of all variants are interleaved,
so that a change of the machine's load meets all of them.
"""

import argparse
import statistics
import time
from typing import Any

from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.fusion import fused


def main() -> None:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256, help="images in a round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    settings = load_settings(PACKAGED_PROFILES / "demo")
    model = load_base(settings.bases["lite0-minilm"], settings.weights, seed=0)
    trunk = model.network.visual.trunk.eval()
    fast = fused(trunk, model.image_size)
    channels_last = trunk.to(memory_format=torch.channels_last)
    variants: dict[str, tuple[Any, int]] = {
        "plain trunk, batches of 32": (channels_last, 32),
        "plain trunk, batches of 8": (channels_last, 8),
        "batch norm and padding folded, batches of 32": (fast, 32),
        "batch norm and padding folded, batches of 8 (used)": (fast, 8),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(arguments.rounds):
        for name, (tower, batch) in variants.items():
            rates[name].append(_rate(tower, batch, model.image_size, arguments.images))
    plain = statistics.median(rates["plain trunk, batches of 32"])
    print("| tower | images/s | ratio |\n|---|---|---|")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"| {name} | {rate:.0f} | {rate / plain:.1f} |")


def _rate(tower: Any, batch: int, side: int, images: int) -> float:
    """Images a second, after one batch of warming up."""
    import torch

    pixels = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        tower(pixels)
        started = time.perf_counter()
        for _ in range(images // batch):
            tower(pixels)
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
