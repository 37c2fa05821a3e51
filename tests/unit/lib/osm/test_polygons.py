import json
import re
from pathlib import Path
from typing import Any

import geopandas
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SettingsError
from skyscript_assets.lib.osm import polygons
from skyscript_assets.lib.osm.polygons import polygon_digest, read_polygon

SQUARE = [[9, 47], [10, 47], [10, 48], [9, 48], [9, 47]]
HOLE = [[9.4, 47.4], [9.6, 47.4], [9.6, 47.6], [9.4, 47.6], [9.4, 47.4]]
ISLAND = [[9.45, 47.45], [9.55, 47.45], [9.55, 47.55], [9.45, 47.55], [9.45, 47.45]]
RINGED = shapely.Polygon(SQUARE, [HOLE])


def section(name: str, ring: list[list[float]]) -> str:
    return "\n".join([name, *(f"   {x:.6E}   {y:.6E}" for x, y in ring), "END\n"])


def poly(*sections: str) -> str:
    return "here\n" + "".join(sections) + "END\n"


def read(folder: Path, content: Any, name: str = "ground.geojson") -> Any:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_polygon(folder / name)


def test_a_poly_file_has_rings_and_holes(tmp_path: Path) -> None:
    ground = read(tmp_path, poly(section("1", SQUARE), section("!2", HOLE)), "ground.poly")
    assert ground.equals(RINGED)


def test_the_sections_of_a_poly_file_are_applied_in_their_order(tmp_path: Path) -> None:
    sections = section("1", SQUARE), section("!2", HOLE), section("3", ISLAND)
    ground = read(tmp_path, poly(*sections), "ground.poly")
    assert ground.equals(RINGED.union(shapely.Polygon(ISLAND)))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_rings_of_a_poly_file_may_be_open_and_its_lines_end_in_any_way(tmp_path: Path, newline: str) -> None:
    text = poly(section("1", SQUARE[:-1])).replace("\n", newline)
    assert read(tmp_path, text, "ground.poly").equals(shapely.box(9, 47, 10, 48))


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Polygon", "coordinates": [SQUARE, HOLE]},
        {"type": "Polygon", "coordinates": [[[x, y, 12.5] for x, y in SQUARE[::-1]], HOLE]},
        {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE]]},
        {"type": "Feature", "properties": None, "geometry": {"type": "Polygon", "coordinates": [SQUARE, HOLE]}},
        {
            "type": "FeatureCollection",
            "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
            "features": [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE, HOLE]}}],
        },
    ],
)
def test_every_kind_of_geojson_polygon_is_read(tmp_path: Path, document: dict[str, Any]) -> None:
    assert read(tmp_path, document).equals(RINGED)


def test_a_hole_is_taken_from_its_own_polygon_alone(tmp_path: Path) -> None:
    ground = read(tmp_path, {"type": "MultiPolygon", "coordinates": [[ISLAND], [SQUARE, HOLE]]})
    assert ground.equals(RINGED.union(shapely.Polygon(ISLAND)))


def test_overlapping_polygons_become_one(tmp_path: Path) -> None:
    beside = [[x + 0.5, y] for x, y in SQUARE]
    ground = read(tmp_path, {"type": "MultiPolygon", "coordinates": [[SQUARE], [beside]]})
    assert ground.equals(shapely.box(9, 47, 10.5, 48))


def test_a_polygon_is_written_as_geojson_with_its_holes(tmp_path: Path) -> None:
    written = json.loads(shapely.to_geojson(read(tmp_path, {"type": "Polygon", "coordinates": [SQUARE, HOLE]})))
    assert (written["type"], len(written["coordinates"])) == ("Polygon", 2)
    assert shapely.LinearRing(written["coordinates"][0]).is_ccw
    assert not shapely.LinearRing(written["coordinates"][1]).is_ccw
    assert read(tmp_path, written, "again.json").equals(RINGED)


BOW = [[9, 47], [10, 48], [10, 47], [9, 48], [9, 47]]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.poly", "", "the file is empty"),
        ("a.poly", "here\n", "the last END is missing"),
        ("a.poly", "here\nEND\n", "there is no ring"),
        ("a.poly", "here\n1\n 9 47\n 10 47\n", "line 2: the END of ring '1' is missing"),
        ("a.poly", "here\n1\n 9 47\n 10\nEND\nEND\n", "line 4: '10' is no pair of longitude and latitude"),
        ("a.poly", "here\n1\n 9 47\n 10 north\nEND\nEND\n", "line 4: '10 north' is no pair"),
        ("a.poly", "here\n1\n 9 47\n 10 nan\nEND\nEND\n", "line 4: 10.0 nan is no longitude and latitude"),
        ("a.poly", "here\n1\n 9 47\n 10 97\nEND\nEND\n", "line 4: 10.0 97.0 is no longitude and latitude"),
        ("a.poly", "here\n1\n 9 47\n 10 47\n 9 47\nEND\nEND\n", "line 2: a ring of 2 different points"),
        ("a.poly", poly(section("1", BOW)), "line 2: the ring is not valid: Self-intersection"),
        ("a.poly", poly(section("1", HOLE), section("!2", SQUARE)), "the holes leave nothing"),
        ("a.poly", poly(section("1", SQUARE)) + "more\n", "line 10: 'more' stands after the last END"),
        ("a.json", '{"type": "Polygon",\n "coordinates": [}', "cannot be read as .json .*JSON parsing error"),
        ("a.json", "[" * 100_000, "cannot be read as .json"),
        ("a.json", "9" * 5000, "cannot be read as .json"),
        (
            "a.json",
            {"type": "Point", "coordinates": [9, 47]},
            "layer 'a', feature 1: a polygon is needed, it has Point",
        ),
        ("a.json", [], "cannot be read as .json"),
        ("a.json", {"type": "Feature", "geometry": None}, "feature 1: a polygon is needed, it has no geometry"),
        ("a.json", {"type": "FeatureCollection"}, "cannot be read .*Missing 'features'"),
        ("a.json", {"type": "FeatureCollection", "features": []}, "there is no ring"),
        ("a.json", {"type": "Polygon", "coordinates": []}, "feature 1: the polygon is not valid: it is empty"),
        ("a.json", {"type": "Polygon", "coordinates": [[9, 47]]}, "cannot be read .*Unexpected type int"),
        ("a.json", {"type": "Polygon", "coordinates": [[["9", 47]]]}, "cannot be read .*invalid 'x' coordinate"),
        (
            "a.json",
            {"type": "Polygon", "coordinates": [[SQUARE[0], [10**400, 47], *SQUARE[2:]]]},
            r"feature 1: its box \(9, 47, .*\) is none in degrees",
        ),
        (
            "a.json",
            {"type": "MultiPolygon", "coordinates": [[SQUARE], [BOW]]},
            "layer 'a', feature 1: the polygon is not valid: Self-intersection",
        ),
        ("a.json", {"type": "MultiPolygon", "coordinates": [[SQUARE], [[["x"]]]]}, "layer 'a': .*Invalid coord"),
        (
            "a.json",
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [SQUARE]}},
                    {"type": "Feature", "geometry": {"type": "Point", "coordinates": [9, 47]}},
                ],
            },
            "feature 2: a polygon is needed, it has Point",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: Any, problem: str) -> None:
    with pytest.raises(CorruptInputError, match=rf"^{tmp_path}/{name}.* ?{problem}"):
        read(tmp_path, content, name)


def test_a_file_that_is_no_text_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a.poly").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptInputError, match=r"a\.poly cannot be read as \.poly .*utf-8"):
        read_polygon(tmp_path / "a.poly")


def test_a_missing_file_and_an_unknown_ending_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"gone\.poly cannot be opened \(No such file"):
        read_polygon(tmp_path / "gone.poly")
    with pytest.raises(SettingsError, match=r"a\.vrt is no polygon: give a file that ends in \.poly, \.geojson"):
        read_polygon(tmp_path / "a.vrt")


def test_the_number_of_vertices_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MAX_VERTICES", 9)
    circle = [[x, y] for x, y in shapely.Point(9, 47).buffer(0.1).exterior.coords]
    with pytest.raises(CorruptInputError, match="65 vertices, at most 9 are used"):
        read(tmp_path, {"type": "Polygon", "coordinates": [circle]})
    with pytest.raises(CorruptInputError, match="10 vertices, at most 9 are used"):
        read(tmp_path, {"type": "Polygon", "coordinates": [SQUARE, HOLE]})
    monkeypatch.setattr(polygons, "MAX_BYTES", 10)
    with pytest.raises(CorruptInputError, match=r"ground\.geojson has \d+ bytes, at most 10 are read"):
        read(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})


def frame(crs: int | None = 4326, *shapes: shapely.Geometry) -> geopandas.GeoDataFrame:
    """A layer of features with a name each, in a CRS."""
    column = geopandas.GeoSeries(shapes or [RINGED], crs=4326)
    return geopandas.GeoDataFrame(
        {"name": ["x"] * len(column)}, geometry=column.to_crs(crs) if crs else column.set_crs(None, allow_override=True)
    )


def write(path: Path, content: geopandas.GeoDataFrame, **options: Any) -> Path:
    if path.suffix.endswith("parquet"):
        content.to_parquet(path)
    else:
        content.to_file(path, driver="KML" if path.suffix == ".kml" else None, **options)
    return path


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp", "a.fgb", "a.kml", "a.gml", "a.parquet"])
def test_vector_files_of_every_format_are_read(tmp_path: Path, name: str) -> None:
    assert read_polygon(write(tmp_path / name, frame())).equals(RINGED)


@pytest.mark.parametrize("name", ["a.geojson", "a.gpkg", "a.shp", "a.geoparquet"])
def test_coordinates_are_brought_to_degrees_with_their_edges_bent(tmp_path: Path, name: str) -> None:
    there = shapely.segmentize(RINGED, 0.01)
    found = read_polygon(write(tmp_path / name, frame(2056, there)))
    assert found.symmetric_difference(RINGED).area < 1e-6
    straight = write(tmp_path / f"straight_{name}", frame(2056))
    mapped = geopandas.GeoSeries([read_polygon(straight)], crs=4326).to_crs(2056)
    assert mapped.symmetric_difference(frame(2056).geometry).iloc[0].area < 1e-5 * mapped.area.iloc[0]


def test_all_features_of_a_layer_count(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", frame(4326, shapely.box(9, 47, 10, 48), shapely.box(9.5, 47, 10.5, 48)))
    assert read_polygon(path).equals(shapely.box(9, 47, 10.5, 48))


def test_a_file_of_several_layers_is_refused_with_their_names(tmp_path: Path) -> None:
    write(tmp_path / "a.gpkg", frame(), layer="one")
    write(tmp_path / "a.gpkg", frame(), layer="two")
    with pytest.raises(CorruptInputError, match=r"a\.gpkg: one layer .* it has 2 \('one', 'two'\): save the right one"):
        read_polygon(tmp_path / "a.gpkg")


def test_coordinates_without_or_of_another_crs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptInputError, match=r"a\.shp: layer 'a': it states no CRS: save it with one .*\.prj"):
        read_polygon(write(tmp_path / "a.shp", frame(None)))
    wrong = frame(2056).set_crs(4326, allow_override=True)
    with pytest.raises(CorruptInputError, match=r"feature 1: its box \(2.7.*e\+06.* is none in degrees: state the CRS"):
        read_polygon(write(tmp_path / "a.parquet", wrong))


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb", "a.kml", "a.gml", "a.parquet"])
def test_a_file_that_is_not_what_its_ending_says_is_corrupt(tmp_path: Path, name: str) -> None:
    for data in (b"", b"PAR1", b"SQLite format 3\0"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CorruptInputError, match=re.escape(name)):
            read_polygon(tmp_path / name)


def test_the_digest_of_a_shapefile_knows_its_crs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.shp", frame())
    first = polygon_digest(path)
    (tmp_path / "a.prj").write_text(CRS.from_epsg(2056).to_wkt("WKT1_ESRI"))
    second = polygon_digest(path)
    path.write_bytes(path.read_bytes() + b"x")
    assert None not in (first, second)
    assert len({first, second, polygon_digest(path), polygon_digest(tmp_path / "gone.shp")}) == 4


WHOLE = poly(section("1", SQUARE), section("!2", HOLE))


@given(st.integers(0, len(WHOLE.rstrip()) - 1))
def test_a_poly_file_cut_anywhere_is_corrupt(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    with pytest.raises(CorruptInputError):
        read(tmp_path_factory.mktemp("cut"), WHOLE[:cut], "ground.poly")


@given(st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=12))
def test_whatever_stands_for_coordinates_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, coordinates: Any
) -> None:
    with pytest.raises(CorruptInputError):
        read(tmp_path_factory.mktemp("any"), {"type": "MultiPolygon", "coordinates": coordinates})


def test_a_polygon_cut_at_180_degrees_becomes_one_piece(tmp_path: Path) -> None:
    sides = [shapely.box(177, -20, 180, -12), shapely.box(-180, -20, -178, -12)]
    (tmp_path / "fiji.geojson").write_text(shapely.to_geojson(shapely.MultiPolygon(sides)))
    assert read_polygon(tmp_path / "fiji.geojson").equals(shapely.box(177, -20, 182, -12))
    apart = shapely.MultiPolygon([shapely.box(170, 50, 180, 60), shapely.box(-180, 50, -66, 60)])
    (tmp_path / "wide.geojson").write_text(shapely.to_geojson(apart))
    assert read_polygon(tmp_path / "wide.geojson").equals(apart)
