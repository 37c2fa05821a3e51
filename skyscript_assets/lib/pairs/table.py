"""Everything known about the image-caption pairs of one region and source, as one table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.tables import read_table

PLAN_COLUMNS = (
    *("chip_id", "object_id", "region", "source", "scene_id"),
    *("gsd_m", "bbox", "focus_box", "stratum", "cell", "split"),
)
CHIP_COLUMNS = (
    *("shard", "offset", "length", "width", "height"),
    *("datetime", "sha256", "phash", "licence", "attribution", "synthetic"),
)
CAPTION_COLUMNS = (*STYLES, "center_tags", "statements")
SCORE_COLUMNS = ("column", "score", "scorer", "scores")
OBJECT_COLUMNS = ("version", "timestamp")

MADE_OF = ("chip_plan", "image_chips", "captions", "clip_scores")
"""Stages that pairs are read from."""


@dataclass(frozen=True)
class PartitionFolders:
    """Where the stages of one region and source lie: each the output that is made from those before it.

    `objects` is the `osm_objects` folder of the region, where versions and times of objects are wanted.
    """

    plan: Path
    chips: Path
    captions: Path
    scores: Path
    objects: Path | None = None


def partition_folders(
    folders: Callable[[str], Mapping[tuple[str, str], Path]],
) -> dict[tuple[str, str], PartitionFolders]:
    """The regions and sources of which all stages of `MADE_OF` have an output, given the folders of a stage."""
    stages = [folders(name) for name in MADE_OF]
    return {
        pair: PartitionFolders(*(stage[pair] for stage in stages))
        for pair in stages[0]
        if all(pair in stage for stage in stages)
    }


def read_pairs(folders: PartitionFolders, columns: Collection[str] | None = None) -> pa.Table:
    """The accepted chips that have captions, in the order of the plan, with the columns named in this module.

    Each column is as its own stage defines it; those of scores are null where the scores lack a chip, those of objects
    are there only where their folder is given. `columns` are those that are wanted; None: all.

    Raises:
        UpstreamMissingError: a table is missing.
        CorruptInputError: a table is not whole.
        OutputSchemaError: a table is of another version.
    """

    def read(path: Path, schema: pa.Schema, key: str, names: Sequence[str]) -> pa.Table:
        wanted = (name for name in names if columns is None or name in columns)
        return read_table(path, schema, list(dict.fromkeys((key, *wanted))))

    plan = read(folders.plan / "plan.parquet", PLAN_SCHEMA, "chip_id", PLAN_COLUMNS)
    cut = read(folders.chips / "chips.parquet", CHIP_SCHEMA, "chip_id", CHIP_COLUMNS)
    status = read_table(folders.chips / "chips.parquet", CHIP_SCHEMA, ["status"])["status"]
    cut = cut.filter(pc.equal(status, "ok"))
    written = read(folders.captions / "captions.parquet", CAPTION_SCHEMA, "chip_id", CAPTION_COLUMNS)
    scored = read(folders.scores / "scores.parquet", SCORE_SCHEMA, "chip_id", SCORE_COLUMNS)
    both = pc.and_(pc.is_in(plan["chip_id"], cut["chip_id"]), pc.is_in(plan["chip_id"], written["chip_id"]))
    table = plan.filter(both).combine_chunks()
    for other in (cut, written, scored):
        table = joined(table, other, "chip_id", other.column_names[1:])
    if folders.objects is not None:
        known = read(folders.objects / "objects.parquet", OBJECT_SCHEMA, "object_id", OBJECT_COLUMNS)
        table = joined(table, known, "object_id", known.column_names[1:])
    return table


def joined(table: pa.Table, other: pa.Table, key: str, columns: Sequence[str]) -> pa.Table:
    """The table with columns of another one's rows of the same key, null where it has none."""
    rows = other.select(columns).take(pc.index_in(table[key], value_set=other[key]))
    for name in columns:
        table = table.append_column(rows.schema.field(name), rows[name])
    return table
