"""The counting of tags over tables of objects, by DuckDB, in bounded memory.

Tags are numbered by a hash of key and value, so that a string is touched twice: when it is hashed and when the distinct
tags are collected. Those are brought into their normal spelling, each once; the rest is done with numbers. What the
results are for belongs to `vocabulary`.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyscript_assets.lib.geometry import metres_per_degree
from skyscript_assets.lib.osm.sight import SIGHT_SCHEMA, out_of_sight
from skyscript_assets.lib.tags.normalise import MAX_LENGTH, NORMAL_ALREADY, normal_values
from skyscript_assets.lib.tags.text import class_mask

MAX_TAGS = 32
"""Tags of one object whose cooccurrence counts, the first by key and value."""

MIN_OBJECTS = 3
"""Tags on fewer objects have no cooccurrence told."""

MAX_OTHERS = 8
"""Others named for a tag."""

MIN_SHARE = 0.05
"""Least share of a tag's objects that carry another."""

KINDS: tuple[str, ...] = ("area", "line", "node")
"""Kinds of objects: the first letter of an object id is a or r, w, n."""

_REGION_BITS = 40
"""An object's number is its region's, shifted, and its row in the region's table."""

# Where an object lies in two regions the first by name counts it. Only the ids that occur twice are kept for that.
_SHARED = """
    CREATE TABLE shared AS
    SELECT object_id, min(region) AS region
    FROM (SELECT DISTINCT object_id, region FROM objects)
    GROUP BY object_id HAVING count(*) > 1
"""
_NONE_SHARED = "CREATE TABLE shared (object_id VARCHAR, region INTEGER)"
_NOT_ELSEWHERE = "ANTI JOIN shared ON objects.object_id = shared.object_id AND objects.region <> shared.region"

_OBJECTS = "SELECT objects.region, count(*) FROM objects {not_elsewhere} GROUP BY ALL"

# Region and kind are one number.
_OWNED = """
    CREATE VIEW owned AS
    SELECT object, tags, region_kind, region_kind % {kinds} AS kind, greatest(width_m, height_m) AS longer_side_m,
        least(width_m, height_m) AS shorter_side_m
    FROM (
        SELECT tags, object,
            region * {kinds} + CASE left(objects.object_id, 1) WHEN 'n' THEN 2 WHEN 'w' THEN 1 ELSE 0 END
                AS region_kind,
            (bbox.xmax - bbox.xmin) * {metres} * cos(radians((bbox.ymin + bbox.ymax) / 2)) AS width_m,
            (bbox.ymax - bbox.ymin) * {metres} AS height_m
        FROM objects {not_elsewhere}
    )
"""

TAG_HASH = "hash({key}, {value}, {salt})"
"""Number of a tag as it stands; another salt is tried where two tags get the same."""

# Bit i of `able`: the object is plannable at GSD i. Sides are in decimetres.
_TAGGED = """
    CREATE TABLE tagged AS
    SELECT object, region_kind, able, longer_side_m, shorter_side_m, {tag_hash} AS number
    FROM (
        SELECT object, region_kind, {able} AS able, unnest(map_entries(tags)) AS entry,
            CASE WHEN kind <> 2 THEN floor(longer_side_m * 10 + 0.5)::INTEGER END AS longer_side_m,
            CASE WHEN kind <> 2 THEN floor(shorter_side_m * 10 + 0.5)::INTEGER END AS shorter_side_m
        FROM owned
    )
"""
_DISTINCT = """
    CREATE TABLE distinct_tags AS
    SELECT DISTINCT entry.key AS key, entry.value AS value
    FROM (SELECT unnest(map_entries(tags)) AS entry FROM objects)
"""
_NUMBERED = "CREATE OR REPLACE TABLE numbered AS SELECT key, value, {tag_hash} AS number FROM distinct_tags"

_COUNT = "CREATE TABLE counted AS SELECT number, region_kind, able, count(*) AS n FROM tagged GROUP BY ALL"

_ODD_VALUES = """
    SELECT DISTINCT value FROM distinct_tags
    WHERE strlen(value) > $longest OR NOT regexp_matches(value, $normal_already)
"""

# A value that is normal already, or each of the values that a rewritten one lists.
_NORMAL_COUNTS = """
    SELECT dense_rank() OVER (ORDER BY key, value) - 1 AS tag, *
    FROM (
        SELECT key, coalesce(normal, value) AS value, region_kind, {sums}
        FROM counted JOIN numbered USING (number) LEFT JOIN rewritten ON value = raw
        WHERE raw IS NULL OR normal IS NOT NULL
        GROUP BY ALL
    )
    ORDER BY key, value, region_kind
"""

# From the number of a tag as it stands, region and kind to the rows of the counts it adds to.
_PLACES_OF_NUMBER = """
    CREATE TABLE places_of_number AS
    SELECT number, places.region_kind, places.place, places.tag
    FROM numbered LEFT JOIN rewritten ON numbered.value = rewritten.raw
    JOIN class_tags ON numbered.key = class_tags.key AND coalesce(normal, numbered.value) = class_tags.value
    JOIN places ON places.tag = class_tags.tag
"""

_OCCURRENCES = """
    CREATE TABLE occurrences AS
    SELECT object, tag, place, longer_side_m, shorter_side_m
    FROM tagged JOIN places_of_number USING (number, region_kind)
"""

# The lower median from a histogram of decimetres: DuckDB's own medians keep every value in memory.
_MEDIANS = """
    WITH histogram AS (
        SELECT place, {side} AS side, count(*) AS n FROM occurrences WHERE {side} IS NOT NULL GROUP BY ALL
    ),
    running AS (
        SELECT place, side,
            sum(n) OVER (PARTITION BY place ORDER BY side ROWS UNBOUNDED PRECEDING) AS up_to
        FROM histogram
    )
    SELECT place, min(side) / 10 AS side
    FROM running JOIN places USING (place)
    WHERE 2 * up_to >= n
    GROUP BY place
"""

# Objects of equal sets of tags are counted together; sets are told apart by 128 bits of hashes, of bounded memory.
_COOCCURRENCES = """
    WITH single AS (
        SELECT object, bit_xor(hash(tag)) AS one_half, bit_xor(hash(-1 - tag)) AS other_half
        FROM occurrences GROUP BY object HAVING count(*) > 1
    ),
    sets AS (SELECT min(object) AS object, count(*) AS n FROM single GROUP BY one_half, other_half),
    members AS (
        SELECT object, n, tag FROM sets JOIN occurrences USING (object)
        QUALIFY row_number() OVER (PARTITION BY object ORDER BY tag) <= {max_tags}
    ),
    pairs AS (
        SELECT one.tag, other.tag AS other, sum(one.n)::BIGINT AS n
        FROM members AS one
        JOIN class_tags ON class_tags.tag = one.tag AND class_tags.n >= {min_objects}
        JOIN members AS other ON one.object = other.object AND one.tag <> other.tag
        GROUP BY ALL
    ),
    frequent AS (
        SELECT pairs.tag, other, pairs.n, pairs.n / class_tags.n AS share
        FROM pairs JOIN class_tags USING (tag)
        WHERE pairs.n / class_tags.n >= {min_share}
        QUALIFY row_number() OVER (PARTITION BY pairs.tag ORDER BY pairs.n DESC, other) <= {max_others}
    )
    SELECT one.key, one.value, others.key AS other_key, others.value AS other_value, round(share, 4) AS share
    FROM frequent JOIN class_tags AS one ON one.tag = frequent.tag JOIN class_tags AS others ON others.tag = other
    ORDER BY frequent.tag, frequent.n DESC, other
"""


@dataclass(frozen=True)
class DistinctTags:
    """The distinct tags of a table of counts.

    Attributes:
        keys: Their keys; tags are sorted by key and value.
        values: Their normal values.
        classes: Which of them are no text, shape [tags].
        n: Objects of each in all regions and of all kinds, shape [tags].
        of_row: The tag of each row of the table, shape [rows].
    """

    keys: pa.Array
    values: pa.Array
    classes: NDArray[np.bool_]
    n: NDArray[np.int64]
    of_row: NDArray[np.int64]

    @classmethod
    def of(cls, counts: pa.Table) -> Self:
        """The tags of `TagCounter.counts`."""
        of_row = counts["tag"].to_numpy()
        rows = np.flatnonzero(np.diff(of_row, prepend=-1))
        keys, values = (counts[name].combine_chunks().take(rows) for name in ("key", "value"))
        n = np.zeros(len(rows), np.int64)
        np.add.at(n, of_row, counts["n"].to_numpy())
        return cls(keys, values, class_mask(keys, values).to_numpy(zero_copy_only=False), n, of_row)


class TagCounter:
    """Tables of objects opened for counting: `counts` first, then `sizes`, then `cooccurrences`.

    All methods raise `duckdb.Error` where a table cannot be read.
    """

    def __init__(self, db: duckdb.DuckDBPyConnection, objects: Mapping[str, Path]) -> None:
        """Open `objects.parquet` of each region in an empty database."""
        self._db = db
        self._regions = sorted(objects)
        # Regions are numbered in the order of their names. What cannot be seen is not counted.
        relation = db.from_arrow(SIGHT_SCHEMA.empty_table()).project("*, 0 AS region, 0::BIGINT AS object")
        unseen = [np.flatnonzero(out_of_sight(objects[region])) for region in self._regions]
        numbers = [rows + (i << _REGION_BITS) for i, rows in enumerate(unseen)]
        self._store("unseen", {"object": pa.array(np.concatenate([np.zeros(0, np.int64), *numbers]))})
        for i, region in enumerate(self._regions):
            rows = db.read_parquet(str(objects[region]), file_row_number=True)
            number = f"{i << _REGION_BITS} + file_row_number"
            relation = relation.union(rows.project(f"object_id, tags, bbox, {i} AS region, {number} AS object"))
        relation.create_view("every_object")
        db.execute("CREATE VIEW objects AS SELECT * FROM every_object ANTI JOIN unseen USING (object)")
        db.execute(_SHARED if len(objects) > 1 else _NONE_SHARED)
        self._not_elsewhere = _NOT_ELSEWHERE if len(objects) > 1 else ""
        metres = repr(metres_per_degree(0.0)[1])
        db.execute(_OWNED.format(kinds=len(KINDS), metres=metres, not_elsewhere=self._not_elsewhere))
        self._region_kinds = np.zeros(0, np.int64)

    def counts(self, limits_m: Sequence[Sequence[tuple[float, float]]]) -> pa.Table:
        """Objects of each normal tag.

        `limits_m` are for each GSD the least and the greatest longer side in metres of a plannable object, by kind in
        the order of `KINDS`. Columns are tag (numbers key and value), key, value, region, kind, n, n_plannable and, for
        GSD i, its plannable objects `p<i>`; sorted.
        """
        bits = [f"CASE WHEN {_able_sql(limits)} THEN {1 << i} ELSE 0 END" for i, limits in enumerate(limits_m)]
        self._number(" + ".join(bits) or "0")
        self._db.execute(_COUNT)
        known = {"longest": MAX_LENGTH, "normal_already": NORMAL_ALREADY}
        self._rewrite([value for (value,) in self._db.execute(_ODD_VALUES, known).fetchall()])
        wanted = {"n": "true", "n_plannable": "able > 0"}
        wanted |= {f"p{i}": f"able & {1 << i} > 0" for i in range(len(limits_m))}
        sums = [f"coalesce(sum(n) FILTER ({which}), 0)::BIGINT AS {name}" for name, which in wanted.items()]
        table = self._db.sql(_NORMAL_COUNTS.format(sums=", ".join(sums))).to_arrow_table()
        self._region_kinds = table["region_kind"].to_numpy()
        regions = pa.array(self._regions, pa.string()).take(pa.array(self._region_kinds // len(KINDS)))
        kinds = pa.array(KINDS).take(pa.array(self._region_kinds % len(KINDS)))
        return table.drop_columns("region_kind").append_column("region", regions).append_column("kind", kinds)

    def _number(self, able: str) -> None:
        """Number the tags of every object."""
        self._db.execute(_DISTINCT)
        for salt in itertools.count():
            self._db.execute(_NUMBERED.format(tag_hash=TAG_HASH.format(key="key", value="value", salt=salt)))
            if self._db.execute("SELECT count(*) = count(DISTINCT number) FROM numbered").fetchall() == [(True,)]:
                break
        tag_hash = TAG_HASH.format(key="entry.key", value="entry.value", salt=salt)
        self._db.execute(_TAGGED.format(able=able, tag_hash=tag_hash))

    def _rewrite(self, values: Sequence[str]) -> None:
        """Keep what the values that are not in their normal spelling list; null where nothing is left of one."""
        normal = [(raw, each) for raw in values for each in normal_values(raw) or (None,) if raw != each]
        raws, listed = zip(*normal, strict=True) if normal else ((), ())
        self._store("rewritten", {"raw": pa.array(raws, pa.string()), "normal": pa.array(listed, pa.string())})

    def _store(self, name: str, columns: Mapping[str, pa.Array]) -> None:
        self._db.from_arrow(pa.table(columns)).create(name)

    def sizes(self, tags: DistinctTags, n: NDArray[np.int64]) -> dict[str, pa.Array]:
        """Median sides of the boxes behind each row of `counts`, with its tags and its column n.

        Columns are longer_side_m and shorter_side_m, null for nodes and for tags that are text.
        """
        kept = np.flatnonzero(tags.classes)
        numbers = {"tag": pa.array(kept, pa.int64()), "n": pa.array(tags.n[kept])}
        self._store("class_tags", numbers | {"key": tags.keys.take(kept), "value": tags.values.take(kept)})
        places = {"tag": tags.of_row, "region_kind": self._region_kinds, "n": n, "place": np.arange(len(n))}
        self._store("places", {name: pa.array(column, pa.int64()) for name, column in places.items()})
        self._db.execute(_PLACES_OF_NUMBER)
        self._db.execute(_OCCURRENCES)
        sides = {}
        for side in ("longer_side_m", "shorter_side_m"):
            found = self._db.sql(_MEDIANS.format(side=side)).to_arrow_table()
            median = np.full(len(n), np.nan)
            median[found["place"].to_numpy()] = found["side"].to_numpy()
            sides[side] = pa.array(median, pa.float64(), from_pandas=True)
        return sides

    def cooccurrences(self) -> pa.Table:
        """The most frequent other tags of each tag, none of them text: the columns of `cooccurrence.parquet`."""
        query = _COOCCURRENCES.format(
            max_tags=MAX_TAGS, min_objects=MIN_OBJECTS, min_share=MIN_SHARE, max_others=MAX_OTHERS
        )
        return self._db.sql(query).to_arrow_table()

    def objects(self) -> tuple[dict[str, int], int]:
        """Objects counted in each region, and objects that lie in two regions or more."""
        rows = self._db.execute(_OBJECTS.format(not_elsewhere=self._not_elsewhere)).fetchall()
        ((shared,),) = self._db.execute("SELECT count(*) FROM shared").fetchall()
        return dict.fromkeys(self._regions, 0) | {self._regions[i]: n for i, n in rows}, int(shared)


def _able_sql(limits_m: Sequence[tuple[float, float]]) -> str:
    cases = []
    for kind, (least, most) in enumerate(limits_m):
        upper = "" if math.isinf(most) else f" AND longer_side_m <= {most!r}::DOUBLE"
        cases.append(f"WHEN {kind} THEN longer_side_m >= {least!r}::DOUBLE{upper}")
    return f"CASE kind {' '.join(cases)} END"
