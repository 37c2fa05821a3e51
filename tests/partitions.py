"""A region and source with plan, chips, captions and scores, made from a dict a chip."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard

Facts = dict[str, Any]


def jpeg(seed: int, width: int = 120, height: int = 100) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=80)


def plan_row(number: int, facts: Facts) -> Facts:
    west = float(facts.get("west", number))
    return {
        "chip_id": f"a{number}_S_20200601_{number:08x}",
        "object_id": f"a{number}",
        "region": "here",
        "source": "S",
        "scene_id": "S-20200601",
        "crs": "EPSG:32632",
        "transform": [1.0, 0.0, 0.0, 0.0, -1.0, 0.0],
        "width": 120,
        "height": 100,
        "gsd_m": 0.5,
        "bbox": {"xmin": west, "ymin": 50.0, "xmax": west + 0.5, "ymax": 50.5},
        "focus_box": [10, 20, 60, 70],
        "osm_shift_m": [0.0, 0.0],
        "stratum": "building=yes",
        "cell": f"{number}/7",
        "split": "train",
    }


def chip_row(number: int, facts: Facts) -> Facts:
    return {
        "status": "ok",
        "reason": None,
        "shard": "part-00000.tar",
        "width": 120,
        "height": 100,
        "datetime": 1_590_969_600_000,
        "nodata_share": 0.0,
        "cloud_share": 0.0,
        "sharpness": 50.0,
        "contrast": 40.0,
        "phash": f"{number:016x}",
        "licence": "CC0-1.0",
        "attribution": "A surveyor",
        "synthetic": False,
        "focus_valid_share": 1.0,
        "window_digest": f"{number:032x}",
    }


@pytest.fixture
def write_partition(tmp_path: Path) -> Callable[..., PartitionFolders]:
    """Writes plan, chips, captions and scores of a partition from one dict of differing facts a chip.

    Beside columns of the tables, `image` is the seed of the picture, `west` the chip's western edge in degrees, and
    `captioned` and `scored` say whether it occurs in those tables.
    """

    def write(chips: list[Facts], region: str = "here", source: str = "S") -> PartitionFolders:
        folders = PartitionFolders(
            *(tmp_path / region / source / name for name in ("plan", "chips", "captions", "scores"))
        )
        for folder in (folders.plan, folders.chips, folders.captions, folders.scores):
            folder.mkdir(parents=True)
        rows = []
        with TarShard(folders.chips / "part-00000.tar") as shard:
            for number, facts in enumerate(chips):
                known = plan_row(number, facts) | chip_row(number, facts) | {"region": region, "source": source}
                known |= {
                    **dict.fromkeys(STYLES, f"Building number {number}."),
                    "title": f"building number {number}",
                    "title_multi_objects": f"building number {number}, road",
                }
                known |= {
                    "center_tags": {"building": "yes", "name": "Ä"},
                    "surrounding": [],
                    "trace": [],
                    "regions": [],
                }
                known["statements"] = [{"object_id": f"a{number}", "focus": True, "clause": known["title"]}]
                known |= {"column": "title", "score": number / 100, "scorer": "a scorer"} | facts
                known.setdefault("scores", {known["scorer"]: {"title": known["score"]}})
                data = jpeg(facts.get("image", number))
                entry = shard.add(f"{known['chip_id']}.jpg", data)
                rows.append(known | entry._asdict() | {"sha256": hashlib.sha256(data).hexdigest()} | facts)
        tables = {
            "plan.parquet": (folders.plan, PLAN_SCHEMA, rows),
            "chips.parquet": (folders.chips, CHIP_SCHEMA, rows),
            "captions.parquet": (folders.captions, CAPTION_SCHEMA, [r for r in rows if r.get("captioned", True)]),
            "scores.parquet": (folders.scores, SCORE_SCHEMA, [r for r in rows if r.get("scored", True)]),
        }
        for name, (folder, schema, chosen) in tables.items():
            write_table(folder / name, rows_to_table([{n: r[n] for n in schema.names} for r in chosen], schema))
        return folders

    return write
