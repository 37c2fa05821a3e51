"""The training manifest: every pair of all regions and sources, with its place, split, rank and whether it may be used.

A pair is never left out silently: what may not be used stays a row that says why. How many of the best pairs a model
takes is the model's own setting; the manifest states each pair's rank.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.leaks import (
    FINGERPRINT_SCHEMA,
    FINGERPRINTS_FILE,
    LEAKS_FILE,
    Leaks,
    find_leaks,
    shared_ground,
)
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.pairs.thumbnails import Thumbnails, thumbnails_of
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import GSD_STEPS_M, STYLES
from skyscript_assets.lib.tables import read_table, write_table, write_tables

MANIFEST_SCHEMA = pa.schema(
    [
        *(PLAN_SCHEMA.field(name) for name in ("chip_id", "region", "source")),
        ("image_shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
        ("image_sha256", pa.string()),
        *(CAPTION_SCHEMA.field(name) for name in (*STYLES, "statements")),
        *(PLAN_SCHEMA.field(name) for name in ("focus_box", "cell")),
        *(SCORE_SCHEMA.field(name) for name in ("score", "scorer", "scores")),
        ("rank_share", pa.float64()),
        PLAN_SCHEMA.field("split"),
        ("eligible", pa.bool_()),
        ("dropped_because", pa.string()),
    ]
)
"""Columns of `manifest.parquet`. `image_shard` is `{region}/{source}/{tar}` below the folder of image_chips.

`rank_share` of an eligible training pair is its rank among those of its stratum (`manifest.rank_within`) by falling
score (equal scores by chip id) over their number: keeping the best 30 % is `rank_share <= 0.3`. Other pairs get the
share of these training pairs that come before them; it is null without a score, or where the stratum has no eligible
training pair. Of several scorers each gives such a share; pairs are ranked by the mean of theirs, equal means
by the first scorer.
"""

UNUSABLE = ("chip id in two partitions", "empty caption", "no score")
"""Why a pair cannot be used whatever the others are, in the order in which it is asked."""

COMPARED = ("chip_id", "split", "bbox", "object_id", "sha256", "phash")
"""Columns by which pairs are compared with each other."""

JUDGED = {*COMPARED, "source", "title", "gsd_m", "stratum", "column", "scores"}
"""Columns by which pairs are judged: in memory of all partitions at once is what `_narrow` leaves of them."""

MANIFEST_COLUMNS = {*MANIFEST_SCHEMA.names, "shard", "offset", "length", "sha256"}
"""What is read of pairs for the table."""


def write_manifest(
    partitions: Mapping[tuple[str, str], PartitionFolders],
    out: Path,
    rank_within: str = "source",
    progress: Progress = silent,
    benchmarks: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Write `manifest.parquet`, partitions by name, pairs in the order of their plans, and `leaks.parquet`.

    Not eligible are, by the first reason that holds: a chip id that an earlier partition has too; an empty caption; a
    pair without a score of each scorer; and what `find_leaks` finds among the others. `benchmarks` are `benchmark_data`
    folders by name: what is measured on must not be trained on.

    Returns counts: all pairs, eligible ones by split, others by reason, leaks, and pairs of chips on `shared_ground`.

    Raises:
        TooLittleDataError: there is no pair.
        UpstreamMissingError, CorruptInputError, OutputSchemaError: as `read_pairs` does.
    """
    ordered = [partitions[name] for name in sorted(partitions)]
    known: list[pa.Table] = []
    for done, folders in enumerate(ordered, start=1):
        known.append(_narrow(read_pairs(folders, JUDGED), rank_within))
        progress(done, len(partitions), "partitions")
    if not any(few.num_rows for few in known):
        raise TooLittleDataError(
            f"none of {len(partitions)} partitions has a chip with a caption: the reports of chip_plan tell what was "
            "wanted and planned, image_chips why chips were rejected"
        )
    pairs = pa.concat_tables(known, promote_options="default")
    images = thumbnails_of(ordered, [few.num_rows for few in known])
    measured_on = {
        name: read_table(folder / FINGERPRINTS_FILE, FINGERPRINT_SCHEMA) for name, folder in (benchmarks or {}).items()
    }
    judged, leaks = _judge(pairs, measured_on, images)
    write_table(out / LEAKS_FILE, leaks.report)
    ends = itertools.accumulate(few.num_rows for few in known)
    pieces = zip(ordered, known, ends, strict=True)
    judgements = ((folders, judged.slice(end - few.num_rows, few.num_rows)) for folders, few, end in pieces)
    tables = (_rows(read_pairs(folders, MANIFEST_COLUMNS), mine) for folders, mine in judgements)
    write_tables(out / "manifest.parquet", MANIFEST_SCHEMA, tables)
    shared, examples = shared_ground(pairs)
    splits = _counts(pairs["split"].filter(judged["eligible"]))
    return {
        "pairs": pairs.num_rows,
        "eligible": sum(splits.values()),
        "splits": {split: splits.get(split, 0) for split in SPLITS},
        "dropped": dict(sorted(_counts(judged["dropped_because"].drop_null()).items())),
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
        "image_sha256": pairs["sha256"],
    }
    found = places | {name: table[name] for table in (pairs, judged) for name in table.schema.names}
    return pa.table({name: found[name] for name in MANIFEST_SCHEMA.names}).cast(MANIFEST_SCHEMA)


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}


def _narrow(pairs: pa.Table, rank_within: str) -> pa.Table:
    """Of the pairs of a partition, `COMPARED`, stratum, `empty` of the caption, `by NAME`: its scores."""
    empty = pc.equal(pc.utf8_trim_whitespace(pairs["title"]), "")
    columns = {"stratum": _strata(pairs, rank_within), "empty": empty}
    scores = pa.concat_arrays(pairs["scores"].chunks) if pairs.num_rows else pa.array([], pairs["scores"].type)
    styles = pairs["column"].unique().drop_null().to_pylist()
    for scorer in scores.keys.unique().to_pylist() if styles else ():
        named = f"by {scorer.partition('@')[0]}"
        columns[named] = pc.struct_field(pc.map_lookup(scores, scorer, "first"), styles[0])
    return pa.table({name: pairs[name] for name in COMPARED} | columns)


def _strata(pairs: pa.Table, within: str) -> pa.Array | pa.ChunkedArray:
    """Among which pairs each is ranked."""
    if within == "all":
        return pa.repeat("", pairs.num_rows)
    if within == "gsd":
        # What is called 0.6 m is 0.6002 m here and there.
        step = np.searchsorted(1.01 * np.array(GSD_STEPS_M), pairs["gsd_m"].to_numpy())
        return pa.array(step).cast(pa.string())
    return pc.fill_null(pairs["source" if within == "source" else "stratum"], "")


def _judge(pairs: pa.Table, benchmarks: Mapping[str, pa.Table], thumbnails: Thumbnails) -> tuple[pa.Table, Leaks]:
    """Columns dropped_because, eligible and rank_share of pairs as `_narrow` gives them, in their order; the leaks."""
    by_id = np.asarray(pc.sort_indices(pairs["chip_id"])).astype(np.int64)
    scores = [pairs[name].to_numpy() for name in pairs.column_names if name.startswith("by ")]
    scored: BoolArray = np.logical_and.reduce([np.isfinite(each) for each in scores] or [np.zeros(len(by_id), bool)])
    unusable = _unusable(pairs, by_id, scored)
    leaks = find_leaks(pairs, unusable.is_null().to_numpy(zero_copy_only=False), benchmarks, thumbnails)
    dropped = pc.coalesce(unusable, leaks.reasons)
    eligible = dropped.is_null().to_numpy(zero_copy_only=False)
    # Rows without a score have no place among the others; those that have one are ranked in the order of chip ids.
    rows, share = by_id[scored[by_id]], np.full(len(by_id), np.nan)
    strata = pairs["stratum"].combine_chunks().dictionary_encode().indices.to_numpy()[rows]
    counts = eligible & pc.equal(pairs["split"], "train").to_numpy()
    share[rows] = _rank_shares(strata, [each[rows] for each in scores], counts[rows])
    ranks = pa.array(share, from_pandas=True)
    return pa.table({"dropped_because": dropped, "eligible": eligible, "rank_share": ranks}), leaks


def _unusable(pairs: pa.Table, by_id: IntArray, scored: BoolArray) -> pa.Array:
    """Why each pair cannot be used, of `UNUSABLE`; null: it can. `by_id` are rows by chip id."""
    reasons = np.full(len(by_id), -1, np.int8)
    reasons[~scored] = 2
    reasons[pairs["empty"].to_numpy()] = 1
    ids = pairs["chip_id"].take(pa.array(by_id))
    reasons[by_id[1:][pc.equal(ids[1:], ids[:-1]).to_numpy()]] = 0
    return pa.DictionaryArray.from_arrays(pa.array(reasons, mask=reasons < 0), UNUSABLE).cast(pa.string())


def _rank_shares(strata: IntArray, scores: Sequence[FloatArray], counts: BoolArray) -> FloatArray:
    """The share of the pairs that count and come before each or are it, of those in its stratum; NaN where none is.

    Equal scores are ranked in the order of the pairs. By each scorer falling score comes first; of several, the mean of
    the shares that each alone would give decides, and the first of them where that is equal.
    """
    keys = [-scores[0]] if scores else []
    if len(scores) > 1:
        keys.append(np.mean([_rank_shares(strata, [each], counts) for each in scores], axis=0))
    order = np.lexsort((*keys, strata))
    total = np.bincount(strata, counts)
    before = np.cumsum(counts[order]) - (np.cumsum(total) - total)[strata[order]]
    share = np.empty(len(strata))
    with np.errstate(invalid="ignore"):  # none counts: 0 / 0
        share[order] = before / total[strata[order]]
    return share
