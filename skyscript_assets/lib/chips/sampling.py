"""Nested hash sampling: which objects become chips, decided for each object alone.

A tag with n plannable objects in the sampling snapshot and quota K draws an object with probability min(1, K / n) by a
hash of seed, object id and tag. Partitions therefore need no coordination, and draws are nested: a larger n or a
smaller K only removes objects. Reading the snapshot and matching its tags to objects belong here, not where a chip
lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.geometry import metres_per_degree, unit_hash
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.normalise import normal_values

GSD_TOLERANCE = 1.05
"""How much coarser than a tag's coarsest GSD a scene may be: steps are nominal, real pixels are not quite."""

_JOIN = "\x1f"
"""Stands between key and value; no key of a snapshot holds a control character."""

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """The decisions and counts that plans and captions of one region use.

    Attributes:
        keys: Keys of the visible tags; tags are sorted by (key, value).
        values: Their values.
        coarsest_gsd_m: Metres; the tag can be seen where the GSD is at most this. Shape [tags].
        counts: GSD in metres -> plannable objects of each tag in the region at that GSD, shape [tags].
    """

    keys: tuple[str, ...]
    values: tuple[str, ...]
    coarsest_gsd_m: FloatArray
    counts: Mapping[float, IntArray]

    def visible(self, gsd_m: float) -> BoolArray:
        """Which tags can be seen at a GSD (metres on the ground), shape [tags]."""
        return self.coarsest_gsd_m * GSD_TOLERANCE >= gsd_m

    def nearest_gsd(self, gsd_m: float) -> float:
        """The GSD nearest in ratio for which the snapshot has counts, or the GSD itself where it has none at all."""
        return min(self.counts, key=lambda known: (abs(np.log(known / gsd_m)), known), default=gsd_m)

    def count_at(self, gsd_m: float) -> IntArray:
        """Plannable objects of each tag at the nearest GSD that was counted, shape [tags].

        A tag whose coarsest GSD lies just below (`GSD_TOLERANCE`) was not counted there: its largest count stands in. 0
        where the region's snapshot does not know a tag.
        """
        nearest = self.nearest_gsd(gsd_m)
        none = np.zeros(len(self.keys), dtype=np.int64)
        left_out = self.coarsest_gsd_m < nearest
        return np.where(left_out, np.max([none, *self.counts.values()], axis=0), self.counts.get(nearest, none))


@dataclass(frozen=True)
class TagPairs:
    """The snapshot's tags on objects, one entry for each (object, tag); sorted by object, then tag.

    Attributes:
        objects: Rows of the objects, shape [pairs].
        tags: Indices of the tags in the snapshot, shape [pairs].
    """

    objects: IntArray
    tags: IntArray

    def where(self, kept: BoolArray) -> TagPairs:
        """The pairs that a mask keeps."""
        return TagPairs(self.objects[kept], self.tags[kept])


def longer_sides_m(boxes: pa.ChunkedArray) -> FloatArray:
    """Longer side in metres of boxes in degrees, as the tag vocabulary measures it.

    Args:
        boxes: Column of `tables.BBOX_TYPE`.
    """
    west, south, east, north = (pc.struct_field(boxes, side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax"))
    metres = metres_per_degree(0.0)[1]
    width = (east - west) * metres * np.cos(np.radians((south + north) / 2))
    return np.asarray(np.maximum(width, (north - south) * metres))


def read_snapshot(folder: Path, region: str | None = None) -> Snapshot:
    """Read the visible tags of a `sampling_snapshot` folder, with the counts of one region or with none.

    Raises:
        UpstreamMissingError: a table is missing.
        CorruptInputError: a table is not whole.
    """
    tags = read_table(folder / "tags.parquet", columns=["key", "value", "coarsest_gsd_m"])
    tags = tags.sort_by([("key", "ascending"), ("value", "ascending")])
    keys, values = tuple(tags["key"].to_pylist()), tuple(tags["value"].to_pylist())
    index = {pair: i for i, pair in enumerate(zip(keys, values, strict=True))}
    counted = read_table(folder / "snapshot.parquet", columns=["key", "value", "region", "gsd_m", "n_plannable"])
    counted = counted.filter(pc.equal(counted["region"], region))
    counts: dict[float, IntArray] = {}
    for row in counted.to_pylist():
        at = index.get((row["key"], row["value"]))
        if at is not None:
            counts.setdefault(row["gsd_m"], np.zeros(len(keys), dtype=np.int64))[at] = row["n_plannable"]
    coarsest = np.asarray(tags["coarsest_gsd_m"].to_numpy(), dtype=np.float64)
    return Snapshot(keys, values, coarsest, dict(sorted(counts.items())))


def match_tags(tags: pa.ChunkedArray, snapshot: Snapshot) -> TagPairs:
    """Find the snapshot's tags on objects, whose values stand as they were mapped: in lists, in any spelling.

    Args:
        tags: `map<string, string>` column of the objects.
        snapshot: Its tags, of normal values (`normalise.normal_values`), are looked for.

    Returns:
        Every (object, tag) pair, each once; tags that the snapshot does not hold are left out.
    """
    column = tags.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # pyarrow keeps a column without chunks as it is
        return TagPairs(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    offsets = column.offsets.to_numpy()
    first, last = int(offsets[0]), int(offsets[-1])
    keys, values = column.keys.slice(first, last - first), column.items.slice(first, last - first)
    known = pc.is_in(keys, value_set=pa.array(sorted(set(snapshot.keys)), pa.string()))
    texts = pc.binary_join_element_wise(keys.filter(known), values.filter(known), _JOIN).dictionary_encode()
    objects = np.repeat(np.arange(len(column), dtype=np.int64), np.diff(offsets))[known.to_numpy(zero_copy_only=False)]
    # Each distinct tag is brought into its normal spelling once.
    found = _tags_of(texts.dictionary.to_pylist(), snapshot)
    number = texts.indices.to_numpy()
    sizes = np.array([len(own) for own in found], dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    listed = np.array([tag for own in found for tag in own], dtype=np.int64)
    each = sizes[number]
    place = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
    objects, matched = np.repeat(objects, each), listed[np.repeat(starts[number], each) + place]
    order = np.lexsort((matched, objects))
    return TagPairs(objects[order], matched[order])


def _tags_of(texts: Sequence[str], snapshot: Snapshot) -> list[list[int]]:
    """The snapshot's tags that each text, a key and a value as mapped, holds."""
    index = {pair: i for i, pair in enumerate(zip(snapshot.keys, snapshot.values, strict=True))}
    found = []
    for text in texts:
        key, _, value = text.partition(_JOIN)
        found.append([index[key, each] for each in normal_values(value) if (key, each) in index])
    return found


def draw(pairs: TagPairs, ids: Sequence[str], snapshot: Snapshot, counts: IntArray, quota: int, seed: int) -> BoolArray:
    """Which pairs are drawn: the tag draws the object with probability min(1, quota / n).

    Args:
        pairs: Tags on objects.
        ids: Object id of each row that `pairs.objects` points to.
        snapshot: Names the tags.
        counts: n of each tag, shape [tags]; a tag of which the snapshot counted none draws every object.
        quota: K.
        seed: Another seed is another sample.

    Returns:
        Mask over the pairs.
    """
    drawn = np.ones(len(pairs.objects), dtype=np.bool_)
    probability = quota / np.maximum(counts[pairs.tags], 1)
    for i in np.flatnonzero(probability < 1.0):
        tag = pairs.tags[i]
        drawn[i] = unit_hash(seed, ids[pairs.objects[i]], snapshot.keys[tag], snapshot.values[tag]) < probability[i]
    return drawn


def strata(pairs: TagPairs, counts: IntArray, n_objects: int) -> IntArray:
    """The rarest tag of each object: least n, ties in the order of (key, value).

    Args:
        pairs: Visible tags on objects.
        counts: n of each tag, shape [tags].
        n_objects: Rows of the objects.

    Returns:
        Index of the tag for each object, -1 where it has none; shape [n_objects].
    """
    rarest = np.full(n_objects, -1, dtype=np.int64)
    order = np.lexsort((pairs.tags, counts[pairs.tags], pairs.objects))
    objects, first = np.unique(pairs.objects[order], return_index=True)
    rarest[objects] = pairs.tags[order][first]
    return rarest
