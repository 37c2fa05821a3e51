"""Light, camera, noise and cells of the painter."""

import math

import numpy as np
import pytest

from skyscript_assets.demo.painter.cells import make_cells
from skyscript_assets.demo.painter.grid import Block, Grid, make_grid, supersampling_of
from skyscript_assets.demo.painter.light import MAX_SHADOW_M, Sun, illuminate, margins_px
from skyscript_assets.demo.painter.noise import CoarseField, rng_of, spectral_tile, wrap
from skyscript_assets.demo.painter.sensor import average, expose

GRID = make_grid((24.930, 60.160, 24.945, 60.168), 0.5, "test")


def block(height: int = 200, width: int = 200, row: int = 0, col: int = 0) -> Block:
    return Block(row, col, height, width, (slice(0, height), slice(0, width)), 0.5)


def lit(height_m: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    cells = make_cells(GRID, 16, 0, random_colours=False)
    colour = np.full((3, *height_m.shape), 0.2, np.float32)
    illuminate(
        colour,
        height_m.astype(np.float32),
        np.zeros(height_m.shape, bool),
        block(*height_m.shape),
        Sun(azimuth, elevation, cells),
    )
    return colour


def test_flat_open_ground_keeps_its_albedo() -> None:
    assert lit(np.zeros((64, 64)), 150, 40) == pytest.approx(0.2, abs=1e-4)


def test_a_shadow_is_as_long_as_height_and_sun_say() -> None:
    height = np.zeros((200, 200))
    height[140:150, 80:120] = 10.0
    north_of_it = lit(height, 180, 45)[1, :140, 100]
    length = (north_of_it < 0.1).sum() * 0.5
    assert length == pytest.approx(10.0 / math.tan(math.radians(45)), abs=1.5)


def test_shadows_fall_away_from_the_sun() -> None:
    height = np.zeros((200, 200))
    height[95:105, 95:105] = 12.0
    dark = lit(height, 90, 45)[1] < 0.1
    assert dark[95:105, :95].any()
    assert not dark[95:105, 106:].any()


def test_a_shadow_ends_on_a_roof_as_high_as_what_casts_it() -> None:
    height = np.zeros((200, 200))
    height[150:160, 80:120] = 10.0
    height[130:145, 80:120] = 10.0
    assert lit(height, 180, 45)[1, 132:142, 100].min() > 0.15


def test_the_slope_that_faces_the_sun_is_the_brighter_one() -> None:
    rows = np.arange(100)[:, None] * np.ones((1, 100))
    ridge = 6.0 - np.abs(rows - 50) * 0.5 * 0.5 * 0.5
    light = lit(ridge, 180, 45)[1]
    assert light[70, 50] > 1.2 * light[30, 50]


def test_margins_lie_towards_the_sun_and_are_bounded() -> None:
    sun = Sun(180.0, 45.0, make_cells(GRID, 16, 0, random_colours=False))
    top, bottom, left, right = margins_px(40.0, sun, 0.5, 7.0)
    assert bottom >= (40 + 7) / 0.5
    assert top == pytest.approx(7 / 0.5, abs=1)
    assert left == pytest.approx(right, abs=1)
    assert sun.reach_m(1e9) == MAX_SHADOW_M


def test_the_sun_differs_a_little_from_cell_to_cell_and_never_jumps() -> None:
    sun = Sun(150.0, 45.0, make_cells(GRID, 18, 3, random_colours=False))
    suns = np.array([sun.at(x, 200.0) for x in range(0, 800, 4)])
    assert suns[:, 2].std() > 1e-4
    assert np.abs(np.diff(suns, axis=0)).max() < 0.02


def test_random_colours_belong_to_cells() -> None:
    cells = make_cells(GRID, 17, 3, random_colours=True)
    assert cells.random is not None
    assert cells.random.shape[0] == cells.shape[0] * cells.shape[1]
    index = cells.index(block(400, 400))
    assert len(np.unique(index)) >= 2
    assert np.abs(cells.random[0, 1] - cells.random[1, 1]).max() > 0


def test_a_tile_of_noise_repeats_without_a_seam() -> None:
    tile = spectral_tile(rng_of("noise"), 64, 4.0, 30.0)
    assert (float(tile.mean()), float(tile.std())) == pytest.approx((0, 1), abs=1e-3)
    inside = np.abs(np.diff(tile, axis=0)).mean()
    assert np.abs(tile[0] - tile[-1]).mean() < 2 * inside


def test_blocks_that_overlap_see_the_same_noise() -> None:
    tile = spectral_tile(rng_of("noise"), 64, 4.0, 30.0)
    first, second = wrap(tile, block(50, 50, -10, 5)), wrap(tile, block(50, 50, 10, 15))
    assert np.array_equal(first[20:, 10:], second[:30, :40])


def test_a_coarse_field_is_interpolated_between_its_nodes() -> None:
    field = CoarseField(np.array([[0, 1, 2], [10, 11, 12], [20, 21, 22]], np.float32), 0.0, 0.0, 10.0)
    assert field.value(5.0, 15.0) == pytest.approx(15.5)
    values = field.at(block(40, 40))
    assert values[0, 0] == pytest.approx(field.value(0.25, 0.25), abs=1e-4)
    assert values[39, 39] == pytest.approx(field.value(19.75, 19.75), abs=1e-4)


def test_averaging_keeps_the_mean() -> None:
    image = np.random.default_rng(0).random((3, 8, 12), dtype=np.float32)
    smaller = average(image, 4)
    assert smaller.shape == (3, 2, 3)
    assert smaller[0, 0, 0] == pytest.approx(image[0, :4, :4].mean(), abs=1e-5)
    assert average(image, 1) is image


def test_the_camera_is_monotone_and_its_noise_is_small() -> None:
    shades = [0.02, 0.1, 0.3, 0.6, 1.0]
    inner = (slice(2, 66), slice(2, 66))
    pictures = [expose(np.full((3, 68, 68), shade, np.float32), inner, np.random.default_rng(1)) for shade in shades]
    means = [picture.mean() for picture in pictures]
    assert means == sorted(means)
    assert means[0] > 10
    assert all(0.3 < picture.astype(float).std() < 4 for picture in pictures)


def test_coarse_pixels_are_supersampled_up_to_four_times() -> None:
    assert [supersampling_of(gsd) for gsd in (0.1, 0.3, 0.5, 0.6, 1.0, 10.0)] == [1, 1, 1, 2, 2, 4]


def test_blocks_cover_the_canvas_once() -> None:
    grid = Grid(32635, 1.0, 2, 0.0, 0.0, 1900, 700)
    covered = np.zeros((1400, 3800), int)
    for row, col, height, width in grid.blocks():
        covered[row : row + height, col : col + width] += 1
        assert row % 512 == col % 512 == 0
    assert (covered == 1).all()


def test_places_survive_the_way_to_degrees_and_back() -> None:
    import shapely

    footprint = GRID.footprint()
    local = GRID.to_local(np.array([footprint], dtype=object))[0]
    assert local.bounds == pytest.approx((0, 0, *GRID.size_m), abs=1e-3)
    assert shapely.is_valid(footprint)
