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

import json
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from measuring import TIMED, Run, in_turn, options_of, parser_of, print_head, print_row, run_apart
from osmium_config import osmium_export_config

OBJECTS, EXPORT = "osm_objects", "osmium export"

OURS = TIMED.format(
    imports="""
import json
from pathlib import Path
from skyscript_assets.lib.osm.objects import write_objects
""",
    work="""
out = Path(sys.argv[2])
name = "extract" + "".join(Path(sys.argv[1]).suffixes[-2:])
(out / name).symlink_to(Path(sys.argv[1]).resolve())
(out / "extract.json").write_text(json.dumps({"file": name, "bbox": [-180, -90, 180, 90]}))
write_objects(out, out)
""",
)

PYOSMIUM = TIMED.format(
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

PYROSM = TIMED.format(
    imports="from pyrosm import OSM",
    work="""
keys = ("aeroway amenity barrier boundary building craft highway historic landuse leisure man_made military natural "
        "office place power railway route shop tourism waterway").split()
found = OSM(sys.argv[1]).get_data_by_custom_criteria({key: True for key in keys}, keep_nodes=True, keep_ways=True,
                                                     keep_relations=True)
found.astype({c: str for c in found.columns if c != "geometry"}).to_parquet(sys.argv[2] + "/o.parquet")
""",
)

QUACKOSM = TIMED.format(
    imports="import quackosm",
    work="""
quackosm.convert_pbf_to_parquet(sys.argv[1], result_file_path=sys.argv[2] + "/o.parquet", ignore_cache=True,
                                working_directory=sys.argv[2], verbosity_mode="silent")
""",
)

GDAL = """
for layer in points lines multilinestrings multipolygons other_relations; do
    ogr2ogr -f GeoJSONSeq "$2/$layer.jsonl" "$1" $layer || exit 1
done
"""


def contenders(folder: Path, peers: str) -> dict[str, list[str]]:
    """Commands that are given the extract and a folder, whether installed or not."""
    config = folder / "osmium.json"
    config.write_text(json.dumps(osmium_export_config()))
    export = f'osmium export -c {config} -f geojsonseq -O -o "$2/o.jsonl" "$1"'
    return {
        OBJECTS: [sys.executable, "-c", OURS],
        EXPORT: ["sh", "-c", export, "sh"],
        "pyosmium loop": [sys.executable, "-c", PYOSMIUM],
        "GDAL ogr2ogr": ["sh", "-c", GDAL, "sh"],
        "QuackOSM": [peers, "-c", QUACKOSM],
        "pyrosm": [peers, "-c", PYROSM],
    }


def run(command: list[str], extract: Path) -> Run:
    """One run of a contender, with a temporary folder of its own, because pyrosm keeps results there for the next."""
    with tempfile.TemporaryDirectory() as out:
        return run_apart([*command, str(extract), out], environment={"TMPDIR": out})


def compare(extract: Path, runs: int, peers: str) -> None:
    """Print the table of one extract."""
    with tempfile.TemporaryDirectory() as folder:
        commands = contenders(Path(folder), peers)
        results = in_turn({name: partial(run, command, extract) for name, command in commands.items()}, runs)
    work = {name: statistics.median(run.work_s for run in found) for name, found in results.items()}
    print(f"\n{extract.name}, {extract.stat().st_size / 1e6:.1f} MB, medians of {runs}\n")
    print_head("", "work, s", "least to most", "times osm_objects", "times osmium export", "process, s", "peak MB")
    for name, found in results.items():
        spread = f"{min(run.work_s for run in found):.2f}-{max(run.work_s for run in found):.2f}"
        beside = f"{work[name] / work[EXPORT]:.2f}" if EXPORT in work else "-"
        process = f"{statistics.median(run.process_s for run in found):.2f}"
        memory = f"{statistics.median(run.memory_mb for run in found):.0f}"
        print_row(name, f"{work[name]:.2f}", spread, f"{work[name] / work[OBJECTS]:.2f}", beside, process, memory)


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("extracts", type=Path, nargs="+", help="OSM PBF files")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", default="peers-python", help="Python interpreter that has pyrosm and quackosm")
    options = options_of(parser)
    for extract in options.extracts:
        compare(extract.resolve(), options.runs, options.peers)


if __name__ == "__main__":
    main()
