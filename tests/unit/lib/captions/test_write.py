from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from skyscript_assets.lib.captions.write import CaptionInputs, write_captions
from skyscript_assets.lib.errors import CorruptInputError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tags.features import base_counts
from tests.caption_world import RULES, World, ground


def test_both_captions_of_a_chip_are_written_with_what_they_name(world: World) -> None:
    world.add("a2", shapely.box(-50, -50, 50, 150), landuse="forest")
    world.add("w3", shapely.LineString([(150, -50), (150, 300)]), highway="path", surface="gravel")
    world.add("n4", shapely.Point(60, 20), natural="tree")
    world.chip("a1")
    assert world.write() == {
        "chips": 1,
        "captions": 1,
        "without_caption": 0,
        "with_surrounding": 1,
        "distinct": dict.fromkeys(STYLES, 1),
        "longest": max(len(world.only()[style]) for style in STYLES),
        "effective": dict.fromkeys(STYLES, 1.0),
        "collisions": dict.fromkeys(STYLES, 0.0),
        "verified": 1,
        "unproven": {},
    }
    row = world.only()
    assert row["title"] == "building"
    assert row["title_multi_objects"] == ("building, surrounded by landuse of forest; road of path; natural tree")
    assert row["center_tags"] == [("building", "yes")]
    assert [(near["object_id"], near["tags"], near["box"]) for near in row["surrounding"]] == [
        ("a2", [("landuse", "forest")], [0, 0, 50, 100]),
        ("w3", [("highway", "path"), ("surface", "gravel")], [150, 0, 151, 100]),
        ("n4", [("natural", "tree")], [60, 20, 61, 21]),
    ]
    assert [(one["object_id"], one["focus"], one["clause"], one["kind"]) for one in row["statements"]] == [
        ("a1", True, "building", "building"),
        ("a2", False, "landuse of forest", "landuse"),
        ("w3", False, "road of path", "road"),
        ("n4", False, "natural tree", "natural tree"),
    ]
    assert [(step["phrase"], step["role"]) for step in row["trace"]][:2] == [
        ("building", "main"),
        ("landuse of forest", "surrounding"),
    ]


def test_only_tags_that_can_be_seen_at_the_chips_gsd_are_said(world: World) -> None:
    world.add("n4", shapely.Point(100, 50), natural="tree")
    world.add("w3", shapely.LineString([(0, 50), (900, 50)]), highway="path", surface="gravel")
    for gsd_m in (0.5, 1.0, 5.0):
        world.chip("a1", gsd_m=gsd_m)
    world.write()
    assert [row["title_multi_objects"] for row in world.rows()] == [
        "building, surrounded by road of path; natural tree",
        "building, surrounded by road of path",
        "building",
    ]


def test_with_the_papers_policy_its_own_tags_are_said_that_no_snapshot_holds(world: World) -> None:
    plant = {"power": "plant", "plant:output:electricity": "19.9 MW", "name": "Villa Rosa", "phone": "+358 9 1234567"}
    world.add("a2", shapely.box(10, 10, 60, 60), **plant)
    world.add("w3", shapely.LineString([(5, 5), (190, 5)]), power="minor_line", voltage="16000", cables="3", ref="B 7")
    world.chip("a2")
    world.write()
    assert world.only()["title_multi_objects"] == "power plant, surrounded by building; power minor line"
    world.write(CaptionSettings(policy="paper"))
    row = world.only()
    assert row["title"] == "power plant, plant output electricity of 19.9 MW"
    assert row["title_multi_objects"] == (
        "power plant with plant output electricity of 19.9 MW, surrounded by "
        "building; power minor line with cables of 3 and ref of B 7 and voltage of 16000"
    )


def test_what_the_paper_lets_through_is_said_as_far_as_its_key_shows(world: World) -> None:
    world.add("a2", shapely.box(10, 10, 60, 60), building="hospital", amenity="hospital", **{"roof:shape": "saltbox"})
    world.add("n3", shapely.Point(150, 80), public_transport="stop_position")
    for gsd_m in (0.5, 5.0):
        world.chip("a2", gsd_m=gsd_m)
    world.write()
    assert [row["title_multi_objects"] for row in world.rows()] == ["building", "building"]
    world.write(CaptionSettings(policy="paper"))
    near, far = world.rows()
    assert near["title_multi_objects"] == (
        "building of hospital with amenity of hospital and roof shape of saltbox, surrounded by building; "
        "public transport of stop position"
    )
    assert far["title"] == "building of hospital, amenity of hospital"


def test_the_most_frequent_tag_comes_first_where_that_is_asked_for(world: World) -> None:
    world.add("w3", shapely.LineString([(5, 5), (190, 5)]), man_made="pier", surface="gravel")
    world.chip("w3")
    world.write()
    assert world.only()["title"] == "man made pier, surface of gravel"
    world.write(CaptionSettings(order="frequency"))
    often = base_counts()
    assert often["surface", "gravel"] > often["man_made", "pier"]
    assert world.only()["title"] == "surface of gravel, man made pier"


def test_names_stay_out_even_where_a_snapshot_calls_them_visible(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 200, 100), name="Villa Rosa")
    world.add("a3", shapely.box(0, 0, 60, 60), name="Villa Rosa", man_made="pier")
    world.chip("a1")
    world.chip("a2")
    assert world.write()["without_caption"] == 1
    row = world.only()
    assert row["title_multi_objects"] == "building, surrounded by man made pier"
    assert "Villa" not in str(row)


def test_every_visible_value_of_a_list_is_said_and_no_key_is_held_twice(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 60, 60), natural="wood", sport="Tennis; soccer;chess")
    for object_id, gsd_m in (("a2", 0.5), ("a1", 0.5), ("a2", 5.0)):
        world.chip(object_id, gsd_m=gsd_m)
    world.write()
    near, around, far = world.rows()
    assert near["title"] == "natural woodland, sport of soccer and tennis"
    assert near["center_tags"] == [("natural", "wood"), ("sport", "soccer;tennis")]
    assert around["surrounding"][0]["tags"] == [("natural", "wood"), ("sport", "soccer;tennis")]
    assert around["title_multi_objects"] == "building, surrounded by natural woodland with sport of soccer and tennis"
    assert far["title"] == "natural woodland, sport of tennis"


def test_beliefs_and_rules_stay_out_even_where_a_snapshot_calls_them_visible(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 60, 60), building="yes", religion="hindu")
    world.chip("a2")
    world.write()
    assert world.only()["title"] == "building"
    assert world.only()["center_tags"] == [("building", "yes")]


def test_the_object_that_takes_most_of_the_chip_comes_first_and_few_are_named(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 20, 20), man_made="pier")
    world.add("a3", shapely.box(0, 60, 60, 100), landuse="forest")
    world.add("a4", shapely.box(130, 0, 200, 100), landuse="meadow")
    world.chip("a1")
    world.write(CaptionSettings(max_surrounding=2))
    assert [near["object_id"] for near in world.only()["surrounding"]] == ["a4", "a3"]
    world.write(CaptionSettings(max_surrounding=0))
    assert world.only()["title_multi_objects"] == "building"


def test_equal_objects_count_together_and_the_largest_stands_for_them(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 60, 20), man_made="pier")
    for i in range(5):
        world.add(f"a1{i}", shapely.box(0, 30 + 12 * i, 20 + i, 41 + 12 * i), landuse="meadow")
    world.chip("a1")
    world.write()
    assert [near["object_id"] for near in world.only()["surrounding"]] == ["a14", "a2"]


def test_an_object_that_shows_too_little_of_itself_is_not_named(world: World) -> None:
    world.add("a2", shapely.box(-300, -300, 5, 5), landuse="forest")
    world.add("w3", shapely.LineString([(197, 0), (250, 0)]), highway="path")
    world.add("a4", shapely.box(-300, -300, 9, 4), landuse="meadow")
    world.chip("a1")
    world.write()
    assert [near["object_id"] for near in world.only()["surrounding"]] == ["a4"]


def test_objects_with_the_tags_of_the_focus_object_are_not_named_again(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 40, 40), building="yes")
    world.chip("a1")
    assert world.write()["with_surrounding"] == 0


def test_rejected_chips_get_no_caption_and_the_others_keep_the_order_of_the_plan(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 40, 40), landuse="forest")
    world.chip("a2", gsd_m=5.0)
    world.chip("a1", 40, status="rejected")
    world.chip("a1", 30)
    world.chip("a2", 0)
    assert world.write()["captions"] == 3
    assert [row["chip_id"] for row in world.rows()] == ["a2_0_0_5", "a1_30_0_0.5", "a2_0_0_0.5"]


def test_chips_of_several_crs_see_the_same_ground(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 60, 100), landuse="forest")
    west, north = shapely.get_coordinates(ground(shapely.Point(0, 0)))[0]
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(west, north)
    world.chip("a1")
    world.chip("a1", 1, crs="EPSG:3857", transform=[0.75, 0.0, x, 0.0, -0.75, y])
    world.write()
    here, there = (row["surrounding"][0] for row in world.rows())
    assert here["object_id"] == there["object_id"] == "a2"
    assert np.abs(np.subtract(here["box"], there["box"])).max() <= 12


def test_an_object_beyond_the_domain_of_the_crs_is_passed_over(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 60, 100), landuse="forest")
    world.objects[-1]["geometry"] = shapely.to_wkb(shapely.box(-170.0, -90.0, 179.0, 90.0))
    world.chip("a1", crs="EPSG:3857", transform=[1.0, 0.0, 1e6, 0.0, -1.0, 6e6])
    world.write()
    assert world.only()["title"] == "building"


def test_a_second_writing_is_equal_to_the_byte(world: World, tmp_path: Path) -> None:
    world.add("a2", shapely.box(0, 0, 60, 100), landuse="forest")
    world.chip("a1")
    first = world.write()
    content = (tmp_path / "captions.parquet").read_bytes()
    assert world.write() == first
    assert (tmp_path / "captions.parquet").read_bytes() == content


def test_no_chips_make_an_empty_table_and_progress_counts_chips(world: World) -> None:
    assert world.write()["captions"] == 0
    assert world.rows() == []
    world.chip("a1")
    told: list[tuple[int, int, str]] = []
    world.write(progress=lambda *news: told.append(news))
    assert told == [(1, 1, "chips")]


def test_bad_input_is_named(world: World, tmp_path: Path) -> None:
    world.chip("a7")
    with pytest.raises(CorruptInputError, match="lacks objects that the plan names"):
        world.write()
    world.objects[0]["geometry"] = b"no"
    world.chips.clear()
    world.status.clear()
    world.chip("a1")
    with pytest.raises(CorruptInputError, match="a geometry is broken"):
        world.write()
    with pytest.raises(SettingsError, match=r"none\.yaml"):
        world.write(rules=tmp_path / "none.yaml")
    with pytest.raises(UpstreamMissingError, match=r"chips\.parquet"):
        write_captions(CaptionInputs(tmp_path, tmp_path / "x", tmp_path, tmp_path, RULES), CaptionSettings(), tmp_path)


def test_what_fills_the_chip_is_said_as_ground_or_not_at_all(world: World) -> None:
    fills = shapely.box(-50, -50, 300, 300)
    world.add("a2", fills, place="island")
    world.add("a3", fills, aeroway="aerodrome")
    world.add("a4", fills, natural="wood", leisure="nature_reserve", leaf_type="broadleaved")
    world.chip("a1")
    world.write()
    row = world.only()
    assert row["title_multi_objects"] == "building, surrounded by natural woodland with leaf type is broadleaved"
    assert [near["object_id"] for near in row["surrounding"]] == ["a4"]


def test_areas_that_fill_the_chip_together_are_its_ground_and_what_ends_in_it_is_a_neighbour(world: World) -> None:
    world.add("a2", shapely.box(-50, -50, 100, 150), aeroway="aerodrome")
    world.add("a3", shapely.box(101, -50, 250, 150), aeroway="aerodrome")
    world.chip("a1")
    world.add("a4", shapely.box(480, 40, 520, 60), building="yes")
    world.add("a5", shapely.box(400, -50, 500, 150), aeroway="aerodrome")
    world.add("a6", shapely.box(400, -50, 440, 150), place="island")
    world.chip("a4", x=400)
    world.write()
    assert [row["title_multi_objects"] for row in world.rows()] == [
        "building",
        "building, surrounded by airport of aerodrome",
    ]


def test_what_cannot_be_seen_is_no_neighbour(world: World) -> None:
    world.add("a2", shapely.box(130, 20, 190, 80), landuse="meadow", location="underground")
    world.add("w3", shapely.LineString([(150, -50), (150, 300)]), highway="path", tunnel="yes")
    world.add("n4", shapely.Point(100, 50), natural="tree", indoor="yes")
    world.chip("a1")
    world.write()
    assert world.only()["title_multi_objects"] == "building"


def test_a_value_that_cannot_be_told_is_said_in_its_general_form(world: World) -> None:
    world.add("a2", shapely.box(80, 40, 120, 60), building="school")
    world.add("a3", shapely.box(80, 40, 120, 60), building="house", **{"roof:shape": "flat"})
    world.add("a4", shapely.box(80, 40, 120, 60), landuse="forest", **{"roof:shape": "flat"}, surface="gravel")
    world.chip("a2", y=300)
    world.chip("a3", y=300)
    world.chip("a3", y=300, gsd_m=1.0)
    world.chip("a4", y=300)
    world.write()
    assert [row["title"] for row in world.rows()] == [
        "building",
        "building of house, roof shape of flat",
        "building, roof shape of flat",
        "landuse of forest, surface of gravel",
    ]


@pytest.mark.parametrize(
    ("object_id", "tags"),
    [
        ("w2", {"piste:type": "downhill", "sport": "tennis"}),
        ("n2", {"leisure": "pitch", "sport": "table_tennis"}),
        ("n2", {"building": "entrance"}),
        ("n2", {"landuse": "meadow"}),
        ("n2", {"amenity": "parking"}),
    ],
)
def test_ways_down_tables_and_doors_are_not_told(world: World, object_id: str, tags: dict[str, str]) -> None:
    shape = shapely.Point(30, 20) if object_id[0] == "n" else shapely.LineString([(0, 20), (200, 20)])
    world.add(object_id, shape, **tags)
    world.chip("a1")
    world.write()
    assert world.only()["title_multi_objects"] == "building"
    assert "also" not in world.only()["natural_long"]


def test_a_sliver_of_a_thing_is_not_said_but_a_small_thing_and_a_texture_are(world: World) -> None:
    world.add("a2", shapely.box(-300, -300, 40, 30), aeroway="aerodrome")
    world.add("w3", shapely.LineString([(-300, 0), (0, 10), (10, 0), (300, -300)]), highway="residential")
    world.add("a4", shapely.box(150, 80, 165, 95), man_made="pier")
    world.add("a5", shapely.box(190, -300, 500, 300), landuse="forest")
    world.chip("a1")
    world.write()
    assert world.only()["title_multi_objects"] == "building, surrounded by landuse of forest; man made pier"
    world.chips.clear()
    world.status.clear()
    world.chip("a1", x=-60)
    world.write()
    assert world.only()["title_multi_objects"] == ("building, surrounded by airport of aerodrome; road of residential")


def test_what_runs_along_the_rim_is_not_told(world: World) -> None:
    world.add("w2", shapely.LineString([(-50, 1), (250, 2)]), highway="residential")
    world.add("w3", shapely.LineString([(198, -50), (198, 150)]), highway="secondary")
    world.chip("a1")
    world.write()
    assert world.only()["title_multi_objects"] == "building"
    assert world.only()["natural_long"].endswith("in the center of the image.")


def test_an_island_is_no_neighbour_of_what_is_on_it_though_a_shore_is(world: World) -> None:
    world.add("a2", shapely.box(-50, -50, 150, 150), natural="coastline")
    world.chip("a1")
    world.write()
    assert world.only()["title_multi_objects"] == "building"
    world.add("w3", shapely.LineString([(150, -50), (150, 300)]), natural="coastline")
    world.write()
    assert world.only()["title_multi_objects"] == "building, surrounded by natural coastline"
    world.chip("a2")
    world.write()
    assert world.rows()[1]["title"] == "natural coastline"
