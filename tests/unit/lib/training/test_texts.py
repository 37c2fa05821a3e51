"""What is said of pairs, and what matches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from skyscript_assets.lib.settings.models import AlignRecipe
from skyscript_assets.lib.training.texts import Texts


def stated(*clauses: str) -> list[dict[str, str]]:
    mains = [clause.partition(" with ")[0] for clause in clauses]
    kinds = [main.partition(" of ")[0] for main in mains]
    return [
        dict(zip(("clause", "main", "kind"), said, strict=True)) for said in zip(clauses, mains, kinds, strict=True)
    ]


SAID = {
    "title": ["landuse of farmland, crop of rice", "landuse of farmland", "road of footway", "landuse of farmland"],
    "title_multi_objects": [
        "landuse of farmland with crop of rice",
        "landuse of farmland, surrounded by road of footway",
        "road of footway, surrounded by landuse of farmland",
        "landuse of farmland",
    ],
    "statements": [
        stated("landuse of farmland with crop of rice"),
        stated("landuse of farmland", "road of footway"),
        stated("road of footway", "landuse of farmland"),
        stated("landuse of farmland"),
    ],
}
ALL = np.arange(4)


def texts(**recipe: object) -> Texts:
    return Texts(pa.table(SAID), AlignRecipe(prefix="", **recipe))


def told(found: Texts, rows: np.ndarray, pairs: np.ndarray = ALL) -> tuple[list[str], list[list[int]] | None]:
    places, matches = found.matching(pairs, rows)
    return [found.texts[row] for row in rows[places]], None if matches is None else matches.astype(int).tolist()


def test_each_image_has_its_own_text_where_only_that_matches():
    found = texts()
    assert told(found, found.first(ALL)) == (SAID["title"], None)


def test_equal_texts_match_each_others_images_and_are_there_once():
    found = texts(positives="equal")
    words, matches = told(found, found.first(ALL))
    assert words == ["landuse of farmland", "landuse of farmland, crop of rice", "road of footway"]
    assert matches == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]


def test_a_title_matches_where_its_object_is_stated_and_a_caption_where_all_of_it_is():
    found = texts(positives="stated")
    assert told(found, found.first(ALL))[1] == [[1, 1, 0], [1, 0, 1], [1, 0, 1], [1, 0, 0]]
    found = texts(positives="stated", column="title_multi_objects")
    words, matches = told(found, found.first(ALL))
    columns = dict(zip(words, np.array(matches).T.tolist(), strict=True))
    assert columns["landuse of farmland"] == [1, 1, 1, 1]
    assert columns["landuse of farmland with crop of rice"] == [1, 0, 0, 0]
    both = [0, 1, 1, 0]
    assert columns["landuse of farmland, surrounded by road of footway"] == both
    assert columns["road of footway, surrounded by landuse of farmland"] == both


def test_statements_are_drawn_object_by_object_in_each_form_and_match_where_they_are_true():
    found = texts(column="statements", positives="stated")
    assert found.texts == sorted({text for said in SAID["statements"] for one in said for text in one.values()})
    rng, drawn = np.random.default_rng(0), Counter()
    for _ in range(300):
        words, matches = told(found, found.draw(ALL, rng))
        drawn.update(words)
        for word, column in zip(words, np.array(matches).T, strict=True):
            true = [any(word in one.values() for one in said) for said in SAID["statements"]]
            assert column.tolist() == true
    assert set(drawn) == set(found.texts)
    assert told(found, found.first(np.array([2])), np.array([2]))[0] == ["road of footway"]


def test_of_several_styles_one_is_drawn_each_time():
    found = texts(column=("title", "title_multi_objects"))
    rng = np.random.default_rng(0)
    drawn = {told(found, found.draw(np.array([1]), rng), np.array([1]))[0][0] for _ in range(20)}
    assert drawn == {"landuse of farmland", "landuse of farmland, surrounded by road of footway"}


def test_sentences_among_other_styles_have_no_prefix():
    pairs = pa.table({"title": ["building"], "natural_short": ["A building."]})
    found = Texts(pairs, AlignRecipe(prefix="a satellite image of ", column=("title", "natural_short")))
    assert found.texts == ["A building.", "a satellite image of building"]
    alone = Texts(pairs, AlignRecipe(prefix="There: ", column="natural_short"))
    assert alone.texts == ["There: A building."]


@pytest.mark.parametrize(("order", "distinct"), [("dealt", 3), ("shuffled", 4)])
def test_batches_are_dealt_by_first_texts_or_all_pairs_differ(order: str, distinct: int):
    assert len(set(texts(order=order).codes.tolist())) == distinct


def test_a_split_without_pairs_has_no_texts():
    none = pa.table(SAID).slice(0, 0)
    for recipe in ({}, {"positives": "stated"}, {"column": "statements", "positives": "stated"}):
        assert Texts(none, AlignRecipe(**recipe)).texts == []
