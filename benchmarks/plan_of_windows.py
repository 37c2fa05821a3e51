"""A chip plan of given windows, for measurements and tests that cut chips without planning them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affine import Affine

from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.tables import rows_to_table, write_table


def write_chip_plan(
    folder: Path, windows: Sequence[tuple[Scene, int, int, int, int]], **facts: Any
) -> list[dict[str, Any]]:
    """Write a plan of windows (scene, column, row, width, height) on the scenes' own grids, and return its rows.

    `facts` are columns that have other values than here.
    """
    from skyscript_assets.lib.chips.plan import PLAN_SCHEMA

    rows = []
    for number, (scene, column, row, width, height) in enumerate(windows):
        transform = Affine(*scene.transform) @ Affine.translation(column, row)
        west, south, east, north = scene.bounds
        known = {
            "chip_id": f"n{number}_{scene.source}_20200601_{number:08x}",
            "object_id": f"n{number}",
            "region": scene.region,
            "source": scene.source,
            "scene_id": scene.scene_id,
            "crs": scene.crs,
            "transform": list(transform[:6]),
            "width": width,
            "height": height,
            "gsd_m": scene.gsd_m,
            "bbox": {"xmin": west, "ymin": south, "xmax": east, "ymax": north},
            "focus_box": [width // 4, height // 4, width // 2, height // 2],
            "stratum": ("building=yes", "natural=tree", "highway=residential")[number % 3],
            "cell": "0/0",
            "split": "train",
        }
        rows.append(known | facts)
    write_table(folder / "plan.parquet", rows_to_table(rows, PLAN_SCHEMA))
    return rows
