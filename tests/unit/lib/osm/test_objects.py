import bz2
import datetime as dt
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import osmium
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Geod

from skyscript_assets.lib.errors import CorruptInputError, NoSpaceError, UpstreamMissingError
from skyscript_assets.lib.osm.objects import INVALID_SCHEMA, OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.tables import read_table

NODES = """
<node id="1" lat="0.1" lon="0.1" version="1"/><node id="2" lat="0.1" lon="0.2" version="1"/>
<node id="3" lat="0.2" lon="0.2" version="1"/><node id="4" lat="0.2" lon="0.1" version="1"/>
<node id="11" lat="0.13" lon="0.13" version="1"/><node id="12" lat="0.13" lon="0.17" version="1"/>
<node id="13" lat="0.17" lon="0.17" version="1"/><node id="14" lat="0.17" lon="0.13" version="1"/>
<node id="21" lat="5" lon="5" version="1"/><node id="22" lat="5" lon="5.1" version="1"/>
<node id="23" lat="5.1" lon="5.1" version="1"/>
"""
SQUARE = (1, 2, 3, 4, 1)
HOLE = (11, 12, 13, 14, 11)


def tags_xml(tags: dict[str, str]) -> str:
    return "".join(f'<tag k="{k}" v="{v}"/>' for k, v in tags.items())


def way(osm_id: int, nodes: tuple[int, ...], **tags: str) -> str:
    refs = "".join(f'<nd ref="{ref}"/>' for ref in nodes)
    return f'<way id="{osm_id}" version="2" timestamp="2020-02-03T04:05:06Z">{refs}{tags_xml(tags)}</way>'


def relation(osm_id: int, members: list[tuple[str, int, str]], **tags: str) -> str:
    parts = "".join(f'<member type="{t}" ref="{ref}" role="{role}"/>' for t, ref, role in members)
    return f'<relation id="{osm_id}" version="3">{parts}{tags_xml(tags)}</relation>'


def staged(folder: Path, *objects: str, bbox: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)) -> Path:
    text = f'<?xml version="1.0"?><osm version="0.6">{NODES}{"".join(objects)}</osm>'
    (folder / "extract.osm").write_text(text)
    (folder / "extract.json").write_text(json.dumps({"file": "extract.osm", "bbox": bbox}))
    return folder


def objects_of(folder: Path) -> dict[str, dict]:
    write_objects(folder, folder)
    rows = read_table(folder / "objects.parquet", OBJECT_SCHEMA).to_pylist()
    return {row["object_id"]: row | {"geometry": shapely.from_wkb(row["geometry"])} for row in rows}


def invalid_of(folder: Path) -> dict[str, str]:
    rows = read_table(folder / "invalid.parquet", INVALID_SCHEMA).to_pylist()
    return {row["object_id"]: row["reason"] for row in rows}


def test_a_tagged_node_is_a_point(tmp_path: Path) -> None:
    node = '<node id="30" lat="0.5" lon="0.25" version="7"><tag k="natural" v="tree"/></node>'
    row = objects_of(staged(tmp_path, node))["n30"]
    assert row["geometry"] == shapely.Point(0.25, 0.5)
    assert row["bbox"] == {"xmin": 0.25, "ymin": 0.5, "xmax": 0.25, "ymax": 0.5}
    assert (row["osm_type"], row["osm_id"], row["version"], row["timestamp"]) == ("node", 30, 7, None)
    assert (row["area_m2"], row["length_m"]) == (0, 0)
    assert dict(row["tags"]) == {"natural": "tree"}


def test_a_closed_building_is_an_area_with_its_measures(tmp_path: Path) -> None:
    rows = objects_of(staged(tmp_path, way(100, SQUARE, building="yes", name="Ä")))
    assert list(rows) == ["a100"]
    row = rows["a100"]
    assert row["geometry"].equals(shapely.box(0.1, 0.1, 0.2, 0.2))
    assert row["geometry"].geom_type == "Polygon"
    assert row["osm_type"] == "way"
    assert row["timestamp"] == dt.datetime(2020, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
    assert dict(row["tags"]) == {"building": "yes", "name": "Ä"}
    assert row["area_m2"] == pytest.approx(11_132 * 11_057, rel=5e-3)
    assert row["length_m"] == pytest.approx(2 * (11_132 + 11_057), rel=5e-3)


def test_a_roundabout_stays_a_line(tmp_path: Path) -> None:
    rows = objects_of(staged(tmp_path, way(100, SQUARE, highway="primary", junction="roundabout")))
    assert list(rows) == ["w100"]
    assert rows["w100"]["geometry"].geom_type == "LineString"
    assert rows["w100"]["area_m2"] == 0
    assert rows["w100"]["length_m"] > 40_000


def test_a_fenced_pitch_is_a_line_and_an_area_with_the_same_tags(tmp_path: Path) -> None:
    rows = objects_of(staged(tmp_path, way(100, SQUARE, leisure="pitch", barrier="fence")))
    assert sorted(rows) == ["a100", "w100"]
    assert rows["a100"]["tags"] == rows["w100"]["tags"]


def test_an_open_way_is_a_line_whatever_its_tags(tmp_path: Path) -> None:
    assert list(objects_of(staged(tmp_path, way(100, SQUARE[:4], building="yes", area="yes")))) == ["w100"]


def test_untagged_ways_and_relations_without_more_than_a_type_are_no_objects(tmp_path: Path) -> None:
    members = [("w", 100, "outer")]
    folder = staged(tmp_path, way(100, SQUARE), relation(200, members, type="route"))
    assert objects_of(folder) == {}
    assert invalid_of(folder) == {}


@pytest.mark.parametrize("kind", ["multipolygon", "boundary"])
def test_a_relation_with_a_hole_is_one_area(tmp_path: Path, kind: str) -> None:
    members = [("w", 100, "outer"), ("w", 101, "outer"), ("w", 102, "inner")]
    parts = [way(100, SQUARE[:3]), way(101, (3, 4, 1)), way(102, HOLE, natural="water")]
    rows = objects_of(staged(tmp_path, *parts, relation(200, members, type=kind, landuse="forest")))
    assert sorted(rows) == ["a102", "r200"]
    forest = rows["r200"]
    assert dict(forest["tags"]) == {"landuse": "forest"}
    assert (forest["osm_type"], forest["osm_id"], forest["version"]) == ("relation", 200, 3)
    assert len(forest["geometry"].interiors) == 1
    assert forest["area_m2"] == pytest.approx(rows["a102"]["area_m2"] * (1 / 0.16 - 1), rel=1e-3)


def test_two_outer_rings_stay_a_multipolygon(tmp_path: Path) -> None:
    parts = [way(100, SQUARE), way(101, (21, 22, 23, 21))]
    members = [("w", 100, "outer"), ("w", 101, "outer")]
    folder = staged(tmp_path, *parts, relation(200, members, type="multipolygon", natural="water"))
    assert objects_of(folder)["r200"]["geometry"].geom_type == "MultiPolygon"
    geo = json.loads(pq.read_schema(folder / "objects.parquet").metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["MultiPolygon"]
    assert "covering" in geo["columns"]["geometry"]


def test_objects_outside_the_region_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = staged(
        tmp_path,
        way(100, (21, 22, 23), highway="track"),
        way(101, (4, 21), highway="track"),
    )
    summary = write_objects(folder, folder)
    assert summary == {"nodes": 0, "lines": 1, "areas": 0, "outside": 1, "invalid": 0, "invalid_reasons": {}}


@pytest.mark.parametrize(
    ("objects", "object_id", "reason"),
    [
        (['<node id="30" version="1"><tag k="a" v="b"/></node>'], "n30", "node without a location"),
        ([way(100, (1,), highway="path")], "w100", "line of fewer than two places"),
        ([way(100, (1, 1), highway="path")], "w100", "line of fewer than two places"),
        ([way(100, (), highway="path")], "w100", "line of fewer than two places"),
        ([way(100, (1, 99), highway="path")], "w100", "nodes missing from the extract"),
        ([way(100, (99, 1, 2), highway="path")], "w100", "nodes missing from the extract"),
        ([way(100, (1, 99, 2), highway="path")], "w100", "nodes missing from the extract"),
        ([way(100, (1, 2, 99, 1), building="yes")], "a100", "nodes missing from the extract"),
        ([way(100, (99, 1, 2, 3, 99), building="yes")], "a100", "nodes missing from the extract"),
        ([way(100, (1, 2, 1), building="yes")], "a100", "area of fewer than four nodes"),
        ([way(100, (1, 3, 2, 4, 1), building="yes")], "a100", "rings cross or do not close"),
        (
            [way(100, SQUARE[:3]), relation(200, [("w", 100, "outer")], type="multipolygon", landuse="x")],
            "r200",
            "rings cross or do not close",
        ),
        (
            [way(100, SQUARE), relation(200, [("w", 100, ""), ("w", 9, "")], type="boundary", landuse="x")],
            "r200",
            "members missing from the extract",
        ),
        ([relation(200, [("n", 1, "")], type="multipolygon", landuse="x")], "r200", "relation without ways"),
    ],
)
def test_what_has_no_geometry_is_listed_with_its_reason(
    tmp_path: Path, objects: list[str], object_id: str, reason: str
) -> None:
    folder = staged(tmp_path, *objects)
    summary = write_objects(folder, folder)
    assert invalid_of(folder) == {object_id: reason}
    assert (summary["areas"], summary["invalid"], summary["invalid_reasons"]) == (0, 1, {reason: 1})


def test_an_area_that_was_made_is_not_listed_as_invalid(tmp_path: Path) -> None:
    members = [("w", 100, "outer"), ("w", 102, "inner")]
    parts = [way(100, SQUARE, natural="wood"), way(102, HOLE, natural="water")]
    folder = staged(tmp_path, *parts, relation(200, members, type="multipolygon", landuse="forest"))
    assert sorted(objects_of(folder)) == ["a100", "a102", "r200"]
    assert invalid_of(folder) == {}


@pytest.mark.parametrize("swap", [(0, 1), (1, 2), (0, 2)])
def test_an_extract_that_is_not_sorted_by_kind_is_refused(tmp_path: Path, swap: tuple[int, int]) -> None:
    kinds = [NODES, way(100, SQUARE, building="yes"), relation(200, [("w", 100, "outer")], type="boundary", a="b")]
    kinds[swap[0]], kinds[swap[1]] = kinds[swap[1]], kinds[swap[0]]
    (tmp_path / "extract.osm").write_text(f'<osm version="0.6">{"".join(kinds)}</osm>')
    (tmp_path / "extract.json").write_text(json.dumps({"file": "extract.osm", "bbox": [0, 0, 1, 1]}))
    with pytest.raises(CorruptInputError, match=r"not sorted.*osmium sort"):
        write_objects(tmp_path, tmp_path)


def test_an_extract_that_is_not_sorted_by_id_is_refused(tmp_path: Path) -> None:
    folder = staged(tmp_path, way(101, SQUARE, building="yes"), way(100, HOLE, building="yes"))
    with pytest.raises(CorruptInputError, match=r"not sorted.*osmium sort"):
        write_objects(folder, folder)


def test_ids_beyond_the_whole_numbers_of_a_float_are_kept(tmp_path: Path) -> None:
    large = (1 << 53) + 1
    node = f'<node id="{large}" lat="0.5" lon="0.25" version="1"><tag k="a" v="b"/></node>'
    row = objects_of(staged(tmp_path, node, way(large, SQUARE, building="yes")))
    assert {f"n{large}", f"a{large}"} == set(row)
    assert row[f"a{large}"]["osm_id"] == large


def test_ids_of_an_editor_are_negative_and_found(tmp_path: Path) -> None:
    nodes = "".join(
        f'<node id="{-i}" lat="{lat}" lon="{lon}"/>' for i, lon, lat in [(1, 0.1, 0.1), (2, 0.2, 0.1), (3, 0.2, 0.2)]
    )
    text = f'<osm version="0.6">{nodes}{way(-5, (-1, -2, -3, -1), building="yes")}</osm>'
    (tmp_path / "extract.osm").write_text(text)
    (tmp_path / "extract.json").write_text(json.dumps({"file": "extract.osm", "bbox": [0, 0, 1, 1]}))
    row = objects_of(tmp_path)["a-5"]
    assert row["geometry"].equals(shapely.Polygon([(0.1, 0.1), (0.2, 0.1), (0.2, 0.2)]))


def test_text_of_every_kind_is_kept_to_the_letter(tmp_path: Path) -> None:
    odd = {"name": "\u202eעברית\u200b", "note": "x" * 255, "a=b,c %": "tab\tand\u0001 @ = %", "ключ": "日本 \U0001f3e0"}
    path = tmp_path / "extract.osm.pbf"
    with osmium.SimpleWriter(path) as writer:
        writer.add_node(osmium.osm.mutable.Node(id=1, version=1, location=(0.5, 0.5), tags=odd))
    (tmp_path / "extract.json").write_text(json.dumps({"file": path.name, "bbox": [0, 0, 1, 1]}))
    assert dict(objects_of(tmp_path)["n1"]["tags"]) == odd


def test_a_relation_of_ten_thousand_members_is_one_area(tmp_path: Path) -> None:
    count = 10_000
    nodes, ways, members = [], [], []
    for i in range(count):
        x, y = i % 100 / 100, i // 100 / 100
        corners = [(x, y), (x + 0.004, y), (x, y + 0.004)]
        first = 100 + 3 * i
        nodes += [osmium.osm.mutable.Node(id=first + k, version=1, location=c) for k, c in enumerate(corners)]
        ways.append(osmium.osm.mutable.Way(id=i + 1, version=1, nodes=[first, first + 1, first + 2, first]))
        members.append(("w", i + 1, "outer"))
    path = tmp_path / "extract.osm.pbf"
    with osmium.SimpleWriter(path) as writer:
        for node in nodes:
            writer.add_node(node)
        for item in ways:
            writer.add_way(item)
        tags = {"type": "multipolygon", "natural": "wood"}
        writer.add_relation(osmium.osm.mutable.Relation(id=1, version=1, members=members, tags=tags))
    (tmp_path / "extract.json").write_text(json.dumps({"file": path.name, "bbox": [0, 0, 2, 2]}))
    row = objects_of(tmp_path)["r1"]
    assert len(row["geometry"].geoms) == count
    assert row["geometry"].area == pytest.approx(count * 0.004**2 / 2)


def test_the_ground_may_be_a_polygon(tmp_path: Path) -> None:
    folder = staged(
        tmp_path,
        way(100, SQUARE, building="yes"),
        way(101, (21, 22, 23), highway="path"),
        way(102, HOLE, natural="water"),
    )
    facts = {"file": "extract.osm", "bbox": [0.0, 0.0, 0.2, 0.2]}
    corner = shapely.Polygon([(0.0, 0.0), (0.22, 0.0), (0.0, 0.22)])
    (folder / "extract.json").write_text(json.dumps(facts | {"polygon": json.loads(shapely.to_geojson(corner))}))
    assert list(objects_of(folder)) == ["a100"]
    assert write_objects(folder, folder)["outside"] == 2


def test_many_buckets_give_the_table_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    nodes = "".join(
        f'<node id="{100 + i}" lat="{rng.random():.7f}" lon="{rng.random():.7f}"><tag k="a" v="{i}"/></node>'
        for i in range(500)
    )
    one, many = tmp_path / "one", tmp_path / "many"
    for folder in (one, many):
        folder.mkdir()
        write_objects(staged(folder, nodes, way(7, SQUARE, building="yes")), folder)
        monkeypatch.setattr("skyscript_assets.lib.osm.objects.BUCKET_BYTES", 2000)
    tables = [pq.read_table(folder / "objects.parquet") for folder in (one, many)]
    assert tables[0].equals(tables[1])
    assert sorted(path.name for path in many.iterdir()) == sorted(path.name for path in one.iterdir())


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    folder = staged(tmp_path, way(100, SQUARE, building="yes"))
    (folder / ".scratch").mkdir()
    (folder / ".scratch" / "members.opl").write_text("half a line")
    assert list(objects_of(folder)) == ["a100"]
    assert not (folder / ".scratch").exists()


@pytest.mark.parametrize("kind", ["osm", "osm.pbf"])
def test_a_full_disk_is_told_as_such_and_leaves_nothing(tmp_path: Path, small_disk: Path, kind: str) -> None:
    path = tmp_path / f"extract.{kind}"
    with osmium.SimpleWriter(path) as writer:
        for i in range(9000):
            place = (i / 1e5, 0.5)
            writer.add_node(osmium.osm.mutable.Node(id=i, version=1, location=place, tags={"a": str(i)}))
    (tmp_path / "extract.json").write_text(json.dumps({"file": path.name, "bbox": [0, 0, 1, 1]}))
    with pytest.raises((NoSpaceError, OSError), match="[Nn]o space|are free"):
        write_objects(tmp_path, small_disk)
    assert list(small_disk.iterdir()) == []


def test_an_extract_that_holds_a_way_twice_is_refused(tmp_path: Path) -> None:
    path = way(100, SQUARE[:3], highway="path")
    with pytest.raises(CorruptInputError, match=r"holds w100 more than once.*osmium merge"):
        objects_of(staged(tmp_path, path, path))


def test_an_extract_that_holds_a_node_twice_is_refused(tmp_path: Path) -> None:
    node = '<node id="30" lat="0.5" lon="0.25" version="7"><tag k="natural" v="tree"/></node>'
    with pytest.raises(CorruptInputError, match=r"holds n30 more than once"):
        objects_of(staged(tmp_path, node, node))


def test_a_deleted_object_is_ignored(tmp_path: Path) -> None:
    node = '<node id="30" version="2" visible="false"><tag k="natural" v="tree"/></node>'
    folder = staged(tmp_path, node)
    assert objects_of(folder) == {}
    assert invalid_of(folder) == {}


def test_what_an_editor_marks_for_deletion_is_dropped_and_what_needs_it_is_named(tmp_path: Path) -> None:
    node = '<node id="{}" lat="0.5" lon="0.25" action="{}"><tag k="natural" v="tree"/></node>'
    gone = way(103, HOLE).replace("<way ", '<way action="delete" ')
    folder = staged(
        tmp_path,
        *(node.format(i, action) for i, action in ((30, "delete"), (31, "modify"))),
        way(100, SQUARE, building="yes"),
        way(101, (30, 31), highway="path"),
        gone,
        relation(200, [("w", 100, "outer"), ("w", 103, "inner")], type="multipolygon", natural="water"),
        relation(201, [("w", 100, "outer")], type="boundary", a="b").replace(
            "<relation ", "<relation action='delete' "
        ),
    )
    assert sorted(objects_of(folder)) == ["a100", "n31"]
    assert invalid_of(folder) == {"r200": "members missing from the extract", "w101": "nodes missing from the extract"}


@pytest.mark.parametrize("pack", [bz2.compress, gzip.compress])
def test_marks_of_deletion_are_seen_in_packed_files(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    folder = staged(tmp_path, way(100, SQUARE, building="yes").replace("<way ", '<way action="delete" '))
    name = "extract.osm.bz2" if pack is bz2.compress else "extract.osm.gz"
    (folder / name).write_bytes(pack((folder / "extract.osm").read_bytes()))
    (folder / "extract.json").write_text(json.dumps({"file": name, "bbox": [0, 0, 1, 1]}))
    assert objects_of(folder) == {}


def test_the_places_that_ways_carry_are_used_and_those_of_nodes_where_they_do_not(tmp_path: Path) -> None:
    path = tmp_path / "extract.osm.pbf"
    corners = [(0.1, 0.1), (0.2, 0.1), (0.2, 0.2)]
    with osmium.SimpleWriter(tmp_path / "nodes.osm.pbf") as writer:
        for i, place in enumerate(corners, start=1):
            writer.add_node(osmium.osm.mutable.Node(id=i, version=1, location=place))
        for i in (1, 2):
            tags = {"building": "yes"}
            writer.add_way(osmium.osm.mutable.Way(id=i, version=1, nodes=[1, 2, 3, 1], tags=tags))
    located = osmium.FileProcessor(tmp_path / "nodes.osm.pbf", osmium.osm.WAY | osmium.osm.NODE).with_locations()
    with osmium.SimpleWriter(osmium.io.File(str(path), "pbf,locations_on_ways=true")) as writer:
        for item in located:
            if item.is_way():
                writer.add(item)
    (tmp_path / "extract.json").write_text(json.dumps({"file": path.name, "bbox": [0, 0, 1, 1]}))
    rows = objects_of(tmp_path)
    assert sorted(rows) == ["a1", "a2"]
    assert rows["a1"]["geometry"].equals(shapely.Polygon(corners))


def test_messages_name_the_file_that_the_user_gave(tmp_path: Path) -> None:
    folder = staged(tmp_path, way(101, SQUARE, building="yes"), way(100, HOLE, building="yes"))
    with pytest.raises(CorruptInputError) as refused:
        write_objects(folder, folder, origin="/home/me/town.osm")
    message = str(refused.value)
    assert message.startswith("/home/me/town.osm is not sorted: nodes, ways and relations must follow each other by id")
    assert message.endswith("bring it in order with `osmium sort`, or give it new ids with `osmium renumber`")


ACROSS = """
<node id="1" lat="-17" lon="179.999"/><node id="2" lat="-17" lon="-179.999"/>
<node id="3" lat="-17.001" lon="-179.999"/><node id="4" lat="-17.001" lon="179.999"/>
<node id="11" lat="-17.0003" lon="179.9997"/><node id="12" lat="-17.0003" lon="-179.9997"/>
<node id="13" lat="-17.0007" lon="-179.9997"/><node id="14" lat="-17.0007" lon="179.9997"/>
<node id="15" lat="-17.1" lon="-179.95"><tag k="natural" v="tree"/></node>
<node id="21" lat="89.9" lon="0"/><node id="22" lat="89.9" lon="120"/><node id="23" lat="89.9" lon="-120"/>
<node id="24" lat="-89.9" lon="10"/><node id="25" lat="-89.9" lon="10.4"/><node id="26" lat="-89.9005" lon="10.4"/>
"""
FIJI = (179.9, -17.2, 180.1, -16.9)


def across(folder: Path, bbox: tuple[float, ...], *objects: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "extract.osm").write_text(f'<osm version="0.6">{ACROSS}{"".join(objects)}</osm>')
    (folder / "extract.json").write_text(json.dumps({"file": "extract.osm", "bbox": bbox}))
    return folder


def geodesic_m2(*rings: list[tuple[float, float]]) -> float:
    areas = [abs(Geod(ellps="WGS84").polygon_area_perimeter(*zip(*ring, strict=True))[0]) for ring in rings]
    return areas[0] - sum(areas[1:])


OUTER = [(179.999, -17), (180.001, -17), (180.001, -17.001), (179.999, -17.001)]
INNER = [(179.9997, -17.0003), (180.0003, -17.0003), (180.0003, -17.0007), (179.9997, -17.0007)]


def test_objects_across_the_antimeridian_have_their_measures_and_boxes(tmp_path: Path) -> None:
    members = [("w", 101, "outer"), ("w", 102, "outer"), ("w", 103, "inner")]
    folder = across(
        tmp_path,
        FIJI,
        way(100, SQUARE, building="yes"),
        way(101, SQUARE[:3]),
        way(102, SQUARE[2:], highway="path"),
        way(103, HOLE, natural="wood"),
        relation(200, members, type="multipolygon", natural="water"),
    )
    rows = objects_of(folder)
    assert sorted(rows) == ["a100", "a103", "n15", "r200", "w102"]
    assert rows["a100"]["area_m2"] == pytest.approx(geodesic_m2(OUTER), rel=1e-4)
    assert rows["r200"]["area_m2"] == pytest.approx(geodesic_m2(OUTER, INNER), rel=1e-4)
    assert rows["w102"]["length_m"] == pytest.approx(213 + 110.66, rel=1e-3)
    assert rows["r200"]["geometry"].equals(shapely.Polygon(OUTER, [INNER]))
    assert rows["a100"]["bbox"] == {"xmin": 179.999, "ymin": -17.001, "xmax": 180.001, "ymax": -17.0}
    assert rows["n15"]["geometry"] == shapely.Point(180.05, -17.1)


@pytest.mark.parametrize(
    ("west", "east", "low"), [(179.9, 180.0, 179.999), (-180.0, -179.9, -180.001), (-180, 180, 179.999)]
)
def test_a_region_that_ends_at_the_antimeridian_has_what_reaches_over_it(
    tmp_path: Path, west: float, east: float, low: float
) -> None:
    folder = across(tmp_path, (west, -18.0, east, -16.0), way(100, SQUARE, building="yes"))
    row = objects_of(folder)["a100"]
    assert row["bbox"]["xmin"], row["bbox"]["xmax"] == pytest.approx((low, low + 0.002))
    assert row["area_m2"] == pytest.approx(geodesic_m2(OUTER), rel=1e-4)


def test_what_lies_around_a_pole_is_refused_and_what_lies_beside_it_is_measured(tmp_path: Path) -> None:
    pole = (21, 22, 23, 21)
    folder = across(
        tmp_path,
        (-180.0, -90.0, 180.0, 90.0),
        way(100, pole, building="yes"),
        way(101, pole[:3], highway="path"),
        way(102, (24, 25, 26, 24), building="yes"),
        relation(200, [("w", 100, "outer")], type="multipolygon", natural="water"),
    )
    rows = objects_of(folder)
    assert sorted(rows) == ["a102", "n15"]
    assert rows["a102"]["area_m2"] == pytest.approx(
        geodesic_m2([(10, -89.9), (10.4, -89.9), (10.4, -89.9005)]), rel=1e-2
    )
    refused = invalid_of(folder)
    assert set(refused) == {"a100", "w101", "r200"}
    assert (
        refused["a100"] == refused["w101"] == "around a pole, or across 180 degrees in a region that does not end there"
    )


def test_an_extract_without_objects_gives_empty_tables(tmp_path: Path) -> None:
    folder = staged(tmp_path)
    summary = write_objects(folder, folder)
    assert not any((summary["nodes"], summary["outside"], summary["invalid"]))
    assert objects_of(folder) == invalid_of(folder) == {}


def test_equal_extracts_give_equal_bytes(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        write_objects(staged(folder, way(7, SQUARE, building="yes"), way(8, HOLE, natural="water")), folder)
        results.append((folder / "objects.parquet").read_bytes() + (folder / "invalid.parquet").read_bytes())
    assert results[0] == results[1]


def test_neighbours_on_the_ground_are_near_in_the_table(tmp_path: Path) -> None:
    corners = [(0.1, 0.1), (0.9, 0.9), (0.1001, 0.1), (0.9001, 0.9)]
    nodes = [
        f'<node id="{30 + i}" lat="{lat}" lon="{lon}" version="1"><tag k="a" v="b"/></node>'
        for i, (lon, lat) in enumerate(corners)
    ]
    order = list(objects_of(staged(tmp_path, *nodes)))
    assert abs(order.index("n30") - order.index("n32")) == 1
    assert abs(order.index("n31") - order.index("n33")) == 1


def test_progress_ends_with_all_blocks(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    folder = staged(tmp_path, way(7, SQUARE, building="yes"))
    write_objects(folder, folder, lambda *args: told.append(args))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][0] == told[-1][1] > 0
    assert {unit for _, _, unit in told} == {"blocks"}


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match=r"extract\.json does not exist: materialize osm_extract first"):
        write_objects(tmp_path, tmp_path)
    staged(tmp_path)
    (tmp_path / "extract.osm").unlink()
    with pytest.raises(UpstreamMissingError, match=r"extract\.osm does not exist"):
        write_objects(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"file": "extract.osm"}', '{"file": "extract.osm", "bbox": [1, 2]}'])
def test_facts_that_cannot_be_read_are_corrupt(tmp_path: Path, text: str) -> None:
    folder = staged(tmp_path)
    (folder / "extract.json").write_text(text)
    with pytest.raises(CorruptInputError, match=r"extract\.json"):
        write_objects(folder, folder)


def test_a_damaged_extract_is_corrupt(tmp_path: Path) -> None:
    folder = staged(tmp_path)
    (folder / "extract.osm").write_text("<osm version='0.6'><node")
    with pytest.raises(CorruptInputError, match=r"extract\.osm cannot be read"):
        write_objects(folder, folder)


def test_text_that_is_not_utf8_is_corrupt(tmp_path: Path) -> None:
    folder = staged(tmp_path)
    path = folder / "extract.osm.pbf"
    with osmium.SimpleWriter(osmium.io.File(path, "pbf,pbf_compression=none")) as writer:
        writer.add_node(osmium.osm.mutable.Node(id=1, version=1, location=(0.5, 0.5), tags={"name": "QQQQ"}))
    path.write_bytes(path.read_bytes().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))
    (folder / "extract.json").write_text(json.dumps({"file": path.name, "bbox": [0, 0, 1, 1]}))
    with pytest.raises(CorruptInputError, match="not UTF-8"):
        write_objects(folder, folder)
