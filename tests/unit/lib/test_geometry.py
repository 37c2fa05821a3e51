import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Geod
from pyproj.exceptions import CRSError

from skyscript_assets.lib import geometry as g
from tests.splits import split_of_bounds

longitudes = st.floats(-179.9, 179.9)
latitudes = st.floats(-84.9, 84.9)


@given(longitudes, latitudes, st.integers(4, 18))
def test_a_place_lies_in_its_cell(lon: float, lat: float, zoom: int) -> None:
    west, south, east, north = g.cell_bounds(*g.cell_of(lon, lat, zoom), zoom)
    assert west - 1e-9 <= lon <= east + 1e-9
    assert south - 1e-9 <= lat <= north + 1e-9


@given(longitudes, latitudes)
def test_a_cell_s_middle_lies_in_one_split(lon: float, lat: float) -> None:
    cell = g.cell_of(lon, lat, 16)
    west, south, east, north = g.cell_bounds(*cell, 16)
    margin = (east - west) / 10
    assert split_of_bounds((west + margin, south + margin / 10, east - margin, north - margin / 10), 16) == (
        g.split_of_cell(*cell)
    )


@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=9), st.integers(0, 20))
def test_cells_are_those_of_the_formula_place_by_place(places: list[tuple[float, float]], zoom: int) -> None:
    x, y = g.cells_of(*np.array(places).T, zoom)
    for (lon, lat), cell in zip(places, zip(x.tolist(), y.tolist(), strict=True), strict=True):
        lat = max(-g.WEB_MERCATOR_LATITUDE_LIMIT, min(g.WEB_MERCATOR_LATITUDE_LIMIT, lat))
        column = (lon + 180) / 360 * 2**zoom
        row = (1 - math.log(math.tan(math.radians(lat)) + 1 / math.cos(math.radians(lat))) / math.pi) / 2 * 2**zoom
        assert min(abs(column - cell[0] - 0.5), abs(row - cell[1] - 0.5)) <= 0.5 + 1e-6
        assert cell == g.cell_of(lon, lat, zoom)


@given(st.lists(st.tuples(st.integers(0, 60_000), st.integers(0, 60_000)), min_size=1, max_size=20))
def test_splits_are_those_of_the_rule_cell_by_cell(cells: list[tuple[int, int]]) -> None:
    found = g.splits_of(*np.array(cells).T)
    for (x, y), split in zip(cells, found.tolist(), strict=True):
        hashed = "val" if g.unit_hash("validation", x, y) < 0.5 else "train"
        rule = {0: "test", 3: hashed}.get((x + 2 * y) % 5, "train")
        assert g.SPLITS[split] == g.split_of_cell(x, y) == rule


@given(st.tuples(longitudes, latitudes), st.floats(0, 0.1), st.floats(0, 0.1))
def test_a_box_touches_several_splits_where_its_cells_do(corner: tuple[float, float], w: float, h: float) -> None:
    box = (*corner, min(180.0, corner[0] + w), min(85.0, corner[1] + h))
    assert g.touch_splits(np.array([box, box]), 15).tolist() == [split_of_bounds(box, 15) is None] * 2


def test_a_box_over_several_splits_has_none() -> None:
    assert split_of_bounds((24.9, 60.1, 25.0, 60.2), 16) is None


def test_the_shares_of_the_splits_are_those_of_the_design() -> None:
    splits = [g.split_of_cell(x, y) for x in range(200) for y in range(200)]
    assert splits.count("test") == len(splits) // 5
    assert abs(splits.count("val") / len(splits) - 0.1) < 0.01


def test_no_two_test_cells_are_neighbours() -> None:
    for x in range(20):
        for y in range(20):
            if g.split_of_cell(x, y) == "test":
                near = [(x + 1, y), (x, y + 1), (x + 1, y + 1), (x - 1, y + 1)]
                assert all(g.split_of_cell(*cell) != "test" for cell in near)


def test_cells_of_a_box_are_all_it_touches() -> None:
    west, south, east, north = g.cell_bounds(100, 200, 10)
    inner = (west + 1e-6, south + 1e-6, east - 1e-6, north - 1e-6)
    assert g.cells_of_bounds(inner, 10) == [(100, 200)]
    assert len(g.cells_of_bounds((west - 1e-3, south - 1e-3, east + 1e-3, north + 1e-3), 10)) == 9


def test_cells_are_clamped_at_the_poles_and_the_edge() -> None:
    assert g.cell_of(180.0, 89.9, 4) == (15, 0)
    assert g.cell_of(-180.0, -89.9, 4) == (0, 15)


@pytest.mark.parametrize(
    ("crs", "pixel", "place", "gsd_m"),
    [
        # On the ellipsoid Web Mercator stretches unequally: by 1 / 0.5013 and 1 / 0.5004 at 60 degrees.
        ("EPSG:3857", 0.6, (25.0, 60.0), 0.30076),
        ("EPSG:3857+5773", 0.6, (25.0, 60.0), 0.30076),
        ("ESRI:102100", 0.6, (25.0, 60.0), 0.30076),
        ("EPSG:3395", 0.6, (25.0, 60.0), 0.30076),
        ("EPSG:9705", 0.001, (0.0, 0.0), 111.32),  # WGS 84 with a height, in degrees
        ("EPSG:32635", 0.3, (27.0, 60.0), 0.30012),
        ("EPSG:2263", 1.0, (-74.0, 40.7), 0.3048),  # US survey feet
        ("EPSG:4326", 1e-5, (-84.0, 36.0), 1.1096),
        ("EPSG:3035", 10.0, (10.0, 38.0), 10.0 / math.cos(math.radians(7))),  # equal area, 14 degrees from its middle
    ],
)
def test_gsd_is_measured_on_the_ground_at_the_place(
    crs: str, pixel: float, place: tuple[float, float], gsd_m: float
) -> None:
    parsed = g.parse_crs(crs)
    x, y = g.from_lonlat(parsed).transform(*place)
    found = g.ground_gsd_m(parsed, (pixel, 0.0, 0.0, 0.0, -pixel, 0.0), x, y)
    assert found == pytest.approx(gsd_m, rel=5e-4)


def test_the_gsd_of_a_turned_raster_is_that_of_a_straight_one() -> None:
    x, y = g.from_lonlat("EPSG:3857").transform(25.0, 60.0)
    turn = (0.6 * math.cos(0.5), -0.6 * math.sin(0.5), 0.0, -0.6 * math.sin(0.5), -0.6 * math.cos(0.5), 0.0)
    assert g.ground_gsd_m("EPSG:3857", turn, x, y) == pytest.approx(0.3007, rel=3e-4)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("epsg:3067", "EPSG:3067"),
        ("urn:ogc:def:crs:EPSG::3067", "EPSG:3067"),
        ("urn:x-ogc:def:crs:EPSG:6.9:3067", "EPSG:3067"),
        ("http://www.opengis.net/def/crs/EPSG/0/3067", "EPSG:3067"),
        ("http://www.opengis.net/gml/srs/epsg.xml#3067", "EPSG:3067"),
        ("ESRI:102001", "ESRI:102001"),
        ("25832", "EPSG:25832"),
        *(
            (name, "EPSG:3857")
            for name in ("ESRI:102100", "esri:102113", "EPSG:900913", "900913", "#3857", "OSGEO:41001")
        ),
        ("urn:ogc:def:crs:ESRI::102100", "EPSG:3857"),
        ("CRS:84", "OGC:CRS84"),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "OGC:CRS84"),
    ],
)
def test_a_crs_is_known_by_all_its_names(name: str, label: str) -> None:
    assert g.crs_label(name) == label
    assert g.parse_crs(name) == CRS.from_user_input(label)


def test_wkt_stays_what_it_is_and_loses_its_height() -> None:
    flat = CRS.from_epsg(28992)
    assert g.crs_label(flat.to_wkt()) == flat.to_wkt()
    assert g.parse_crs(CRS.from_epsg(7415).to_wkt()) == g.parse_crs("EPSG:7415") == flat
    assert len(g.parse_crs("EPSG:4979").axis_info) == 2
    with pytest.raises(CRSError):
        g.parse_crs("EPSG:999999")


@given(longitudes, latitudes)
def test_degrees_are_within_half_a_per_cent_of_the_ellipsoid(lon: float, lat: float) -> None:
    x, y = g.metres_per_degree(lat)
    geod = Geod(ellps="WGS84")
    east = geod.inv(lon, lat, lon + 1e-3, lat)[2] / 1e-3
    north = geod.inv(lon, lat, lon, lat + 1e-3)[2] / 1e-3
    assert x == pytest.approx(east, rel=0.007)
    assert y == pytest.approx(north, rel=0.007)


def test_utm_zones_are_those_of_known_cities() -> None:
    assert g.utm_crs(24.94, 60.17).to_epsg() == 32635
    assert g.utm_crs(32.58, 0.31).to_epsg() == 32636
    assert g.utm_crs(-43.2, -22.9).to_epsg() == 32723
    assert g.utm_crs(180.0, 10.0).to_epsg() == 32660


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_a_hash_is_a_number_below_one(parts: list[str]) -> None:
    assert 0.0 <= g.unit_hash(*parts) < 1.0


def test_a_hash_is_the_same_everywhere() -> None:
    assert g.unit_hash("seed", 1, "n5") == pytest.approx(0.5769416618051207)
    assert g.unit_hash("a", "bc") != g.unit_hash("ab", "c")
    mean = sum(g.unit_hash(i) for i in range(5000)) / 5000
    assert math.isclose(mean, 0.5, abs_tol=0.02)


@pytest.mark.parametrize(("gsd_m", "fits"), [(0.5, True), (2.0, True), (0.49, False), (2.01, False)])
def test_a_stated_gsd_may_be_wrong_by_a_factor_of_two(gsd_m: float, fits: bool) -> None:
    assert g.is_stated_gsd(gsd_m, 1.0) == fits


@given(st.floats(0.0001, 30), latitudes, st.integers(4, 18))
def test_places_beyond_180_degrees_lie_in_the_cells_of_the_other_side(beyond: float, lat: float, zoom: int) -> None:
    assert g.cell_of(180.0 + beyond, lat, zoom) == g.cell_of(-180.0 + beyond, lat, zoom)
    assert g.cell_of(-180.0 - beyond, lat, zoom) == g.cell_of(180.0 - beyond, lat, zoom)


@given(latitudes, st.integers(4, 17))
def test_a_box_across_the_antimeridian_touches_the_splits_of_both_sides(lat: float, zoom: int) -> None:
    sides = {g.split_of_cell(*g.cell_of(lon, lat, zoom)) for lon in (179.99999, -179.99999)}
    box = np.array([[179.99999, lat, 180.00001, lat]])
    assert g.touch_splits(box, zoom).tolist() == [len(sides) > 1]
