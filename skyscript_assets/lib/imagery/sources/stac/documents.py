"""The JSON documents of a STAC catalog and the addresses of their links.

A catalog is untrusted: its documents are bounded, its pages may loop, and it may only point to the web unless it lies
on this machine itself.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.http import Signer, request
from skyscript_assets.lib.imagery.sources.stac.credentials import signer_of
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown

MAX_DOCUMENT_BYTES = 64 << 20
STALL_S = 90.0
"""Seconds without a byte: a search of a large collection may take a minute until its first one."""

Sourced = tuple[dict[str, Any], str]
"""An item as JSON and the address that its links start at."""

Pages = Iterator[tuple[dict[str, Any], list[Sourced]]]


class Documents:
    """The JSON documents of a catalog, by address."""

    def __init__(self, source: StacSource, folder: Path) -> None:
        self._signer: Signer | None = signer_of(source)
        self._private_hosts = source.private_hosts
        self.local = source.is_local
        self.root = str((folder / Path(source.catalog).expanduser()).resolve()) if self.local else source.catalog

    def json(
        self, url: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """A document that is a JSON object, asked for by POST where there is a body, with further headers.

        Raises:
            SceneError: a catalog of the web points to this machine.
            CorruptInputError: it is none.
        """
        try:
            value = json.loads(self._text(url, None if body is None else json.dumps(body).encode(), headers or {}))
        except (ValueError, RecursionError) as error:
            raise CorruptInputError(f"{shown(url)} is no JSON ({error}): no STAC") from error
        if not isinstance(value, dict):
            raise CorruptInputError(f"{shown(url)} is no JSON object: no STAC")
        return value

    def pages(self, url: str, body: Mapping[str, Any] | None = None) -> Pages:
        """The pages of a list of items: each document, and its items.

        The last one, and it alone, has no link `next`; whether it ends the list is for the caller to judge.

        Raises:
            CorruptInputError: a page comes a second time.
        """
        seen: set[tuple[str, ...]] = set()
        headers: dict[str, str] = {}
        while True:
            page = self.json(url, body, headers)
            items = dicts(page.get("features"))
            names = tuple(str(item.get("id")) for item in items)
            if names in seen:
                raise CorruptInputError(
                    f"{shown(url)}: the pages of its search go in circles ({names[0]} again): narrow the rules of the "
                    "source so that one page holds all, or tell its publisher"
                )
            seen.add(names)
            yield page, [(item, address_of(item, url)) for item in items]
            following = links_of(page, "next")
            if not following or not names:
                return
            link, asked, url = following[0], url, joined(url, following[0]["href"])
            more = mapping(link.get("body"))
            body = ({**(body or {}), **more} if link.get("merge") else more) if is_post(link) else None
            stated = mapping(link.get("headers")) if same_host(asked, url) else {}
            headers = {name: str(value) for name, value in stated.items()}

    def _text(self, url: str, body: bytes | None, further: Mapping[str, str]) -> str:
        if urlsplit(url).scheme in ("http", "https"):
            headers = {name: value for name, value in further.items() if f"{name}{value}".isprintable()}
            headers |= {"Accept": "application/geo+json, application/json"}
            headers |= {"Content-Type": "application/json"} if body is not None else {}
            how: dict[str, Any] = {"headers": headers, "private_hosts": self._private_hosts, "stall_s": STALL_S}
            method = "GET" if body is None else "POST"
            answer = request(url, limit=MAX_DOCUMENT_BYTES, signer=self._signer, body=body, method=method, **how)
            return answer.body.decode("utf-8", errors="replace")
        path = Path(unquote(urlsplit(url).path) if url.startswith("file:") else url)
        if not self.local:
            raise SceneError(f"{shown(self.root)} points to {path}, a file on this machine, which no catalog may")
        if not path.is_file():
            raise MissingInputError(f"{path}, a catalog or a part of one, does not exist")
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise CorruptInputError(f"{path} is larger than a STAC document of {MAX_DOCUMENT_BYTES} bytes")
        return path.read_text(encoding="utf-8", errors="replace")


def joined(base: str, href: str) -> str:
    """The address of a link or asset as it stands in the document at `base`; CorruptInputError where it is none."""
    try:
        href.encode()  # not all that JSON can escape is text
        if urlsplit(href).scheme or href.startswith("/vsi"):
            return href
        if urlsplit(base).scheme in ("http", "https"):
            return urljoin(base, href)
        path = Path(base).parent / href
        # A reference escapes what an address may not hold (RFC 3986, 2.1); some tools write names of files as they are.
        return str((path if path.exists() else Path(base).parent / unquote(href)).resolve())
    except (ValueError, OSError) as error:
        raise CorruptInputError(f"{shown(base)} names {href[:200]!r}, which is no address ({error})") from error


def address_of(item: Mapping[str, Any], url: str) -> str:
    """The address that an item's links start at: its own, unless it names another server than it came from."""
    for link in links_of(item, "self"):
        with contextlib.suppress(CorruptInputError):
            if same_host(own := joined(url, link["href"]), url):
                return own
    return url


def same_host(one: str, other: str) -> bool:
    """Whether two addresses are of one server."""
    return urlsplit(one)[:2] == urlsplit(other)[:2]


def is_post(link: Mapping[str, Any]) -> bool:
    """Whether a link is to be asked for by POST."""
    return str(link.get("method", "GET")).upper() == "POST"


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one where it is none."""
    return value if isinstance(value, Mapping) else {}


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; nothing where it is none."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def links_of(document: Mapping[str, Any], *relations: str) -> list[dict[str, Any]]:
    """The links of a document, for one of some relations, that state an address."""
    links = [link for link in dicts(document.get("links")) if link.get("rel") in relations]
    return [link for link in links if link.get("href") and isinstance(link["href"], str)]
