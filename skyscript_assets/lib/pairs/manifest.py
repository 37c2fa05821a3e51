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

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.leaks import (
    FINGERPRINT_SCHEMA,
    FINGERPRINTS_FILE,
    LEAKS_FILE,
    find_leaks,
    shared_ground,
)
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.pairs.thumbnails import thumbnails_of
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.tables import ROW_GROUP_ROWS, read_table, write_table

MANIFEST_SCHEMA = pa.schema(
    [
        *(PLAN_SCHEMA.field(name) for name in ("chip_id", "region", "source")),
        ("image_shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
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

_UNUSABLE = """
SELECT CASE
    WHEN row_number() OVER (PARTITION BY chip_id ORDER BY place) > 1 THEN 'chip id in two partitions'
    WHEN title = '' THEN 'empty caption'
    WHEN NOT coalesce(isfinite(score), false) THEN 'no score'
END AS unusable
FROM pairs ORDER BY place
"""
"""Why pairs of `JUDGED` cannot be used whatever the others are."""

_JUDGED = """
WITH known AS (SELECT *, coalesce(isfinite(score), false) AS scored FROM pairs),
counted AS (SELECT *, (dropped_because IS NULL AND split = 'train')::BIGINT AS counts FROM known)
SELECT dropped_because, dropped_because IS NULL AS eligible, CASE WHEN scored THEN
    sum(counts) OVER (PARTITION BY source, scored ORDER BY score DESC, chip_id, place ROWS UNBOUNDED PRECEDING)
    / nullif(sum(counts) OVER (PARTITION BY source, scored), 0)
END AS rank_share
FROM counted ORDER BY place
"""
"""Columns of the training manifest that are judged from pairs: `JUDGED`, their place, and why they were dropped."""

JUDGED = ["chip_id", "source", "split", "title", "score"]
"""Columns by which pairs are judged and ranked: these and `COMPARED` are in memory of all partitions at once."""

COMPARED = ["object_id", "bbox", "sha256", "phash"]
"""Columns by which pairs are compared with each other."""

MANIFEST_COLUMNS = {*MANIFEST_SCHEMA.names, "shard", "offset", "length"}
"""What is read of pairs for the table."""


def write_manifest(
    partitions: Mapping[tuple[str, str], PartitionFolders],
    out: Path,
    progress: Progress = silent,
    benchmarks: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Write `manifest.parquet`, partitions by name, pairs in the order of their plans, and `leaks.parquet`.

    Not eligible are, by the first reason that holds: a chip id that an earlier partition has too; an empty caption; a
    pair without a score; and what `find_leaks` finds among the others.

    Args:
        partitions: Folders by (region, source).
        out: Existing folder.
        progress: Told the partitions read.
        benchmarks: `benchmark_data` folders by name: what is measured on must not be trained on.

    Returns:
        Counts: all pairs, eligible ones by split, others by reason, leaks, and pairs of chips on `shared_ground`.

    Raises:
        TooLittleDataError: there is no pair.
        UpstreamMissingError, CorruptInputError, OutputSchemaError: as `read_pairs` does.
    """
    known = []
    for done, (_, folders) in enumerate(sorted(partitions.items()), start=1):
        known.append(read_pairs(folders, {*JUDGED, *COMPARED}))
        progress(done, len(partitions), "partitions")
    if not any(few.num_rows for few in known):
        raise TooLittleDataError(
            f"none of {len(partitions)} partitions has a chip with a caption: the reports of chip_plan tell what was "
            "wanted and planned, image_chips why chips were rejected"
        )
    pairs = pa.concat_tables(known)
    images = thumbnails_of([partitions[name] for name in sorted(partitions)], [few.num_rows for few in known])
    measured_on = {
        name: read_table(folder / FINGERPRINTS_FILE, FINGERPRINT_SCHEMA) for name, folder in (benchmarks or {}).items()
    }
    unusable = _judge(pairs, _UNUSABLE)["unusable"]
    leaks = find_leaks(pairs, pc.is_null(unusable).to_numpy(), measured_on, images)
    judged = _judge(pairs.append_column("dropped_because", pc.coalesce(unusable, leaks.reasons)), _JUDGED)
    write_table(out / LEAKS_FILE, leaks.report)
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
        "leaks": leaks.counts | {"benchmarks": {name: table.num_rows for name, table in measured_on.items()}},
        "leaks_left": pc.sum(pc.and_(judged["eligible"], leaks.reasons.is_valid())).as_py(),
        "shared_ground": shared,
        "shared_ground_examples": examples,
    }


def _rows(pairs: pa.Table, judged: pa.Table) -> pa.Table:
    """Rows of the manifest, of the pairs of one partition."""
    places = {
        "image_shard": pc.binary_join_element_wise(pairs["region"], pairs["source"], pairs["shard"], "/"),
        "image_offset": pairs["offset"],
        "image_length": pairs["length"],
    }
    found = places | {name: table[name] for table in (pairs, judged) for name in table.schema.names}
    return pa.table({name: found[name] for name in MANIFEST_SCHEMA.names}).cast(MANIFEST_SCHEMA)


def _judge(pairs: pa.Table, query: str) -> pa.Table:
    """What a query tells of the pairs, in their order."""
    columns = pairs.drop_columns(COMPARED)
    trimmed = pc.utf8_trim_whitespace(columns["title"])
    columns = columns.set_column(columns.schema.get_field_index("title"), "title", trimmed)
    with duckdb.connect() as db:
        db.register("pairs", columns.append_column("place", pa.array(np.arange(pairs.num_rows))))
        return db.sql(query).to_arrow_table()
