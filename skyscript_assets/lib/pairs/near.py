"""Which 64-bit hashes differ in few bits, and which of such pairs stay: compiled, millions in seconds."""

import itertools

import numpy as np
from numpy import int64, uint64
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, HashArray, IntArray
from skyscript_assets.lib.compiled import compiled

BITS = 64

AGREEING = 2
"""Bands that two hashes have in common in one of the tables: of radius + 2 bands two always agree."""

WINDOW = 512
"""Most hashes after it, in the order of a table, that a hash is compared with."""

MOST = 16
"""Most hashes after it, in the order of a table, that a hash is found near."""

ROWS_AT_ONCE = 262_144


def near_pairs(hashes: HashArray, radius: int) -> tuple[IntArray, BoolArray]:
    """Rows [m, 2] of the hashes [n] that differ in at most `radius` bits, the lower row first, sorted, each pair once.

    The bits are cut into radius + 2 bands. Hashes within the radius, 0 to 8, differ in at most radius bands and so
    agree in two: for each choice of two bands the hashes are sorted by them, and those that agree are compared (Manku
    et al., "Detecting Near-Duplicates for Web Crawling", WWW 2007, section 3). Where many agree, as those of water,
    each is compared with the next `WINDOW` alone and found near `MOST`: time and memory grow with the rows, whatever
    they are. Of each row is told too whether it was not compared with all that agree with it.
    """
    n = len(hashes)
    edges = np.linspace(0, BITS, radius + AGREEING + 1).round().astype(np.int64).tolist()
    bands = list(itertools.pairwise(edges))
    codes, crowded = np.zeros(0, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    buffer = np.empty(min(n, ROWS_AT_ONCE) * MOST, dtype=np.int64)
    for chosen in itertools.combinations(bands, AGREEING):
        turned, below = np.zeros(n, dtype=np.uint64), BITS
        for low, high in (*chosen, *(band for band in bands if band not in chosen)):
            below -= high - low
            turned |= ((hashes >> np.uint64(low)) & np.uint64((1 << high - low) - 1)) << np.uint64(below)
        rest = BITS - sum(high - low for low, high in chosen)
        rows = np.argsort(turned, kind="stable")
        turned = turned[rows]
        for start in range(0, n, ROWS_AT_ONCE):
            count = _compare(turned, rows, rest, radius, start, start + ROWS_AT_ONCE, buffer, crowded)
            codes = _sorted_once(np.concatenate([codes, buffer[:count]])) if count else codes
    return np.column_stack(np.divmod(codes, n)) if n else np.zeros((0, 2), dtype=np.int64), crowded


def _sorted_once(codes: IntArray) -> IntArray:
    """Sorted, each once; `numpy.unique` takes minutes for what this takes seconds."""
    codes.sort()
    return np.asarray(codes[np.append(True, codes[1:] != codes[:-1])])


@compiled("int64(uint64)")
def _bits_set(value: np.uint64) -> np.int64:
    """How many bits are set, added up in ever wider fields."""
    value = value - ((value >> uint64(1)) & uint64(0x5555555555555555))
    value = (value & uint64(0x3333333333333333)) + ((value >> uint64(2)) & uint64(0x3333333333333333))
    value = (value + (value >> uint64(4))) & uint64(0x0F0F0F0F0F0F0F0F)
    return int64((value * uint64(0x0101010101010101)) >> uint64(56))


@compiled(
    "int64(Array(uint64, 1, 'C', True), Array(int64, 1, 'C', True), int64, int64, int64, int64, int64[::1], "
    "boolean[::1])"
)
def _compare(
    turned: HashArray,
    rows: IntArray,
    rest: int,
    radius: int,
    start: int,
    stop: int,
    found: NDArray[np.int64],
    crowded: BoolArray,
) -> int:
    """Write the pairs, n times the lower row plus the higher one, of hashes from start to stop; their number."""
    n, count = rows.size, int64(0)
    for i in range(start, min(stop, n)):
        near = 0
        for j in range(i + 1, n):
            differ = turned[i] ^ turned[j]
            if differ >> uint64(rest):
                break
            if near == MOST or j - i > WINDOW:
                crowded[rows[i]] = True
                break
            if _bits_set(differ) <= radius:
                found[count] = min(rows[i], rows[j]) * n + max(rows[i], rows[j])
                count += 1
                near += 1
    return int(count)


@compiled("void(Array(int64, 2, 'C', True), int64[::1])")
def _yield_to_first(pairs: IntArray, kept: NDArray[np.int64]) -> None:
    for k in range(pairs.shape[0]):
        first, second = pairs[k, 0], pairs[k, 1]
        if kept[first] == first and kept[second] == second:
            kept[second] = first


def keep_first(pairs: IntArray, n: int) -> IntArray:
    """Which of n rows stay: of each pair [m, 2], the lower one first, that one, unless it yields to another itself.

    No two rows that stay are a pair, and each that does not is in a pair with the one that it yields to. Returns [n]: a
    row's own number where it stays, else that of the row it yields to.
    """
    kept = np.arange(n)
    _yield_to_first(np.ascontiguousarray(pairs[np.lexsort(pairs.T)]), kept)
    return kept
