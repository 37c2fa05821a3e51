"""Planning: which objects of a region become chips of a source, on which scene, and where each chip lies.

`sampling` draws objects, `imagery.choice` orders the scenes over each, `placing` puts the chips on them, `plan_report`
tells what became of it all. Here they are put together. Each region and source plans alone: one object may become chips
of several sources, and of several dates of one (`SceneChoice.dates`).
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.chips import sampling
from skyscript_assets.lib.chips.grids import gsd_nodes, gsds_at
from skyscript_assets.lib.chips.placing import Focus, Placed, TextArray, by_scene, place_chips
from skyscript_assets.lib.chips.plan import PLAN_FILE, Ground, PlanInputs, PlanRules, PlanSummary
from skyscript_assets.lib.chips.plan_report import OUTCOMES_FILE, REPORT_FILE, outcome_table, report_table
from skyscript_assets.lib.chips.sampling import Drawn, Snapshot, TagPairs
from skyscript_assets.lib.chips.spread import crowded, effective_number, gini
from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.choice import candidates, check_ids
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.osm.region_overlap import OVERLAP_SCHEMA
from skyscript_assets.lib.osm.sight import SIGHT_SCHEMA, out_of_sight
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.registration.shift import read_shifts
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.tables import read_batches, read_geometry, read_table, write_table

OBJECT_ROWS = 262_144
"""Objects whose tags are in memory at a time."""


@dataclass(frozen=True)
class _Objects:
    """The objects centred on the region's own ground that no other region plans, in the order of `objects.parquet`.

    That table has `total` rows, of which theirs are `rows`. `kinds` are node, line or area; `longer_side_m` is that of
    an object's box, `centres` [n, 2] the longitude and latitude of its middle; `edited_s` is the time of the last edit
    in seconds since 1970, NaN where unknown; `tags` are those of the snapshot.
    """

    total: int
    rows: IntArray
    ids: pa.ChunkedArray
    codes: HashArray
    kinds: TextArray
    longer_side_m: FloatArray
    centres: FloatArray
    edited_s: FloatArray
    tags: TagPairs


def write_plan(
    ground: Ground, inputs: PlanInputs, rules: PlanRules, out: Path, progress: Progress = silent
) -> PlanSummary:
    """Plan the chips of one source over one region: writes `plan.parquet`, `report.parquet` and `outcomes.parquet`.

    Raises:
        UpstreamMissingError: an input table is missing.
        CorruptInputError: an input table or a geometry in it is broken, or object ids or scene ids repeat.
        OutputSchemaError: an input table lacks a column.
        SceneError: a scene's CRS cannot be read.
        SettingsError: the snapshot was made without the source's GSD.
    """
    plan = rules.plan
    same: dict[str, Any] = {"region": ground.region, "source": ground.source}
    same |= {} if rules.effective else {"effective_gsd_m": None}
    scenes = [replace(scene, **same) for scene in read_scenes(inputs.scenes)]
    check_ids(scenes)
    shifts = {} if inputs.offsets is None else read_shifts(inputs.offsets)
    snapshot = sampling.read_snapshot(inputs.snapshot, ground.region)
    objects = _read_objects(inputs, ground, snapshot)
    _check_gsd(objects, snapshot, ground, plan)
    ranges = np.array([(gsds.min(), gsds.max()) for gsds in map(gsd_nodes, scenes)]).reshape(-1, 2)
    if not snapshot.counts and scenes:
        middle = float(np.median(ranges))
        snapshot = replace(snapshot, counts={middle: _count(objects, snapshot, middle, plan)})
    draws = _draws(objects, snapshot, ranges, plan)
    focus = _read_focus(inputs.objects, objects, draws, ground.bbox, plan.seed)

    last_edit_s = float(np.fmax.reduce(objects.edited_s, initial=np.nan))
    data_s = last_edit_s if ground.data_time is None else ground.data_time.timestamp()
    offered = candidates(scenes, focus.points, objects.edited_s[focus.index], data_s, rules.choice)
    gsds = np.empty(len(offered.scenes))
    for number, entries in by_scene(offered.scenes, np.arange(len(gsds))):
        gsds[entries] = gsds_at(scenes[number], focus.points[offered.objects[entries]])
    bands = np.searchsorted(snapshot.edges(), gsds)
    able = _drawn_there(focus.index[offered.objects], gsds, bands, objects, draws, plan)
    placed = place_chips(scenes, shifts, offered.where(able), bands[able], focus, rules, progress)
    placed = replace(placed, rows=_with_strata(placed, focus, objects, snapshot, draws))
    placed = placed.without(_crowded(placed, focus, plan), "near")
    rows, strata = placed.rows, Counter(placed.rows["stratum"].to_pylist())
    write_table(out / PLAN_FILE, rows)
    report = report_table(ground.region, objects.tags, snapshot, draws, plan, focus.index[placed.members], placed.bands)
    write_table(out / REPORT_FILE, report)
    write_table(out / OUTCOMES_FILE, outcome_table(snapshot, draws, focus.index, focus.kinds, placed.reasons))
    return PlanSummary(
        scenes=len(scenes),
        scenes_used=len(pc.unique(rows["scene_id"])),
        objects=objects.total,
        elsewhere=objects.total - len(objects.rows),
        drawn=len(focus.ids),
        planned=rows.num_rows,
        dropped=dict(sorted(Counter(placed.reasons[placed.reasons != ""].tolist()).items())),
        splits=dict(sorted(Counter(rows["split"].to_pylist()).items())),
        tags=report.num_rows,
        tags_short=pc.sum(pc.less(report["planned"], report["wanted"])).as_py() or 0,
        resampled=int(placed.resampled.sum()),
        effective_strata=effective_number(strata.values()),
        gini_of_strata=gini(strata.values()),
    )


def _read_objects(inputs: PlanInputs, ground: Ground, snapshot: Snapshot) -> _Objects:
    """Read the objects of the region's own ground without their geometry."""
    path, bbox = inputs.objects, ground.bbox
    table = read_table(path, OBJECT_SCHEMA, columns=["object_id", "timestamp", "bbox"])
    try:
        codes = sampling.object_codes(table["object_id"])
    except ValueError as error:
        raise CorruptInputError(f"{path}: {error}; materialize osm_objects again") from error
    if len(np.unique(codes)) != len(codes):
        raise CorruptInputError(f"{path}: object ids repeat; materialize osm_objects again")
    west, south, east, north = (
        pc.struct_field(table["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")
    )
    centres = np.column_stack([(west + east) / 2, (south + north) / 2])
    elsewhere = read_table(inputs.overlap, OVERLAP_SCHEMA)["object_id"].combine_chunks()
    own = np.logical_and.reduce((centres >= bbox[:2]) & (centres <= bbox[2:]), axis=1)
    own &= ~pc.is_in(table["object_id"], value_set=elsewhere).to_numpy()
    rows = np.flatnonzero(own)
    table = table.take(rows)
    letters = pc.utf8_slice_codeunits(table["object_id"], 0, 1).to_numpy().astype("<U1")
    return _Objects(
        total=len(own),
        rows=rows,
        ids=table["object_id"],
        codes=codes[rows],
        kinds=np.where(letters == "n", "node", np.where(letters == "w", "line", "area")),
        longer_side_m=sampling.longer_sides_m(table["bbox"]),
        centres=centres[rows],
        edited_s=table["timestamp"].cast(pa.int64()).to_numpy().astype(np.float64) / 1000.0,
        tags=_read_tags(path, own & ~out_of_sight(path), own, snapshot),
    )


def _read_tags(path: Path, in_sight: BoolArray, own: BoolArray, snapshot: Snapshot) -> TagPairs:
    """The snapshot's tags on objects in sight, numbered among the own ones, with the tags of some rows in memory."""
    done, number = 0, np.cumsum(own) - 1
    objects, tags = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for batch in read_batches(path, SIGHT_SCHEMA, OBJECT_ROWS):
        rows = np.flatnonzero(in_sight[done : done + batch.num_rows])
        table = pa.table(batch.take(pa.array(rows)))
        pairs = sampling.told(sampling.match_tags(table["tags"], snapshot), table, snapshot)
        objects.append(number[rows[pairs.objects] + done])
        tags.append(pairs.tags)
        done += batch.num_rows
    return TagPairs(np.concatenate(objects), np.concatenate(tags))


def _read_focus(path: Path, objects: _Objects, draws: Mapping[int, Drawn], bbox: Bounds, seed: int) -> Focus:
    """Read the geometry of the drawn objects alone, and choose a vertex of each line."""
    drawn = [drawn.pairs.objects for drawn in draws.values()]
    index = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *drawn]))
    ids, codes, kinds = objects.ids.take(index).to_pylist(), objects.codes[index], objects.kinds[index]
    geometry = read_geometry(path, objects.rows[index])
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    points = (bounds[:, :2] + bounds[:, 2:]) / 2
    lines = np.flatnonzero(kinds == "line")
    points[lines] = _vertices(geometry[lines], codes[lines], bbox, seed)
    return Focus(index, ids, codes, kinds, geometry, points)


def _vertices(lines: npt.NDArray[np.object_], codes: HashArray, bbox: Bounds, seed: int) -> FloatArray:
    """A random vertex of each line among those inside the region, NaN where there is none; [n, 2] degrees."""
    coordinates, owner = shapely.get_coordinates(lines, return_index=True)
    inside = ((coordinates >= bbox[:2]) & (coordinates <= bbox[2:])).all(axis=1)
    coordinates, owner = coordinates[inside], owner[inside]
    counts = np.bincount(owner, minlength=len(lines))
    first = np.cumsum(counts) - counts
    chosen = np.full((len(lines), 2), np.nan)
    some = np.flatnonzero(counts)
    pick = (sampling.unit_hashes(codes[some], seed, "vertex") * counts[some]).astype(np.int64)
    chosen[some] = coordinates[first[some] + pick]
    return chosen


def _check_gsd(objects: _Objects, snapshot: Snapshot, ground: Ground, plan: PlanSettings) -> None:
    """Refuse a snapshot without counts at the source's GSD although there is something to count.

    The counts at another GSD would stand in, and draw too few objects or too many. A region that the snapshot does not
    know is counted at its scenes' GSD by the plan itself.
    """
    if not snapshot.counts or any(math.isclose(gsd, ground.gsd_m) for gsd in snapshot.gsds):
        return
    counts = _count(objects, snapshot, ground.gsd_m, plan)
    if counts[snapshot.coarsest_gsd_m >= ground.gsd_m].any():
        counted = ", ".join(f"{gsd:g} m" for gsd in snapshot.gsds)
        raise SettingsError(
            f"the sampling snapshot {plan.snapshot!r} was counted at {counted} and not at {ground.gsd_m:g} m, which is "
            f"gsd_m of source {ground.source}: choose another name under plan.snapshot in plant.yaml, and make the "
            "snapshot of that name: skyscript run image_sources tag_vocabulary tag_groundability sampling_snapshot"
        )


def _count(objects: _Objects, snapshot: Snapshot, gsd_m: float, plan: PlanSettings) -> IntArray:
    """Plannable objects of each tag at a GSD, whether it can be seen there or not; shape [tags]."""
    gsd = np.array(gsd_m)
    able = sampling.suits(objects.kinds, objects.longer_side_m, gsd, gsd, plan)
    every = replace(snapshot, coarsest_gsd_m=np.full(len(snapshot.keys), np.inf))
    pairs = sampling.shown(objects.tags, objects.kinds == "node", every, gsd_m)
    return np.bincount(pairs.where(able[pairs.objects]).tags, minlength=len(snapshot.keys))


def _draws(objects: _Objects, snapshot: Snapshot, ranges: FloatArray, plan: PlanSettings) -> dict[int, Drawn]:
    """What is drawn in each band of GSDs, between two of the snapshot's edges, in the scenes' least to greatest GSD."""
    edges = np.concatenate([[0.0], snapshot.edges(), [np.inf]])
    draws = {}
    for band, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        mine = ranges[(ranges[:, 1] > low) & (ranges[:, 0] <= high)]
        if len(mine) == 0:
            continue
        finest, coarsest = max(low, mine[:, 0].min()), min(high, mine[:, 1].max())
        gsd = float(finest if finest > low else np.sqrt(finest * coarsest))
        able = sampling.suits(objects.kinds, objects.longer_side_m, finest, coarsest, plan)
        pairs = sampling.shown(objects.tags, objects.kinds == "node", snapshot, gsd)
        pairs = pairs.where(able[pairs.objects])
        counts = snapshot.count_at(gsd)
        chosen = sampling.draw(pairs, objects.codes, objects.centres, snapshot, counts, plan)
        draws[band] = Drawn(gsd, pairs.where(chosen))
    return draws


def _drawn_there(
    index: IntArray,
    gsds: FloatArray,
    bands: IntArray,
    objects: _Objects,
    draws: Mapping[int, Drawn],
    plan: PlanSettings,
) -> BoolArray:
    """Which candidates are drawn at the GSD that their scene has at their object; `index` are rows of `_Objects`."""
    able = sampling.suits(objects.kinds[index], objects.longer_side_m[index], gsds, gsds, plan)
    for band in np.unique(bands).tolist():
        here = bands == band
        able[here] &= np.isin(index[here], draws[band].pairs.objects)
    return able


def _crowded(placed: Placed, focus: Focus, plan: PlanSettings) -> BoolArray:
    """Which chips give way to others of their stratum, by the hash of their objects."""
    sides = [pc.struct_field(placed.rows["bbox"], side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")]
    names = placed.rows["stratum"].combine_chunks().dictionary_encode().indices
    ranks = sampling.unit_hashes(focus.codes, plan.seed, "distance")[placed.members]
    strata = pc.fill_null(names, -1).to_numpy().astype(np.int64)
    return crowded(placed.members, ranks, strata, np.column_stack(sides), plan.max_overlap)


def _with_strata(
    placed: Placed, focus: Focus, objects: _Objects, snapshot: Snapshot, draws: Mapping[int, Drawn]
) -> pa.Table:
    """The rows of the plan with `key=value` of the rarest tag that is visible in each chip."""
    index = focus.index[placed.members]
    rarest = np.full(len(index), -1, dtype=np.int64)
    for band in np.unique(placed.bands).tolist():
        gsd = draws[band].gsd_m
        pairs = sampling.shown(objects.tags, objects.kinds == "node", snapshot, gsd)
        here = placed.bands == band
        rarest[here] = sampling.strata(pairs, snapshot.count_at(gsd), len(objects.rows))[index[here]]
    names = pa.array([f"{k}={v}" for k, v in zip(snapshot.keys, snapshot.values, strict=True)], pa.string())
    column = names.take(pa.array(rarest, mask=rarest < 0))
    return placed.rows.set_column(placed.rows.schema.get_field_index("stratum"), "stratum", column)
