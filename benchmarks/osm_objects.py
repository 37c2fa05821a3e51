"""Extract to finished table: `osm_objects` beside osmium export, GDAL, pyrosm and QuackOSM, as ratios in one run.

    python benchmarks/make_extract.py ../shared/data/osm large.osm.pbf --copies 3
    python benchmarks/osm_objects.py ../shared/data/osm/malta.osm.pbf large.osm.pbf --peers /path/to/peers/bin/python

Every contender runs as a process of its own, start of the interpreter included, `--runs` times in turn; medians of wall
time and of peak memory are shown. osmium export (Debian: osmium-tool) writes a GeoJSON sequence with our area rules;
ogr2ogr (gdal-bin) writes points, lines, multilinestrings and multipolygons of its OSM driver as a GeoJSON sequence each;
pyrosm and QuackOSM read everything into GeoParquet with the interpreter of `--peers`
(`pip install pyrosm quackosm duckdb==1.4.4 duckdb-ext-spatial`, and the spatial extension copied to ~/.duckdb/extensions).
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

from skyscript_assets.lib.osm.areas import osmium_export_config

OURS = """
import json, sys
from pathlib import Path
from skyscript_assets.lib.osm.objects import write_objects
out = Path(sys.argv[2])
facts = {"file": sys.argv[1], "bbox": [-180, -90, 180, 90]}
(out / "extract.json").write_text(json.dumps(facts))
write_objects(out, out)
"""

PYOSMIUM = """
import sys
import osmium, pandas, geopandas, shapely
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
"""

PYROSM = """
import sys
from pyrosm import OSM
osm = OSM(sys.argv[1])
found = osm.get_data_by_custom_criteria({}, osm_keys_to_keep=None, filter_type="keep", keep_nodes=True, keep_ways=True,
                                        keep_relations=True)
found.astype({c: str for c in found.columns if c != "geometry"}).to_parquet(sys.argv[2] + "/o.parquet")
"""

QUACKOSM = """
import sys
import quackosm
quackosm.convert_pbf_to_parquet(sys.argv[1], result_file_path=sys.argv[2] + "/o.parquet", ignore_cache=True,
                                working_directory=sys.argv[2], verbosity_mode="silent")
"""

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


def contenders(folder: Path, peers: str) -> list[Contender]:
    """All of them, whether installed or not."""
    config = folder / "osmium.json"
    config.write_text(json.dumps(osmium_export_config()))
    export = f'osmium export -c {config} -f geojsonseq -O -o "$2/o.jsonl" "$1"'
    return [
        Contender("skyscript osm_objects", [sys.executable, "-c", OURS], sys.executable),
        Contender("osmium export", ["sh", "-c", export, "sh"], "osmium"),
        Contender("pyosmium loop", [sys.executable, "-c", PYOSMIUM], sys.executable),
        Contender("GDAL ogr2ogr", ["sh", "-c", GDAL, "sh"], "ogr2ogr"),
        Contender("QuackOSM", [peers, "-c", QUACKOSM], peers),
        Contender("pyrosm", [peers, "-c", PYROSM], peers),
    ]


def measure(contender: Contender, extract: Path) -> tuple[float, float] | str:
    """Seconds and peak memory in MB (the largest process of it), or how it failed."""
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*contender.command, str(extract), out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()
        return f"failed ({last[-1][:100] if last else process.returncode})"
    return seconds, usage.ru_maxrss / 1024


def compare(extract: Path, runs: int, peers: str) -> None:
    """Print the table of one extract."""
    print(f"\n{extract.name}, {extract.stat().st_size / 1e6:.1f} MB, median of {runs}\n")
    print("| | seconds | spread | times osm_objects | times osmium export | peak MB |")
    print("|---|---|---|---|---|---|")
    results: dict[str, list[tuple[float, float]]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        wanted = contenders(Path(folder), peers)
        for _ in range(runs):
            for contender in wanted:
                if contender.name in failed:
                    continue
                if shutil.which(contender.needs) is None:
                    failed[contender.name] = "not installed"
                    continue
                result = measure(contender, extract)
                if isinstance(result, str):
                    failed[contender.name] = result
                else:
                    results.setdefault(contender.name, []).append(result)
    seconds = {name: statistics.median(s for s, _ in found) for name, found in results.items()}
    for name, found in results.items():
        memory = statistics.median(m for _, m in found)
        least, most = min(s for s, _ in found), max(s for s, _ in found)
        beside = f"{seconds[name] / seconds['osmium export']:.2f}" if "osmium export" in seconds else "-"
        ratio = seconds[name] / seconds["skyscript osm_objects"]
        print(f"| {name} | {seconds[name]:.2f} | {least:.2f}-{most:.2f} | {ratio:.2f} | {beside} | {memory:.0f} |")
    for name, reason in failed.items():
        print(f"| {name} | {reason} | | | | |")


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
