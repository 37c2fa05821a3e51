"""The training manifest: every pair of all regions and sources, with its place, split, rank and whether it may be used.

A pair is never left out silently: what may not be used stays a row that says why. How many of the best pairs a model
takes is the model's own setting; the manifest states each pair's rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.captions.compose import STYLES
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.tables import write_table

MANIFEST_SCHEMA = pa.schema(
    [
        ("chip_id", pa.string()),
        ("region", pa.string()),
        ("source", pa.string()),
        ("image_shard", pa.string()),
        ("image_offset", pa.int64()),
        ("image_length", pa.int64()),
        *(CAPTION_SCHEMA.field(name) for name in (*STYLES, "statements")),
        PLAN_SCHEMA.field("focus_box"),
        ("cell", pa.string()),
        ("score", pa.float64()),
        ("scorer", pa.string()),
        ("rank_share", pa.float64()),
        ("split", pa.string()),
        ("eligible", pa.bool_()),
        ("dropped_because", pa.string()),
    ]
)
"""Columns of `manifest.parquet`. `image_shard` is `{region}/{source}/{tar}` below the folder of image_chips.

`rank_share` of an eligible training pair is its rank among those of its source by falling score (equal scores by chip
id) over their number: keeping the best 30 % is `rank_share <= 0.3`. Other pairs get the share of these training pairs
that come before them; it is null without a score, or where the source has no eligible training pair.
"""

REPEATED = "chip id in two partitions"
EMPTY_CAPTION = "empty caption"
NO_SCORE = "no score"
DUPLICATE = "duplicate image"

MAX_EXAMPLES = 20


@dataclass(frozen=True)
class SharedGround:
    """Chips of different splits that show the same ground."""

    pairs: int
    examples: list[str]
    """Up to `MAX_EXAMPLES` of them, as `chip_id (split), chip_id (split)`."""


@dataclass(frozen=True)
class ManifestSummary:
    """What the manifest holds."""

    pairs: int
    eligible: int
    splits: dict[str, int]
    """Eligible pairs by split."""
    dropped: dict[str, int]
    """Other pairs by reason."""
    partitions: int
    shared_ground: int
    """Pairs of chips of different splits that show the same ground; a sound plan has none."""
    shared_ground_examples: list[str]


def write_manifest(
    partitions: Mapping[tuple[str, str], PartitionFolders], out: Path, progress: Progress = silent
) -> ManifestSummary:
    """Write `manifest.parquet`: partitions by name, pairs in the order of their plans.

    Not eligible are, by the first reason that holds: a chip id that an earlier partition has too; an empty caption; a
    pair without a score; an image that another eligible pair of a smaller chip id has byte for byte.

    Args:
        partitions: Folders by (region, source).
        out: Existing folder.
        progress: Told the partitions read.

    Raises:
        UpstreamMissingError, CorruptInputError, OutputSchemaError: as `read_pairs` does.
    """
    tables = []
    for done, (_, folders) in enumerate(sorted(partitions.items()), start=1):
        tables.append(read_pairs(folders))
        progress(done, len(partitions), "partitions")
    if not tables:
        write_table(out / "manifest.parquet", MANIFEST_SCHEMA.empty_table())
        return ManifestSummary(0, 0, dict.fromkeys(SPLITS, 0), {}, 0, 0, [])
    pairs = pa.concat_tables(tables).combine_chunks()
    reasons = _reasons(pairs)
    eligible = reasons == ""
    counted = eligible & _is(pairs["split"], "train")
    shares = _rank_shares(pairs, counted)
    manifest = pa.table(
        {
            "image_shard": pc.binary_join_element_wise(pairs["region"], pairs["source"], pairs["shard"], "/"),
            "image_offset": pairs["offset"],
            "image_length": pairs["length"],
            "rank_share": pa.array(shares, from_pandas=True),
            "eligible": pa.array(eligible),
            "dropped_because": pa.array([reason or None for reason in reasons], pa.string()),
        }
        | {name: pairs[name] for name in MANIFEST_SCHEMA.names if name in pairs.schema.names}
    )
    write_table(out / "manifest.parquet", manifest.select(MANIFEST_SCHEMA.names).cast(MANIFEST_SCHEMA))
    shared = shared_ground(pairs)
    return ManifestSummary(
        pairs=len(reasons),
        eligible=int(eligible.sum()),
        splits={split: int((eligible & _is(pairs["split"], split)).sum()) for split in SPLITS},
        dropped=dict(sorted(Counter(reasons[~eligible].tolist()).items())),
        partitions=len(tables),
        shared_ground=shared.pairs,
        shared_ground_examples=shared.examples,
    )


def shared_ground(chips: pa.Table) -> SharedGround:
    """Count the pairs of chips of different splits whose boxes overlap, whatever their source, region and date.

    Boxes that only touch share no ground.

    Args:
        chips: Columns chip_id, split and bbox (degrees): a plan, or several.
    """
    ids, splits = chips["chip_id"].to_pylist(), chips["split"].to_numpy(zero_copy_only=False)
    bbox = chips["bbox"].combine_chunks()
    sides = np.column_stack([bbox.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])
    held_out = np.flatnonzero(splits != "train")
    tree = shapely.STRtree(shapely.box(*sides[held_out].T))
    first, found = tree.query(shapely.box(*sides.T))
    second = held_out[found]
    # A pair of two held-out chips is found from both sides; one of them counts.
    differ = (splits[first] != splits[second]) & ((splits[first] == "train") | (first < second))
    first, second = first[differ], second[differ]
    overlap = (sides[first, :2] < sides[second, 2:]).all(axis=1) & (sides[second, :2] < sides[first, 2:]).all(axis=1)
    found_pairs = sorted(zip(first[overlap].tolist(), second[overlap].tolist(), strict=True))
    examples = [f"{ids[a]} ({splits[a]}), {ids[b]} ({splits[b]})" for a, b in found_pairs[:MAX_EXAMPLES]]
    return SharedGround(len(found_pairs), examples)


def _is(column: pa.ChunkedArray, value: str) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.equal(column, value).to_numpy()
    return mask


def _reasons(pairs: pa.Table) -> NDArray[np.object_]:
    """Why each pair may not be used, empty where it may."""
    reasons = np.full(pairs.num_rows, "", dtype=object)
    scored = pc.fill_null(pc.is_finite(pairs["score"]), fill_value=False).to_numpy()
    empty = pc.equal(pc.utf8_trim_whitespace(pairs["title"]), "").to_numpy()
    reasons[~scored] = NO_SCORE
    reasons[empty] = EMPTY_CAPTION
    reasons[_later_occurrences(pairs["chip_id"])] = REPEATED
    candidates = np.flatnonzero(reasons == "")
    by_id = candidates[pc.sort_indices(pairs["chip_id"].take(candidates)).to_numpy()]
    reasons[by_id[_later_occurrences(pairs["sha256"].take(by_id))]] = DUPLICATE
    return reasons


def _later_occurrences(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which values have stood in the column before."""
    if len(values) == 0:
        return np.zeros(0, dtype=bool)
    # Codes of a dictionary are given in the order of first occurrence: a new value raises their maximum.
    codes = values.combine_chunks().dictionary_encode().indices.to_numpy()
    later: NDArray[np.bool_] = np.diff(np.maximum.accumulate(codes), prepend=-1) == 0
    return later


def _rank_shares(pairs: pa.Table, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """For each pair the share of the counted pairs of its source that do not come after it; NaN where there is none."""
    shares = np.full(pairs.num_rows, np.nan)
    scored = pc.fill_null(pc.is_finite(pairs["score"]), fill_value=False).to_numpy()
    for source in sorted(set(pairs["source"].to_pylist())):
        rows = np.flatnonzero(scored & _is(pairs["source"], source))
        order = pc.sort_indices(
            pairs.select(["score", "chip_id"]).take(rows), [("score", "descending"), ("chip_id", "ascending")]
        )
        rows = rows[order.to_numpy()]
        if counted[rows].any():
            shares[rows] = np.cumsum(counted[rows]) / counted[rows].sum()
    return shares
