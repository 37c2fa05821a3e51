"""Where a chip lies on its grid: the size of the tile, and the shift that keeps it on the ground of one split.

What a tile shows follows SkyScript (AAAI 2024, arXiv 2312.12856): the box of a polygon, a point, a vertex of a line.
With `rule: paper` the box is the tile; with `rule: focus` the box has context around it and always stays inside. Which
objects are drawn, and on which scene, is decided before.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.chips.grids import Grid
from skyscript_assets.lib.chips.sampling import unit_hashes
from skyscript_assets.lib.geometry import cells_of, touch_splits
from skyscript_assets.lib.settings.plant import PlanSettings

MAX_ASPECT = 2.0
"""Greatest ratio of a chip's sides under `rule: focus`: the paper's random crop has ratios 0.5 to 2.0."""

RANDOM_SHIFTS = 4
"""Random places tried before the directed ones."""

FAR_SHIFT = 0.4
"""Share of the free margin by which a chip that would touch two splits may move at most, from the centre."""

_DIRECTIONS = np.array([(x, y) for x in (0, -1, 1) for y in (0, -1, 1) if (x, y) != (0, 0)], dtype=np.float64)

# What is wrong with a place: the least wins, and places are tried until nothing is.
NOTHING, TWO_CELLS, TWO_SPLITS, OUTSIDE = 0, 1, 2, 3


@dataclass(frozen=True)
class Tiles:
    """Tiles that some objects want, in pixels of a grid.

    `held` [n, 4] is the object's box rounded outward, `anchors` [n, 4] what of it must stay inside the tile, `sizes`
    [n, 2] width and height, `centred` [n, 2] first column and row without a shift; `fits` [n] tells whether the object
    suits a tile at all.
    """

    held: IntArray
    anchors: IntArray
    sizes: IntArray
    centred: IntArray
    fits: BoolArray

    def where(self, kept: BoolArray) -> Self:
        """The tiles that a mask keeps."""
        return type(self)(self.held[kept], self.anchors[kept], self.sizes[kept], self.centred[kept], self.fits[kept])


def tiles_of(boxes: FloatArray, area: BoolArray, plan: PlanSettings) -> Tiles:
    """The tile of each object: see `SizeSettings` for the two rules.

    Boxes are (x0, y0, x1, y1) in pixels, [n, 4], of a point or a vertex without extent; `area` tells which are areas,
    [n].
    """
    first = np.floor(boxes[:, :2]).astype(np.int64)
    last = np.maximum(np.ceil(boxes[:, 2:]).astype(np.int64), first + 1)
    extent = last - first
    if plan.rule == "paper":
        middle = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)
        anchors = np.concatenate([middle, middle + 1], axis=1)
        wanted = extent
        fits = ((extent >= plan.min_tile_px) & (extent <= plan.max_tile_px)).all(axis=1) | ~area
    else:
        anchors = np.concatenate([first, last], axis=1)
        wanted = np.maximum(np.ceil(extent * plan.context).astype(np.int64), plan.min_tile_px)
        shorter = np.ceil(wanted.max(axis=1, keepdims=True, initial=0) / MAX_ASPECT).astype(np.int64)
        wanted = np.minimum(np.maximum(wanted, shorter), plan.max_tile_px)
        fits = (extent <= wanted).all(axis=1) | ~area
    sizes = np.where(area[:, None], wanted, plan.point_tile_px)
    centred = np.rint((boxes[:, :2] + boxes[:, 2:] - sizes) / 2).astype(np.int64)
    return Tiles(np.concatenate([first, last], axis=1), anchors, sizes, centred, fits)


def place(grid: Grid, tiles: Tiles, codes: HashArray, plan: PlanSettings, split_zoom: int) -> tuple[IntArray, IntArray]:
    """Shift tiles so that they lie on the scene and, where possible, in one cell.

    Random places come first, then the eight directions at the greatest shift, then the same further out (`FAR_SHIFT`):
    the first place with nothing wrong is taken, else the first of the least wrong. The anchor always stays inside. The
    random places come from the objects' hash codes, [n].

    Returns:
        Windows (x0, y0, x1, y1), [n, 4], and what is wrong with them, [n].
    """
    low = np.maximum(tiles.anchors[:, 2:] - tiles.sizes, grid.limits[:2])
    high = np.minimum(tiles.anchors[:, :2], grid.limits[2:] - tiles.sizes)
    free = tiles.sizes - (tiles.anchors[:, 2:] - tiles.anchors[:, :2])
    best = np.concatenate([tiles.centred, tiles.centred + tiles.sizes], axis=1)
    wrong = np.full(len(codes), OUTSIDE, dtype=np.int64)
    possible = (low <= high).all(axis=1)
    near = min(plan.shift, 0.5)
    directed = [(share, towards) for share in (near, max(near, FAR_SHIFT)) for towards in _DIRECTIONS]
    for attempt in range(RANDOM_SHIFTS + len(directed)):
        todo = np.flatnonzero(possible & (wrong != NOTHING))
        if len(todo) == 0:
            break
        if attempt < RANDOM_SHIFTS:
            draws = [unit_hashes(codes[todo], plan.seed, "shift", attempt, axis) for axis in "xy"]
            shift = near * (2.0 * np.column_stack(draws) - 1.0)
        else:
            share, towards = directed[attempt - RANDOM_SHIFTS]
            shift = share * towards
        start = tiles.centred[todo] + np.rint(shift * free[todo]).astype(np.int64)
        start = np.clip(start, low[todo], high[todo])
        windows = np.concatenate([start, start + tiles.sizes[todo]], axis=1)
        found = judge(grid, windows, split_zoom)
        better = found < wrong[todo]
        best[todo[better]], wrong[todo[better]] = windows[better], found[better]
    return best, wrong


def judge(grid: Grid, windows: IntArray, split_zoom: int) -> IntArray:
    """What is wrong with windows (x0, y0, x1, y1), [n, 4].

    A window around a pole counts as outside: no box in degrees describes it.
    """
    inside = np.flatnonzero(shapely.covers(grid.footprint, shapely.box(*windows.T.astype(np.float64))))
    bounds = grid.bounds(windows[inside])
    plain = np.isfinite(bounds).all(axis=1) & (bounds[:, 2] - bounds[:, 0] < 180.0)
    found = np.full(len(windows), OUTSIDE, dtype=np.int64)
    inside, bounds = inside[plain], bounds[plain]
    x0, y0 = cells_of(bounds[:, 0], bounds[:, 3], split_zoom)
    x1, y1 = cells_of(bounds[:, 2], bounds[:, 1], split_zoom)
    across = (x0 != x1) | (y0 != y1)
    found[inside[~across]] = NOTHING
    found[inside[across]] = np.where(touch_splits(bounds[across], split_zoom), TWO_SPLITS, TWO_CELLS)
    return found
