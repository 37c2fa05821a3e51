from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from skyscript_assets.lib.chips.quality import REASONS, SAMPLED_ROWS, Quality, measure, perceptual_hash, rejection
from skyscript_assets.lib.chips.row_sums import luma
from skyscript_assets.lib.settings.plant import ChipSettings

SETTINGS = ChipSettings()
BOX = (10, 10, 40, 40)


def chip(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.moveaxis(picture, 0, -1))


def everywhere(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.ones(rgb.shape[:2], bool)


def grey_of(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Grey levels row by row as the plant has them."""
    grey = np.empty(rgb.shape[:2], np.int16)
    for row, levels in zip(rgb, grey, strict=True):
        luma(row.reshape(-1), levels)
    return grey.astype(np.int64)


def test_a_sharp_picture_is_accepted(textured: Callable) -> None:
    rgb = chip(textured(160, 160))
    quality = measure(rgb, everywhere(rgb), BOX)
    assert quality.nodata_share == 0
    assert quality.cloud_share < 0.01
    assert rejection(quality, BOX, SETTINGS) is None


def test_measures_are_those_of_numpy_on_the_grey_picture(textured: Callable) -> None:
    rgb = chip(textured(90, 70))
    grey = (rgb.astype(np.int64) @ [77, 150, 29] + 128) // 256
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    quality = measure(rgb, everywhere(rgb), BOX)
    assert quality.contrast == pytest.approx(grey[1:-1, 1:-1].std(), abs=1e-4)
    assert quality.sharpness == pytest.approx(laplacian.var(), abs=1e-4)
    assert np.array_equal(grey_of(rgb), grey)
    assert np.abs(grey_of(rgb) - np.asarray(Image.fromarray(rgb).convert("L")).astype(int)).max() <= 1


def test_large_chips_are_measured_on_rows_that_stand_for_all(textured: Callable) -> None:
    rgb = chip(textured(400, 400))
    quality = measure(rgb, everywhere(rgb), BOX)
    grey = grey_of(rgb)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    rows = slice(0, None, 398 // SAMPLED_ROWS)
    assert quality.sharpness == pytest.approx(laplacian[rows].var(), abs=1e-4)
    assert quality.sharpness == pytest.approx(laplacian.var(), rel=0.3)
    assert quality.contrast == pytest.approx(grey.std(), rel=0.1)


def test_pixels_without_data_count_in_no_measure_but_their_share(textured: Callable) -> None:
    rgb = chip(textured(100, 100))
    valid = everywhere(rgb)
    valid[:, 60:] = False
    spoilt = rgb.copy()
    spoilt[:, 60:] = 0
    whole, part = measure(rgb[:, :60].copy(), valid[:, :60], BOX), measure(spoilt, valid, BOX)
    assert part.nodata_share == 0.4
    assert part.contrast == pytest.approx(whole.contrast, rel=0.02)
    assert part.sharpness == pytest.approx(whole.sharpness, rel=0.1)
    assert rejection(part, BOX, SETTINGS) == "no-data"


@given(st.integers(0, 2**32 - 1), st.integers(3, 130), st.integers(3, 60), st.floats(0, 1))
def test_measures_of_any_picture_are_those_of_numpy(seed: int, height: int, width: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.choice(np.array([0, 90, 199, 200, 230, 231, 255], np.uint8), (height, width, 3))
    rgb[: height // 2] = rng.integers(195, 256)
    mask = rng.random((height, width)) < share
    step = max(1, (height - 2) // SAMPLED_ROWS)
    grey = (rgb.astype(np.int64) @ [77, 150, 29] + 128) // 256
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    seen = mask[1:-1, 1:-1][::step]
    known = seen & (mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])[::step]
    darkest, lightest = (extreme(axis=2)[1:-1, 1:-1][::step].astype(int) for extreme in (rgb.min, rgb.max))
    white = seen & (darkest >= 200) & (lightest - darkest <= 30) & (np.abs(laplacian[::step]) <= 12)
    quality = measure(rgb, mask, BOX)
    assert quality.nodata_share == pytest.approx(1 - mask.mean(), abs=1e-6)
    assert quality.cloud_share == pytest.approx(white.sum() / max(1, seen.sum()), abs=1e-6)
    level, lap = grey[1:-1, 1:-1][::step][seen], laplacian[::step][known]
    assert quality.contrast == pytest.approx(level.std() if level.size else 0, abs=1e-4)
    assert quality.sharpness == pytest.approx(lap.var() if lap.size else 0, abs=1e-4)
    whole = measure(rgb, None, BOX)
    assert whole == measure(rgb, everywhere(rgb), BOX)
    assert whole.phash == quality.phash


def test_the_focus_object_must_lie_on_valid_pixels(textured: Callable) -> None:
    rgb = chip(textured(100, 100))
    valid = everywhere(rgb)
    valid[20:40, 30:40] = False
    quality = measure(rgb, valid, (20, 20, 40, 40))
    assert quality.focus_valid_share == 0.5
    assert rejection(quality, (20, 20, 40, 40), SETTINGS) == "focus-hidden"
    elsewhere = measure(rgb, valid, (60, 60, 80, 80))
    assert elsewhere.focus_valid_share == 1
    assert rejection(elsewhere, (60, 60, 80, 80), SETTINGS) is None


def test_a_focus_object_of_few_pixels_is_too_small_and_a_point_is_not(textured: Callable) -> None:
    rgb = chip(textured(100, 100))
    quality = measure(rgb, everywhere(rgb), BOX)
    assert rejection(quality, (10, 10, 17, 12), SETTINGS) == "too-small"
    assert rejection(quality, (10, 10, 18, 12), SETTINGS) is None
    assert rejection(quality, (10, 10, 11, 11), SETTINGS) is None


def test_a_chip_without_any_data_is_measured_and_rejected() -> None:
    quality = measure(np.zeros((50, 40, 3), np.uint8), np.zeros((50, 40), bool), BOX)
    assert (quality.nodata_share, quality.cloud_share, quality.contrast, quality.sharpness) == (1, 0, 0, 0)
    assert rejection(quality, BOX, SETTINGS) == "no-data"


def test_a_white_sheet_is_cloud_and_white_roofs_are_not(textured: Callable) -> None:
    rng = np.random.default_rng(0)
    cloud = np.clip(rng.normal(235, 1.0, (100, 100, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    assert rejection(measure(cloud, everywhere(cloud), BOX), BOX, SETTINGS) == "cloud"
    roofs = chip(textured(100, 100))
    roofs[:40, :40] = 240
    quality = measure(roofs, everywhere(roofs), BOX)
    assert 0.1 < quality.cloud_share < 0.2
    assert rejection(quality, BOX, SETTINGS) is None
    yellow = np.full((100, 100, 3), (250, 250, 201), np.uint8)
    assert measure(yellow, everywhere(yellow), BOX).cloud_share == 0


def test_one_level_is_blank_and_a_smooth_ramp_is_blurred() -> None:
    flat = np.full((100, 100, 3), 90, np.uint8)
    assert rejection(measure(flat, everywhere(flat), BOX), BOX, SETTINGS) == "blank"
    ramp = np.linspace(20, 180, 100).astype(np.uint8)[np.newaxis, :, np.newaxis].repeat(100, 0).repeat(3, 2)
    assert rejection(measure(ramp, everywhere(ramp), BOX), BOX, SETTINGS) == "blurred"


def test_the_first_reason_counts_and_each_limit_is_a_setting() -> None:
    worst = Quality(nodata_share=0.9, focus_valid_share=0.1, cloud_share=0.9, sharpness=0, contrast=0, phash="0" * 16)
    fields = {
        "max_nodata_share": 1.0,
        "min_focus_valid_share": 0.0,
        "max_cloud_share": 1.0,
        "min_contrast": 0.0,
        "min_sharpness": 0.0,
        "min_focus_px": 1,
    }
    found = []
    for number in range(7):
        lenient = SETTINGS.model_copy(update=dict(list(fields.items())[:number]))
        found.append(rejection(worst, (1, 1, 4, 4), lenient))
    assert found == [*REASONS[:6], None]


def test_the_hash_is_near_for_a_resized_picture_and_far_for_another(textured: Callable) -> None:
    def bits(picture: Image.Image) -> int:
        return int(perceptual_hash(np.asarray(picture.convert("L"))), 16)

    def sampled(picture: Image.Image) -> int:
        rgb = np.asarray(picture)
        return int(measure(rgb, everywhere(rgb), BOX).phash, 16)

    one, other = Image.fromarray(chip(textured(200, 200))), Image.fromarray(chip(textured(200, 200, seed=5)))
    same = one.resize((150, 150), Image.Resampling.LANCZOS)
    assert (bits(one) ^ bits(same)).bit_count() <= 4
    assert (bits(one) ^ bits(other)).bit_count() >= 16
    assert (sampled(one) ^ sampled(same)).bit_count() <= 6
    assert (sampled(one.resize((500, 500))) ^ sampled(same)).bit_count() <= 6
    assert (sampled(one) ^ sampled(other)).bit_count() >= 16
    assert len(perceptual_hash(np.zeros((9, 9), np.uint8))) == 16


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 3), (5, 2), (3, 40)])
def test_even_the_smallest_pictures_are_measured(shape: tuple[int, int]) -> None:
    rgb = np.zeros((*shape, 3), np.uint8)
    assert measure(rgb, everywhere(rgb), BOX).sharpness == 0
