"""Count the tags of a region with DuckDB, as the plant does, and with pandas, to the same table.

    python benchmarks/vocabulary.py ../shared/data/osm/malta.osm.pbf --repeats 8 32

Both start at `objects.parquet` and end with a written `vocabulary.parquet`; both normalise each distinct value once.
The larger tables hold the region's objects several times, with other ids. Exit status 1: the two results differ.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from measuring import in_turn, objects_of, options_of, parser_of, print_head, print_row

from skyscript_assets.lib.geometry import metres_per_degree
from skyscript_assets.lib.osm.sight import out_of_sight
from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tables import write_table
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.text import tag_text, text_reason
from skyscript_assets.lib.tags.vocabulary import (
    RARE_BELOW,
    VOCABULARY_FILE,
    VOCABULARY_SCHEMA,
    count_tags,
    limits_px,
    open_counter,
)

GSDS_M = (0.3, 1.0)
CHIPS = SizeSettings()
REGION = "region"


def count_with_pandas(path: Path, out: Path) -> None:
    """`vocabulary.parquet` of one region."""
    frame = pq.read_table(path, columns=["object_id", "tags", "bbox"]).to_pandas()
    frame = frame[~out_of_sight(path)].reset_index(drop=True)
    box = pd.json_normalize(frame["bbox"])
    metres = metres_per_degree(0.0)[1]
    width = (box["xmax"] - box["xmin"]) * metres * np.cos(np.radians((box["ymin"] + box["ymax"]) / 2))
    height = (box["ymax"] - box["ymin"]) * metres
    kind = frame["object_id"].str[0].map({"n": "node", "w": "line"}).fillna("area")
    longer = np.maximum(width, height)
    able = pd.Series(data=False, index=frame.index)
    for gsd in GSDS_M:
        for name in ("area", "line", "node"):
            here = kind == name
            least, most = limits_px(name, CHIPS)
            able[here] |= longer[here].between(least * gsd, most * gsd)
    objects = pd.DataFrame({"kind": kind, "able": able, "tags": frame["tags"]})
    objects["longer_side_m"] = np.floor(longer * 10 + 0.5) / 10
    objects["shorter_side_m"] = np.floor(np.minimum(width, height) * 10 + 0.5) / 10
    tagged = objects.explode("tags").dropna(subset="tags").reset_index(drop=True)
    tagged[["key", "value"]] = pd.DataFrame(tagged.pop("tags").tolist(), index=tagged.index)
    tagged["value"] = tagged["value"].map({value: normal_values(value) for value in tagged["value"].unique()})
    tagged = tagged.explode("value").dropna(subset="value")

    table = tagged.groupby(["key", "value", "kind"], as_index=False).agg(
        n=("able", "size"), n_plannable=("able", "sum")
    )
    distinct = table[["key", "value"]].drop_duplicates()
    tags = list(zip(distinct["key"], distinct["value"], strict=True))
    distinct["text"] = [tag_text(*tag) for tag in tags]
    distinct["is_class"] = [text_reason(*tag) is None for tag in tags]
    table = table.merge(distinct, on=["key", "value"])
    sized = tagged[tagged["kind"] != "node"].merge(distinct[distinct["is_class"]], on=["key", "value"])
    sides = sized.groupby(["key", "value", "kind"])[["longer_side_m", "shorter_side_m"]]
    table = table.merge(sides.quantile(0.5, interpolation="lower").reset_index(), "left", ["key", "value", "kind"])
    table["rare"] = table.groupby(["key", "value"])["n"].transform("sum") < RARE_BELOW
    table["region"] = REGION
    table = table.sort_values(["key", "value", "kind"])
    write_table(
        out / VOCABULARY_FILE,
        pa.Table.from_pandas(table[VOCABULARY_SCHEMA.names], VOCABULARY_SCHEMA, preserve_index=False),
    )


def count_with_duckdb(path: Path, out: Path) -> None:
    """The same by the code of the stage."""
    with open_counter({REGION: path}) as counter:
        write_table(out / VOCABULARY_FILE, count_tags(counter, GSDS_M, CHIPS, RARE_BELOW)[0])


def repeat(path: Path, times: int, out: Path) -> Path:
    """A table whose objects are those of another, so many times, with other ids."""
    table = pq.read_table(path)
    parts = []
    for i in range(times):
        ids = pc.binary_join_element_wise(table["object_id"], str(i), "")
        parts.append(table.set_column(table.schema.get_field_index("object_id"), "object_id", ids))
    write_table(out, pa.concat_tables(parts))
    return out


def seconds(count: Callable[[Path, Path], None], path: Path, out: Path) -> float:
    """What one counting takes."""
    out.mkdir(exist_ok=True)
    start = time.perf_counter()
    count(path, out)
    return time.perf_counter() - start


def main() -> int:
    """Print a Markdown table; return 1 where the two results differ."""
    parser = parser_of(__doc__)
    parser.add_argument("extract", type=Path, help="OSM extract")
    parser.add_argument("--repeats", type=int, nargs="*", default=[8], help="how often larger tables hold each object")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the medians are told")
    options = options_of(parser)
    print_head("objects", "tags on objects", "DuckDB, s", "pandas, s", "ratio of medians")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [objects_of(options.extract, folder)]
        paths += [repeat(paths[0], times, folder / f"repeated-{times}.parquet") for times in options.repeats]
        for path in paths:
            ways = {"duckdb": count_with_duckdb, "pandas": count_with_pandas}
            runs = in_turn(
                {way: partial(seconds, count, path, folder / way) for way, count in ways.items()}, options.runs
            )
            ours, theirs = (pq.read_table(folder / way / VOCABULARY_FILE) for way in ways)
            if not ours.equals(theirs):
                print("the two tables differ")
                return 1
            fast, slow = (statistics.median(runs[way]) for way in ways)
            objects, occurrences = pq.read_metadata(path).num_rows, pc.sum(ours["n"]).as_py()
            print_row(f"{objects:,}", f"{occurrences:,}", f"{fast:.2f}", f"{slow:.2f}", f"{slow / fast:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
