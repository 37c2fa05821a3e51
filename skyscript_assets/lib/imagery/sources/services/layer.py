"""What a service offers over a region, whatever its protocol: a grid, the tiles to use and how one is asked for."""

import datetime as dt
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import shapely

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.imagery.scenes import acquisition_time
from skyscript_assets.lib.imagery.sources.services.client import Client
from skyscript_assets.lib.imagery.sources.services.grid import TileGrid
from skyscript_assets.lib.imagery.sources.services.settings import OgcSource

FORMATS = ("image/jpeg", "image/png", "image/webp")
"""Formats that are decoded, in the order in which they are preferred: photographs are stored as JPEG."""

WORLD = shapely.box(-180, -90, 180, 90)


@dataclass(frozen=True)
class ServedLayer:
    """A layer of a service at one resolution.

    Attributes:
        grid: Its pixels and tiles.
        template: Address of a tile with places: `{x}` column, `{y}` row, `{-y}` row from the south, `{q}` quadkey,
            `{bbox}` the tile's box in the CRS, `{api_key}`.
        ground: Where it has images, degrees.
        datetime: Date that the service states, UTC.
        facts: What filling in the template takes besides: rows of the whole grid, order of axes.
        terms: What the service says of its use.
    """

    grid: TileGrid
    template: str
    ground: shapely.Geometry
    datetime: dt.datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    terms: str = ""


Served = Callable[[Any, str, shapely.Geometry, Client], ServedLayer]
"""The layer of a service as a protocol has it: of a source, by its key, over a region's ground in degrees, as the
client is told; SceneError where the layer, or what is wanted of it, is not offered, and what `Client` raises."""


def choose(wanted: str | None, offered: Sequence[str], default: str | None, what: str) -> str:
    """The wanted one of what is offered, else the default, else the first; `what` is the key in the settings.

    Raises:
        SceneError: what is wanted is not offered, or nothing is.
    """
    if wanted is not None and wanted not in offered:
        shown = ", ".join(sorted(offered)[:20]) or "none"
        raise SceneError(f"{what}: {wanted!r} is not offered; there are {shown}")
    found = wanted or default or next(iter(offered), None)
    if found is None:
        raise SceneError(f"{what}: the service offers none")
    return found


def choose_format(source: OgcSource, offered: Sequence[str], key: str) -> str:
    """The image format to ask for.

    Raises:
        SceneError: the service has none that is decoded, or not the one that the settings want.
    """
    usable = [name for name in FORMATS if name in offered]
    if not usable:
        shown = ", ".join(sorted(set(offered))[:20]) or "none"
        raise SceneError(f"sources.yaml: {key}: layer {source.layer!r} comes as {shown}, none of which is read here")
    return choose(source.format, usable, None, f"sources.yaml: {key}.format")


def dimension_values(
    source: OgcSource, defaults: Mapping[str, str | None], key: str
) -> tuple[dict[str, str], dt.datetime | None]:
    """Values of a layer's dimensions, the settings' before the service's own, and the date that TIME stands for.

    `defaults` are the service's by dimension, None where it has none.

    Raises:
        SceneError: a dimension has no value, the settings name one that there is not, or a time is unreadable.
    """
    stated = {name.lower(): value for name, value in source.dimensions.items()}
    if unknown := sorted(stated.keys() - {name.lower() for name in defaults}):
        shown = ", ".join(sorted(defaults)) or "none"
        raise SceneError(f"sources.yaml: {key}.dimensions: {unknown[0]!r} is no dimension of the layer; it has {shown}")
    values = {}
    for name, default in defaults.items():
        value = stated.get(name.lower()) or default
        if not value:
            raise SceneError(
                f"sources.yaml: {key}.dimensions: state a value of {name!r}, which the service leaves open"
            )
        values[name] = value
    time = next((value for name, value in values.items() if name.lower() == "time"), None)
    return values, None if time is None else _moment(time, key)


def _moment(text: str, key: str) -> dt.datetime | None:
    """When a value of TIME begins: ISO 8601, perhaps only a year or a month, perhaps an interval; `current` is none."""
    first = re.split(r"[/,]", text)[0].strip()
    if first in ("current", "default"):
        return None
    if re.fullmatch(r"\d{4}(-\d{2})?", first):
        first = f"{first}-01-01"[:10]
    try:
        return acquisition_time(dt.datetime.fromisoformat(first))
    except ValueError:
        raise SceneError(
            f"sources.yaml: {key}.dimensions: the time {text[:60]!r} is none of ISO 8601; state another one"
        ) from None


def box_of(sides: Iterable[str]) -> shapely.Geometry | None:
    """A box in degrees from the west, south, east and north of a document, None where they are no such numbers."""
    try:
        w, s, e, n = map(float, sides)
    except ValueError:
        return None
    w, s, e, n = max(-180.0, w), max(-90.0, s), min(180.0, e), min(90.0, n)
    return shapely.box(w, s, e, n) if w < e and s < n else None
