import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import skyscript_assets
from skyscript_assets.lib.captions.compose import WORDINGS, compose, statements, texts, trace
from skyscript_assets.lib.captions.phrases import Phrase, as_neighbour, clause, is_among, may_be_said, phrases
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.settings.base import SENTENCES, STYLES, CaptionPolicy, read_yaml
from skyscript_assets.lib.tags.features import base_counts

RULES = read_yaml(Path(skyscript_assets.__file__).parent / "settings" / "caption_rules.yaml", CaptionRules)
PLANT = {
    "plant:output:electricity": "19.9 MW",
    "plant:method": "thermal",
    "power": "plant",
    "plant:source": "solar",
}

PAPER: list[tuple[dict[str, str], list[dict[str, str]], str, str | None]] = [
    (
        {"resource": "bauxite", "landuse": "quarry"},
        [],
        "landuse of quarry, resource of bauxite",
        "landuse of quarry with resource of bauxite",
    ),
    (
        {"amenity": "fountain"},
        [{"natural": "tree"}, {"highway": "footway"}],
        "amenity of fountain",
        "amenity of fountain, surrounded by natural tree; road of footway",
    ),
    (
        PLANT,
        [],
        "power plant, plant source of solar, plant method of thermal, plant output electricity of 19.9 MW",
        None,
    ),
    (
        {"power": "pole"},
        [{"voltage": "16000", "power": "minor_line", "cables": "3"}],
        "power pole",
        "power pole, surrounded by power minor line with cables of 3 and voltage of 16000",
    ),
    (
        {"man_made": "pier"},
        [{"waterway": "river"}],
        "man made pier",
        "man made pier, surrounded by waterway of river",
    ),
    (
        {"crop": "cotton", "landuse": "farmland"},
        [],
        "landuse of farmland, crop of cotton",
        "landuse of farmland with crop of cotton",
    ),
]


@dataclass(frozen=True)
class Written:
    """Everything that is written of a chip."""

    title: str
    title_multi_objects: str
    trace: list[dict[str, Any]]
    statements: list[dict[str, str | bool]]
    named: tuple[int, ...]


def written(
    tags: dict[str, str],
    surrounding: Sequence[dict[str, str]],
    rules: CaptionRules,
    max_surrounding: int = 4,
    max_length: int = 300,
    policy: CaptionPolicy = "ours",
) -> Written | None:
    around = [phrases(other, rules, None, policy) for other in surrounding]
    said = compose(phrases(tags, rules, None, policy), around, max_surrounding, max_length)
    if said is None:
        return None
    ids = ["focus", *(f"n{i}" for i in said.named)]
    return Written(
        **texts(said, max_length),
        trace=trace(said, ids),
        statements=statements(said, ids, max_length),
        named=said.named,
    )


def captions(tags: dict[str, str], *surrounding: dict[str, str], **limits: Any) -> Written:
    said = written(tags, surrounding, RULES, **limits)
    assert said is not None
    return said


def stated(said: Written) -> list[tuple[str, ...]]:
    """The texts of each statement, from the whole clause to the bare kind."""
    return [tuple(str(one[name]) for name in ("clause", "main", "kind")) for one in said.statements]


def test_every_style_of_the_settings_can_be_written() -> None:
    assert {*WORDINGS, *SENTENCES} == set(STYLES)


@pytest.mark.parametrize(("tags", "surrounding", "title", "multi"), PAPER)
def test_the_examples_of_the_paper_come_out_exactly(
    tags: dict[str, str], surrounding: list[dict[str, str]], title: str, multi: str | None
) -> None:
    pair = captions(tags, *surrounding, policy="paper")
    assert pair.title == title
    assert multi is None or pair.title_multi_objects == multi


def test_the_csv_form_of_the_paper_comes_out_exactly() -> None:
    title = captions({"office": "energy_supplier", "building": "yes"}).title
    assert f"a satellite image of {title}" == "a satellite image of building, office of energy supplier"


@pytest.mark.parametrize("kept", [list(PLANT), sorted(PLANT), sorted(PLANT, reverse=True)])
def test_the_order_in_which_osm_keeps_tags_does_not_matter(kept: list[str]) -> None:
    assert captions({key: PLANT[key] for key in kept}) == captions(PLANT)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("highway", "living_street", "road of living street"),
        ("highway", "primary_link", "highway of primary link"),
        ("highway", "motorway", "highway of freeway"),
        ("area:highway", "primary", "area highway of primary"),
        ("area:highway", "footway", "area road of footway"),
        ("leisure", "pitch", "leisure land of pitch"),
        ("disused:aeroway", "runway", "disused airport of runway"),
        ("natural", "wood", "natural woodland"),
        ("abandoned:railway", "construction", "abandoned railway under construction"),
        ("surface", "asphalt", "surface of asphalt"),
        ("roof:shape", "gabled", "roof shape of gabled"),
        ("leaf_type", "broadleaved", "leaf type is broadleaved"),
        ("generator:type", "solar_photovoltaic_panel", "generator type is solar photovoltaic panel"),
        ("smoothness", "good", "smoothness is good"),
        ("golf", "bunker", "golf bunker"),
        ("residential", "apartments", "residential apartments"),
        ("building", "yes", "building"),
        ("bridge", "yes", "bridge"),
        ("height", "12", "height of 12"),
        ("amenity", "church;yes", "amenity of church"),
        ("amenity", "yes;no", "amenity"),
        ("shop", "books,wine", "shop of books and wine"),
        ("sport", "tennis;basketball; tennis", "sport of tennis and basketball"),
        ("sport", "a;b;c;d", "sport of a and b and c"),
        ("roof:colour", "#8b4510", "roof colour of brown"),
        ("roof:colour", "#FFF", "roof colour of white"),
        ("roof:pitch", "1:12", "roof pitch of 1:12"),
        ("natural", "tree_row", "natural tree row"),
        ("landuse", "forest\u202e\x07", "landuse of forest"),
    ],
)
def test_a_tag_reads_like_this(key: str, value: str, words: str) -> None:
    assert captions({key: value}).title == words


def test_what_is_denied_is_not_said() -> None:
    assert written({"building": "no"}, [], RULES) is None
    assert captions({"natural": "tree", "bridge": "no"}).title == "natural tree"


def test_a_fence_around_a_pitch_is_no_barrier() -> None:
    # w49087212 of Liechtenstein: an area.
    tags = {"barrier": "fence", "leisure": "pitch", "sport": "tennis", "surface": "clay"}
    assert captions(tags).title == "leisure land of pitch, barrier of fence, sport of tennis, surface of clay"
    assert captions({"barrier": "fence"}).title == "barrier of fence"


def test_a_road_around_another_object_is_said_by_its_class_alone() -> None:
    road = phrases({"highway": "residential", "surface": "asphalt", "bridge": "yes"}, RULES)
    assert clause(as_neighbour(road)) == "road of residential"
    farm = phrases({"landuse": "farmland", "crop": "cotton"}, RULES)
    assert clause(as_neighbour(farm)) == "landuse of farmland with crop of cotton"


def test_a_thing_comes_before_what_is_said_of_it() -> None:
    assert captions({"sport": "skiing", "piste:type": "downhill"}).title == "piste type is downhill, sport of skiing"
    assert (
        captions({"surface": "asphalt", "area:highway": "footway"}).title == "area road of footway, surface of asphalt"
    )


def test_frequent_tags_come_first_where_that_is_asked_for() -> None:
    tags = {"highway": "primary", "surface": "asphalt", "oneway": "yes"}
    often = {("surface", "asphalt"): 9, ("oneway", "yes"): 8, ("highway", "primary"): 7}
    assert clause(phrases(tags, RULES, often)) == "surface of asphalt with highway of primary"
    assert clause(phrases(tags, RULES, often, "paper")) == "surface of asphalt with oneway and highway of primary"
    assert clause(phrases(tags, RULES)) == "highway of primary with surface of asphalt"


@pytest.fixture(scope="session")
def authors(shared_data: Path) -> list[dict[str, Any]]:
    """Captions of the published dataset, taken apart into tags in the authors' order."""
    lines = (shared_data / "skyscript" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_the_authors(one: dict[str, Any], policy: CaptionPolicy, often: dict[tuple[str, str], int] | None) -> str | None:
    """The caption of their tags, in the order given or by how often they occur."""

    def of(tags: list[list[str]]) -> list[Phrase]:
        order = {(key, value): len(tags) - i for i, (key, value) in enumerate(tags)} if often is None else often
        return phrases(dict(map(tuple, tags)), RULES, order, policy)

    said = compose(of(one["focus"]), [as_neighbour(of(other)) for other in one["surrounding"]], 99, 9999)
    return None if said is None else texts(said, 9999)["title_multi_objects"]


def test_the_authors_captions_come_out_but_for_what_we_keep_silent(authors: list[dict[str, Any]]) -> None:
    assert len(authors) == 263
    silent = 0
    for one in authors:
        assert as_the_authors(one, "paper", None) == one["title_multi_objects"]
        tags = [tag for each in (one["focus"], *one["surrounding"]) for tag in each]
        may = all(may_be_said(key, value) and not is_among(key, RULES.paper_keys) for key, value in tags)
        assert (as_the_authors(one, "ours", None) == one["title_multi_objects"]) >= may
        silent += not may
    assert silent == 61


def test_our_counts_give_most_of_the_authors_order(authors: list[dict[str, Any]]) -> None:
    often = base_counts()
    equal = [as_the_authors(one, "paper", often) == one["title_multi_objects"] for one in authors]
    assert sum(equal) == 206


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "Town Hall"),
        ("name:fi", "Kaupungintalo"),
        ("operator", "City"),
        ("phone", "+358 9 1234567"),
        ("contact:email", "someone@example.org"),
        ("addr:housenumber", "3"),
        ("website", "https://example.org"),
        ("wikidata", "Q1"),
        ("religion", "hindu"),
        ("oneway", "yes"),
        ("lit", "yes"),
        ("access", "private"),
        ("opening_hours", "24/7"),
        ("source", "survey"),
        ("note", "closed"),
        ("amenity", "write to someone@example.org"),
        ("landuse", "https://example.org"),
        ("geobase:acquisitionTechnique", "GPS"),
        ("acquisition_technique", "orthophoto"),
        ("tiger:cfcc", "A41"),
        ("crossing_ref", "zebra"),
        ("manhole", "drain"),
        ("segregated", "yes"),
        ("seamark:type", "mooring"),
        ("tram:segregation:physical", "in_lane"),
        ("cycleway:right:segregated", "yes"),
        ("parking:both:restriction", "no_stopping"),
        ("parking:lane:right", "parallel"),
        ("railway:turnout_side", "left"),
        ("landuse_1", "bunker"),
    ],
)
def test_names_and_contacts_never_reach_a_caption(key: str, value: str) -> None:
    assert written({key: value}, [], RULES) is None
    pair = captions({"building": "yes", key: value}, {key: value}, {key: value, "natural": "tree"})
    assert pair.title == "building"
    assert pair.title_multi_objects == "building, surrounded by natural tree"


def test_a_list_says_those_of_its_values_that_may_be_said() -> None:
    assert captions({"sport": "tennis;see www.example.org;soccer"}).title == "sport of tennis and soccer"
    long = ";".join(["a" * 20, "b" * 20, "c" * 20])
    assert captions({"sport": long}).title == f"sport of {'a' * 20} and {'b' * 20} and {'c' * 20}"


def test_what_reads_like_the_focus_object_or_an_earlier_one_is_passed_over() -> None:
    pair = captions(
        {"building": "yes"}, {"building": "yes"}, {"natural": "tree"}, {"natural": "tree"}, {"power": "pole"}
    )
    assert pair.title_multi_objects == "building, surrounded by natural tree; power pole"
    assert pair.named == (1, 3)


def test_no_more_surroundings_are_named_than_asked_for() -> None:
    around = [{"landuse": str(i) + "a"} for i in range(9)]
    assert len(captions({"building": "yes"}, *around, max_surrounding=2).named) == 2
    assert captions({"building": "yes"}, *around, max_surrounding=0).title_multi_objects == "building"


def test_what_would_make_a_caption_too_long_is_left_out_whole() -> None:
    long = {"landuse": "meadow", "crop": "x" * 39}
    pair = captions(long, {"natural": "y" * 39}, {"natural": "tree"}, max_length=50)
    assert pair.title == "landuse of meadow"
    assert pair.title_multi_objects == "landuse of meadow, surrounded by natural tree"
    assert [row["key"] for row in pair.trace] == ["landuse", "natural"]
    assert len(captions({"landuse": "z" * 40}, max_length=40).title) == 40


def test_the_trace_tells_where_each_phrase_comes_from() -> None:
    pair = captions({"landuse": "farmland", "crop": "cotton"}, {"power": "line", "location": "overhead"})
    told = ("style", "object_ids", "key", "value", "phrase", "role")
    focus, other = "title", "title_multi_objects"
    assert [tuple(row[name] for name in told) for row in pair.trace] == [
        (focus, ["focus"], "landuse", "farmland", "landuse of farmland", "main"),
        (focus, ["focus"], "crop", "cotton", "crop of cotton", "attribute"),
        (other, ["n0"], "power", "line", "power line", "surrounding"),
        (other, ["n0"], "location", "overhead", "location of overhead", "surrounding"),
    ]


def test_a_value_of_nothing_says_nothing() -> None:
    assert written({"landuse": " ; "}, [], RULES) is None
    assert written({}, [], CaptionRules()) is None


def test_what_is_stated_of_each_object_goes_from_its_clause_to_its_kind() -> None:
    said = captions({"building": "office", "roof:shape": "flat"}, {"natural": "tree"}, {"highway": "footway"})
    assert stated(said) == [
        ("building of office with roof shape of flat", "building of office", "building"),
        ("natural tree", "natural tree", "natural tree"),
        ("road of footway", "road of footway", "road"),
    ]
    assert said.statements[0] == {
        "object_id": "focus",
        "focus": True,
        "clause": "building of office with roof shape of flat",
        "main": "building of office",
        "kind": "building",
        "key": "building",
        "value": "office",
    }
    assert [(one["object_id"], one["focus"]) for one in said.statements[1:]] == [(f"n{i}", False) for i in range(2)]


def test_words_that_also_join_captions_do_not_part_a_statement() -> None:
    names = {"shop": "shop of goods; wares", "building": "building, surrounded by walls"}
    rules = CaptionRules.model_validate({"key_names": names, "beside": ["natural"], "order": ["building"]})
    tags = {"building": "house_with_garage", "roof": "flat"}
    said = written(tags, [{"shop": "food"}, {"natural": "bay_of_sand"}], rules)
    assert said is not None
    main = "building, surrounded by walls of house with garage"
    assert stated(said) == [
        (f"{main} with roof of flat", main, "building, surrounded by walls"),
        ("shop of goods; wares of food", "shop of goods; wares of food", "shop of goods; wares"),
        ("natural bay of sand", "natural bay of sand", "natural bay of sand"),
    ]


def test_a_statement_that_is_too_long_is_cut_as_its_caption_is() -> None:
    said = captions({"landuse": "z" * 40}, max_length=40)
    assert stated(said) == [(said.title_multi_objects, said.title_multi_objects, "landuse")]
