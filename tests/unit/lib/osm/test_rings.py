import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from skyscript_assets.lib.osm.rings import PAIRWISE_NODES, WIDEST, plain_rings

PLACE = st.tuples(st.integers(0, 5), st.integers(0, 5))


def is_plain(*rings: list[tuple[int, int]]) -> list[bool]:
    closed = [[*ring, ring[0]] for ring in rings]
    offsets = np.cumsum([0, *map(len, closed)])
    places = np.array([place for ring in closed for place in ring], np.int32).reshape(-1, 2)
    return plain_rings(places, offsets).tolist()


@given(st.lists(PLACE, min_size=3, max_size=9))
def test_a_ring_is_plain_where_its_nodes_differ_and_its_polygon_is_valid(ring: list[tuple[int, int]]) -> None:
    said = is_plain(ring)[0]
    repeats = any(a == b for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))
    valid = shapely.Polygon(ring).is_valid and not repeats
    # Edges on one line that do not meet are the one case in which the test may say no of a plain ring.
    assert valid or not said
    if valid and not said:
        assert any(
            shapely.LineString([a, b]).disjoint(shapely.LineString([c, d]))
            and shapely.Polygon([a, b, c]).area == shapely.Polygon([a, b, d]).area == 0
            for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)
            for c, d in zip(ring, [*ring[1:], ring[0]], strict=True)
        )


def star(points: int, step: int) -> list[tuple[int, int]]:
    turns = [2 * np.pi * step * i / points for i in range(points)]
    return [(round(1e6 * np.cos(t)), round(1e6 * np.sin(t))) for t in turns]


def test_a_pentagram_turns_one_way_and_is_not_plain() -> None:
    assert is_plain(star(5, 1), star(5, 2)) == [True, False]


@pytest.mark.parametrize("nodes", [PAIRWISE_NODES, PAIRWISE_NODES + 1, 500])
def test_rings_of_any_size_are_judged(nodes: int) -> None:
    round_one = star(nodes, 1)
    crossed = [*round_one[:2], round_one[3], round_one[2], *round_one[4:]]
    touching = [*round_one[:-1], round_one[1]]
    repeating = [*round_one[:5], round_one[4], *round_one[5:]]
    assert is_plain(round_one, crossed, touching, repeating) == [True, False, False, False]


def test_a_ring_around_half_the_world_is_left_to_others() -> None:
    assert is_plain([(0, 0), (WIDEST, 0), (0, 10)], [(0, 0), (WIDEST - 1, 0), (0, 10)]) == [False, True]


def test_no_rings_are_no_rings() -> None:
    assert is_plain() == []
