"""Draw pictures degraded step by step, for a reader who judges up to which step a thing can be told.

    python benchmarks/degrade.py sheet.png 0.3 ../shared/data/benchmarks/ucmerced/images/harbor/harbor06.jpg
    python benchmarks/degrade.py sheet.png 0.0747 oam_kampala_z21.tif --window 900 800 480

A picture is a row, a step of `GSD_STEPS_M` a column, the picture as it is the first; the others are averaged over areas
and enlarged again. `settings/tag_labelling.md` tells what was judged so.
"""

from pathlib import Path

import numpy as np
import rasterio
from measuring import options_of, parser_of
from PIL import Image
from rasterio.windows import Window

from skyscript_assets.lib.settings.base import GSD_STEPS_M

TILE_PX = 256


def degraded(picture: Image.Image, gsd_m: float, step_m: float) -> Image.Image:
    """The picture with pixels of a coarser step, at the size of a tile."""
    size = (max(1, round(picture.width * gsd_m / step_m)), max(1, round(picture.height * gsd_m / step_m)))
    return picture.resize(size, Image.Resampling.BOX).resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC)


def main() -> None:
    """Read, degrade, and draw one sheet."""
    parser = parser_of(__doc__)
    parser.add_argument("sheet", type=Path, help="the PNG to write")
    parser.add_argument("gsd_m", type=float, help="metres of the pictures' pixels on the ground")
    parser.add_argument("pictures", type=Path, nargs="+", help="files that GDAL reads")
    parser.add_argument("--window", type=int, nargs=3, help="column, row and side in pixels of the part to draw")
    parser.add_argument("--bands", type=int, nargs=3, default=(1, 2, 3), help="bands of red, green and blue")
    options = options_of(parser)
    steps = [step for step in GSD_STEPS_M if step > options.gsd_m]
    rows = []
    for path in options.pictures:
        column, row, side = options.window or (0, 0, None)
        with rasterio.open(path) as dataset:
            window = Window(column, row, side or dataset.width, side or dataset.height)
            bands = dataset.read(options.bands, window=window)
        # Other than bytes: stretched between the darkest and the brightest hundredth.
        if bands.dtype != np.uint8:
            low, high = np.percentile(bands, (1, 99))
            bands = np.clip((bands - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
        picture = Image.fromarray(np.moveaxis(bands, 0, -1))
        tiles = [picture.resize((TILE_PX, TILE_PX)), *(degraded(picture, options.gsd_m, step) for step in steps)]
        rows.append(np.hstack([np.asarray(tile) for tile in tiles]))
        print(f"{path.name}: {options.gsd_m:g} m, then {', '.join(f'{step:g}' for step in steps)} m")
    Image.fromarray(np.vstack(rows)).save(options.sheet)


if __name__ == "__main__":
    main()
