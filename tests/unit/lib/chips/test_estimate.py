from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter

from skyscript_assets.lib.chips.estimate import estimate
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.settings.plant import ChipSettings, RateSettings
from skyscript_assets.lib.settings.sources import Source

Factory = Callable[..., Any]
CHIPS = ChipSettings()
RATES = RateSettings(read_megapixels_s=1, encode_megapixels_s=1, requests_s=2)


def source(kind: str, **more: Any) -> Source:
    known = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a", "kind": kind}
    made: Source = TypeAdapter(Source).validate_python({**known, **more})
    return made


SOURCES = {
    "files": source("files", paths=["a.tif"]),
    "stac": source("stac", catalog="https://x.test", collection="c", assets=["red", "green", "blue"]),
    "xyz": source("xyz", url="https://x.test/{z}/{x}/{y}.png", requests_per_second=4),
    "earthengine": source("earthengine", collection="c"),
}


@pytest.fixture
def planned(tmp_path: Path, write_raster: Factory, scene_of: Factory, write_chip_plan: Factory) -> Scene:
    """Three chips on a scene of 1200 x 1100 pixels: two in its first block of 512, one across four blocks."""
    picture: NDArray[np.uint8] = np.ones((3, 1100, 1200), dtype=np.uint8)
    scene: Scene = scene_of(write_raster(tmp_path / "image.tif", picture))
    write_scenes(tmp_path, [scene])
    windows = [(scene, 0, 0, 100, 100), (scene, 200, 200, 100, 100), (scene, 500, 500, 100, 200)]
    write_chip_plan(tmp_path, windows)
    return scene


@pytest.mark.parametrize(
    ("kind", "blocks", "side", "requests"),
    [("files", 4, 512, 0), ("stac", 4, 512, 4 + 2), ("xyz", 7, 256, 7), ("earthengine", 4, 512, 3)],
)
def test_a_block_is_read_once_and_costs_a_request_where_it_is_remote(
    planned: Scene, tmp_path: Path, kind: str, blocks: int, side: int, requests: int
) -> None:
    found = estimate(tmp_path, tmp_path, SOURCES[kind], CHIPS, RATES)
    assert (found.chips, found.scenes, found.blocks, found.requests) == (3, 1, blocks, requests)
    assert found.source_bytes == blocks * side**2 * 3
    assert found.seconds == pytest.approx(blocks * side**2 / 1e6 + 0.04 + requests / (4 if kind == "xyz" else 2))
    assert found.disk_bytes == pytest.approx(40_000 * found.bytes_per_px, abs=1000)


def test_better_quality_takes_more_bytes(planned: Scene, tmp_path: Path) -> None:
    sizes = [
        estimate(tmp_path, tmp_path, SOURCES["files"], CHIPS.model_copy(update={"jpeg_quality": q}), RATES).disk_bytes
        for q in (50, 60, 90, 93, 100)
    ]
    assert sizes == sorted(set(sizes))


def test_an_empty_plan_costs_nothing(tmp_path: Path, write_chip_plan: Factory) -> None:
    write_scenes(tmp_path, [])
    write_chip_plan(tmp_path, [])
    found = estimate(tmp_path, tmp_path, SOURCES["xyz"], CHIPS, RATES)
    assert (found.chips, found.blocks, found.requests, found.disk_bytes, found.seconds) == (0, 0, 0, 0, 0)
