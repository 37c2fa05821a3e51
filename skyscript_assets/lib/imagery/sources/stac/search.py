"""The search of a STAC API (https://github.com/radiantearth/stac-api-spec, item-search), in as few pages as will do.

What fits on one page is taken so. Of a larger collection a region is cut into cells, and the items of a cell into
stretches of time, or of cloud, that follow one another as the source prefers: as soon as a cell has what is wanted,
the other stretches are not asked for.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import shapely

from skyscript_assets.lib.errors import CorruptInputError, RefusedError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.sources.stac.documents import (
    Documents,
    dicts,
    is_post,
    joined,
    link_of,
    mapping,
    same_host,
)
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown

PAGE_ITEMS = 100
"""Items of a page that are asked for: swisstopo gives no more."""

LARGE_PAGE_ITEMS = 1000
"""The same where pages are continued by id, since the server names no next one."""

CELL_DEG = 0.5
"""Longest side of a cell that is not cut further."""

FIRST_DAYS = 64
"""Days of the newest stretch of time; each further one has twice as many."""

LONGEST_DAYS = 40 * 365
CLOUD_PERCENT = (0, 1, 2, 5, 10, 20, 40, 70, 100)
"""Where stretches of cloud meet."""

Rules = Mapping[str, Any]
"""Parameters of a search, as JSON of a POST has them."""

Sourced = tuple[dict[str, Any], str]
"""An item as JSON and the address that its links start at."""

Pages = Iterator[tuple[dict[str, Any], list[dict[str, Any]], str]]

Wanted = Callable[[shapely.Geometry], bool]
"""Whether some of a ground, in degrees, has fewer scenes yet than are wanted."""


def searched(
    documents: Documents, root: Mapping[str, Any], source: StacSource, bbox: Bounds, wanted: Wanted
) -> Iterator[list[Sourced]]:
    """Items of a search over a region, in lists of which each holds what is preferred to all later ones over its cell.

    Raises:
        CorruptInputError: a page comes a second time, or a full one names no next one and cannot be continued.
    """
    search = _Search(documents, root, source)
    rules: dict[str, Any] = {"limit": PAGE_ITEMS, "bbox": list(bbox)}
    rules |= {"collections": [source.collection]} if source.collection else {}
    if source.since is not None or source.until is not None:
        rules["datetime"] = _interval(source.since, source.until)
    # The rules that the query extension knows, so that fewer items come over the network.
    queried = {name: {"eq": value} for name, value in source.properties.items()} if search.can_query else {}
    rules |= {"query": queried} if queried else {}
    cells = [bbox]
    while cells:
        cell = cells.pop()
        here = rules | {"bbox": list(cell)}
        first, rest = search.begun(here)
        if not first and cell == bbox:
            search.check_collection(root)
        clouds = search.can_query and all("eo:cloud_cover" in mapping(item.get("properties")) for item, _ in first)
        stretches = _stretches(source, clouds=clouds)
        if rest is None:
            yield first
        elif halves := _halves(cell):
            cells += halves
        elif len(stretches) == 1 and not stretches[0]:
            yield first + search.all(rest, here, len(first))
        else:
            for stretch in stretches:
                if not wanted(shapely.box(*cell)):
                    break
                query = queried | stretch.get("query", {})
                narrowed = here | stretch | ({"query": query} if query else {})
                yield search.all(search.pages(narrowed), narrowed)


def _halves(cell: Bounds) -> list[Bounds]:
    """A cell cut across its longer side; nothing where it is small enough."""
    west, south, east, north = cell
    if max(east - west, north - south) <= CELL_DEG:
        return []
    if east - west >= north - south:
        middle = (west + east) / 2
        return [(west, south, middle, north), (middle, south, east, north)]
    middle = (south + north) / 2
    return [(west, south, east, middle), (west, middle, east, north)]


def _stretches(source: StacSource, *, clouds: bool) -> list[dict[str, Any]]:
    """Rules that divide a search, the preferred part first; one that leaves it whole where there is no way to."""
    most = 100.0 if source.max_cloud_share is None else 100 * source.max_cloud_share
    whole = {"query": {"eo:cloud_cover": {"lte": most}}} if clouds and source.max_cloud_share is not None else {}
    if source.sort == "cloud":
        edges = [float(edge) for edge in CLOUD_PERCENT if edge < most] + [most]
        # Both ends belong to a stretch: an item on an edge comes twice, and counts once.
        bands = [{"query": {"eo:cloud_cover": {"gte": low, "lte": high}}} for low, high in itertools.pairwise(edges)]
        return bands if clouds and bands else [whole]
    end, days, stretches = source.until, FIRST_DAYS, []
    while True:
        last = end or dt.datetime.now(dt.UTC).date()
        start = None if days > LONGEST_DAYS else last - dt.timedelta(days=days)
        if start is None or (source.since is not None and start <= source.since):
            stretches.append(whole | {"datetime": _interval(source.since, end)})
            return stretches if source.sort == "newest" else stretches[::-1]
        stretches.append(whole | {"datetime": _interval(start, end)})
        end, days = start, 2 * days


def _interval(since: dt.date | None, until: dt.date | None) -> str:
    """Days as the parameter `datetime` has them, both of them included; None is no limit."""
    return f"{f'{since}T00:00:00Z' if since else '..'}/{f'{until}T23:59:59Z' if until else '..'}"


class _Search:
    def __init__(self, documents: Documents, root: Mapping[str, Any], source: StacSource) -> None:
        self._documents, self._source = documents, source
        links = [link for link in dicts(root.get("links")) if link.get("rel") == "search" and link.get("href")]
        link = next((link for link in links if is_post(link)), links[0])
        self._url, self._post = joined(documents.root, str(link["href"])), is_post(link)
        self.can_query = any(str(name).endswith("item-search#query") for name in root.get("conformsTo") or ())

    def check_collection(self, root: Mapping[str, Any]) -> None:
        """Raise CorruptInputError where there is no collection of the source's name: it would seem an empty one."""
        if (listed := link_of(root, "data")) is None or self._source.collection is None:
            return
        try:
            self._documents.json(f"{joined(self._documents.root, listed)}/{quote(self._source.collection)}")
        except RefusedError as error:
            raise CorruptInputError(
                f"{shown(self._documents.root)} has no collection {self._source.collection!r} ({error.status}): "
                "correct `collection` of the source"
            ) from error

    def begun(self, rules: Rules) -> tuple[list[Sourced], Pages | None]:
        """The first page, and the pages that follow; None where it is all that there is."""
        pages = self.pages(rules)
        page, items, url = next(pages)
        more = bool(items) and link_of(page, "next") is not None
        complete = not more and not self._lacks(page, len(items), len(items), rules)
        return self._sourced(items, url), None if complete else pages

    def all(self, pages: Pages, rules: Rules, before: int = 0) -> list[Sourced]:
        """The items of pages, `before` of which were there already."""
        found: list[Sourced] = []
        complete = False
        for page, items, url in pages:
            found += self._sourced(items, url)
            if len(found) > self._source.max_items:
                return found
            complete = not self._lacks(page, len(items), before + len(found), rules)
        return found if complete else self._by_id(rules)

    def _lacks(self, page: Mapping[str, Any], items: int, found: int, rules: Rules) -> bool:
        """Whether a last page cannot be the end: the server counts more items, or the page is full."""
        context = mapping(page.get("context"))
        stated, limit = page.get("numberMatched", context.get("matched")), context.get("limit")
        full = min(rules["limit"], limit) if isinstance(limit, int) and limit > 0 else rules["limit"]
        return found < stated if isinstance(stated, int) else items >= full

    def _by_id(self, rules: Rules) -> list[Sourced]:
        """The items of a server that names no next page (planetary-computer-apis#274), in the order of ids."""
        found: list[Sourced] = []
        last = ""
        while self.can_query and len(found) <= self._source.max_items:
            after = {"id": {"gt": last}} if last else {}
            ordered = {"limit": LARGE_PAGE_ITEMS, "sortby": [{"field": "id", "direction": "asc"}]}
            _, items, url = next(self.pages({**rules, **ordered, "query": rules.get("query", {}) | after}))
            names = [str(item.get("id")) for item in items]
            if not names:
                return found
            if names != sorted(names) or names[0] <= last:
                break
            found += self._sourced(items, url)
            last = names[-1]
        if len(found) > self._source.max_items:
            return found
        raise CorruptInputError(
            f"{shown(self._url)}: a full page names no next one, and the server cannot be asked by id for what comes "
            "after it: items would be lost; narrow the rules of the source, or tell its publisher"
        )

    def pages(self, rules: Rules) -> Pages:
        """The pages of a search."""
        if self._post:
            return self._documents.pages(self._url, rules)
        return self._documents.pages(with_query(self._url, rules))

    def _sourced(self, items: list[dict[str, Any]], url: str) -> list[Sourced]:
        return [(item, address_of(item, url)) for item in items]


def address_of(item: Mapping[str, Any], url: str) -> str:
    """The address that an item's links start at: its own, unless it names another server than it came from."""
    links = (link.get("href") for link in dicts(item.get("links")) if link.get("rel") == "self")
    own = joined(url, str(next(links, None) or ""))
    return own if same_host(own, url) else url


def with_query(url: str, rules: Rules) -> str:
    """The address of a search by GET."""
    written = {name: _written(name, value) for name, value in rules.items()}
    return f"{url}{'&' if '?' in url else '?'}{urlencode(written)}"


def _written(name: str, value: Any) -> Any:
    if name == "sortby":
        return ",".join(f"+{field['field']}" for field in value)
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value
