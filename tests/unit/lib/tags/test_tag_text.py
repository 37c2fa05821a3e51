"""What a tag says in words, and what the policy keeps out."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.tags.text import (
    MAX_TEXT_LENGTH,
    MAX_VALUE_LENGTH,
    attribute_reason,
    clean_value,
    excluded_reason,
    tag_text,
    text_reason,
)


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
        ("ele", "452", "number"),
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


def test_what_may_be_seen_is_not_excluded() -> None:
    assert excluded_reason("parking:lane:both", "parallel") is None
    assert excluded_reason("railway:switch", "double_slip") is None
    assert excluded_reason("natural", "tree") is None
