"""Scenes of the source kind `files`: georeferenced rasters on this machine, indexed without being copied."""

import datetime as dt
import glob
import hashlib
import math
from pathlib import Path
from typing import Any

import shapely

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError, SkyScriptError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.imagery.footprints import wrapped
from skyscript_assets.lib.imagery.geotiff.describe import (
    Preview,
    Stated,
    describe,
    located,
    nodata_of,
    scene_id,
    unwarned,
)
from skyscript_assets.lib.imagery.geotiff.raster import OpenImage, RasterReader, open_raster, read_raw
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, write_scenes, write_unusable
from skyscript_assets.lib.imagery.sources.files.index_file import read_index
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Requirement, Search, SourceKind, check_ground, stated_facts
from skyscript_assets.lib.settings.base import Shared

PREVIEW_PX = 1024
"""Longer side of the thinned copy from which footprint and percentiles are taken."""

MAX_UNTHINNED_PIXELS = 1 << 28
"""A raster without overviews is thinned by reading all of it; above this size (268 million pixels) it is not."""

UNUSABLE = (CorruptInputError, MissingInputError, SceneError)
"""What is wrong with one file and says nothing of the others."""

ENDS_BYTES = 64 * 1024
"""Bytes from each end of a file that its fingerprint covers."""


def index_files(search: Search[FilesSource]) -> dict[str, Any]:
    """Write `scenes.parquet`: the source's files whose ground with data overlaps the region, perhaps none.

    Returns:
        Numbers of `files` that the source's paths name, of `scenes` that overlap the region, of files `outside` it, of
        those `without_data`, of `duplicates` of another one and of those `unusable`, which are listed with the reason;
        and of files of which an alpha band hides most, so that it may be none: `mostly_hidden`.

    Raises:
        MissingInputError: a path or a glob names no file.
        CorruptInputError: no file is a whole GeoTIFF, COG or VRT.
        SceneError: no file can be used as it is; the message says what to do.
    """
    files = _existing_files(search.key, search.source, search.shared)
    scenes: dict[str, Scene] = {}
    left_out = {"outside": 0, "without_data": 0, "duplicates": 0, "mostly_hidden": 0}
    unusable: list[tuple[Path, SkyScriptError]] = []
    for done, (path, when) in enumerate(files.items(), start=1):
        try:
            scene, hides = _describe(path, when, search)
        except UNUSABLE as error:
            unusable.append((path, error))
            continue
        left_out["mostly_hidden"] += hides
        if scene is None:
            left_out["without_data"] += 1
        elif scene.scene_id in scenes:
            left_out["duplicates"] += 1
        elif scene.footprint.intersects(wrapped(shapely.box(*search.bbox))):
            scenes[scene.scene_id] = scene
        else:
            left_out["outside"] += 1
        search.progress(done, len(files), "files")
    if unusable and len(unusable) == len(files):
        raise unusable[0][1]
    write_scenes(search.out, scenes.values())
    if unusable:
        write_unusable(search.out, [(str(path), str(error)) for path, error in unusable])
    return {"files": len(files), "scenes": len(scenes), **left_out, "unusable": len(unusable)}


def check_files(key: str, source: FilesSource, shared: Shared) -> dict[str, Any]:
    """Compare what a source states with the headers of all its files: GSD, date, ground.

    Returns:
        What is stated, the number of `files` that can be used by their headers and of others, `unusable`, their
        `finest_m` and `coarsest_m` GSD, and the dates `earliest` and `latest`.

    Raises:
        MissingInputError: a path or a glob names no file.
        CorruptInputError: no file is a raster.
        SceneError: every file has another GSD, no date or no place on the globe, or none lies on the ground that is
            stated.
    """
    stated = Stated(key, source.gsd_m, source.scaling, source.nodata)
    facts, unusable = [], []
    for path, when in _existing_files(key, source, shared).items():
        try:
            with unwarned(), open_raster(path) as dataset:
                image = OpenImage(str(path), (dataset,), source.bands)
                facts.append((*located(image, stated), when or _acquired(dataset, key, source)))
        except UNUSABLE as error:
            unusable.append(error)
    if unusable and not facts:
        raise unusable[0]
    gsds, outlines, times = zip(*facts, strict=True)
    check_ground(key, source, shared, outlines)
    found = {"files": len(gsds), "unusable": len(unusable), "finest_m": min(gsds), "coarsest_m": max(gsds)}
    dates = {"earliest": min(times).isoformat(), "latest": max(times).isoformat()}
    return stated_facts(key, source, shared) | found | dates


def files_of(source: FilesSource, shared: Shared) -> list[Path]:
    """The files that a source depends on, each once, sorted, existing or not; its index and what that lists, too."""
    files = {path for pattern in source.paths for path in matching(pattern, shared.folder)}
    if source.index is not None:
        index = shared.resolve(source.index)
        listed = read_index(index, source.index_asset) if index.is_file() else []
        files |= {index, *(path for path, _ in listed)}
    return sorted(files)


def matching(pattern: str, folder: Path) -> list[Path]:
    """The files that a path or glob of the settings names: `~` is expanded, relative ones start at their folder."""
    wanted = Path(pattern).expanduser()
    plain = folder / wanted
    # A path that exists is meant as it stands, even where its name holds a bracket.
    if plain.is_file() or not glob.has_magic(pattern):
        return [plain.resolve()]
    found = glob.glob(str(Path(glob.escape(str(folder)), wanted)), recursive=True)  # noqa: PTH207 - may be absolute
    return [path.resolve() for match in found if (path := Path(match)).is_file()]


def _existing_files(key: str, source: FilesSource, shared: Shared) -> dict[Path, dt.datetime | None]:
    """The files that a source names, sorted, all of which exist, with the time that its index gives them."""
    files: dict[Path, dt.datetime | None] = {}
    for pattern in source.paths:
        matches = matching(pattern, shared.folder)
        if not matches or not matches[0].is_file():
            what = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise MissingInputError(f"sources.yaml: {key}.paths: {shared.folder / Path(pattern).expanduser()} {what}")
        files |= dict.fromkeys(matches)
    if source.index is not None:
        index = shared.resolve(source.index)
        files |= read_index(index, source.index_asset)
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


def _describe(path: Path, when: dt.datetime | None, search: Search[FilesSource]) -> tuple[Scene | None, bool]:
    """The scene that a file is, None where it holds no data, and whether an alpha band hides most of it."""
    key, source = search.key, search.source
    stated = Stated(key, source.gsd_m, source.scaling, source.nodata)
    with unwarned(), open_raster(path) as dataset:
        image = OpenImage(str(path), (dataset,), source.bands, source.alpha == "ignore")
        found = describe(image, stated, lambda: _preview(image, nodata_of(image, stated)))
        if found is None:
            return None, False
        digest = fingerprint(dataset)
        scene = search.scene(
            scene_id=scene_id(path.stem, digest),
            datetime=when or _acquired(dataset, key, source),
            footprint=found.footprint,
            hrefs=(str(path),),
            fingerprint=digest,
            **found.columns,
        )
        return scene, found.mostly_hidden


def _preview(image: OpenImage, nodata: float | None) -> Preview:
    """Raw values and validity of a thinned copy, or None where thinning would mean to read a very large raster."""
    dataset = image.datasets[0]
    if not dataset.overviews(image.bands[0]) and dataset.width * dataset.height > MAX_UNTHINNED_PIXELS:
        return None
    scale = min(1.0, PREVIEW_PX / max(dataset.width, dataset.height))
    shape = (math.ceil(dataset.height * scale), math.ceil(dataset.width * scale))
    return read_raw(image, nodata, shape=shape)


def _acquired(dataset: Any, key: str, source: FilesSource) -> dt.datetime:
    """Acquisition time: the settings', else the file's own."""
    if source.datetime is not None:
        return acquisition_time(source.datetime)
    if (when := tagged_time(dataset)) is not None:
        return when
    tag = dataset.tags().get("TIFFTAG_DATETIME")
    found = "has no TIFFTAG_DATETIME" if tag is None else f"has the unreadable TIFFTAG_DATETIME {tag!r}"
    raise SceneError(f"{dataset.name} {found}: state sources.yaml: {key}.datetime")


def tagged_time(dataset: Any) -> dt.datetime | None:
    """A file's own TIFFTAG_DATETIME (TIFF 6.0: YYYY:MM:DD HH:MM:SS), taken as UTC; None where none can be read."""
    try:
        return acquisition_time(dt.datetime.strptime(dataset.tags().get("TIFFTAG_DATETIME", ""), "%Y:%m:%d %H:%M:%S"))
    except ValueError:
        return None


def _requirements(source: FilesSource, shared: Shared) -> list[Requirement]:
    files = files_of(source, shared)
    missing = [path for path in files if not path.is_file()]
    remedy = f"{missing[0]} does not exist" if missing else "no file matches its paths"
    return [Requirement("its files on this machine", met=bool(files) and not missing, remedy=remedy)]


KIND = SourceKind(
    settings=FilesSource,
    version="2",
    reads=lambda source, shared: {"files": [file_stamp(path) for path in files_of(source, shared)]},
    index=index_files,
    open_scene=lambda scene, _source, _cache: RasterReader(scene),
    check_scene=check_unchanged,
    requirements=_requirements,
    check=check_files,
    across_180=True,
)
