"""What is compiled has the bytes of Pillow."""

import numpy as np
import pytest
from PIL import Image

from skyscript_assets.lib.towers.resample import LUMA, jittered, resized, turned

SHAPES = [(90, 120), (300, 40), (40, 300), (7, 9), (2, 2), (256, 256)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_image(planes: np.ndarray) -> np.ndarray:
    return planes.transpose(0, 2, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 32, 224])
def test_a_crop_is_resized_as_pillow_does_it_columns_first(shape: tuple[int, int], size: int) -> None:
    image, (height, width) = noise(*shape), shape
    for box in ((0, 0, width, height), (1, 1, width, height), (0, height // 3, width // 2 + 1, height)):
        pillow = Image.fromarray(image).resize((size, height), 3, box=(box[0], 0, box[2], height))
        pillow = pillow.resize((size, size), 3, box=(0, box[1], size, box[3]))
        np.testing.assert_array_equal(as_image(resized(image, box, size)), np.asarray(pillow))


def test_both_passes_together_are_those_of_a_wide_crop() -> None:
    image = noise(200, 300)
    pillow = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC, box=(10, 20, 250, 190))
    np.testing.assert_array_equal(as_image(resized(image, (10, 20, 250, 190), 64)), np.asarray(pillow))


def test_an_image_of_the_size_stays_as_it_is() -> None:
    np.testing.assert_array_equal(as_image(resized(noise(64, 64), (0, 0, 64, 64), 64)), noise(64, 64))


@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (0.6, 1.4, 0.7), (1.4, 1.4, 1.4), (1.3, 0.6, 0.6)])
def test_colours_are_those_of_pillow_s_matrix(factors: tuple[float, float, float]) -> None:
    image, (brightness, contrast, saturation) = noise(48, 48), factors
    pillow = Image.fromarray(image)
    grey = float(np.asarray(pillow.convert("L")).mean(dtype=np.float64))
    matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * np.array(LUMA))
    rows = np.column_stack([matrix, np.full(3, (1 - contrast) * (brightness * grey))])
    found = as_image(jittered(np.ascontiguousarray(image.transpose(0, 2, 1)), *factors))
    np.testing.assert_array_equal(found, np.asarray(pillow.convert("RGB", tuple(rows.ravel().tolist()))))


def test_grey_stays_grey() -> None:
    found = jittered(np.full((8, 3, 8), 120, np.uint8), 1.2, 0.8, 1.4).astype(int)
    assert np.ptp(found, axis=1).max() <= 1
    assert abs(found.mean() - 144) < 1


@pytest.mark.parametrize("turns", range(4))
def test_turns_are_against_the_clock(turns: int) -> None:
    image = noise(5, 5)
    planes = np.ascontiguousarray(image.transpose(0, 2, 1))
    np.testing.assert_array_equal(turned(planes, turns), np.rot90(image, turns))
