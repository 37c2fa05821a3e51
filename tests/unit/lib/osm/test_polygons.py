import json
from pathlib import Path
from typing import Any

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SettingsError
from skyscript_assets.lib.osm import polygons
from skyscript_assets.lib.osm.polygons import polygon_json, read_polygon

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
    written = polygon_json(read(tmp_path, {"type": "Polygon", "coordinates": [SQUARE, HOLE]}))
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
        ("a.json", '{"type": "Polygon",\n "coordinates": [}', "line 2, column 18: this is not JSON"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.json", "9" * 5000, "this is not JSON"),
        ("a.json", {"type": "Point", "coordinates": [9, 47]}, "is needed, its type is 'Point'"),
        ("a.json", [], "is needed, its type is list"),
        ("a.json", {"type": "Feature", "geometry": None}, "geometry: a Polygon.* is needed, its type is NoneType"),
        ("a.json", {"type": "FeatureCollection"}, "features: a list is needed, this is null"),
        ("a.json", {"type": "FeatureCollection", "features": []}, "there is no ring"),
        ("a.json", {"type": "Polygon", "coordinates": []}, "there is no ring"),
        (
            "a.json",
            {"type": "Polygon", "coordinates": [[9, 47]]},
            r"coordinates\[0\]\[0\]: a list is needed, this is 9",
        ),
        ("a.json", {"type": "Polygon", "coordinates": [[["9", 47]]]}, r"coordinates\[0\]\[0\]: .* is no pair"),
        ("a.json", {"type": "Polygon", "coordinates": [[[10**400, 47]]]}, r"\[0\]\[0\]: 1000.* is no longitude"),
        ("a.json", {"type": "MultiPolygon", "coordinates": [[SQUARE], [BOW]]}, r"coordinates\[1\]\[0\]: the ring is"),
        (
            "a.json",
            {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": "Point"}}]},
            r"features\[0\]\.geometry: a Polygon.* is needed",
        ),
        (
            "a.json",
            {"type": "Polygon", "crs": {"properties": {"name": "EPSG:2056"}}, "coordinates": [SQUARE]},
            "crs: .*EPSG:2056.*must be longitude and latitude",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: Any, problem: str) -> None:
    with pytest.raises(CorruptInputError, match=rf"^{tmp_path}/{name}.* ?{problem}"):
        read(tmp_path, content, name)


def test_a_file_that_is_no_text_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a.poly").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptInputError, match=r"a\.poly is not UTF-8 text"):
        read_polygon(tmp_path / "a.poly")


def test_a_missing_file_and_an_unknown_ending_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"gone\.poly cannot be opened \(No such file"):
        read_polygon(tmp_path / "gone.poly")
    with pytest.raises(SettingsError, match=r"a\.shp is no polygon: give a file that ends in \.poly"):
        read_polygon(tmp_path / "a.shp")


def test_the_number_of_vertices_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MAX_VERTICES", 9)
    circle = [[x, y] for x, y in shapely.Point(9, 47).buffer(0.1).exterior.coords]
    with pytest.raises(CorruptInputError, match=r"coordinates\[0\]: 64 vertices, at most 9 are used"):
        read(tmp_path, {"type": "Polygon", "coordinates": [circle]})
    with pytest.raises(CorruptInputError, match="10 vertices, at most 9 are used"):
        read(tmp_path, {"type": "Polygon", "coordinates": [SQUARE, HOLE]})
    monkeypatch.setattr(polygons, "MAX_BYTES", 10)
    with pytest.raises(CorruptInputError, match=r"ground\.geojson has \d+ bytes, at most 10 are read"):
        read(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})


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
