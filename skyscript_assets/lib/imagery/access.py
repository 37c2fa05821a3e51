"""The one protocol of image sources: find scenes, open a scene; which code answers for which kind is decided here.

The licence is stated by each scene (`Scene.licence`, `Scene.attribution`). A new kind of source is a settings model, a
function that writes `scenes.parquet`, a `SceneReader`, and a case in the functions of this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from skyscript_assets.lib.errors import UnsupportedSourceError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.files import files_of, index_files
from skyscript_assets.lib.imagery.raster import RasterReader
from skyscript_assets.lib.imagery.reader import SceneReader
from skyscript_assets.lib.imagery.remote_reader import RemoteReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.stac import index_stac
from skyscript_assets.lib.imagery.synthetic import paint_scene
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import FilesSource, Settings, Source, StacSource, SyntheticSource
from skyscript_assets.lib.storage import file_stamp


def index_scenes(
    region: str,
    key: str,
    settings: Settings,
    bbox: Bounds,
    out: Path,
    progress: Progress = silent,
    *,
    objects: Path | None = None,
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

    Returns:
        Counts by name.

    Raises:
        UnsupportedSourceError: this version cannot read the source's kind.
        SkyScriptError: what the kind's own function raises.
    """
    source = settings.sources[key]
    match source:
        case FilesSource():
            return vars(index_files(region, key, source, settings, bbox, out, progress))
        case StacSource():
            return vars(index_stac(region, key, source, settings, bbox, out, progress))
        case SyntheticSource() if objects is not None:
            zoom = settings.plant.split.zoom
            return vars(paint_scene(region, key, source, bbox, objects, out, zoom, progress))
        case _:
            raise _unsupported(key, source)


def open_scene(scene: Scene, source: Source) -> SceneReader:
    """The reader of a scene, to be used as a context manager.

    Args:
        scene: The scene.
        source: Settings of its source: how its images are reached.

    Raises:
        UnsupportedSourceError: this version cannot read the source's kind.
    """
    match source:
        case FilesSource() | SyntheticSource():
            return RasterReader(scene)
        case StacSource():
            return RemoteReader(scene, source)
        case _:
            raise _unsupported(scene.source, source)


def needs_objects(source: Source) -> bool:
    """Whether a source's scenes are made from OSM objects."""
    return isinstance(source, SyntheticSource)


def depends_on(source: Source, settings: Settings) -> dict[str, Any]:
    """What the scenes of a source depend on beside region and code, as JSON values: a change makes them stale."""
    read: dict[str, Any] = {"source": source.model_dump(mode="json", exclude={"title"})}
    match source:
        case FilesSource():
            read["files"] = [file_stamp(path) for path in files_of(source, settings)]
        case StacSource() if urlsplit(source.catalog).scheme not in ("http", "https"):
            read["files"] = [file_stamp(settings.resolve(source.catalog))]
        case SyntheticSource():
            read["zoom"] = settings.plant.split.zoom
    return read


def _unsupported(key: str, source: Source) -> UnsupportedSourceError:
    return UnsupportedSourceError(
        f"source {key}: kind {source.kind!r} is described in the settings but cannot be read by this version; "
        "download its files and describe them with `kind: files`"
    )
