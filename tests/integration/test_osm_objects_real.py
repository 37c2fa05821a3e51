"""Objects of the real extracts: recorded counts, and geometry compared with `osmium export`."""

import json
import shutil
import subprocess
from pathlib import Path

import duckdb
import numpy as np
import pytest
import shapely

from skyscript_assets.lib.osm.areas import closed_way_kind
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA, ObjectsSummary, write_objects
from skyscript_assets.lib.settings import BBox, Region, Settings
from skyscript_assets.lib.tables import read_table

pytestmark = pytest.mark.integration

WORLD = BBox(west=-180, south=-90, east=180, north=90)

COUNTS = {
    "osm/andorra.osm.pbf": (9727, 5078, 5131, 192, 107),
    "osm/helsinki.osm.pbf": (8106, 3509, 1097, 0, 432),
    "osm/liechtenstein-2013-08-03.osm.bz2": (1371, 3017, 4112, 191, 45),
    "osm/liechtenstein.osm.pbf": (16479, 9076, 23387, 50, 256),
    "osm/malta.osm.pbf": (11779, 34123, 21971, 1, 227),
    "osm/monaco.osm.pbf": (2422, 2615, 1475, 5, 33),
    "pairs/bahamas_300m/bahamas_BHS-6-18-27.osm.pbf": (47620, 12657, 53984, 4038, 94),
    "pairs/kampala_oam/kampala_buildings_derived.osm.pbf": (0, 0, 205, 0, 1),
    "pairs/sf_landsat7/alcatraz.osm": (25, 51, 32, 1, 1),
    "pairs/sf_landsat7/sf_mission_bay.osm": (198, 156, 406, 49, 1),
    "pairs/sf_landsat7/west_oakland.osm.bz2": (16, 33, 33, 5, 0),
}
"""Nodes, lines, areas inside the header's box, objects outside it, invalid objects."""


def objects_of(source: Path, out: Path, bbox: BBox | None = None) -> ObjectsSummary:
    settings = Settings.model_construct(folder=source.parent)
    stage_extract("here", Region(title="Here", path=source.name, bbox=bbox), settings, out)
    return write_objects(out, out)


@pytest.mark.parametrize("name", COUNTS)
def test_every_extract_gives_the_recorded_counts(shared_data: Path, tmp_path: Path, name: str) -> None:
    bbox = WORLD if "kampala" in name else None
    summary = objects_of(shared_data / name, tmp_path, bbox)
    assert (summary.nodes, summary.lines, summary.areas, summary.outside, summary.invalid) == COUNTS[name]
    assert sum(summary.invalid_reasons.values()) == summary.invalid
    table = read_table(tmp_path / "objects.parquet", OBJECT_SCHEMA)
    assert table.num_rows == summary.objects == len(set(table["object_id"].to_pylist()))
    geometries = shapely.from_wkb(table["geometry"].to_numpy())
    assert shapely.is_valid(geometries).all()
    first = np.array([object_id[0] for object_id in table["object_id"].to_pylist()])
    assert ((table["area_m2"].to_numpy() > 0) == np.isin(first, ["a", "r"])).all()
    assert ((table["length_m"].to_numpy() > 0) == (first != "n")).all()


@pytest.mark.parametrize("name", ["monaco", "helsinki"])
def test_geometry_is_that_of_osmium_export(shared_data: Path, tmp_path: Path, name: str) -> None:
    if shutil.which("osmium") is None:
        pytest.skip("the osmium command is not installed")
    source = shared_data / f"osm/{name}.osm.pbf"
    objects_of(source, tmp_path, WORLD)
    table = read_table(tmp_path / "objects.parquet", OBJECT_SCHEMA)
    ours = dict(zip(table["object_id"].to_pylist(), shapely.from_wkb(table["geometry"].to_numpy()), strict=True))
    theirs = exported(source, tmp_path)
    assert set(ours) == set(theirs)
    for object_id, geometry in ours.items():
        assert shapely.equals_exact(geometry.normalize(), theirs[object_id].normalize(), 1e-7), object_id


def exported(source: Path, folder: Path) -> dict[str, shapely.Geometry]:
    """Objects as `osmium export` gives them, which makes lines and areas of all closed ways; our rules choose."""
    config = {"attributes": {"type": True, "id": True}, "linear_tags": True, "area_tags": True}
    (folder / "config.json").write_text(json.dumps(config))
    target = folder / "export.geojsonseq"
    command = ["osmium", "export", "-c", folder / "config.json", "-x", "print_record_separator=false"]
    subprocess.run([*command, "-f", "geojsonseq", "-o", target, source], check=True, capture_output=True)
    found = {}
    for line in target.read_text().splitlines():
        feature = json.loads(line)
        tags = feature["properties"]
        osm_type, osm_id = tags.pop("@type"), tags.pop("@id")
        geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
        if geometry.geom_type == "MultiPolygon" and len(geometry.geoms) == 1:
            geometry = geometry.geoms[0]
        kind = "area" if "Polygon" in geometry.geom_type else "line"
        if osm_type == "way" and geometry.geom_type != "Point":
            closed = kind == "area" or geometry.is_closed
            if closed and closed_way_kind(tags) not in (kind, "both"):
                continue
            found[f"{'a' if kind == 'area' else 'w'}{osm_id}"] = geometry
        else:
            found[f"{osm_type[0]}{osm_id}"] = geometry
    return found


def test_duckdb_reads_the_tags(shared_data: Path, tmp_path: Path) -> None:
    objects_of(shared_data / "osm/monaco.osm.pbf", tmp_path)
    rows = duckdb.execute(
        "SELECT tags['building'] AS building, count(*) FROM read_parquet(?) "
        "WHERE object_id[1] = 'a' AND tags['building'] IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 2",
        [str(tmp_path / "objects.parquet")],
    ).fetchall()
    assert rows[0][0] == "yes"
    assert rows[0][1] > 400


def test_real_extracts_give_the_same_bytes_twice(shared_data: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("a", "b"):
        out = tmp_path / name
        out.mkdir()
        objects_of(shared_data / "osm/helsinki.osm.pbf", out)
        tables.append((out / "objects.parquet").read_bytes() + (out / "invalid.parquet").read_bytes())
    assert tables[0] == tables[1]
