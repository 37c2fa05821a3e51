"""Views of chips."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.towers.views import (
    Resize,
    augmented_view,
    centre_box,
    decode_image,
    focus_crop,
    plain_view,
    view_rng,
)

sides = st.integers(20, 300)


@st.composite
def chips_with_focus(draw):
    width, height = draw(sides), draw(sides)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, (x0, y0, draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height)))


@settings(max_examples=200, deadline=None)
@given(chips_with_focus(), st.integers(0, 1000))
def test_a_crop_holds_the_focus_box_or_its_middle_where_the_box_is_larger(chip, seed):
    width, height, focus = chip
    x0, y0, x1, y1 = focus_crop(width, height, focus, np.random.default_rng(seed))
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    for start, end, low, high in ((x0, x1, focus[0], focus[2]), (y0, y1, focus[1], focus[3])):
        assert start <= (low + high) // 2 < end
        if high - low <= end - start:
            assert start <= low
            assert high <= end
        else:
            assert low <= start
            assert end <= high


def test_crops_have_the_scale_and_ratio_of_the_paper():
    rng = np.random.default_rng(0)
    boxes = np.array([focus_crop(200, 200, None, rng) for _ in range(500)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert 0.66 < (widths * heights / 40_000).min() < 0.75
    assert (widths * heights).max() <= 40_000
    assert (widths / heights).max() <= 2.05
    assert (widths / heights).min() >= 0.48


def test_a_crop_without_a_focus_falls_anywhere():
    rng = np.random.default_rng(0)
    starts = {focus_crop(200, 200, None, rng)[0] for _ in range(200)}
    assert min(starts) < 5
    assert max(starts) > 40


def test_the_plain_view_of_a_long_chip_slides_until_the_focus_is_in_it():
    assert centre_box(300, 100) == (100, 0, 200, 100)
    assert centre_box(300, 100, (120, 10, 180, 50)) == (100, 0, 200, 100)
    assert centre_box(300, 100, (10, 10, 60, 50)) == (10, 0, 110, 100)
    assert centre_box(100, 300, (10, 240, 60, 290)) == (0, 190, 100, 290)
    assert centre_box(300, 100, (0, 0, 300, 100)) == (100, 0, 200, 100)


def test_a_view_depends_on_seed_chip_and_view_alone():
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    first = augmented_view(image, (5, 5, 40, 40), 64, view_rng(0, "a1", 1))
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, augmented_view(image, (5, 5, 40, 40), 64, view_rng(0, "a1", 1)))
    for other in (view_rng(1, "a1", 1), view_rng(0, "a2", 1), view_rng(0, "a1", 2)):
        assert not np.array_equal(first, augmented_view(image, (5, 5, 40, 40), 64, other))


def test_all_four_rotations_occur():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:20] = 255
    brightest = set()
    for view in range(40):
        turned = augmented_view(image, (0, 0, 64, 10), 32, view_rng(0, "a", view)).astype(int).sum(axis=2)
        edges = {"top": turned[0], "bottom": turned[-1], "left": turned[:, 0], "right": turned[:, -1]}
        brightest.add(max(edges, key=lambda side: edges[side].sum()))
    assert brightest == {"top", "bottom", "left", "right"}


def test_an_image_of_the_right_size_is_not_resampled():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert plain_view(image, None, 64) is image


def test_a_broken_jpeg_is_named():
    data = simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8))
    assert decode_image(data, "chip").shape == (64, 64, 3)
    for broken in (data[:30], b"", b"no image at all"):
        with pytest.raises(CorruptInputError, match=r"part-0\.tar: a1: not a whole JPEG"):
            decode_image(broken, "part-0.tar: a1")


def test_an_image_of_absurd_size_is_refused_before_it_is_decoded():
    data = bytearray(simplejpeg.encode_jpeg(np.zeros((64, 64, 3), np.uint8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\x00\xff\x00"  # height and width in the frame header
    with pytest.raises(CorruptInputError, match="65280 x 65280 pixels, at most 4096"):
        decode_image(bytes(data), "chip")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (300, 500), (500, 300), (100, 333), (257, 300), (60, 599)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_plain_view_is_open_clips_own_transform(height: int, width: int, mode: str, interpolation: str):
    from open_clip.transform import image_transform

    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    transform = image_transform(
        224, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode, interpolation=interpolation
    )
    expected = (transform(Image.fromarray(image)).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)
    wanted = Resize(mode == "squash", Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(plain_view(image, None, 224, wanted), expected)


def test_the_plain_view_of_a_resized_chip_slides_to_the_focus_too():
    image = np.zeros((100, 300, 3), np.uint8)
    image[40:60, 10:30] = 255
    view = plain_view(image, (10, 40, 30, 60), 50)
    assert view.shape == (50, 50, 3)
    assert int(view[20:30, :].max()) == 255
    assert int(plain_view(image, None, 50).max()) == 0
