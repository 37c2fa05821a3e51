"""Scenes of the source kind `files`: georeferenced rasters on this machine, indexed without being copied."""

from __future__ import annotations

import datetime as dt
import glob
import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely

from skyscript_assets.lib.errors import MissingInputError, SceneError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.geotiff.describe import (
    Preview,
    Stated,
    describe,
    nodata_of,
    quiet_about_missing_georeference,
    scene_id,
)
from skyscript_assets.lib.imagery.geotiff.raster import OpenImage, open_raster, read_raw
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, write_scenes
from skyscript_assets.lib.imagery.sources.files.index_file import read_index
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.sources import FilesSource

PREVIEW_PX = 1024
"""Longer side of the thinned copy from which footprint and percentiles are taken."""

MAX_UNTHINNED_PIXELS = 1 << 28
"""A raster without overviews is thinned by reading all of it; above this size (268 million pixels) it is not."""

ENDS_BYTES = 64 * 1024
"""Bytes from each end of a file that its fingerprint covers."""


@dataclass(frozen=True)
class SceneSummary:
    """What `index_files` found.

    Attributes:
        files: Files that the source's paths name.
        scenes: Scenes that overlap the region.
        outside: Files that do not.
        without_data: Files without one pixel of data.
        duplicates: Files that are copies of another one.
    """

    files: int
    scenes: int
    outside: int
    without_data: int
    duplicates: int


def index_files(
    region: str,
    key: str,
    source: FilesSource,
    settings: Settings,
    bbox: Bounds,
    out: Path,
    progress: Progress = silent,
) -> SceneSummary:
    """Write `scenes.parquet`: the source's files whose ground with data overlaps the region, perhaps none.

    Args:
        region: Region key.
        key: Source key.
        source: The source's settings.
        settings: The profile; relative paths start at its folder.
        bbox: (west, south, east, north) of the region in degrees.
        out: Existing folder to write into.
        progress: Told after each file.

    Raises:
        MissingInputError: a file does not exist, or a glob matches none.
        CorruptInputError: a file is no whole GeoTIFF, COG or VRT.
        SceneError: a file cannot be used as it is; the message says what to do.
    """
    files = _existing_files(key, source, settings)
    scenes: dict[str, Scene] = {}
    outside = without_data = duplicates = 0
    for done, (path, when) in enumerate(files.items(), start=1):
        scene = _describe(path, when, region, key, source)
        if scene is None:
            without_data += 1
        elif scene.scene_id in scenes:
            duplicates += 1
        elif scene.footprint.intersects(shapely.box(*bbox)):
            scenes[scene.scene_id] = scene
        else:
            outside += 1
        progress(done, len(files), "files")
    write_scenes(out, scenes.values())
    return SceneSummary(len(files), len(scenes), outside, without_data, duplicates)


def files_of(source: FilesSource, settings: Settings) -> list[Path]:
    """The files that a source depends on, each once, sorted, existing or not; its index and what that lists, too."""
    files = {path for pattern in source.paths for path in _matches(pattern, settings.folder)}
    if source.index is not None:
        index = settings.resolve(source.index)
        listed = read_index(index, source.index_asset) if index.is_file() else []
        files |= {index, *(path for path, _ in listed)}
    return sorted(files)


def _matches(pattern: str, folder: Path) -> list[Path]:
    """The files that a path or glob of the settings names: `~` is expanded, relative ones start at their folder."""
    wanted = Path(pattern).expanduser()
    plain = folder / wanted
    # A path that exists is meant as it stands, even where its name holds a bracket.
    if plain.is_file() or not glob.has_magic(pattern):
        return [plain.resolve()]
    found = glob.glob(str(Path(glob.escape(str(folder)), wanted)), recursive=True)  # noqa: PTH207 - may be absolute
    return [path.resolve() for match in found if (path := Path(match)).is_file()]


def _existing_files(key: str, source: FilesSource, settings: Settings) -> dict[Path, dt.datetime | None]:
    """The files that a source names, sorted, all of which exist, with the time that its index gives them."""
    files: dict[Path, dt.datetime | None] = {}
    for pattern in source.paths:
        matches = _matches(pattern, settings.folder)
        if not matches or not matches[0].is_file():
            what = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise MissingInputError(f"sources.yaml: {key}.paths: {settings.folder / Path(pattern).expanduser()} {what}")
        files |= dict.fromkeys(matches)
    if source.index is not None:
        index = settings.resolve(source.index)
        files |= read_index(index, source.index_asset)
        for path in files:
            if not path.is_file():
                raise MissingInputError(f"sources.yaml: {key}.index: {path}, listed in {index}, does not exist")
    return dict(sorted(files.items()))


def fingerprint(dataset: Any) -> str:
    """SHA-256 over the size and the first and last 64 KiB of each file of an open dataset (a VRT has many).

    Cheap for rasters of any size. It notices another file, another header and a truncation; an edit of pixels that
    keeps the size and both ends it does not.
    """
    digest = hashlib.sha256()
    for path in map(Path, dataset.files):
        if path.is_file():
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(size.to_bytes(8, "big") + file.read(ENDS_BYTES))
                file.seek(max(0, size - ENDS_BYTES))
                digest.update(file.read(ENDS_BYTES))
    return digest.hexdigest()


def check_unchanged(scene: Scene) -> None:
    """Check that a scene's file is the one that was indexed.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is not a whole raster.
        SceneError: it has changed.
    """
    with open_raster(scene.path) as dataset:
        if fingerprint(dataset) != scene.fingerprint:
            raise SceneError(
                f"{scene.path} has changed since it was indexed as scene {scene.scene_id}: materialize scene_index and "
                "chip_plan again"
            )


def _describe(path: Path, when: dt.datetime | None, region: str, key: str, source: FilesSource) -> Scene | None:
    """The scene that a file is, or None where it holds no data at all."""
    stated = Stated(key, source.gsd_m, source.scaling, source.nodata)
    with warnings.catch_warnings():
        quiet_about_missing_georeference()
        with open_raster(path) as dataset:
            image = OpenImage(str(path), (dataset,), source.bands)
            found = describe(image, stated, lambda: _preview(image, nodata_of(image, stated)))
            if found is None:
                return None
            digest = fingerprint(dataset)
            return Scene(
                scene_id=scene_id(path.stem, digest),
                region=region,
                source=key,
                kind=source.kind,
                datetime=when or _acquired(dataset, key, source),
                footprint=found.footprint,
                hrefs=(str(path),),
                fingerprint=digest,
                licence=source.licence,
                attribution=source.attribution,
                **found.columns(),
            )


def _preview(image: OpenImage, nodata: float | None) -> Preview:
    """Raw values and validity of a thinned copy, or None where thinning would mean to read a very large raster."""
    dataset = image.datasets[0]
    if not dataset.overviews(image.bands[0]) and dataset.width * dataset.height > MAX_UNTHINNED_PIXELS:
        return None
    scale = min(1.0, PREVIEW_PX / max(dataset.width, dataset.height))
    shape = (math.ceil(dataset.height * scale), math.ceil(dataset.width * scale))
    return read_raw(image, nodata, shape=shape)


def _acquired(dataset: Any, key: str, source: FilesSource) -> dt.datetime:
    """Acquisition time: the settings', else TIFFTAG_DATETIME (TIFF 6.0: YYYY:MM:DD HH:MM:SS), taken as UTC."""
    if source.datetime is not None:
        return acquisition_time(source.datetime)
    tag = dataset.tags().get("TIFFTAG_DATETIME")
    try:
        return acquisition_time(dt.datetime.strptime(tag or "", "%Y:%m:%d %H:%M:%S"))
    except ValueError:
        found = "has no TIFFTAG_DATETIME" if tag is None else f"has the unreadable TIFFTAG_DATETIME {tag!r}"
        raise SceneError(f"{dataset.name} {found}: state sources.yaml: {key}.datetime") from None
