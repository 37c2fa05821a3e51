"""What a set of chips repeats or lets through between its splits: duplicates, objects, ground, images of benchmarks.

All is found in one plain table, whoever made it. Which of two images stays is decided here, and every chip that does
not is named with what it repeats.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
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
    """What was found: `reasons` why each chip may not be used, null where it may, and a `report` of those that may not.

    `counts` has `kinds`: chips by kind; `across_splits`: duplicates of chips of another split; `crowded`: chips that
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

    - `object of another split`: its object has a chip in a split that is more held out (test, then val). - `duplicate
    image`: a chip of a smaller id has the same bytes. - `near-duplicate image`: so has one that stays, nearly: hashes
    within `RADIUS` bits, thumbnails of `LIKENESS` or more. Without thumbnails `SURE_RADIUS` bits, and only hashes that
    at most `COMMON` images have. - `image of benchmark NAME`: a chip outside the test split is equal or near to an
    image that is measured on.

    Object and date count for nothing where images are compared: another photograph of the same ground is no duplicate,
    the same photograph from another server is.

    Of `chips`, with the columns chip_id and split, sha256 and phash (hexadecimal) may be null, object_id may be absent;
    only those that are `usable` are looked at and stay in place of others. `benchmarks` are tables of
    `FINGERPRINT_SCHEMA` by name.

    Raises:
        CorruptInputError: a split is none of `SPLITS`; and whatever `thumbnails` raises.
    """
    search = _Search(chips, usable, thumbnails)
    if "object_id" in chips.column_names:
        search.objects()
    search.equal_images()
    search.near_images({name: table for name, table in (benchmarks or {}).items() if table.num_rows})
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
        self._by_id = pc.sort_indices(chips["chip_id"]).to_numpy().astype(np.int64)
        self._rank = np.argsort(self._by_id)
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
        digests = self._chips["sha256"].take(rows).combine_chunks().dictionary_encode().indices.to_numpy()
        order = np.lexsort((self._rank[rows], digests))
        rows, digests = rows[order], digests[order]
        first = np.append(True, digests[1:] != digests[:-1])[: len(rows)]
        kept = rows[np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))]
        zeros = np.zeros(len(rows), dtype=np.int64)
        self._drop("duplicate", "duplicate image", rows[~first], kept[~first], zeros[~first])

    def near_images(self, benchmarks: Mapping[str, pa.Table]) -> None:
        """Images that are nearly equal to each other, and then those that are nearly or wholly equal to benchmarks'."""
        from skyscript_assets.lib.pairs.near import near_pairs

        tables = [table.select(FINGERPRINT_SCHEMA.names) for table in benchmarks.values()]
        items = pa.concat_tables([FINGERPRINT_SCHEMA.empty_table(), *tables])
        # Items come first, and so are compared with the most chips where many hashes are equal.
        n, hashes = items.num_rows, np.append(_first_bits(items["phash"]), _first_bits(self._chips["phash"]))
        rows = np.append(np.arange(n), np.flatnonzero(self._left) + n)
        rows = rows[hashes[rows] != 0]
        pairs, crowded = near_pairs(hashes[rows], RADIUS)
        self._crowded = int(crowded[rows >= n].sum())
        pairs = rows[pairs]
        pairs, like = self._alike(pairs[pairs[:, 1] >= n], hashes, items)
        distance = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
        measured = pairs[:, 0] < n
        self._near_each_other(pairs[~measured] - n, distance[~measured], like[~measured])
        names = np.repeat(np.array([*benchmarks], dtype=np.object_), [table.num_rows for table in tables])
        self._of_benchmarks(names, items, pairs[measured] - [[0, n]], distance[measured], like[measured])

    def _near_each_other(self, pairs: IntArray, distance: NDArray[Any], like: FloatArray) -> None:
        """Of each pair the chip of the smaller id stays, if it does not go itself."""
        from skyscript_assets.lib.pairs.near import keep_first

        order = np.sort(self._rank[pairs], axis=1)
        # Of each chip that goes, the pair with the one that it yields to.
        goes = keep_first(order, len(self._rank))[order[:, 1]] == order[:, 0]
        stay, gone = self._by_id[order[goes].T]
        self._drop("near-duplicate", "near-duplicate image", gone, stay, distance[goes], like[goes])

    def _of_benchmarks(
        self, names: NDArray[Any], items: pa.Table, near: IntArray, distance: NDArray[Any], like: FloatArray
    ) -> None:
        """Images of benchmarks outside the test split; of several items the first one is told."""
        equal = pc.fill_null(pc.index_in(self._chips["sha256"], items["sha256"].combine_chunks()), -1).to_numpy()
        same = np.flatnonzero(equal >= 0)
        item, chip = np.append(equal[same], near[:, 0]), np.append(same, near[:, 1])
        distance, like = np.append(np.zeros(len(same)), distance), np.append(np.full(len(same), np.nan), like)
        looked = self._left & (self._splits != SPLITS.index("test"))
        once = np.unique(chip, return_index=True)[1]
        once = once[looked[chip[once]]]
        for name in dict.fromkeys(names):
            mine = once[names[item[once]] == name]
            others = [f"{name}: {one}" for one in items["item_id"].take(item[mine]).to_pylist()]
            self._drop("benchmark", f"image of benchmark {name}", chip[mine], others, distance[mine], like[mine])

    def _alike(self, pairs: IntArray, hashes: HashArray, items: pa.Table) -> tuple[IntArray, FloatArray]:
        """Those of candidate pairs, of items and then chips, whose images are nearly the same, and their likeness."""
        if self._thumbnails is None:
            near = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]) <= SURE_RADIUS
            values, counts = np.unique(hashes, return_counts=True)
            common = counts[np.searchsorted(values, hashes[pairs])] > COMMON
            pairs = pairs[near & ~common.any(axis=1)]
            return pairs, np.full(len(pairs), np.nan)
        rows, places = np.unique(pairs, return_inverse=True)
        of_items = items["thumbnail"].combine_chunks().flatten().to_numpy().reshape(-1, THUMBNAIL_BYTES)
        own = np.searchsorted(rows, items.num_rows)
        seen = np.concatenate([of_items[rows[:own]], self._thumbnails(rows[own:] - items.num_rows)])
        like = likeness(textures(seen), places.reshape(-1, 2))
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

    Boxes that only touch share no ground. A sound plan has no such pairs. `chips` has the columns chip_id, split and
    bbox (degrees). Returns their number, and up to `MAX_EXAMPLES` of them, as `chip_id (split), chip_id (split)`.
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
    table = pa.table({"digits": digests.cast(pa.string())})
    query = "SELECT coalesce(try_cast('0x' || left(digits, 16) AS UBIGINT), 0) AS bits FROM table_"
    with duckdb.connect() as db:
        bits: HashArray = db.register("table_", table).sql(query).to_arrow_table()["bits"].to_numpy()
    return bits


def _told(rows: pa.Table) -> list[str]:
    """Examples, as `chip_id (split), chip_id (split)`."""
    return [
        f"{row['chip_id']} ({row['split']}), {row['other']} ({row['other_split']})"
        for row in rows.slice(0, MAX_EXAMPLES).to_pylist()
    ]
