"""The training manifest: every pair of all regions and sources, with its place, split, rank and whether it may be used.

A pair is never left out silently: what may not be used stays a row that says why. How many of the best pairs a model
takes is the model's own setting; the manifest states each pair's rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.tables import ROW_GROUP_ROWS

MANIFEST_SCHEMA = pa.schema(
    [
        *(PLAN_SCHEMA.field(name) for name in ("chip_id", "region", "source")),
        ("image_shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
        ("image_sha256", pa.string()),
        *(CAPTION_SCHEMA.field(name) for name in (*STYLES, "statements")),
        *(PLAN_SCHEMA.field(name) for name in ("focus_box", "cell")),
        *(SCORE_SCHEMA.field(name) for name in ("score", "scorer")),
        ("rank_share", pa.float64()),
        PLAN_SCHEMA.field("split"),
        ("eligible", pa.bool_()),
        ("dropped_because", pa.string()),
    ]
)
"""Columns of `manifest.parquet`. `image_shard` is `{region}/{source}/{tar}` below the folder of image_chips.

`rank_share` of an eligible training pair is its rank among those of its source by falling score (equal scores by chip
id) over their number: keeping the best 30 % is `rank_share <= 0.3`. Other pairs get the share of these training pairs
that come before them; it is null without a score, or where the source has no eligible training pair.
"""

_JUDGED = """
WITH known AS (SELECT *, coalesce(isfinite(score), false) AS scored FROM pairs), told AS (
    SELECT *, CASE
        WHEN row_number() OVER (PARTITION BY chip_id ORDER BY place) > 1 THEN 'chip id in two partitions'
        WHEN title = '' THEN 'empty caption'
        WHEN NOT scored THEN 'no score'
    END AS unusable
    FROM known
), judged AS (
    SELECT *, CASE
        WHEN unusable IS NULL AND row_number() OVER (PARTITION BY sha256, unusable ORDER BY chip_id) > 1
        THEN 'duplicate image' ELSE unusable
    END AS dropped_because
    FROM told
), counted AS (SELECT *, (dropped_because IS NULL AND split = 'train')::BIGINT AS counts FROM judged)
SELECT dropped_because, dropped_because IS NULL AS eligible, CASE WHEN scored THEN
    sum(counts) OVER (PARTITION BY source, scored ORDER BY score DESC, chip_id, place ROWS UNBOUNDED PRECEDING)
    / nullif(sum(counts) OVER (PARTITION BY source, scored), 0)
END AS rank_share
FROM counted ORDER BY place
"""
"""Columns of the training manifest that are judged from pairs: `JUDGED`, and their place."""

JUDGED = ["chip_id", "source", "split", "title", "score", "sha256"]
"""Columns by which pairs are judged: these alone are in memory of all partitions at once."""

MANIFEST_COLUMNS = {*MANIFEST_SCHEMA.names, "shard", "offset", "length", "sha256"}
"""What is read of pairs for the table."""

ASKED = 262_144
"""Chips whose boxes are in memory at a time."""

MAX_EXAMPLES = 20


def write_manifest(
    partitions: Mapping[tuple[str, str], PartitionFolders], out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Write `manifest.parquet`: partitions by name, pairs in the order of their plans.

    Not eligible are, by the first reason that holds: a chip id that an earlier partition has too; an empty caption; a
    pair without a score; an image that another eligible pair of a smaller chip id has byte for byte.

    Args:
        partitions: Folders by (region, source).
        out: Existing folder.
        progress: Told the partitions read.

    Returns:
        Counts: all pairs, eligible ones by split, others by reason, and pairs of chips on `shared_ground`.

    Raises:
        TooLittleDataError: there is no pair.
        UpstreamMissingError, CorruptInputError, OutputSchemaError: as `read_pairs` does.
    """
    known = []
    for done, (_, folders) in enumerate(sorted(partitions.items()), start=1):
        known.append(read_pairs(folders, {*JUDGED, "bbox"}))
        progress(done, len(partitions), "partitions")
    if not any(few.num_rows for few in known):
        raise TooLittleDataError(
            f"none of {len(partitions)} partitions has a chip with a caption: the reports of chip_plan tell what was "
            "wanted and planned, image_chips why chips were rejected"
        )
    pairs = pa.concat_tables(known)
    judged = _judge(pairs)
    with (
        replacing(out / "manifest.parquet") as temporary,
        pq.ParquetWriter(temporary, MANIFEST_SCHEMA, compression="zstd") as writer,
    ):
        start = 0
        for (_, folders), few in zip(sorted(partitions.items()), known, strict=True):
            writer.write_table(
                _rows(read_pairs(folders, MANIFEST_COLUMNS), judged.slice(start, few.num_rows)), ROW_GROUP_ROWS
            )
            start += few.num_rows
    shared, examples = shared_ground(pairs)
    splits = Counter(pairs["split"].filter(judged["eligible"]).to_pylist())
    return {
        "pairs": pairs.num_rows,
        "eligible": splits.total(),
        "splits": {split: splits[split] for split in SPLITS},
        "dropped": dict(sorted(Counter(judged["dropped_because"].drop_null().to_pylist()).items())),
        "partitions": len(partitions),
        "shared_ground": shared,
        "shared_ground_examples": examples,
    }


def _rows(pairs: pa.Table, judged: pa.Table) -> pa.Table:
    """Rows of the manifest, of the pairs of one partition."""
    places = {
        "image_shard": pc.binary_join_element_wise(pairs["region"], pairs["source"], pairs["shard"], "/"),
        "image_offset": pairs["offset"],
        "image_length": pairs["length"],
        "image_sha256": pairs["sha256"],
    }
    found = places | {name: table[name] for table in (pairs, judged) for name in table.schema.names}
    return pa.table({name: found[name] for name in MANIFEST_SCHEMA.names}).cast(MANIFEST_SCHEMA)


def _judge(pairs: pa.Table) -> pa.Table:
    """Columns dropped_because, eligible and rank_share of the pairs, in their order."""
    columns = pairs.select(JUDGED)
    trimmed = pc.utf8_trim_whitespace(columns["title"])
    columns = columns.set_column(columns.schema.get_field_index("title"), "title", trimmed)
    with duckdb.connect() as db:
        db.register("pairs", columns.append_column("place", pa.array(np.arange(pairs.num_rows))))
        return db.sql(_JUDGED).to_arrow_table()


def shared_ground(chips: pa.Table) -> tuple[int, list[str]]:
    """Count the pairs of chips of different splits whose boxes overlap, whatever their source, region and date.

    Boxes that only touch share no ground. A sound plan has no such pairs.

    Args:
        chips: Columns chip_id, split and bbox (degrees): a plan, or several.

    Returns:
        Their number, and up to `MAX_EXAMPLES` of them, as `chip_id (split), chip_id (split)`.
    """
    splits = chips["split"].to_numpy(zero_copy_only=False)
    bbox = chips["bbox"].combine_chunks()
    sides = np.column_stack([bbox.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])
    # Chips across the antimeridian lie on both sides of the globe.
    again = np.flatnonzero(sides[:, 2] > 180.0)
    sides = np.concatenate([sides, sides[again] - np.array([360.0, 0.0, 360.0, 0.0])])
    chip = np.concatenate([np.arange(chips.num_rows), again])
    splits = splits[chip]
    held_out = np.flatnonzero(splits != "train")
    tree = shapely.STRtree(shapely.box(*sides[held_out].T))
    met = [
        tree.query(shapely.box(*sides[start : start + ASKED].T)) + np.array([[start], [0]])
        for start in range(0, len(sides), ASKED)
    ]
    first, found = np.concatenate(met, axis=1) if met else np.zeros((2, 0), dtype=np.int64)
    second = held_out[found]
    # A pair of two held-out chips is found from both sides; one of them counts.
    differ = (splits[first] != splits[second]) & ((splits[first] == "train") | (chip[first] < chip[second]))
    first, second = first[differ], second[differ]
    overlap = (sides[first, :2] < sides[second, 2:]).all(axis=1) & (sides[second, :2] < sides[first, 2:]).all(axis=1)
    found_pairs = sorted(set(zip(chip[first[overlap]].tolist(), chip[second[overlap]].tolist(), strict=True)))
    names = [tuple(chips["chip_id"].take([a, b]).to_pylist()) for a, b in found_pairs[:MAX_EXAMPLES]]
    examples = [
        f"{one} ({splits[a]}), {other} ({splits[b]})" for (a, b), (one, other) in zip(found_pairs, names, strict=False)
    ]
    return len(found_pairs), examples
