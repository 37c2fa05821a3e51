"""What of OSM should have edges in an image, and where."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyproj import Geod

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.geometry import from_lonlat
from skyscript_assets.lib.registration.outlines import ROAD_WEIGHT, Frame, Outlines, read_outlines
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, rows_to_table, write_table

OBJECTS = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("geometry", pa.binary()), ("bbox", BBOX_TYPE)])
LON, LAT = 9.0, 47.4
FRAME = Frame.at(LON, LAT)


def ground(geometry: shapely.Geometry) -> shapely.Geometry:
    """From metres of the frame to degrees."""
    to = from_lonlat(FRAME.crs)
    return shapely.transform(geometry, lambda p: np.column_stack(to.transform(p[:, 0], p[:, 1], direction="INVERSE")))


HOUSE = ground(shapely.box(-10, -5, 10, 5))
ROAD = ground(shapely.LineString([(-100, 20), (100, 20)]))


def write(path: Path, *objects: tuple[str, Any, dict[str, str]]) -> Path:
    rows = []
    for object_id, geometry, tags in objects:
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(geometry).tolist(), strict=True))
        rows.append({"object_id": object_id, "tags": tags, "geometry": shapely.to_wkb(geometry), "bbox": box})
    write_table(path / "objects.parquet", rows_to_table(rows, OBJECTS))
    return path / "objects.parquet"


def test_buildings_and_motor_roads_that_can_be_seen_are_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ("n1", shapely.Point(LON, LAT), {"building": "yes"}),
        ("a1", HOUSE, {"name": "x", "building": "house"}),
        ("a2", HOUSE, {"building": "no"}),
        ("a3", HOUSE, {"building": "roof"}),
        ("a4", HOUSE, {"building": "yes", "location": "underground"}),
        ("a5", HOUSE, {"landuse": "forest"}),
        ("r6", HOUSE, {"building": "yes"}),
        ("w1", ROAD, {"highway": "residential", "width": "7"}),
        ("w2", ROAD, {"highway": "footway"}),
        ("w3", ROAD, {"highway": "primary", "tunnel": "yes"}),
        ("w4", ROAD, {}),
        ("a7", HOUSE, {"highway": "pedestrian"}),
    )
    found = read_outlines(path)
    assert found.width_m.tolist() == [0.0, 0.0, 7.0]
    assert [shapely.get_type_id(shape) for shape in found.geometry] == [3, 3, 1]


def test_an_outline_is_its_rings_and_a_road_two_edges() -> None:
    yard = ground(shapely.Polygon(shapely.box(-10, -5, 10, 5).exterior, [shapely.box(-2, -2, 2, 2).exterior]))
    segments = Outlines.of([yard, ROAD], [0.0, 6.0]).segments(FRAME, 50)
    length = np.hypot(*(segments.end - segments.start).T)
    building = segments.weight == 1.0
    assert length[building].sum() == pytest.approx(2 * (20 + 10) + 4 * 4, abs=1e-3)
    assert segments.weight[~building].tolist() == [ROAD_WEIGHT] * 2
    assert sorted(segments.start[~building][:, 1]) == pytest.approx([17, 23], abs=1e-3)
    assert sorted(segments.end[~building][:, 1]) == pytest.approx([17, 23], abs=1e-3)


def test_what_does_not_reach_a_window_is_left_out() -> None:
    away = ground(shapely.box(200, 200, 210, 210))
    segments = Outlines.of([HOUSE, away], [0.0, 0.0]).segments(FRAME, 30)
    assert len(segments.start) == 4
    assert len(Outlines.of([], []).segments(FRAME, 30).start) == 0


def test_a_frame_is_true_to_scale_and_its_north_is_north() -> None:
    x, y = from_lonlat(Frame.at(24.9, 60.2).crs).transform(24.9, 60.2005)
    _, _, metres = Geod(ellps="WGS84").inv(24.9, 60.2, 24.9, 60.2005)
    assert (x, y) == pytest.approx((0.0, metres), abs=1e-3)


def test_lengths_are_weighted_and_lie_where_the_edges_are() -> None:
    middle, length = Outlines.of([HOUSE, ROAD], [0.0, 6.0]).lengths
    assert length.sum() == pytest.approx(60 + 200 * 2 * ROAD_WEIGHT, rel=0.01)
    assert shapely.contains_xy(shapely.buffer(shapely.union(HOUSE, ROAD), 1e-6), middle[:, 0], middle[:, 1]).all()


def test_no_objects_make_no_outlines(tmp_path: Path) -> None:
    found = read_outlines(write(tmp_path))
    assert len(found.geometry) == 0
    assert len(found.lengths[1]) == 0


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match=r"objects\.parquet does not exist"):
        read_outlines(tmp_path / "objects.parquet")
    box = {"xmin": 9.0, "ymin": 47.0, "xmax": 9.0, "ymax": 47.0}
    row = {"object_id": "a1", "tags": {"building": "yes"}, "geometry": b"\x01\x02", "bbox": box}
    write_table(tmp_path / "objects.parquet", rows_to_table([row], OBJECTS))
    with pytest.raises(CorruptInputError, match=r"objects\.parquet: a geometry is broken"):
        read_outlines(tmp_path / "objects.parquet")


def test_places_that_are_no_numbers_have_no_edges(tmp_path: Path) -> None:
    broken = shapely.LineString([(np.nan, LAT), (LON, LAT), (LON + 1e-4, LAT)])
    path = write(tmp_path, ("w1", broken, {"highway": "service"}), ("a2", shapely.Polygon(), {"building": "yes"}))
    found = read_outlines(path)
    segments = found.segments(FRAME, 50)
    assert len(found.geometry) == 1
    assert len(segments.start) == 2
    assert np.isfinite(segments.start).all()
    assert np.isfinite(found.lengths[0]).all(axis=1).tolist() == [False, True]
