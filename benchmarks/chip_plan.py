"""How long a chip plan takes for a large table of objects, and what it plans.

    python benchmarks/chip_plan.py OBJECTS.parquet [GSD_M] [QUOTA] [DATES]

The scenes are made up: boxes of a fifth of a degree in UTM over all objects, each at several dates. Tags are decided by
the packaged labels alone. Prints a Markdown table: median seconds of three plans by the full quota and of one in which
every object is drawn.
"""

from __future__ import annotations

import datetime as dt
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

from skyscript_assets.lib.chips.plan import Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.geometry import utm_crs
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.osm.region_overlap import write_region_overlap
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.vocabulary import count_vocabulary

REGION, SOURCE, ZOOM = "large", "UP", 15
STEP_DEG, MARGIN_DEG = 0.2, 0.03
WORLD = (-180.0, -90.0, 180.0, 90.0)


def make_scenes(objects: Path, gsd_m: float, dates: int, out: Path) -> int:
    """Scenes over every square of `STEP_DEG` that holds an object; how many there are."""
    bbox = read_table(objects, columns=["bbox"])["bbox"]
    west, south = (np.floor(pc.struct_field(bbox, side).to_numpy() / STEP_DEG) for side in ("xmin", "ymin"))
    scenes = []
    for column, row in np.unique(np.column_stack([west, south]), axis=0).tolist():
        x, y = column * STEP_DEG, row * STEP_DEG
        box = shapely.box(x - MARGIN_DEG, y - MARGIN_DEG, x + STEP_DEG + MARGIN_DEG, y + STEP_DEG + MARGIN_DEG)
        crs = utm_crs(x, y)
        left, bottom, right, top = Transformer.from_crs(4326, crs, always_xy=True).transform_bounds(*box.bounds)
        scenes += [
            Scene(
                scene_id=f"{column:.0f}_{row:.0f}_{number}",
                region=REGION,
                source=SOURCE,
                datetime=dt.datetime(2015 + number, 1 + (5 * number) % 12, 9, tzinfo=dt.UTC),
                footprint=box,
                cloud_share=0.05 * (number % 3),
                gsd_m=gsd_m,
                crs=f"EPSG:{crs.to_epsg()}",
                transform=(gsd_m, 0.0, left, 0.0, -gsd_m, top),
                width=int((right - left) / gsd_m),
                height=int((top - bottom) / gsd_m),
                hrefs=("none.tif",),
                fingerprint="none",
                licence="none",
                attribution="none",
            )
            for number in range(dates)
        ]
    write_scenes(out, scenes)
    return len(scenes)


def make_snapshot(objects: Path, gsd_m: float, plan: PlanSettings, out: Path) -> None:
    """A sampling snapshot of the labelled tags."""
    count_vocabulary({REGION: objects}, [gsd_m], plan.sizes, out)
    labels = read_labels(PACKAGED_PROFILES / "tag_labels.csv")
    tags = {tag: label.coarsest_gsd_m for tag, label in labels.items() if label.coarsest_gsd_m is not None}
    rows = [{"key": k, "value": v, "coarsest_gsd_m": gsd} for (k, v), gsd in tags.items()]
    write_table(out / "tags.parquet", pa.Table.from_pylist(rows))
    counts = [
        {**row, "n_plannable": row["n"]}
        for row in read_table(out / "plannable.parquet").to_pylist()
        if tags.get((row["key"], row["value"]), 0.0) >= gsd_m
    ]
    write_table(out / "snapshot.parquet", pa.Table.from_pylist(counts))


def main() -> None:
    """Print the table."""
    objects = Path(sys.argv[1])
    given = [*sys.argv[2:], *("1.0", "200", "4")[len(sys.argv) - 2 :]]
    gsd_m, quota, dates = float(given[0]), int(given[1]), int(given[2])
    rows = pq.ParquetFile(objects).metadata.num_rows
    print("| objects | scenes | quota | drawn | planned | seconds | objects a second | peak memory GB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        settings = PlanSettings(snapshot="benchmark", quota=quota)
        scenes = make_scenes(objects, gsd_m, dates, out)
        make_snapshot(objects, gsd_m, settings, out)
        write_region_overlap(REGION, WORLD, objects, {}, out)
        inputs = PlanInputs(objects, out / "overlap.parquet", out, out)
        for wanted, repeats in ((quota, 3), (10 * rows, 1)):
            seconds = []
            for _ in range(repeats):
                started = time.perf_counter()
                rules = PlanRules(settings.model_copy(update={"quota": wanted}), ZOOM)
                plan = write_plan(Ground(REGION, SOURCE, WORLD, gsd_m), inputs, rules, out)
                seconds.append(time.perf_counter() - started)
            median = statistics.median(seconds)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(
                f"| {rows:,} | {scenes} | {'all' if wanted > rows else wanted} | {plan.drawn:,} | {plan.planned:,} "
                f"| {median:.1f} | {rows / median:,.0f} | {memory:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
