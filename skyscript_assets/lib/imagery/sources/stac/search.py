"""The search of a STAC API (https://github.com/radiantearth/stac-api-spec, item-search), in as few pages as will do.

What fits on one page is taken so. Of a larger collection a region is cut into cells, and the items of a cell into
stretches of time, or of cloud, that follow one another as the source prefers: as soon as a cell has what is wanted,
the other stretches are not asked for.
"""

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
    Pages,
    Sourced,
    is_post,
    joined,
    links_of,
    mapping,
)
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown

PAGE_ITEMS = 100
"""Items of a page that are asked for: swisstopo gives no more."""

LARGE_PAGE_ITEMS = 1000
"""The same where pages are continued by id, since the server names no next one."""

CELL_DEG = 0.5
"""Longest side of a cell that is not cut further."""

FIRST_DAYS, STRETCHES = 64, 9
"""Days of the newest stretch of time, and how many stretches there are: each further one has twice as many days."""

CLOUD_PERCENT = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 70.0, 100.0)
"""Where stretches of cloud meet."""

Rules = Mapping[str, Any]
"""Parameters of a search, as JSON of a POST has them."""

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
    rules: dict[str, Any] = {"limit": PAGE_ITEMS}
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
        first, pages = search.begun(here)
        if not first and cell == bbox:
            search.check_collection(root)
        if pages is None:
            yield first
        elif halves := _halves(cell):
            cells += halves
        else:
            clouds = search.can_query and all("eo:cloud_cover" in mapping(item.get("properties")) for item, _ in first)
            for stretch in _stretches(source, clouds=clouds):
                if not wanted(shapely.box(*cell)):
                    break
                query = queried | stretch.get("query", {})
                narrowed = here | stretch | ({"query": query} if query else {})
                yield search.all(narrowed, pages if narrowed == here else None)


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
    most = 100.0 if source.max_cloud_share is None else 100.0 * source.max_cloud_share
    whole = {"query": {"eo:cloud_cover": {"lte": most}}} if clouds and source.max_cloud_share is not None else {}
    if source.sort == "cloud":
        edges = [edge for edge in CLOUD_PERCENT if edge < most] + [most]
        # Both ends belong to a stretch: an item on an edge comes twice, and counts once.
        bands = [{"query": {"eo:cloud_cover": {"gte": low, "lte": high}}} for low, high in itertools.pairwise(edges)]
        return bands if clouds and bands else [whole]
    today = source.until or dt.datetime.now(dt.UTC).date()
    starts = [today - dt.timedelta(days=FIRST_DAYS * (2**number - 1)) for number in range(1, STRETCHES)]
    starts = [day for day in starts if source.since is None or day > source.since]
    ends = itertools.pairwise([source.until, *starts, source.since])
    stretches = [whole | {"datetime": _interval(start, end)} for end, start in ends]
    return stretches if source.sort == "newest" else stretches[::-1]


def _interval(since: dt.date | None, until: dt.date | None) -> str:
    """Days as the parameter `datetime` has them, both of them included; None is no limit."""
    return f"{f'{since}T00:00:00Z' if since else '..'}/{f'{until}T23:59:59Z' if until else '..'}"


class _Search:
    def __init__(self, documents: Documents, root: Mapping[str, Any], source: StacSource) -> None:
        self._documents, self._source = documents, source
        links = links_of(root, "search")
        link = next(filter(is_post, links), links[0])
        self._url, self._post = joined(documents.root, link["href"]), is_post(link)
        self.can_query = "item-search#query" in str(root.get("conformsTo"))

    def check_collection(self, root: Mapping[str, Any]) -> None:
        """Raise CorruptInputError where there is no collection of the source's name: it would seem an empty one."""
        if not (listed := links_of(root, "data")) or self._source.collection is None:
            return
        below = joined(self._documents.root, listed[0]["href"]).rstrip("/")
        try:
            self._documents.json(f"{below}/{quote(self._source.collection)}")
        except RefusedError as error:
            raise CorruptInputError(
                f"{shown(self._documents.root)} has no collection {self._source.collection!r} ({error.status}): "
                "correct `collection` of the source"
            ) from error

    def begun(self, rules: Rules) -> tuple[list[Sourced], Pages | None]:
        """The first page, and all pages, this one among them; None where it is all that there is."""
        pages = self._pages(rules)
        page, items = next(pages)
        more = (items and links_of(page, "next")) or self._lacks(page, len(items), len(items), rules)
        return items, itertools.chain([(page, items)], pages) if more else None

    def all(self, rules: Rules, pages: Pages | None) -> list[Sourced]:
        """The items of all pages, asked for unless they are given; of more than `max_items` only what is known then."""
        found: list[Sourced] = []
        complete = False
        for page, items in pages or self._pages(rules):
            found += items
            if len(found) > self._source.max_items:
                return found
            complete = not self._lacks(page, len(items), len(found), rules)
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
        while self.can_query:
            after = {"id": {"gt": last}} if last else {}
            ordered = {"limit": LARGE_PAGE_ITEMS, "sortby": [{"field": "id", "direction": "asc"}]}
            _, items = next(self._pages({**rules, **ordered, "query": rules.get("query", {}) | after}))
            if not items or len(found) > self._source.max_items:
                return found
            names = [str(item.get("id")) for item, _ in items]
            if names != sorted(names) or names[0] <= last:
                break
            found += items
            last = names[-1]
        raise CorruptInputError(
            f"{shown(self._url)}: a full page names no next one, and the server cannot be asked by id for what comes "
            "after it: items would be lost; narrow the rules of the source, or tell its publisher"
        )

    def _pages(self, rules: Rules) -> Pages:
        if self._post:
            return self._documents.pages(self._url, rules)
        return self._documents.pages(with_query(self._url, rules))


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
