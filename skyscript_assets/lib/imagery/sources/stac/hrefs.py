"""What an address in a catalog may point to: a catalog is untrusted, and GDAL would open anything it is given."""

import logging
import math
import re
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.files import is_name
from skyscript_assets.lib.imagery.geotiff.remote import GdalFile, ImageFile, SparseCopy
from skyscript_assets.lib.imagery.sources.stac.credentials import signer_of
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import shown

GDAL_SCHEMES = {"s3": "/vsis3/", "gs": "/vsigs/"}
"""Schemes that stand for a virtual file system of GDAL."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+._-]+):")

MAX_FILES = 16
"""Files that a process knows."""

REMEMBERED_S = 300.0
"""Seconds for which a file that was refused, or broken, is not asked for again."""

_FILES: Cache[tuple[float, ImageFile | CorruptInputError]] = Cache(MAX_FILES)
"""Files by address, or why there is none, with the time until which that stands."""

_log = logging.getLogger(__name__)


def checked(href: str, source: StacSource) -> str:
    """An address that may be opened: http(s) as it is, else GDAL's name of it or an absolute path.

    Raises:
        SceneError: the settings do not allow it.
    """
    scheme = _SCHEME.match(href)
    name = scheme[1].lower() if scheme else ""
    if Path(unquote(urlsplit(href).path)).suffix.lower() == ".vrt":
        raise SceneError(f"{shown(href)} is a VRT, which may name any file: catalogs may name GeoTIFF and COG alone")
    if name in ("http", "https"):
        return href
    if name in GDAL_SCHEMES:
        href = GDAL_SCHEMES[name] + href.split("://", 1)[-1]
    if href.startswith("/vsi"):
        return _allowed_prefix(href, source)
    if name and name != "file":
        raise SceneError(f"{shown(href)} is neither http(s) nor a file: GDAL's other names are refused in catalogs")
    if not source.allow_local_hrefs:
        raise SceneError(
            f"{shown(href)} is a file on this machine: where the catalog is your own, set `allow_local_hrefs: true`"
        )
    path = str(Path(unquote(urlsplit(href).path) if name == "file" else href).absolute())
    return _allowed_prefix(path, source) if path.startswith("/vsi") else path


def _allowed_prefix(href: str, source: StacSource) -> str:
    prefix = href[: href.find("/", 1) + 1]
    rest = href[len(prefix) :]
    # GDAL makes a host of a bucket's name, and signs for it: s3://x.org#/a.tif would go to x.org.
    if prefix not in source.gdal_prefixes or ".." in rest.split("/") or not is_name(rest.partition("/")[0]):
        raise SceneError(
            f"{shown(href)} is read by GDAL's file system {prefix or href[:12]}: where you trust the catalog with it, "
            "name it in `gdal_prefixes`"
        )
    return href


def open_href(href: str, source: StacSource, *, afresh: bool = False) -> ImageFile:
    """The image at an address, shared by the threads of a process; that it is refused is remembered for a while.

    `afresh` looks again although the process knows it.

    Raises:
        SceneError: the settings do not allow it; and what `SparseCopy` and `GdalFile` raise.
    """
    place = checked(href, source)

    def make() -> tuple[float, ImageFile | CorruptInputError]:
        try:
            if _SCHEME.match(place):
                return math.inf, SparseCopy(place, signer_of(source), source.private_hosts)
            return math.inf, GdalFile(place, {"AWS_REQUEST_PAYER": "requester"} if source.requester_pays else {})
        except CorruptInputError as error:
            _log.warning("%s", error)
            return time.monotonic() + REMEMBERED_S, error

    _, file = _FILES.get((place, source.private_hosts), make, lambda known: not afresh and time.monotonic() < known[0])
    if isinstance(file, CorruptInputError):
        raise file
    return file
