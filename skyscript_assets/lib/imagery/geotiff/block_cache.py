"""Decoded blocks of raster files: a bounded cache that threads share.

Windows of a plan overlap, so a block is wanted many times; it is decoded once, brought to 8-bit RGB once, and kept
while there is room. What a block of a scene looks like belongs to `raster`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from skyscript_assets.lib.imagery.reader import Pixels

CACHE_BYTES = 192 << 20
"""Decoded pixels that are kept for all open scenes of a process together."""


class BlockCache:
    """Blocks by key, the least lately used dropped first; a block that two threads want is loaded by one of them.

    Args:
        limit: Bytes kept; one block is kept even where it is larger.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._blocks: OrderedDict[Hashable, Pixels] = OrderedDict()
        self._loading: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()
        self._users = 0

    def get(self, key: Hashable, load: Callable[[], Pixels]) -> Pixels:
        """The block of a key; `load` makes it where it is not there, and its error passes on to whoever asked."""
        while True:
            with self._lock:
                if (block := self._blocks.get(key)) is not None:
                    self._blocks.move_to_end(key)
                    return block
                begun = self._loading.get(key)
                if begun is None:
                    begun = self._loading[key] = threading.Event()
                    break
            begun.wait()
        try:
            block = load()
            self._keep(key, block)
        finally:
            with self._lock:
                del self._loading[key]
            begun.set()
        return block

    def _keep(self, key: Hashable, block: Pixels) -> None:
        with self._lock:
            self._blocks[key] = block
            self.nbytes += block.nbytes
            while self.nbytes > self.limit and len(self._blocks) > 1:
                self.nbytes -= self._blocks.popitem(last=False)[1].nbytes

    def join(self) -> None:
        """Count one more reader."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """Count one reader less; the last one leaves nothing behind."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._blocks.clear()
                self.nbytes = 0
