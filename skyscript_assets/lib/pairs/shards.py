"""WebDataset shards of one region and source: image, text and provenance of each pair, by split.

The layout is what open_clip's own loader reads as it is (`open_clip_train.data.get_wds_dataset`): tar files whose
members share the chip id as their key, and a `sizes.json` beside them, from which the loader learns how many pairs a
shard holds. Which pairs are used in training, and how images are cut, is decided elsewhere.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.geometry import SPLITS, unit_hash
from skyscript_assets.lib.osm.objects import OSM_TYPES
from skyscript_assets.lib.pairs.images import Place, images_in
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.plant import ShardSettings
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard

SAMPLE_SCHEMA = pa.schema(
    {"chip_id": pa.string(), "split": pa.string(), "shard": pa.string(), "offset": pa.int64(), "length": pa.int64()}
)
"""Columns of `samples.parquet`: `shard` is `{split}/{number}.tar`; offset and length are those of the JPEG in it."""

Row = Mapping[str, Any]


def write_caption_shards(
    folders: PartitionFolders, settings: ShardSettings, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Write `{train,val,test}/{number}.tar`, a `sizes.json` in each of these folders, and `samples.parquet`.

    A sample is `{chip_id}.jpg`, `{chip_id}.txt` (prefix and caption) and `{chip_id}.json` (see `facts_of`), which
    states version and time of its OSM object where `folders` have objects. Within a split, pairs are in the order of a
    hash, not of the ground, so that neighbours do not meet in a batch; shards of a split differ by one pair at most. A
    split without pairs has no folder. Returns counts; chips `without_caption` are left out because the chosen one is
    empty.

    Raises:
        UpstreamMissingError, OutputSchemaError: an input is missing or of another version.
        CorruptInputError: an image differs from its digest, or a chip id is no WebDataset key.
    """
    table = read_pairs(folders).drop_columns("statements")
    rows = [row for row in table.to_pylist(maps_as_pydicts="strict") if row[settings.column].strip()]
    rows.sort(key=lambda row: (SPLITS.index(row["split"]), unit_hash("shard", row["chip_id"])))
    counts = Counter(row["split"] for row in rows)
    shards = {split: math.ceil(n / settings.samples_per_shard) for split, n in counts.items()}

    def number_of(split: str, nth: int) -> int:
        return ((nth + 1) * shards[split] - 1) // counts[split]

    images = images_in(folders.chips)
    pairs = ((row, images.read(Place.of(row)), settings.prefix + row[settings.column]) for row in rows)
    samples = []
    for sample in write_shards(pairs, out, number_of):
        samples.append(sample)
        progress(len(samples), len(rows), "pairs")
    write_table(out / "samples.parquet", rows_to_table(samples, SAMPLE_SCHEMA))
    return {
        "pairs": len(samples),
        "splits": {split: counts[split] for split in SPLITS},
        "shards": sum(shards.values()),
        "without_caption": table.num_rows - len(rows),
    }


def write_shards(
    pairs: Iterable[tuple[Row, bytes, str]], out: Path, number_of: Callable[[str, int], int]
) -> Iterator[Row]:
    """Write pairs of row, image and text as `{split}/{number}.tar` with `sizes.json`; gives rows of `samples.parquet`.

    One pair is in memory at a time. `number_of` is the number of the shard, rising, that the nth pair of a split goes
    into.

    Raises:
        CorruptInputError: a chip id is no WebDataset key.
    """
    sizes: dict[str, dict[str, int]] = {}
    with ExitStack() as whole:
        opened: dict[str, tuple[ExitStack, TarShard]] = {}
        for row, image, text in pairs:
            split, key = row["split"], row["chip_id"]
            if "." in key:
                told = f"the chip id {key!r} of chip_plan/{row['region']}/{row['source']} holds a dot"
                raise CorruptInputError(f"{told}, and WebDataset would cut it there; materialize chip_plan again")
            sized = sizes.setdefault(split, {})
            name = f"{number_of(split, sum(sized.values())):06d}.tar"
            if name not in sized:
                (out / split).mkdir(exist_ok=True)
                last = opened[split][0] if split in opened else whole.enter_context(ExitStack())
                last.close()
                opened[split] = last, last.enter_context(TarShard(out / split / name))
            shard = opened[split][1]
            facts = json.dumps(facts_of(row), ensure_ascii=False, separators=(",", ":"))
            entry = shard.add(f"{key}.jpg", image)
            shard.add(f"{key}.txt", text.encode())
            shard.add(f"{key}.json", facts.encode())
            sized[name] = sized.get(name, 0) + 1
            yield {"chip_id": key, "split": split, "shard": f"{split}/{name}", **entry._asdict()}
    for split, sized in sizes.items():
        write_text(out / split / "sizes.json", json.dumps(sized, indent=2) + "\n")


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
