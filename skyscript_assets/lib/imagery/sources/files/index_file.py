"""Index files of the source kind `files`: one table that lists rasters on this machine and when each was taken.

Read are GeoJSON (as `gdaltindex` writes it), GeoParquet and STAC ItemCollections. Where the rasters lie on the globe
they say themselves; the geometry in an index is not used.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.imagery.scenes import acquisition_time

MAX_INDEX_BYTES = 256 << 20

PATH_NAMES = ("path", "location", "href")
"""Names of the property that holds a raster's path, the first found is used; `location` is what `gdaltindex` writes."""

TIME_NAMES = ("datetime", "start_datetime", "date", "timestamp")
"""Names of the property that holds its time; the first two are STAC's."""


def read_index(path: Path, asset: str | None = None) -> list[tuple[Path, dt.datetime | None]]:
    """The rasters that an index lists, with their times where it states them; relative paths start at its folder.

    `asset` is the key of the asset of STAC items; default: their only asset, or the only one with the role `data`.

    Raises:
        MissingInputError: there is no such index.
        CorruptInputError: it is none.
        SceneError: an entry names no raster on this machine.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist")
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise CorruptInputError(f"{path} is larger than an index of {MAX_INDEX_BYTES} bytes: split it")
    rows = _parquet_rows(path) if path.suffix.lower() in (".parquet", ".geoparquet") else _json_rows(path)
    return [_entry(path, number, row, asset) for number, row in enumerate(rows)]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        names = pq.read_schema(path).names
        columns = [name for name in (*PATH_NAMES, *TIME_NAMES, "assets") if name in names]
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptInputError(f"{path} is not a whole Parquet file ({error})") from error
    return rows


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        features = content["features"]
        for feature in features:
            yield {**feature["properties"], **({"assets": feature["assets"]} if "assets" in feature else {})}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptInputError(
            f"{path} is no GeoJSON FeatureCollection or STAC ItemCollection ({type(error).__name__}: {error})"
        ) from error


def _entry(index: Path, number: int, row: Mapping[str, Any], asset: str | None) -> tuple[Path, dt.datetime | None]:
    where = f"{index}: entry {number}"
    href = _asset_href(where, row["assets"], asset) if row.get("assets") else _first(row, PATH_NAMES)
    if not isinstance(href, str) or not href:
        raise SceneError(f"{where} names no raster: give it a property {' or '.join(PATH_NAMES)}")
    parts = urlsplit(href)
    if parts.scheme == "file":
        href = unquote(parts.path)
    elif parts.netloc or href.startswith("/vsi"):
        raise SceneError(f"{where} names {parts.scheme or 'a virtual path'}, not a file here: use `kind: stac` for it")
    return (index.parent / href).resolve(), _time(where, _first(row, TIME_NAMES))


def _asset_href(where: str, assets: Any, key: str | None) -> Any:
    """The address of the asset to read of a STAC item."""
    known = {name: value for name, value in dict(assets).items() if isinstance(value, Mapping)}
    chosen = [key] if key is not None else list(known)
    if key is None and len(chosen) > 1:
        chosen = [name for name, value in known.items() if "data" in (value.get("roles") or ())]
    if len(chosen) != 1 or chosen[0] not in known:
        raise SceneError(
            f"{where} has the assets {', '.join(sorted(known)) or '(none)'}: name the one to read as `index_asset`"
        )
    return known[chosen[0]].get("href")


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _time(where: str, stated: Any) -> dt.datetime | None:
    """A time as ISO 8601 text or as Parquet holds it."""
    try:
        if stated is None or isinstance(stated, dt.date):
            return None if stated is None else acquisition_time(stated)
        return acquisition_time(dt.datetime.fromisoformat(str(stated)))
    except ValueError as error:
        raise SceneError(f"{where} has the unreadable time {stated!r}: write it as 2023-06-01T10:00:00Z") from error
