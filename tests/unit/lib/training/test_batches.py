"""Dealing of batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skyscript_assets.lib.training.batches import deal_batches


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=120), st.integers(2, 16), st.integers(0, 99))
def test_equal_captions_meet_only_where_they_must(captions: list[int], batch_size: int, seed: int):
    batch_size = min(batch_size, len(captions))
    codes = np.array(captions)
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
    codes = np.arange(103) % 5
    one, two = (deal_batches(codes, 10, np.random.default_rng(seed)) for seed in (0, 1))
    again = deal_batches(codes, 10, np.random.default_rng(0))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert set(np.concatenate(one).tolist()) != set(np.concatenate(two).tolist())
