"""The frozen counts and decisions that chip plans use, so that a later region or label does not move earlier chips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.tables import fields, read_table, write_table
from skyscript_assets.lib.tags.groundability import GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA
from skyscript_assets.lib.tags.vocabulary import PLANNABLE_FILE, PLANNABLE_SCHEMA

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
    [("key", pa.string()), ("value", pa.string()), ("text", pa.string()), ("coarsest_gsd_m", pa.float64())]
)
"""Columns of `tags.parquet`, sorted by key and value: every visible tag."""


@dataclass(frozen=True)
class SnapshotSummary:
    """What `freeze_snapshot` wrote: visible tags, rows of the snapshot, and plannable objects by GSD in metres."""

    tags: int
    rows: int
    plannable: dict[str, int]


def freeze_snapshot(vocabulary_folder: Path, groundability_folder: Path, out: Path) -> SnapshotSummary:
    """Join counts and decisions into `snapshot.parquet` and `tags.parquet`.

    Args:
        vocabulary_folder: Output of `vocabulary.count_vocabulary`.
        groundability_folder: Output of `groundability.decide_groundability`.
        out: Existing folder that receives the two files.

    Raises:
        UpstreamMissingError: an input does not exist.
        CorruptInputError: an input is not a whole Parquet file.
        OutputSchemaError: an input lacks a column.
        TooLittleDataError: nothing would be frozen, for as long as the snapshot has this name.
    """
    decisions = read_table(groundability_folder / GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA)
    counts = read_table(vocabulary_folder / PLANNABLE_FILE, PLANNABLE_SCHEMA)
    order = [("key", "ascending"), ("value", "ascending")]
    tags = decisions.filter(pc.is_valid(decisions["coarsest_gsd_m"])).select(TAGS_SCHEMA.names).sort_by(order)
    joined = counts.rename_columns(["key", "value", "region", "gsd_m", "n_plannable"]).join(
        tags, ["key", "value"], join_type="inner"
    )
    seen = joined.filter(pc.less_equal(joined["gsd_m"], joined["coarsest_gsd_m"])).select(SNAPSHOT_SCHEMA.names)
    if seen.num_rows == 0:
        raise TooLittleDataError(
            f"none of {tags.num_rows} visible tags is on an object that could become a chip at the sources' GSDs: "
            "give larger regions or finer sources, or lower plan.min_object_px in plant.yaml"
        )
    seen = seen.sort_by([*order, ("region", "ascending"), ("gsd_m", "ascending")]).cast(SNAPSHOT_SCHEMA)
    write_table(out / TAGS_FILE, tags.combine_chunks().cast(TAGS_SCHEMA))
    write_table(out / SNAPSHOT_FILE, seen.combine_chunks())
    return SnapshotSummary(
        tags=tags.num_rows,
        rows=seen.num_rows,
        plannable={f"{row['gsd_m']:g}": row["n_plannable"] for row in tags_by_gsd(out).to_pylist()},
    )


def tags_by_gsd(snapshot_folder: Path) -> pa.Table:
    """What a snapshot lets plans choose from at each resolution.

    Args:
        snapshot_folder: Output of `freeze_snapshot`.

    Returns:
        gsd_m (metres), tags (distinct ones, over regions) and n_plannable (tags on objects), the finest first.
    """
    seen = read_table(snapshot_folder / SNAPSHOT_FILE, SNAPSHOT_SCHEMA)
    tags = seen.group_by(["gsd_m", "key", "value"]).aggregate([("n_plannable", "sum")])
    totals = tags.group_by("gsd_m").aggregate([([], "count_all"), ("n_plannable_sum", "sum")]).sort_by("gsd_m")
    return totals.select(["gsd_m", "count_all", "n_plannable_sum_sum"]).rename_columns(["gsd_m", "tags", "n_plannable"])
