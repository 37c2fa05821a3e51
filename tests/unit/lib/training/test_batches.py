"""Choice of pairs and dealing of batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.settings.models import AlignRecipe, TrainedModel
from skyscript_assets.lib.training.batches import codes_of, deal_batches, require_enough, select_pairs


def model(**fields: object) -> TrainedModel:
    return TrainedModel.model_validate({"title": "Model", "base": "b", "recipe": AlignRecipe(batch_size=8)} | fields)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=120), st.integers(2, 16), st.integers(0, 99))
def test_equal_captions_meet_only_where_they_must(captions: list[int], batch_size: int, seed: int):
    batch_size = min(batch_size, len(captions))
    codes = codes_of([str(c) for c in captions])
    batches = deal_batches(codes, batch_size, np.random.default_rng(seed))
    assert len(batches) == len(codes) // batch_size
    assert {len(batch) for batch in batches} == {batch_size}
    dealt = np.concatenate(batches)
    assert len(set(dealt.tolist())) == len(dealt)
    totals = Counter(codes[dealt].tolist())
    for batch in batches:
        for code, count in Counter(codes[batch].tolist()).items():
            assert count <= -(-totals[code] // len(batches))


def test_epochs_are_dealt_differently_and_leave_out_different_pairs():
    codes = codes_of([str(i % 5) for i in range(103)])
    one, two = (deal_batches(codes, 10, np.random.default_rng(seed)) for seed in (0, 1))
    again = deal_batches(codes, 10, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert set(np.concatenate(one).tolist()) != set(np.concatenate(two).tolist())


def test_a_model_takes_its_share_of_the_eligible_pairs_of_its_sources(town_of: Callable):
    eligible = [i != 0 for i in range(48)]
    sources = ["SYN1" if i % 2 else "SYN03" for i in range(48)]
    town = town_of(48, eligible=eligible, source=sources)
    assert len(select_pairs(town.manifest, model(), "train")) == 35
    assert len(select_pairs(town.manifest, model(), "val")) == 8
    half = select_pairs(town.manifest, model(share=0.5), "train")
    assert half.column("chip_id") == [town.chip_ids[i] for i in range(24) if i % 12 < 9 and i]
    assert len(select_pairs(town.manifest, model(share=0.5), "val")) == 8
    only = select_pairs(town.manifest, model(sources=("SYN03",)), "train")
    assert set(only.column("source")) == {"SYN03"}
    assert only.captions("title", "a satellite image of ")[0].startswith("a satellite image of ")


def test_pairs_without_a_rank_are_used_at_full_share_only(town_of: Callable):
    town = town_of(48, rank_share=[None if i < 24 else 0.1 for i in range(48)])
    assert len(select_pairs(town.manifest, model(), "train")) == 36
    assert len(select_pairs(town.manifest, model(share=0.3), "train")) == 18


def test_too_little_is_told_in_one_message_with_what_is_missing(town_of: Callable):
    town = town_of(6, cell=["0/0"] * 6, title=["building"] * 6)
    pairs = select_pairs(town.manifest, model(), "train")
    with pytest.raises(TooLittleDataError) as error:
        require_enough(pairs, pairs.captions("title", ""), 8, "Aligned")
    assert str(error.value) == (
        "Aligned: too little to train on: 6 pairs (at least 8 needed, 2 missing), "
        "1 distinct captions (at least 2 needed, 1 missing), 1 training cells (at least 2 needed, 1 missing); "
        "use a larger region, a higher quota, a larger share, or a smaller batch_size"
    )
