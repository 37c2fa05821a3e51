"""The counting of tags over tables of objects: DuckDB's part, in bounded memory.

Strings are counted as they stand and brought into their normal spelling afterwards, each distinct one once; what needs
the single object, sizes and tags that come together, is done with numbers in place of strings and for tags alone that
are no text. What the results are for belongs to `vocabulary`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.geometry import metres_per_degree
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE
from skyscript_assets.lib.tags.normalise import MAX_LENGTH, NORMAL_ALREADY, normal_values
from skyscript_assets.lib.tags.text import class_mask

MAX_TAGS = 32
"""Tags of one object that are looked at for company, the first by key and value."""

MIN_OBJECTS = 3
"""Tags on fewer objects get no company."""

MAX_OTHERS = 8
"""Others named for a tag."""

MIN_SHARE = 0.05
"""Least share of a tag's objects that carry another."""

OBJECTS_AT_A_TIME = 1_000_000
"""Objects whose sets of tags are made at once: bounds the memory."""

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

_OWNED = """
    CREATE VIEW owned AS
    SELECT region, tags, object,
        CASE left(objects.object_id, 1) WHEN 'n' THEN 'node' WHEN 'w' THEN 'line' ELSE 'area' END AS kind,
        (bbox.xmax - bbox.xmin) * {metres} * cos(radians((bbox.ymin + bbox.ymax) / 2)) AS width_m,
        (bbox.ymax - bbox.ymin) * {metres} AS height_m
    FROM objects ANTI JOIN shared ON objects.object_id = shared.object_id AND objects.region <> shared.region
"""

# Each object is sized once, its tags are unnested, and counts are made for all GSDs side by side.
_COUNT = """
    CREATE TABLE counted AS
    WITH tagged AS (
        SELECT region, kind, {able}, unnest(map_entries(tags)) AS tag
        FROM (SELECT *, greatest(width_m, height_m) AS longer_side_m FROM owned)
    )
    SELECT tag.key AS key, tag.value AS value, region, kind, count(*) AS n, {any_able} AS n_plannable, {sums}
    FROM tagged GROUP BY ALL
"""

_ODD_VALUES = f"""
    SELECT DISTINCT value FROM counted
    WHERE strlen(value) > {MAX_LENGTH} OR NOT regexp_matches(value, '{NORMAL_ALREADY}')
"""

# A value that is normal already, or each of the values that a rewritten one lists.
_NORMAL_COUNTS = """
    SELECT key, coalesce(normal, value) AS value, region, kind, {sums}
    FROM counted LEFT JOIN rewritten ON value = raw
    WHERE raw IS NULL OR normal IS NOT NULL
    GROUP BY ALL ORDER BY ALL
"""

_RAW_TAGS = """
    CREATE TABLE raw_tags AS
    WITH raw AS (SELECT DISTINCT key, value FROM counted)
    SELECT raw.key, raw.value, tag
    FROM raw LEFT JOIN rewritten ON raw.value = rewritten.raw
    JOIN class_tags ON raw.key = class_tags.key AND coalesce(normal, raw.value) = class_tags.value
"""

_OCCURRENCES = """
    CREATE TABLE occurrences AS
    WITH tagged AS (
        SELECT object, region, kind, unnest(map_entries(tags)) AS entry,
            floor(greatest(width_m, height_m) * 10 + 0.5)::BIGINT AS longer_side_m,
            floor(least(width_m, height_m) * 10 + 0.5)::BIGINT AS shorter_side_m
        FROM owned
    )
    SELECT tagged.object, tagged.region, tagged.kind, tag, longer_side_m, shorter_side_m
    FROM tagged JOIN raw_tags ON entry.key = raw_tags.key AND entry.value = raw_tags.value
"""

# The lower median from a histogram of decimetres: DuckDB's own medians keep every value in memory.
_MEDIANS = """
    WITH histogram AS (
        SELECT tag, region, kind, {side} AS side, count(*) AS n FROM occurrences WHERE kind <> 'node' GROUP BY ALL
    ),
    running AS (
        SELECT *, sum(n) OVER (PARTITION BY tag, region, kind ORDER BY side) AS up_to,
            sum(n) OVER (PARTITION BY tag, region, kind) AS total
        FROM histogram
    )
    SELECT place, min(side) / 10 AS side
    FROM running JOIN places USING (tag, region, kind)
    WHERE 2 * up_to >= total
    GROUP BY place
"""

_SETS = f"""
    INSERT INTO sets
    WITH single AS (
        SELECT list_sort(list(tag))[1:{MAX_TAGS}] AS tags
        FROM occurrences WHERE object >= ? AND object < ? GROUP BY object
    )
    SELECT tags, count(*) AS n FROM single GROUP BY ALL
"""

_COMPANY = f"""
    WITH distinct_sets AS (
        SELECT row_number() OVER () AS id, tags, n
        FROM (SELECT tags, sum(n)::BIGINT AS n FROM sets WHERE len(tags) > 1 GROUP BY tags)
    ),
    members AS (SELECT id, n, unnest(tags) AS tag FROM distinct_sets),
    pairs AS (
        SELECT one.tag, other.tag AS other, sum(one.n)::BIGINT AS n
        FROM members AS one
        JOIN class_tags ON class_tags.tag = one.tag AND class_tags.n >= {MIN_OBJECTS}
        JOIN members AS other ON one.id = other.id AND one.tag <> other.tag
        GROUP BY ALL
    ),
    frequent AS (
        SELECT pairs.tag, other, pairs.n, pairs.n / class_tags.n AS share
        FROM pairs JOIN class_tags USING (tag)
        WHERE pairs.n >= {MIN_SHARE} * class_tags.n
        QUALIFY row_number() OVER (PARTITION BY pairs.tag ORDER BY pairs.n DESC, other) <= {MAX_OTHERS}
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

    @staticmethod
    def of(counts: pa.Table) -> DistinctTags:
        """The tags of a table of counts that is sorted by key and value."""
        keys, values = (counts[name].combine_chunks() for name in ("key", "value"))
        first = np.ones(counts.num_rows, np.bool_)
        if counts.num_rows:
            same = pc.and_(pc.equal(keys[1:], keys[:-1]), pc.equal(values[1:], values[:-1]))
            first[1:] = ~same.to_numpy(zero_copy_only=False)
        of_row = np.cumsum(first) - 1
        rows = np.flatnonzero(first)
        keys, values = keys.take(rows), values.take(rows)
        n = np.zeros(len(rows), np.int64)
        np.add.at(n, of_row, counts["n"].to_numpy())
        return DistinctTags(keys, values, class_mask(keys, values).to_numpy(zero_copy_only=False), n, of_row)


class TagCounter:
    """Tables of objects opened for counting: `counts` first, then `sizes`, then `company`.

    All methods raise `duckdb.Error` where a table cannot be read.
    """

    def __init__(self, db: duckdb.DuckDBPyConnection, objects: Mapping[str, Path]) -> None:
        """Open the tables.

        Args:
            db: An empty database.
            objects: `objects.parquet` of each region.
        """
        self._db = db
        self._regions = sorted(objects)
        # Regions are numbered in the order of their names.
        schema = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)])
        relation = db.from_arrow(schema.empty_table()).project("*, 0 AS region, 0::BIGINT AS object")
        for i, region in enumerate(self._regions):
            rows = db.read_parquet(str(objects[region]), file_row_number=True)
            number = f"{i << _REGION_BITS} + file_row_number"
            relation = relation.union(rows.project(f"object_id, tags, bbox, {i} AS region, {number} AS object"))
        relation.create_view("objects")
        db.execute(_SHARED if len(objects) > 1 else _NONE_SHARED)
        db.execute(_OWNED.format(metres=repr(metres_per_degree(0.0)[1])))

    def counts(self, limits_m: Sequence[Mapping[str, tuple[float, float]]]) -> pa.Table:
        """Objects of each normal tag.

        Args:
            limits_m: For each GSD the least and the greatest longer side in metres of a plannable object, by kind.

        Returns:
            key, value, region, kind, n, n_plannable and, for GSD i, its plannable objects `p<i>`; sorted.
        """
        able = [f"p{i}" for i in range(len(limits_m))]
        sums = [f"count_if({name}) AS {name}" for name in able]
        query = _COUNT.format(
            able=", ".join(f"{_able_sql(limits)} AS p{i}" for i, limits in enumerate(limits_m)) or "0",
            any_able=f"count_if({' OR '.join(able) or 'false'})",
            sums=", ".join(sums),
        )
        self._db.execute(query)
        self._rewrite(self._db.sql(_ODD_VALUES).to_arrow_table()["value"].to_pylist())
        names = ["n", "n_plannable", *able]
        table = self._db.sql(
            _NORMAL_COUNTS.format(sums=", ".join(f"sum({name})::BIGINT AS {name}" for name in names))
        ).to_arrow_table()
        self._rows = table.select(["region", "kind"])
        regions = pa.array(self._regions, pa.string()).take(table["region"].combine_chunks())
        return table.set_column(table.schema.get_field_index("region"), "region", regions)

    def _rewrite(self, values: Sequence[str]) -> None:
        """Keep what the values that are not in their normal spelling list; null where nothing is left of one."""
        normal = [(raw, each) for raw in values for each in normal_values(raw) or (None,) if raw != each]
        raws, listed = zip(*normal, strict=True) if normal else ((), ())
        self._store("rewritten", {"raw": pa.array(raws, pa.string()), "normal": pa.array(listed, pa.string())})

    def _store(self, name: str, columns: Mapping[str, pa.Array]) -> None:
        self._db.register("arrow_columns", pa.table(columns))
        self._db.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow_columns")
        self._db.unregister("arrow_columns")

    def sizes(self, tags: DistinctTags) -> dict[str, pa.Array]:
        """Median sides of the boxes behind each count.

        Args:
            tags: The tags of `counts`.

        Returns:
            longer_side_m and shorter_side_m for each row of `counts`, null for nodes and for tags that are text.
        """
        kept = np.flatnonzero(tags.classes)
        numbers = {"tag": pa.array(kept, pa.int32()), "n": pa.array(tags.n[kept])}
        self._store("class_tags", numbers | {"key": tags.keys.take(kept), "value": tags.values.take(kept)})
        self._db.execute(_RAW_TAGS)
        self._db.execute(_OCCURRENCES)
        places = {"tag": pa.array(tags.of_row, pa.int32()), "place": pa.array(np.arange(len(tags.of_row)))}
        self._store("places", places | {name: self._rows[name] for name in ("region", "kind")})
        sides = {}
        for side in ("longer_side_m", "shorter_side_m"):
            found = self._db.sql(_MEDIANS.format(side=side)).to_arrow_table()
            median = np.full(len(tags.of_row), np.nan)
            median[found["place"].to_numpy()] = found["side"].to_numpy()
            sides[side] = pa.array(median, pa.float64(), from_pandas=True)
        return sides

    def company(self) -> pa.Table:
        """The most frequent other tags of each tag, none of them text: the columns of `cooccurrence.parquet`."""
        self._db.execute("CREATE TABLE sets (tags INTEGER[], n BIGINT)")
        for region in range(len(self._regions)):
            first = region << _REGION_BITS
            (rows,) = self._db.execute(
                "SELECT coalesce(max(object) - $first + 1, 0) FROM occurrences WHERE region = $region",
                {"first": first, "region": region},
            ).fetchall()[0]
            for start in range(first, first + rows, OBJECTS_AT_A_TIME):
                self._db.execute(_SETS, [start, start + OBJECTS_AT_A_TIME])
        return self._db.sql(_COMPANY).to_arrow_table()

    def objects(self) -> tuple[dict[str, int], int]:
        """Objects counted in each region, and objects that lie in two regions or more."""
        rows = self._db.execute("SELECT region, count(*) FROM owned GROUP BY ALL").fetchall()
        ((shared,),) = self._db.execute("SELECT count(*) FROM shared").fetchall()
        return dict.fromkeys(self._regions, 0) | {self._regions[i]: n for i, n in rows}, int(shared)


def _able_sql(limits_m: Mapping[str, tuple[float, float]]) -> str:
    cases = []
    for kind, (least, most) in limits_m.items():
        upper = "" if math.isinf(most) else f" AND longer_side_m <= {most!r}::DOUBLE"
        cases.append(f"WHEN '{kind}' THEN longer_side_m >= {least!r}::DOUBLE{upper}")
    return f"CASE kind {' '.join(cases)} END"
