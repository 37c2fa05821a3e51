"""Items of a STAC catalog: which of them the rules of a source let pass, and what they say of their images."""

import datetime as dt
import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import shapely

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.imagery.footprints import polygons, wrapped
from skyscript_assets.lib.imagery.geotiff.describe import Calibration
from skyscript_assets.lib.imagery.scenes import acquisition_time
from skyscript_assets.lib.imagery.sources.stac.documents import dicts, joined, mapping
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.secrets import told, without_secrets

VAGUE_LICENCES = frozenset({"", "proprietary", "various", "other"})
"""What STAC has for "see elsewhere": then the licence of the settings stands."""


@dataclass(frozen=True)
class Item:
    """An item that the rules of its source let pass.

    Attributes:
        datetime: Acquisition time, UTC; the middle where it states a beginning and an end.
        claimed: Its geometry, EPSG:4326 within 180 degrees; None where it has none that could be used.
        cloud_share: Share of cloud in 0..1, None where not stated.
        hrefs: Addresses of its assets, one or three, without signatures.
        licence: The licence that it states itself, None where it states none.
        calibration: Scale and offset of each band shown, where it states them.
    """

    id: str
    datetime: dt.datetime
    claimed: shapely.Geometry | None
    cloud_share: float | None
    hrefs: tuple[str, ...]
    licence: str | None = None
    calibration: Calibration | None = None


def passing(item: Mapping[str, Any], base: str, source: StacSource, region: shapely.Geometry) -> Item | None:
    """An item; None where it does not satisfy the rules of its source, whatever the server made of them."""
    properties, assets = mapping(item.get("properties")), mapping(item.get("assets"))
    if source.collection is not None and item.get("collection", source.collection) != source.collection:
        return None
    if any(properties.get(name) != value for name, value in source.properties.items()):
        return None
    percent, claimed = properties.get("eo:cloud_cover"), _claimed(item)
    cloud = percent / 100 if isinstance(percent, int | float) and 0 <= percent <= 100 else None
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
        id=item_id(item),
        datetime=when,
        claimed=claimed,
        cloud_share=cloud,
        hrefs=tuple(without_secrets(joined(base, _asset(assets, name)["href"])) for name in source.assets),
        licence=licence if isinstance(licence, str) and licence.lower() not in VAGUE_LICENCES else None,
        calibration=_calibration(properties, assets, source),
    )


def item_id(item: Mapping[str, Any]) -> str:
    """The id of an item, cut to a readable length."""
    return told(str(item.get("id", "")), 200)


def _asset(assets: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The asset of a name, or the only one that a pattern fits; it has an address."""
    fitting = [name] if name in assets else sorted(key for key in assets if fnmatch.fnmatchcase(key, name))
    if len(fitting) > 1:
        raise SceneError(f"its assets {', '.join(fitting)} all fit {name!r}: name one in `assets`")
    found = mapping(assets[fitting[0]]) if fitting else {}
    if not isinstance(found.get("href"), str) or not found["href"]:
        raise SceneError(f"it has no asset {name!r}; it has {', '.join(sorted(assets)) or 'none'}")
    return found


def _calibration(properties: Mapping[str, Any], assets: Mapping[str, Any], source: StacSource) -> Calibration:
    """Scale and offset of the bands shown, by the raster extension (`raster:bands`; since 2.0 `bands` or the asset)."""
    found: list[tuple[float, float]] = []
    for name, band in zip(source.assets * (3 // len(source.assets)), source.band_numbers, strict=True):
        asset = _asset(assets, name)
        bands = dicts(asset.get("raster:bands")) or dicts(asset.get("bands"))
        stated = {**asset, **(bands[band - 1] if 0 < band <= len(bands) else {})}
        # Earth Search says where pixels have the offset already that their band states.
        stated |= {"offset": 0} if properties.get("earthsearch:boa_offset_applied") is True else {}
        numbers = {key: float(value) for key, value in stated.items() if isinstance(value, int | float)}
        scale, offset = (numbers.get(key, numbers.get(f"raster:{key}")) for key in ("scale", "offset"))
        found.append((1.0 if scale is None else scale, offset or 0.0))
    return tuple(found)


def _time(properties: Mapping[str, Any]) -> dt.datetime:
    """An item's time; the middle of start_datetime and end_datetime, or the one of them that it states."""
    stated = [str(properties.get(name) or "") for name in ("datetime", "start_datetime", "end_datetime")]
    try:
        # RFC 3339 allows small letters and a leap second (5.6), which `fromisoformat` does not read.
        when, *stretch = (
            acquisition_time(dt.datetime.fromisoformat(re.sub(r"(:\d\d):60", r"\1:59", text.upper()))) if text else None
            for text in stated
        )
    except ValueError:
        raise SceneError(f"it has no readable datetime, but {stated[0] or stated[1]!r}") from None
    known = [moment for moment in stretch if moment is not None]
    if when is None and not known:
        raise SceneError("it states no datetime, nor a beginning or end")
    return when or known[0] + (known[-1] - known[0]) / 2


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
