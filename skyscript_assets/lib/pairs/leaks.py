"""What a set of chips repeats or lets through between its splits: duplicates, objects, ground, images of benchmarks.

All is found in one plain table, whoever made it. Which of two images stays is decided here, and every chip that does
not is named with what it repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, FloatArray, HashArray, IntArray
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.thumbnails import THUMBNAIL_BYTES, Thumbnails, likeness, textures
from skyscript_assets.lib.tables import fields

LEAKS_FILE, FINGERPRINTS_FILE = "leaks.parquet", "fingerprints.parquet"

LEAK_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "kind", "chip_id", "split", "other", "other_split"),
        ("distance", pa.int8()),
        ("likeness", pa.float32()),
    ]
)
"""Columns of `leaks.parquet`, a row a chip that is dropped.

`other` is the chip that it repeats or yields to, or `NAME: item` of a benchmark. `distance` is that of the hashes in
bits, `likeness` that of the thumbnails, null where images are equal byte for byte, or were not looked at.
"""

FINGERPRINT_SCHEMA = pa.schema(
    [*fields(pa.string(), "item_id", "sha256", "phash"), ("thumbnail", pa.list_(pa.uint8(), THUMBNAIL_BYTES))]
)
"""Columns of a benchmark's `fingerprints.parquet`: what images that are measured on are known by."""

RADIUS, LIKENESS = 6, 0.9
"""Bits by which hashes of one image differ at most, and the least likeness of its thumbnails (docs/benchmarks.md)."""

SURE_RADIUS, COMMON = 4, 16
"""Where there are no thumbnails: bits, and images with an equal hash above which that hash tells nothing."""

ASKED = 65_536
"""Chips whose boxes are in memory at a time."""

MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Leaks:
    """What was found.

    Attributes:
        reasons: Why each chip may not be used, null where it may.
        report: The chips that may not, `LEAK_SCHEMA`.
        counts: `kinds`: chips by kind; `across_splits`: duplicates of chips of another split; `crowded`: chips that
            were not compared with all whose hashes are alike; `examples` by kind.
    """

    reasons: pa.Array
    report: pa.Table
    counts: dict[str, Any]


def find_leaks(
    chips: pa.Table,
    usable: BoolArray | None = None,
    benchmarks: Mapping[str, pa.Table] | None = None,
    thumbnails: Thumbnails | None = None,
) -> Leaks:
    """Find the chips that may not be used, by the first reason that holds.

    - `object of another split`: its object has a chip in a split that is more held out (test, then val).
    - `duplicate image`: a chip of a smaller id has the same bytes.
    - `near-duplicate image`: so has one that stays, nearly: hashes within `RADIUS` bits, thumbnails of `LIKENESS` or
      more. Without thumbnails `SURE_RADIUS` bits, and only hashes that at most `COMMON` images have.
    - `image of benchmark NAME`: a chip outside the test split is equal or near to an image that is measured on.

    Object and date count for nothing where images are compared: another photograph of the same ground is no duplicate,
    the same photograph from another server is.

    Args:
        chips: Columns chip_id and split; sha256 and phash (hexadecimal) may be null, object_id may be absent.
        usable: [n], chips that are looked at and may stay in place of others; default: all.
        benchmarks: Tables of `FINGERPRINT_SCHEMA` by name.
        thumbnails: Gives those of chips.

    Raises:
        CorruptInputError: a split is none of `SPLITS`; and whatever `thumbnails` raises.
    """
    search = _Search(chips, usable, thumbnails)
    if "object_id" in chips.column_names:
        search.objects()
    search.equal_images()
    search.near_images()
    search.images_of({name: table for name, table in (benchmarks or {}).items() if table.num_rows})
    return search.leaks()


class _Search:
    """One search; `left` are the chips that nothing was found of so far."""

    def __init__(self, chips: pa.Table, usable: BoolArray | None, thumbnails: Thumbnails | None) -> None:
        splits = pc.index_in(chips["split"], value_set=pa.array(SPLITS))
        if splits.null_count:
            wrong = chips["split"].filter(pc.is_null(splits))[0]
            raise CorruptInputError(f"a chip has the split {wrong}: splits are {', '.join(SPLITS)}")
        self._chips, self._thumbnails, self._splits = chips, thumbnails, splits.to_numpy()
        self._left = np.ones(chips.num_rows, dtype=np.bool_) if usable is None else usable.copy()
        self._hashes = _first_bits(chips["phash"])
        self._names: list[str] = []
        self._reasons = np.full(chips.num_rows, -1, dtype=np.int32)
        self._found = [LEAK_SCHEMA.empty_table()]
        self._crowded = 0

    def leaks(self) -> Leaks:
        """What was found."""
        codes = pa.array(self._reasons, mask=self._reasons < 0)
        reasons = pa.DictionaryArray.from_arrays(codes, pa.array(self._names, pa.string())).cast(pa.string())
        report = pa.concat_tables(self._found)
        kinds = {one["values"]: one["counts"] for one in pc.value_counts(report["kind"]).to_pylist()}
        images = pc.match_substring(report["kind"], "duplicate")
        across = report.filter(pc.and_(images, pc.not_equal(report["split"], report["other_split"])))
        examples = {kind: _told(report.filter(pc.equal(report["kind"], kind))) for kind in sorted(kinds)}
        counts = {"kinds": dict(sorted(kinds.items())), "across_splits": across.num_rows, "crowded": self._crowded}
        return Leaks(reasons, report, counts | {"examples": examples})

    def objects(self) -> None:
        """Objects whose chips are in several splits: those of the least held out ones go."""
        objects = self._chips["object_id"].combine_chunks().dictionary_encode()
        known = self._left & objects.is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(known)
        of = objects.indices.fill_null(0).to_numpy()[rows]
        most = np.zeros(len(objects.dictionary), dtype=np.int32)
        np.maximum.at(most, of, self._splits[rows])
        stays = self._splits[rows] == most[of]
        shown = np.zeros(len(most), dtype=np.int64)
        shown[of[stays][::-1]] = rows[stays][::-1]
        self._drop("object", "object of another split", rows[~stays], shown[of[~stays]])

    def equal_images(self) -> None:
        """Images that are equal byte for byte: the chip of the smallest id stays."""
        bits = _first_bits(self._chips["sha256"])
        rows = np.flatnonzero(self._left & (bits != 0))
        rows = rows[np.argsort(bits[rows], kind="stable")]
        same = bits[rows[1:]] == bits[rows[:-1]]
        rows = rows[np.append(False, same) | np.append(same, False)] if len(rows) else rows
        few = self._chips.select(["sha256", "chip_id"]).take(rows).append_column("row", pa.array(rows))
        few = few.sort_by([(name, "ascending") for name in ("sha256", "chip_id", "row")])
        digests, rows = few["sha256"].combine_chunks().dictionary_encode().indices.to_numpy(), few["row"].to_numpy()
        first = np.append(True, digests[1:] != digests[:-1])[: len(rows)]
        kept = rows[np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))]
        zeros = np.zeros(len(rows), dtype=np.int64)
        self._drop("duplicate", "duplicate image", rows[~first], kept[~first], zeros[~first])

    def near_images(self) -> None:
        """Images that are nearly equal: of each pair the chip of the smaller id stays, if it does not go itself."""
        from skyscript_assets.lib.pairs.near import keep_first, near_pairs

        rows = np.flatnonzero(self._left & (self._hashes != 0))
        pairs, crowded = near_pairs(self._hashes[rows], RADIUS)
        self._crowded = int(crowded.sum())
        pairs, like = self._alike(rows[pairs], self._hashes, self._thumbnails)
        rows, places = np.unique(pairs, return_inverse=True)
        rank = np.empty(len(rows), dtype=np.int64)
        rank[pc.sort_indices(self._chips["chip_id"].take(rows)).to_numpy()] = np.arange(len(rows))
        order = np.sort(rank[places].reshape(-1, 2), axis=1)
        kept = keep_first(order, len(rows))
        # Of each chip that goes, the pair with the one that it yields to.
        goes = np.flatnonzero(kept[order[:, 1]] == order[:, 0])
        of_rank = np.empty_like(rows)
        of_rank[rank] = rows
        gone, stays = of_rank[order[goes, 1]], of_rank[order[goes, 0]]
        distance = np.bitwise_count(self._hashes[gone] ^ self._hashes[stays])
        self._drop("near-duplicate", "near-duplicate image", gone, stays, distance, like[goes])

    def images_of(self, benchmarks: Mapping[str, pa.Table]) -> None:
        """Images of benchmarks outside the test split, by bytes or nearly; of several the first item is told."""
        from skyscript_assets.lib.pairs.near import near_pairs

        if not benchmarks:
            return
        items = pa.concat_tables([table.select(FINGERPRINT_SCHEMA.names) for table in benchmarks.values()])
        names = np.repeat(list(benchmarks), [table.num_rows for table in benchmarks.values()])
        rows = np.flatnonzero(self._left & (self._splits != SPLITS.index("test")))
        digests = self._chips["sha256"].take(rows)
        equal = pc.index_in(digests, value_set=items["sha256"].combine_chunks()).to_numpy(zero_copy_only=False)
        equal_rows = np.flatnonzero(~np.isnan(equal))
        same = np.column_stack([equal[equal_rows].astype(np.int64), rows[equal_rows]])
        # Items come first, and so are compared with the most chips where many hashes are equal.
        n, hashes = items.num_rows, np.concatenate([_first_bits(items["phash"]), self._hashes])
        both = np.concatenate([np.arange(n), rows + n])
        both = both[hashes[both] != 0]
        pairs = both[near_pairs(hashes[both], RADIUS)[0]]
        pairs = pairs[(pairs[:, 0] < n) & (pairs[:, 1] >= n)]
        of_items = items["thumbnail"].combine_chunks().flatten().to_numpy().reshape(n, -1)

        def shown(wanted: IntArray) -> NDArray[np.uint8]:
            assert self._thumbnails is not None
            own = wanted[wanted >= n] - n
            return np.concatenate([of_items[wanted[wanted < n]], self._thumbnails(own)])

        near, like = self._alike(pairs, hashes, None if self._thumbnails is None else shown)
        distance = np.append(np.zeros(len(same)), np.bitwise_count(hashes[near[:, 0]] ^ hashes[near[:, 1]]))
        like = np.append(np.full(len(same), np.nan), like)
        near = np.concatenate([same, near - [[0, n]]])
        once = np.unique(near[:, 1], return_index=True)[1]
        for name in benchmarks:
            mine = once[names[near[once, 0]] == name]
            others = [f"{name}: {item}" for item in items["item_id"].take(near[mine, 0]).to_pylist()]
            told = (distance[mine], like[mine])
            self._drop("benchmark", f"image of benchmark {name}", near[mine, 1], others, *told)

    def _alike(self, pairs: IntArray, hashes: HashArray, thumbnails: Thumbnails | None) -> tuple[IntArray, FloatArray]:
        """Those of candidate pairs whose images are nearly the same, and their likeness."""
        if thumbnails is None:
            near = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= SURE_RADIUS
            values, counts = np.unique(hashes, return_counts=True)
            common = counts[np.searchsorted(values, hashes[pairs])] > COMMON
            pairs = pairs[near & ~common.any(axis=1)]
            return pairs, np.full(len(pairs), np.nan)
        rows, places = np.unique(pairs, return_inverse=True)
        seen, places = thumbnails(rows), places.reshape(-1, 2)
        like = likeness(textures(seen), places)
        return pairs[like >= LIKENESS], like[like >= LIKENESS]

    def _drop(
        self,
        kind: str,
        reason: str,
        rows: IntArray,
        others: IntArray | list[str],
        distance: NDArray[Any] | None = None,
        like: FloatArray | None = None,
    ) -> None:
        """Note that chips may not be used, with the chips or items that are the reason."""
        self._left[rows] = False
        self._reasons[rows] = len(self._names)
        self._names.append(reason)
        of_chips = isinstance(others, np.ndarray)
        told = {
            "kind": pa.repeat(kind, len(rows)),
            "chip_id": self._chips["chip_id"].take(rows),
            "split": self._chips["split"].take(rows),
            "other": self._chips["chip_id"].take(others) if of_chips else others,
            "other_split": self._chips["split"].take(others) if of_chips else pa.repeat("test", len(rows)),
            "distance": pa.nulls(len(rows)) if distance is None else distance.astype(np.int8),
            "likeness": pa.nulls(len(rows)) if like is None else pa.array(like, pa.float32(), from_pandas=True),
        }
        self._found.append(pa.table(told).cast(LEAK_SCHEMA))


def shared_ground(chips: pa.Table) -> tuple[int, list[str]]:
    """Count the pairs of chips of different splits whose boxes overlap, whatever their source, region and date.

    Boxes that only touch share no ground. A sound plan has no such pairs.

    Args:
        chips: Columns chip_id, split and bbox (degrees): a plan, or several.

    Returns:
        Their number, and up to `MAX_EXAMPLES` of them, as `chip_id (split), chip_id (split)`.
    """
    splits = chips["split"].to_numpy(zero_copy_only=False)
    bbox = chips["bbox"].combine_chunks()
    sides = np.column_stack([bbox.field(side).to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")])
    # Chips across the antimeridian lie on both sides of the globe.
    again = np.flatnonzero(sides[:, 2] > 180.0)
    sides = np.concatenate([sides, sides[again] - np.array([360.0, 0.0, 360.0, 0.0])])
    chip = np.concatenate([np.arange(chips.num_rows), again])
    splits = splits[chip]
    held_out = np.flatnonzero(splits != "train")
    # The tree asks for envelopes alone, and a diagonal has that of its box at half the size.
    tree = shapely.STRtree(shapely.linestrings(sides[held_out].reshape(-1, 2, 2)))
    met: set[tuple[int, int]] = set()
    for start in range(0, len(sides), ASKED):
        asked = shapely.linestrings(sides[start : start + ASKED].reshape(-1, 2, 2))
        first, found = tree.query(asked)
        first, second = first + start, held_out[found]
        # A pair of two held-out chips is found from both sides; one of them counts.
        differ = (splits[first] != splits[second]) & ((splits[first] == "train") | (chip[first] < chip[second]))
        first, second = first[differ], second[differ]
        low, high = sides[first, :2] < sides[second, 2:], sides[second, :2] < sides[first, 2:]
        overlap = (low & high).all(axis=1)
        met.update(zip(chip[first[overlap]].tolist(), chip[second[overlap]].tolist(), strict=True))
    found_pairs = sorted(met)
    names = [tuple(chips["chip_id"].take([a, b]).to_pylist()) for a, b in found_pairs[:MAX_EXAMPLES]]
    examples = [
        f"{one} ({splits[a]}), {other} ({splits[b]})" for (a, b), (one, other) in zip(found_pairs, names, strict=False)
    ]
    return len(found_pairs), examples


def _first_bits(digests: pa.ChunkedArray) -> HashArray:
    """The first 16 hexadecimal digits of each as a number, [n]; 0 where there are none."""
    digits = pc.utf8_lower(pc.utf8_slice_codeunits(digests, 0, 16))
    known = pc.fill_null(pc.match_substring_regex(digits, "^[0-9a-f]{16}$"), fill_value=False)
    packed = digits.filter(known).combine_chunks().cast(pa.binary(16))
    data = np.frombuffer(packed.buffers()[1], dtype=np.uint8)[: 16 * len(packed)]
    values = np.where(data > ord("9"), data - (ord("a") - 10), data - ord("0")).astype(np.uint8)
    bits = np.zeros(len(digests), dtype=np.uint64)
    bits[known.to_numpy(zero_copy_only=False)] = (values[::2] << 4 | values[1::2]).view(">u8")
    return bits


def _told(rows: pa.Table) -> list[str]:
    """Examples, as `chip_id (split), chip_id (split)`."""
    return [
        f"{row['chip_id']} ({row['split']}), {row['other']} ({row['other_split']})"
        for row in rows.slice(0, MAX_EXAMPLES).to_pylist()
    ]
