"""A GeoParquet table in Hilbert order, written from batches in any order, in bounded memory.

Batches are dealt out to buckets, each of which is a stretch of the Hilbert curve; a bucket that has come to be sorted
fits into memory. Small tables have one bucket, which never leaves it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.tables import BBOX_TYPE, ROW_GROUP_ROWS, geo_metadata

Keys = NDArray[np.uint64]

_PACKED = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["osm_type", "version", "tags.key_value.key", "tags.key_value.value"],
    "write_statistics": ["object_id", "osm_id", *(f"bbox.{side}" for side in BBOX_TYPE.names), "area_m2", "length_m"],
}


class HilbertTable:
    """Writes one table."""

    def __init__(self, path: Path, schema: pa.Schema, scratch: Path, borders: Keys) -> None:
        """Begin an empty table.

        Args:
            path: Where the table ends.
            schema: Its columns, with `geometry` (WKB, EPSG:4326) and `bbox`.
            scratch: Existing folder for what does not fit into memory; whoever made it removes it.
            borders: [buckets - 1] places on the curve where one bucket ends and the next begins, rising.
        """
        self._path, self._schema, self._borders = path, schema, borders
        self._spilled = [scratch / f"bucket-{i:05d}.arrow" for i in range(len(borders) + 1)] if len(borders) else []
        self._keyed = schema.append(pa.field("hilbert", pa.uint64()))
        self._sinks = [pa.ipc.new_stream(str(file), self._keyed) for file in self._spilled]
        self._kept: list[pa.Table] = []

    def add(self, table: pa.Table, keys: Keys) -> None:
        """Add rows of the schema and their places on the Hilbert curve, [rows]."""
        table = table.append_column("hilbert", pa.array(keys))
        if not self._sinks:
            self._kept.append(table)
            return
        bucket = np.searchsorted(self._borders, keys, side="right")
        order = np.argsort(bucket, kind="stable")
        ends = np.searchsorted(bucket[order], np.arange(len(self._sinks)), side="right")
        table = table.take(order)
        start = 0
        for sink, end in zip(self._sinks, ends.tolist(), strict=True):
            if end > start:
                sink.write_table(table.slice(start, end - start).combine_chunks())
            start = end

    def finish(self, geometry_types: Sequence[str]) -> None:
        """Sort all rows by their place on the curve, equal ones as they came, and write them with types of geometry."""
        for sink in self._sinks:
            sink.close()
        schema = self._schema.with_metadata({b"geo": geo_metadata(self._schema, "geometry", geometry_types)})
        buckets = range(max(1, len(self._spilled)))
        with replacing(self._path) as temporary, pq.ParquetWriter(temporary, schema, **_PACKED) as writer:
            # One bucket is sorted while the one before it is packed.
            for table in in_order(self._bucket, buckets, threads=1, ahead=2):
                writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)

    def _bucket(self, number: int) -> pa.Table:
        if self._spilled:
            with pa.ipc.open_stream(pa.OSFile(str(self._spilled[number]))) as stream:
                table = stream.read_all()
            self._spilled[number].unlink()
        else:
            table = pa.concat_tables(self._kept or [self._keyed.empty_table()])
            self._kept = []
        order = pc.array_sort_indices(table["hilbert"].combine_chunks())
        return table.drop_columns(["hilbert"]).combine_chunks().take(order)
