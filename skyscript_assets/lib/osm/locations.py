"""Where every node of an extract lies: a sorted index on disk, looked up for many nodes at once."""

from pathlib import Path

import numpy as np

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Places


def order_of(ids: IntArray) -> IntArray:
    """Numbers in whose order ids stand in a sorted file: negative ids come first, by their size (libosmium)."""
    return np.where(ids < 0, -ids - (1 << 62), ids)


class NodeLocations:
    """Locations of nodes, added in the order of their ids.

    The index is two files that the operating system holds in memory as far as there is room: 16 bytes a node, with
    no limit to their number.
    """

    def __init__(self, folder: Path) -> None:
        """Make an empty index in an existing folder."""
        self._paths = folder / "node_ids.bin", folder / "node_places.bin"
        self._files = [path.open("wb") for path in self._paths]
        self._ids: IntArray = np.zeros(0, np.int64)
        self._places: Places = np.zeros((0, 2), np.int32)

    def add(self, ids: IntArray, places: Places) -> None:
        """Add nodes by OSM ids, [n], that follow those there, with longitude and latitude, [n, 2], in 1e-7 degrees."""
        # Not `tofile`, which forgets why a write failed.
        self._files[0].write(order_of(ids).data)
        self._files[1].write(np.ascontiguousarray(places).data)

    def finish(self) -> None:
        """Make the index ready to be read; nothing can be added any more."""
        for file in self._files:
            file.close()
        if self._paths[0].stat().st_size:
            self._ids = np.memmap(self._paths[0], np.int64, "r")
            self._places = np.memmap(self._paths[1], np.int32, "r").reshape(-1, 2)

    def find(self, ids: IntArray) -> Places:
        """Locations [n, 2], 1e-7 degrees, of OSM ids, [n], in any order; `NOWHERE` for those that are not there."""
        if len(self._ids) == 0:
            return np.full((len(ids), 2), NOWHERE, np.int32)
        wanted = order_of(ids)
        rows = np.searchsorted(self._ids, wanted)
        rows[rows == len(self._ids)] = 0
        places: Places = self._places[rows]
        places[self._ids[rows] != wanted] = NOWHERE
        return places
