"""Frozen image features of chips: computed once by the image tower before its projection, used by scores and alignment.

`features.parquet` has a row a chip and view, `tower.json` says which tower made them.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError
from skyscript_assets.lib.files import digest, inside, write_json
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.parts import Parts
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import Crop
from skyscript_assets.lib.tables import read_table, write_tables
from skyscript_assets.lib.tar import read_member
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.views import UInt8Array, augmented_view, decode_image, view_rng

PART_CHIPS = 500
"""Chips in a part: what a killed run loses at most."""

BATCH_CHIPS = 64
"""Chips that are given to the tower together, and decoded meanwhile; more where a forward pass takes more."""

THREADS = 2


@dataclass(frozen=True)
class Chip:
    """An accepted chip: where its JPEG lies, and the box that its caption is about."""

    chip_id: str
    shard: Path
    offset: int
    length: int
    focus: Sequence[int] | None

    def image(self) -> UInt8Array:
        """Its pixels (height, width, 3)."""
        data = read_member(self.shard, self.offset, self.length)
        return decode_image(data, f"{self.shard.name}: {self.chip_id}")

    def views(self, count: int, model: ClipModel, seed: int) -> UInt8Array:
        """The plain view and draws of the augmentation, (count, size, size, 3)."""
        image = self.image()
        generators = (view_rng(seed, self.chip_id, view) for view in range(1, count))
        drawn = [augmented_view(image, self.focus, model.image_size, rng) for rng in generators]
        return np.stack([model.view(image, self.focus), *drawn])


FEATURE_KEYS = pa.schema([("chip_id", pa.string()), ("view", pa.int8())])
"""The columns of `features.parquet` that do not depend on the tower."""


def feature_schema(dim: int) -> pa.Schema:
    """Columns of `features.parquet` for features of `dim` numbers."""
    return FEATURE_KEYS.append(pa.field("features", pa.list_(pa.float16(), dim)))


def write_chip_features(
    chips_folder: Path,
    plan_folder: Path,
    model: ClipModel,
    views: int,
    seed: int,
    out: Path,
    progress: Progress = silent,
    crop: Crop = "focus",
) -> dict[str, Any]:
    """Compute the features of all accepted chips and write `features.parquet` and `tower.json`; counts.

    View 0 is the chip without augmentation: its largest square, slid along the longer side so that the focus object is
    in it. The others are draws of the paper's augmentation, which depend on seed, chip and view alone. A killed run
    continues after its last whole part: `resumed_chips`. With crop `anywhere` it is the middle, and random crops
    wherever they fall.

    Raises:
        UpstreamMissingError: a table or shard is missing.
        CorruptInputError: a chip is not a whole JPEG, or the plan does not name it.
    """
    chips = accepted_chips(chips_folder, plan_folder)
    if crop == "anywhere":
        chips = [replace(chip, focus=None) for chip in chips]
    parts, resumed = Parts(out), 0
    for start in range(0, len(chips), PART_CHIPS):
        part = chips[start : start + PART_CHIPS]
        made_from = digest([model.tower_digest, views, seed, crop, [chip.chip_id for chip in part]])
        if parts.keep(start // PART_CHIPS, made_from):
            resumed += len(part)
        else:
            table = _part_table(part, model, views, seed, start, len(chips), progress)
            parts.finish(start // PART_CHIPS, made_from, table)
        progress(start + len(part), len(chips), "chips")
    dim = _join(parts, model, out / "features.parquet")
    write_json(out / "tower.json", {"tower": model.tower_digest, "dim": dim})
    parts.clear()
    return {"chips": len(chips), "views": views, "dim": dim, "tower": model.tower_digest, "resumed_chips": resumed}


def accepted_chips(chips_folder: Path, plan_folder: Path) -> list[Chip]:
    """The accepted chips of an `image_chips` folder, in their order; raises as `write_chip_features` does."""
    columns = ["chip_id", "status", "shard", "offset", "length"]
    chips = read_table(chips_folder / "chips.parquet", columns=columns)
    chips = chips.filter(pc.equal(chips["status"], "ok"))
    plan = read_table(plan_folder / "plan.parquet", columns=["chip_id", "focus_box"])
    planned = pc.index_in(chips["chip_id"], plan["chip_id"])
    if planned.null_count:
        raise CorruptInputError(
            f"{chips_folder / 'chips.parquet'}: chip {chips['chip_id'].filter(pc.is_null(planned))[0]} is not in "
            f"{plan_folder / 'plan.parquet'}; materialize image_chips again"
        )
    return [
        Chip(row["chip_id"], inside(chips_folder, row["shard"]), row["offset"], row["length"], box)
        for row, box in zip(chips.to_pylist(), plan["focus_box"].take(planned).to_pylist(), strict=True)
    ]


def _part_table(
    chips: Sequence[Chip], model: ClipModel, views: int, seed: int, before: int, total: int, progress: Progress
) -> pa.Table:
    size = max(BATCH_CHIPS, model.batch_size)
    drawn = in_order(lambda chip: chip.views(views, model, seed), chips, threads=THREADS, ahead=2 * size)
    rows = []
    while batch := list(itertools.islice(drawn, size)):
        rows.append(model.image_features(np.concatenate(batch)).astype(np.float16))
        before += len(batch)
        progress(before, total, "chips")
    features = np.concatenate(rows)
    return pa.table(
        {
            "chip_id": [chip.chip_id for chip in chips for _ in range(views)],
            "view": pa.array(np.tile(np.arange(views, dtype=np.int8), len(chips))),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1]),
        },
        schema=feature_schema(features.shape[1]),
    )


def _join(parts: Parts, model: ClipModel, path: Path) -> int:
    """Join the tables of the parts, one row group each, and return the features' dimension."""
    tables = parts.tables()
    first = next(tables, None)
    if first is None:
        blank = np.zeros((1, model.image_size, model.image_size, 3), np.uint8)
        first = feature_schema(model.image_features(blank).shape[1]).empty_table()
    write_tables(path, first.schema, itertools.chain([first], tables))
    return int(first.schema.field("features").type.list_size)


def read_chip_features(folder: Path, tower: str) -> tuple[list[str], NDArray[np.float16]]:
    """Ids of N chips in a `chip_features` folder, and their features (N, views, D).

    Raises:
        UpstreamMissingError: it was not materialized.
        OutputSchemaError: another tower made it than the one of this digest.
        CorruptInputError: chips do not all have the same views.
    """
    table = read_table(folder / "features.parquet")
    found = json.loads((folder / "tower.json").read_text(encoding="utf-8"))
    if found["tower"] != tower:
        raise OutputSchemaError(
            f"{folder}: the features are of another image tower ({found['tower'][:12]}, wanted {tower[:12]}); "
            "the scorer of plant.yaml and the model's base must share their tower: materialize chip_features again"
        )
    dim = int(found["dim"])
    views = 1 + int(pc.max(table["view"]).as_py() or 0)
    flat = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    expected = np.tile(np.arange(views), max(1, table.num_rows // views))[: table.num_rows]
    if table.num_rows % views or not np.array_equal(table["view"].to_numpy(), expected):
        raise CorruptInputError(f"{folder / 'features.parquet'}: a chip lacks a view; materialize chip_features again")
    chip_ids = table["chip_id"].to_pylist()[::views]
    return chip_ids, flat.reshape(len(chip_ids), views, dim)
