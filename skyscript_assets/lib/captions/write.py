"""The captions of a plan's chips: which tags can be seen, what lies around the focus object, the table of both texts.

How tags become words belongs to `compose`. Surrounding objects are found by overlay: an object counts where its part in
the chip can be seen, and is more prominent the more of the chip that part takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pyproj import Transformer

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.captions.compose import Phrase, compose, may_be_said, phrases
from skyscript_assets.lib.captions.rules import CaptionRules, read_rules
from skyscript_assets.lib.chips.plan import PIXEL_DECIMALS, PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.chips.sampling import Snapshot, TagPairs, longer_sides_m, match_tags, read_snapshot
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.registration.shift import NO_SHIFT, Shift, move
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tables import TAGS_TYPE, read_table, rows_to_table, write_table

CAPTIONS_FILE = "captions.parquet"

CAPTION_SCHEMA = pa.schema(
    [
        ("chip_id", pa.string()),
        ("title", pa.string()),
        ("title_multi_objects", pa.string()),
        ("center_tags", TAGS_TYPE),
        (
            "surrounding",
            pa.list_(pa.struct([("object_id", pa.string()), ("tags", TAGS_TYPE), ("box", pa.list_(pa.int32()))])),
        ),
        ("trace", pa.list_(pa.struct([(name, pa.string()) for name in ("key", "value", "phrase", "role")]))),
    ]
)
"""Columns of `captions.parquet`. `surrounding` holds the objects that the multi-object caption names, each with its
visible tags (values of one key joined by `;`) and the box (x0, y0, x1, y1) of its part in the chip, in chip pixels,
half open."""

MIN_OVERLAP_PX = 8.0
"""Least longer side of the part of a surrounding object in the chip, pixels; points count always."""

LINE_WIDTH_PX = 4.0
"""Width that a line is given when objects are ranked by the share of the chip they take, pixels."""

POINT_AREA_PX = 64.0
"""Area that a point is given in that ranking, square pixels."""

CANDIDATES = 4
"""Objects looked at for each one that may be named: some read like another and are passed over."""

BATCH = 512
"""Chips overlaid at a time: bounds the memory."""

TagSet = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CaptionSummary:
    """Counts of the captions of one region and source.

    Attributes:
        chips: Accepted chips.
        captions: Captions written.
        without_caption: Chips whose focus object has no tag that may be said at the chip's GSD.
        with_surrounding: Captions that name at least one surrounding object.
        distinct_titles: Different single-object captions.
        distinct_multi: Different multi-object captions.
        longest: Characters of the longest caption.
    """

    chips: int
    captions: int
    without_caption: int
    with_surrounding: int
    distinct_titles: int
    distinct_multi: int
    longest: int


@dataclass(frozen=True)
class _Objects:
    """The objects that have a tag that may be said, and all focus objects, in the order of `objects.parquet`.

    `rows` leads from an id to its place in the arrays; `pairs` are the tags that may be said at some GSD; `dimension`
    is 0 for points, 1 for lines, 2 for areas; `longer_side_m` that of the box.
    """

    ids: list[str]
    rows: Mapping[str, int]
    geometry: npt.NDArray[np.object_]
    dimension: IntArray
    longer_side_m: FloatArray
    pairs: TagPairs


@dataclass(frozen=True)
class _Level:
    """What can be seen on a group of chips of one CRS: the tag set of each object, and where these objects are.

    `chips` are rows of the accepted chips; `set_of` is the number of each object's set in `sets`, 0 for the empty set;
    `said` is what each set says; `candidates` are the objects large enough to surround another, and `tree` finds them.
    """

    chips: IntArray
    sets: list[TagSet]
    said: list[list[Phrase]]
    set_of: IntArray
    candidates: IntArray
    tree: shapely.STRtree


@dataclass(frozen=True)
class _Parts:
    """Parts of objects in chips: number of the chip, row of the object, box in chip pixels, square pixels taken."""

    chip: IntArray
    object: IntArray
    boxes: IntArray
    taken: FloatArray


@dataclass(frozen=True)
class _Near:
    """The objects of one tag set around a chip, shown by the largest of them and the box of its part in the chip."""

    object: int
    box: list[int]


def write_captions(
    plan_folder: Path,
    chips_folder: Path,
    objects_path: Path,
    snapshot_folder: Path,
    rules_path: Path,
    captions: CaptionSettings,
    out: Path,
    progress: Progress = silent,
) -> CaptionSummary:
    """Write `captions.parquet` for the accepted chips of a plan, in its order.

    Args:
        plan_folder: `chip_plan` of the region and source.
        chips_folder: `image_chips` of the same.
        objects_path: `objects.parquet` of the region.
        snapshot_folder: `sampling_snapshot`; its tags alone may be said, each where the GSD is fine enough.
        rules_path: Caption rules, YAML.
        captions: Limits.
        out: Existing folder for the table.
        progress: Told of chips done.

    Returns:
        Counts.

    Raises:
        UpstreamMissingError: an input table is missing.
        CorruptInputError: an input is broken, or the plan names objects that the extract does not have.
        SettingsError: the rules are wrong.
    """
    rules = read_rules(rules_path)
    status = read_table(chips_folder / "chips.parquet", columns=["chip_id", "status"])
    accepted = status.filter(pc.equal(status["status"], "ok"))["chip_id"].combine_chunks()
    plan = read_table(plan_folder / PLAN_FILE, PLAN_SCHEMA)
    chips = plan.filter(pc.is_in(plan["chip_id"], value_set=accepted)).to_pylist()
    snapshot = read_snapshot(snapshot_folder)
    objects = _read_objects(objects_path, snapshot, {chip["object_id"] for chip in chips})

    rows: dict[int, dict[str, Any]] = {}
    done = 0
    for level in _levels(chips, objects, snapshot, rules):
        for batch in _batches(level, chips):
            surroundings = _surroundings(
                [chips[i] for i in batch], objects, level, captions.max_surrounding * CANDIDATES
            )
            for i, near in zip(batch.tolist(), surroundings, strict=True):
                row = _row(chips[i], near, objects, level, captions)
                if row is not None:
                    rows[i] = row
            done += len(batch)
            progress(done, len(chips), "chips")
    written = [rows[i] for i in sorted(rows)]
    write_table(out / CAPTIONS_FILE, rows_to_table(written, CAPTION_SCHEMA))
    return CaptionSummary(
        chips=len(chips),
        captions=len(written),
        without_caption=len(chips) - len(written),
        with_surrounding=sum(bool(row["surrounding"]) for row in written),
        distinct_titles=len({row["title"] for row in written}),
        distinct_multi=len({row["title_multi_objects"] for row in written}),
        longest=max((len(row["title_multi_objects"]) for row in written), default=0),
    )


def _read_objects(path: Path, snapshot: Snapshot, focus_ids: set[str]) -> _Objects:
    """Read tags of all objects, and the geometry of those that are needed."""
    table = read_table(path, columns=["object_id", "tags", "bbox"])
    pairs = match_tags(table["tags"], snapshot)
    sayable = np.array([may_be_said(k, v) for k, v in zip(snapshot.keys, snapshot.values, strict=True)], dtype=np.bool_)
    pairs = pairs.where(sayable[pairs.tags])
    needed = pc.is_in(table["object_id"], value_set=pa.array(sorted(focus_ids), pa.string())).to_numpy().copy()
    if needed.sum() != len(focus_ids):
        raise CorruptInputError(
            f"{path} lacks objects that the plan names: materialize chip_plan and image_chips again"
        )
    needed[pairs.objects] = True
    kept = np.flatnonzero(needed)
    place = np.cumsum(needed) - 1
    ids = table["object_id"].take(kept).to_pylist()
    try:
        geometry = shapely.from_wkb(read_table(path, columns=["geometry"])["geometry"].take(kept).to_numpy())
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is broken ({error}); materialize osm_objects again") from error
    return _Objects(
        ids=ids,
        rows={object_id: row for row, object_id in enumerate(ids)},
        geometry=geometry,
        dimension=shapely.get_dimensions(geometry).astype(np.int64),
        longer_side_m=longer_sides_m(table["bbox"])[kept],
        pairs=TagPairs(place[pairs.objects], pairs.tags),
    )


def _levels(
    chips: Sequence[Mapping[str, Any]], objects: _Objects, snapshot: Snapshot, rules: CaptionRules
) -> Iterator[_Level]:
    """Group the chips by CRS and by what can be seen: tags that go at one GSD are a subset of those of a finer one."""
    groups: dict[tuple[int, str], list[int]] = {}
    for i, chip in enumerate(chips):
        groups.setdefault((int(snapshot.visible(chip["gsd_m"]).sum()), chip["crs"]), []).append(i)
    for _, members in sorted(groups.items()):
        finest = min(chips[i]["gsd_m"] for i in members)
        sets, set_of = _tag_sets(objects, snapshot, snapshot.visible(finest))
        large = (objects.dimension == 0) | (objects.longer_side_m >= MIN_OVERLAP_PX * finest)
        candidates = np.flatnonzero(large & (set_of > 0))
        yield _Level(
            chips=np.array(members, dtype=np.int64),
            sets=sets,
            said=[phrases(dict(tags), rules) for tags in sets],
            set_of=set_of,
            candidates=candidates,
            tree=shapely.STRtree(objects.geometry[candidates]),
        )


def _batches(level: _Level, chips: Sequence[Mapping[str, Any]]) -> Iterator[IntArray]:
    """The chips of a level, some at a time; those of a batch are moved alike against OSM."""
    groups: dict[Shift, list[int]] = {}
    for i in level.chips.tolist():
        groups.setdefault(tuple(chips[i]["osm_shift_m"] or NO_SHIFT), []).append(i)
    for members in groups.values():
        yield from np.split(np.array(members, dtype=np.int64), range(BATCH, len(members), BATCH))


def _tag_sets(objects: _Objects, snapshot: Snapshot, shown: BoolArray) -> tuple[list[TagSet], IntArray]:
    """The distinct sets of shown tags, the empty one first, and the number of each object's set."""
    pairs = objects.pairs.where(shown[objects.pairs.tags])
    tags: list[list[int]] = [[] for _ in objects.ids]
    for row, tag in zip(pairs.objects.tolist(), pairs.tags.tolist(), strict=True):
        tags[row].append(tag)
    numbers: dict[tuple[int, ...], int] = {(): 0}
    set_of = np.array([numbers.setdefault(tuple(own), len(numbers)) for own in tags], dtype=np.int64)
    return [_joined((snapshot.keys[tag], snapshot.values[tag]) for tag in own) for own in numbers], set_of


def _joined(tags: Iterable[tuple[str, str]]) -> TagSet:
    """Tags with each key once: the values of one key become a list, as OSM writes it."""
    values: dict[str, list[str]] = {}
    for key, value in tags:
        values.setdefault(key, []).append(value)
    return tuple((key, ";".join(listed)) for key, listed in values.items())


def _surroundings(
    chips: Sequence[Mapping[str, Any]], objects: _Objects, level: _Level, limit: int
) -> list[list[_Near]]:
    """What lies around each chip's focus object, the most prominent tag set first, at most `limit` sets a chip.

    A set's prominence is the share of the chip that all its objects take; sets that equal the focus object's are left
    out. All chips are of one CRS and moved alike against OSM.
    """
    focus = np.array([objects.rows[chip["object_id"]] for chip in chips], dtype=np.int64)
    parts = _overlay(chips, objects, level, level.set_of[focus])
    answer: list[list[_Near]] = [[] for _ in chips]
    rows = _ranked(parts.chip, level.set_of[parts.object], parts.taken, parts.object)
    for chip, row, box in zip(
        parts.chip[rows].tolist(), parts.object[rows].tolist(), parts.boxes[rows].tolist(), strict=True
    ):
        if len(answer[chip]) < limit:
            answer[chip].append(_Near(row, box))
    return answer


def _overlay(chips: Sequence[Mapping[str, Any]], objects: _Objects, level: _Level, own_sets: IntArray) -> _Parts:
    """The parts of candidates in chips that can be seen there; tag sets equal to the chip's own are left out."""
    transforms = np.array([chip["transform"] for chip in chips])
    sizes = np.array([(chip["width"], chip["height"]) for chip in chips])
    corner, step = transforms[:, [2, 5]], transforms[:, [0, 4]]
    opposite = corner + sizes * step
    frames = np.concatenate([np.minimum(corner, opposite), np.maximum(corner, opposite)], axis=1)
    to_crs = Transformer.from_crs(4326, chips[0]["crs"], always_xy=True)
    shift = tuple(chips[0]["osm_shift_m"] or NO_SHIFT)
    back = (-shift[0], -shift[1])
    outlines = shapely.transform(_outlines(frames, to_crs), lambda p: move(p, back))
    near, which = level.tree.query(outlines, predicate="intersects")
    found = level.candidates[which]
    other = level.set_of[found] != own_sets[near]
    near, found = near[other], found[other]

    used, place = np.unique(found, return_inverse=True)
    projected = shapely.transform(
        objects.geometry[used], lambda p: np.column_stack(to_crs.transform(*move(p, shift).T))
    )
    parts = _clip(projected[place], frames[near])
    bounds = shapely.bounds(parts).reshape(-1, 4)
    # Rows grow southward: a part's north-western corner is its first pixel.
    boxes = np.round((bounds[:, [0, 3, 2, 1]] - np.tile(corner[near], 2)) / np.tile(step[near], 2), PIXEL_DECIMALS)
    dimension, pixel = objects.dimension[found], step[near, 0]
    taken = np.select(
        [dimension == 2, dimension == 1],
        [shapely.area(parts) / pixel**2, shapely.length(parts) / pixel * LINE_WIDTH_PX],
        POINT_AREA_PX,
    )
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)
    shown = np.isfinite(boxes).all(axis=1) & ((dimension == 0) | (longer >= MIN_OVERLAP_PX))
    boxes, size = boxes[shown], sizes[near[shown]]
    first = np.clip(np.floor(boxes[:, :2]), 0, size - 1)
    last = np.clip(np.ceil(boxes[:, 2:]), first + 1, size)
    return _Parts(near[shown], found[shown], np.concatenate([first, last], axis=1).astype(np.int64), taken[shown])


def _outlines(frames: FloatArray, to_crs: Transformer) -> npt.NDArray[np.object_]:
    """Chips (xmin, ymin, xmax, ymax), [n, 4], of a CRS as polygons in degrees."""
    lon, lat = to_crs.transform(frames[:, [0, 2, 2, 0]], frames[:, [1, 1, 3, 3]], direction="INVERSE")
    return np.asarray(shapely.polygons(np.stack([lon, lat], axis=-1)))


def _clip(geometry: npt.NDArray[np.object_], frames: FloatArray) -> npt.NDArray[np.object_]:
    """Each geometry's part in its frame (xmin, ymin, xmax, ymax), None where it leaves the CRS's domain."""
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    finite = np.isfinite(bounds).all(axis=1)
    inside = ((bounds[:, :2] >= frames[:, :2]) & (bounds[:, 2:] <= frames[:, 2:])).all(axis=1)
    parts = geometry.copy()
    parts[~finite] = None
    across = np.flatnonzero(finite & ~inside)
    # One call for each: shapely's clip takes one frame at a time and is still four times as fast as its intersection.
    parts[across] = [shapely.clip_by_rect(geometry[i], *frames[i].tolist()) for i in across]
    return parts


def _ranked(chip: IntArray, tag_set: IntArray, taken: FloatArray, objects: IntArray) -> IntArray:
    """One entry for each tag set around each chip, its largest object's, by chip and falling share.

    Args:
        chip: Number of the chip of each part.
        tag_set: Number of its object's tag set.
        taken: Square pixels of the chip that it takes.
        objects: Row of its object.

    Returns:
        Indices into these arrays.
    """
    by_size = np.lexsort((objects, -taken))
    pairs = np.column_stack([chip, tag_set])[by_size]
    _, first, group = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    total = np.bincount(group.ravel(), weights=taken[by_size], minlength=len(first))
    largest = by_size[first]
    order = np.lexsort((tag_set[largest], -total, chip[largest]))
    return np.asarray(largest[order])


def _row(
    chip: Mapping[str, Any], near: Sequence[_Near], objects: _Objects, level: _Level, captions: CaptionSettings
) -> dict[str, Any] | None:
    """One row of `captions.parquet`, None where the focus object has nothing to say."""
    center = level.set_of[objects.rows[chip["object_id"]]]
    around = [level.set_of[one.object] for one in near]
    said = [level.said[number] for number in around]
    pair = compose(level.said[center], said, captions.max_surrounding, captions.max_length)
    if pair is None:
        return None
    return {
        "chip_id": chip["chip_id"],
        "title": pair.title,
        "title_multi_objects": pair.title_multi_objects,
        "center_tags": level.sets[center],
        "surrounding": [
            {"object_id": objects.ids[near[i].object], "tags": level.sets[around[i]], "box": near[i].box}
            for i in pair.named
        ],
        "trace": [vars(row) for row in pair.trace],
    }
