"""Objects of the real extracts: recorded counts, whole tables, the same bytes twice."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import shapely

from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table
from tests.workshop import shared_in

pytestmark = pytest.mark.integration

WORLD = BBox(west=-180, south=-90, east=180, north=90)

COUNTS = {
    "osm/andorra.osm.pbf": (9727, 5078, 5131, 192, 50),
    "osm/helsinki.osm.pbf": (8106, 3509, 1097, 0, 432),
    "osm/liechtenstein-2013-08-03.osm.bz2": (1371, 3017, 4112, 191, 25),
    "osm/liechtenstein.osm.pbf": (16479, 9076, 23387, 50, 31),
    "osm/malta.osm.pbf": (11779, 34123, 21971, 1, 3),
    "osm/monaco.osm.pbf": (2422, 2615, 1475, 5, 33),
    "pairs/bahamas_300m/bahamas_BHS-6-18-27.osm.pbf": (47620, 12657, 53984, 4038, 4),
    "pairs/kampala_oam/kampala_buildings_derived.osm.pbf": (0, 0, 205, 0, 1),
    "pairs/sf_landsat7/alcatraz.osm": (25, 51, 32, 1, 1),
    "pairs/sf_landsat7/sf_mission_bay.osm": (198, 156, 406, 49, 1),
    "pairs/sf_landsat7/west_oakland.osm.bz2": (16, 33, 33, 5, 0),
}
"""Nodes, lines, areas inside the header's box, objects outside it, invalid objects."""


def objects_of(source: Path, out: Path, bbox: BBox | None = None) -> dict[str, Any]:
    shared = shared_in(source.parent)
    stage_extract("here", Region(title="Here", path=source.name, bbox=bbox), shared, out)
    return write_objects(out, out)


@pytest.mark.parametrize("name", COUNTS)
def test_every_extract_gives_the_recorded_counts(shared_data: Path, tmp_path: Path, name: str) -> None:
    bbox = WORLD if "kampala" in name else None
    summary = objects_of(shared_data / name, tmp_path, bbox)
    assert tuple(summary[what] for what in ("nodes", "lines", "areas", "outside", "invalid")) == COUNTS[name]
    assert sum(summary["invalid_reasons"].values()) == summary["invalid"]
    table = read_table(tmp_path / "objects.parquet", OBJECT_SCHEMA)
    ids = set(table["object_id"].to_pylist())
    assert table.num_rows == sum(summary[kind] for kind in ("nodes", "lines", "areas")) == len(ids)
    assert not ids & set(read_table(tmp_path / "invalid.parquet")["object_id"].to_pylist())
    geometries = shapely.from_wkb(table["geometry"].to_numpy())
    assert shapely.is_valid(geometries).all()
    first = np.array([object_id[0] for object_id in table["object_id"].to_pylist()])
    assert ((table["area_m2"].to_numpy() > 0) == np.isin(first, ["a", "r"])).all()
    assert ((table["length_m"].to_numpy() > 0) == (first != "n")).all()


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
