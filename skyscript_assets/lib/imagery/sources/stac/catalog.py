"""Items of a STAC API, static catalog or ItemCollection, found and filtered; what their images hold is not looked at.

A catalog is untrusted: its pages and links may loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import shapely

from skyscript_assets.lib.errors import CorruptInputError, SceneError, SkyScriptError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.sources.stac.documents import Documents, dicts, joined, link_of
from skyscript_assets.lib.imagery.sources.stac.items import Item, item_id, passing
from skyscript_assets.lib.imagery.sources.stac.search import (
    PAGE_ITEMS,
    Sourced,
    Wanted,
    address_of,
    searched,
    with_query,
)
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown

RELATIONS = frozenset({"item", "items", "child", "data", "next"})
"""Links that are followed down to items."""


class Found(NamedTuple):
    """Items over a region, or over a cell of it: all that pass are preferred to those of later lists over that cell.

    Attributes:
        items: The items that pass.
        unusable: (id, reason) of those that pass but lack something.
        seen: How many were looked at.
    """

    items: list[Item]
    unusable: list[tuple[str, str]]
    seen: int


def find_items(key: str, source: StacSource, folder: Path, bbox: Bounds, wanted: Wanted) -> Iterator[Found]:
    """The items of a source over a region, each once.

    Args:
        key: Source key.
        source: Its settings.
        folder: Folder that a relative path of a catalog on this machine starts at.
        bbox: (west, south, east, north) of the region in degrees.
        wanted: Whether a ground wants more scenes than the items yielded so far gave it.

    Raises:
        MissingInputError: the catalog on this machine does not exist.
        RefusedError: the server refuses.
        CorruptInputError: the catalog is no STAC, loops, loses items or has none at all.
        SceneError: it has more items than `max_items`, or leads out of the web.
        UnreachableError: the server failed on every try.
    """
    documents = Documents(source, folder)
    region = shapely.box(*bbox)
    known: set[tuple[str, str]] = set()
    for some in _all_items(documents, source, bbox, wanted):
        if len(some) > source.max_items:
            raise SceneError(
                f"sources.yaml: {key} has more than {source.max_items} items over the region: narrow since, until, "
                "months, max_cloud_share or properties, or raise max_items"
            )
        found = Found([], [], 0)
        before = known.copy()  # of earlier searches: within one, some catalogs give two items one id
        for item, base in some:
            name = (str(item.get("collection")), str(item.get("id")))
            if name in before:
                continue
            known.add(name)
            found = found._replace(seen=found.seen + 1)
            try:
                usable = passing(item, base, source, region)
                found.items.extend([usable] if usable is not None else [])
            except (SkyScriptError, ValueError) as error:  # some addresses cannot even be taken apart
                found.unusable.append((item_id(item), str(error)))
        yield found


def _all_items(documents: Documents, source: StacSource, bbox: Bounds, wanted: Wanted) -> Iterator[list[Sourced]]:
    """The items that the catalog gives for a region."""
    root = documents.json(documents.root)
    kind = root.get("type")
    if not documents.local and link_of(root, "search"):
        yield from searched(documents, root, source, bbox, wanted)
    elif kind in ("Catalog", "Collection", "Feature", "FeatureCollection") or link_of(root, "data"):
        yield _walked(documents, root, source, bbox)
    else:
        raise CorruptInputError(
            f"{shown(documents.root)} is no STAC catalog, collection or ItemCollection (type {kind!r}): correct "
            "`catalog` of the source"
        )


def _walked(documents: Documents, root: Mapping[str, Any], source: StacSource, bbox: Bounds) -> list[Sourced]:
    """Items of a catalog, link by link; collections elsewhere and of other names are not entered.

    Lists of items, of an API without a search, are asked for the region's, page by page (OGC 17-069r4, 7.15).
    """
    found: list[Sourced] = []
    passed_by: list[str] = []
    seen = {documents.root}
    waiting = [(dict(root), documents.root)]
    while waiting and len(found) <= source.max_items:
        document, base = waiting.pop()
        if document.get("type") == "Feature":
            found.append((document, base))
        elif document.get("type") == "Collection" and not _may_hold(document, source, bbox):
            passed_by.append(base)
        else:
            found += [(item, base) for item in dicts(document.get("features"))]
            waiting += [
                ({"type": "Collection"} | collection, base) for collection in dicts(document.get("collections"))
            ]
            waiting += _linked(documents, document, base, seen, bbox, passed_by)
        if len(seen) > 2 * source.max_items:
            raise SceneError(
                f"{shown(documents.root)} has more than {2 * source.max_items} documents: name a collection.json "
                "further down as `catalog`, or raise max_items"
            )
    if not found and not passed_by:
        raise CorruptInputError(
            f"{shown(documents.root)} leads to no item at all: name the address of a collection or of a STAC API as "
            "`catalog` of the source"
        )
    return found


def _linked(
    documents: Documents, document: Mapping[str, Any], base: str, seen: set[str], bbox: Bounds, passed_by: list[str]
) -> Iterator[tuple[dict[str, Any], str]]:
    """What the links of a document lead to that was not seen yet; lists without an item here are passed by."""
    for link in dicts(document.get("links")):
        relation, url = link.get("rel"), joined(base, str(link.get("href", "")))
        if url in seen or relation not in RELATIONS or (relation == "next" and "features" not in document):
            continue
        seen.add(url)
        if documents.local or relation not in ("items", "next"):
            yield documents.json(url), url
            continue
        asked = with_query(url, {"limit": PAGE_ITEMS, "bbox": list(bbox)}) if relation == "items" else url
        empty = True
        for _, items, at in documents.pages(asked):
            yield from (({**item, "type": "Feature"}, address_of(item, at)) for item in items)
            empty = empty and not items
        passed_by += [url] if empty else []


def _may_hold(collection: Mapping[str, Any], source: StacSource, bbox: Bounds) -> bool:
    """Whether a collection is the wanted one and its extent, where it states one, reaches the region."""
    if source.collection is not None and collection.get("id") != source.collection:
        return False
    try:
        boxes = [[float(side) for side in box] for box in collection["extent"]["spatial"]["bbox"]]
    except (KeyError, TypeError, ValueError):
        return True
    flat = [(box[0], box[1], box[len(box) // 2], box[len(box) // 2 + 1]) for box in boxes if len(box) in (4, 6)]
    west, south, east, north = bbox
    # A box with west > east crosses the antimeridian (RFC 7946, 5.2).
    return not flat or any(
        s <= north and south <= n and (w <= east and west <= e if w <= e else w <= east or west <= e)
        for w, s, e, n in flat
    )
