import numpy as np
import pytest
import shapely
from pyproj import Geod
from shapely import Geometry

from skyscript_assets.lib.osm.measures import areas_m2, hilbert_index, lengths_m

GEOD = Geod(ellps="WGS84")


def array(*geometries: Geometry) -> np.ndarray:
    return np.array(geometries, dtype=object)


def around(longitude: float, latitude: float, size: float) -> Geometry:
    """An irregular polygon with a hole, `size` degrees wide."""
    shell = [(0, 0), (1, 0.1), (0.9, 0.8), (0.4, 1), (0, 0.7)]
    hole = [(0.3, 0.3), (0.3, 0.6), (0.6, 0.6)]
    place = [[(longitude + size * x, latitude + size * y) for x, y in ring] for ring in (shell, hole)]
    return shapely.Polygon(place[0], [place[1]])


@pytest.mark.parametrize("latitude", [-77.0, -33.0, 0.0, 24.9, 60.2, 83.0])
@pytest.mark.parametrize("size", [1e-4, 1e-2, 0.1])
def test_areas_and_perimeters_agree_with_geodesics(latitude: float, size: float) -> None:
    polygon = around(179.0 - size, latitude, size)
    area, _ = GEOD.geometry_area_perimeter(polygon)
    assert areas_m2(array(polygon))[0] == pytest.approx(abs(area), rel=1e-3)
    perimeter = sum(GEOD.geometry_length(ring) for ring in (polygon.exterior, *polygon.interiors))
    assert lengths_m(array(polygon))[0] == pytest.approx(perimeter, rel=1e-4)


def test_a_house_of_ten_metres_keeps_its_digits() -> None:
    house = shapely.box(24.94, 60.17, 24.94 + 1.8e-4, 60.17 + 9e-5)
    assert areas_m2(array(house))[0] == pytest.approx(abs(GEOD.geometry_area_perimeter(house)[0]), rel=1e-6)


def test_the_length_of_a_long_line_agrees_with_geodesics() -> None:
    line = shapely.LineString([(7.0 + 0.01 * i, 43.0 + 0.02 * i) for i in range(200)])
    assert lengths_m(array(line))[0] == pytest.approx(GEOD.geometry_length(line), rel=1e-5)


def test_mixed_geometries_keep_their_own_measures() -> None:
    polygon, line = around(7.4, 43.7, 0.01), shapely.LineString([(7.4, 43.7), (7.5, 43.7)])
    mixed = array(
        shapely.Point(7, 43), shapely.MultiPolygon([polygon, around(7.5, 43.7, 0.01)]), line, polygon, shapely.Point()
    )
    apart_areas = [areas_m2(array(g))[0] for g in mixed]
    apart_lengths = [lengths_m(array(g))[0] for g in mixed]
    assert areas_m2(mixed) == pytest.approx(apart_areas)
    assert lengths_m(mixed) == pytest.approx(apart_lengths)
    assert list(lengths_m(mixed) == 0) == [True, False, False, False, True]
    assert list(areas_m2(mixed) == 0) == [True, False, True, False, True]
    assert lengths_m(mixed)[1] == pytest.approx(2 * lengths_m(mixed)[3], rel=1e-3)


def test_measuring_leaves_the_geometries_alone() -> None:
    polygons = array(around(7.4, 43.7, 0.01))
    before = shapely.to_wkb(polygons[0])
    areas_m2(polygons)
    assert shapely.to_wkb(polygons[0]) == before


def test_no_geometries_give_no_measures() -> None:
    empty = np.array([], dtype=object)
    assert len(lengths_m(empty)) == len(areas_m2(empty)) == 0


def test_consecutive_places_of_the_hilbert_curve_touch() -> None:
    # 16 x 16 points a grid cell of the 2**4 curve apart: sorted, each step goes to a neighbour.
    xs, ys = np.meshgrid(np.arange(16), np.arange(16))
    lon, lat = (xs.ravel() + 0.5) / 16 * 360 - 180, (ys.ravel() + 0.5) / 16 * 180 - 90
    order = np.argsort(hilbert_index(lon, lat))
    steps = np.abs(np.diff(xs.ravel()[order])) + np.abs(np.diff(ys.ravel()[order]))
    assert set(steps) == {1}
    assert len(np.unique(hilbert_index(lon, lat))) == 256


def test_the_edges_of_the_world_have_a_place() -> None:
    index = hilbert_index(np.array([-180.0, 180.0]), np.array([-90.0, 90.0]))
    assert index.dtype == np.uint64
    assert (index < 4**26).all()
