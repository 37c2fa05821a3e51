from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.chips.quality import Quality, measure, perceptual_hash, rejection
from skyscript_assets.lib.settings import ChipSettings

SETTINGS = ChipSettings(snapshot="s", quota=1)


def chip(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1))


def everywhere(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.ones(rgb.shape[:2], bool)


def test_a_sharp_picture_is_accepted(textured: Callable) -> None:
    rgb = chip(textured(160, 160))
    quality = measure(rgb, everywhere(rgb))
    assert quality.nodata_share == 0
    assert quality.cloud_share < 0.01
    assert rejection(quality, SETTINGS) is None


def test_measures_are_those_of_numpy_on_the_grey_picture(textured: Callable) -> None:
    rgb = chip(textured(90, 70))
    grey = np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float64)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    quality = measure(rgb, everywhere(rgb))
    assert quality.contrast == pytest.approx(grey.std(), abs=1e-4)
    assert quality.sharpness == pytest.approx(laplacian.var(), abs=1e-4)


def test_pixels_without_data_count_in_no_measure_but_their_share(textured: Callable) -> None:
    rgb = chip(textured(100, 100))
    valid = everywhere(rgb)
    valid[:, 60:] = False
    spoilt = rgb.copy()
    spoilt[:, 60:] = 0
    whole, part = measure(rgb[:, :60].copy(), valid[:, :60]), measure(spoilt, valid)
    assert part.nodata_share == 0.4
    assert (part.contrast, part.cloud_share) == (whole.contrast, whole.cloud_share)
    assert part.sharpness == pytest.approx(whole.sharpness, rel=0.1)
    assert rejection(part, SETTINGS) == "no-data"


def test_a_chip_without_any_data_is_measured_and_rejected() -> None:
    quality = measure(np.zeros((50, 40, 3), np.uint8), np.zeros((50, 40), bool))
    assert (quality.nodata_share, quality.cloud_share, quality.contrast, quality.sharpness) == (1, 0, 0, 0)
    assert rejection(quality, SETTINGS) == "no-data"


def test_a_white_sheet_is_cloud_and_white_roofs_are_not(textured: Callable) -> None:
    rng = np.random.default_rng(0)
    cloud = np.clip(rng.normal(235, 1.0, (100, 100, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    assert rejection(measure(cloud, everywhere(cloud)), SETTINGS) == "cloud"
    roofs = chip(textured(100, 100))
    roofs[:40, :40] = 240
    quality = measure(roofs, everywhere(roofs))
    assert 0.1 < quality.cloud_share < 0.2
    assert rejection(quality, SETTINGS) is None
    yellow = np.full((100, 100, 3), (250, 250, 201), np.uint8)
    assert measure(yellow, everywhere(yellow)).cloud_share == 0


def test_one_level_is_blank_and_a_smooth_ramp_is_blurred() -> None:
    flat = np.full((100, 100, 3), 90, np.uint8)
    assert rejection(measure(flat, everywhere(flat)), SETTINGS) == "blank"
    ramp = np.linspace(20, 180, 100).astype(np.uint8)[np.newaxis, :, np.newaxis].repeat(100, 0).repeat(3, 2)
    assert rejection(measure(ramp, everywhere(ramp)), SETTINGS) == "blurred"


def test_the_first_reason_counts_and_each_limit_is_a_setting() -> None:
    worst = Quality(nodata_share=0.9, cloud_share=0.9, sharpness=0, contrast=0, phash="0" * 16)
    fields = {"max_nodata_share": 1.0, "max_cloud_share": 1.0, "min_contrast": 0.0, "min_sharpness": 0.0}
    found = []
    for number in range(5):
        lenient = SETTINGS.model_copy(update=dict(list(fields.items())[:number]))
        found.append(rejection(worst, lenient))
    assert found == ["no-data", "cloud", "blank", "blurred", None]


def test_the_hash_is_near_for_a_resized_picture_and_far_for_another(textured: Callable) -> None:
    def bits(picture: Image.Image) -> int:
        return int(perceptual_hash(np.asarray(picture.convert("L"))), 16)

    one, other = Image.fromarray(chip(textured(200, 200))), Image.fromarray(chip(textured(200, 200, seed=5)))
    same = one.resize((150, 150), Image.Resampling.LANCZOS)
    assert (bits(one) ^ bits(same)).bit_count() <= 4
    assert (bits(one) ^ bits(other)).bit_count() >= 16
    assert len(perceptual_hash(np.zeros((9, 9), np.uint8))) == 16


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 3)])
def test_even_the_smallest_pictures_are_measured(shape: tuple[int, int]) -> None:
    rgb = np.zeros((*shape, 3), np.uint8)
    assert measure(rgb, everywhere(rgb)).sharpness == 0
