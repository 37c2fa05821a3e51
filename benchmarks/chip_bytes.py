"""How many bytes a pixel of a chip takes as JPEG, and how fast chips are read, measured and encoded.

    python benchmarks/chip_bytes.py IMAGE.tif ...

Cuts windows of 160 pixels a side out of 8-bit images and prints a Markdown table. `lib/chips/estimate.py` and the rates
in the settings take their defaults from it.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import rasterio  # noqa: F401 - not to be loaded while the first image is timed
import simplejpeg
from numpy.typing import NDArray

import skyscript_assets.lib.chips.row_sums  # noqa: F401 - likewise
from skyscript_assets.lib.chips.quality import measure
from skyscript_assets.lib.imagery.geotiff.raster import open_raster

SIDE, MOST = 160, 60
QUALITIES = (50, 75, 90, 95, 100)


def windows(path: Path) -> tuple[list[NDArray[np.uint8]], float]:
    """Windows of an image that are full of data, and the megapixels read in a second."""
    found: list[NDArray[np.uint8]] = []
    pixels, started = 0, time.perf_counter()
    with open_raster(path) as dataset:
        for row in range(0, dataset.height - SIDE + 1, SIDE):
            for column in range(0, dataset.width - SIDE + 1, SIDE):
                block = dataset.read([1, 2, 3], window=((row, row + SIDE), (column, column + SIDE)))
                pixels += SIDE * SIDE
                if block.any(axis=0).mean() > 0.95:
                    found.append(np.ascontiguousarray(np.moveaxis(block, 0, -1)))
    step = max(1, len(found) // MOST)
    return found[::step], pixels / 1e6 / (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    print("| image | windows | " + " | ".join(f"bytes/px, q {q}" for q in QUALITIES) + " | read MP/s | encode MP/s |")
    print("|---|---|" + "---|" * (len(QUALITIES) + 2))
    every: dict[int, list[float]] = {quality: [] for quality in QUALITIES}
    for path in map(Path, sys.argv[1:]):
        chips, rate = windows(path)
        cells = []
        for quality in QUALITIES:
            sizes = [
                len(simplejpeg.encode_jpeg(chip, quality, colorspace="RGB", colorsubsampling="420")) for chip in chips
            ]
            per_px = statistics.mean(sizes) / SIDE**2
            every[quality].append(per_px)
            cells.append(f"{per_px:.2f}")
        started = time.perf_counter()
        for chip in chips:
            measure(chip, None, (0, 0, SIDE, SIDE))
            simplejpeg.encode_jpeg(chip, 90, colorspace="RGB", colorsubsampling="420")
        encode = len(chips) * SIDE**2 / 1e6 / (time.perf_counter() - started)
        print(f"| {path.name} | {len(chips)} | {' | '.join(cells)} | {rate:.0f} | {encode:.1f} |", flush=True)
    medians = " | ".join(f"{statistics.median(every[quality]):.2f}" for quality in QUALITIES)
    print(f"| **median** | | {medians} | | |")


if __name__ == "__main__":
    main()
