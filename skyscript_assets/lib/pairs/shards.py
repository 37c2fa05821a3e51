"""WebDataset shards of one region and source: image, text and provenance of each pair, by split.

The layout is what open_clip's own loader reads as it is (`open_clip_train.data.get_wds_dataset`): tar files whose
members share the chip id as their key, and a `sizes.json` beside them, from which the loader learns how many pairs a
shard holds. Which pairs are used in training, and how images are cut, is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import inside, write_text
from skyscript_assets.lib.geometry import SPLITS, unit_hash
from skyscript_assets.lib.osm.objects import OSM_TYPES
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.plant import ShardSettings
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tar import TarEntry, TarShard, read_member

SAMPLE_SCHEMA = pa.schema(
    {"chip_id": pa.string(), "split": pa.string(), "shard": pa.string(), "offset": pa.int64(), "length": pa.int64()}
)
"""Columns of `samples.parquet`: `shard` is `{split}/{number}.tar`; offset and length are those of the JPEG in it."""

Row = Mapping[str, Any]


def write_caption_shards(
    folders: PartitionFolders, settings: ShardSettings, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Write `{train,val,test}/{number}.tar`, a `sizes.json` in each of these folders, and `samples.parquet`.

    A sample is `{chip_id}.jpg`, `{chip_id}.txt` (prefix and caption) and `{chip_id}.json` (see `facts_of`). Within a
    split, pairs are in the order of a hash, not of the ground, so that neighbours do not meet in a batch; shards
    of a split differ by one pair at most. A split without pairs has no folder.

    Args:
        folders: Where the tables and images are; with objects, samples state version and time of their OSM object.
        settings: Which caption, its prefix, and the pairs in a shard.
        out: Existing folder.
        progress: Told the pairs written.

    Returns:
        Counts; chips `without_caption` are left out because the chosen one is empty.

    Raises:
        UpstreamMissingError, OutputSchemaError: an input is missing or of another version.
        CorruptInputError: an image differs from its digest, or a chip id is no WebDataset key.
    """
    table = read_pairs(folders).drop_columns("statements")
    rows = [row for row in table.to_pylist(maps_as_pydicts="strict") if row[settings.column].strip()]
    _check_keys(rows, folders.plan)
    samples: list[Row] = []
    counts: dict[str, int] = {}
    for split in SPLITS:
        chosen = [row for row in rows if row["split"] == split]
        chosen.sort(key=lambda row: unit_hash("shard", row["chip_id"]))
        counts[split] = len(chosen)
        sizes: dict[str, int] = {}
        for fill in _fills(chosen, settings.samples_per_shard):
            name = f"{len(sizes):06d}.tar"
            sizes[name] = len(fill)
            (out / split).mkdir(exist_ok=True)
            with TarShard(out / split / name) as shard:
                for row in fill:
                    entry = add_pair(shard, row, read_image(row, folders.chips), settings.prefix + row[settings.column])
                    place = {"chip_id": row["chip_id"], "split": split, "shard": f"{split}/{name}"}
                    samples.append(place | entry._asdict())
                    progress(len(samples), len(rows), "pairs")
        if sizes:
            write_text(out / split / "sizes.json", json.dumps(sizes, indent=2) + "\n")
    write_table(out / "samples.parquet", rows_to_table(samples, SAMPLE_SCHEMA))
    return {
        "pairs": len(samples),
        "splits": counts,
        "shards": len({sample["shard"] for sample in samples}),
        "without_caption": table.num_rows - len(rows),
    }


def _check_keys(rows: Sequence[Row], plan_folder: Path) -> None:
    """WebDataset takes a member's name up to its first dot as the key."""
    for row in rows:
        if "." in row["chip_id"]:
            raise CorruptInputError(
                f"{plan_folder / 'plan.parquet'}: the chip id {row['chip_id']!r} holds a dot, "
                "and WebDataset would cut it there; materialize chip_plan again"
            )


def _fills(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    """What each shard holds: as few shards of at most `size` rows as there can be, all about as long."""
    number = math.ceil(len(rows) / size)
    bounds = [i * len(rows) // number for i in range(number + 1)] if number else []
    return [rows[start:end] for start, end in pairwise(bounds)]


def read_image(row: Row, chips_folder: Path) -> bytes:
    """The JPEG of a pair.

    Raises:
        CorruptInputError: it differs from its digest.
    """
    source = inside(chips_folder, row["shard"])
    image = read_member(source, row["offset"], row["length"])
    if hashlib.sha256(image).hexdigest() != row["sha256"]:
        raise CorruptInputError(f"{source}: the image of {row['chip_id']} is damaged; materialize image_chips again")
    return image


def add_pair(shard: TarShard, row: Row, image: bytes, text: str) -> TarEntry:
    """Add a pair's three members; returns the place of the image."""
    entry = shard.add(f"{row['chip_id']}.jpg", image)
    shard.add(f"{row['chip_id']}.txt", text.encode())
    facts = json.dumps(facts_of(row), ensure_ascii=False, separators=(",", ":"))
    shard.add(f"{row['chip_id']}.json", facts.encode())
    return entry


def facts_of(row: Row) -> dict[str, Any]:
    """What a sample says of itself: captions and tags, place, and where object, image and score come from."""
    version, time = row.get("version"), row.get("timestamp")
    same = ("chip_id", "region", "source", "split", "cell", "stratum", "gsd_m", "width", "height", "focus_box")
    image = {name: row[name] for name in ("scene_id", "datetime", "synthetic", "sha256", "licence", "attribution")}
    return {name: row[name] for name in (*same, *STYLES, "center_tags")} | {
        "bbox": [row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")],
        "osm": {
            "object_id": row["object_id"],
            "type": OSM_TYPES[row["object_id"][0]],
            "id": int(row["object_id"][1:]),
            "version": version,
            "timestamp": time.isoformat() if time is not None else None,
            "licence": OSM_LICENCE,
            "attribution": OSM_ATTRIBUTION,
        },
        "image": image | {"datetime": row["datetime"].isoformat()},
        "score": {"value": row["score"], "column": row["column"], "scorer": row["scorer"]},
    }
