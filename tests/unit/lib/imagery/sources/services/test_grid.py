import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import cell_bounds, cell_of
from skyscript_assets.lib.imagery.sources.services.grid import TileGrid, TileRange, nearest_grid, web_mercator_grid


@given(st.floats(-179.9, 179.8), st.floats(-84, 83.9), st.integers(0, 20))
def test_web_mercator_tiles_are_those_of_the_slippy_map(west: float, south: float, zoom: int) -> None:
    box = (west, south, west + 0.1, south + 0.1)
    tiles = web_mercator_grid(zoom, 256).tiles_over(shapely.box(*box))
    assert tiles is not None
    first, last = cell_of(west, south + 0.1, zoom), cell_of(west + 0.1, south, zoom)
    # A box that ends within a millionth of a tile of an edge may be given to either side.
    assert abs(tiles.column - first[0]) <= 1
    assert abs(tiles.row - first[1]) <= 1
    assert abs(tiles.column + tiles.columns - 1 - last[0]) <= 1
    assert abs(tiles.row + tiles.rows - 1 - last[1]) <= 1


def test_ground_of_whole_tiles_is_given_no_others() -> None:
    west, south, _, north = cell_bounds(1166, 592, 11)
    east = cell_bounds(1168, 592, 11)[2]
    assert web_mercator_grid(11, 256).tiles_over(shapely.box(west, south, east, north)) == TileRange(1166, 592, 3, 1)


def test_a_zoom_has_half_the_pixels_of_the_next() -> None:
    assert web_mercator_grid(0, 256).pixel == pytest.approx(156543.03392804097)
    # The longer side of a pixel at 60 degrees, on the ellipsoid and not on a sphere.
    assert web_mercator_grid(18, 256).gsd_m(shapely.Point(25, 60)) == pytest.approx(0.29934, rel=1e-4)
    assert web_mercator_grid(17, 512).pixel == pytest.approx(web_mercator_grid(18, 256).pixel)


def test_limits_cut_the_tiles() -> None:
    grid = TileGrid("a", CRS.from_epsg(3857), 0.0, 0.0, 100.0, 256, 256, TileRange(2, 3, 4, 5))
    assert grid.tiles_over(shapely.box(-10, -10, 10, 10)) == TileRange(2, 3, 4, 5)
    assert grid.tiles_over(shapely.box(-10, 1, 10, 10)) is None


def test_the_transform_begins_at_the_first_tile() -> None:
    grid = TileGrid("a", CRS.from_epsg(3067), 1000.0, 5000.0, 0.5, 256, 128, None)
    assert grid.transform(TileRange(2, -1, 1, 1)) == (0.5, 0.0, 1256.0, 0.0, -0.5, 5064.0)


@pytest.mark.parametrize(("gsd_m", "zoom"), [(0.6, "18"), (0.42, "19"), (0.43, "18"), (0.2, "19"), (1.1, "17")])
def test_the_nearest_resolution_is_that_of_the_least_ratio(gsd_m: float, zoom: str) -> None:
    grids = [web_mercator_grid(level, 256) for level in range(20)]
    assert nearest_grid(grids, gsd_m, shapely.Point(0, 0), "T").name == zoom


def test_no_resolution_within_a_factor_of_two_is_an_error() -> None:
    with pytest.raises(SceneError, match="T has no resolution near 0.1 m .*: it offers 0.299, 0.597"):
        nearest_grid([web_mercator_grid(18, 256), web_mercator_grid(19, 256)], 0.1, shapely.Point(0, 0), "T")
