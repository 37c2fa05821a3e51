"""What can be seen around the focus object of a chip, by overlay of the objects of its region.

An object counts where its overlap with the chip can be seen, and is more prominent the more of the chip that takes.
What fills the chip has no outline in it: it is the ground, and only what its texture tells is said (a wood, a field).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.captions.overlay import MIN_OVERLAP_PX, Overlay
from skyscript_assets.lib.captions.phrases import is_among, may_be_said
from skyscript_assets.lib.chips.sampling import Snapshot, TagPairs, longer_sides_m, match_tags, shown, told
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.osm.meaning import MEANING
from skyscript_assets.lib.osm.sight import entries, layers, out_of_sight
from skyscript_assets.lib.tables import read_geometry, read_table
from skyscript_assets.lib.tags.normalise import normal_values

GROUND_SHARE = 0.9
"""Share of the chip from which areas of one kind are its ground: the rest is a rim in which no shape can be told."""

TagSet = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Objects:
    """The objects that have a tag that may be said, and all focus objects, in the order of `objects.parquet`.

    Focus objects that cannot be seen from above have no tags. `rows` leads from an id to its place in the arrays;
    `geometry` is in degrees; `dimension` is 0 for points, 1 for lines, 2 for areas; `layer` is OSM's; `longer_side_m`
    is that of the box, metres; `pairs` are the tags that may be said at some GSD.
    """

    ids: list[str]
    rows: Mapping[str, int]
    geometry: npt.NDArray[np.object_]
    dimension: IntArray
    layer: IntArray
    longer_side_m: FloatArray
    pairs: TagPairs


@dataclass(frozen=True)
class Visible:
    """What can be seen of the objects at one GSD.

    `sets` are the distinct sets of visible tags that may be said, the empty one first; `set_of` is the number of each
    object's set, `near_set_of` of what it says as a neighbour (no place, no shore: an island is not beside what is on
    it), and `ground_set_of` of what it says where it fills the chip. `candidates` are rows of the objects large enough
    to surround another, and `tree` finds them.
    """

    sets: list[TagSet]
    set_of: IntArray
    near_set_of: IntArray
    ground_set_of: IntArray
    candidates: IntArray
    tree: shapely.STRtree


class Near(NamedTuple):
    """The objects of one tag set around a chip, shown by the largest of them.

    `row` is its row, `box` the box (x0, y0, x1, y1) of its overlap with the chip, in chip pixels, half open. `tags` is
    the number of the set that is said of it.
    """

    row: int
    box: list[int]
    tags: int


def with_keys(snapshot: Snapshot, path: Path, keys: Sequence[str]) -> Snapshot:
    """The tags of a snapshot, and all tags that the objects of a table have of some keys; `*` stands for any text.

    These count as visible as far as the most visible tag of their key, at any resolution where the snapshot has none.
    """
    found, values, _ = entries(read_table(path, columns=["tags"])["tags"].combine_chunks())
    wanted = pc.is_in(
        found, value_set=pa.array([k for k in pc.unique(found).to_pylist() if is_among(k, keys)], pa.string())
    )
    pairs = zip(found.filter(wanted).to_pylist(), values.filter(wanted).to_pylist(), strict=True)
    # The finest come first, and the coarsest of a key stays.
    reach = {snapshot.keys[i]: float(snapshot.coarsest_gsd_m[i]) for i in np.argsort(snapshot.coarsest_gsd_m)}
    more = {(key, each): (reach.get(key, np.inf), 0.0) for key, value in pairs for each in normal_values(value)}
    known = zip(snapshot.coarsest_gsd_m.tolist(), snapshot.area_side_m.tolist(), strict=True)
    tags = sorted((more | dict(zip(zip(snapshot.keys, snapshot.values, strict=True), known, strict=True))).items())
    coarsest, sides = np.array([facts for _, facts in tags]).T
    return Snapshot(tuple(key for (key, _), _ in tags), tuple(v for (_, v), _ in tags), coarsest, {}, (), sides)


def read_objects(path: Path, snapshot: Snapshot, focus_ids: set[str], lets: Sequence[str] = ()) -> Objects:
    """Read tags of all objects, and the geometry of those that are needed.

    Tags of the snapshot alone may be said; those of keys in `lets` whatever they are, and where there are any, what
    cannot be told is said too. Objects of `focus_ids` are kept whatever their tags are.

    Raises:
        UpstreamMissingError: there is no such table.
        CorruptInputError: it lacks a focus object, or a geometry is broken.
    """
    table = read_table(path, columns=["object_id", "tags", "bbox"])
    pairs = match_tags(table["tags"], snapshot)
    pairs = pairs if lets else told(pairs, table, snapshot)
    tags = zip(snapshot.keys, snapshot.values, strict=True)
    sayable = np.array([is_among(key, lets) or may_be_said(key, value) for key, value in tags], dtype=np.bool_)
    pairs = pairs.where(sayable[pairs.tags] & ~out_of_sight(path)[pairs.objects])
    needed = pc.is_in(table["object_id"], value_set=pa.array(sorted(focus_ids), pa.string())).to_numpy().copy()
    if needed.sum() != len(focus_ids):
        raise CorruptInputError(
            f"{path} lacks objects that the plan names: materialize chip_plan and image_chips again"
        )
    needed[pairs.objects] = True
    kept = np.flatnonzero(needed)
    place = np.cumsum(needed) - 1
    ids = table["object_id"].take(kept).to_pylist()
    geometry = read_geometry(path, kept)
    return Objects(
        ids=ids,
        rows={object_id: row for row, object_id in enumerate(ids)},
        geometry=geometry,
        dimension=shapely.get_dimensions(geometry).astype(np.int64),
        layer=layers(table["tags"].combine_chunks())[kept],
        longer_side_m=longer_sides_m(table["bbox"])[kept],
        pairs=TagPairs(place[pairs.objects], pairs.tags),
    )


def visible(objects: Objects, snapshot: Snapshot, gsd_m: float, *, paper: bool = False) -> Visible:
    """What can be seen of the objects at a GSD in metres; with the paper's policy attributes and places alone too."""
    pairs = shown(objects.pairs, objects.dimension == 0, snapshot, gsd_m, lone=paper)
    names = list(zip(snapshot.keys, snapshot.values, strict=True))
    around = np.array([value in MEANING.shores.get(key, ()) for key, value in names], dtype=np.bool_)[pairs.tags]
    around &= objects.dimension[pairs.objects] == 2
    around |= np.array([key == "place" for key, _ in names], dtype=np.bool_)[pairs.tags]
    texture = np.array([value in MEANING.textures.get(key, ()) for key, value in names], dtype=np.bool_)
    plain = texture | np.array([key not in MEANING.main_keys for key, _ in names], dtype=np.bool_)
    grounds = np.zeros(len(objects.ids), dtype=np.bool_)
    grounds[pairs.objects[texture[pairs.tags]]] = True
    near = pairs.where(~around | paper)
    ground = pairs.where(plain[pairs.tags] & grounds[pairs.objects])
    owned = [_owned(kept, len(objects.ids)) for kept in (pairs, near, ground)]
    # By their tags, and not as they come: what is said of a chip is the same whatever else the region has.
    numbers = {own: number for number, own in enumerate(sorted({(), *itertools.chain.from_iterable(owned)}))}
    set_of, near_set_of, ground_set_of = (np.array([numbers[own] for own in each], dtype=np.int64) for each in owned)
    large = (objects.dimension == 0) | (objects.longer_side_m >= MIN_OVERLAP_PX * gsd_m)
    candidates = np.flatnonzero(large & (near_set_of > 0))
    return Visible(
        sets=[_joined(names[tag] for tag in own) for own in numbers],
        set_of=set_of,
        near_set_of=near_set_of,
        ground_set_of=ground_set_of,
        candidates=candidates,
        tree=shapely.STRtree(objects.geometry[candidates]),
    )


def _owned(pairs: TagPairs, n_objects: int) -> list[tuple[int, ...]]:
    """The set of tags of each object."""
    tags: list[list[int]] = [[] for _ in range(n_objects)]
    for row, tag in zip(pairs.objects.tolist(), pairs.tags.tolist(), strict=True):
        tags[row].append(tag)
    return list(map(tuple, tags))


def _joined(tags: Iterable[tuple[str, str]]) -> TagSet:
    """Tags with each key once: the values of one key become a list, as OSM writes it."""
    values: dict[str, list[str]] = {}
    for key, value in tags:
        values.setdefault(key, []).append(value)
    return tuple((key, ";".join(listed)) for key, listed in values.items())


def surroundings(over: Overlay, objects: Objects, seen: Visible, limit: int) -> list[list[Near]]:
    """What lies around each chip's focus object, the most prominent tag set first, at most `limit` sets a chip.

    A set's prominence is the share of the chip that all its objects take; sets that equal the focus object's are left
    out, and ground that is no texture. `seen` is what can be seen of the objects at the GSD of these chips.
    """
    n = len(over.sizes)
    near_sets = seen.near_set_of[over.row]
    others = np.flatnonzero((np.arange(len(near_sets)) >= n) & (near_sets != near_sets[:n][over.chip]))
    numbers, found, taken, sets = over.chip[others], over.row[others], over.taken[others], near_sets[others]
    # The largest object of each tag set around each chip, by chip and falling share.
    by_size = np.lexsort((found, -taken))
    pairs = np.column_stack([numbers, sets])[by_size]
    _, first, group = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    total = np.bincount(group.ravel(), weights=taken[by_size], minlength=len(first))
    largest = by_size[first]
    whole = over.sizes.prod(axis=1)[numbers[largest]]
    is_ground = (objects.dimension[found[largest]] == 2) & (total >= GROUND_SHARE * whole)
    said = np.where(is_ground, seen.ground_set_of[found[largest]], sets[largest])
    order = np.lexsort((sets[largest], -total, numbers[largest]))
    ranked = largest[order]
    answer: list[list[Near]] = [[] for _ in range(n)]
    columns = (numbers[ranked], found[ranked], over.box[others[ranked]], said[order])
    for number, *near in zip(*(column.tolist() for column in columns), strict=True):
        one = Near(*near)
        if one.tags and len(answer[number]) < limit:
            answer[number].append(one)
    return answer
