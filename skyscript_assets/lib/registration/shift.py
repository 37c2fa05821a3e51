"""A scene's shift as later stages use it: its table, and the move of OSM coordinates onto the image.

The sign, here and in every table: add `dx_m` to the east and `dy_m` to the north of an OSM coordinate, and it lies
where the image shows the object. How shifts are estimated belongs to `estimate`.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.arrays import FloatArray
from skyscript_assets.lib.geometry import WGS84_RADIUS_M
from skyscript_assets.lib.osm.measures import ECCENTRICITY_SQUARED
from skyscript_assets.lib.tables import fields, read_table

OFFSETS_FILE = "offsets.parquet"

OFFSET_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "scene_id", "status"),
        *fields(pa.float64(), "dx_m", "dy_m", "dx_px", "dy_px", "confidence"),
        *fields(pa.int32(), "windows_used", "windows_tried"),
        *fields(pa.float64(), "spread_m", "peak_ratio", "resolution_m"),
        ("windows", pa.list_(pa.struct([*fields(pa.float64(), "lon", "lat", "dx_m", "dy_m"), ("used", pa.bool_())]))),
    ]
)
"""Columns of `offsets.parquet`, a row a scene; the shift is null unless `status` is `estimated`.

`dx_m`, `dy_m`: metres east and north to add to OSM coordinates. `dx_px`, `dy_px`: the same in the scene's own columns
and rows (rows grow downward in a north-up scene). `status`: `estimated`; `too-few-objects`: too few windows with
outlines and pixels; `disagree`: windows contradict each other, or no peak stands out; `unresolved`: pixels too coarse
for the search radius. `spread_m`: median distance of the used windows' own shifts from the scene's. `peak_ratio`:
second best peak by the best, 0..1. `resolution_m`: half of the pixel that was matched on; smaller shifts are not told
from none. `windows`: centre and own best shift of each matched window. Whether a shift is applied is the plan's to say.
"""

Shift = tuple[float, float]
"""(dx_m, dy_m): metres east and north, added to OSM coordinates."""

NO_SHIFT: Shift = (0.0, 0.0)


def move(lonlat: FloatArray, shift: Shift) -> FloatArray:
    """Move places in degrees, [n, 2], by metres east and north; the same array where there is no shift.

    A metre is turned into degrees by the radii of curvature of WGS 84 at each place's latitude (Snyder, Map
    Projections, USGS PP 1395, eq. 4-18 and 4-20).
    """
    if shift == NO_SHIFT:
        return lonlat
    latitude = np.radians(lonlat[:, 1])
    flat = 1.0 - ECCENTRICITY_SQUARED * np.sin(latitude) ** 2
    east_m = np.radians(WGS84_RADIUS_M / np.sqrt(flat) * np.maximum(np.cos(latitude), 1e-6))
    north_m = np.radians(WGS84_RADIUS_M * (1.0 - ECCENTRICITY_SQUARED) / flat**1.5)
    return np.column_stack([lonlat[:, 0] + shift[0] / east_m, lonlat[:, 1] + shift[1] / north_m])


def read_shifts(folder: Path) -> dict[str, Shift]:
    """The shifts of a `scene_offsets` folder that were estimated, by scene. Raises what `read_table` does."""
    rows = read_table(folder / OFFSETS_FILE, OFFSET_SCHEMA, ["scene_id", "dx_m", "dy_m"]).to_pylist()
    return {row["scene_id"]: (row["dx_m"], row["dy_m"]) for row in rows if row["dx_m"] is not None}
