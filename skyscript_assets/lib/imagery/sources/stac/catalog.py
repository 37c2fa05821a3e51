"""Items of a STAC API, static catalog or ItemCollection, found and filtered; what their images hold is not looked at.

A catalog is untrusted: its pages and links may loop.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import shapely

from skyscript_assets.lib.errors import CorruptInputError, SceneError, SkyScriptError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.sources.stac.documents import Documents, Sourced, address_of, dicts, joined, links_of
from skyscript_assets.lib.imagery.sources.stac.items import Item, item_id, passing
from skyscript_assets.lib.imagery.sources.stac.search import PAGE_ITEMS, Wanted, searched, with_query
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown


class Found(NamedTuple):
    """Items over a region, or over a cell of it: all that pass are preferred to those of later lists over that cell.

    `unusable` are (id, reason) of those that pass but lack something; `seen` is how many were looked at.
    """

    items: list[Item]
    unusable: list[tuple[str, str]]
    seen: int


def find_items(key: str, source: StacSource, folder: Path, bbox: Bounds, wanted: Wanted) -> Iterator[Found]:
    """The items of a source over a region, (west, south, east, north) in degrees, each once.

    `wanted` tells whether a ground wants more scenes than the items yielded so far gave it; `folder` is where a
    relative path of a catalog on this machine starts.

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
        # Known from earlier searches: within one, some catalogs give two items one id.
        names = [(str(item.get("collection")), str(item.get("id"))) for item, _ in some]
        fresh = [sourced for name, sourced in zip(names, some, strict=True) if name not in known]
        known.update(names)
        found = Found([], [], len(fresh))
        for item, base in fresh:
            try:
                usable = passing(item, base, source, region)
                found.items.extend([usable] if usable is not None else [])
            except (SkyScriptError, ValueError, ArithmeticError, shapely.GEOSException) as error:
                found.unusable.append((item_id(item), str(error)))
        yield found


def _all_items(documents: Documents, source: StacSource, bbox: Bounds, wanted: Wanted) -> Iterator[list[Sourced]]:
    """The items that the catalog gives for a region."""
    root = documents.json(documents.root)
    kind = root.get("type")
    if not documents.local and links_of(root, "search"):
        yield from searched(documents, root, source, bbox, wanted)
    elif kind in ("Catalog", "Collection", "Feature", "FeatureCollection") or links_of(root, "data"):
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
    passed_by = False
    seen = {documents.root}
    waiting: list[tuple[Mapping[str, Any] | None, str]] = [(root, documents.root)]
    while waiting and len(found) <= source.max_items:
        known, base = waiting.pop()
        document = documents.json(base) if known is None else known
        if document.get("type") == "Feature":
            found.append((dict(document), base))
            continue
        if document.get("type") == "Collection" and not _may_hold(document, source, bbox):
            passed_by = True
            continue
        items = dicts(document.get("features"))
        found += [(item, base if documents.local else address_of(item, base)) for item in items]
        waiting += [({"type": "Collection"} | below, base) for below in dicts(document.get("collections"))]
        for link in links_of(document, "item", "items", "child", "data", *(["next"] if items else [])):
            url = joined(base, link["href"])
            if url in seen:
                continue
            seen.add(url)
            if link["rel"] == "items" and not documents.local:
                # There may well be none here.
                passed_by, url = True, with_query(url, {"limit": PAGE_ITEMS, "bbox": list(bbox)})
            waiting.append((None, url))
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


def _may_hold(collection: Mapping[str, Any], source: StacSource, bbox: Bounds) -> bool:
    """Whether a collection is the wanted one and its extent, where it states one, reaches the region."""
    if source.collection is not None and collection.get("id") != source.collection:
        return False
    try:
        boxes = [[float(side) for side in box] for box in collection["extent"]["spatial"]["bbox"]]
    except (KeyError, TypeError, ValueError, OverflowError):
        return True
    flat = [(box[0], box[1], box[len(box) // 2], box[len(box) // 2 + 1]) for box in boxes if len(box) in (4, 6)]
    west, south, east, north = bbox
    # A box with west > east crosses the antimeridian (RFC 7946, 5.2).
    return not flat or any(
        s <= north and south <= n and (w <= east and west <= e if w <= e else w <= east or west <= e)
        for w, s, e, n in flat
    )
