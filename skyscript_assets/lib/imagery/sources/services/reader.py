"""Pixels of a scene of tiles: those under a window are fetched, kept on this machine and put together.

A tile that cannot be had is an error for what needs it; whether the service as a whole has failed is found out by
asking again for the tile that answered when the scene was indexed.
"""

import contextlib
import functools
import math
from collections.abc import Sequence
from pathlib import Path

from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.errors import CorruptInputError, UnreachableError
from skyscript_assets.lib.imagery.reader import Pixels, SceneReader, Window, assembled
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.sources.services.cache import TileCache, shared_folder
from skyscript_assets.lib.imagery.sources.services.client import Client
from skyscript_assets.lib.imagery.sources.services.settings import ServiceSource
from skyscript_assets.lib.imagery.sources.services.tile import TileAddress, fetch_tile
from skyscript_assets.lib.lookahead import in_order

RECENT_BYTES = 64 << 20
"""Memory that decoded tiles of one reader may take."""

MAX_FAILED_IN_A_ROW = 20
"""Tiles in a row without an answer after which a service counts as failed, whatever else it answers."""

Place = tuple[int, int]
"""Column and row of a tile, in the service's numbering."""


class TileReader(SceneReader):
    """Reads windows of a scene that is served in tiles; these are kept in the folder that all readers share."""

    def __init__(self, scene: Scene, source: ServiceSource, cache: Path | None = None) -> None:
        super().__init__(scene)
        self._source, self._folder = source, cache
        self._address = TileAddress(scene)
        self._recent: Cache[Pixels | None] = Cache(max(4, RECENT_BYTES // (4 * math.prod(self.block_shape))))
        self._failed: dict[Place, str] = {}
        self._failed_in_a_row = 0

    def open(self, stack: contextlib.ExitStack) -> None:
        """Make ready; nothing is asked yet.

        Raises:
            SettingsError: the key of the service is missing.
        """
        folder = Path(stack.enter_context(shared_folder(self._folder)))
        self._client = Client(self._source, self.scene.source, folder)
        self._cache = TileCache(folder / self.scene.fingerprint[:16], self._source.cache_mb * 1_000_000)
        stack.callback(self._cache.prune)
        stack.enter_context(self._recent.used())

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of a tile."""
        return self._address.height, self._address.width

    def expect(self, windows: Sequence[Window]) -> None:
        """Fetch the tiles under the windows that are not here yet, a few at a time, each once.

        Raises:
            MissingInputError: the service refuses.
            UnreachableError: it has failed, or wants fewer requests.
        """
        places = dict.fromkeys(place for window in windows for place in self._places(window))
        unknown = [place for place in places if place not in self._recent and place not in self._failed]
        missing = [place for place in unknown if not self._cache.path(*place).is_file()]
        for _ in in_order(self._fetch, missing, threads=self._source.connections):
            pass

    def read_inside(self, window: Window) -> Pixels:
        """Pixels of a window of the image, put together from its tiles."""

        def tile(row: int, column: int) -> Pixels | None:
            place = self._address.first_column + column, self._address.first_row + row
            return self._recent.get(place, functools.partial(self._kept, place))

        return assembled(window, self.block_shape, tile)

    def _places(self, window: Window) -> list[Place]:
        """The tiles under a window, row by row."""
        width, height = self._address.width, self._address.height
        columns = range(window.column // width, (window.column + window.width - 1) // width + 1)
        rows = range(window.row // height, (window.row + window.height - 1) // height + 1)
        left, top = self._address.first_column, self._address.first_row
        return [(left + column, top + row) for row in rows for column in columns]

    def _kept(self, place: Place) -> Pixels | None:
        """A tile from this machine, None where it has no image; one that is not here, or was damaged, is fetched."""
        try:
            data = self._cache.path(*place).read_bytes()
            return self._address.decode(data) if data else None
        except (CorruptInputError, FileNotFoundError):
            pixels = None if place in self._failed else self._fetch(place)
        if place in self._failed:
            raise CorruptInputError(self._failed[place])
        return pixels

    def _fetch(self, place: Place) -> Pixels | None:
        """Ask for a tile and keep it; one that cannot be had is remembered as failed."""
        try:
            data, pixels = fetch_tile(self._client, self._address, *place)
        except (UnreachableError, CorruptInputError) as error:
            self._failed_in_a_row += 1
            self._check_service(str(error))
            self._failed[place] = str(error)
            return None
        self._failed_in_a_row = 0
        self._cache.write(*place, data)
        return pixels

    def _check_service(self, problem: str) -> None:
        """Find out whether a tile or the whole service has failed."""
        if self._failed_in_a_row < MAX_FAILED_IN_A_ROW:
            with contextlib.suppress(UnreachableError, CorruptInputError):
                fetch_tile(self._client, self._address, *self.scene.access["probe"])
                return
        raise UnreachableError(
            f"{problem}; nor does the tile come that did when scene {self.scene.scene_id} was indexed: run again later "
            "(finished tiles are kept), or materialize scene_index again where the service has changed"
        )
