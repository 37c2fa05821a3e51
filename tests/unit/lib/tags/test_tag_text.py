"""What a tag says in words, and what the policy keeps out."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.tags.text import (
    MAX_TEXT_LENGTH,
    MAX_VALUE_LENGTH,
    attribute_reason,
    class_mask,
    clean_value,
    tag_text,
    tag_texts,
    text_reason,
)


def excluded_reason(key: str, value: str) -> str | None:
    """Why the policy keeps a tag out of captions, or None where labels and the model decide."""
    return text_reason(key, value) or attribute_reason(key)


def test_underscores_and_colons_become_spaces() -> None:
    assert tag_text("generator:source", "small_wind_turbine") == "generator source small wind turbine"
    assert tag_text("sport", "soccer;tennis") == "sport soccer, tennis"


def test_a_key_or_a_value_may_stand_alone() -> None:
    assert tag_text("roof:shape", "") == "roof shape"
    assert tag_text("", "gabled") == "gabled"


def test_invisible_and_bidirectional_characters_are_stripped() -> None:
    assert clean_value("as\u200bph\u202ealt\u2066\x07 \n fine\u00ad") == "asphalt fine"


def test_letters_of_other_scripts_stay() -> None:
    assert clean_value("كنيسة  教会") == "كنيسة 教会"


@given(st.text(max_size=400), st.text(max_size=400))
def test_any_text_becomes_one_bounded_printable_line(key: str, value: str) -> None:
    text = tag_text(key, value)
    assert len(text) <= MAX_TEXT_LENGTH
    assert len(clean_value(value)) <= MAX_VALUE_LENGTH
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cn", "Co", "Cs"} for c in text + clean_value(value))
    assert "\n" not in text
    assert text == text.strip()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("name", "Hauptstrasse", "name"),
        ("name:fi", "puisto", "name"),
        ("old_name", "x", "name"),
        ("destination:forward", "x", "name"),
        ("operator", "city", "organisation"),
        ("network:short", "abc", "organisation"),
        ("addr:housenumber", "3", "address"),
        ("is_in:country", "x", "address"),
        ("phone", "144", "contact"),
        ("emergency:phone", "144", "contact"),
        ("contact:email", "someone", "contact"),
        ("parking", "see www.example.org", "contact"),
        ("flag", "https://example.org/x.png", "contact"),
        ("shop", "me@example.org", "contact"),
        ("ref", "12", "identifier"),
        ("railway:track_ref", "3", "identifier"),
        ("brand:wikidata", "Q1", "organisation"),
        ("wikidata", "Q1", "identifier"),
        ("mml:class", "42211", "identifier"),
        ("source", "survey", "source"),
        ("maxspeed:source", "sign", "source"),
        ("created_by", "JOSM", "source"),
        ("FIXME", "position", "note"),
        ("was:highway", "footway", "note"),
        ("start_date", "1872", "time"),
        ("opening_hours", "24/7", "time"),
        ("access:conditional", "no", "time"),
        ("last_renovation", "2008-07", "time"),
        ("time", "2012/03/18 21:54:16+00", "time"),
        ("traffic:hourly:21:Sa:fall:backward", "94/19:00", "time"),
        ("lunch", "yes", "time"),
        ("parking:lane:left:capacity:free:hourly:winter", "Thu 10: 0", "time"),
        ("board", "mo-fr_08:00", "time"),
        ("board", "built_2012-03", "time"),
        ("capital_city", "nassau", "address"),
        ("country", "DE", "address"),
        ("right:municipality", "alins", "address"),
        ("target", "LI", "address"),
        ("direction_north", "vaduz 01:40", "name"),
        ("sculptor", "someone", "name"),
        ("graffiti:tag", "pecs", "name"),
        ("zone:HSL", "A", "name"),
        ("company", "media", "organisation"),
        ("converted_by", "mikes", "source"),
        ("sound", "bing", "source"),
        ("_fix_", "dgps", "identifier"),
        ("noaa:geohash", "468dc0f8411d", "identifier"),
        ("rednap:tipo", "PRINCIPAL", "identifier"),
        ("seamark:light:reference", "J4670.8", "identifier"),
        ("building", "468dc0f8411d", "identifier"),
        ("building", "123e4567-e89b-12d3-a456-426614174000", "identifier"),
        ("CHECKME", "x", "note"),
        ("seamark:information", "by car", "note"),
        ("defibrillator:location", "haupteingang", "note"),
        ("building", "ftp://example.org/1.pdf", "contact"),
        ("shop", "bakery.example.com", "contact"),
        ("amenity", "houseseurakunta.fi", "contact"),
        ("ele", "452", "number"),
        ("height", ".3", "number"),
        ("height", "1,5 m", "number"),
        ("plant:output", "19.9 MW", "number"),
        ("width", "3", "number"),
        ("geobase:acquisitionTechnique", "Orthophoto", "identifier"),
        ("GeoBaseNHN:Definition", "yes", "identifier"),
        ("tiger:reviewed", "no", "identifier"),
        ("gnis:Class", "Populated Place", "identifier"),
        ("canvec:UUID", "x", "identifier"),
        ("source:nhd:feature", "lake", "source"),
        ("nvdb:surface", "paved", "identifier"),
        ("LINZ2OSM:layer", "wharf_edge", "identifier"),
        ("maxwidth", "5'6\"", "number"),
        ("width:lanes", "3.5|3.5|2.5", "number"),
        ("historic:period", "1800-1900", "number"),
        ("billboard:size", "1.5x2.5", "number"),
        ("interval", "00:15:00", "time"),
        ("shop", "242-394-7412", "number"),
        ("shop", "(09) 22 88 00", "number"),
        ("lanes", "9007199254740993", "number"),
        ("building:levels", "2-3", "number"),
        ("building", "9007199254740993", "number"),
        ("turn:lanes", "left|through", "free text"),
        ("construction", "*", "free text"),
        ("diameter", "'block'", "free text"),
        ("pyörä_väistää_aina_autoa", "jep", "free text"),
        ("a key", "yes", "free text"),
        ("k" * 61, "yes", "free text"),
        ("surface", "as\x07phalt", "free text"),
        ("surface", "as\u200bphalt", "free text"),
        ("building", "\u202ehcruhc", "free text"),
        ("building", "בניין", "free text"),
        ("building", "x" * 255, "free text"),
        ("building", "old house, ruins", "free text"),
        ("office", "Digital_Growth_Consultancy", "free text"),
        ("marker", "ViaAlpina", "free text"),
        ("crane:type", "Container crane", "free text"),
        ("width", "2.5 m", "number"),
        ("hole:diameter", "20 cm", "number"),
        ("denotation", "The big tree of Schaan", "free text"),
        ("building", "Ämtli", "free text"),
        ("building", "a" * 41, "free text"),
        ("barrier", "one of two or three walls", "free text"),
        ("barrier", " ", "free text"),
    ],
)
def test_text_is_told_from_classes(key: str, value: str, reason: str) -> None:
    assert text_reason(key, value) == reason
    assert excluded_reason(key, value) == reason


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("building", "yes"),
        ("lanes", "2"),
        ("building:levels", "3"),
        ("layer", "-1"),
        ("crossing_ref", "zebra"),
        ("generator:source", "solar"),
        ("noname", "yes"),
        ("roof:colour", "#b4c9b3"),
        ("traffic_sign", "FI:372"),
        ("marker:shape", "vertical oval on a rectangle"),
        ("leaf_cycle", "deciduous"),
        ("cycle_barrier", "double"),
        ("lit", "24/7"),
        ("type", "multipolygon"),
        ("species", "Prunus avium"),
        ("species", "Platanus x hispanica"),
        ("genus", "malus"),
        ("survey_point", "plaque"),
        ("street_cabinet", "power"),
        ("information", "guidepost"),
        ("structure_gauge", "GC"),
        ("building:levels", "2.5"),
        ("layer", ".1"),
        ("oneway", "-1"),
        ("maxspeed", "30 mph"),
        ("building:colour", "#708090"),
        ("material", "granite; metal"),
        ("railway:signal:shunting:states", "FI:Ro0"),
    ],
)
def test_classes_are_no_text(key: str, value: str) -> None:
    assert text_reason(key, value) is None


def test_attributes_that_no_picture_shows_are_excluded_whatever_their_value() -> None:
    assert attribute_reason("religion") == "belief"
    assert excluded_reason("religion", "hindu") == "belief"
    assert excluded_reason("lit", "yes") == "lighting"
    assert excluded_reason("oneway:bicycle", "no") == "access or traffic rule"
    assert excluded_reason("parking:condition:left", "ticket") == "parking rule"
    assert excluded_reason("razed:building", "yes") == "not there, or not any more"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("piste:lit", "lighting"),
        ("ramp:wheelchair", "service or equipment indoors"),
        ("cycleway:right:oneway", "access or traffic rule"),
        ("aerialway:summer:access", "access or traffic rule"),
        ("parking:fee", "parking rule"),
        ("turn:lanes:forward", "access or traffic rule"),
        ("toll", "access or traffic rule"),
        ("capacity:disabled", "whom it is for"),
        ("unisex", "whom it is for"),
        ("community:gender", "whom it is for"),
        ("building:denomination", "belief"),
        ("railway:pzb", "engineering value"),
        ("traffic_signals:foot", "device"),
        ("seamark:light:character", "device"),
        ("fuel:octane_98", "service or equipment indoors"),
        ("piste:difficulty", "rating of a route"),
    ],
)
def test_attributes_are_told_by_any_part_of_their_key(key: str, reason: str) -> None:
    assert text_reason(key, "yes") is None
    assert attribute_reason(key) == reason


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=300)), max_size=20))
def test_many_tags_at_once_give_what_each_gives_alone(tags: list[tuple[str, str]]) -> None:
    tags += [("roof:shape", "half_hipped"), ("a;b", " x "), ("k" * 101, "v"), ("name", "A"), ("building", "a  b")]
    keys, values = (pa.array([tag[i] for tag in tags], pa.string()) for i in (0, 1))
    assert tag_texts(keys, values).to_pylist() == [tag_text(*tag) for tag in tags]
    assert class_mask(keys, values).to_pylist() == [text_reason(*tag) is None for tag in tags]


def test_what_may_be_seen_is_not_excluded() -> None:
    assert excluded_reason("parking:lane:both", "parallel") is None
    assert excluded_reason("railway:switch", "double_slip") is None
    assert excluded_reason("natural", "tree") is None
