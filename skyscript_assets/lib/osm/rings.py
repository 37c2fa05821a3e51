"""Which closed ways are plain rings: those of which an area can be made without looking for rings in them.

A ring is plain if no two of its edges meet but neighbours at their common node. libosmium's area assembler makes
exactly one outer ring of such a way, so that the result is known without running it; every other way is left to it.
All tests are in whole numbers, and where they cannot tell they say no.
"""

import numpy as np
import shapely
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray, IntArray
from skyscript_assets.lib.osm.ragged import ranges

PAIRWISE_NODES = 20
"""Rings of up to so many nodes have all pairs of their edges tested; larger ones are left to GEOS."""

WIDEST = 1 << 30
"""Rings wider or higher than this, 1e-7 degrees, are not tested: products of their sides might overflow."""

_CHUNK = 1 << 21
"""Pairs of edges tested at once."""


def plain_rings(places: NDArray[np.int32], offsets: IntArray) -> BoolArray:
    """Which closed ways are plain rings, [n].

    A way ends where it begins and has four nodes or more: `places`, [m, 2], are their longitudes and latitudes, 1e-7
    degrees, and `offsets`, [n + 1], where each way begins.
    """
    plain = np.zeros(len(offsets) - 1, np.bool_)
    nodes = np.diff(offsets) - 1
    x, y = places[:, 0].astype(np.int64), places[:, 1].astype(np.int64)
    for count in np.unique(nodes[nodes <= PAIRWISE_NODES]).tolist():
        of = np.flatnonzero(nodes == count)
        # Around the ring, and one node further.
        around = np.arange(count + 2) % count
        for start in range(0, len(of), _CHUNK // (count * count)):
            rows = of[start : start + _CHUNK // (count * count)]
            node = offsets[rows][:, None] + around
            plain[rows] = _plain(x[node], y[node])
    large = np.flatnonzero(nodes > PAIRWISE_NODES)
    if len(large):
        plain[large] = _valid(places, offsets, large)
    return plain


def _plain(x: IntArray, y: IntArray) -> BoolArray:
    """Whether rings of one number of nodes are plain: [k, nodes + 2] coordinates, the first two repeated -> [k]."""
    small = (np.ptp(x, axis=1) < WIDEST) & (np.ptp(y, axis=1) < WIDEST)
    dx, dy = np.diff(x, axis=1), np.diff(y, axis=1)
    turn = dx[:, :-1] * dy[:, 1:] - dy[:, :-1] * dx[:, 1:]
    convex = ((turn > 0).all(axis=1) | (turn < 0).all(axis=1)) & (_changes(dx) == 2)
    plain: BoolArray = small & convex
    rest = np.flatnonzero(small & ~convex)
    if len(rest):
        x, y, dx, dy, turn = (column[rest] for column in (x, y, dx, dy, turn))
        folded = (turn == 0) & (dx[:, :-1] * dx[:, 1:] + dy[:, :-1] * dy[:, 1:] <= 0)
        plain[rest] = ~folded.any(axis=1) & ~_meeting(x[:, :-1], y[:, :-1], dx[:, :-1], dy[:, :-1])
    return plain


def _changes(step: IntArray) -> IntArray:
    """How often the sign changes around rings, zeros not counted: [k, nodes + 1], the first repeated -> [k].

    The direction of a ring that always turns the same way passes north and south once for each time around. Such a ring
    has no two zeros in a row.
    """
    sign = np.sign(step).astype(np.int8)
    before = np.where(sign[:, :-1] == 0, np.roll(sign[:, :-1], 1, axis=1), sign[:, :-1])
    changes: IntArray = np.count_nonzero(before * sign[:, 1:] < 0, axis=1)
    return changes


def _meeting(x: IntArray, y: IntArray, dx: IntArray, dy: IntArray) -> BoolArray:
    """Whether two edges that are no neighbours meet, or might, [k].

    Of nodes, [k, nodes + 1] with the first repeated, and of the edges from each to the next, [k, nodes].
    """
    count = dx.shape[1]
    # On which side of the line through edge i does node j lie?
    side = dx[:, :, None] * (y[:, None, :] - y[:, :-1, None]) - dy[:, :, None] * (x[:, None, :] - x[:, :-1, None])
    sign = np.sign(side).astype(np.int8)
    # The ends of edge j do not both lie strictly on one side of edge i, and the other way round.
    straddles = sign[:, :, :-1] * sign[:, :, 1:] <= 0
    both = straddles & straddles.transpose(0, 2, 1)
    place = np.arange(count)
    apart = (place[:, None] - place[None, :]) % count
    return np.asarray((both & ((apart > 1) & (apart < count - 1))).any(axis=(1, 2)), np.bool_)


def _valid(places: NDArray[np.int32], offsets: IntArray, rows: IntArray) -> BoolArray:
    """What GEOS says of the polygons of large rings, on coordinates that are whole numbers."""
    counts = offsets[rows + 1] - offsets[rows]
    points = places[ranges(offsets[rows], counts)].astype(np.float64)
    owner = np.repeat(np.arange(len(rows)), counts)
    same = np.zeros(len(points), np.bool_)
    same[1:] = (points[1:] == points[:-1]).all(axis=1) & (owner[1:] == owner[:-1])
    repeats = np.bincount(owner, weights=same, minlength=len(rows)) > 0
    rings = shapely.linearrings(points, indices=owner)
    return np.asarray(shapely.is_valid(shapely.polygons(rings)) & ~repeats, np.bool_)
