"""The chip plan: which objects of a region become chips of a source, on which scene, and where each chip lies.

`sampling` draws objects, `imagery.choice` orders the scenes over each, `grids` knows a scene's pixels, `place` finds a
tile its place, `plan_report` tells what became of it all. Here they are put together. Each region and source plans
alone: one object may become chips of several sources, and of several dates of one (`SceneChoice.dates`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.chips.grids import Grid, grids
from skyscript_assets.lib.chips.place import TWO_CELLS, TWO_SPLITS, cells_of, place, splits_of, tiles_of
from skyscript_assets.lib.chips.plan_report import OUTCOMES_FILE, REPORT_FILE, outcome_table, report_table
from skyscript_assets.lib.chips.sampling import (
    Drawn,
    Snapshot,
    TagPairs,
    draw,
    longer_sides_m,
    match_tags,
    object_codes,
    read_snapshot,
    strata,
    suits,
    unit_hashes,
)
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import SPLITS, Bounds
from skyscript_assets.lib.imagery.choice import DAY_S, REFUSALS, Candidates, candidates, check_ids
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.registration.shift import NO_SHIFT, Shift
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_table, write_table

PLAN_FILE = "plan.parquet"

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

PIXEL_DECIMALS = 3
"""Places in pixels are rounded to this before they become whole: what a projection adds in noise is far below."""

OBJECT_ROWS = 262_144
"""Objects whose tags are in memory at a time."""

KINDS = {"n": "node", "w": "line"}
"""Kind of an object by the first letter of its id; all others are areas."""

_NEEDED_SCHEMA = pa.schema(
    [("object_id", pa.string()), ("timestamp", pa.timestamp("ms", tz="UTC")), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)]
)

TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class PlanSummary:
    """Counts of one chip plan.

    Attributes:
        scenes: Scenes that the source has over the region.
        scenes_used: Of these, with a planned chip.
        objects: Objects of the extract.
        elsewhere: Of these, owned by an earlier region or centred outside the region's box.
        drawn: Objects drawn at the GSD of at least one scene.
        planned: Chips planned: of one object as many as its source's `choice.dates` at most.
        dropped: Reason -> drawn objects without a chip. `outside`: no scene holds the tile; `season`, `cloud`, `date`:
            the source's `choice` refuses all scenes that cover the object; `size`: the object does not fit a tile of
            the wanted size; `split`: every tile tried touches two splits.
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
    scenes_used: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    tags: int = 0
    tags_short: int = 0
    resampled: int = 0


@dataclass(frozen=True)
class Objects:
    """The objects centred on the region's own ground, in the order of `objects.parquet`.

    Attributes:
        rows: Their rows in that table.
        ids: Object ids.
        codes: Their hash codes.
        kinds: node, line or area.
        longer_side_m: Longer side of their boxes, metres.
        centres: Longitude and latitude of their boxes' centres, [n, 2].
        edited_s: Time of the last edit, seconds since 1970, NaN where unknown.
        tags: The snapshot's tags on them.
    """

    rows: IntArray
    ids: pa.ChunkedArray
    codes: HashArray
    kinds: TextArray
    longer_side_m: FloatArray
    centres: FloatArray
    edited_s: FloatArray
    tags: TagPairs


@dataclass(frozen=True)
class _Focus:
    """The drawn objects with their geometry, all arrays of one length.

    `index` leads to an object's row in `Objects`. `points` [n, 2] is the longitude and latitude that the tile has in
    its middle before the shift: the point, the box's centre or the vertex; NaN where no vertex lies in the region.
    """

    index: IntArray
    ids: list[str]
    codes: HashArray
    kinds: TextArray
    geometry: npt.NDArray[np.object_]
    points: FloatArray


@dataclass(frozen=True)
class _Chips:
    """Chips of a scene that found their place: each one's object in `_Focus`, its band of GSDs, its row of the plan."""

    members: IntArray
    bands: IntArray
    scene: int
    resampled: bool
    rows: pa.Table


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
    choice: SceneChoice | None = None,
    data_time: dt.datetime | None = None,
    owned_elsewhere: pa.Array | None = None,
    shifts: Mapping[str, Shift] | None = None,
    progress: Progress = silent,
) -> PlanSummary:
    """Plan the chips of one source over one region: writes `plan.parquet`, `report.parquet` and `outcomes.parquet`.

    Args:
        region: Region key.
        source: Source key.
        bbox: (west, south, east, north) of the region in degrees; objects centred outside are not planned.
        objects_path: `objects.parquet` of the region.
        scenes_folder: `scene_index` of the region and source; no scenes make an empty plan.
        snapshot_folder: `sampling_snapshot`; the tags of a region that it does not know are counted here instead.
        chips: Rule, sampling, quota, sizes, shift and seed.
        split_zoom: Zoom of the Web Mercator tiles that are never divided between splits.
        out: Existing folder for the tables.
        choice: Which scene shows an object; default: the settings' defaults.
        data_time: Time of the OSM data; default: the last edit of any of the objects.
        owned_elsewhere: Ids of objects that belong to another region: never planned here.
        shifts: Offset of each scene that has one to be applied: objects are moved by it before they are placed.
        progress: Told of the drawn objects that are decided.

    Returns:
        Counts.

    Raises:
        UpstreamMissingError: an input table is missing.
        CorruptInputError: an input table or a geometry in it is broken, or object ids or scene ids repeat.
        OutputSchemaError: an input table lacks a column.
        SceneError: a scene's CRS cannot be read.
    """
    choice = choice or SceneChoice()
    scenes = [replace(scene, region=region, source=source) for scene in read_scenes(scenes_folder)]
    check_ids(scenes)
    snapshot = read_snapshot(snapshot_folder, region)
    objects, total = read_objects(objects_path, bbox, owned_elsewhere, snapshot)
    ranges = np.array([_gsd_range(scene) for scene in scenes]).reshape(-1, 2)
    if not snapshot.counts:
        snapshot = replace(snapshot, counts=_own_counts(objects, snapshot, ranges, chips))
    draws = _draws(objects, snapshot, ranges, chips)
    focus = _read_focus(objects_path, objects, draws, bbox, chips.seed)

    data_s = data_time.timestamp() if data_time is not None else _last(objects.edited_s)
    offered = candidates(scenes, focus.points, objects.edited_s[focus.index], data_s, choice)
    gsds = _gsds_at(scenes, offered, focus)
    bands = np.searchsorted(snapshot.edges(), gsds)
    able = _drawn_there(offered, gsds, bands, focus, objects, draws, chips)
    reasons = np.array(REFUSALS, dtype="<U8")[offered.refused]
    found = list(
        _plan_chips(
            scenes, offered.where(able), bands[able], focus, chips, split_zoom, choice, shifts or {}, reasons, progress
        )
    )
    none = np.zeros(0, dtype=np.int64)
    members, bands = (
        np.concatenate([none, *(getattr(batch, name) for batch in found)]) for name in ("members", "bands")
    )
    plan = pa.concat_tables([PLAN_SCHEMA.empty_table(), *(batch.rows for batch in found)])
    plan = _with_strata(plan, focus.index[members], bands, objects, snapshot, draws)
    order = np.lexsort((members, np.repeat([batch.scene for batch in found], [len(batch.members) for batch in found])))
    write_table(out / PLAN_FILE, plan.take(order).combine_chunks())
    report = report_table(region, objects.tags, snapshot, draws, chips, focus.index[members], bands)
    write_table(out / REPORT_FILE, report)
    write_table(out / OUTCOMES_FILE, outcome_table(snapshot, draws, focus.index, focus.kinds, reasons))
    return PlanSummary(
        scenes=len(scenes),
        scenes_used=len({batch.scene for batch in found}),
        objects=total,
        elsewhere=total - len(objects.rows),
        drawn=len(reasons),
        planned=plan.num_rows,
        dropped=dict(sorted(Counter(reasons[reasons != ""].tolist()).items())),
        splits=dict(sorted(Counter(plan["split"].to_pylist()).items())),
        tags=report.num_rows,
        tags_short=pc.sum(pc.less(report["planned"], report["wanted"])).as_py() or 0,
        resampled=sum(batch.rows.num_rows for batch in found if batch.resampled),
    )


# ----------------------------------------------------------------------------------------------------- what is planned


def read_objects(path: Path, bbox: Bounds, owned_elsewhere: pa.Array | None, snapshot: Snapshot) -> tuple[Objects, int]:
    """Read the objects of the region's own ground without their geometry, and how many the table has.

    Raises:
        UpstreamMissingError: the table is missing.
        OutputSchemaError: it lacks a column.
        CorruptInputError: it is broken, or object ids repeat.
    """
    table = read_table(path, _NEEDED_SCHEMA, columns=["object_id", "timestamp", "bbox"])
    try:
        codes = object_codes(table["object_id"])
    except ValueError as error:
        raise CorruptInputError(f"{path}: {error}; materialize osm_objects again") from error
    if len(np.unique(codes)) != len(codes):
        raise CorruptInputError(f"{path}: object ids repeat; materialize osm_objects again")
    west, south, east, north = (
        pc.struct_field(table["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")
    )
    centres = np.column_stack([(west + east) / 2, (south + north) / 2])
    own = np.logical_and.reduce((centres >= bbox[:2]) & (centres <= bbox[2:]), axis=1)
    if owned_elsewhere is not None:
        own &= ~pc.is_in(table["object_id"], value_set=owned_elsewhere).to_numpy()
    rows = np.flatnonzero(own)
    tags = _read_tags(path, own, snapshot)
    table = table.take(rows)
    letters = pc.utf8_slice_codeunits(table["object_id"], 0, 1).to_numpy().astype("<U1")
    kinds = np.where(letters == "n", KINDS["n"], np.where(letters == "w", KINDS["w"], "area"))
    edited = table["timestamp"].cast(pa.int64()).to_numpy().astype(np.float64) / 1000.0
    sides = longer_sides_m(table["bbox"])
    return Objects(rows, table["object_id"], codes[rows], kinds, sides, centres[rows], edited, tags), len(own)


def _read_tags(path: Path, own: BoolArray, snapshot: Snapshot) -> TagPairs:
    """The snapshot's tags on the own objects, numbered among themselves, with the tags of some rows in memory."""
    done = seen = 0
    objects, tags = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for batch in pq.ParquetFile(path).iter_batches(OBJECT_ROWS, columns=["tags"]):
        mine = own[done : done + batch.num_rows]
        pairs = match_tags(pa.chunked_array([batch["tags"].filter(pa.array(mine))]), snapshot)
        objects.append(pairs.objects + seen)
        tags.append(pairs.tags)
        done, seen = done + batch.num_rows, seen + int(mine.sum())
    return TagPairs(np.concatenate(objects), np.concatenate(tags))


def _last(times: FloatArray) -> float:
    known = times[~np.isnan(times)]
    return float(known.max()) if len(known) else float("nan")


def _gsd_range(scene: Scene) -> tuple[float, float]:
    """Least and greatest GSD of a scene in metres on the ground: in EPSG:3857 it depends on the latitude."""
    if scene.crs != "EPSG:3857":
        return scene.gsd_m, scene.gsd_m
    _, south, _, north = scene.bounds
    nearest = 0.0 if south < 0 < north else min(abs(south), abs(north))
    finest, coarsest = np.cos(np.radians([max(abs(south), abs(north)), nearest])) * abs(scene.transform[0])
    return float(finest), float(coarsest)


def _gsds_at(scenes: Sequence[Scene], offered: Candidates, focus: _Focus) -> FloatArray:
    """Metres on the ground per pixel of each candidate's scene at its object."""
    native = np.array([scene.gsd_m for scene in scenes])
    mercator = np.array([scene.crs == "EPSG:3857" for scene in scenes], dtype=np.bool_)
    pixel = np.array([abs(scene.transform[0]) for scene in scenes])
    cosines = np.cos(np.radians(focus.points[offered.objects, 1]))
    seen = offered.scenes
    return np.where(mercator[seen], pixel[seen] * cosines, native[seen]) if len(scenes) else np.zeros(0)


def _own_counts(
    objects: Objects, snapshot: Snapshot, ranges: FloatArray, chips: ChipSettings
) -> Mapping[float, IntArray]:
    """Plannable objects of each tag at the source's middle GSD, for a region that the snapshot has not counted."""
    if len(ranges) == 0:
        return {}
    gsd = np.array(float(np.median(ranges)))
    able = suits(objects.kinds, objects.longer_side_m, gsd, gsd, chips)
    pairs = objects.tags.where(able[objects.tags.objects])
    return {float(gsd): np.bincount(pairs.tags, minlength=len(snapshot.keys)).astype(np.int64)}


def _draws(objects: Objects, snapshot: Snapshot, ranges: FloatArray, chips: ChipSettings) -> dict[int, Drawn]:
    """What is drawn in each band of GSDs, between two of the snapshot's edges, that the scenes have."""
    edges = np.concatenate([[0.0], snapshot.edges(), [np.inf]])
    draws = {}
    for band, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        mine = ranges[(ranges[:, 1] > low) & (ranges[:, 0] <= high)]
        if len(mine) == 0:
            continue
        finest, coarsest = max(low, mine[:, 0].min()), min(high, mine[:, 1].max())
        gsd = float(finest if finest > low else np.sqrt(finest * coarsest))
        able = suits(objects.kinds, objects.longer_side_m, finest, coarsest, chips)
        pairs = objects.tags.where(snapshot.visible(gsd)[objects.tags.tags] & able[objects.tags.objects])
        counts = snapshot.count_at(gsd)
        chosen = draw(pairs, objects.codes, objects.centres, snapshot, counts, chips)
        draws[band] = Drawn(gsd, pairs.where(chosen))
    return draws


def _drawn_there(
    offered: Candidates,
    gsds: FloatArray,
    bands: IntArray,
    focus: _Focus,
    objects: Objects,
    draws: Mapping[int, Drawn],
    chips: ChipSettings,
) -> BoolArray:
    """Which candidates are drawn at the GSD that their scene has at their object."""
    index = focus.index[offered.objects]
    able = suits(objects.kinds[index], objects.longer_side_m[index], gsds, gsds, chips)
    for band in np.unique(bands).tolist():
        here = bands == band
        able[here] &= np.isin(index[here], draws[band].pairs.objects)
    return able


def _read_focus(path: Path, objects: Objects, draws: Mapping[int, Drawn], bbox: Bounds, seed: int) -> _Focus:
    """Read the geometry of the drawn objects alone, and choose a vertex of each line."""
    drawn = [drawn.pairs.objects for drawn in draws.values()]
    index = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *drawn]))
    ids, codes, kinds = objects.ids.take(index).to_pylist(), objects.codes[index], objects.kinds[index]
    try:
        geometry = shapely.from_wkb(_geometry_at(path, objects.rows[index]))
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is broken ({error}); materialize osm_objects again") from error
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    points = (bounds[:, :2] + bounds[:, 2:]) / 2
    lines = np.flatnonzero(kinds == "line")
    points[lines] = _vertices(geometry[lines], codes[lines], bbox, seed)
    return _Focus(index, ids, codes, kinds, geometry, points)


def _geometry_at(path: Path, rows: IntArray) -> npt.NDArray[np.object_]:
    """WKB of some rows, rising, of a table; one row group is in memory at a time."""
    file = pq.ParquetFile(path)
    found, first = [np.zeros(0, dtype=np.object_)], 0
    for group in range(file.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, last)]
        if len(here):
            found.append(file.read_row_group(group, columns=["geometry"])["geometry"].take(here - first).to_numpy())
        first = last
    return np.concatenate(found)


def _vertices(lines: npt.NDArray[np.object_], codes: HashArray, bbox: Bounds, seed: int) -> FloatArray:
    """A random vertex of each line among those inside the region, NaN where there is none; [n, 2] degrees."""
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    inside = ((coordinates >= bbox[:2]) & (coordinates <= bbox[2:])).all(axis=1)
    coordinates, owner = coordinates[inside], owner[inside]
    counts = np.bincount(owner, minlength=len(lines))
    first = np.cumsum(counts) - counts
    chosen = np.full((len(lines), 2), np.nan)
    some = np.flatnonzero(counts)
    pick = (unit_hashes(codes[some], seed, "vertex") * counts[some]).astype(np.int64)
    chosen[some] = coordinates[first[some] + pick]
    return chosen


def _with_strata(
    plan: pa.Table,
    index: IntArray,
    bands: IntArray,
    objects: Objects,
    snapshot: Snapshot,
    draws: Mapping[int, Drawn],
) -> pa.Table:
    """The plan with `key=value` of the rarest tag that is visible in each chip; `index` are rows of `Objects`."""
    rarest = np.full(len(index), -1, dtype=np.int64)
    for band in np.unique(bands).tolist():
        gsd = draws[band].gsd_m
        pairs = objects.tags.where(snapshot.visible(gsd)[objects.tags.tags])
        here = bands == band
        rarest[here] = strata(pairs, snapshot.count_at(gsd), len(objects.rows))[index[here]]
    names = pa.array([f"{k}={v}" for k, v in zip(snapshot.keys, snapshot.values, strict=True)], pa.string())
    column = names.take(pa.array(rarest, mask=rarest < 0))
    return plan.set_column(plan.schema.get_field_index("stratum"), "stratum", column)


# ------------------------------------------------------------------------------------------------------ place of chips


def _plan_chips(
    scenes: Sequence[Scene],
    offered: Candidates,
    bands: IntArray,
    focus: _Focus,
    chips: ChipSettings,
    split_zoom: int,
    choice: SceneChoice,
    shifts: Mapping[str, Shift],
    reasons: TextArray,
    progress: Progress,
) -> Iterator[_Chips]:
    """Chips of all objects, in rounds: each object tries its best scene, those without a place there the next best.

    With several dates an object goes on after a success, past scenes too near in time to those it has. Sets `reasons`,
    "" where a chip was planned.
    """
    taken = np.array([scene.datetime.timestamp() for scene in scenes])
    turn, end = (np.searchsorted(offered.objects, np.arange(len(focus.ids)), side=side) for side in ("left", "right"))
    dates = np.full((len(focus.ids), choice.dates), np.nan)
    active = np.flatnonzero(turn < end)
    while len(active):
        scene_of = offered.scenes[turn[active]]
        near = (np.abs(dates[active] - taken[scene_of][:, None]) < choice.min_days_apart * DAY_S).any(axis=1)
        outcome = np.full(len(focus.ids), "outside", dtype=reasons.dtype)
        for scene, mine in _by_scene(scene_of[~near], active[~near]):
            shift = shifts.get(scenes[scene].scene_id, NO_SHIFT)
            for grid, inside in grids(scenes[scene], focus.points[mine], shift):
                batch = _cut(scenes[scene], grid, focus, mine[inside], chips, split_zoom, outcome)
                yield _Chips(batch[0], bands[turn[batch[0]]], scene, grid.resampled, batch[1])
        placed = active[outcome[active] == ""]
        dates[placed, (~np.isnan(dates[placed])).sum(axis=1)] = taken[offered.scenes[turn[placed]]]
        told = active[reasons[active] != ""]
        reasons[told] = outcome[told]
        # Another scene has much the same pixels, and the same splits below it.
        over = np.isin(outcome[active], ("size", "split")) | ~np.isnan(dates[active]).any(axis=1)
        turn[active] += 1
        active = active[~over & (turn[active] < end[active])]
        progress(len(focus.ids) - len(active), len(focus.ids), "objects")


def _by_scene(scenes: IntArray, members: IntArray) -> Iterator[tuple[int, IntArray]]:
    """The members of each scene, in the order of the scenes."""
    order = np.argsort(scenes, kind="stable")
    found, first = np.unique(scenes[order], return_index=True)
    yield from zip(found.tolist(), np.split(members[order], first[1:]), strict=False)


def _cut(
    scene: Scene,
    grid: Grid,
    focus: _Focus,
    members: IntArray,
    chips: ChipSettings,
    split_zoom: int,
    outcome: TextArray,
) -> tuple[IntArray, pa.Table]:
    """Place the chips of some drawn objects on a grid; sets their `outcome`, "" where a chip was planned.

    Returns:
        The members with a chip, and their rows of the plan; the stratum is left open.
    """
    boxes = _pixel_boxes(grid, focus, members)
    finite = np.isfinite(boxes).all(axis=1)
    tiles = tiles_of(boxes[finite], focus.kinds[members[finite]] == "area", chips)
    members = members[finite]
    outcome[members[~tiles.fits]] = "size"
    members, tiles = members[tiles.fits], tiles.where(tiles.fits)
    windows, wrong = place(grid, tiles, focus.codes[members], chips, split_zoom)
    outcome[members[wrong == TWO_SPLITS]] = "split"
    good = wrong <= TWO_CELLS
    members, windows, held = members[good], windows[good], tiles.held[good]
    outcome[members] = ""
    bounds = grid.bounds(windows)
    lon, lat = (bounds[:, 0] + bounds[:, 2]) / 2, (bounds[:, 1] + bounds[:, 3]) / 2
    x, y = cells_of(lon, lat, split_zoom)
    ids = [focus.ids[member] for member in members]
    name = f"{scene.source}_{scene.datetime:%Y%m%d}"
    digests = [_digest(scene.scene_id, grid.crs, *window) for window in windows.tolist()]
    same = {"region": scene.region, "source": scene.source, "scene_id": scene.scene_id, "crs": grid.crs}
    columns: dict[str, Any] = {
        **{key: pa.repeat(value, len(ids)) for key, value in same.items()},
        "chip_id": [f"{object_id}_{name}_{digest}" for object_id, digest in zip(ids, digests, strict=True)],
        "object_id": ids,
        "transform": [grid.transform(column, row) for column, row in windows[:, :2].tolist()],
        "width": pa.array(windows[:, 2] - windows[:, 0], pa.int32()),
        "height": pa.array(windows[:, 3] - windows[:, 1], pa.int32()),
        "gsd_m": grid.gsds_at(lat),
        "bbox": pa.StructArray.from_arrays(list(bounds.T), fields=list(BBOX_TYPE)),
        "focus_box": _focus_boxes(grid, focus, members, held, windows).tolist(),
        "stratum": pa.nulls(len(ids), pa.string()),
        "cell": [f"{column}/{row}" for column, row in zip(x.tolist(), y.tolist(), strict=True)],
        "osm_shift_m": [grid.shift] * len(ids),
        "split": [SPLITS[split] for split in splits_of(x, y).tolist()],
    }
    return members, pa.table({key: columns[key] for key in PLAN_SCHEMA.names}, schema=PLAN_SCHEMA)


def _digest(*parts: object) -> str:
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=4).hexdigest()


def _pixel_boxes(grid: Grid, focus: _Focus, members: IntArray) -> FloatArray:
    """Boxes (x0, y0, x1, y1) in pixels, [n, 4]: an area's own, else the point or the vertex without extent."""
    points = grid.pixels(focus.points[members])
    boxes = np.concatenate([points, points], axis=1)
    areas = np.flatnonzero(focus.kinds[members] == "area")
    boxes[areas] = shapely.bounds(shapely.transform(focus.geometry[members[areas]], grid.pixels)).reshape(-1, 4)
    return np.round(boxes, PIXEL_DECIMALS)


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
