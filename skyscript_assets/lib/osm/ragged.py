"""Ragged arrays: the lists of n objects one behind the other, and `offsets` [n + 1], where each begins.

The last offset is the end of the last list. Lists follow each other without gaps and may be empty.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, IntArray


def offsets_of(counts: IntArray) -> IntArray:
    """Offsets of n lists by their lengths: [n + 1]."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """The whole numbers of n ranges, one behind the other."""
    total = int(counts.sum())
    ends: IntArray = np.cumsum(counts)
    answer: IntArray = np.repeat(starts - (ends - counts), counts)
    answer += np.arange(total)
    return answer


def kept_offsets(marks: BoolArray, offsets: IntArray) -> IntArray:
    """Offsets of the lists that remain where only the marked values are kept."""
    return offsets_of(marks.astype(np.int64))[offsets]


def reduced(operation: np.ufunc, values: NDArray[Any], offsets: IntArray) -> NDArray[Any]:
    """[n] what an operation, such as `np.add`, makes of each list; 0 of an empty one."""
    answer = np.zeros(len(offsets) - 1, values.dtype)
    some = offsets[1:] > offsets[:-1]
    if some.any():
        answer[some] = operation.reduceat(values, offsets[:-1][some])
    return answer


def closed(places: NDArray[np.int32], offsets: IntArray) -> BoolArray:
    """[n] whether each list ends at the place where it begins."""
    answer = np.zeros(len(offsets) - 1, np.bool_)
    some = np.flatnonzero(offsets[1:] > offsets[:-1])
    answer[some] = (places[offsets[some]] == places[offsets[some + 1] - 1]).all(axis=1)
    return answer
