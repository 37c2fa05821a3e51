"""One spelling for each value, in Python and as the expression that spares Python most of them."""

import re
import unicodedata

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.tags.normalise import MAX_LENGTH, MAX_LIST, NORMAL_ALREADY, normal_values
from skyscript_assets.lib.tags.text import text_reason

VALUES = st.one_of(
    st.text(max_size=300),
    st.text(alphabet="aAbZ;.,0123 -+_:#/mM\u0301\u200be", max_size=30),
    st.from_regex(r"[-+]?[0-9]{0,4}[.,]?[0-9]{0,4} ?[A-Za-z%']{0,3};?", fullmatch=True),
)


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("tennis;soccer", ("tennis", "soccer")),
        ("tennis; Tennis ;;tennis", ("tennis",)),
        ("19,9MW", ("19.9 MW",)),
        ("19.90 MW", ("19.9 MW",)),
        ("1,5 m", ("1.5 m",)),
        ("3.0", ("3",)),
        ("03", ("3",)),
        ("3;03;3.0", ("3",)),
        (".5", ("0.5",)),
        ("-.50 m", ("-0.5 m",)),
        ("+2", ("2",)),
        ("-0", ("0",)),
        ("000", ("0",)),
        ("30 %", ("30%",)),
        ("5 '", ("5'",)),
        ("1,234", ("1,234",)),
        ("0,125", ("0.125",)),
        ("9007199254740993", ("9007199254740993",)),
        ("5'6\"", ("5'6\"",)),
        ("24/7", ("24/7",)),
        ("Asphalt", ("asphalt",)),
        ("#EDDE10", ("#edde10",)),
        ("FI:331", ("FI:331",)),
        ("D", ("D",)),
        ("GC", ("GC",)),
        ("Prunus avium", ("Prunus avium",)),
        ("Haupteingang rechts", ("Haupteingang rechts",)),
        ("as\u200bph\u202ealt\x07", ("asphalt",)),
        (" ; \u200b;", ()),
        ("", ()),
    ],
)
def test_a_value_is_spelled_in_one_way(value: str, normal: tuple[str, ...]) -> None:
    assert normal_values(value) == normal


@given(VALUES)
def test_normal_values_are_normal_and_bounded_and_printable(value: str) -> None:
    found = normal_values(value)
    assert len(found) <= MAX_LIST
    assert len(set(found)) == len(found)
    for each in found:
        assert normal_values(each) == (each,)
        assert 0 < len(each) <= MAX_LENGTH
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cn", "Co", "Cs"} for c in each)


@given(VALUES)
def test_what_is_free_text_does_not_become_a_class_by_its_spelling(value: str) -> None:
    printable = " ".join(value.split())
    if printable.isascii() and printable.isprintable() and len(printable) <= MAX_LENGTH and ";" not in value:
        reasons = {text_reason("building", each) is None for each in normal_values(value)}
        assert reasons <= {text_reason("building", printable) is None}


@given(st.lists(VALUES, max_size=30))
def test_the_expression_passes_only_values_that_are_normal_already(values: list[str]) -> None:
    values = [value.replace("\x00", "").encode("utf-8", "ignore").decode() for value in values]
    passed = duckdb.execute("SELECT regexp_matches(unnest($1::VARCHAR[]), $2)", [values, NORMAL_ALREADY]).fetchall()
    for value, (same,) in zip(values, passed, strict=True):
        if len(value.encode()) <= MAX_LENGTH:
            assert not same or normal_values(value) == (value,)


@pytest.mark.parametrize("value", ["asphalt", "tree_row", "Triq il-Kbira", "FI:331", "12", "2012-03-18", "0", "a.b"])
def test_the_expression_passes_the_bulk(value: str) -> None:
    assert re.search(NORMAL_ALREADY, value)
