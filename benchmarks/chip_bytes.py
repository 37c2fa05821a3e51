"""How many bytes a pixel of a chip takes as JPEG, and how fast chips are read, measured and encoded.

    python benchmarks/chip_bytes.py ../shared/data/imagery/*.tif

Cuts windows of 160 pixels a side out of 8-bit images and prints a Markdown table. `lib/chips/estimate.py` and the rates
in the settings take their defaults from it.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import rasterio  # noqa: F401 - not to be loaded while the first image is timed
import simplejpeg
from measuring import options_of, parser_of, print_head, print_row
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


def encoded(chip: NDArray[np.uint8], quality: int) -> int:
    """Bytes of a chip's JPEG."""
    return len(simplejpeg.encode_jpeg(chip, quality, colorspace="RGB", colorsubsampling="420"))


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("images", type=Path, nargs="+", help="8-bit colour images")
    options = options_of(parser)
    print_head("image", "windows", *(f"bytes/px, q {quality}" for quality in QUALITIES), "read MP/s", "encode MP/s")
    every: list[list[float]] = []
    for path in options.images:
        chips, read = windows(path)
        sizes = [statistics.mean(encoded(chip, quality) for chip in chips) / SIDE**2 for quality in QUALITIES]
        started = time.perf_counter()
        for chip in chips:
            measure(chip, None, (0, 0, SIDE, SIDE))
            encoded(chip, 90)
        rate = len(chips) * SIDE**2 / 1e6 / (time.perf_counter() - started)
        print_row(path.name, len(chips), *(f"{size:.2f}" for size in sizes), f"{read:.0f}", f"{rate:.1f}")
        every.append(sizes)
    print_row("**median**", "", *(f"{statistics.median(column):.2f}" for column in zip(*every, strict=True)), "", "")


if __name__ == "__main__":
    main()
