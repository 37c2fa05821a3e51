"""The frozen counts and decisions that chip plans use, so that a later region or label does not move earlier chips."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.osm.meaning import is_gone
from skyscript_assets.lib.tables import fields, read_table, write_table
from skyscript_assets.lib.tags.groundability import GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA
from skyscript_assets.lib.tags.vocabulary import PLANNABLE_FILE, PLANNABLE_SCHEMA, VOCABULARY_FILE, VOCABULARY_SCHEMA

SNAPSHOT_FILE = "snapshot.parquet"
SNAPSHOT_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "key", "value", "text", "region"),
        ("gsd_m", pa.float64()),
        ("n_plannable", pa.int64()),
        ("coarsest_gsd_m", pa.float64()),
    ]
)
"""Columns of `snapshot.parquet`, sorted by key, value, region, gsd_m: visible tags at the GSDs where they show."""

TAGS_FILE = "tags.parquet"
TAGS_SCHEMA = pa.schema(
    [*fields(pa.string(), "key", "value", "text"), *fields(pa.float64(), "coarsest_gsd_m", "area_side_m")]
)
"""Columns of `tags.parquet`, sorted by key and value: every visible tag. `area_side_m` is the typical longer side of
its areas, metres, by which points of it are judged; null where it has few."""

MIN_AREAS = 3
"""Areas of a tag from which their size is told."""

PLACE_SIDE_M = 500.0
"""What is taken for a place's extent, metres, where no areas tell it: villages are mapped as points."""

NODE_VIEW_PX = 160
"""Side in pixels of the ground that is taken for a node's: a school of 100 m mapped as a point shows nothing where that
is less."""

GENERAL, GENERAL_KEYS = "yes", ("building", "building:part", "bridge")
"""Keys whose values are said as `yes` where they cannot be told: a school's building is a building."""


def freeze_snapshot(vocabulary_folder: Path, groundability_folder: Path, out: Path) -> dict[str, Any]:
    """Join counts and decisions into `snapshot.parquet` and `tags.parquet`.

    Returns numbers of visible `tags`, of `rows` of the snapshot, and of `plannable` objects by GSD in metres.

    Raises:
        UpstreamMissingError: an input does not exist.
        CorruptInputError: an input is not a whole Parquet file.
        OutputSchemaError: an input lacks a column.
        TooLittleDataError: nothing would be frozen, for as long as the snapshot has this name.
    """
    decisions = read_table(groundability_folder / GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA)
    counts = read_table(vocabulary_folder / PLANNABLE_FILE, PLANNABLE_SCHEMA)
    order = [("key", "ascending"), ("value", "ascending")]
    gone = [is_gone(*tag) for tag in zip(*(decisions[name].to_pylist() for name in ("key", "value")), strict=True)]
    used = pc.and_(pc.is_valid(decisions["coarsest_gsd_m"]), pc.invert(pa.array(gone, pa.bool_())))
    tags = decisions.filter(used).select(TAGS_SCHEMA.names[:-1])
    vocabulary = read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA)
    tags = _with_sides(tags, vocabulary).sort_by(order)
    seen = _seen(counts, tags, vocabulary)
    if seen.num_rows == 0:
        raise TooLittleDataError(
            f"none of {tags.num_rows} visible tags is on an object that could become a chip at the sources' GSDs: "
            "give larger regions or finer sources, or lower plan.min_object_px in plant.yaml"
        )
    seen = seen.sort_by([*order, ("region", "ascending"), ("gsd_m", "ascending")]).cast(SNAPSHOT_SCHEMA)
    write_table(out / TAGS_FILE, tags.combine_chunks().cast(TAGS_SCHEMA))
    write_table(out / SNAPSHOT_FILE, seen.combine_chunks())
    return {
        "tags": tags.num_rows,
        "rows": seen.num_rows,
        "plannable": {f"{row['gsd_m']:g}": row["n_plannable"] for row in tags_by_gsd(out).to_pylist()},
    }


def is_general(key: str, value: str) -> bool:
    """Whether a tag is true in its general form too: `building=school` says that there is a building."""
    return key in GENERAL_KEYS and value != "no" and not is_gone(key, value)


def _seen(counts: pa.Table, tags: pa.Table, vocabulary: pa.Table) -> pa.Table:
    """Plannable objects of the visible tags at the GSDs where they show: columns of `snapshot.parquet`, unsorted."""
    names, key = ["key", "value", "region", "gsd_m"], ["key", "value"]
    known = counts.join(tags, key)
    told = pc.fill_null(pc.less_equal(known["gsd_m"], known["coarsest_gsd_m"]), fill_value=False)
    rest = known.filter(pc.and_(pc.invert(told), pc.is_in(known["key"], value_set=pa.array(GENERAL_KEYS))))
    pairs = zip(rest["key"].to_pylist(), rest["value"].to_pylist(), strict=True)
    true = [value != GENERAL and is_general(name, value) for name, value in pairs]
    rest = rest.filter(pa.array(true, pa.bool_())).select([*names, "n"])
    rest = rest.set_column(1, "value", pa.repeat(pa.scalar(GENERAL), rest.num_rows))
    counts = pa.concat_tables([counts.select([*names, "n"]), rest]).group_by(names).aggregate([("n", "sum")])
    nodes = vocabulary.filter(pc.equal(vocabulary["kind"], "node")).select([*names[:3], "n"])
    known = counts.join(tags, key, join_type="inner").join(nodes, names[:3])
    large = pc.fill_null(pc.greater(known["area_side_m"], pc.multiply(known["gsd_m"], NODE_VIEW_PX)), fill_value=False)
    lost = pc.if_else(large, pc.fill_null(known["n"], 0), 0)
    known = known.append_column("n_plannable", pc.subtract(known["n_sum"], lost))
    good = pc.and_(pc.less_equal(known["gsd_m"], known["coarsest_gsd_m"]), pc.greater(known["n_plannable"], 0))
    return known.filter(good).select(SNAPSHOT_SCHEMA.names)


def _with_sides(tags: pa.Table, vocabulary: pa.Table) -> pa.Table:
    """Tags with the median longer side of their areas, the mean over regions weighted by areas."""
    areas = vocabulary.filter(pc.and_(pc.equal(vocabulary["kind"], "area"), pc.is_valid(vocabulary["longer_side_m"])))
    areas = areas.append_column("sum_m", pc.multiply(areas["longer_side_m"], areas["n"]))
    sums = areas.group_by(["key", "value"]).aggregate([("n", "sum"), ("sum_m", "sum")])
    sums = sums.filter(pc.greater_equal(sums["n_sum"], MIN_AREAS))
    sides = pc.round(pc.divide(sums["sum_m_sum"], sums["n_sum"]), 1)
    known = tags.join(sums.select(["key", "value"]).append_column("area_side_m", sides), ["key", "value"])
    of_place = pc.and_(pc.equal(known["key"], "place"), pc.is_null(known["area_side_m"]))
    return known.set_column(
        known.column_names.index("area_side_m"), "area_side_m", pc.if_else(of_place, PLACE_SIDE_M, known["area_side_m"])
    )


def tags_by_gsd(snapshot_folder: Path) -> pa.Table:
    """What a snapshot folder lets plans choose from at each resolution, the finest first.

    Columns are gsd_m (metres), tags (distinct ones, over regions) and n_plannable (tags on objects).
    """
    seen = read_table(snapshot_folder / SNAPSHOT_FILE, SNAPSHOT_SCHEMA)
    tags = seen.group_by(["gsd_m", "key", "value"]).aggregate([("n_plannable", "sum")])
    totals = tags.group_by("gsd_m").aggregate([([], "count_all"), ("n_plannable_sum", "sum")]).sort_by("gsd_m")
    return totals.select(["gsd_m", "count_all", "n_plannable_sum_sum"]).rename_columns(["gsd_m", "tags", "n_plannable"])
