"""Lengths, areas and Hilbert order of many geometries at once, on the WGS 84 ellipsoid.

Geometries are given as paths: the places of all lines and rings as ragged arrays (`lib.osm.ragged`).
"""

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.geometry import WGS84_RADIUS_M
from skyscript_assets.lib.osm.ragged import reduced

ECCENTRICITY_SQUARED = 6.694_379_990_14e-3
"""First eccentricity of WGS 84, squared."""

HILBERT_ORDER = 28
"""Order of the Hilbert curve over the whole world: cells of about 0.15 m at the equator."""

_AT_ONCE = 4
"""Orders of the curve that are looked up at once."""


def path_lengths_m(places: FloatArray, offsets: IntArray) -> FloatArray:
    """Lengths in metres along paths.

    A segment's length is that of its chord in the plane that touches the ellipsoid at its middle latitude, with the
    radii of curvature of Snyder, Map Projections: a Working Manual (USGS PP 1395, 1987), eqs. 4-18 and 4-20. Segments
    up to 100 km come out within 0.01 %.

    Args:
        places: [m, 2] longitudes and latitudes, degrees.
        offsets: [n + 1] where each path begins; paths follow each other without gaps.

    Returns:
        [n] metres.
    """
    if len(places) < 2:
        return np.zeros(len(offsets) - 1)
    longitudes, latitudes = np.radians(places[:, 0]), np.radians(places[:, 1])
    sine = np.sin((latitudes[1:] + latitudes[:-1]) / 2.0)
    sine *= sine
    root = 1.0 - ECCENTRICITY_SQUARED * sine
    east = np.sqrt((1.0 - sine) / root) * np.diff(longitudes)
    north = (1.0 - ECCENTRICITY_SQUARED) / (root * np.sqrt(root)) * np.diff(latitudes)
    metres = np.zeros(len(places))
    np.hypot(east, north, out=metres[1:])
    # The step from one path to the next is none.
    metres[offsets[:-1][offsets[:-1] < len(places)]] = 0.0
    return WGS84_RADIUS_M * reduced(np.add, metres, offsets)


def ring_areas_m2(places: FloatArray, offsets: IntArray) -> FloatArray:
    """Areas in square metres inside closed rings, positive where the ring runs counterclockwise.

    Places are taken to the cylindrical equal-area projection of the ellipsoid (Snyder 1987, eqs. 10-18 and 10-19,
    standard parallel 0), about each ring's own first place so that small areas keep their digits. The ordinate is the
    series in sin(latitude) of which eq. 3-12 is the closed form; seven terms reach the last digit of a float. Areas
    there are true; that edges are straight in this projection and not geodesics is an error below 0.1 % where a shape
    is up to 10 km wide (at latitude 83 degrees; at 60 degrees up to 100 km); a house 300 m from a pole is 0.6 % off.

    Args:
        places: [m, 2] longitudes and latitudes, degrees.
        offsets: [n + 1] where each ring begins; rings follow each other without gaps.

    Returns:
        [n] square metres.
    """
    counts = np.diff(offsets)
    sine = np.sin(np.radians(places[:, 1]))
    square = ECCENTRICITY_SQUARED * sine * sine
    series = np.zeros(len(sine))
    for k in range(6, -1, -1):
        series = series * square + (k + 1.0) / (2.0 * k + 1.0)
    y = (1.0 - ECCENTRICITY_SQUARED) * sine * series
    x = np.radians(places[:, 0])
    firsts = offsets[:-1][counts > 0]
    x -= np.repeat(x[firsts], counts[counts > 0])
    y -= np.repeat(y[firsts], counts[counts > 0])
    cross = np.zeros(len(x))
    if len(x) > 1:
        # The step from one ring to the next starts or ends at a first place, which is zero.
        cross[1:] = x[:-1] * y[1:] - x[1:] * y[:-1]
    return WGS84_RADIUS_M**2 / 2.0 * reduced(np.add, cross, offsets)


def hilbert_index(longitudes: FloatArray, latitudes: FloatArray) -> NDArray[np.uint64]:
    """Place of points along a Hilbert curve over the whole world, so that neighbours in a table are near on the ground.

    Longitudes and latitudes, [n] degrees, become [n] positions below 4 ** `HILBERT_ORDER`, on the same curve for every
    table. Conversion order by order (Warren, Hacker's Delight, 2nd ed., 16-2), four in one look-up.
    """
    side = 1 << HILBERT_ORDER
    x = np.clip((longitudes + 180.0) * (side / 360.0), 0, side - 1).astype(np.int64)
    y = np.clip((latitudes + 90.0) * (side / 180.0), 0, side - 1).astype(np.int64)
    index = np.zeros(len(x), np.uint64)
    turned = np.zeros(len(x), np.int64)
    mask = (1 << _AT_ONCE) - 1
    for shift in range(HILBERT_ORDER - _AT_ONCE, -1, -_AT_ONCE):
        cell = turned << 2 * _AT_ONCE | (x >> shift & mask) << _AT_ONCE | (y >> shift & mask)
        index = index << np.uint64(2 * _AT_ONCE) | _STEPS[cell]
        turned = _TURNS[cell]
    return index


def _tables() -> tuple[NDArray[np.uint64], IntArray]:
    """For each way in which the curve may lie in a cell, and each place in it: the step, and how the curve lies there.

    Bit 0 of a way tells that x and y change places, bit 1 that both run backwards.
    """
    side = 1 << _AT_ONCE
    way, x, y = (axis.ravel() for axis in np.meshgrid(np.arange(4), np.arange(side), np.arange(side), indexing="ij"))
    step = np.zeros(len(way), np.uint64)
    for bit in range(_AT_ONCE - 1, -1, -1):
        back = way >> 1
        right, upper = (x >> bit & 1) ^ back, (y >> bit & 1) ^ back
        right, upper = np.where(way & 1, upper, right), np.where(way & 1, right, upper)
        step = step << np.uint64(2) | ((3 * right) ^ upper).astype(np.uint64)
        # A lower quadrant holds the curve transposed; the right one of the two also turned by half.
        way = way ^ np.where(upper == 0, 1 | right << 1, 0)
    return step, way.astype(np.int64)


_STEPS, _TURNS = _tables()
