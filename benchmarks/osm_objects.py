"""Extract to finished table: `osm_objects` beside osmium export, GDAL, pyrosm and QuackOSM, as ratios in one run.

    python benchmarks/make_extract.py ../shared/data/osm large.osm.pbf --copies 3
    python benchmarks/osm_objects.py ../shared/data/osm/malta.osm.pbf large.osm.pbf --peers /path/to/peers/bin/python

Every contender runs as a process of its own, `--runs` times in turn. "Work" is, for those in Python, the time without
start and imports, for the others the whole process; ratios are of work. osmium export (Debian: osmium-tool) writes a
GeoJSON sequence with our area rules; ogr2ogr (gdal-bin) writes points, lines, multilinestrings, multipolygons and other
relations of its OSM driver as a GeoJSON sequence each; pyrosm and QuackOSM read everything into GeoParquet with the
interpreter of `--peers`, for which `pip install pyrosm quackosm duckdb==1.4.4 duckdb-ext-spatial` and the spatial
extension, copied from there to ~/.duckdb/extensions/v1.4.4/linux_amd64, are needed where there is no internet.
Contenders that are not installed are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skyscript_assets.lib.osm.areas import AREA_ONLY, AREA_UNLESS

OBJECTS, EXPORT = "skyscript osm_objects", "osmium export"

PYTHON = """
import sys, time
{imports}
started = time.perf_counter()
{work}
print("work_s", time.perf_counter() - started)
"""

OURS = PYTHON.format(
    imports="""
import json
from pathlib import Path
from skyscript_assets.lib.osm.objects import write_objects
""",
    work="""
out = Path(sys.argv[2])
(out / "extract.json").write_text(json.dumps({"file": sys.argv[1], "bbox": [-180, -90, 180, 90]}))
write_objects(out, out)
""",
)

PYOSMIUM = PYTHON.format(
    imports="import osmium, pandas, geopandas, shapely",
    work="""
wkb = osmium.geom.WKBFactory()
rows, shapes = [], []
for o in osmium.FileProcessor(sys.argv[1]).with_areas().with_filter(osmium.filter.EmptyTagFilter()):
    try:
        if o.is_node(): shape = wkb.create_point(o)
        elif o.is_way() and not o.is_closed(): shape = wkb.create_linestring(o)
        elif o.is_area(): shape = wkb.create_multipolygon(o)
        else: continue
    except RuntimeError:
        continue
    rows.append((o.id, o.version, o.timestamp, dict(o.tags)))
    shapes.append(shape)
frame = pandas.DataFrame(rows, columns=["id", "version", "timestamp", "tags"])
frame["tags"] = frame["tags"].map(str)
geopandas.GeoDataFrame(frame, geometry=shapely.from_wkb(shapes), crs=4326).to_parquet(sys.argv[2] + "/o.parquet")
""",
)

PYROSM = PYTHON.format(
    imports="from pyrosm import OSM",
    work="""
keys = ("aeroway amenity barrier boundary building craft highway historic landuse leisure man_made military natural "
        "office place power railway route shop tourism waterway").split()
found = OSM(sys.argv[1]).get_data_by_custom_criteria({key: True for key in keys}, keep_nodes=True, keep_ways=True,
                                                     keep_relations=True)
found.astype({c: str for c in found.columns if c != "geometry"}).to_parquet(sys.argv[2] + "/o.parquet")
""",
)

QUACKOSM = PYTHON.format(
    imports="import quackosm",
    work="""
quackosm.convert_pbf_to_parquet(sys.argv[1], result_file_path=sys.argv[2] + "/o.parquet", ignore_cache=True,
                                working_directory=sys.argv[2], verbosity_mode="silent")
""",
)

GDAL = """
for layer in points lines multilinestrings multipolygons other_relations; do
    ogr2ogr -f GeoJSONSeq "$2/$layer.jsonl" "$1" $layer 2>/dev/null || exit 1
done
"""


@dataclass(frozen=True)
class Contender:
    """One way to do the work: `command` is given the extract and a folder."""

    name: str
    command: list[str]
    needs: str


def osmium_export_config() -> dict[str, Any]:
    """Our rules of areas as the configuration of `osmium export` (its manual, "CONFIG FILE" and "AREA HANDLING").

    One thing cannot be said there: that a closed way of which no tag says anything is a line. With `linear_tags` set to
    null, osmium makes lines of just those and of what is a line alone; the lists add what is both.
    """
    linear = [f"{key}={','.join(sorted(lines))}" for key, lines in AREA_UNLESS.items() if lines]
    linear += [f"{key}!={','.join(sorted({*areas, 'no'}))}" for key, areas in AREA_ONLY.items()]
    area = [f"{key}!={','.join(sorted({*lines, 'no'}))}" for key, lines in AREA_UNLESS.items()]
    area += [f"{key}={','.join(sorted(areas))}" for key, areas in AREA_ONLY.items() if areas]
    return {"attributes": {"type": True, "id": True}, "linear_tags": linear, "area_tags": area}


def contenders(folder: Path, peers: str) -> list[Contender]:
    """All of them, whether installed or not."""
    config = folder / "osmium.json"
    config.write_text(json.dumps(osmium_export_config()))
    export = f'osmium export -c {config} -f geojsonseq -O -o "$2/o.jsonl" "$1"'
    return [
        Contender(OBJECTS, [sys.executable, "-c", OURS], sys.executable),
        Contender(EXPORT, ["sh", "-c", export, "sh"], "osmium"),
        Contender("pyosmium loop", [sys.executable, "-c", PYOSMIUM], sys.executable),
        Contender("GDAL ogr2ogr", ["sh", "-c", GDAL, "sh"], "ogr2ogr"),
        Contender("QuackOSM", [peers, "-c", QUACKOSM], peers),
        Contender("pyrosm", [peers, "-c", PYROSM], peers),
    ]


@dataclass(frozen=True)
class Run:
    """One run: seconds of the process, seconds of the work in it, peak memory of its largest process in MB."""

    process_s: float
    work_s: float
    memory_mb: float


def measure(contender: Contender, extract: Path) -> Run | str:
    """One run, or how it failed."""
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as printed:
        started = time.perf_counter()
        # A temporary folder of its own, because pyrosm keeps results there for the next run.
        environment = os.environ | {"TMPDIR": out}
        command = [*contender.command, str(extract), out]
        process = subprocess.Popen(command, stdout=printed, stderr=said, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        printed.seek(0)
        if process.returncode:
            last = said.read().decode(errors="replace").strip().splitlines()
            return f"failed ({last[-1][:100] if last else process.returncode})"
        own = printed.read().split()
    work_s = float(own[-1]) if b"work_s" in own else seconds
    return Run(seconds, work_s, usage.ru_maxrss / 1024)


def measure_all(extract: Path, runs: int, peers: str) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """The runs of each contender, in turn, and what became of the others."""
    results: dict[str, list[Run]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        wanted = contenders(Path(folder), peers)
        for _ in range(runs):
            for contender in (c for c in wanted if c.name not in failed):
                result = measure(contender, extract) if shutil.which(contender.needs) else "not installed"
                if isinstance(result, str):
                    failed[contender.name] = result
                else:
                    results.setdefault(contender.name, []).append(result)
    return results, failed


def compare(extract: Path, runs: int, peers: str) -> None:
    """Print the table of one extract."""
    results, failed = measure_all(extract, runs, peers)
    work = {name: statistics.median(run.work_s for run in found) for name, found in results.items()}
    print(f"\n{extract.name}, {extract.stat().st_size / 1e6:.1f} MB, medians of {runs}\n")
    print("| | work, s | least to most | times osm_objects | times osmium export | process, s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for name, found in results.items():
        spread = f"{min(run.work_s for run in found):.2f}-{max(run.work_s for run in found):.2f}"
        beside = f"{work[name] / work[EXPORT]:.2f}" if EXPORT in work else "-"
        process = statistics.median(run.process_s for run in found)
        memory = statistics.median(run.memory_mb for run in found)
        ratio = work[name] / work[OBJECTS]
        print(f"| {name} | {work[name]:.2f} | {spread} | {ratio:.2f} | {beside} | {process:.2f} | {memory:.0f} |")
    for name, reason in failed.items():
        print(f"| {name} | {reason} | | | | | |")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extracts", type=Path, nargs="+", help="OSM PBF files")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", default="peers-python", help="Python interpreter that has pyrosm and quackosm")
    options = parser.parse_args()
    for extract in options.extracts:
        compare(extract.resolve(), options.runs, options.peers)


if __name__ == "__main__":
    main()
