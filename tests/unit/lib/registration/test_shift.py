"""The sign and size of shifts, and which of them are read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.registration.shift import NO_SHIFT, OFFSET_SCHEMA, move, read_shifts
from skyscript_assets.lib.tables import rows_to_table, write_table


@given(st.floats(-179, 179), st.floats(-84, 84), st.floats(-50, 50), st.floats(-50, 50))
def test_a_place_moves_by_metres_on_the_ellipsoid(lon: float, lat: float, dx: float, dy: float) -> None:
    ((x, y),) = move(np.array([[lon, lat]]), (dx, dy))
    _, _, distance = Geod(ellps="WGS84").inv(lon, lat, x, y)
    assert distance == pytest.approx(np.hypot(dx, dy), abs=1e-3, rel=1e-4)


def test_positive_is_east_and_north() -> None:
    ((x, y),) = move(np.array([[9.0, 47.0]]), (7.6, 11.1))
    assert (x - 9.0, y - 47.0) == pytest.approx((1e-4, 1e-4), rel=0.01)


def test_no_shift_keeps_places_to_the_bit() -> None:
    places = np.array([[9.0, 47.0], [np.nan, np.nan]])
    assert move(places, NO_SHIFT) is places


def row(scene_id: str, **facts: Any) -> dict[str, Any]:
    return dict.fromkeys(OFFSET_SCHEMA.names) | {"scene_id": scene_id} | facts


def test_only_shifts_that_were_estimated_are_read(tmp_path: Path) -> None:
    rows = [
        row("a", status="estimated", dx_m=1.0, dy_m=-2.0),
        row("b", status="estimated", dx_m=0.0, dy_m=0.0),
        row("c", status="disagree"),
    ]
    write_table(tmp_path / "offsets.parquet", rows_to_table(rows, OFFSET_SCHEMA))
    assert read_shifts(tmp_path) == {"a": (1.0, -2.0), "b": (0.0, 0.0)}


def test_a_missing_or_broken_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match=r"offsets\.parquet does not exist"):
        read_shifts(tmp_path)
    (tmp_path / "offsets.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptInputError, match=r"offsets\.parquet"):
        read_shifts(tmp_path)
