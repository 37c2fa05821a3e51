"""Nested hash sampling: which objects become chips, decided for each object alone.

A tag with n plannable objects in the sampling snapshot and quota K draws an object with probability min(1, K / n) by a
hash of seed, object id and tag. Partitions therefore need no coordination, and draws are nested: a larger n or a
smaller K only removes objects. The paper's way is the other choice: all objects of random squares, then all that carry
a rare tag. Reading the snapshot and matching its tags to objects belong here, not where a chip lies.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.geometry import hash_bits, metres_per_degree
from skyscript_assets.lib.osm.meaning import MEANING, Need
from skyscript_assets.lib.osm.sight import entries
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.snapshot import GENERAL, GENERAL_KEYS, NODE_VIEW_PX, is_general
from skyscript_assets.lib.tags.vocabulary import limits_px

COARSEST_GSD_FACTOR = 1.05
"""Factor by which coarser than a tag's coarsest GSD a scene may be: steps are nominal, real pixels are not quite."""

SQUARE_DEG = 0.01
"""Side in degrees of the squares that `sampling: squares` draws (SkyScript, AAAI 2024)."""

ID_LETTERS = "nwar"
"""First letters of object ids: node, line of a way, area of a way, area of a relation."""

_THING_KEYS = sorted(MEANING.main_keys | MEANING.other_keys)
NEEDS = (*MEANING.needs, Need(attributes=f"(?!({'|'.join(_THING_KEYS)})$)", things=_THING_KEYS))
"""Attributes and the keys of their things, those that have no rule last: any thing will do."""

_JOIN = "\x1f"
"""Stands between key and value; no key of a snapshot holds a control character."""


def object_codes(ids: pa.ChunkedArray) -> HashArray:
    """A whole number for each object id, a letter of `ID_LETTERS` and OSM's number, that no other id has.

    Raises:
        ValueError: an id is of another form; the message names it.
    """
    letters = pc.index_in(pc.utf8_slice_codeunits(ids, 0, 1), value_set=pa.array(list(ID_LETTERS)))
    good = pc.and_(
        pc.is_valid(letters), pc.fill_null(pc.match_substring_regex(ids, "^.-?[0-9]{1,18}$"), fill_value=False)
    )
    if not pc.all(good, min_count=0).as_py():
        odd = ids.filter(pc.invert(good))[0].as_py()
        raise ValueError(f"object id {str(odd)[:60]!r} is no letter of {ID_LETTERS!r} and a number")
    numbers = pc.utf8_slice_codeunits(ids, 1).cast(pa.int64()).to_numpy().astype(np.uint64)
    return np.asarray((numbers << np.uint64(2)) | letters.to_numpy().astype(np.uint64))


def unit_hashes(codes: HashArray, *what: object) -> FloatArray:
    """Numbers in [0, 1) that depend on each code and `what` alone: `geometry.unit_hash` for millions of objects."""
    return _to_unit(codes, np.uint64(hash_bits(*what)))


def _to_unit(codes: HashArray, keys: HashArray | np.uint64) -> FloatArray:
    return (_mixed(_mixed(codes) ^ keys) >> np.uint64(11)) / float(1 << 53)


def _mixed(values: HashArray) -> HashArray:
    """The output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class Snapshot:
    """The decisions and counts that plans and captions of one region use.

    Attributes:
        keys: Keys of the visible tags; tags are sorted by (key, value).
        values: Their values.
        coarsest_gsd_m: Metres; the tag can be seen where the GSD is at most this. Shape [tags].
        counts: GSD in metres -> plannable objects of each tag in the region at that GSD, shape [tags].
        gsds: The GSDs that were counted in any region, metres, rising.
        area_side_m: Metres, the typical longer side of the tag's areas, 0 where none is known; shape [tags].
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    coarsest_gsd_m: FloatArray
    counts: Mapping[float, IntArray]
    gsds: tuple[float, ...]
    area_side_m: FloatArray

    def visible(self, gsd_m: float) -> BoolArray:
        """Which tags can be seen at a GSD (metres on the ground), shape [tags]."""
        return self.coarsest_gsd_m * COARSEST_GSD_FACTOR >= gsd_m

    def edges(self) -> FloatArray:
        """The GSDs, rising, between which neither `visible` nor `nearest_gsd` changes: above one, both may."""
        known = np.array(sorted(self.counts), dtype=np.float64)
        return np.unique(np.concatenate([self.coarsest_gsd_m * COARSEST_GSD_FACTOR, np.sqrt(known[1:] * known[:-1])]))

    def nearest_gsd(self, gsd_m: float) -> float:
        """The GSD nearest in ratio for which the snapshot has counts, or the GSD itself where it has none at all."""
        return min(self.counts, key=lambda known: (abs(np.log(known / gsd_m)), known), default=gsd_m)

    def count_at(self, gsd_m: float) -> IntArray:
        """Plannable objects of each tag at the nearest GSD that was counted, shape [tags].

        A tag whose coarsest GSD lies just below (`COARSEST_GSD_FACTOR`) was not counted there: its largest count stands
        in. 0 where the region's snapshot does not know a tag.
        """
        nearest = self.nearest_gsd(gsd_m)
        none = np.zeros(len(self.keys), dtype=np.int64)
        left_out = self.coarsest_gsd_m < nearest
        return np.where(left_out, np.max([none, *self.counts.values()], axis=0), self.counts.get(nearest, none))


@dataclass(frozen=True)
class TagPairs:
    """The snapshot's tags on objects: rows of the objects and indices of the tags, sorted by both; each [pairs]."""

    objects: IntArray
    tags: IntArray

    def where(self, kept: BoolArray) -> Self:
        """The pairs that a mask keeps."""
        return type(self)(self.objects[kept], self.tags[kept])


@dataclass(frozen=True)
class Drawn:
    """What is drawn between two GSDs, between which the snapshot says the same; `gsd_m` is one of them, metres.

    `pairs` are visible tags on objects of a size that makes a chip, chosen by the hash.
    """

    gsd_m: float
    pairs: TagPairs


def longer_sides_m(boxes: pa.ChunkedArray) -> FloatArray:
    """Longer side in metres of boxes in degrees, a column of `tables.BBOX_TYPE`, as the tag vocabulary measures it."""
    west, south, east, north = (pc.struct_field(boxes, side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax"))
    metres = metres_per_degree(0.0)[1]
    width = (east - west) * metres * np.cos(np.radians((south + north) / 2))
    return np.asarray(np.maximum(width, (north - south) * metres))


def read_snapshot(folder: Path, region: str | None = None) -> Snapshot:
    """Read the visible tags of a `sampling_snapshot` folder, or of a release; with the counts of a region, if given.

    Raises:
        UpstreamMissingError: a table is missing.
        CorruptInputError: a table is not whole.
    """
    tags = read_table(folder / "tags.parquet")  # one that was frozen earlier may have no sizes
    tags = tags.sort_by([("key", "ascending"), ("value", "ascending")])
    keys, values = tuple(tags["key"].to_pylist()), tuple(tags["value"].to_pylist())
    index = {pair: i for i, pair in enumerate(zip(keys, values, strict=True))}
    counts: dict[float, IntArray] = {}
    gsds: tuple[float, ...] = ()
    if region is not None:
        counted = read_table(folder / "snapshot.parquet", columns=["key", "value", "region", "gsd_m", "n_plannable"])
        gsds = tuple(sorted(pc.unique(counted["gsd_m"]).to_pylist()))
        for row in counted.filter(pc.equal(counted["region"], region)).to_pylist():
            at = index.get((row["key"], row["value"]))
            if at is not None:
                counts.setdefault(row["gsd_m"], np.zeros(len(keys), dtype=np.int64))[at] = row["n_plannable"]
    coarsest = np.asarray(tags["coarsest_gsd_m"].to_numpy(), dtype=np.float64)
    sized = "area_side_m" in tags.column_names
    sides = pc.fill_null(tags["area_side_m"], 0.0).to_numpy() if sized else np.zeros(len(keys))
    return Snapshot(keys, values, coarsest, dict(sorted(counts.items())), gsds, sides)


def shown(pairs: TagPairs, is_node: BoolArray, snapshot: Snapshot, gsd_m: float, *, lone: bool = False) -> TagPairs:
    """The tags of objects that can be seen at a GSD in metres.

    A node has the tags whose things fit its view (`NODE_VIEW_PX`). An attribute needs its thing (`NEEDS`), unless it
    may be `lone`, and `yes` stands where no other value of its key can be told. `is_node` is by the rows in `pairs`.
    """
    large = snapshot.area_side_m > NODE_VIEW_PX * gsd_m
    pairs = pairs.where(snapshot.visible(gsd_m)[pairs.tags] & ~(is_node[pairs.objects] & large[pairs.tags]))
    kept = np.ones(len(pairs.tags), dtype=np.bool_)

    def carriers(tags: BoolArray) -> BoolArray:
        """Which pairs are of an object that carries one of these tags."""
        mask = np.zeros(len(is_node), dtype=np.bool_)
        mask[pairs.objects[tags[pairs.tags]]] = True
        return mask[pairs.objects]

    for need in () if lone else NEEDS:
        pattern = re.compile(need.attributes)
        of = np.array([pattern.match(key) is not None for key in snapshot.keys], dtype=np.bool_)
        kept &= ~of[pairs.tags] | carriers(np.isin(snapshot.keys, need.things))
    general = np.array([value == GENERAL for value in snapshot.values], dtype=np.bool_)
    for key in GENERAL_KEYS:
        of = np.array([known == key for known in snapshot.keys], dtype=np.bool_)
        kept &= ~(of & general)[pairs.tags] | ~carriers(of & ~general)
    return pairs.where(kept)


def match_tags(tags: pa.ChunkedArray, snapshot: Snapshot) -> TagPairs:
    """Find the snapshot's tags on objects, whose values stand as they were mapped: in lists, in any spelling.

    Every (object, tag) pair comes once; tags that the snapshot does not hold are left out. Values of `GENERAL_KEYS`
    have `yes` beside them. `tags` is a `map<string, string>` column; the snapshot's values are normal ones
    (`normalise.normal_values`).
    """
    column = tags.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # pyarrow keeps a column without chunks as it is
        return TagPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    keys, values, owner = entries(column)
    known = pc.is_in(keys, value_set=pa.array(sorted(set(snapshot.keys)), pa.string()))
    texts = pc.binary_join_element_wise(keys.filter(known), values.filter(known), _JOIN).dictionary_encode()
    objects = owner[known.to_numpy(zero_copy_only=False)]
    # Each distinct tag is brought into its normal spelling once.
    index = {pair: i for i, pair in enumerate(zip(snapshot.keys, snapshot.values, strict=True))}
    tags_of = []
    for text in texts.dictionary.to_pylist():
        key, _, value = text.partition(_JOIN)
        listed = {(key, each) for each in normal_values(value)}
        listed |= {(key, GENERAL) for _, each in listed if is_general(key, each)}
        tags_of.append([index[tag] for tag in listed if tag in index])
    found = pa.array(tags_of, pa.list_(pa.int64())).take(texts.indices)
    objects, matched = np.repeat(objects, found.value_lengths().to_numpy()), found.flatten().to_numpy()
    order = np.lexsort((matched, objects))
    return TagPairs(objects[order], matched[order])


def told(pairs: TagPairs, objects: pa.Table, snapshot: Snapshot) -> TagPairs:
    """A snapshot's tags on objects (`object_id`, `tags`, `bbox`) without those that by `untold` are not told there."""
    if not len(pairs.tags):
        return pairs
    keys, values, owner = entries(objects["tags"].combine_chunks())
    letters, sides_m = pc.utf8_slice_codeunits(objects["object_id"], 0, 1), longer_sides_m(objects["bbox"])
    tags = [f"{key}={value}" for key, value in zip(snapshot.keys, snapshot.values, strict=True)]
    for rule in MEANING.untold:
        on = pc.is_in(letters, value_set=pa.array(list(rule.kinds))).to_numpy() & (sides_m < rule.below_m)
        if rule.key:
            of_key = np.flatnonzero(pc.equal(keys, rule.key).to_numpy(zero_copy_only=False))
            found = [re.search(rule.value, value) is not None for value in values.take(of_key).to_pylist()]
            on &= np.isin(np.arange(len(on)), owner[of_key[np.array(found, dtype=np.bool_)]])
        lost = np.array([re.match(rule.tags, tag) is not None for tag in tags], dtype=np.bool_)
        pairs = pairs.where(~(lost[pairs.tags] & on[pairs.objects]))
    return pairs


def suits(
    kinds: npt.NDArray[np.str_],
    longer_side_m: FloatArray,
    finest_m: FloatArray,
    coarsest_m: FloatArray,
    plan: PlanSettings,
) -> BoolArray:
    """Whether objects have a size that suits a chip at a GSD between two, as `vocabulary.limits_px` has it for one.

    Of each there is the kind (node, line or area) and the longer side of its box in metres, [n]; GSDs are [n] or one.
    """
    suited = np.zeros(len(kinds), dtype=np.bool_)
    for kind in ("node", "line", "area"):
        least, most = limits_px(kind, plan)
        suited |= (kinds == kind) & (longer_side_m >= least * finest_m) & (longer_side_m <= most * coarsest_m)
    return suited


def probabilities(counts: IntArray, plan: PlanSettings) -> FloatArray:
    """How probably each tag draws one of its n objects: min(1, quota / n), surely where it is rare; shape [tags].

    With `sampling: squares` it is the share of squares, which draw whole objects, for all tags that are not rare.
    """
    likely = plan.quota / np.maximum(counts, 1) if plan.sampling == "quota" else np.full(len(counts), plan.square_share)
    rare = counts < (plan.quota if plan.rare_below is None else plan.rare_below)
    return np.where(rare, 1.0, np.minimum(1.0, likely))


def draw(
    pairs: TagPairs, codes: HashArray, places: FloatArray, snapshot: Snapshot, counts: IntArray, plan: PlanSettings
) -> BoolArray:
    """Which pairs are drawn, by `plan.sampling`, as a mask.

    Hash `codes`, [n], and `places`, [n, 2] longitude and latitude in degrees, are of the rows that `pairs.objects`
    points to. A tag of which the snapshot counted none, in `counts` of shape [tags], draws every object.
    """
    probability = probabilities(counts, plan)
    if plan.sampling == "squares":
        x, y = (np.floor(places[:, axis] / SQUARE_DEG).astype(np.int64) + (1 << 20) for axis in (0, 1))
        square = ((x << 22) | y).astype(np.uint64)
        return (unit_hashes(square, plan.seed, "square") < plan.square_share)[pairs.objects] | (
            probability[pairs.tags] >= 1.0
        )
    drawn = np.ones(len(pairs.objects), dtype=np.bool_)
    some = np.flatnonzero(probability[pairs.tags] < 1.0)
    tags = zip(snapshot.keys, snapshot.values, strict=True)
    keys = np.array([hash_bits(plan.seed, key, value) for key, value in tags], np.uint64)
    of = pairs.tags[some]
    drawn[some] = _to_unit(codes[pairs.objects[some]], keys[of]) < probability[of]
    return drawn


def strata(pairs: TagPairs, counts: IntArray, n_objects: int) -> IntArray:
    """The rarest of the visible tags of each object, -1 where it has none; shape [n_objects].

    Rare is what has the least n in `counts`, shape [tags]; ties go in the order of (key, value).
    """
    rarest = np.full(n_objects, -1, dtype=np.int64)
    order = np.lexsort((pairs.tags, counts[pairs.tags], pairs.objects))
    objects, first = np.unique(pairs.objects[order], return_index=True)
    rarest[objects] = pairs.tags[order][first]
    return rarest
