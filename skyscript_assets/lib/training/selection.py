"""Which pairs of the training manifest a model trains on, and whether they are enough."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.pairs.selection import SELECTED_BY, Selection
from skyscript_assets.lib.settings.models import TrainedModel
from skyscript_assets.lib.tables import read_table

PAIR_COLUMNS = ("chip_id", "cell", "title", *SELECTED_BY)
"""Columns of the training manifest that every recipe needs."""


def counts_of(pairs: pa.Table) -> dict[str, int]:
    """Numbers of pairs, of different titles, and of cells of the grid that they lie in."""
    captions, cells = (len(pairs[name].unique()) for name in ("title", "cell"))
    return {"pairs": len(pairs), "captions": captions, "cells": cells}


def select_pairs(
    manifest_path: Path, model: TrainedModel, columns: Sequence[str], batch_size: int
) -> tuple[pa.Table, pa.Table]:
    """The eligible training and validation pairs of the model's sources and regions; of the training pairs its share.

    A training pair is kept where its `rank_share` (0 best, 1 worst by similarity) is at most the share; at share 1 all
    are. Of these, `pairs` are drawn where there are more: those with the lowest hash of seed and chip id, so that with
    one seed fewer pairs are always some of more. They are rows of the manifest, in its order; `columns` are those that
    the recipe needs besides `PAIR_COLUMNS`.

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
    needed = {"pairs": batch_size, "distinct captions": 2, "training cells": 2}
    found = dict(zip(needed, counts_of(train).values(), strict=True))
    if any(found[name] < needed[name] for name in needed):
        told = ", ".join(
            f"{found[name]} {name} (at least {least} needed, {max(0, least - found[name])} missing)"
            for name, least in needed.items()
        )
        raise TooLittleDataError(
            f"{model.title}: too little to train on: {told}; "
            "use a larger region, a higher quota, a larger share, or a smaller batch_size"
        )
    return train, val
