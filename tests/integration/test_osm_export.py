"""Objects compared with those of `osmium export` (Debian: osmium-tool), on random files and on every real extract.

The export runs with our area rules as its configuration, and once more with `linear_tags` left to osmium,
which then makes lines of all closed ways that are no area (see `osmium_export_config`).
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import osmium
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.osmium_config import osmium_export_config
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.tables import read_table

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("osmium") is None, reason="the osmium command (osmium-tool) is not installed"),
]

Objects = dict[str, tuple[shapely.Geometry, dict[str, str]]]


def ours(source: Path, folder: Path) -> Objects:
    name = source.name.replace(source.name.split(".")[0], "extract", 1)
    (folder / name).symlink_to(source)
    (folder / "extract.json").write_text(json.dumps({"file": name, "bbox": [-180, -90, 180, 90]}))
    write_objects(folder, folder)
    table = read_table(folder / "objects.parquet", OBJECT_SCHEMA)
    geometries = shapely.from_wkb(table["geometry"].to_numpy())
    tags = map(dict, table["tags"].to_pylist())
    return dict(zip(table["object_id"].to_pylist(), zip(geometries, tags, strict=True), strict=True))


def exported(source: Path, folder: Path) -> Objects:
    found: Objects = {}
    rules = osmium_export_config()
    for config in (rules, rules | {"linear_tags": None}):
        (folder / "config.json").write_text(json.dumps(config))
        target = folder / "export.geojsonseq"
        command = ["osmium", "export", "-c", folder / "config.json", "-x", "print_record_separator=false"]
        subprocess.run([*command, "-f", "geojsonseq", "-O", "-o", target, source], check=True, capture_output=True)
        for line in filter(None, target.read_text().splitlines()):
            feature = json.loads(line)
            tags = feature["properties"]
            osm_type, osm_id = tags.pop("@type"), tags.pop("@id")
            geometry = shapely.from_geojson(json.dumps(feature["geometry"]))
            if geometry.geom_type == "MultiPolygon" and len(geometry.geoms) == 1:
                geometry = geometry.geoms[0]
            area = "Polygon" in geometry.geom_type
            letter = "a" if area and osm_type == "way" else osm_type[0]
            if osm_type == "relation":
                tags.pop("type", None)
            found[f"{letter}{osm_id}"] = (geometry, tags)
    return found


def assert_equal(mine: Objects, theirs: Objects) -> None:
    assert set(mine) == set(theirs)
    for object_id, (geometry, tags) in mine.items():
        expected, expected_tags = theirs[object_id]
        assert tags == expected_tags, object_id
        # The export writes seven decimals.
        assert shapely.equals_exact(geometry.normalize(), expected.normalize(), 1e-7), object_id


@pytest.mark.parametrize(
    "name",
    [
        "osm/andorra.osm.pbf",
        "osm/helsinki.osm.pbf",
        "osm/liechtenstein-2013-08-03.osm.bz2",
        "osm/liechtenstein.osm.pbf",
        "osm/malta.osm.pbf",
        "osm/monaco.osm.pbf",
        "pairs/bahamas_300m/bahamas_BHS-6-18-27.osm.pbf",
        "pairs/sf_landsat7/sf_mission_bay.osm",
    ],
)
def test_every_real_object_is_that_of_osmium_export(shared_data: Path, tmp_path: Path, name: str) -> None:
    assert_equal(ours(shared_data / name, tmp_path), exported(shared_data / name, tmp_path))


# ------------------------------------------------------------------------------------------------------ random extracts

PLACES = st.tuples(st.integers(0, 4), st.integers(0, 4))
"""Few places, so that nodes coincide, edges overlap and rings touch."""

TAGS = st.dictionaries(
    st.sampled_from(["building", "highway", "leisure", "barrier", "railway", "area", "junction", "natural", "name"]),
    st.sampled_from(
        ["yes", "no", "pitch", "fence", "platform", "rail", "roundabout", "water", "cliff", "track", "x;y"]
    ),
    max_size=3,
)
NODE_IDS = st.integers(1, 24)
WAYS = st.lists(st.tuples(st.lists(NODE_IDS, max_size=9), st.booleans(), TAGS), max_size=12)
ROLES = st.sampled_from(["outer", "inner", "", "label"])
MEMBERS = st.lists(st.tuples(st.sampled_from("nwwwwr"), st.integers(1, 14), ROLES), max_size=6)
KINDS = st.sampled_from(["multipolygon", "boundary", "route"])
RELATIONS = st.lists(st.tuples(MEMBERS, KINDS, TAGS), max_size=5)


@st.composite
def extracts(draw: st.DrawFn) -> tuple[list, list, list]:
    nodes = draw(st.dictionaries(NODE_IDS, st.tuples(PLACES, TAGS), min_size=6, max_size=24))
    # Most ways use nodes that are there; some do not.
    known = st.sampled_from(sorted(nodes))
    ways = draw(st.lists(st.tuples(st.lists(known | NODE_IDS, max_size=9), st.booleans(), TAGS), max_size=12))
    rings = draw(
        st.lists(st.tuples(st.lists(known, min_size=3, max_size=7, unique=True), st.just(True), TAGS), max_size=6)
    )
    return sorted(nodes.items()), [*rings, *ways], draw(RELATIONS)


def write(extract: tuple[list, list, list], target: Path) -> None:
    nodes, ways, relations = extract
    mutable = osmium.osm.mutable
    with osmium.SimpleWriter(target, overwrite=True) as writer:
        for osm_id, ((x, y), tags) in nodes:
            writer.add_node(mutable.Node(id=osm_id, version=1, location=(10 + x / 1000, 50 + y / 1000), tags=tags))
        for osm_id, (refs, ends_meet, tags) in enumerate(ways, 1):
            closed = [*refs, refs[0]] if ends_meet and refs else refs
            writer.add_way(mutable.Way(id=osm_id, version=1, nodes=closed, tags=tags))
        for osm_id, (members, kind, tags) in enumerate(relations, 1):
            writer.add_relation(mutable.Relation(id=osm_id, version=1, members=members, tags=tags | {"type": kind}))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(extract=extracts(), ending=st.sampled_from([".osm.pbf", ".osm", ".osm.bz2"]))
def test_random_extracts_give_the_objects_of_osmium_export(extract: tuple[list, list, list], ending: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / f"random{ending}"
        write(extract, source)
        mine, theirs = ours(source, folder), exported(source, folder)
        # osmium passes areas on that GEOS finds invalid; here they are listed.
        for row in read_table(folder / "invalid.parquet").to_pylist():
            if row["reason"].startswith("polygon is not valid"):
                assert not theirs.pop(row["object_id"])[0].is_valid
        assert_equal(mine, theirs)
