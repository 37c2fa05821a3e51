"""Which pairs of the training manifest a model trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.settings.models import TrainedModel
from skyscript_assets.lib.tables import read_table

PAIR_COLUMNS = (
    "chip_id",
    "region",
    "source",
    "image_shard",
    "image_offset",
    "image_length",
    "focus_box",
    "cell",
    "rank_share",
    "split",
    "eligible",
)
"""Columns of the training manifest that every recipe reads, besides those of its captions."""


@dataclass(frozen=True)
class TrainingPairs:
    """The pairs of one split that a model may use, in the manifest's order."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> list[object]:
        """A column as Python values."""
        values: list[object] = self.table[name].to_pylist()
        return values

    def captions(self, column: str, prefix: str) -> list[str]:
        """Prefix and caption of each pair."""
        return [prefix + caption for caption in self.table[column].to_pylist()]

    @property
    def cells(self) -> int:
        """Distinct cells of the grid that the pairs lie in."""
        return len(set(self.table["cell"].to_pylist()))


def select_pairs(
    manifest_path: Path, model: TrainedModel, split: Literal["train", "val"], captions: Sequence[str] = ("title",)
) -> TrainingPairs:
    """The eligible pairs of a split, of the model's sources; of the training split the model's share alone.

    A pair is kept where its `rank_share` (0 best, 1 worst by similarity) is at most the share; at share 1 all are.

    Args:
        manifest_path: `manifest.parquet`.
        model: Settings of the model.
        split: Which split.
        captions: Columns of captions, or of what they state, that are wanted.

    Raises:
        UpstreamMissingError: there is no training manifest.
        OutputSchemaError: it lacks a column.
    """
    table = read_table(manifest_path, columns=list(dict.fromkeys([*PAIR_COLUMNS, *captions])))
    keep = pc.and_(pc.equal(table["split"], split), table["eligible"])
    if model.sources is not None:
        keep = pc.and_(keep, pc.is_in(table["source"], pa.array(model.sources)))
    if split == "train" and model.share < 1.0:
        keep = pc.and_(keep, pc.less_equal(table["rank_share"], model.share))
    return TrainingPairs(table.filter(keep))


def require_enough(pairs: TrainingPairs, captions: Sequence[str], batch_size: int, title: str) -> None:
    """Refuse to train on too little: less than one batch, one caption or one cell.

    Raises:
        TooLittleDataError: with the numbers found and missing.
    """
    counts = {
        "pairs": (len(pairs), batch_size),
        "distinct captions": (len(set(captions)), 2),
        "training cells": (pairs.cells, 2),
    }
    if any(found < needed for found, needed in counts.values()):
        told = ", ".join(
            f"{found} {name} (at least {needed} needed, {max(0, needed - found)} missing)"
            for name, (found, needed) in counts.items()
        )
        raise TooLittleDataError(
            f"{title}: too little to train on: {told}; "
            "use a larger region, a higher quota, a larger share, or a smaller batch_size"
        )
