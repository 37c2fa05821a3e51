"""A sweep as models."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from skyscript_assets.lib.files import is_name
from skyscript_assets.lib.settings.models import ModelsFile, TrainedModel

ENTRY: dict[str, Any] = {"title": "Aligned", "base": "b", "recipe": {"kind": "align"}}


def models(**entries: Any) -> dict[str, TrainedModel]:
    return ModelsFile(bases={"b": {"kind": "open_clip", "name": "ViT-B-32"}}, models=entries).models


def refusal(**entries: Any) -> str:
    with pytest.raises(ValidationError) as error:
        models(**entries)
    return "\n".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.value.errors())


def test_each_combination_of_values_is_a_model_and_seeds_are_a_group():
    found = models(a=ENTRY | {"sweep": {"recipe.lr": ["1e-5", 1.0e-9], "recipe.lock_text": [True], "seed": [0, 3]}})
    assert list(found) == [
        "a-lr-1e-5-lock_text-true-0",
        "a-lr-1e-5-lock_text-true-3",
        "a-lr-1e-9-lock_text-true-0",
        "a-lr-1e-9-lock_text-true-3",
    ]
    assert all(map(is_name, found))
    last = found["a-lr-1e-9-lock_text-true-3"]
    assert (last.recipe.lr, last.recipe.lock_text, last.seed) == (1e-9, True, 3)
    assert (last.title, last.group) == ("Aligned, lr 1e-9, lock_text true", "a-lr-1e-9-lock_text-true")


def test_seeds_alone_keep_the_entrys_key_title_and_group():
    found = models(a=ENTRY | {"group": "g", "sweep": {"seed": [0, 1]}}, other=ENTRY)
    assert {key: (model.title, model.group, model.seed) for key, model in found.items()} == {
        "a-0": ("Aligned", "g", 0),
        "a-1": ("Aligned", "g", 1),
        "other": ("Aligned", None, 0),
    }


def test_lists_bases_and_shares_can_be_swept():
    found = models(a=ENTRY | {"sweep": {"recipe.column": [["title", "natural_short"], "statements"], "share": [0.5]}})
    assert list(found) == ["a-column-title_natural_short-share-0.5", "a-column-statements-share-0.5"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"recipe.crop": ["focus"]}, "a.sweep: recipe.crop is no field that can be swept; those are base, seed, "),
        ({"recipe.kind": ["clip"]}, "recipe.kind is no field"),
        ({"title": ["x"]}, "title is no field"),
        ({"seed": []}, "a.sweep: it needs a list of one value or more for each field"),
        ({"seed": 3}, "it needs a list"),
        ({}, "it needs a list"),
        ([0, 1], "it needs a list"),
        ({"seed": list(range(20)), "recipe.lr": [i + 1 for i in range(20)]}, "it makes 400 models, at most 256"),
        ({"seed": [0, 0]}, "a.sweep: two models are called a-0: list each value once"),
        ({"recipe.lr": [1e-9, "1e-9"]}, "two models are called a-lr-1e-9"),
        ({"base": ["x/y"]}, "a-base-x/y.[key]: Value error, it becomes a folder's name"),
        ({"seed": [0], "recipe.lr": [-1]}, "a-lr--1-0.recipe.align.lr: Input should be greater than 0"),
    ],
)
def test_what_cannot_be_swept_is_told(sweep: Any, message: str):
    assert message in refusal(a=ENTRY | {"sweep": sweep})


def test_a_key_that_another_entry_has_is_told():
    assert "a-1: two models are called a-1" in refusal(a=ENTRY | {"sweep": {"seed": [1]}}, **{"a-1": ENTRY})


def test_a_mistake_of_the_entry_is_told_once():
    wrong = ENTRY | {"bse": "b", "sweep": {"seed": list(range(50))}}
    assert refusal(a=wrong).splitlines() == ["models.a-0.bse: Extra inputs are not permitted"]
    kind = ENTRY | {"recipe": {"kind": "clipp"}, "sweep": {"seed": [0, 1]}}
    assert refusal(a=kind).count("does not match any of the expected tags") == 1
