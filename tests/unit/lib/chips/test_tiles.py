import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from skyscript_assets.lib.chips.grids import Grid
from skyscript_assets.lib.chips.sampling import object_codes
from skyscript_assets.lib.chips.tiles import NOTHING, OUTSIDE, TWO_CELLS, TWO_SPLITS, judge, place, tiles_of
from skyscript_assets.lib.geometry import cells_of_bounds
from skyscript_assets.lib.settings.plant import PlanSettings
from tests.splits import split_of_bounds

ZOOM = 15
SIDE = 6000
GRID = Grid(
    crs="EPSG:32632",
    origin=(400_000.0, 5_200_000.0),
    step=(0.5, -0.5),
    limits=np.array([0, 0, SIDE, SIDE]),
    footprint=shapely.box(-1, -1, SIDE + 1, SIDE + 1),
    resampled=False,
    to_crs=Transformer.from_crs(4326, 32632, always_xy=True),
)
PLAN = PlanSettings(snapshot="s", quota=1)


@settings(deadline=None)
@given(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), st.integers(1, SIDE), st.integers(1, SIDE))
def test_a_window_is_judged_by_the_splits_of_its_box(x: int, y: int, width: int, height: int) -> None:
    window = np.array([[x, y, min(SIDE, x + width), min(SIDE, y + height)]])
    west, south, east, north = GRID.bounds(window)[0].tolist()
    (found,) = judge(GRID, window, ZOOM).tolist()
    bounds = (west, south, east, north)
    if len(cells_of_bounds(bounds, ZOOM)) == 1:
        assert found == NOTHING
    else:
        assert found == (TWO_SPLITS if split_of_bounds(bounds, ZOOM) is None else TWO_CELLS)


def test_a_window_off_the_footprint_is_outside() -> None:
    assert judge(GRID, np.array([[-9, 0, 90, 99], [0, 0, 90, SIDE + 9]]), ZOOM).tolist() == [OUTSIDE, OUTSIDE]


boxes = st.tuples(st.floats(0, SIDE - 1), st.floats(0, SIDE - 1), st.floats(0, 900), st.floats(0, 900))


@settings(deadline=None)
@given(
    box=boxes,
    area=st.booleans(),
    seed=st.integers(0, 9),
    rule=st.sampled_from(["focus", "paper"]),
    shift=st.floats(0, 1),
    context=st.floats(1, 3),
)
def test_a_place_keeps_the_anchor_inside_the_tile_and_the_tile_on_the_scene(
    box: tuple[float, float, float, float], area: bool, seed: int, rule: str, shift: float, context: float
) -> None:
    plan = PLAN.model_copy(update={"seed": seed, "rule": rule, "shift": shift, "context": context})
    x, y, width, height = box
    extent = (width, height) if area else (0.0, 0.0)
    tiles = tiles_of(np.array([[x, y, x + extent[0], y + extent[1]]]), np.array([area]), plan)
    if not tiles.fits[0]:
        return
    codes = object_codes(pa.chunked_array([["a7" if area else "n7"]]))
    windows, wrong = place(GRID, tiles, codes, plan, ZOOM)
    if wrong[0] == OUTSIDE:
        return
    assert (windows[0, 2:] - windows[0, :2] == tiles.sizes[0]).all()
    assert (windows[0, :2] <= tiles.anchors[0, :2]).all()
    assert (windows[0, 2:] >= tiles.anchors[0, 2:]).all()
    assert windows[0].min() >= 0
    assert windows[0].max() <= SIDE
    assert wrong[0] == judge(GRID, windows, ZOOM)[0]
    if area:
        least = plan.min_tile_px
        assert (tiles.sizes[0] >= least).all()
        assert (tiles.sizes[0] <= plan.max_tile_px).all()
        if rule == "focus":
            assert tiles.sizes[0].max() <= 2 * tiles.sizes[0].min() + 1
            assert (tiles.anchors == tiles.held).all()


def test_a_chip_that_can_stay_in_its_cell_does() -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform(200, SIDE - 200, (3000, 2))
    tiles = tiles_of(np.tile(points, 2), np.zeros(3000, dtype=np.bool_), PLAN)
    codes = object_codes(pa.chunked_array([[f"n{i}" for i in range(3000)]]))
    _, wrong = place(GRID, tiles, codes, PLAN, ZOOM)
    unmoved = judge(GRID, np.concatenate([tiles.centred, tiles.centred + tiles.sizes], axis=1), ZOOM)
    assert (wrong <= unmoved).all()
    assert (wrong != NOTHING).sum() < 0.3 * (unmoved != NOTHING).sum()


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_without_a_shift_the_object_is_in_the_middle_and_with_one_it_is_not(shift: float) -> None:
    tiles = tiles_of(np.array([[3000.5, 3000.5, 3000.5, 3000.5]] * 200), np.zeros(200, dtype=np.bool_), PLAN)
    codes = object_codes(pa.chunked_array([[f"n{i}" for i in range(200)]]))
    windows, _ = place(GRID, tiles, codes, PLAN.model_copy(update={"shift": shift}), 4)
    moved = (windows[:, :2] - tiles.centred) / tiles.sizes
    assert np.abs(moved).max() <= shift
    assert moved.std() == pytest.approx(shift / 3**0.5, abs=0.03)
