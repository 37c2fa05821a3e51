"""Where a chip lies on its grid: the size of the tile, and the shift that keeps it on the ground of one split.

What a tile shows follows SkyScript (AAAI 2024, arXiv 2312.12856): the box of a polygon, a point, a vertex of a line.
With `rule: paper` the box is the tile; with `rule: focus` the box has context around it and always stays inside. Which
objects are drawn, and on which scene, is decided before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.chips.grids import Grid
from skyscript_assets.lib.chips.sampling import unit_hashes
from skyscript_assets.lib.geometry import SPLITS, WEB_MERCATOR_LATITUDE_LIMIT, split_of_cell
from skyscript_assets.lib.settings.plant import ChipSettings

MAX_ASPECT = 2.0
"""Greatest ratio of a chip's sides under `rule: focus`: the paper's random crop has ratios 0.5 to 2.0."""

RANDOM_SHIFTS = 4
"""Random places tried before the directed ones."""

FAR_SHIFT = 0.4
"""Share of the free margin by which a chip that would touch two splits may move at most, from the centre."""

SPLIT_PERIOD = 5
"""Cells in a row or column after which the split's pattern begins again: so many hold a test cell and a train cell."""

_DIRECTIONS = np.array([(x, y) for x in (0, -1, 1) for y in (0, -1, 1) if (x, y) != (0, 0)], dtype=np.float64)

# What is wrong with a place: the least wins, and places are tried until nothing is.
NOTHING, TWO_CELLS, TWO_SPLITS, OUTSIDE = 0, 1, 2, 3


@dataclass(frozen=True)
class Tiles:
    """Tiles that some objects want, in pixels of a grid.

    Attributes:
        held: [n, 4], the object's box rounded outward.
        anchors: [n, 4], the part of it that must stay inside the tile.
        sizes: [n, 2], width and height.
        centred: [n, 2], first column and row without a shift.
        fits: [n], whether the object suits a tile at all.
    """

    held: IntArray
    anchors: IntArray
    sizes: IntArray
    centred: IntArray
    fits: BoolArray

    def where(self, kept: BoolArray) -> Tiles:
        """The tiles that a mask keeps."""
        return Tiles(self.held[kept], self.anchors[kept], self.sizes[kept], self.centred[kept], self.fits[kept])


def tiles_of(boxes: FloatArray, area: BoolArray, chips: ChipSettings) -> Tiles:
    """The tile of each object: see `ChipSettings` for the two rules.

    Args:
        boxes: (x0, y0, x1, y1) in pixels, [n, 4]; of a point or a vertex without extent.
        area: Which of them are areas, [n].
        chips: Rule and sizes.
    """
    first = np.floor(boxes[:, :2]).astype(np.int64)
    last = np.maximum(np.ceil(boxes[:, 2:]).astype(np.int64), first + 1)
    extent = last - first
    if chips.rule == "paper":
        middle = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)
        anchors = np.concatenate([middle, middle + 1], axis=1)
        wanted = extent
        fits = ((extent >= chips.min_tile_px) & (extent <= chips.max_tile_px)).all(axis=1) | ~area
    else:
        anchors = np.concatenate([first, last], axis=1)
        wanted = np.maximum(np.ceil(extent * chips.context).astype(np.int64), chips.min_tile_px)
        shorter = np.ceil(wanted.max(axis=1, keepdims=True, initial=0) / MAX_ASPECT).astype(np.int64)
        wanted = np.minimum(np.maximum(wanted, shorter), chips.max_tile_px)
        fits = (extent <= wanted).all(axis=1) | ~area
    sizes = np.where(area[:, None], wanted, chips.point_tile_px)
    centred = np.rint((boxes[:, :2] + boxes[:, 2:] - sizes) / 2).astype(np.int64)
    return Tiles(np.concatenate([first, last], axis=1), anchors, sizes, centred, fits)


def place(
    grid: Grid, tiles: Tiles, codes: HashArray, chips: ChipSettings, split_zoom: int
) -> tuple[IntArray, IntArray]:
    """Shift tiles so that they lie on the scene and, where possible, in one cell.

    Random places come first, then the eight directions at the greatest shift, then the same further out (`FAR_SHIFT`):
    the first place with nothing wrong is taken, else the first of the least wrong. The anchor always stays inside.

    Args:
        grid: The scene's pixels.
        tiles: What the objects want.
        codes: Hash codes of the objects, [n]: they decide the random places.
        chips: Greatest shift, and the seed.
        split_zoom: Zoom of the Web Mercator tiles that are never divided between splits.

    Returns:
        Windows (x0, y0, x1, y1), [n, 4], and what is wrong with them, [n].
    """
    low = np.maximum(tiles.anchors[:, 2:] - tiles.sizes, grid.limits[:2])
    high = np.minimum(tiles.anchors[:, :2], grid.limits[2:] - tiles.sizes)
    free = tiles.sizes - (tiles.anchors[:, 2:] - tiles.anchors[:, :2])
    best = np.concatenate([tiles.centred, tiles.centred + tiles.sizes], axis=1)
    wrong = np.full(len(codes), OUTSIDE, dtype=np.int64)
    possible = (low <= high).all(axis=1)
    near = min(chips.shift, 0.5)
    directed = [(share, towards) for share in (near, max(near, FAR_SHIFT)) for towards in _DIRECTIONS]
    for attempt in range(RANDOM_SHIFTS + len(directed)):
        todo = np.flatnonzero(possible & (wrong != NOTHING))
        if len(todo) == 0:
            break
        if attempt < RANDOM_SHIFTS:
            draws = [unit_hashes(codes[todo], chips.seed, "shift", attempt, axis) for axis in "xy"]
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

    A window across the antimeridian counts as outside: no box in degrees describes it.
    """
    inside = np.flatnonzero(shapely.covers(grid.footprint, shapely.box(*windows.T.astype(np.float64))))
    bounds = grid.bounds(windows[inside])
    plain = np.isfinite(bounds).all(axis=1) & (bounds[:, 2] - bounds[:, 0] < 180.0)
    found = np.full(len(windows), OUTSIDE, dtype=np.int64)
    found[inside[plain]] = _divided(bounds[plain], split_zoom)
    return found


def cells_of(longitude_deg: FloatArray, latitude_deg: FloatArray, zoom: int) -> tuple[IntArray, IntArray]:
    """Columns and rows (x, y) of the Web Mercator tiles that hold places: `geometry.cell_of` for arrays."""
    n = 1 << zoom
    lat = np.radians(np.clip(latitude_deg, -WEB_MERCATOR_LATITUDE_LIMIT, WEB_MERCATOR_LATITUDE_LIMIT))
    x = np.floor((longitude_deg + 180.0) / 360.0 * n)
    y = np.floor((1.0 - np.arcsinh(np.tan(lat)) / np.pi) / 2.0 * n)
    return np.clip(x, 0, n - 1).astype(np.int64), np.clip(y, 0, n - 1).astype(np.int64)


def splits_of(x: IntArray, y: IntArray) -> IntArray:
    """Index in `SPLITS` of the split of tiles: `geometry.split_of_cell` for arrays."""
    remainder = (x + 2 * y) % SPLIT_PERIOD
    found = np.where(remainder == 0, SPLITS.index("test"), SPLITS.index("train"))
    hashed = np.flatnonzero(remainder == 3)
    found[hashed] = [_hashed_split(*cell) for cell in zip(x[hashed].tolist(), y[hashed].tolist(), strict=True)]
    return found


@lru_cache(maxsize=65_536)
def _hashed_split(x: int, y: int) -> int:
    return SPLITS.index(split_of_cell(x, y))


def _divided(bounds: FloatArray, zoom: int) -> IntArray:
    """Whether boxes (west, south, east, north) in degrees, [n, 4], lie in one cell, one split or several."""
    x0, y0 = cells_of(bounds[:, 0], bounds[:, 3], zoom)
    x1, y1 = cells_of(bounds[:, 2], bounds[:, 1], zoom)
    found = np.where((x0 == x1) & (y0 == y1), NOTHING, TWO_CELLS)
    # A row or a column of a whole period has both a test cell and a train cell.
    found[(x1 - x0 >= SPLIT_PERIOD - 1) | (y1 - y0 >= SPLIT_PERIOD - 1)] = TWO_SPLITS
    across = np.flatnonzero(found == TWO_CELLS)
    if len(across) == 0:
        return found
    columns = x1[across] - x0[across] + 1
    cells = columns * (y1[across] - y0[across] + 1)
    first = np.cumsum(cells) - cells
    owner = np.repeat(np.arange(len(across)), cells)
    number = np.arange(len(owner)) - first[owner]
    x, y = x0[across][owner] + number % columns[owner], y0[across][owner] + number // columns[owner]
    splits = splits_of(x, y)
    found[across[owner[splits != splits[first][owner]]]] = TWO_SPLITS
    return found
