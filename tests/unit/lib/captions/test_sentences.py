"""Captions in sentences: each fact as it is drawn, and the refusal of each that is altered."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.captions import write
from skyscript_assets.lib.captions.facts import position
from skyscript_assets.lib.captions.grammar import article, listed, packaged_grammar, size_words
from skyscript_assets.lib.captions.sentences import sentences
from skyscript_assets.lib.captions.verify import unproven
from skyscript_assets.lib.settings.base import SENTENCES, STYLES
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tags.text import attribute_reason, text_reason
from tests.caption_world import RULES, World

GRAMMAR = packaged_grammar()


def told(world: World) -> tuple[str, str]:
    summary = world.write()
    assert summary["verified"] == len(world.chips)
    assert summary["unproven"] == {}
    row = world.only()
    return row["natural_short"], row["natural_long"]


def square(x: float, y: float, side: float = 16) -> shapely.Polygon:
    return shapely.box(x, y, x + side, y + side)


def line(*points: tuple[float, float]) -> shapely.LineString:
    return shapely.LineString(points)


def test_a_thing_is_named_measured_and_placed(world: World) -> None:
    world.chip("a1")
    assert told(world) == ("A building.", "A building, about 20 m by 10 m, is in the center of the image.")


@pytest.mark.parametrize(
    ("x", "y", "where"),
    [
        (0, 0, "center"),
        (70, 0, "left"),
        (-70, 0, "right"),
        (0, 35, "top"),
        (0, -35, "bottom"),
        (70, 35, "upper left"),
        (-70, -35, "lower right"),
    ],
)
def test_sides_are_those_of_the_image(world: World, x: int, y: int, where: str) -> None:
    world.chip("a1", x=x, y=y)
    assert f"{where} of the image" in told(world)[1]


def test_a_thing_that_the_image_cuts_has_no_size(world: World) -> None:
    world.chip("a1", x=90)
    assert told(world)[1] == "A building is on the left of the image."


def test_a_thing_lies_in_its_ground_and_that_covers_a_share(world: World) -> None:
    world.add("a2", shapely.box(-50, -50, 140, 150), landuse="forest")
    world.chip("a1")
    short, long = told(world)
    assert short == "A building in a forest."
    assert long.endswith("in a forest. Woodland covers about two thirds of the image.")


def test_ground_without_texture_that_fills_the_image_is_not_told(world: World) -> None:
    world.add("a2", shapely.box(-500, -500, 700, 700), landuse="residential")
    world.chip("a1")
    assert "residential" not in "".join(told(world))
    world.objects.pop()
    world.add("a2", shapely.box(50, -50, 150, 150), landuse="residential")
    assert told(world)[0] == "A building in a residential area."


def test_shares_are_of_the_union_of_areas(world: World) -> None:
    for number in (2, 3):
        world.add(f"a{number}", shapely.box(0, 0, 100, 100), natural="water")
    world.add("a4", shapely.box(90, 0, 136, 100), natural="water")
    world.chip("a1")
    assert "Water covers about two thirds of the image." in told(world)[1]


def test_a_share_is_not_told_where_it_depends_on_what_is_on_top(world: World) -> None:
    world.add("a2", shapely.box(0, 0, 200, 80), landuse="forest")
    world.add("a3", shapely.box(0, 0, 60, 80), landuse="meadow")
    world.chip("a1")
    assert "oodland" not in told(world)[1]
    assert "eadow covers" not in told(world)[1]


def test_things_wholly_in_view_are_counted_once_each(world: World) -> None:
    for number, x in enumerate((10, 40, 150)):
        world.add(f"a{number + 2}", square(x, 10), building="yes")
    world.add("a9", square(41, 11), building="yes")  # the same house, mapped again
    world.add("r9", square(192, 10), building="yes")  # the image cuts it
    world.add("a8", square(170, 70, 6), building="yes")  # too small to be seen
    world.chip("a1")
    assert told(world)[0] == "A building, with three other buildings in full view."


def test_the_thing_itself_mapped_twice_is_no_other_thing(world: World) -> None:
    world.add("a9", shapely.box(80, 40, 121, 60), building="yes")
    world.chip("a1")
    assert told(world)[0] == "A building."


def test_things_of_one_name_are_told_of_together_whatever_their_tags(world: World) -> None:
    world.add("a2", square(10, 10), leisure="pitch")
    world.add("w3", line((20, 80), (50, 80)), highway="platform")
    world.add("w4", line((60, 80), (90, 80)), public_transport="platform")
    world.chip("a1")
    assert told(world)[1].endswith("The image shows a sports field in full view, and platforms.")


def test_trees_are_never_counted(world: World) -> None:
    for number in range(3):
        world.add(f"n{number}", shapely.Point(20 + number * 9, 20), natural="tree")
    world.chip("a1")
    short, long = told(world)
    assert "tree" not in short
    assert long.endswith("The image also shows trees.")


def test_more_than_the_numbers_have_words_for_are_not_counted_out(world: World) -> None:
    for number in range(13):
        world.add(f"a{number + 2}", square(2 + (number % 8) * 24, 2 if number < 8 else 80), building="yes")
    world.chip("a1")
    assert "more than twelve other buildings" in told(world)[0]


def test_what_lies_beside_is_near_and_keeps_off(world: World) -> None:
    world.add("w2", line((0, 70), (200, 70)), highway="residential")
    world.add("w3", line((0, 35), (200, 35)), waterway="stream")
    world.add("w4", line((0, 1), (200, 1)), highway="secondary")  # 19.5 m off
    world.add("w5", line((20, -9), (20, 300)), railway="rail")  # 30 m off
    world.chip("a1")
    _, long = told(world)
    assert "It lies beside a stream and a residential road." in long
    assert "railway track" in long.split("also shows")[1]


def test_a_road_through_a_building_lies_not_beside_it(world: World) -> None:
    world.add("w2", line((0, 50), (200, 50)), highway="residential")
    world.chip("a1")
    short, long = told(world)
    assert "beside" not in short + long


@pytest.fixture
def road(world: World) -> World:
    world.add("w1", line((-50, 50), (250, 50)), highway="secondary")
    world.chip("w1")
    return world


def test_ways_cross_on_the_ground_where_neither_ends(road: World) -> None:
    road.add("w2", line((100, -50), (100, 150)), railway="rail")
    assert "It is crossed by a railway track." in told(road)[1]
    assert told(road)[1].startswith("A secondary road runs across the image.")


@pytest.mark.parametrize("tags", [{"bridge": "yes"}, {"layer": "2"}])
def test_bridges_pass_over_and_what_is_below_passes_under(world: World, tags: dict[str, str]) -> None:
    world.add("w1", line((-50, 50), (250, 50)), highway="secondary")
    world.add("w2", line((100, -50), (100, 150)), railway="rail", **tags)
    world.chip("w1")
    assert "It passes under a railway track." in told(world)[1]
    world.chips.clear()
    world.status.clear()
    world.chip("w2")
    assert "It passes over a secondary road." in told(world)[1]


def test_a_stream_that_meets_a_road_without_a_bridge_tells_nothing(road: World) -> None:
    road.add("w2", line((100, -50), (100, 150)), waterway="stream")
    assert "crossed" not in told(road)[1]
    assert "passes" not in told(road)[1]


def test_a_way_that_was_split_at_a_junction_does_not_cross_itself(world: World) -> None:
    world.add("w1", line((-50, 50), (100, 50)), highway="secondary")
    world.add("w2", line((100, 50), (250, 50)), highway="secondary")
    world.add("w3", line((100, 50), (100, 150)), highway="residential")
    world.chip("w1")
    _, long = told(world)
    assert "crossed" not in long
    assert "another secondary road" not in long, "it goes on"
    assert "m long" not in long


def test_a_thing_that_is_mapped_as_outline_and_area_is_one(world: World) -> None:
    world.add("a2", shapely.box(10, 10, 60, 40), amenity="parking")
    world.add("w2", line((10, 10), (60, 10), (60, 40), (10, 40), (10, 10)), amenity="parking")
    world.chip("a1")
    assert told(world)[1].endswith("The image also shows a parking lot.")


def test_a_corner_of_an_area_does_not_tell_what_it_is(world: World) -> None:
    world.add("a2", shapely.box(-500, -500, 20, 30), amenity="parking", natural="water")
    world.chip("a1")
    assert "parking" not in told(world)[1]


def test_a_road_that_cuts_a_corner_does_not_cross(world: World) -> None:
    world.add("a2", shapely.box(60, 20, 140, 80), natural="scrub")
    world.add("w3", line((55, 30), (75, 10)), highway="residential")
    world.add("w4", line((100, -50), (100, 300)), highway="secondary")
    world.chip("a2")
    assert "It is crossed by a secondary road." in told(world)[1]


def test_lines_that_hang_together_are_one(world: World) -> None:
    world.add("w2", line((-50, 75), (100, 75)), waterway="river")
    world.add("w3", line((100, 75), (250, 75)), waterway="river")
    world.chip("a1")
    assert "It lies beside a river." in told(world)[1]
    world.objects[1:] = []
    world.add("w2", line((0, 2), (70, 2)), power="line")
    world.add("w3", line((70, 2), (190, 3)), power="line")
    world.chips[0]["osm_shift_m"] = None
    assert "power lines" not in told(world)[1]


def test_overhead_lines_cross_whatever_their_layer(road: World) -> None:
    road.add("w2", line((100, -50), (100, 150)), power="line", layer="3")
    assert "It is crossed by a power line." in told(road)[1]


def test_what_is_too_long_leaves_out_its_last_facts_and_stays_whole(world: World) -> None:
    world.add("w2", line((0, 70), (200, 70)), highway="residential")
    for number, x in enumerate((10, 40, 150)):
        world.add(f"a{number + 2}", square(x, 10), building="yes")
    world.chip("a1")
    full = told(world)[1]
    for most in range(60, len(full), 7):
        assert world.write(CaptionSettings(max_length=most))["unproven"] == {}
        text = world.only()["natural_long"]
        assert len(text) <= most
        assert text.endswith(".")


def test_a_thing_without_a_noun_is_called_what_its_tag_says(world: World) -> None:
    world.add("n2", shapely.Point(100, 50), man_made="pier")
    world.add("a7", shapely.box(80, 40, 120, 60), religion="hindu", surface="gravel", leaf_type="broadleaved")
    world.chip("n2")
    assert told(world)[0].startswith("A pier")
    assert GRAMMAR.noun((("man_made", "nothing_known"),)) is None


def test_more_tags_name_a_thing_more_closely() -> None:
    def noun(**tags: str) -> str:
        named = GRAMMAR.noun(tuple(tags.items()))
        assert named is not None
        return named.one

    assert noun(leisure="pitch") == "sports field"
    assert noun(sport="tennis", leisure="pitch") == "tennis court"
    assert noun(leisure="pitch", sport="basketball;tennis") in ("tennis court", "basketball court")
    assert noun(building="yes", man_made="storage_tank") == "storage tank"
    assert noun(building="church", amenity="place_of_worship") == "church"


def test_words_take_their_article_and_plural() -> None:
    assert [article(word) for word in ("house", "airport", "university", "one-lane road")] == [
        "a house",
        "an airport",
        "a university",
        "a one-lane road",
    ]
    church = GRAMMAR.noun((("building", "church"),))
    assert church is not None
    assert GRAMMAR.counted_as(2, church, other=False) == "two churches"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"


@given(st.floats(0.1, 5000), st.floats(0.05, 1))
def test_sizes_are_within_a_twentieth(longer: float, ratio: float) -> None:
    said = [float(word) for word in size_words(longer, longer * ratio).split() if word[0].isdigit()]
    assert said[0] == pytest.approx(longer, rel=0.051)
    assert len(said) == 1 or said[1] == pytest.approx(longer * ratio, rel=0.051)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_side_is_named_only_where_the_centre_is_on_it(x: float, y: float, w: float, h: float) -> None:
    box = (x * (1 - w), y * (1 - h), x * (1 - w) + w, y * (1 - h) + h)
    where = position(box, 1, 1, w * h, whole=True, line=False)
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    assert ("left" in where) <= (middle_x < 0.4)
    assert ("right" in where) <= (middle_x > 0.6)
    assert ("upper" in where) <= (middle_y < 0.4)
    assert ("lower" in where) <= (middle_y > 0.6)
    assert where in ("", *GRAMMAR.positions)


def test_names_are_of_tags_that_may_be_said_and_positions_have_words() -> None:
    for tags in (*GRAMMAR.counted, *GRAMMAR.buildings, *GRAMMAR.things, *GRAMMAR.lines, *GRAMMAR.grounds):
        for tag in tags.split():
            key, _, value = tag.partition("=")
            assert (text_reason(key, value), attribute_reason(key)) == (None, None), tag
    assert set(SENTENCES) <= set(STYLES)


@pytest.fixture
def town(world: World) -> World:
    """A chip of which much can be said."""
    world.add("a2", shapely.box(-50, -50, 140, 150), landuse="forest")
    world.add("w3", line((0, 70), (200, 70)), highway="residential")
    for number, x in enumerate((10, 40, 150)):
        world.add(f"a{number + 4}", square(x, 10), building="house")
    world.add("n9", shapely.Point(180, 90), natural="tree")
    world.chip("a1")
    return world


def altered(row: dict[str, Any], old: str, new: str, *, in_trace: bool) -> dict[str, Any]:
    changed = dict(row)
    for style in SENTENCES:
        changed[style] = row[style].replace(old, new)
    if in_trace:
        changed["trace"] = [
            {**one, "phrase": one["phrase"].replace(old.lower(), new.lower()), "fact": one["fact"].replace(old, new)}
            for one in row["trace"]
        ]
    assert changed != row
    return changed


@pytest.mark.parametrize("in_trace", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("three", "four"),
        ("center", "left"),
        ("20 m", "30 m"),
        ("two thirds", "a half"),
        ("forest", "wood"),
        ("beside a residential road", "beside a stream"),
        ("residential road", "river"),
        ("a tree", "trees"),
        ("houses", "churches"),
    ],
)
def test_a_sentence_of_which_one_word_was_altered_is_refused(town: World, old: str, new: str, in_trace: bool) -> None:
    told(town)
    row = town.only()
    check = checker(town)
    assert check(row) == []
    assert check(altered(row, old, new, in_trace=in_trace))


def test_a_trace_of_other_objects_or_too_few_is_refused(town: World) -> None:
    told(town)
    row, check = town.only(), checker(town)
    for slot in ("around", "inside", "beside", "cover"):
        (one,) = [i for i, each in enumerate(row["trace"]) if (each["style"], each["role"]) == ("natural_long", slot)]
        for ids in (["a1"], [*row["trace"][one]["object_ids"], "n9"], []):
            trace = [dict(each) for each in row["trace"]]
            trace[one]["object_ids"] = ids
            assert check({**row, "trace": trace})


def test_a_fact_is_refused_once_the_map_has_changed(town: World) -> None:
    told(town)
    row = town.only()
    town.objects = [each for each in town.objects if each["object_id"] != "a5"]
    town.write()
    assert any("'three houses'" in wrong for wrong in checker(town)(row))


def checker(world: World) -> Callable[[dict[str, Any]], list[str]]:
    here = world.folder
    inputs = write.CaptionInputs(here, here, here / "objects.parquet", here, RULES)
    writer = write.Writer(inputs, CaptionSettings())
    (chip,) = next(writer.chips())
    level = writer._level(writer._tags_at[chip["gsd_m"]])
    return lambda row: unproven(row, chip, writer._objects, level.seen, level.names, GRAMMAR)


def test_each_phrase_of_a_sentence_is_in_the_trace(town: World) -> None:
    told(town)
    row = town.only()
    for style in SENTENCES:
        rest = row[style].lower()
        for one in row["trace"]:
            if one["style"] == style and one["role"] != "attribute":
                assert one["phrase"].lower() in rest
                assert one["object_ids"]
        assert sentences(style, [], 100) == ("", [])


def test_regions_are_the_focus_and_all_that_is_spoken_of(town: World) -> None:
    told(town)
    row = town.only()
    regions = {one["object_id"]: one for one in row["regions"]}
    assert [one["object_id"] for one in row["regions"] if one["focus"]] == ["a1"]
    assert {i for one in row["trace"] for i in one["object_ids"]} == set(regions)
    assert regions["a1"]["phrase"] == "building"
    assert regions["a1"]["box"] == [80, 40, 120, 60]
    forest = shapely.from_wkb(regions["a2"]["geometry"])
    assert forest.equals_exact(shapely.box(0, 0, 140, 100), 1e-6, normalize=True)
    assert shapely.from_wkb(regions["n9"]["geometry"]).equals_exact(shapely.Point(180, 90), 1e-6)
    for one in regions.values():
        x0, y0, x1, y1 = shapely.from_wkb(one["geometry"]).bounds
        assert np.allclose(one["box"], [x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)], atol=1)
