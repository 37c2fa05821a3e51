"""What an address in a catalog may point to: a catalog is untrusted, and GDAL would open anything it is given."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.http import public
from skyscript_assets.lib.imagery.geotiff.remote import GdalFile, ImageFile, Shelf, SparseCopy
from skyscript_assets.lib.imagery.sources.stac.credentials import signer_of
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource

GDAL_SCHEMES = {"s3": "/vsis3/", "gs": "/vsigs/"}
"""Schemes that stand for a virtual file system of GDAL."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+._-]+):")
_SHELF = Shelf()


def checked(href: str, source: StacSource) -> str:
    """An address that may be opened: http(s) as it is, else GDAL's name of it or an absolute path.

    Raises:
        SceneError: the settings do not allow it.
    """
    scheme = _SCHEME.match(href)
    name = scheme[1].lower() if scheme else ""
    if Path(unquote(urlsplit(href).path)).suffix.lower() == ".vrt":
        raise SceneError(f"{_shown(href)} is a VRT, which may name any file: catalogs may name GeoTIFF and COG alone")
    if name in ("http", "https"):
        return href
    if name in GDAL_SCHEMES:
        href = GDAL_SCHEMES[name] + href.split("://", 1)[-1]
    if href.startswith("/vsi"):
        return _allowed_prefix(href, source)
    if name and name != "file":
        raise SceneError(f"{_shown(href)} is neither http(s) nor a file: GDAL's other names are refused in catalogs")
    if not source.allow_local_hrefs:
        raise SceneError(
            f"{_shown(href)} is a file on this machine: where the catalog is your own, set `allow_local_hrefs: true`"
        )
    return str(Path(unquote(urlsplit(href).path) if name == "file" else href).absolute())


def _allowed_prefix(href: str, source: StacSource) -> str:
    prefix = href[: href.find("/", 1) + 1]
    rest = href[len(prefix) :]
    if prefix not in source.gdal_prefixes or "/vsi" in rest or ".." in rest.split("/") or rest.startswith("vsi"):
        raise SceneError(
            f"{_shown(href)} is read by GDAL's file system {prefix or href[:12]}: where you trust the catalog with it, "
            "name it in `gdal_prefixes`"
        )
    return href


def _shown(href: str) -> str:
    return public(href) if "://" in href else href.partition("?")[0]


def open_href(href: str, source: StacSource, *, afresh: bool = False) -> ImageFile:
    """The image at a checked address, shared by the threads of a process.

    Args:
        href: An address as `checked` gives it.
        source: Its source.
        afresh: Whether to look again although the process knows it.

    Raises:
        RefusedError: the server refuses it.
        CorruptInputError: it is no whole GeoTIFF.
        SceneError: the settings do not allow it.
        UnreachableError: the server failed on every try.
    """
    place = checked(href, source)

    def make() -> ImageFile:
        if _SCHEME.match(place):
            return SparseCopy(place, signer_of(source))
        return GdalFile(place, {"AWS_REQUEST_PAYER": "requester"} if source.requester_pays else {})

    return _SHELF.get(place, make, afresh=afresh)
