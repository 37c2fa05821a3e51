"""How long a chip plan takes for the objects of an extract, and what it plans.

    python benchmarks/chip_plan.py ../shared/data/osm/malta.osm.pbf

The scenes are made up: boxes of a fifth of a degree in UTM over all objects, each at several dates. Tags are decided by
the packaged labels alone. Prints a Markdown table: median seconds of three plans by the full quota and of one in which
every object is drawn.
"""

import datetime as dt
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from measuring import WORLD, objects_of, options_of, parser_of, print_head, print_row
from pyproj import Transformer

from skyscript_assets.lib.chips.plan import Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.geometry import utm_crs
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE, OVERLAP_SCHEMA
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.vocabulary import count_vocabulary

REGION, SOURCE, ZOOM = "here", "UP", 15
STEP_DEG, MARGIN_DEG = 0.2, 0.03


def make_scenes(objects: Path, gsd_m: float, dates: int, out: Path, region: str = REGION, source: str = SOURCE) -> int:
    """Scenes over every square of `STEP_DEG` that holds an object; how many there are."""
    bbox = read_table(objects, columns=["bbox"])["bbox"]
    squares = [np.floor(pc.struct_field(bbox, side).to_numpy() / STEP_DEG) for side in ("xmin", "ymin")]
    scenes = []
    for column, row in np.unique(np.column_stack(squares), axis=0).tolist():
        box = shapely.box(*(STEP_DEG * side for side in (column, row, column + 1, row + 1))).buffer(MARGIN_DEG).envelope
        crs = utm_crs(*box.bounds[:2])
        left, bottom, right, top = Transformer.from_crs(4326, crs, always_xy=True).transform_bounds(*box.bounds)
        scenes += [
            Scene(
                scene_id=f"{column:.0f}_{row:.0f}_{number}",
                region=region,
                source=source,
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


def make_snapshot(objects: Path, gsd_m: float, sizes: PlanSettings, out: Path) -> None:
    """A sampling snapshot of the labelled tags."""
    count_vocabulary({REGION: objects}, [gsd_m], sizes, out)
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
    parser = parser_of(__doc__)
    parser.add_argument("extract", type=Path, help="OSM extract")
    parser.add_argument("--gsd-m", type=float, default=1.0, help="metres a pixel of the scenes")
    parser.add_argument("--quota", type=int, default=200, help="chips wanted of each tag")
    parser.add_argument("--dates", type=int, default=4, help="scenes of each place")
    options = options_of(parser)
    columns = ["objects", "scenes", "quota", "drawn", "planned", "seconds", "objects a second", "peak memory GB"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        objects = objects_of(options.extract, out)
        rows = pq.read_metadata(objects).num_rows
        wanted = PlanSettings(snapshot="benchmark", quota=options.quota)
        write_table(out / OVERLAP_FILE, OVERLAP_SCHEMA.empty_table())
        scenes = make_scenes(objects, options.gsd_m, options.dates, out)
        make_snapshot(objects, options.gsd_m, wanted, out)
        ground = Ground(REGION, SOURCE, WORLD, options.gsd_m)
        inputs = PlanInputs(objects, out / OVERLAP_FILE, out, out)
        print_head(*columns)
        for quota, repeats in ((options.quota, 3), (10 * rows, 1)):
            ground, inputs = (
                Ground(REGION, SOURCE, WORLD, options.gsd_m),
                PlanInputs(objects, out / OVERLAP_FILE, out, out),
            )
            rules, seconds = PlanRules(wanted.model_copy(update={"quota": quota}), ZOOM), []
            for _ in range(repeats):
                started = time.perf_counter()
                plan = write_plan(ground, inputs, rules, out)
                seconds.append(time.perf_counter() - started)
            median, drawn = statistics.median(seconds), "all" if quota > rows else quota
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            cells = [f"{plan.drawn:,}", f"{plan.planned:,}", f"{median:.1f}", f"{rows / median:,.0f}", f"{memory:.2f}"]
            print_row(f"{rows:,}", scenes, drawn, *cells)


if __name__ == "__main__":
    main()
