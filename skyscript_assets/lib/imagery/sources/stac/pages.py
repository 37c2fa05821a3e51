"""How pystac-client gets its pages: through the project's own HTTP, without going in circles.

Apart from `catalog`, because the class derives from one of pystac-client, which is imported only where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import urlencode

from pystac_client.stac_api_io import StacApiIO  # noqa: TID253 - this module is imported where it is used

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.secrets import shown


class Text(Protocol):
    """Gets the text of a document."""

    def __call__(self, url: str, method: str = "GET", body: bytes | None = None) -> str:
        """Gets it by GET or POST."""
        ...


class BoundedStacIO(StacApiIO):
    """Pages of a STAC API by the project's own requests."""

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - a server gives no headers to be sent
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The text of an answer."""
        if (method or "GET").upper() == "POST":
            return self._text(href, "POST", json.dumps(parameters or {}).encode())
        query = urlencode(parameters or {})
        return self._text(f"{href}{'&' if '?' in href else '?'}{query}" if query else href)

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The pages of a search.

        Raises:
            CorruptInputError: a page comes a second time.
        """
        seen: set[tuple[str, ...]] = set()
        for page in super().get_pages(url, method, parameters):
            names = tuple(str(item.get("id")) for item in page.get("features") or () if isinstance(item, dict))
            if names in seen:
                raise CorruptInputError(
                    f"{shown(url)}: the pages of its search go in circles ({names[0] if names else 'no item'} again): "
                    "narrow the rules of the source so that one page holds all, or tell its publisher"
                )
            seen.add(names)
            yield page
