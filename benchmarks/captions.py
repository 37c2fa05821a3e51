"""How fast captions are written, in how much memory, how varied they are, and the overlay beside geopandas.

    python benchmarks/captions.py ../shared/data/osm/malta.osm.pbf

Chips are planned as `chip_plan.py` does it, on made-up scenes; tags are decided by the packaged labels. Prints four
Markdown tables: captions in a second of CPU, those of the paper alone, of all styles, and with reading and writing; how
varied each style is; the overlay of `--objects` objects (copies of the extract, a little apart) with `--chips` chips
beside geopandas' `sjoin`, with the intersections that captions need and alone; and peak memory by number of chips, each
in its own process.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from chip_plan import REGION, SOURCE, ZOOM, make_scenes, make_snapshot
from measuring import WORLD, in_turn, objects_of, options_of, parser_of, print_head, print_rates, print_row, run_apart

from skyscript_assets.lib.captions import write
from skyscript_assets.lib.captions.overlay import overlay
from skyscript_assets.lib.captions.surroundings import read_objects, visible
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.chips.sampling import read_snapshot
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE, OVERLAP_SCHEMA
from skyscript_assets.lib.settings.base import SENTENCES, STYLES
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.settings.plant import CaptionSettings, PlanSettings
from skyscript_assets.lib.tables import read_table, write_table

RULES = PACKAGED_PROFILES / "caption_rules.yaml"
PAPER_COLLISIONS = 0.9
"""Others of a batch of 512 with the same single-object caption in SkyScript's 517,669 released pairs, on average."""


def make_plan(extract: Path, gsd_m: float, quota: int, out: Path) -> None:
    """Objects, snapshot, plan and a table of accepted chips of an extract."""
    objects = objects_of(extract, out)
    wanted = PlanSettings(snapshot="benchmark", quota=quota)
    write_table(out / OVERLAP_FILE, OVERLAP_SCHEMA.empty_table())
    make_scenes(objects, gsd_m, 1, out)
    make_snapshot(objects, gsd_m, wanted, out)
    inputs = PlanInputs(objects, out / OVERLAP_FILE, out, out)
    write_plan(Ground(REGION, SOURCE, WORLD, gsd_m), inputs, PlanRules(wanted, ZOOM), out)
    accept(out)


def accept(folder: Path) -> None:
    """Call all chips of a plan accepted."""
    ids = read_table(folder / "plan.parquet", PLAN_SCHEMA)["chip_id"]
    pq.write_table(pa.table({"chip_id": ids, "status": pa.array(["ok"] * len(ids))}), folder / "chips.parquet")


def repeated(folder: Path, times: int, out: Path) -> None:
    """The plan of a folder over and over, under other chip ids."""
    plan = read_table(folder / "plan.parquet", PLAN_SCHEMA)
    with pq.ParquetWriter(out / "plan.parquet", PLAN_SCHEMA, compression="zstd") as writer:
        for number in range(times):
            ids = pa.array([f"{one}_{number}" for one in plan["chip_id"].to_pylist()])
            writer.write_table(plan.set_column(0, PLAN_SCHEMA.field(0), ids))
    accept(out)


def write_all(folder: Path, out: Path, objects: Path) -> dict[str, Any]:
    """The captions of a plan."""
    return write.write_captions(write.CaptionInputs(out, out, objects, folder, RULES), CaptionSettings(), out)


def cpu_s(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU that some work takes, and what it gives."""
    started = time.process_time()
    given = work()
    return time.process_time() - started, given


def rates(folder: Path) -> dict[str, Any]:
    """Print how many captions are made in a second of CPU; gives the summary of the written ones."""
    inputs = write.CaptionInputs(folder, folder, folder / "objects.parquet", folder, RULES)
    writer = write.Writer(inputs, CaptionSettings())
    chips = [chip for some in writer.chips() for chip in some]
    writer.rows(chips[:64])
    facts, write.facts = write.facts, lambda chips, *_: [[] for _ in chips]  # type: ignore[assignment]
    alone, rows = cpu_s(lambda: writer.rows(chips))
    write.facts = facts
    both, _ = cpu_s(lambda: writer.rows(chips))
    whole, summary = cpu_s(lambda: write_all(folder, folder, folder / "objects.parquet"))
    print_head("chips", "what is made", "captions of a chip", "CPU s", "captions a CPU second")
    for what, styles, seconds in (
        ("the paper's two styles", len(STYLES) - len(SENTENCES), alone),
        ("all styles, trace and regions", len(STYLES), both),
        ("all, with reading, proof of 100 chips and writing", len(STYLES), whole),
    ):
        print_row(f"{len(rows):,}", what, styles, f"{seconds:.2f}", f"{len(rows) * styles / seconds:,.0f}")
    return summary


def variety(summary: dict[str, Any]) -> None:
    """Print how varied captions are."""
    print()
    print_head("style", "captions", "distinct", "as varied as", "others alike in a batch of 512")
    for style in STYLES:
        cells = (f"{summary['distinct'][style]:,}", f"{summary['effective'][style]:,.0f}", summary["collisions"][style])
        print_row(style, f"{summary['captions']:,}", *cells)
    print_row("SkyScript's title", "517,669", "25,220", "", PAPER_COLLISIONS)


def overlays(folder: Path, n_objects: int, n_chips: int, runs: int) -> None:
    """Print how fast objects are laid over chips."""
    snapshot, plan = read_snapshot(folder), read_table(folder / "plan.parquet", PLAN_SCHEMA).to_pylist()
    objects = read_objects(folder / "objects.parquet", snapshot, {chip["object_id"] for chip in plan})
    seen = visible(objects, snapshot, min(chip["gsd_m"] for chip in plan))
    copies = -(-n_objects // len(objects.ids))
    west, _, east, _ = shapely.total_bounds(objects.geometry)
    # Copies of the region lie side by side within a fiftieth of a degree of each other; their chips move with them.
    moves = (np.arange(copies) - copies // 2) * (east - west) * 0.02
    steps = [np.array([move, 0.0]) for move in moves]
    geometry = np.concatenate([shapely.transform(objects.geometry, lambda p, d=step: p + d) for step in steps])
    candidates = np.concatenate([seen.candidates + i * len(objects.ids) for i in range(copies)])
    textures = np.tile(seen.ground_set_of > 0, copies)
    crs = plan[0]["crs"]
    chips = [chip for chip in plan if chip["crs"] == crs][:n_chips]
    chips = (chips * -(-n_chips // len(chips)))[:n_chips]
    focus = np.array([objects.rows[chip["object_id"]] + copies // 2 * len(objects.ids) for chip in chips])
    frames = frames_of(chips)

    def ours() -> int:
        tree = shapely.STRtree(geometry[candidates])
        batches = range(0, n_chips, write.BATCH)
        parts = (slice(start, start + write.BATCH) for start in batches)
        return sum(len(overlay(chips[part], focus[part], geometry, candidates, tree, textures).row) for part in parts)

    def joined(*, cut: bool) -> int:
        known = geopandas.GeoDataFrame(geometry=geometry[candidates], crs=4326).to_crs(crs)
        found = geopandas.sjoin(known, geopandas.GeoDataFrame(geometry=frames, crs=crs))
        return len(shapely.intersection(found.geometry, frames[found["index_right"]]) if cut else found)

    contenders: Mapping[str, Callable[[], int]] = {
        "overlay (pieces, boxes, shares in pixels)": ours,
        "geopandas: sjoin, intersection": lambda: joined(cut=True),
        "geopandas: sjoin alone": lambda: joined(cut=False),
    }
    seconds = in_turn({name: lambda work=work: cpu_s(work) for name, work in contenders.items()}, runs)
    pairs = ", ".join(f"{found[0][1]:,}" for found in seconds.values())
    print(f"\n{len(candidates):,} objects, {n_chips:,} chips, pairs: {pairs}\n")
    per_s = {name: [n_chips / each for each, _ in found] for name, found in seconds.items()}
    print_rates("chips/s", per_s, next(iter(contenders)))


def frames_of(chips: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """The windows of chips in their CRS."""
    at = np.array([chip["transform"] for chip in chips])
    size = np.array([(chip["width"], chip["height"]) for chip in chips])
    return np.asarray(
        shapely.box(at[:, 2], at[:, 5] + size[:, 1] * at[:, 4], at[:, 2] + size[:, 0] * at[:, 0], at[:, 5])
    )


def memory(folder: Path, counts: list[int]) -> None:
    """Print peak memory by number of chips."""
    n = pq.read_metadata(folder / "plan.parquet").num_rows
    print()
    print_head("chips", "CPU s", "captions a CPU second", "peak memory GB", "captions.parquet GB")
    for count in counts:
        with tempfile.TemporaryDirectory() as out:
            repeated(folder, max(1, count // n), Path(out))
            command = [sys.executable, __file__, str(folder), "--only", out]
            run = run_apart(command)
            print(run.printed.splitlines()[-1], flush=True)


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("extract", type=Path, help="OSM extract")
    parser.add_argument("--gsd-m", type=float, default=0.6, help="metres a pixel of the scenes")
    parser.add_argument("--quota", type=int, default=200, help="chips wanted of each tag")
    parser.add_argument("--objects", type=int, default=600_000, help="objects of the overlay")
    parser.add_argument("--chips", type=int, default=10_000, help="chips of the overlay")
    parser.add_argument("--memory", type=int, nargs="*", default=[100_000, 1_000_000], help="chips of the last table")
    parser.add_argument("--runs", type=int, default=3, help="runs of the overlay")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    if "--only" in sys.argv:
        options = parser.parse_args()
        seconds, summary = cpu_s(lambda: write_all(options.extract, options.only, options.extract / "objects.parquet"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        size = (options.only / write.CAPTIONS_FILE).stat().st_size / 1e9
        rate = summary["captions"] * len(STYLES) / seconds
        print_row(f"{summary['chips']:,}", f"{seconds:.0f}", f"{rate:,.0f}", f"{peak:.2f}", f"{size:.2f}")
        return
    options = options_of(parser)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        make_plan(options.extract, options.gsd_m, options.quota, out)
        variety(rates(out))
        overlays(out, options.objects, options.chips, options.runs)
        memory(out, options.memory)


if __name__ == "__main__":
    main()
