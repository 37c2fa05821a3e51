import numpy as np
import pytest

from skyscript_assets.lib.pairs import near
from skyscript_assets.lib.pairs.near import keep_first, near_pairs


def hashes(seed: int, n: int) -> np.ndarray:
    """Random hashes, of which the second half are those of the first with up to eight bits turned over."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 2**64, n, dtype=np.uint64)
    found[n // 2 :] = found[: n - n // 2]
    for row in range(n // 2, n):
        for bit in rng.integers(0, 64, rng.integers(0, 9)):
            found[row] ^= np.uint64(1) << np.uint64(bit)
    return found[rng.permutation(n)]


@pytest.mark.parametrize("radius", [0, 1, 4, 6, 8])
def test_near_pairs_are_those_of_brute_force(radius: int) -> None:
    some = hashes(radius, 1200)
    bits = np.bitwise_count(some[:, np.newaxis] ^ some)
    pairs, crowded = near_pairs(some, radius)
    assert pairs.tolist() == np.argwhere(np.triu(bits <= radius, 1)).tolist()
    assert len(pairs) > 60
    assert not crowded.any()


@pytest.mark.parametrize("n", [0, 1])
def test_there_are_no_pairs_of_one_hash(n: int) -> None:
    pairs, crowded = near_pairs(np.ones(n, np.uint64), 6)
    assert (pairs.shape, crowded.shape) == ((0, 2), (n,))


def test_what_many_hashes_share_is_bounded_and_told() -> None:
    n = 3000
    pairs, crowded = near_pairs(np.full(n, 7, np.uint64), 6)
    assert n - near.MOST <= len(pairs) <= n * near.MOST
    assert crowded[: n - near.MOST - 1].all()
    assert (np.diff(pairs, axis=1) > 0).all()


def test_rows_are_searched_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    some = hashes(1, 500)
    whole, _ = near_pairs(some, 6)
    monkeypatch.setattr(near, "ROWS_AT_ONCE", 7)
    assert near_pairs(some, 6)[0].tolist() == whole.tolist()


def test_of_pairs_the_first_stays_and_one_that_went_takes_nobody_along() -> None:
    pairs = np.array([[2, 3], [0, 1], [1, 2], [4, 5], [3, 5]])
    assert keep_first(pairs, 7).tolist() == [0, 0, 2, 2, 4, 4, 6]


def test_no_two_that_stay_are_a_pair_and_each_other_has_one_that_stays() -> None:
    rng = np.random.default_rng(3)
    pairs = np.unique(np.sort(rng.integers(0, 300, (600, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    kept = keep_first(pairs, 300)
    stays = kept == np.arange(300)
    assert not stays[pairs].all(axis=1).any()
    known = set(map(tuple, pairs.tolist()))
    assert all((kept[row], row) in known and stays[kept[row]] for row in np.flatnonzero(~stays))
