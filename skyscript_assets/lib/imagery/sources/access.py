"""The one protocol of image sources: find scenes, open a scene; which code answers for which kind is decided here.

The licence is stated by each scene (`Scene.licence`, `Scene.attribution`). A new kind of source is a settings model, a
function that writes `scenes.parquet`, a `SceneReader`, and a case in the functions of this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skyscript_assets.demo.scene import paint_scene
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import SceneReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.sources.earthengine.index import index_earth_engine
from skyscript_assets.lib.imagery.sources.earthengine.reader import EarthEngineReader
from skyscript_assets.lib.imagery.sources.files.index import files_of, index_files
from skyscript_assets.lib.imagery.sources.services.index import index_service
from skyscript_assets.lib.imagery.sources.services.reader import TileReader
from skyscript_assets.lib.imagery.sources.stac.index import index_stac
from skyscript_assets.lib.imagery.sources.stac.reader import RemoteReader
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.sources import (
    EarthEngineSource,
    FilesSource,
    ServiceSource,
    Source,
    StacSource,
    SyntheticSource,
)

_NOT_SEEN = {
    "title",
    "choice",
    "api_key_variable",
    "api_key_parameter",
    "api_key_header",
    "requests_per_second",
    "connections",
    "tries",
    "timeout_s",
    "contact",
    "cache_mb",
    "project",
    "credentials_variable",
    "signing",
    "token",
    "requester_pays",
}
"""Settings by which an image is reached or chosen, and that change nothing in it."""


def index_scenes(
    region: str,
    key: str,
    settings: Settings,
    bbox: Bounds,
    out: Path,
    progress: Progress = silent,
    *,
    objects: Path | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Find the scenes of a source over a region and write them as `scenes.parquet`, perhaps with no row.

    Args:
        region: Region key.
        key: Source key.
        settings: The profile.
        bbox: (west, south, east, north) of the region in degrees.
        out: Existing folder to write into.
        progress: Told what was found or painted.
        objects: `objects.parquet` of the region, where the source `needs_objects`.
        cache: Existing local folder that all readers of services share.

    Returns:
        Counts by name.

    Raises:
        SkyScriptError: what the kind's own function raises.
    """
    source = settings.sources[key]
    match source:
        case FilesSource():
            return vars(index_files(region, key, source, settings, bbox, out, progress))
        case StacSource():
            return vars(index_stac(region, key, source, settings, bbox, out, progress))
        case SyntheticSource():
            assert objects is not None, "a painted source needs the region's objects"
            zoom = settings.plant.split.zoom
            return vars(paint_scene(region, key, source, bbox, objects, out, zoom, progress))
        case ServiceSource():
            return vars(index_service(region, key, source, bbox, out, cache))
        case EarthEngineSource():
            return vars(index_earth_engine(region, key, source, bbox, out))


def open_scene(scene: Scene, source: Source, cache: Path | None = None) -> SceneReader:
    """The reader of a scene, to be used as a context manager.

    Args:
        scene: The scene.
        source: Settings of its source: how its images are reached.
        cache: Existing local folder that all readers of services share, and in which they keep tiles.
    """
    match source:
        case FilesSource() | SyntheticSource():
            return RasterReader(scene)
        case StacSource():
            return RemoteReader(scene, source)
        case ServiceSource():
            return TileReader(scene, source, cache)
        case EarthEngineSource():
            return EarthEngineReader(scene, source)


def needs_objects(source: Source) -> bool:
    """Whether a source's scenes are made from OSM objects."""
    return isinstance(source, SyntheticSource)


def depends_on(source: Source, settings: Settings) -> dict[str, Any]:
    """What the scenes of a source depend on beside region and code, as JSON values: a change makes them stale."""
    read: dict[str, Any] = {"source": source.model_dump(mode="json", exclude=_NOT_SEEN)}
    match source:
        case FilesSource():
            read["files"] = [file_stamp(path) for path in files_of(source, settings)]
        case StacSource() if urlsplit(source.catalog).scheme not in ("http", "https"):
            read["files"] = [file_stamp(settings.resolve(source.catalog))]
        case SyntheticSource():
            read["zoom"] = settings.plant.split.zoom
    return read
