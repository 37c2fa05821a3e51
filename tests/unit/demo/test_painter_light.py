"""Canvas, coarse maps, light, camera and crowns of the painter."""

import datetime as dt
import math
from typing import Any

import numpy as np
import pytest
import shapely

from skyscript_assets.demo.painter import kernels as k
from skyscript_assets.demo.painter.fields import Fields, make_fields, make_noise, rng_of, spectral_tile
from skyscript_assets.demo.painter.grid import Block, Grid, make_grid
from skyscript_assets.demo.painter.layers import Layer, Shape, burn, make_layer
from skyscript_assets.demo.painter.looks import MATERIALS, Look, Surface, crown_colours, plain, season_of
from skyscript_assets.demo.painter.painting import _GROVES, _LIGHT, block_of, lowest_sun, make_painting
from skyscript_assets.demo.settings import SyntheticSource

GRID = make_grid((24.930, 60.160, 24.945, 60.168), 0.5, "test")
SUMMER = season_of(dt.date(2020, 7, 1), 60.0)
BBOX = (24.930, 60.160, 24.945, 60.168)


def source(**changes: Any) -> SyntheticSource:
    facts = {"title": "S", "gsd_m": 0.5, "licence": "ODbL-1.0", "attribution": "p", "datetime": dt.date(2020, 7, 1)}
    return SyntheticSource(**(facts | changes))


def fields(zoom: int = 16, **changes: Any) -> Fields:
    return make_fields(GRID, {}, source(**changes), zoom)


def block(height: int = 200, width: int = 200, row: int = 0, col: int = 0) -> Block:
    return Block(row, col, height, width, (slice(0, height), slice(0, width)), 0.5)


def canvas_of(height_m: np.ndarray, albedo: float = 0.2) -> np.ndarray:
    canvas = np.full((*height_m.shape, 4), albedo, np.float32)
    canvas[..., k.TOP] = height_m
    return canvas


def lit(height_m: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """Green light of a canvas of grey things without haze."""
    maps = fields(sun_azimuth_deg=azimuth, sun_elevation_deg=elevation)
    canvas, clear = canvas_of(height_m), np.empty(height_m.shape, np.float32)
    axis = 0 if abs(math.cos(math.radians(azimuth))) >= abs(math.sin(math.radians(azimuth))) else 1
    place = maps.place(block(*height_m.shape))
    k.cast(canvas, maps.maps, place, 1e9, axis, clear)
    light = _LIGHT.copy()
    light[3] = 0
    k.shade(clear, maps.maps, place, light, canvas, np.zeros(height_m.shape, np.uint8))
    return canvas[..., 1]


def test_flat_open_ground_keeps_its_albedo_but_for_its_cells_tone() -> None:
    light = lit(np.zeros((64, 64)), 150, 40)[1:-1, 1:-1]
    assert light == pytest.approx(0.2, rel=0.06)
    assert np.ptp(light) < 0.001


def test_a_shadow_is_as_long_as_height_and_sun_say() -> None:
    height = np.zeros((200, 200))
    height[140:150, 80:120] = 10.0
    north_of_it = lit(height, 180, 45)[1:140, 100]
    length = (north_of_it < 0.1).sum() * 0.5
    assert length == pytest.approx(10.0 / math.tan(math.radians(45)), rel=0.15)


@pytest.mark.parametrize(("azimuth", "dark_side"), [(90, "west"), (270, "east"), (180, "north"), (0, "south")])
def test_shadows_fall_away_from_the_sun(azimuth: float, dark_side: str) -> None:
    height = np.zeros((200, 200))
    height[95:105, 95:105] = 12.0
    dark = lit(height, azimuth, 45)[1:-1, 1:-1] < 0.1
    sides = {
        "west": dark[94:104, :90],
        "east": dark[94:104, 108:],
        "north": dark[:90, 94:104],
        "south": dark[108:, 94:104],
    }
    assert [side for side, pixels in sides.items() if pixels.any()] == [dark_side]


def test_a_shadow_ends_on_a_roof_as_high_as_what_casts_it() -> None:
    height = np.zeros((200, 200))
    height[150:160, 80:120] = 10.0
    height[130:145, 80:120] = 10.0
    assert lit(height, 180, 45)[132:142, 100].min() > 0.15


def test_the_slope_that_faces_the_sun_is_the_brighter_one() -> None:
    rows = np.arange(100)[:, None] * np.ones((1, 100))
    light = lit(6.0 - np.abs(rows - 50) * 0.125, 180, 45)
    assert light[70, 50] > 1.2 * light[30, 50]


def test_margins_lie_towards_the_sun_and_are_bounded() -> None:
    painting = make_painting(GRID, [], source(sun_azimuth_deg=180.0, invent_per_km2=0), 16, BBOX)
    here = block_of(painting, (0, 0, 256, 256))
    (top, bottom), (left, right) = (
        (part.start, side - part.stop) for part, side in zip(here.core, (here.height, here.width), strict=True)
    )
    assert bottom * 0.5 >= 25.0 / lowest_sun(source()) + 7
    assert top < bottom / 2
    assert left == right < bottom / 2
    assert bottom * 0.5 < 70 + 20


def test_the_sun_differs_a_little_from_cell_to_cell_and_never_jumps() -> None:
    maps = fields(zoom=18, sun_azimuth_deg=150.0)
    ups = np.array([maps.value(k.UP, x, 200.0) for x in range(0, 800, 4)])
    assert ups.std() > 1e-4
    assert np.abs(np.diff(ups)).max() < 0.02


def test_random_colours_belong_to_cells() -> None:
    maps = fields(zoom=17, colours="random")
    assert fields().random is None
    assert maps.random is not None
    assert maps.random.shape[0] > maps.cell.max()
    assert maps.random.shape[1:] == (max(Surface) + 1, 3)
    assert len(np.unique(maps.cell)) >= 2
    assert np.abs(maps.random[0, 1] - maps.random[1, 1]).max() > 0


def test_a_tile_of_noise_repeats_without_a_seam() -> None:
    tile = spectral_tile(rng_of("noise"), 64, 4.0, 30.0)
    assert (float(tile.mean()), float(tile.std())) == pytest.approx((0, 1), abs=1e-3)
    inside = np.abs(np.diff(tile, axis=0)).mean()
    assert np.abs(tile[0] - tile[-1]).mean() < 2 * inside


def test_a_coarse_map_is_blended_between_its_nodes() -> None:
    nodes = np.array([[[0, 1, 2], [10, 11, 12], [20, 21, 22]]], np.float32)
    assert k.between(nodes, 0, 1.5, 0.5) == pytest.approx(15.5)


def test_the_camera_is_monotone_and_its_noise_is_small_and_belongs_to_places() -> None:
    noise, curve = make_noise(0.5, 1), np.linspace(0, 255, 4096, dtype=np.float32)

    def exposed(shade: float, row: int = 0) -> np.ndarray:
        picture = np.empty((3, 64, 64), np.uint8)
        k.expose(np.full((68, 68, 4), shade, np.float32), 2, 2, row, 0, noise, curve, picture)
        return picture

    means = [exposed(shade).mean() for shade in (0.02, 0.1, 0.3, 0.6, 1.0)]
    assert means == sorted(means)
    assert 0.3 < exposed(0.3).astype(float).std() < 4
    assert np.array_equal(exposed(0.3)[:, 16:], exposed(0.3, row=16)[:, :48])


def test_coarse_pixels_are_supersampled_up_to_four_times() -> None:
    bbox = (24.93, 60.16, 24.94, 60.17)
    factors = [make_grid(bbox, gsd, "test").supersampling for gsd in (0.1, 0.3, 0.5, 0.6, 1.0, 10.0)]
    assert factors == [1, 1, 1, 2, 2, 4]


def test_blocks_cover_the_canvas_once() -> None:
    grid = Grid(32635, 1.0, 2, 0.0, 0.0, 1900, 700)
    covered = np.zeros((1400, 3800), int)
    for row, col, height, width in grid.blocks():
        covered[row : row + height, col : col + width] += 1
        assert row % 512 == col % 512 == 0
    assert (covered == 1).all()


def test_places_survive_the_way_to_degrees_and_back() -> None:
    footprint = GRID.footprint()
    local = GRID.to_local(np.array([footprint], dtype=object))[0]
    assert local.bounds == pytest.approx((0, 0, *GRID.size_m), abs=1e-3)
    assert shapely.is_valid(footprint)


def test_later_polygons_cover_earlier_ones_and_holes_stay_open() -> None:
    ring = shapely.Polygon(shapely.box(10, 10, 90, 90).exterior, [shapely.box(30, 30, 50, 50).exterior])
    burnt = burn(np.array([ring, shapely.box(60, 60, 95, 95)], dtype=object), block())
    assert burnt[40, 40] == 1
    assert burnt[80, 80] == 0
    assert burnt[140, 140] == 2
    assert burn(np.array([shapely.Polygon()], dtype=object), block()).max() == 0


def laid(layer: Layer, canvas: np.ndarray, surface: np.ndarray) -> None:
    maps, here = fields(), block()
    args = (layer.looks, layer.roofs, layer.walls, make_noise(0.5, 0), maps.maps, maps.place(here))
    k.lay(burn(layer.polygons, here), *args, canvas, surface)


def test_the_higher_thing_covers_the_lower_one() -> None:
    canvas, surface = canvas_of(np.zeros((200, 200))), np.zeros((200, 200), np.uint8)
    low, high = plain((10, 10, 10), 2.0, Surface.PATH), plain((250, 250, 250), 5.0, Surface.BUILDING)
    for look in (high, low):
        laid(make_layer([Shape(0, shapely.box(20, 20, 60, 60), look)], SUMMER, 0.5), canvas, surface)
    assert surface[80, 80] == Surface.BUILDING
    assert canvas[80, 80, 0] > 0.8
    assert canvas[80, 80, k.TOP] == 5


def test_marks_are_blended_and_leave_the_surface() -> None:
    canvas, surface = canvas_of(np.zeros((200, 200)), 0.0), np.full((200, 200), 2, np.uint8)
    mark = plain((255, 255, 255), opacity=0.25)
    laid(make_layer([Shape(0, shapely.box(20, 20, 60, 60), mark)], SUMMER, 0.5), canvas, surface)
    assert canvas[80, 80, :3] == pytest.approx(0.25)
    assert surface[80, 80] == 2


def test_fields_have_rows_that_coarse_pixels_cannot_show() -> None:
    look = Look((120, 120, 120), (120, 120, 120), Surface.FARMLAND, 0.0, 0.0, rows=(0.0, 1.6, 0.06))
    fine, coarse = (make_layer([Shape(0, shapely.box(0, 0, 1, 1), look)], SUMMER, pixel) for pixel in (0.3, 1.0))
    assert fine.looks[0, k.STRIPES] > 0.03
    assert coarse.looks[0, k.STRIPES] == 0


def scattered(material: str, height_m: float = 0.0) -> np.ndarray:
    """Crowns on ground of one material in the western half of a block, on whose surface it is alone."""
    index = np.ones((200, 200), np.int32)
    index[:, 100:] = 2
    shapes = [Shape(0, shapely.Polygon(), MATERIALS[name]) for name in (material, "water")]
    looks = make_layer(shapes, SUMMER, 0.5).looks
    surface = np.where(index == 1, int(MATERIALS[material].surface or 0), 5).astype(np.uint8)
    maps, crowns = fields(), np.empty((5000, 6))
    dice = rng_of("dice").random((7, 256, 256), np.float32)
    canvas = canvas_of(np.full((200, 200), height_m))
    return crowns[: k.scatter(_GROVES, dice, index, looks, maps.maps, maps.place(block()), canvas, surface, crowns)]


def test_woods_are_dense_and_nothing_grows_on_water_or_roofs() -> None:
    wood = scattered("conifers")
    assert 300 < len(wood) < 700
    assert wood[:, 0].max() < 50.0
    assert wood[:, 4].mean() > 0.9
    assert len(scattered("grass")) < 30
    assert len(scattered("conifers", height_m=5.0)) == 0


def test_a_crown_has_the_size_of_its_row_and_leaves_fall_in_winter() -> None:
    maps, colours = fields(), crown_colours(SUMMER)
    shown = {}
    for leaf in (1.0, 0.15):
        canvas, surface = canvas_of(np.zeros((200, 200))), np.zeros((200, 200), np.uint8)
        tree = np.array([[50.0, 50.0, 5.0, 14.0, 0.0, 0.5]])
        k.stamp(tree, colours, leaf, make_noise(0.5, 0), maps.place(block()), canvas, surface)
        shown[leaf] = (surface == Surface.TREES).sum() * 0.25
        assert canvas[..., k.TOP].max() == pytest.approx(14, abs=1.0)
    assert shown[1.0] == pytest.approx(np.pi * 25, rel=0.3)
    assert shown[0.15] < 0.7 * shown[1.0]
    winter = crown_colours(season_of(dt.date(2020, 1, 15), 60.0))
    assert (winter[0, :, 0] / winter[0, :, 1]).mean() > (colours[0, :, 0] / colours[0, :, 1]).mean()
    assert np.array_equal(winter[1], colours[1])
