"""Placing: each drawn object gets its chip on the best scene that holds the whole tile.

`imagery.choice` orders the scenes over each object, `grids` knows a scene's pixels, `tiles` finds a tile its place.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.chips.grids import Grid, grids, gsds_at
from skyscript_assets.lib.chips.plan import PIXEL_DECIMALS, PLAN_SCHEMA, PlanRules
from skyscript_assets.lib.chips.tiles import TWO_CELLS, TWO_SPLITS, place, tiles_of
from skyscript_assets.lib.geometry import SPLITS, cells_of, splits_of
from skyscript_assets.lib.imagery.choice import DAY_S, REFUSALS, Candidates
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.registration.shift import NO_SHIFT, Shift
from skyscript_assets.lib.tables import BBOX_TYPE

TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Focus:
    """The drawn objects with their geometry, all arrays of one length.

    `index` leads to an object's row among all that were read, `kinds` are node, line or area. `points` [n, 2] is the
    longitude and latitude that the tile has in its middle before the shift: the point, the box's centre or the vertex;
    NaN where no vertex lies in the region.
    """

    index: IntArray
    ids: list[str]
    codes: HashArray
    kinds: TextArray
    geometry: npt.NDArray[np.object_]
    points: FloatArray


@dataclass(frozen=True)
class Placed:
    """Chips that found their place, by scene and object.

    Of each chip `members` is the object in `Focus`, `bands` the band of GSDs and `rows` the row of the plan, with the
    stratum left open; `resampled` ones are not on their scene's own pixels. `reasons` tells of each object why it
    has no chip, "" where it has one.
    """

    members: IntArray
    bands: IntArray
    rows: pa.Table
    resampled: BoolArray
    reasons: TextArray

    def without(self, given_up: BoolArray, reason: str) -> Self:
        """Less some chips, whose objects are told why."""
        reasons, kept = self.reasons.copy(), ~given_up
        reasons[self.members[given_up]] = reason
        rows = self.rows.filter(pa.array(kept))
        return type(self)(self.members[kept], self.bands[kept], rows, self.resampled[kept], reasons)


def place_chips(
    scenes: Sequence[Scene],
    shifts: Mapping[str, Shift],
    offered: Candidates,
    bands: IntArray,
    focus: Focus,
    rules: PlanRules,
    progress: Progress,
) -> Placed:
    """Place the chips of all objects, in rounds: each tries its best scene, those without a place there the next best.

    With several dates an object goes on after a success, past scenes too near in time to those it has. `offered` are
    the scenes that may show each object, `bands` the band of GSDs of each of these entries; `shifts` are those to be
    applied.

    Raises:
        SceneError: a scene's CRS cannot be read.
    """
    dates_wanted, apart_s = rules.choice.dates, rules.choice.min_days_apart * DAY_S
    taken = np.array([scene.datetime.timestamp() for scene in scenes])
    turn, end = (np.searchsorted(offered.objects, np.arange(len(focus.ids)), side=side) for side in ("left", "right"))
    dates = np.full((len(focus.ids), dates_wanted), np.nan)
    reasons: TextArray = np.array(REFUSALS, dtype="<U8")[offered.refused]
    chips, tables = [np.zeros((4, 0), dtype=np.int64)], [PLAN_SCHEMA.empty_table()]
    active = np.flatnonzero(turn < end)
    while len(active):
        offer = offered.scenes[turn[active]]
        near = (np.abs(dates[active] - taken[offer][:, None]) < apart_s).any(axis=1)
        outcome = np.full(len(focus.ids), "outside", dtype=reasons.dtype)
        for scene, mine in by_scene(offer[~near], active[~near]):
            shift = shifts.get(scenes[scene].scene_id, NO_SHIFT)
            for grid, inside in grids(scenes[scene], focus.points[mine], shift):
                placed, rows = _cut(scenes[scene], grid, focus, mine[inside], rules, outcome)
                chips.append(np.stack(np.broadcast_arrays(placed, turn[placed], scene, grid.resampled)))
                tables.append(rows)
        done = active[outcome[active] == ""]
        dates[done, (~np.isnan(dates[done])).sum(axis=1)] = taken[offered.scenes[turn[done]]]
        told = active[reasons[active] != ""]
        reasons[told] = outcome[told]
        # Another scene has much the same pixels, and the same splits below it.
        over = np.isin(outcome[active], ("size", "split")) | ~np.isnan(dates[active]).any(axis=1)
        turn[active] += 1
        active = active[~over & (turn[active] < end[active])]
        progress(len(focus.ids) - len(active), len(focus.ids), "objects")
    who, at, scene_of, resampled = np.concatenate(chips, axis=1)
    order = np.lexsort((who, scene_of))
    return Placed(
        members=who[order],
        bands=bands[at[order]],
        rows=pa.concat_tables(tables).take(order).combine_chunks(),
        resampled=resampled[order] != 0,
        reasons=reasons,
    )


def by_scene(scenes: IntArray, members: IntArray) -> Iterator[tuple[int, IntArray]]:
    """The members of each scene, in the order of the scenes."""
    order = np.argsort(scenes, kind="stable")
    found, first = np.unique(scenes[order], return_index=True)
    yield from zip(found.tolist(), np.split(members[order], first[1:]), strict=False)


def _cut(
    scene: Scene, grid: Grid, focus: Focus, members: IntArray, rules: PlanRules, outcome: TextArray
) -> tuple[IntArray, pa.Table]:
    """Place the chips of some objects on a grid: the members with a chip, and their rows of the plan, strata left open.

    Sets the `outcome` of all of them, "" where a chip has its place.
    """
    # An area has its own box, the point or the vertex one without extent.
    area = focus.kinds[members] == "area"
    boxes = np.tile(grid.pixels(focus.points[members]), 2)
    boxes[area] = shapely.bounds(shapely.transform(focus.geometry[members[area]], grid.pixels)).reshape(-1, 4)
    finite = np.isfinite(boxes).all(axis=1)
    tiles = tiles_of(np.round(boxes[finite], PIXEL_DECIMALS), area[finite], rules.plan)
    members = members[finite]
    outcome[members[~tiles.fits]] = "size"
    members, tiles = members[tiles.fits], tiles.where(tiles.fits)
    windows, wrong = place(grid, tiles, focus.codes[members], rules.plan, rules.zoom)
    outcome[members[wrong == TWO_SPLITS]] = "split"
    good = wrong <= TWO_CELLS
    members, windows, held = members[good], windows[good], tiles.held[good]
    outcome[members] = ""
    bounds = grid.bounds(windows)
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    x, y = cells_of(lon, lat, rules.zoom)
    ids = [focus.ids[member] for member in members]
    name = f"{scene.source}_{scene.datetime:%Y%m%d}"
    texts = ["|".join(map(str, (scene.scene_id, grid.crs, *window))) for window in windows.tolist()]
    digests = [hashlib.blake2b(text.encode(), digest_size=4).hexdigest() for text in texts]
    same = {"region": scene.region, "source": scene.source, "scene_id": scene.scene_id, "crs": grid.crs}
    columns: dict[str, Any] = {
        **{key: pa.repeat(value, len(ids)) for key, value in same.items()},
        "chip_id": [f"{object_id}_{name}_{digest}" for object_id, digest in zip(ids, digests, strict=True)],
        "object_id": ids,
        "transform": [grid.transform(column, row) for column, row in windows[:, :2].tolist()],
        "width": pa.array(windows[:, 2] - windows[:, 0], pa.int32()),
        "height": pa.array(windows[:, 3] - windows[:, 1], pa.int32()),
        "gsd_m": gsds_at(scene, np.column_stack([lon, lat])),
        "bbox": pa.StructArray.from_arrays(list(bounds.T), fields=list(BBOX_TYPE)),
        "focus_box": _focus_boxes(grid, focus, members, held, windows).tolist(),
        "stratum": pa.nulls(len(ids), pa.string()),
        "cell": [f"{column}/{row}" for column, row in zip(x.tolist(), y.tolist(), strict=True)],
        "osm_shift_m": [grid.shift] * len(ids),
        "split": [SPLITS[split] for split in splits_of(x, y).tolist()],
    }
    return members, pa.table({key: columns[key] for key in PLAN_SCHEMA.names}, schema=PLAN_SCHEMA)


def _focus_boxes(grid: Grid, focus: Focus, members: IntArray, held: IntArray, windows: IntArray) -> IntArray:
    """The objects' boxes inside their chips, [n, 4] in chip pixels; of a line, the box of what of it is in the chip."""
    boxes, sizes = held.copy(), windows[:, 2:] - windows[:, :2]
    lines = np.flatnonzero(focus.kinds[members] == "line")
    shown = shapely.intersection(
        shapely.transform(focus.geometry[members[lines]], grid.pixels),
        shapely.box(*windows[lines].T.astype(np.float64)),
    )
    bounds = shapely.bounds(shown).reshape(-1, 4)
    some = np.isfinite(bounds).all(axis=1)
    boxes[lines[some]] = np.concatenate([np.floor(bounds[some, :2]), np.ceil(bounds[some, 2:])], axis=1)
    boxes = np.clip(boxes - np.tile(windows[:, :2], 2), 0, np.tile(sizes, 2))
    boxes[:, :2] = np.minimum(boxes[:, :2], sizes - 1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes
