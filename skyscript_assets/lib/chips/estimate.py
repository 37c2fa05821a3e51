"""What a plan will cost before anything is fetched: pixels to read, requests, bytes on disk, seconds.

Estimates are shown beside the plan and by `skyscript estimate`; nothing is decided by them, so they are no part of any
output.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.kind import source_kind
from skyscript_assets.lib.osm.ragged import ranges
from skyscript_assets.lib.settings.plant import ChipSettings, RateSettings
from skyscript_assets.lib.settings.sources import SourceBase
from skyscript_assets.lib.tables import read_table

JPEG_BYTES_PER_PX = {50: 0.15, 75: 0.21, 90: 0.33, 95: 0.46, 100: 0.84}
"""Bytes of a chip's JPEG (4:2:0) for each pixel by quality: median of the real images in `benchmarks/chip_bytes.py`."""

ROW_BYTES = 200
"""Bytes of a chip in the table and as a member of its tar beside the image."""


@dataclass(frozen=True)
class Estimate:
    """What cutting a plan will take: chips to cut, scenes to open, blocks or tiles to read, each once, and the costs.

    Attributes:
        source_bytes: Bytes of the blocks' pixels, decoded, in the three bands that are shown; compressed it is less.
        requests: Requests to servers: one for each block and image file, and those of opening; none for what is kept.
        disk_bytes: Bytes that the chips will take.
        seconds: Time by the rates in the settings, and by the requests that a service is asked for in a second.
        bytes_per_px: Bytes of an image for each of its pixels that `disk_bytes` counts with.
        measured: Whether `bytes_per_px` is that of an earlier output of the same partition.
    """

    chips: int
    scenes: int
    blocks: int
    source_bytes: int
    requests: int
    disk_bytes: int
    seconds: float
    bytes_per_px: float
    measured: bool


def estimate(
    plan_folder: Path,
    scenes_folder: Path,
    source: SourceBase,
    chips: ChipSettings,
    rates: RateSettings,
    earlier: Path | None = None,
) -> Estimate:
    """What cutting a plan, `chip_plan` of a region and source, from its scenes, `scene_index`, will take.

    Of an `earlier` `image_chips` of them the bytes for each pixel are expected again. Raises what `read_table` and
    `read_scenes` do.
    """
    plan = read_table(plan_folder / PLAN_FILE, PLAN_SCHEMA, ["scene_id", "crs", "transform", "width", "height"])
    scenes = {scene.scene_id: scene for scene in read_scenes(scenes_folder)}
    names, sizes = plan["scene_id"].to_pylist(), plan.select(["width", "height"]).to_pandas().to_numpy(np.int64)
    reading = source_kind(source.kind).reading(source)
    side = reading.block_px
    used = sorted(set(names))
    blocks = _blocks(np.searchsorted(used, names), _corners(plan, scenes), sizes, side)
    blocks_of = np.bincount(blocks, minlength=len(used)).tolist()
    source_bytes = sum(
        count * side * side * (6 if scenes[name].scale_low is not None else 3)
        for name, count in zip(used, blocks_of, strict=True)
    )
    requests = reading.chip_requests * len(plan) + sum(
        len(scenes[name].hrefs) * (reading.block_requests * count + reading.file_requests)
        for name, count in zip(used, blocks_of, strict=True)
    )
    known = None if earlier is None else _bytes_per_px(earlier)
    usual = float(np.interp(chips.jpeg_quality, [*JPEG_BYTES_PER_PX], [*JPEG_BYTES_PER_PX.values()]))
    bytes_per_px = usual if known is None else known
    pixels = int(sizes.prod(axis=1).sum())
    return Estimate(
        chips=len(plan),
        scenes=len(used),
        blocks=len(blocks),
        source_bytes=source_bytes,
        requests=requests,
        disk_bytes=round(pixels * bytes_per_px) + ROW_BYTES * len(plan),
        seconds=len(blocks) * side * side / 1e6 / rates.read_megapixels_s
        + pixels / 1e6 / rates.encode_megapixels_s
        + requests / (reading.requests_s or rates.requests_s),
        bytes_per_px=bytes_per_px,
        measured=known is not None,
    )


def _corners(plan: pa.Table, scenes: Mapping[str, Scene]) -> IntArray:
    """First column and row of each chip on its grid, [n, 2]; of a resampled one on multiples of its GSD."""
    transforms = np.array(plan["transform"].to_pylist(), dtype=np.float64).reshape(-1, 6)
    of_chip = (scenes[name] for name in plan["scene_id"].to_pylist())
    own = [
        scene.transform[2::3] if scene.crs == crs else (0.0, 0.0)
        for scene, crs in zip(of_chip, plan["crs"].to_pylist(), strict=True)
    ]
    origins = np.array(own, dtype=np.float64).reshape(-1, 2)
    return np.rint((transforms[:, [2, 5]] - origins) / transforms[:, [0, 4]]).astype(np.int64)


def _blocks(scene: IntArray, corners: IntArray, sizes: IntArray, side: int) -> IntArray:
    """The scene of each block that chips touch; a block that several touch counts once."""
    first, last = corners // side, (corners + sizes - 1) // side
    count = last - first + 1
    owner = np.repeat(np.arange(len(scene)), count.prod(axis=1))
    number = ranges(np.zeros(len(scene), dtype=np.int64), count.prod(axis=1))
    x, y = first[owner, 0] + number % count[owner, 0], first[owner, 1] + number // count[owner, 0]
    touched = np.unique(np.column_stack([scene[owner], x, y]), axis=0)
    return np.asarray(touched[:, 0], dtype=np.int64)


def _bytes_per_px(chips_folder: Path) -> float | None:
    """Bytes of an image for each of its pixels in an output of `image_chips`; None where it has no image."""
    table = read_table(chips_folder / "chips.parquet", columns=["length", "width", "height"])
    stored = table.filter(pc.is_valid(table["length"])).to_pandas().astype(np.int64)
    return float(stored["length"].sum() / (stored["width"] * stored["height"]).sum()) if len(stored) else None
