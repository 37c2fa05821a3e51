"""One tile: its address, and what an answer to it is worth."""

import hashlib

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.sources.services.client import Client
from skyscript_assets.lib.imagery.sources.services.decode import decode_tile
from skyscript_assets.lib.secrets import shown

_XY, _YX = ("{west}", "{south}", "{east}", "{north}"), ("{south}", "{west}", "{north}", "{east}")
"""Lower and upper corner of a box, in either order of axes."""


class TileAddress:
    """Addresses of the tiles of a service's scene, by their column and row in the service's own numbering."""

    def __init__(self, scene: Scene) -> None:
        self._template, self._access = scene.hrefs[0], scene.access
        self.width, self.height = (int(side) for side in scene.access["tile"])
        self.first_column, self.first_row = (int(number) for number in scene.access["first"])
        self._left, self._top, self._pixel = scene.transform[2], scene.transform[5], scene.transform[0]

    def url(self, column: int, row: int) -> str:
        """Address of a tile, with `{api_key}` where its key belongs."""
        left = self._left + (column - self.first_column) * self.width * self._pixel
        top = self._top - (row - self.first_row) * self.height * self._pixel
        box = (left, top - self.height * self._pixel, left + self.width * self._pixel, top)
        sides = {place: repr(round(side, 9)) for place, side in zip(_XY, box, strict=True)}
        zooms = reversed(range(int(self._access.get("zoom", 0))))
        places = {
            "{x}": str(column),
            "{y}": str(row),
            "{-y}": str(int(self._access.get("rows", 0)) - 1 - row),
            # Digits of a tile in the quadtree, coarsest first: 1 for east, 2 for south.
            "{q}": "".join(str((column >> bit & 1) | (row >> bit & 1) << 1) for bit in zooms),
            "{bbox}": ",".join(sides[place] for place in (_YX if self._access.get("axes") == "yx" else _XY)),
            **sides,
        }
        url = self._template
        for place, value in places.items():
            url = url.replace(place, value)
        return url

    def decode(self, data: bytes) -> Pixels | None:
        """A tile's pixels, None where it is one of those that show no ground.

        Raises:
            CorruptInputError: it is no whole image of the scene's tile size.
        """
        blank = self._access.get("blank_sha256") or ()
        if hashlib.sha256(data).hexdigest() in blank:
            return None
        nodata = self._access.get("nodata")
        return decode_tile(data, self.width, self.height, nodata and tuple(nodata))


DAMAGED_TRIES = 2
"""How often a tile is asked for that comes damaged: cut images and error pages often pass."""


def fetch_tile(client: Client, address: TileAddress, column: int, row: int) -> tuple[bytes, Pixels | None]:
    """Ask for a tile and decode it: its bytes as they came (none where there is no image), and its pixels.

    Raises:
        MissingInputError: the service refuses.
        UnreachableError: it gives no answer, or wants fewer requests.
        CorruptInputError: the answer is no tile.
    """
    url, problem = address.url(column, row), ""
    for _ in range(DAMAGED_TRIES):
        answer = client.get(url)
        if answer is None:
            return b"", None
        try:
            return answer.body, address.decode(answer.body)
        except CorruptInputError as error:
            problem = f"{error}{client.quoted(answer)}"
    raise CorruptInputError(f"{shown(url)}: tile {column}, {row} {problem}")
