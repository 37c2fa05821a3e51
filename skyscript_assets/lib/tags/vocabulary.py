"""How often each tag occurs, by region and kind of object, and how many of its objects could become a chip by size.

Counting is DuckDB's, over the GeoParquet tables of the regions. The size rule is told twice, as SQL here and as
`plannable` for the planner; a test holds the two against each other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.geometry import metres_per_degree
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import ChipSettings
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_table, write_table
from skyscript_assets.lib.tags.text import tag_text, text_reason

KINDS: tuple[str, ...] = ("area", "line", "node")
"""Kinds of objects: the first letter of an object id is a or r, w, n."""

VOCABULARY_FILE = "vocabulary.parquet"
VOCABULARY_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("text", pa.string()),
        ("region", pa.string()),
        ("kind", pa.string()),
        ("n", pa.int64()),
        ("n_plannable", pa.int64()),
    ]
)
"""Columns of `vocabulary.parquet`, sorted by key, value, region, kind; `n_plannable` counts objects whose size suits a
chip at one of the GSDs at least."""

PLANNABLE_FILE = "plannable.parquet"
PLANNABLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("region", pa.string()),
        ("gsd_m", pa.float64()),
        ("n", pa.int64()),
    ]
)
"""Columns of `plannable.parquet`, sorted by key, value, region, gsd_m: objects whose size suits a chip at that GSD;
rows with none are left out."""

MEMORY_LIMIT = "2GB"
"""What DuckDB may hold; beyond, it spills to a temporary folder."""

PLOTTED_TAGS = 30

_NEEDED_SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)])

# Where an object lies in two regions the first by name counts it. Only the ids that occur twice are kept for that.
_REGION_OF_SHARED = """
    CREATE TEMP TABLE shared AS
    SELECT object_id, min(region) AS region
    FROM (SELECT DISTINCT object_id, region FROM objects)
    GROUP BY object_id HAVING count(*) > 1
"""

# One pass over the objects: each is sized once, its tags are unnested, and counts are made for all GSDs side by side.
_COUNT = """
    WITH owned AS (
        SELECT objects.region, tags,
            CASE left(objects.object_id, 1) WHEN 'n' THEN 'node' WHEN 'w' THEN 'line' ELSE 'area' END AS kind,
            greatest(
                (bbox.xmax - bbox.xmin) * {metres} * cos(radians((bbox.ymin + bbox.ymax) / 2)),
                (bbox.ymax - bbox.ymin) * {metres}
            ) AS longer_side_m
        FROM objects LEFT JOIN shared ON objects.object_id = shared.object_id
        WHERE shared.region IS NULL OR shared.region = objects.region
    ),
    tagged AS (
        SELECT region, kind, {able}, unnest(map_entries(tags)) AS tag FROM owned
    )
    SELECT tag.key AS key, tag.value AS value, region, kind, count(*) AS n, {any_able} AS n_plannable, {sums}
    FROM tagged GROUP BY ALL ORDER BY key, value, region, kind
"""


@dataclass(frozen=True)
class VocabularySummary:
    """What `count_vocabulary` found.

    Attributes:
        objects: Objects counted, by region; an object in two regions counts in the first by name.
        shared_objects: Objects that lie in two regions or more.
        tags: Distinct key=value.
        text_tags: Those among them that are names, numbers and other text (`text.text_reason`).
        rare_tags: Distinct key=value that occur once.
        occurrences: Tags on objects.
        plannable: Occurrences on objects whose size suits a chip, by GSD in metres.
    """

    objects: dict[str, int]
    shared_objects: int
    tags: int
    text_tags: int
    rare_tags: int
    occurrences: int
    plannable: dict[str, int]


def plannable(kind: str, longer_side_m: NDArray[np.float64], gsd_m: float, chips: ChipSettings) -> NDArray[np.bool_]:
    """Whether objects of a kind have a size that suits a chip at a GSD.

    Nodes have no size and always do. By the `focus` rule a line or an area needs `min_object_px` pixels along its
    longer side, and an area with its context must fit into `max_tile_px`. The `paper` rule asks
    lines for nothing, and areas for a box between `min_tile_px` and `max_tile_px` (SkyScript: a range of tile sizes).

    Args:
        kind: node, line or area.
        longer_side_m: Longer side of the objects' boxes in metres, any shape.
        gsd_m: Ground sample distance, metres.
        chips: Rule and limits.

    Returns:
        Booleans of the shape of `longer_side_m`.
    """
    least, most = _limits_px(kind, chips)
    # The same products in the same order as in SQL, so that the two agree to the last bit.
    sides = np.asarray(longer_side_m, np.float64)
    return np.asarray((sides >= least * gsd_m) & (sides <= most * gsd_m), np.bool_)


def _limits_px(kind: str, chips: ChipSettings) -> tuple[float, float]:
    """Least and greatest longer side in pixels."""
    paper = chips.rule == "paper"
    if kind == "node" or (kind == "line" and paper):
        return 0.0, math.inf
    if kind == "line":
        return float(chips.min_object_px), math.inf
    if paper:
        return float(chips.min_tile_px), float(chips.max_tile_px)
    return float(chips.min_object_px), chips.max_tile_px / chips.context


def _able_sql(gsd_m: float, chips: ChipSettings) -> str:
    cases = []
    for kind in KINDS:
        least, most = (limit * gsd_m for limit in _limits_px(kind, chips))
        upper = "" if math.isinf(most) else f" AND longer_side_m <= {most!r}::DOUBLE"
        cases.append(f"WHEN '{kind}' THEN longer_side_m >= {least!r}::DOUBLE{upper}")
    return f"CASE kind {' '.join(cases)} END"


def count_vocabulary(
    objects: Mapping[str, Path],
    gsds_m: Sequence[float],
    chips: ChipSettings,
    out: Path,
    threads: int = 2,
    progress: Progress = silent,
) -> VocabularySummary:
    """Count the tags of all regions into `vocabulary.parquet` and `plannable.parquet`.

    Args:
        objects: `objects.parquet` of each region.
        gsds_m: Nominal GSDs of the sources, metres.
        chips: Limits of an object's size.
        out: Existing folder that receives the two files.
        threads: Threads of DuckDB.
        progress: Told when the counting and the texts are done.

    Raises:
        UpstreamMissingError: a region's table does not exist.
        CorruptInputError: it is not a whole Parquet file.
        OutputSchemaError: it lacks a column.
    """
    for path in objects.values():
        _check(path)
    gsds = sorted({float(gsd) for gsd in gsds_m})
    with tempfile.TemporaryDirectory(prefix="vocabulary-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
        }
        with duckdb.connect(config=config) as db:
            counts, per_region, shared = _count(db, objects, gsds, chips)
    progress(1, 3, "steps")
    texts = pa.array(
        [tag_text(key, value) for key, value in zip(*(counts[c].to_pylist() for c in ("key", "value")), strict=True)],
        pa.string(),
    )
    table = counts.append_column("text", texts).select(VOCABULARY_SCHEMA.names).cast(VOCABULARY_SCHEMA)
    write_table(out / VOCABULARY_FILE, table)
    progress(2, 3, "steps")
    at_gsd = _plannable_rows(counts, gsds)
    write_table(out / PLANNABLE_FILE, at_gsd)
    progress(3, 3, "steps")
    totals = table.group_by(["key", "value"]).aggregate([("n", "sum")])
    return VocabularySummary(
        objects=per_region,
        shared_objects=shared,
        tags=totals.num_rows,
        text_tags=sum(
            text_reason(key, value) is not None
            for key, value in zip(totals["key"].to_pylist(), totals["value"].to_pylist(), strict=True)
        ),
        rare_tags=int(pc.sum(pc.equal(totals["n_sum"], 1)).as_py() or 0),
        occurrences=int(pc.sum(table["n"]).as_py() or 0),
        plannable={
            f"{gsd:g}": int(pc.sum(at_gsd.filter(pc.equal(at_gsd["gsd_m"], gsd))["n"]).as_py() or 0) for gsd in gsds
        },
    )


def _check(path: Path) -> None:
    if not path.is_file():
        raise UpstreamMissingError(f"{path} does not exist: materialize osm_objects first")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptInputError(
            f"{path} is not a whole Parquet file ({error}); materialize osm_objects again"
        ) from error
    for field in _NEEDED_SCHEMA:
        found = schema.field(field.name).type if field.name in schema.names else None
        if found != field.type:
            raise OutputSchemaError(
                f"{path}: column {field.name} should be {field.type}, found {found}; materialize osm_objects again"
            )


def _count(
    db: duckdb.DuckDBPyConnection, objects: Mapping[str, Path], gsds: Sequence[float], chips: ChipSettings
) -> tuple[pa.Table, dict[str, int], int]:
    """Counts by key, value, region and kind with a column `p<i>` for each GSD; objects by region; shared objects."""
    regions = sorted(objects)
    try:
        relation = db.from_arrow(_NEEDED_SCHEMA.empty_table()).project("*, 0 AS region")
        for i, region in enumerate(regions):
            here = db.read_parquet(str(objects[region])).project(f"object_id, tags, bbox, {i} AS region")
            relation = relation.union(here)
        relation.create_view("objects")
        db.execute(_REGION_OF_SHARED)
        query = _COUNT.format(
            metres=repr(metres_per_degree(0.0)[1]),
            able=", ".join(f"{_able_sql(gsd, chips)} AS p{i}" for i, gsd in enumerate(gsds)) or "false AS p0",
            any_able=f"count_if({' OR '.join(f'p{i}' for i in range(max(1, len(gsds))))})",
            sums=", ".join(f"count_if(p{i}) AS p{i}" for i in range(max(1, len(gsds)))),
        )
        counts: pa.Table = db.sql(query).to_arrow_table()
        rows = db.execute(
            "SELECT objects.region, count(*) FROM objects LEFT JOIN shared ON objects.object_id = shared.object_id "
            "WHERE shared.region IS NULL OR shared.region = objects.region GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        shared = db.execute("SELECT count(*) FROM shared").fetchall()[0][0]
    except duckdb.Error as error:
        names = ", ".join(str(objects[region]) for region in regions)
        raise CorruptInputError(f"the tables of objects cannot be counted ({error}); files: {names}") from error
    # Regions are numbered in the order of their names.
    names_column = pa.array([regions[i] for i in counts["region"].to_pylist()], pa.string())
    counts = counts.set_column(counts.schema.get_field_index("region"), "region", names_column)
    return counts, dict.fromkeys(regions, 0) | {regions[i]: n for i, n in rows}, int(shared)


def _plannable_rows(counts: pa.Table, gsds: Sequence[float]) -> pa.Table:
    """One row for each tag, region and GSD that has plannable objects."""
    by_region = counts.group_by(["key", "value", "region"]).aggregate([(f"p{i}", "sum") for i in range(len(gsds))])
    parts = []
    for i, gsd in enumerate(gsds):
        some = by_region.filter(pc.greater(by_region[f"p{i}_sum"], 0))
        column = pa.array(np.full(some.num_rows, gsd), pa.float64())
        some = some.append_column("gsd_m", column).append_column("n", some[f"p{i}_sum"].cast(pa.int64()))
        parts.append(some.select(PLANNABLE_SCHEMA.names).cast(PLANNABLE_SCHEMA))
    if not parts:
        return PLANNABLE_SCHEMA.empty_table()
    order = [(name, "ascending") for name in ("key", "value", "region", "gsd_m")]
    return pa.concat_tables(parts).sort_by(order).combine_chunks()


def plot_tag_counts(vocabulary_folder: Path, png_path: Path) -> None:
    """Draw the most frequent tags that are no text, as bars stacked by region.

    Args:
        vocabulary_folder: Output of `count_vocabulary`.
        png_path: The picture, PNG of under 100 kB.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    table = read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA)
    by_region = table.group_by(["key", "value", "region"]).aggregate([("n", "sum")]).to_pylist()
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in by_region:
        if text_reason(row["key"], row["value"]) is None:
            counts.setdefault((row["key"], row["value"]), {})[row["region"]] = row["n_sum"]
    top = sorted(counts, key=lambda tag: (-sum(counts[tag].values()), tag))[:PLOTTED_TAGS]
    names = [f"{key}={value}" for key, value in top]
    figure, axes = plt.subplots(figsize=(7.0, 1.0 + 0.2 * max(4, len(top))), dpi=90)
    left = np.zeros(len(top))
    for region in sorted({row["region"] for row in by_region}):
        widths = np.array([counts[tag].get(region, 0) for tag in top], float)
        axes.barh(names, widths, left=left, label=region)
        left += widths
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("objects")
    axes.set_title(f"The {len(top)} most frequent tags" if top else "No tags")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if by_region:
        axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(png_path, metadata={"Software": None})
    plt.close(figure)
