"""The chip plan: which objects of a region become chips of a source, and where each chip lies.

`sampling` draws objects and `grids` knows a scene's pixels; here are the tile's size, its place, the shift that keeps
it on the ground of one split, and the report of wanted against achieved. What a tile shows follows SkyScript (AAAI
2024, arXiv 2312.12856): the box of a polygon, a point, a random vertex of a line. With `rule: paper` the box is the
tile; with `rule: focus` the box has context around it and always stays inside.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.chips.grids import Grid, grids
from skyscript_assets.lib.chips.sampling import (
    Snapshot,
    TagPairs,
    draw,
    longer_sides_m,
    match_tags,
    read_snapshot,
    strata,
)
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import Bounds, cell_of, split_of_cell, unit_hash
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.offset.shift import NO_SHIFT, Shift
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import ChipSettings
from skyscript_assets.lib.tables import BBOX_TYPE, read_table, rows_to_table, write_table
from skyscript_assets.lib.tags.vocabulary import plannable

PLAN_FILE = "plan.parquet"
REPORT_FILE = "report.parquet"

PLAN_SCHEMA = pa.schema(
    [
        ("chip_id", pa.string()),
        ("object_id", pa.string()),
        ("region", pa.string()),
        ("source", pa.string()),
        ("scene_id", pa.string()),
        ("crs", pa.string()),
        ("transform", pa.list_(pa.float64(), 6)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("gsd_m", pa.float64()),
        ("bbox", BBOX_TYPE),
        ("focus_box", pa.list_(pa.int32(), 4)),
        ("stratum", pa.string()),
        ("cell", pa.string()),
        ("split", pa.string()),
        ("osm_shift_m", pa.list_(pa.float64(), 2)),
    ]
)
"""Columns of `plan.parquet`. `transform` is affine (a, b, c, d, e, f) from pixel corners to `crs`; `focus_box` is
(x0, y0, x1, y1) in chip pixels, half open; `cell` is the Web Mercator tile `x/y` of the chip's centre; `bbox` is
where OSM has the chip's ground: `osm_shift_m`, metres east and north, moves OSM's coordinates onto the image."""

REPORT_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("region", pa.string()),
        ("gsd_m", pa.float64()),
        ("n_plannable", pa.int64()),
        ("wanted", pa.int64()),
        ("drawn", pa.int64()),
        ("planned", pa.int64()),
    ]
)
"""Columns of `report.parquet`: `wanted` is min(quota, n_plannable), `drawn` the objects that the tag itself drew,
`planned` all planned chips whose object carries the tag (other tags of the object may have drawn it)."""

MAX_ASPECT = 2.0
"""Greatest ratio of a chip's sides under `rule: focus`: the paper's random crop has ratios 0.5 to 2.0."""

RANDOM_SHIFTS = 4
"""Random places tried before the directed ones."""

FAR_SHIFT = 0.4
"""Share of the free margin by which a chip that would touch two splits may move at most, from the centre."""

PIXEL_DECIMALS = 3
"""Places in pixels are rounded to this before they become whole: what a projection adds in noise is far below."""

_DIRECTIONS = np.array([(x, y) for x in (0, -1, 1) for y in (0, -1, 1) if (x, y) != (0, 0)], dtype=np.float64)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PlanSummary:
    """Counts of one chip plan.

    Attributes:
        scenes: Scenes that the source has over the region.
        objects: Objects of the extract.
        elsewhere: Of these, owned by an earlier region or centred outside the region's box.
        drawn: Objects drawn at the GSD of at least one scene.
        planned: Chips planned.
        dropped: Reason -> drawn objects without a chip. `outside`: no scene holds the tile; `size`: the object does not
            fit a tile of the wanted size; `split`: every tile tried touches two splits.
        splits: Split -> chips.
        tags: Tags seen at the scenes' GSDs and counted in the snapshot.
        tags_short: Of these, with fewer chips than wanted.
        resampled: Chips that are resampled because the scene's own pixels are not square on the ground.
    """

    scenes: int
    objects: int
    elsewhere: int
    drawn: int
    planned: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    tags: int = 0
    tags_short: int = 0
    resampled: int = 0


@dataclass(frozen=True)
class _Objects:
    """The objects centred on the region's own ground, in the order of `objects.parquet`.

    `rows` are their rows in that table, `kinds` their kind (node, line, area), `tags` the snapshot's tags on them.
    """

    rows: IntArray
    ids: list[str]
    kinds: npt.NDArray[np.str_]
    longer_side_m: FloatArray
    tags: TagPairs


@dataclass(frozen=True)
class _Focus:
    """The drawn objects with their geometry, all arrays of one length.

    `index` leads to an object's row in `_Objects`. `points` [n, 2] is the longitude and latitude that the tile has in
    its middle before the shift: the point, the box's centre or the vertex; NaN where no vertex lies in the region.
    """

    index: IntArray
    ids: list[str]
    kinds: npt.NDArray[np.str_]
    geometry: npt.NDArray[np.object_]
    points: FloatArray


@dataclass(frozen=True)
class _Tiles:
    """Tiles that some objects want, in pixels of a grid.

    `held` [n, 4] is the object's box rounded outward, `anchors` [n, 4] the part of it that must stay inside the tile,
    `sizes` [n, 2] width and height, `centred` [n, 2] first column and row without a shift; `fits` [n] tells whether
    the object suits a tile at all.
    """

    held: IntArray
    anchors: IntArray
    sizes: IntArray
    centred: IntArray
    fits: BoolArray

    def where(self, kept: BoolArray) -> _Tiles:
        return _Tiles(self.held[kept], self.anchors[kept], self.sizes[kept], self.centred[kept], self.fits[kept])


@dataclass(frozen=True)
class _Chip:
    """A chip that found its place: the row of its object in `_Objects`, its scene, and its row of the plan."""

    object: int
    scene: Scene
    resampled: bool
    row: dict[str, Any]


# What is wrong with a place: the least wins, and places are tried until nothing is.
_NOTHING, _TWO_CELLS, _TWO_SPLITS, _OUTSIDE = 0, 1, 2, 3


def write_plan(
    region: str,
    source: str,
    bbox: Bounds,
    objects_path: Path,
    scenes_folder: Path,
    snapshot_folder: Path,
    chips: ChipSettings,
    split_zoom: int,
    out: Path,
    *,
    owned_elsewhere: pa.Array | None = None,
    shifts: Mapping[str, Shift] | None = None,
    progress: Progress = silent,
) -> PlanSummary:
    """Plan the chips of one source over one region: writes `plan.parquet` and `report.parquet`.

    Args:
        region: Region key.
        source: Source key.
        bbox: (west, south, east, north) of the region in degrees; objects centred outside are not planned.
        objects_path: `objects.parquet` of the region.
        scenes_folder: `scene_index` of the region and source; no scenes make an empty plan.
        snapshot_folder: `sampling_snapshot`.
        chips: Rule, quota, sizes, shift and seed.
        split_zoom: Zoom of the Web Mercator tiles that are never divided between splits.
        out: Existing folder for the two tables.
        owned_elsewhere: Ids of objects that belong to another region: never planned here.
        shifts: Offset of each scene that has one to be applied: objects are moved by it before they are placed.
        progress: Told of the drawn objects that have found a place.

    Returns:
        Counts.

    Raises:
        UpstreamMissingError: an input table is missing.
        CorruptInputError: an input table or a geometry in it is broken, or object ids repeat.
        SceneError: a scene's CRS cannot be read.
    """
    scenes = sorted(
        (replace(scene, region=region, source=source) for scene in read_scenes(scenes_folder)), key=_preference
    )
    snapshot = read_snapshot(snapshot_folder, region)
    objects, total = _read_objects(objects_path, bbox, owned_elsewhere, snapshot)
    draws = {gsd: _drawn(gsd, objects, snapshot, chips) for gsd in sorted({scene.gsd_m for scene in scenes})}
    focus = _read_focus(objects_path, objects, draws.values(), bbox, chips.seed)

    found: list[_Chip] = []
    reasons = np.full(len(focus.ids), "outside", dtype="<U8")
    for scene in scenes:
        wanted = (reasons == "outside") & np.isin(focus.index, draws[scene.gsd_m].objects)
        points = np.where(wanted[:, None], focus.points, np.nan)
        for grid, members in grids(scene, points, (shifts or {}).get(scene.scene_id, NO_SHIFT)):
            found.extend(_cut(scene, grid, focus, members, chips, split_zoom, reasons))
        progress(int((reasons != "outside").sum()), len(reasons), "objects")
    found.sort(key=lambda chip: (chip.scene.scene_id, chip.object))

    strata_at = {gsd: _strata_at(gsd, objects, snapshot) for gsd in draws}
    for chip in found:
        chip.row["stratum"] = strata_at[chip.scene.gsd_m][chip.object]
    report = _report(region, objects, snapshot, draws, chips.quota, found)
    write_table(out / PLAN_FILE, rows_to_table([chip.row for chip in found], PLAN_SCHEMA))
    write_table(out / REPORT_FILE, rows_to_table(report, REPORT_SCHEMA))
    return PlanSummary(
        scenes=len(scenes),
        objects=total,
        elsewhere=total - len(objects.ids),
        drawn=len(reasons),
        planned=len(found),
        dropped=dict(sorted(Counter(str(reason) for reason in reasons if reason).items())),
        splits=dict(sorted(Counter(chip.row["split"] for chip in found).items())),
        tags=len(report),
        tags_short=sum(row["planned"] < row["wanted"] for row in report),
        resampled=sum(chip.resampled for chip in found),
    )


# ---------------------------------------------------------------------------------------------------- what is planned


def _preference(scene: Scene) -> tuple[float, float, str]:
    """Least cloud first (none stated counts as none), then the latest."""
    return (scene.cloud_share or 0.0, -scene.datetime.timestamp(), scene.scene_id)


def _read_objects(
    path: Path, bbox: Bounds, owned_elsewhere: pa.Array | None, snapshot: Snapshot
) -> tuple[_Objects, int]:
    """The objects of the region's own ground, and how many the table has."""
    table = read_table(path, columns=["object_id", "tags", "bbox"])
    if pc.count_distinct(table["object_id"]).as_py() != table.num_rows:
        raise CorruptInputError(f"{path}: object ids repeat; materialize osm_objects again")
    west, south, east, north = (
        pc.struct_field(table["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")
    )
    lon, lat = (west + east) / 2, (south + north) / 2
    own = (lon >= bbox[0]) & (lon <= bbox[2]) & (lat >= bbox[1]) & (lat <= bbox[3])
    if owned_elsewhere is not None:
        own &= ~pc.is_in(table["object_id"], value_set=owned_elsewhere).to_numpy()
    rows = np.flatnonzero(own)
    table = table.take(rows)
    ids = table["object_id"].to_pylist()
    kinds = np.array([{"n": "node", "w": "line"}.get(i[:1], "area") for i in ids], dtype="<U4")
    return _Objects(rows, ids, kinds, longer_sides_m(table["bbox"]), match_tags(table["tags"], snapshot)), len(own)


def _drawn(gsd_m: float, objects: _Objects, snapshot: Snapshot, chips: ChipSettings) -> TagPairs:
    """The (object, tag) pairs drawn at a GSD: visible there, of a size that makes a chip, and chosen by the hash."""
    able = np.zeros(len(objects.ids), dtype=np.bool_)
    for kind in ("node", "line", "area"):
        of_kind = objects.kinds == kind
        able[of_kind] = plannable(kind, objects.longer_side_m[of_kind], gsd_m, chips)
    pairs = objects.tags.where(snapshot.visible(gsd_m)[objects.tags.tags] & able[objects.tags.objects])
    counts = snapshot.count_at(gsd_m)
    return pairs.where(draw(pairs, objects.ids, snapshot, counts, chips.quota, chips.seed))


def _strata_at(gsd_m: float, objects: _Objects, snapshot: Snapshot) -> list[str | None]:
    """`key=value` of the rarest visible tag of each object at a GSD."""
    pairs = objects.tags.where(snapshot.visible(gsd_m)[objects.tags.tags])
    rarest = strata(pairs, snapshot.count_at(gsd_m), len(objects.ids))
    return [f"{snapshot.keys[tag]}={snapshot.values[tag]}" if tag >= 0 else None for tag in rarest]


def _read_focus(path: Path, objects: _Objects, draws: Iterable[TagPairs], bbox: Bounds, seed: int) -> _Focus:
    """Read the geometry of the drawn objects alone, and choose a vertex of each line."""
    index = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(pairs.objects for pairs in draws)]))
    ids, kinds = [objects.ids[i] for i in index], objects.kinds[index]
    wkb = read_table(path, columns=["geometry"])["geometry"].take(objects.rows[index])
    try:
        geometry = shapely.from_wkb(wkb.to_numpy())
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is broken ({error}); materialize osm_objects again") from error
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    points = (bounds[:, :2] + bounds[:, 2:]) / 2
    lines = np.flatnonzero(kinds == "line")
    points[lines] = _vertices(geometry[lines], [ids[i] for i in lines], bbox, seed)
    return _Focus(index, ids, kinds, geometry, points)


def _vertices(lines: npt.NDArray[np.object_], ids: list[str], bbox: Bounds, seed: int) -> FloatArray:
    """A random vertex of each line among those inside the region, NaN where there is none; [n, 2] degrees."""
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    inside = ((coordinates >= bbox[:2]) & (coordinates <= bbox[2:])).all(axis=1)
    coordinates, owner = coordinates[inside], owner[inside]
    counts = np.bincount(owner, minlength=len(lines))
    first = np.cumsum(counts) - counts
    chosen = np.full((len(lines), 2), np.nan)
    some = np.flatnonzero(counts)
    pick = np.array([int(unit_hash(seed, ids[i], "vertex") * counts[i]) for i in some], dtype=np.int64)
    chosen[some] = coordinates[first[some] + pick]
    return chosen


def _report(
    region: str,
    objects: _Objects,
    snapshot: Snapshot,
    draws: Mapping[float, TagPairs],
    quota: int,
    found: list[_Chip],
) -> list[dict[str, Any]]:
    """Wanted against achieved for each tag and each GSD that the snapshot counted; scenes go to the nearest."""
    rows = []
    for gsd in sorted({snapshot.nearest_gsd(gsd) for gsd in draws}):
        drawn: set[tuple[int, int]] = set()
        visible = np.zeros(len(snapshot.keys), dtype=np.bool_)
        planned = np.zeros(len(snapshot.keys), dtype=np.int64)
        for scene_gsd, pairs in draws.items():
            if snapshot.nearest_gsd(scene_gsd) == gsd:
                drawn.update(zip(pairs.objects.tolist(), pairs.tags.tolist(), strict=True))
                visible |= snapshot.visible(scene_gsd)
                here = [chip.object for chip in found if chip.scene.gsd_m == scene_gsd]
                seen = snapshot.visible(scene_gsd)[objects.tags.tags] & np.isin(objects.tags.objects, here)
                planned += np.bincount(objects.tags.tags[seen], minlength=len(snapshot.keys))
        by_tag = Counter(tag for _, tag in drawn)
        counts = snapshot.count_at(gsd)
        rows += [
            {
                "key": snapshot.keys[tag],
                "value": snapshot.values[tag],
                "region": region,
                "gsd_m": gsd,
                "n_plannable": int(counts[tag]),
                "wanted": min(quota, int(counts[tag])),
                "drawn": by_tag[tag],
                "planned": int(planned[tag]),
            }
            for tag in np.flatnonzero(visible & (counts > 0)).tolist()
        ]
    return rows


# ------------------------------------------------------------------------------------------------------ place of chips


def _cut(
    scene: Scene,
    grid: Grid,
    focus: _Focus,
    members: IntArray,
    chips: ChipSettings,
    split_zoom: int,
    reasons: npt.NDArray[np.str_],
) -> list[_Chip]:
    """Place the chips of some drawn objects on a grid; sets their `reasons`, "" where a chip was planned."""
    boxes = _pixel_boxes(grid, focus, members)
    finite = np.isfinite(boxes).all(axis=1)
    tiles = _tiles(boxes[finite], focus.kinds[members[finite]] == "area", chips)
    members = members[finite]
    reasons[members[~tiles.fits]] = "size"
    members, tiles = members[tiles.fits], tiles.where(tiles.fits)
    windows, wrong = _place(grid, tiles, [focus.ids[i] for i in members], chips, split_zoom)
    reasons[members[wrong == _TWO_SPLITS]] = "split"
    good = wrong <= _TWO_CELLS
    members, windows, held = members[good], windows[good], tiles.held[good]
    focus_boxes = _focus_boxes(grid, focus, members, held, windows)
    found = []
    for member, window, bounds, box in zip(
        members.tolist(), windows.tolist(), grid.bounds(windows).tolist(), focus_boxes.tolist(), strict=True
    ):
        lon, lat = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
        cell = cell_of(lon, lat, split_zoom)
        reasons[member] = ""
        digest = _digest(scene.scene_id, grid.crs, *window)
        row = {
            "chip_id": f"{focus.ids[member]}_{scene.source}_{scene.datetime:%Y%m%d}_{digest}",
            "object_id": focus.ids[member],
            "region": scene.region,
            "source": scene.source,
            "scene_id": scene.scene_id,
            "crs": grid.crs,
            "transform": grid.transform(window[0], window[1]),
            "width": window[2] - window[0],
            "height": window[3] - window[1],
            "gsd_m": grid.gsd_at(lat),
            "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
            "focus_box": box,
            "cell": f"{cell[0]}/{cell[1]}",
            "split": split_of_cell(*cell),
            "osm_shift_m": grid.shift,
        }
        found.append(_Chip(int(focus.index[member]), scene, grid.resampled, row))
    return found


def _digest(*parts: object) -> str:
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=4).hexdigest()


def _pixel_boxes(grid: Grid, focus: _Focus, members: IntArray) -> FloatArray:
    """Boxes (x0, y0, x1, y1) in pixels, [n, 4]: an area's own, else the point or the vertex without extent."""
    points = grid.pixels(focus.points[members])
    boxes = np.concatenate([points, points], axis=1)
    areas = np.flatnonzero(focus.kinds[members] == "area")
    boxes[areas] = shapely.bounds(shapely.transform(focus.geometry[members[areas]], grid.pixels)).reshape(-1, 4)
    return np.round(boxes, PIXEL_DECIMALS)


def _tiles(boxes: FloatArray, area: BoolArray, chips: ChipSettings) -> _Tiles:
    """The tile of each object: see `ChipSettings` for the two rules."""
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
    return _Tiles(np.concatenate([first, last], axis=1), anchors, sizes, centred, fits)


def _place(
    grid: Grid, tiles: _Tiles, ids: list[str], chips: ChipSettings, split_zoom: int
) -> tuple[IntArray, npt.NDArray[np.int64]]:
    """Shift tiles so that they lie on the scene and, where possible, in one cell.

    Random places come first, then the eight directions at the greatest shift, then the same further out (`FAR_SHIFT`):
    the first place with nothing wrong is taken, else the first of the least wrong. The anchor always stays inside.

    Returns:
        Windows (x0, y0, x1, y1), [n, 4], and what is wrong with them, [n].
    """
    low = np.maximum(tiles.anchors[:, 2:] - tiles.sizes, grid.limits[:2])
    high = np.minimum(tiles.anchors[:, :2], grid.limits[2:] - tiles.sizes)
    free = tiles.sizes - (tiles.anchors[:, 2:] - tiles.anchors[:, :2])
    best = np.concatenate([tiles.centred, tiles.centred + tiles.sizes], axis=1)
    wrong = np.full(len(ids), _OUTSIDE, dtype=np.int64)
    possible = (low <= high).all(axis=1)
    near = min(chips.shift, 0.5)
    directed = [(share, towards) for share in (near, max(near, FAR_SHIFT)) for towards in _DIRECTIONS]
    for attempt in range(RANDOM_SHIFTS + len(directed)):
        todo = np.flatnonzero(possible & (wrong != _NOTHING))
        if len(todo) == 0:
            break
        if attempt < RANDOM_SHIFTS:
            draws = [[unit_hash(chips.seed, ids[i], "shift", attempt, axis) for axis in "xy"] for i in todo]
            shift = near * (2.0 * np.array(draws) - 1.0)
        else:
            share, towards = directed[attempt - RANDOM_SHIFTS]
            shift = share * towards
        start = tiles.centred[todo] + np.rint(shift * free[todo]).astype(np.int64)
        start = np.clip(start, low[todo], high[todo])
        windows = np.concatenate([start, start + tiles.sizes[todo]], axis=1)
        found = _judge(grid, windows, split_zoom)
        better = found < wrong[todo]
        best[todo[better]], wrong[todo[better]] = windows[better], found[better]
    return best, wrong


def _judge(grid: Grid, windows: IntArray, split_zoom: int) -> npt.NDArray[np.int64]:
    """What is wrong with windows (x0, y0, x1, y1), [n, 4]."""
    inside = shapely.covers(grid.footprint, shapely.box(*windows.T.astype(np.float64)))
    found = np.full(len(windows), _OUTSIDE, dtype=np.int64)
    for i, bounds in zip(np.flatnonzero(inside), grid.bounds(windows[inside]).tolist(), strict=True):
        found[i] = _divided(cell_of(bounds[0], bounds[3], split_zoom), cell_of(bounds[2], bounds[1], split_zoom))
    return found


@lru_cache(maxsize=65_536)
def _divided(first: tuple[int, int], last: tuple[int, int]) -> int:
    """Whether a range of cells, corner to corner, is one cell, one split or several."""
    if first == last:
        return _NOTHING
    splits = set()
    for y in range(first[1], last[1] + 1):
        for x in range(first[0], last[0] + 1):
            splits.add(split_of_cell(x, y))
            if len(splits) > 1:
                return _TWO_SPLITS
    return _TWO_CELLS


def _focus_boxes(grid: Grid, focus: _Focus, members: IntArray, held: IntArray, windows: IntArray) -> IntArray:
    """The objects' boxes inside their chips, [n, 4] in chip pixels; of a line, the box of its part in the chip."""
    boxes = held.copy()
    lines = np.flatnonzero(focus.kinds[members] == "line")
    parts = shapely.intersection(
        shapely.transform(focus.geometry[members[lines]], grid.pixels),
        shapely.box(*windows[lines].T.astype(np.float64)),
    )
    bounds = shapely.bounds(parts).reshape(-1, 4)
    some = lines[np.isfinite(bounds).all(axis=1)]
    bounds = bounds[np.isfinite(bounds).all(axis=1)]
    boxes[some] = np.concatenate([np.floor(bounds[:, :2]), np.ceil(bounds[:, 2:])], axis=1).astype(np.int64)
    boxes = np.clip(boxes - np.tile(windows[:, :2], 2), 0, np.tile(windows[:, 2:] - windows[:, :2], 2))
    boxes[:, :2] = np.minimum(boxes[:, :2], np.tile(windows[:, 2:] - windows[:, :2], 1) - 1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return boxes
