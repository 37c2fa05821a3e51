"""Extracts as people have them, from situations that were reported in public, and the stages that follow them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from pyproj import Transformer

from skyscript_assets.cli import main
from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.text import text_reason
from tests.workshop import Workshop, few_labels, ortho_files, shared_in, tiny_files, write_profile

pytestmark = pytest.mark.integration

TOWN = BBox(west=9, south=47, east=9.1, north=47.1)
FIJI = BBox(west=179.9, south=-17.1, east=-179.9, north=-16.9)


def objects_in(path: Path, folder: Path, bbox: BBox | None = None) -> dict[str, dict[str, Any]]:
    stage_extract("here", Region(title="Here", path=str(path), bbox=bbox), shared_in(folder), folder)
    write_objects(folder, folder, origin=str(path.resolve()))
    rows = read_table(folder / "objects.parquet", OBJECT_SCHEMA).to_pylist()
    return {row["object_id"]: row | {"geometry": shapely.from_wkb(row["geometry"])} for row in rows}


def test_places_stand_on_the_ways(shared_cases: Path, tmp_path: Path) -> None:
    rows = objects_in(shared_cases / "01-locations-on-ways/town.low.osm.pbf", tmp_path, TOWN)
    assert sorted(rows) == ["a1", "n22", "r1", "w2"]
    assert rows["a1"]["area_m2"] == pytest.approx(8_453.6, abs=0.05)
    assert rows["w2"]["length_m"] == pytest.approx(210.7, abs=0.05)
    assert len(rows["r1"]["geometry"].interiors) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("03-josm-action-delete/edited.osm", ["n-101", "w2"]),
        ("04-josm-negative-ids/new.osm", ["a-1", "n100"]),
        ("05-plain-and-dense-nodes/mixed.osm.pbf", ["a1", "n9"]),
        ("07-deleted-visible-false/deleted.osm", ["w2"]),
        ("07-deleted-visible-false/deleted.osm.pbf", []),
        ("14-format-corners/changeset.osm.pbf", ["a1"]),
        ("14-format-corners/nosort.osm.pbf", ["a1"]),
        ("14-format-corners/oneblock.osm.pbf", ["a1"]),
    ],
)
def test_what_the_format_and_editors_allow_is_read(
    shared_cases: Path, tmp_path: Path, name: str, expected: list[str]
) -> None:
    assert sorted(objects_in(shared_cases / name, tmp_path)) == expected


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "04-josm-negative-ids/ogr2osm.osm",
            CorruptInputError,
            r"^{path} is not sorted: .*`osmium sort`.*`osmium renumber`$",
        ),
        ("07-deleted-visible-false/history.osm.pbf", CorruptInputError, "{path} holds several versions of objects"),
        ("14-format-corners/cat.osm.pbf", CorruptInputError, "{path} is not whole .*OSMHeader in first blob"),
        ("14-format-corners/longtext.osm.pbf", CorruptInputError, "{path} is not whole .*overlong string"),
        (
            "90-places/heidelberg_like_header.osm.pbf",
            SettingsError,
            r"{path} states the box \(0.0, 0.0, 180.0, 90.0\), which .*; give regions.here.bbox",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_name_that_the_user_gave(
    shared_cases: Path, tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.format(path=(shared_cases / name).resolve())):
        objects_in(shared_cases / name, tmp_path)


@pytest.mark.parametrize(("name", "bbox"), [("fiji.osm", None), ("fiji.osm.pbf", FIJI)])
def test_the_antimeridian_is_a_line_like_others(
    shared_cases: Path, tmp_path: Path, name: str, bbox: BBox | None
) -> None:
    rows = objects_in(shared_cases / "11-antimeridian-poles" / name, tmp_path, bbox)
    assert sorted(rows) == ["a2", "a3", "n5", "n6", "w1"]
    assert rows["a2"]["area_m2"] == pytest.approx(23_569, abs=1)
    assert rows["w1"]["length_m"] == pytest.approx(213, abs=0.1)
    for row in rows.values():
        assert 179.9 <= row["bbox"]["xmin"] <= row["bbox"]["xmax"] <= 180.1


def test_fields_of_imported_registers_are_no_classes(shared_cases: Path, tmp_path: Path) -> None:
    place = BBox(west=-123.2, south=49.2, east=-123.0, north=49.4)
    rows = objects_in(shared_cases / "90-places/vancouver_geobase.osm.pbf", tmp_path, place)
    fields = {tag for row in rows.values() for tag in row["tags"] if tag[0].startswith("geobase:")}
    assert ("geobase:acquisitionTechnique", "Orthophoto") in fields
    assert {text_reason(*tag) for tag in fields} == {"identifier"}


@pytest.fixture
def fiji(tmp_path: Path, write_raster: Callable, textured: Callable) -> dict[str, Any]:
    """A profile with a square kilometre across 180 degrees, seen at one metre: a house on each side and on the line."""
    left, top = Transformer.from_crs(4326, 32760, always_xy=True).transform(179.995, -16.995)
    values = textured(1200, 1200)
    transform = Affine(1, 0, left, 0, -1, top)
    image = write_raster(tmp_path / "image.tif", values, crs="EPSG:32760", transform=transform)
    nodes, ways = [], []
    for number, west in enumerate((179.998, 179.9999, -179.998)):
        east = west + 0.0003 if west + 0.0003 < 180 else west + 0.0003 - 360
        corners = [(west, -17.0), (east, -17.0), (east, -17.0003), (west, -17.0003)]
        first = 10 * number + 1
        nodes += [f'<node id="{first + i}" lat="{y}" lon="{x:.7f}"/>' for i, (x, y) in enumerate(corners)]
        refs = "".join(f'<nd ref="{first + i % 4}"/>' for i in range(5))
        ways.append(f'<way id="{number + 1}">{refs}<tag k="building" v="yes"/></way>')
    wood = [(179.997, -16.999), (-179.997, -16.999), (-179.997, -17.002), (179.997, -17.002)]
    nodes += [f'<node id="{101 + i}" lat="{y}" lon="{x}"/>' for i, (x, y) in enumerate(wood)]
    refs = "".join(f'<nd ref="{101 + i % 4}"/>' for i in range(5))
    ways.append(f'<way id="9">{refs}<tag k="landuse" v="orchard"/></way>')
    bounds = '<bounds minlon="179.99" minlat="-17.01" maxlon="-179.99" maxlat="-16.99"/>'
    (tmp_path / "fiji.osm").write_text(f'<osm version="0.6">{bounds}{"".join(nodes)}{"".join(ways)}</osm>')
    files = ortho_files(image)
    files["plant"]["tags"]["labels"] = few_labels(tmp_path / "labels.csv")
    files["sources"]["sources"]["ORTHO"]["gsd_m"] = 1.0
    files["regions"]["regions"] = {"fiji": {"title": "Fiji", "path": str(tmp_path / "fiji.osm")}}
    return files


def test_chips_and_captions_are_made_across_the_antimeridian(fiji: dict[str, Any], tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        workshop = Workshop(write_profile(tmp_path / "profile", fiji), tmp_path / "data", instance)
        assert workshop.make("captions", ("fiji", "ORTHO")).record.counts["captions"] >= 3
        plan = read_table(workshop.store.local / "chip_plan/fiji/ORTHO/plan.parquet").to_pylist()
        captions = read_table(workshop.store.local / "captions/fiji/ORTHO/captions.parquet").to_pylist()
        chips = read_table(workshop.store.local / "image_chips/fiji/ORTHO/chips.parquet").to_pylist()
    houses = {row["object_id"]: row["bbox"] for row in plan if row["stratum"] == "building=yes"}
    assert sorted(houses) == ["a1", "a2", "a3"]
    assert all(0 < box["xmax"] - box["xmin"] < 0.01 for box in houses.values())
    assert houses["a2"]["xmin"] < 180 < houses["a2"]["xmax"]
    assert [chip["reason"] for chip in chips] == [None] * len(chips)
    around = {row["chip_id"].split("_")[0]: row["title_multi_objects"] for row in captions}
    assert all("orchard" in around[name] for name in houses), around


def test_lost_objects_are_told_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = '<node id="7" lat="0.5" lon="0.5"><tag k="natural" v="tree"/></node>'
    way = '<way id="{}"><nd ref="1"/><nd ref="2"/><nd ref="3"/><tag k="highway" v="path"/></way>'
    text = tree + "".join(way.format(number) for number in range(1, 4))
    (tmp_path / "town.osm").write_text(f'<osm version="0.6">{text}</osm>')
    files = tiny_files()
    region = {"title": "Town", "path": "../town.osm", "bbox": {"west": 0, "south": 0, "east": 1, "north": 1}}
    files["regions"]["regions"] = {"town": region}
    write_profile(tmp_path / "profile", files)
    monkeypatch.setenv("SKYSCRIPT_SETTINGS", str(tmp_path / "profile"))
    monkeypatch.setenv("SKYSCRIPT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "osm_extract/town", "osm_objects/town"])
    assert result.exit_code == 0, result.output
    assert "osm_objects.most_shaped failed (Most tagged ways and relations have a geometry." in result.output
    assert "'invalid': 3, 'invalid_reasons': {'nodes missing from the extract': 3}" in result.output
