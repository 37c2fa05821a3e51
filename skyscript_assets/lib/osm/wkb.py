"""Points, lines and one-ring polygons as well-known binary (OGC 06-103r4, 8.2), built as columns and not one by one."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import FloatArray, IntArray

_POINT, _LINE, _POLYGON = 1, 2, 3
_LITTLE_ENDIAN = 1


def points(places: FloatArray) -> pa.Array:
    """Points: [n, 2] longitudes and latitudes, degrees, -> [n] WKB."""
    rows = np.zeros(len(places), np.dtype([("order", "u1"), ("kind", "<u4"), ("place", "<f8", 2)]))
    rows["order"], rows["kind"], rows["place"] = _LITTLE_ENDIAN, _POINT, places
    return _fixed(rows)


def lines(places: FloatArray, offsets: IntArray) -> pa.Array:
    """Lines: [m, 2] longitudes and latitudes, degrees, and where each line begins, [n + 1], -> [n] WKB."""
    heads = np.zeros(len(offsets) - 1, np.dtype([("order", "u1"), ("kind", "<u4"), ("count", "<u4")]))
    heads["order"], heads["kind"], heads["count"] = _LITTLE_ENDIAN, _LINE, np.diff(offsets)
    return _joined(heads, places, offsets)


def polygons(places: FloatArray, offsets: IntArray) -> pa.Array:
    """Polygons without holes: [m, 2] longitudes and latitudes of closed rings, and where each begins, -> [n] WKB."""
    layout = [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("count", "<u4")]
    heads = np.zeros(len(offsets) - 1, np.dtype(layout))
    heads["order"], heads["kind"], heads["rings"], heads["count"] = _LITTLE_ENDIAN, _POLYGON, 1, np.diff(offsets)
    return _joined(heads, places, offsets)


def _fixed(rows: NDArray[np.void]) -> pa.Array:
    """Rows of a packed layout as binary values."""
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.dtype.itemsize
    return pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def _joined(heads: NDArray[np.void], places: FloatArray, offsets: IntArray) -> pa.Array:
    """Each head with its places behind it."""
    ends = pa.py_buffer((offsets * 16).astype(np.int32))
    bodies = pa.Array.from_buffers(
        pa.binary(), len(heads), [None, ends, pa.py_buffer(np.ascontiguousarray(places, "<f8"))]
    )
    return pc.binary_join_element_wise(_fixed(heads), bodies, pa.scalar(b"", pa.binary()))
