import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from skyscript_assets.lib.imagery.footprints import place, polygons, wrapped

FRAME = shapely.segmentize(shapely.box(0, 0, 400, 400), 10)
DEGREES = Transformer.from_crs(4326, 4326, always_xy=True)


def placed(crs: int, left: float, top: float, size: float, frame: shapely.Geometry = FRAME) -> shapely.Geometry | None:
    to_wgs84 = Transformer.from_crs(crs, 4326, always_xy=True)
    return place(frame, (size, 0, left, 0, -size, top), to_wgs84)


def test_a_raster_away_from_every_edge_keeps_one_ring() -> None:
    ground = placed(32632, 500_000, 5_250_000, 10)
    assert ground is not None
    assert ground.geom_type == "Polygon"
    assert ground.contains(shapely.Point(9.02, 47.38))


def test_a_pole_inside_is_ground_and_a_hole_around_it_is_none() -> None:
    whole = placed(3413, -400_000, 400_000, 2000)
    assert whole is not None
    assert whole.bounds == pytest.approx((-180, whole.bounds[1], 180, 90))
    assert whole.contains(shapely.Point(10, 89.99))
    hole = shapely.segmentize(shapely.box(150, 150, 250, 250), 10)
    ring = placed(3413, -400_000, 400_000, 2000, FRAME.difference(hole))
    assert ring is not None
    assert not ring.contains(shapely.Point(10, 89.5))
    assert ring.contains(shapely.Point(10, 88))
    south = placed(3031, -400_000, 400_000, 2000)
    assert south is not None
    assert south.contains(shapely.Point(-120, -89.9))
    assert not south.contains(shapely.Point(-120, 89.9))


@given(st.floats(-180, 180), st.floats(-80, 80), st.floats(0.001, 0.2))
def test_every_middle_of_a_raster_in_degrees_lies_in_its_footprint(lon: float, lat: float, size: float) -> None:
    ground = place(FRAME, (size / 10, 0, lon, 0, -size / 10, lat), DEGREES)
    assert ground is not None
    assert ground.is_valid
    middle = (lon + 20 * size + 180) % 360 - 180
    assert ground.distance(shapely.Point(middle, lat - 20 * size)) < 1e-9
    assert shapely.box(-180, -90, 180, 90).contains(ground)
    assert ground.area == pytest.approx((40 * size) ** 2, rel=1e-6)


def test_what_is_no_place_is_none() -> None:
    assert place(FRAME, (1, 0, 500_000, 0, -1, 5_000_000), DEGREES) is None
    assert place(FRAME, (1, 0, 0, 0, -1, 95), DEGREES) is None
    assert place(FRAME, (1, 0, np.nan, 0, -1, 0), DEGREES) is None


def test_a_raster_of_0_to_360_degrees_covers_both_halves() -> None:
    ground = place(FRAME, tuple((Affine.translation(0, 80) @ Affine.scale(0.9, -0.4))[:6]), DEGREES)
    assert ground is not None
    assert ground.bounds == pytest.approx((-180, -80, 180, 80))
    assert ground.area == pytest.approx(360 * 160)


def test_mending_leaves_polygons_alone() -> None:
    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2), (0, 0)])
    assert polygons(shapely.make_valid(bow)).area == pytest.approx(2)
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.LineString([(5, 5), (6, 6)])])
    assert polygons(mixed).equals(shapely.box(0, 0, 1, 1))
    assert wrapped(shapely.box(170, 0, 190, 10)).bounds == (-180, 0, 180, 10)
