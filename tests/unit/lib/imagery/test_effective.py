"""Effective resolution: photographs, enlarged and not, and pictures of nothing."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.imagery.effective import LEAST_FACTOR, effective_gsd_m, measure_scenes
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes, write_scenes
from skyscript_assets.lib.progress import silent

Picture = NDArray[np.uint8]
FACTOR = 1.5
"""How far an estimate may be off, as a factor; 1.35 was the worst of those that were tried."""

REAL = {
    "landsat7_olinda_br": (3, 2, 1),
    "naip_nd_m_4709963_se_20200831": (1, 2, 3),
    "neon_sjer_2018": (1, 2, 3),
    "spacenet2_vegas_img0": (1, 2, 3),
    "swissortho_zurich_1091-322": (1, 2, 3),
}


@pytest.fixture
def estimate(tmp_path: Path, write_raster: Callable[..., Path], scene_of: Callable[..., Scene]) -> Any:
    """The effective resolution of a picture (rows, columns, 3) of half a metre, in its pixels; None where unknown."""

    def measure(picture: Picture, **facts: Any) -> float | None:
        path = write_raster(tmp_path / "a.tif", np.moveaxis(picture, -1, 0), **facts)
        found = effective_gsd_m(RasterReader(scene_of(path)))
        return None if found is None else found / 0.5

    return measure


def landscape(side: int = 600, seed: int = 0) -> Picture:
    """Noise with as much energy in each octave, which is how photographs are."""
    rng = np.random.default_rng(seed)
    radius = np.hypot(np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side))
    waves = np.fft.rfft2(rng.normal(size=(side, side))) / np.maximum(radius, 1 / side)
    grey = np.fft.irfft2(waves, (side, side))
    return np.repeat(np.clip(128 + 40 * grey / grey.std(), 1, 255)[..., np.newaxis], 3, axis=2).astype(np.uint8)


def photograph(folder: Path, name: str) -> Picture:
    with rasterio.open(folder / f"imagery/{name}.tif") as dataset:
        return np.moveaxis(dataset.read(list(REAL[name])), 0, -1)[:700, :700]


def enlarged(picture: Picture, factor: float, how: Image.Resampling) -> Picture:
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(Image.fromarray(picture).resize(size, how))


def as_jpeg(picture: Picture, quality: int = 75) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("name", REAL)
def test_a_photograph_is_as_fine_as_its_pixels(shared_data: Path, estimate: Any, name: str) -> None:
    picture = photograph(shared_data, name)
    assert estimate(picture) == 1
    assert estimate(as_jpeg(picture)) == 1


@pytest.mark.parametrize("how", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("factor", [2, 2.5, 4])
@pytest.mark.parametrize("name", REAL)
def test_an_enlarged_photograph_is_as_fine_as_it_was(
    shared_data: Path, estimate: Any, name: str, factor: float, how: Image.Resampling
) -> None:
    picture = enlarged(photograph(shared_data, name), factor, how)
    for version in (picture, as_jpeg(picture)):
        assert factor / FACTOR <= estimate(version) <= factor * FACTOR


@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_repeated_pixels_are_no_detail(estimate: Any, factor: float) -> None:
    assert estimate(enlarged(landscape(300), factor, Image.Resampling.NEAREST)) == pytest.approx(factor, rel=0.1)


def test_scenes_that_show_nothing_or_are_too_small_have_none(estimate: Any) -> None:
    blank = np.full((600, 600, 3), 90, np.uint8)
    faint = (blank + np.random.default_rng(0).integers(0, 3, blank.shape)).astype(np.uint8)
    assert estimate(blank) is estimate(faint) is estimate(landscape(255)) is None
    assert estimate(np.zeros_like(blank), nodata=0) is None


def test_windows_with_gaps_are_left_out(estimate: Any) -> None:
    picture = landscape()
    picture[40:, 40:300] = 0
    assert estimate(picture, nodata=0) == 1
    picture[::200, ::200] = 0
    assert estimate(picture, nodata=0) is None


def test_the_table_of_scenes_gets_what_was_measured(
    tmp_path: Path, write_raster: Callable[..., Path], scene_of: Callable[..., Scene]
) -> None:
    fine = landscape(400)
    pictures = {"fine": fine, "coarse": enlarged(fine, 2, Image.Resampling.NEAREST), "blank": np.zeros_like(fine) + 5}
    grid = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000)
    scenes = [
        scene_of(write_raster(tmp_path / f"{name}.tif", np.moveaxis(picture, -1, 0), transform=grid))
        for name, picture in pictures.items()
    ]
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    write_scenes(tmp_path, [*scenes, Scene(**vars(scenes[0]) | {"scene_id": "broken", "hrefs": ("broken.tif",)})])
    assert measure_scenes(tmp_path, RasterReader, silent) == 1
    found = {scene.scene_id: scene.effective_gsd_m for scene in read_scenes(tmp_path)}
    assert found == {"fine": 0.5, "coarse": pytest.approx(1.0, rel=0.1), "blank": None, "broken": None}
    assert LEAST_FACTOR > 1
