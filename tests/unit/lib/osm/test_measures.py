import numpy as np
import pytest
import shapely
from pyproj import Geod
from shapely import Geometry

from skyscript_assets.lib.osm.measures import HILBERT_ORDER, hilbert_index, path_lengths_m, ring_areas_m2

GEOD = Geod(ellps="WGS84")


def runs_of(*paths: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Places of lines and rings, one behind the other, and where each begins."""
    places = [shapely.get_coordinates(path) for path in paths]
    offsets = np.cumsum([0, *(len(place) for place in places)])
    return np.concatenate(places), offsets


def rings(polygon: shapely.Polygon) -> list[Geometry]:
    return [polygon.exterior, *polygon.interiors]


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
    outer, inner = ring_areas_m2(*runs_of(*rings(polygon)))
    assert abs(outer) - abs(inner) == pytest.approx(abs(area), rel=1e-3)
    perimeter = sum(GEOD.geometry_length(ring) for ring in rings(polygon))
    assert path_lengths_m(*runs_of(*rings(polygon))).sum() == pytest.approx(perimeter, rel=1e-4)


def test_a_house_of_ten_metres_keeps_its_digits() -> None:
    house = shapely.box(24.94, 60.17, 24.94 + 1.8e-4, 60.17 + 9e-5)
    geodesic = abs(GEOD.geometry_area_perimeter(house)[0])
    assert ring_areas_m2(*runs_of(house.exterior))[0] == pytest.approx(geodesic, rel=1e-6)


def test_the_series_of_the_equal_area_projection_is_its_closed_form() -> None:
    # A sphere-wide belt from the equator to a latitude has the area 2 pi a^2 (q / 2), Snyder 1987, eq. 3-12.
    e = np.sqrt(6.694_379_990_14e-3)
    for latitude in (1.0, 30.0, 60.0, 89.0):
        sine = np.sin(np.radians(latitude))
        q = (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)
        belt = shapely.box(-180, 0, 180, latitude)
        expected = 2 * np.pi * 6_378_137.0**2 * q / 2
        assert abs(ring_areas_m2(*runs_of(belt.exterior))[0]) == pytest.approx(expected, rel=1e-13)


def test_the_sign_of_an_area_tells_which_way_the_ring_runs() -> None:
    ring = shapely.box(7.4, 43.7, 7.5, 43.8, ccw=True).exterior
    there, back = ring_areas_m2(*runs_of(ring, ring.reverse()))
    assert there > 0
    assert back == pytest.approx(-there)


def test_the_length_of_a_long_line_agrees_with_geodesics() -> None:
    line = shapely.LineString([(7.0 + 0.01 * i, 43.0 + 0.02 * i) for i in range(200)])
    assert path_lengths_m(*runs_of(line))[0] == pytest.approx(GEOD.geometry_length(line), rel=1e-5)


def test_paths_side_by_side_keep_their_own_measures() -> None:
    shell = around(7.4, 43.7, 0.01).exterior
    line = shapely.LineString([(7.4, 43.7), (7.5, 43.7)])
    paths = [shell, line, around(7.5, 43.7, 0.02).exterior, line]
    for measure in (path_lengths_m, ring_areas_m2):
        apart = [measure(*runs_of(path))[0] for path in paths]
        assert measure(*runs_of(*paths)) == pytest.approx(apart)


def test_empty_paths_have_no_measures() -> None:
    places, offsets = np.array([(7.4, 43.7), (7.5, 43.7)]), np.array([0, 0, 2, 2])
    assert list(path_lengths_m(places, offsets) > 0) == [False, True, False]
    assert list(ring_areas_m2(places, offsets)) == [0, 0, 0]
    assert len(path_lengths_m(np.zeros((0, 2)), np.zeros(1, np.int64))) == 0
    assert len(ring_areas_m2(np.zeros((0, 2)), np.zeros(1, np.int64))) == 0


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
    assert (index < 4**HILBERT_ORDER).all()
