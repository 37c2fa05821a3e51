"""Everything known about the image-caption pairs of one region and source, as one table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.tables import read_table

PLAN_COLUMNS = (
    "chip_id",
    "object_id",
    "region",
    "source",
    "scene_id",
    "gsd_m",
    "bbox",
    "focus_box",
    "stratum",
    "cell",
    "split",
)
CHIP_COLUMNS = (
    "shard",
    "offset",
    "length",
    "width",
    "height",
    "datetime",
    "sha256",
    "licence",
    "attribution",
    "synthetic",
)
CAPTION_COLUMNS = ("title", "title_multi_objects", "center_tags")
SCORE_COLUMNS = ("column", "score", "scorer")
OBJECT_COLUMNS = ("version", "timestamp")


def read_pairs(plan: Path, chips: Path, captions: Path, scores: Path, objects: Path | None = None) -> pa.Table:
    """The accepted chips that have captions, in the order of the plan.

    Args:
        plan: A `chip_plan` folder.
        chips: An `image_chips` folder.
        captions: A `captions` folder.
        scores: A `clip_scores` folder; `column`, `score` and `scorer` are null where it lacks a chip.
        objects: An `osm_objects` folder; given, the objects' `version` and `timestamp` are added.

    Returns:
        A table of the columns named in this module, each as its own stage defines it.

    Raises:
        UpstreamMissingError: a table is missing.
        CorruptInputError: a table is not whole.
        OutputSchemaError: a table is of another version.
    """
    table = read_table(plan / "plan.parquet", PLAN_SCHEMA, PLAN_COLUMNS)
    cut = read_table(chips / "chips.parquet", CHIP_SCHEMA, ("chip_id", "status", *CHIP_COLUMNS))
    cut = cut.filter(pc.equal(cut["status"], "ok"))
    written = read_table(captions / "captions.parquet", CAPTION_SCHEMA, ("chip_id", *CAPTION_COLUMNS))
    scored = read_table(scores / "scores.parquet", SCORE_SCHEMA, ("chip_id", *SCORE_COLUMNS))
    both = pc.and_(
        pc.is_in(table["chip_id"], value_set=cut["chip_id"]), pc.is_in(table["chip_id"], value_set=written["chip_id"])
    )
    table = table.filter(both).combine_chunks()
    table = _joined(table, cut, "chip_id", CHIP_COLUMNS)
    table = _joined(table, written, "chip_id", CAPTION_COLUMNS)
    table = _joined(table, scored, "chip_id", SCORE_COLUMNS)
    if objects is not None:
        known = read_table(objects / "objects.parquet", OBJECT_SCHEMA, ("object_id", *OBJECT_COLUMNS))
        table = _joined(table, known, "object_id", OBJECT_COLUMNS)
    return table


def _joined(table: pa.Table, other: pa.Table, key: str, columns: tuple[str, ...]) -> pa.Table:
    """The table with columns of another one's rows of the same key, null where it has none."""
    rows = other.select(columns).take(pc.index_in(table[key], value_set=other[key]))
    for name in columns:
        table = table.append_column(rows.schema.field(name), rows[name])
    return table
