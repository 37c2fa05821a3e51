"""One look at a source: what it has at one place, whether that can be read, and what differs from its settings."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import shapely

from skyscript_assets.lib.errors import SceneError, SettingsError
from skyscript_assets.lib.geometry import metres_per_degree
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, source_kind
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.sources import SourceBase

HALF_SIDE_M, WINDOW_PX = 500.0, 256
"""Half of the side of the ground that is searched, metres; side of the window that is read."""

SAME_GSD = 1.1
"""Ratio of two GSDs up to which they are the same."""


def probe(key: str, source: SourceBase, shared: Shared, out: Path, cache: Path) -> tuple[str, list[str]]:
    """Look for one scene about the centre of the first region that a source may cover, else of its extent; read a part.

    Both folders exist; all sources share `cache`, by which they keep to the rates of services.

    Returns:
        What was found, and what differs from the settings, with the keys to change.

    Raises:
        SkyScriptError: the source fails, or has nothing there, or no place is known.
    """
    from affine import Affine
    from pyproj import Transformer

    world = shapely.box(-180, -90, 180, 90)
    extent = shapely.box(*source.extent.bounds) if source.extent else world
    kind, grounds = source_kind(source.kind), []
    for box in shared.boxes:
        if box is not None and (source.extent is None or source.extent.intersects(box)):
            kind.check_region(Search("in regions.yaml", key, source, shared, box.bounds, out))
            grounds.append(extent.intersection(shapely.box(*box.bounds)))
    ground = next((one for one in grounds if one.area > 0), extent)
    if ground is world:
        raise SettingsError(f"no place to look at is known: state sources.yaml: {key}.extent, or the bbox of a region")
    lon, lat = ground.centroid.x, ground.centroid.y
    east, north = (HALF_SIDE_M / metres for metres in metres_per_degree(lat))
    searched, where = (lon - east, lat - north, lon + east, lat + north), f"at {lon:.4f} {lat:.4f}"
    sample = kind.sample(source).model_copy(update={"resolution": "pixels"})  # which takes no further windows
    counts = kind.find(Search("doctor", key, sample, shared, searched, out, cache=cache))
    if not (scenes := read_scenes(out)):
        raise SceneError(f"nothing {where} within {HALF_SIDE_M:g} m: {json.dumps(counts)}")
    scene, grid = scenes[0], Affine(*scenes[0].transform)
    seen = scene.footprint.intersection(shapely.box(*searched)).centroid
    place = Transformer.from_crs(4326, scene.crs, always_xy=True).transform(seen.x, seen.y)
    corner = grid @ Affine.translation(*(round(middle) - WINDOW_PX // 2 for middle in ~grid @ place))
    with kind.open_scene(scene, sample, cache) as reader:
        pixels = reader.read(scene.crs, tuple(corner[:6]), WINDOW_PX, WINDOW_PX)
    facts = f"{scene.gsd_m:.3g} m, {scene.crs[:12]}, {scene.datetime:%Y-%m-%d} ({scene.date_is}), {scene.licence}"
    return f"{facts}, {where}", list(_differences(key, source, scene, counts, pixels))


def _differences(
    key: str, source: SourceBase, scene: Scene, counts: Mapping[str, Any], pixels: Pixels
) -> Iterator[str]:
    if not source.gsd_m / SAME_GSD <= scene.gsd_m <= source.gsd_m * SAME_GSD:
        yield f"pixels are {scene.gsd_m:.3g} m on the ground here: {key}.gsd_m says {source.gsd_m:g}"
    said = str(counts.get("terms_stated") or scene.licence)
    if _letters(source.licence) not in _letters(said):
        yield f"stated with the images is {said!r}: {key}.licence says {source.licence!r}"
    when, stated = str(counts.get("time_stated") or "")[:10], getattr(source, "datetime", None)
    if when and stated and when != (day := f"{acquisition_time(stated):%Y-%m-%d}"):
        yield f"the service states the time {when}: {key}.datetime says {day}; leave it out"
    shown = pixels.rgb[pixels.valid]
    if not len(shown):
        yield f"the window holds no data: {key}.extent, layer or nodata"
    elif shown.std() < 2 or (shown == shown[:, :1]).all():
        yield f"the window is of one colour, or grey: {key}.bands, assets, scaling or layer"


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()
