"""One look at a source: what it has at one place, whether that can be read, and what differs from its settings."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import shapely

from skyscript_assets.lib.errors import SceneError, SettingsError
from skyscript_assets.lib.geometry import Bounds, metres_per_degree
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, source_kind
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.settings.sources import SourceBase

HALF_SIDE_M, WINDOW_PX = 500.0, 256
"""Half of the side of the ground that is searched, metres; side of the window that is read."""

SAME_GSD = 1.1
"""Ratio of two GSDs up to which they are the same."""

DARKEST, BRIGHTEST = 8, 247
"""Mean of a window beyond which its scaling is doubted."""


def ground_for(key: str, source: SourceBase, regions: Mapping[str, Region]) -> Bounds:
    """About a square kilometre around the centre of what a source may have of the first region, else of its extent.

    Raises:
        SettingsError: neither is stated.
    """
    extent = shapely.box(*source.extent.bounds) if source.extent else shapely.box(-180, -90, 180, 90)
    grounds = [extent.intersection(shapely.box(*region.bbox.bounds)) for region in regions.values() if region.bbox]
    ground = next((one for one in grounds if one.area > 0), extent if source.extent else None)
    if ground is None:
        raise SettingsError(f"no place to look at is known: state sources.yaml: {key}.extent, or the bbox of a region")
    lon, lat = ground.centroid.x, ground.centroid.y
    east, north = (HALF_SIDE_M / metres for metres in metres_per_degree(lat))
    return lon - east, lat - north, lon + east, lat + north


def probe(search: Search[Any]) -> tuple[str, list[str]]:
    """Look for one scene of a source over a small box, and read a window of it.

    Returns:
        What was found, and what differs from the settings, with the keys to change.

    Raises:
        SkyScriptError: the source fails, or has nothing there.
    """
    from affine import Affine
    from pyproj import Transformer

    kind, source, ground = source_kind(search.source.kind), search.source, shapely.box(*search.bbox)
    sample = kind.sample(source)
    counts = kind.index(dataclasses.replace(search, source=sample))
    where = f"{ground.centroid.x:.4f} {ground.centroid.y:.4f}"
    if not (scenes := read_scenes(search.out)):
        raise SceneError(f"nothing within {HALF_SIDE_M:g} m of {where}: {json.dumps(counts)}")
    scene = scenes[0]
    seen, grid = scene.footprint.intersection(ground).centroid, Affine(*scene.transform)
    place = Transformer.from_crs(4326, scene.crs, always_xy=True).transform(seen.x, seen.y)
    column, row = (round(middle) - WINDOW_PX // 2 for middle in ~grid @ place)
    with kind.open_scene(scene, sample, search.cache) as reader:
        pixels = reader.read(scene.crs, tuple((grid @ Affine.translation(column, row))[:6]), WINDOW_PX, WINDOW_PX)
    facts = f"{scene.gsd_m:.3g} m, {scene.crs[:12]}, {scene.datetime:%Y-%m-%d} ({scene.date_is}), {scene.licence}"
    return f"{facts}, at {where}", list(_differences(search.key, source, scene, counts, pixels))


def _differences(
    key: str, source: SourceBase, scene: Scene, counts: Mapping[str, Any], pixels: Pixels
) -> Iterator[str]:
    if not source.gsd_m / SAME_GSD <= scene.gsd_m <= source.gsd_m * SAME_GSD:
        yield f"pixels are {scene.gsd_m:.3g} m on the ground here: {key}.gsd_m says {source.gsd_m:g}"
    said = str(counts.get("terms_stated") or scene.licence)
    if _letters(source.licence) not in _letters(said):
        yield f"stated with the images is {said!r}: {key}.licence says {source.licence!r}"
    when, stated = counts.get("time_stated"), getattr(source, "datetime", None)
    if when and stated and acquisition_time(stated).date().isoformat() != when[:10]:
        yield f"the service states the time {when[:10]}: {key}.datetime says {stated}; leave it out"
    shown = pixels.rgb[pixels.valid]
    if not len(shown):
        yield f"the window holds no data: {key}.extent, layer or nodata"
    elif not DARKEST <= shown.mean() <= BRIGHTEST:
        yield f"the window is all dark or bright (mean {shown.mean():.0f} of 255): {key}.scaling or bands"
    elif (shown == shown[:, :1]).all():
        yield f"red, green and blue are the same: {key}.bands, assets or layer"


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()
