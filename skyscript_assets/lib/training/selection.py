"""Which pairs of the training manifest a model trains on, and whether they are enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.pairs.selection import SELECTED_BY, Selection
from skyscript_assets.lib.settings.models import TrainedModel
from skyscript_assets.lib.tables import read_table

PAIR_COLUMNS = ("chip_id", "cell", *SELECTED_BY)
"""Columns of the training manifest that every recipe needs."""


@dataclass(frozen=True)
class TrainingPairs:
    """The pairs of one split that a model may use: rows of the training manifest, in its order.

    `caption` is the column by which captions count as different.
    """

    table: pa.Table
    caption: str

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def counts(self) -> dict[str, int]:
        """Pairs, different captions, and cells of the grid that they lie in."""
        captions, cells = (len(self.table[name].unique()) for name in (self.caption, "cell"))
        return {"pairs": len(self), "captions": captions, "cells": cells}


def select_pairs(
    manifest_path: Path, model: TrainedModel, columns: Sequence[str], batch_size: int
) -> tuple[TrainingPairs, TrainingPairs]:
    """The eligible training and validation pairs of the model's sources and regions; of the training pairs its share.

    A training pair is kept where its `rank_share` (0 best, 1 worst by similarity) is at most the share; at share 1 all
    are. Of these, `pairs` are drawn where there are more: those with the lowest hash of seed and chip id, so that with
    one seed fewer pairs are always some of more. `columns` are the others that the recipe needs; the first is of
    captions, and tells these apart.

    Raises:
        TooLittleDataError: there is less than one batch, or a single caption or cell, with the numbers; and what
            `read_table` raises.
    """
    table = read_table(manifest_path, columns=list(dict.fromkeys([*PAIR_COLUMNS, *columns])))
    train, val = (
        table.filter(Selection(share, (split,), model.regions or (), model.sources or ()).of_manifest(table))
        for split, share in (("train", model.share), ("val", 1.0))
    )
    if model.pairs is not None:
        draws = [unit_hash("pairs", model.seed, chip_id) for chip_id in train["chip_id"].to_pylist()]
        train = train.take(np.sort(np.argsort(draws)[: model.pairs]))
    pairs = TrainingPairs(train, columns[0])
    needed = {"pairs": batch_size, "distinct captions": 2, "training cells": 2}
    found = dict(zip(needed, pairs.counts.values(), strict=True))
    if any(found[name] < needed[name] for name in needed):
        told = ", ".join(
            f"{found[name]} {name} (at least {least} needed, {max(0, least - found[name])} missing)"
            for name, least in needed.items()
        )
        raise TooLittleDataError(
            f"{model.title}: too little to train on: {told}; "
            "use a larger region, a higher quota, a larger share, or a smaller batch_size"
        )
    return pairs, TrainingPairs(val, columns[0])
