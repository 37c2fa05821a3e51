"""Edges drawn, measured and matched; what windows say together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from skyscript_assets.lib.registration.match import Consensus, consensus, draw, edge_field, surface

SIZE, RADIUS = 100, 20
SIDE = SIZE + 2 * RADIUS
EVERYWHERE = np.ones((SIDE, SIDE), dtype=bool)
Boxes = NDArray[np.float64]


def boxes(seed: int) -> Boxes:
    """Six rectangles (x0, y0, x1, y1) in pixels of the outlines' picture."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, SIZE - 35, (6, 2))
    return np.concatenate([corners, corners + rng.uniform(12, 35, (6, 2))], axis=1)


def outline(rectangles: Boxes) -> NDArray[np.complex64]:
    x0, y0, x1, y1 = rectangles.T
    corners = [np.column_stack(pair) for pair in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
    start, end = np.concatenate(corners), np.concatenate([*corners[1:], corners[0]])
    return draw(start, end, np.ones(len(start)), SIZE)


def image(
    rectangles: Boxes, dx: float, dy: float, seed: int = 0, levels: tuple[int, ...] = (60, 190)
) -> NDArray[np.float32]:
    """The rectangles moved by (dx, dy) on noisy ground, wider than the outlines' picture by the radius."""
    fine = Image.new("L", (8 * SIDE, 8 * SIDE), 125)
    pen = ImageDraw.Draw(fine)
    for number, box in enumerate(rectangles):
        moved = (box + np.array([dx, dy, dx, dy]) + RADIUS) * 8
        pen.rectangle((*np.rint(moved[:2]), *(np.rint(moved[2:]) - 1)), fill=levels[number % len(levels)])
    grey = np.asarray(fine).reshape(SIDE, 8, SIDE, 8).mean(axis=(1, 3))
    noise = np.random.default_rng(seed).normal(0, 4, (SIDE, SIDE, 3))
    return (grey[..., None] + noise).astype(np.float32)


def fit(
    pixels: NDArray[np.float32], drawn: NDArray[np.complex64], valid: NDArray[np.bool_] = EVERYWHERE
) -> NDArray[np.float64]:
    found = surface(*edge_field(pixels, valid), drawn, RADIUS)
    assert found is not None
    return found


def windows(dx: float, dy: float, count: int = 6, **how: tuple[int, ...]) -> Consensus:
    made = [fit(image(boxes(seed), dx, dy, seed, **how), outline(boxes(seed))) for seed in range(count)]
    return consensus(np.stack(made), 1.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(-18, 18), st.floats(-18, 18))
def test_a_shift_is_found_to_a_fraction_of_a_pixel(dx: float, dy: float) -> None:
    found = windows(dx, dy)
    assert (found.dx, found.dy) == pytest.approx((dx, dy), abs=0.3)
    assert found.used.sum() >= 5
    assert found.halves > 0.8
    assert not found.on_border


def test_bright_and_dark_things_are_found_alike() -> None:
    bright, dark = windows(4, -7, levels=(190,)), windows(4, -7, levels=(60,))
    assert (bright.dx, bright.dy) == pytest.approx((4, -7), abs=0.3)
    assert (dark.dx, dark.dy) == pytest.approx((4, -7), abs=0.3)


def test_edges_across_an_outline_count_against_it() -> None:
    start, end = np.array([[50.0, 10.0]]), np.array([[50.0, 90.0]])
    upright = draw(start, end, np.ones(1), SIZE)
    lying = draw(start[:, ::-1], end[:, ::-1], np.ones(1), SIZE)
    x = np.arange(SIDE) - (50 + RADIUS) > 0
    pixels = np.repeat(np.repeat(np.where(x, 200.0, 50.0)[None, :, None], SIDE, 0), 3, 2).astype(np.float32)
    field, usable = edge_field(pixels, EVERYWHERE)
    middle = (slice(RADIUS, RADIUS + SIZE),) * 2
    assert (field[middle] * np.conj(upright)).real.sum() > 10
    assert (field[middle] * np.conj(lying)).real.sum() <= 0
    assert usable.sum() == (SIDE - 8) ** 2


def test_a_wall_that_is_drawn_twice_counts_once() -> None:
    start, end = np.array([[20.5, 10.0]]), np.array([[20.5, 90.0]])
    once = draw(start, end, np.ones(1), SIZE)
    twice = draw(np.tile(start, (2, 1)), np.tile(end, (2, 1)), np.ones(2), SIZE)
    assert np.abs(once[11:89, 20]) == pytest.approx(1.0, abs=0.05)
    assert np.abs(twice).max() <= 1.0001
    assert np.abs(twice).sum() == pytest.approx(np.abs(once).sum(), rel=0.05)


def test_what_lies_outside_the_picture_is_not_drawn() -> None:
    drawn = draw(np.array([[-50.0, 50.0]]), np.array([[150.0, 50.0]]), np.ones(1), SIZE)
    assert np.abs(drawn).sum() == pytest.approx(SIZE, rel=0.02)
    assert not draw(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), SIZE).any()


def test_the_edge_of_the_data_is_no_edge() -> None:
    valid = EVERYWHERE.copy()
    valid[:, :45] = False
    made = []
    for seed in range(6):
        pixels = image(boxes(seed), 6, 3, seed)
        pixels[~valid] = 0
        made.append(fit(pixels, outline(boxes(seed)), valid))
        field, usable = edge_field(pixels, valid)
        assert not field[:, :48].any()
        assert not usable[:, :48].any()
    found = consensus(np.stack(made), 1.5)
    assert (found.dx, found.dy) == pytest.approx((6, 3), abs=0.4)


def test_an_image_without_edges_or_data_has_no_surface() -> None:
    flat = np.full((SIDE, SIDE, 3), 100, np.float32)
    drawn = outline(boxes(0))
    assert surface(*edge_field(flat, EVERYWHERE), drawn, RADIUS) is None
    assert surface(*edge_field(flat, ~EVERYWHERE), drawn, RADIUS) is None
    assert surface(*edge_field(image(boxes(0), 0, 0), EVERYWHERE), np.zeros_like(drawn), RADIUS) is None


def test_windows_of_noise_do_not_agree() -> None:
    rng = np.random.default_rng(3)
    made = [fit(rng.normal(120, 30, (SIDE, SIDE, 3)).astype(np.float32), outline(boxes(seed))) for seed in range(12)]
    found = consensus(np.stack(made), 1.5)
    assert found.halves < 0.3
    assert found.peak_ratio > 0.7


def test_some_wrong_windows_change_nothing() -> None:
    right = [fit(image(boxes(seed), 5, 5, seed), outline(boxes(seed))) for seed in range(8)]
    wrong = [fit(image(boxes(seed), -9, 2, seed), outline(boxes(seed))) for seed in range(8, 11)]
    found = consensus(np.stack(right + wrong), 1.5)
    assert (found.dx, found.dy) == pytest.approx((5, 5), abs=0.2)
    assert found.used[:8].sum() >= 7
    assert not found.used[8:].any()


def test_a_peak_on_the_border_is_told() -> None:
    assert windows(24, 0).on_border or windows(24, 0).halves < 0.5
