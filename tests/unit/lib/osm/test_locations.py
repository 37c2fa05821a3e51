from pathlib import Path

import numpy as np

from skyscript_assets.lib.osm.locations import NodeLocations, order_of
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE


def index_of(folder: Path, *parts: tuple[list[int], list[tuple[int, int]]]) -> NodeLocations:
    index = NodeLocations(folder)
    for ids, places in parts:
        index.add(np.array(ids, np.int64), np.array(places, np.int32).reshape(-1, 2))
    index.finish()
    return index


def test_nodes_are_found_in_any_order_and_missing_ones_are_nowhere(tmp_path: Path) -> None:
    index = index_of(tmp_path, ([-3, 2, 5], [(1, 2), (3, 4), (5, 6)]), ([1 << 60], [(7, 8)]))
    found = index.find(np.array([5, -3, 5, 3, 1 << 60, (1 << 60) + 1, -4, 0]))
    gone = [NOWHERE, NOWHERE]
    assert found.tolist() == [[5, 6], [1, 2], [5, 6], gone, [7, 8], gone, gone, gone]


def test_an_index_without_nodes_finds_nothing(tmp_path: Path) -> None:
    index = index_of(tmp_path, ([], []))
    assert index.find(np.array([1])).tolist() == [[NOWHERE, NOWHERE]]
    assert index.find(np.zeros(0, np.int64)).shape == (0, 2)


def test_negative_ids_come_first_by_their_size() -> None:
    ids = np.array([-1, -2, -900, 0, 1, 900])
    assert (np.diff(order_of(ids)) > 0).all()
