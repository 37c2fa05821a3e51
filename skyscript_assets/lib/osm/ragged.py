"""Runs: values of many objects one behind the other, and the offsets at which each object's begin.

`offsets` has one entry more than there are objects; runs follow each other without gaps and may be empty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray


def offsets_of(counts: IntArray) -> IntArray:
    """Where each of n runs begins, and the end of the last: [n + 1]."""
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
    """Offsets of the runs that remain where only the marked values are kept."""
    return offsets_of(marks.astype(np.int64))[offsets]


def any_of(marks: BoolArray, offsets: IntArray) -> BoolArray:
    """[n] whether any value of each run is marked."""
    answer = np.zeros(len(offsets) - 1, np.bool_)
    some = offsets[1:] > offsets[:-1]
    if some.any():
        answer[some] = np.logical_or.reduceat(marks, offsets[:-1][some])
    return answer


def sums(values: FloatArray, offsets: IntArray) -> FloatArray:
    """[n] sum of each run."""
    answer = np.zeros(len(offsets) - 1)
    some = offsets[1:] > offsets[:-1]
    if some.any():
        answer[some] = np.add.reduceat(values, offsets[:-1][some])
    return answer


def closed(places: NDArray[np.int32], offsets: IntArray) -> BoolArray:
    """[n] whether each run ends at the place where it begins."""
    answer = np.zeros(len(offsets) - 1, np.bool_)
    some = np.flatnonzero(offsets[1:] > offsets[:-1])
    answer[some] = (places[offsets[some]] == places[offsets[some + 1] - 1]).all(axis=1)
    return answer
