"""Items of a STAC API, static catalog or ItemCollection, found and filtered; what their images hold is not looked at.

A catalog is untrusted: its documents are bounded, its pages and links may loop, and it may only point to the web unless
it lies on this machine itself.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode, urljoin, urlsplit

import shapely

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError, SkyScriptError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.http import Signer, request
from skyscript_assets.lib.imagery.footprints import polygons, wrapped
from skyscript_assets.lib.imagery.scenes import acquisition_time
from skyscript_assets.lib.imagery.sources.stac.credentials import signer_of
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown, without_secrets

MAX_DOCUMENT_BYTES = 64 << 20
PAGE_ITEMS = 100
VAGUE_LICENCES = frozenset({"", "proprietary", "various", "other"})
"""What STAC has for "see elsewhere": then the licence of the settings stands."""


@dataclass(frozen=True)
class Item:
    """An item that the rules of its source let pass.

    Attributes:
        id: Its id.
        datetime: Acquisition time, UTC; the middle where it states a beginning and an end.
        claimed: Its geometry, EPSG:4326 within 180 degrees; None where it has none that could be used.
        cloud_share: Share of cloud in 0..1, None where not stated.
        hrefs: Addresses of its assets, one or three, without signatures.
        licence: The licence that it states itself, None where it states none.
    """

    id: str
    datetime: dt.datetime
    claimed: shapely.Geometry | None
    cloud_share: float | None
    hrefs: tuple[str, ...]
    licence: str | None = None


def find_items(
    key: str, source: StacSource, folder: Path, bbox: Bounds
) -> tuple[list[Item], list[tuple[str, str]], int]:
    """The items of a source over a region.

    Args:
        key: Source key.
        source: Its settings.
        folder: Folder that a relative path of a catalog on this machine starts at.
        bbox: (west, south, east, north) of the region in degrees.

    Returns:
        The items that pass, (id, reason) of those that pass but lack something, and how many were looked at.

    Raises:
        MissingInputError: the catalog on this machine does not exist.
        RefusedError: the server refuses.
        CorruptInputError: the catalog is no STAC, or loops.
        SceneError: it has more items than `max_items`, or leads out of the web.
        UnreachableError: the server failed on every try.
    """
    documents = _Documents(source, folder)
    region, seen = shapely.box(*bbox), 0
    items: list[Item] = []
    unusable: list[tuple[str, str]] = []
    for seen, (item, base) in enumerate(_all_items(documents, source, bbox), start=1):
        if seen > source.max_items:
            raise SceneError(
                f"sources.yaml: {key} has more than {source.max_items} items over the region: narrow since, until, "
                "months, max_cloud_share or properties, or raise max_items"
            )
        try:
            found = _item(item, base, source, region)
            items += [found] if found is not None else []
        except (SkyScriptError, ValueError) as error:  # some addresses cannot even be taken apart
            unusable.append((_id(item), str(error)))
    return items, unusable, seen


class _Documents:
    """The JSON documents of a catalog, by address."""

    def __init__(self, source: StacSource, folder: Path) -> None:
        self._signer: Signer | None = signer_of(source)
        self._private_hosts = source.private_hosts
        self.local = source.is_local
        self.root = str((folder / Path(source.catalog).expanduser()).resolve()) if self.local else source.catalog

    def json(self, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A document that is a JSON object, asked for by POST where there is a body.

        Raises:
            SceneError: a catalog of the web points to this machine.
            CorruptInputError: it is none.
        """
        try:
            value = json.loads(self._text(url, None if body is None else json.dumps(body).encode()))
        except (ValueError, RecursionError) as error:
            raise CorruptInputError(f"{shown(url)} is no JSON ({error}): no STAC") from error
        if not isinstance(value, dict):
            raise CorruptInputError(f"{shown(url)} is no JSON object: no STAC")
        return value

    def _text(self, url: str, body: bytes | None) -> str:
        if urlsplit(url).scheme in ("http", "https"):
            headers = {"Accept": "application/geo+json, application/json"}
            headers |= {"Content-Type": "application/json"} if body is not None else {}
            method = "GET" if body is None else "POST"
            how: dict[str, Any] = {"method": method, "headers": headers, "private_hosts": self._private_hosts}
            answer = request(url, limit=MAX_DOCUMENT_BYTES, signer=self._signer, body=body, **how)
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
    """The address of a link or asset as it stands in the document at `base`."""
    if urlsplit(href).scheme or href.startswith("/vsi"):
        return href
    if urlsplit(base).scheme in ("http", "https"):
        return urljoin(base, href)
    return str((Path(base).parent / href).resolve())


def _all_items(documents: _Documents, source: StacSource, bbox: Bounds) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every item that the catalog gives for a region, each with the address that its links start at."""
    root = documents.json(documents.root)
    kind = root.get("type")
    if kind == "FeatureCollection":
        yield from ((item, documents.root) for item in _dicts(root.get("features")))
    elif kind == "Feature":
        yield root, documents.root
    elif not documents.local and _link(root, "search"):
        yield from _searched(documents, root, source, bbox)
    elif kind in ("Catalog", "Collection"):
        yield from _walked(documents, root, source, bbox)
    else:
        raise CorruptInputError(
            f"{shown(documents.root)} is no STAC catalog, collection or ItemCollection (type {kind!r}): correct "
            "`catalog` of the source"
        )


def _searched(
    documents: _Documents, root: Mapping[str, Any], source: StacSource, bbox: Bounds
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Items by the search of a STAC API (https://github.com/radiantearth/stac-api-spec, item-search), page by page.

    Raises:
        CorruptInputError: a page comes a second time.
    """
    links = [link for link in _dicts(root.get("links")) if link.get("rel") == "search" and link.get("href")]
    link = next((link for link in links if _is_post(link)), links[0])
    wanted: dict[str, Any] = {"limit": PAGE_ITEMS, "bbox": list(bbox)}
    wanted |= {"collections": [source.collection]} if source.collection else {}
    if source.since is not None or source.until is not None:
        since = f"{source.since}T00:00:00Z" if source.since else ".."
        wanted["datetime"] = f"{since}/{source.until}T23:59:59Z" if source.until else f"{since}/.."
    # The rules that the query extension knows, so that fewer items come over the network.
    if source.properties and any(str(name).endswith("item-search#query") for name in root.get("conformsTo") or ()):
        wanted["query"] = {name: {"eq": value} for name, value in source.properties.items()}
    url, body = joined(documents.root, str(link["href"])), wanted if _is_post(link) else None
    if body is None:
        written = {name: ",".join(map(str, value)) for name, value in wanted.items() if isinstance(value, list)}
        written |= {name: json.dumps(value) for name, value in wanted.items() if isinstance(value, dict)}
        url = f"{url}{'&' if '?' in url else '?'}{urlencode(wanted | written)}"
    seen: set[tuple[str, ...]] = set()
    while True:
        page = documents.json(url, body)
        items = _dicts(page.get("features"))
        names = tuple(str(item.get("id")) for item in items)
        if not names:
            return
        if names in seen:
            raise CorruptInputError(
                f"{shown(url)}: the pages of its search go in circles ({names[0]} again): narrow the rules of the "
                "source so that one page holds all, or tell its publisher"
            )
        seen.add(names)
        yield from ((item, joined(documents.root, str(_link(item, "self") or ""))) for item in items)
        following = next((link for link in _dicts(page.get("links")) if link.get("rel") == "next"), None)
        if following is None:
            return
        url = joined(url, str(following.get("href", "")))
        more = following.get("body") or {}
        body = ({**(body or {}), **more} if following.get("merge") else more) if _is_post(following) else None


def _is_post(link: Mapping[str, Any]) -> bool:
    return str(link.get("method", "GET")).upper() == "POST"


def _walked(
    documents: _Documents, root: Mapping[str, Any], source: StacSource, bbox: Bounds
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Items of a static catalog, link by link; collections elsewhere and of other names are not entered."""
    seen = {documents.root}
    waiting = [(dict(root), documents.root)]
    while waiting:
        document, base = waiting.pop()
        if document.get("type") == "Collection" and not _may_hold(document, source, bbox):
            continue
        for link in _dicts(document.get("links")):
            url = joined(base, str(link.get("href", "")))
            if link.get("rel") not in ("item", "items", "child") or url in seen:
                continue
            seen.add(url)
            if len(seen) > 2 * source.max_items:
                raise SceneError(
                    f"{shown(documents.root)} has more than {2 * source.max_items} documents: name a collection.json "
                    "further down as `catalog`, or raise max_items"
                )
            linked = documents.json(url)
            if linked.get("type") == "Feature":
                yield linked, url
            elif linked.get("type") == "FeatureCollection":
                yield from ((item, url) for item in _dicts(linked.get("features")))
            else:
                waiting.append((linked, url))


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


def _item(item: Mapping[str, Any], base: str, source: StacSource, region: shapely.Geometry) -> Item | None:
    """An item; None where it does not satisfy the rules of its source, whatever the server made of them."""
    properties, assets = _mapping(item.get("properties")), _mapping(item.get("assets"))
    if source.collection is not None and item.get("collection", source.collection) != source.collection:
        return None
    if any(properties.get(name) != value for name, value in source.properties.items()):
        return None
    cloud, claimed = _cloud(properties), _claimed(item)
    if source.max_cloud_share is not None and cloud is not None and cloud > source.max_cloud_share:
        return None
    if claimed is not None and not claimed.intersects(region):
        return None
    when = _time(properties)
    if source.since is not None and when.date() < source.since:
        return None
    if (source.until is not None and when.date() > source.until) or (source.months and when.month not in source.months):
        return None
    licence = properties.get("license")
    return Item(
        id=_id(item),
        datetime=when,
        claimed=claimed,
        cloud_share=cloud,
        hrefs=tuple(without_secrets(joined(base, _asset_href(assets, name))) for name in source.assets),
        licence=licence if isinstance(licence, str) and licence.lower() not in VAGUE_LICENCES else None,
    )


def _id(item: Mapping[str, Any]) -> str:
    return str(item.get("id", ""))[:200]


def _asset_href(assets: Mapping[str, Any], name: str) -> str:
    """The address of the asset of a name, or of the only one that a pattern fits."""
    fitting = [name] if name in assets else sorted(key for key in assets if fnmatch.fnmatchcase(key, name))
    if len(fitting) > 1:
        raise SceneError(f"its assets {', '.join(fitting)} all fit {name!r}: name one in `assets`")
    href = assets[fitting[0]].get("href") if fitting and isinstance(assets[fitting[0]], Mapping) else None
    if not isinstance(href, str) or not href:
        raise SceneError(f"it has no asset {name!r}; it has {', '.join(sorted(assets)) or 'none'}")
    return href


def _time(properties: Mapping[str, Any]) -> dt.datetime:
    """An item's time; the middle of start_datetime and end_datetime where it states these."""
    stated = [properties.get(name) for name in ("datetime", "start_datetime", "end_datetime")]
    try:
        if stated[0] is not None:
            return acquisition_time(dt.datetime.fromisoformat(str(stated[0])))
        start, end = (acquisition_time(dt.datetime.fromisoformat(str(text))) for text in stated[1:])
    except ValueError:
        raise SceneError(f"it has no readable datetime, but {stated[0] or stated[1]!r}") from None
    return start + (end - start) / 2


def _cloud(properties: Mapping[str, Any]) -> float | None:
    cloud = properties.get("eo:cloud_cover")
    return cloud / 100 if isinstance(cloud, int | float) and 0 <= cloud <= 100 else None


def _claimed(item: Mapping[str, Any]) -> shapely.Geometry | None:
    """The geometry of an item, mended; None for one that is none."""
    try:
        geometry = shapely.from_geojson(json.dumps(item.get("geometry")))
    except (shapely.errors.GEOSException, TypeError, ValueError):
        return None
    if geometry is None or geometry.is_empty or not abs(geometry.bounds[0]) <= 540 >= abs(geometry.bounds[2]):
        return None
    ground = polygons(wrapped(shapely.make_valid(shapely.force_2d(geometry))))
    return None if ground.is_empty else ground


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; nothing where it is none."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _link(document: Mapping[str, Any], relation: str) -> str | None:
    return next((link.get("href") for link in _dicts(document.get("links")) if link.get("rel") == relation), None)
