"""Scenes of the source kind `files`: georeferenced rasters on this machine, indexed without being copied.

Each mistake that a raster can carry ends here, with the file's name and the command or setting that mends it, so that
later stages meet only scenes that can be read.
"""

from __future__ import annotations

import datetime as dt
import glob
import hashlib
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from skyscript_assets.lib.errors import MissingInputError, SceneError
from skyscript_assets.lib.geometry import Bounds, ground_gsd_m
from skyscript_assets.lib.imagery.raster import open_raster, read_raw
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, write_scenes
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import FilesSource, Settings

ENDS_BYTES = 64 * 1024
"""Bytes from each end of a file that its fingerprint covers."""

PREVIEW_PX = 1024
"""Longer side of the thinned copy from which footprint and percentiles are taken."""

POOL_PX = 4
"""Side of the squares of the thinned copy that count as data as a whole: specks and ragged edges cost much time."""

MAX_UNTHINNED_PIXELS = 1 << 28
"""A raster without overviews is thinned by reading all of it; above this size (268 million pixels) it is not."""

GSD_TOLERANCE = 2.0
"""Factor by which a file's ground sample distance may differ from the source's `gsd_m` before that is a mistake."""

EDGE_POINTS = 32
"""Segments that each side of a raster's outline is divided into before it is transformed."""

MAX_FOOTPRINT_POINTS = 512
"""A ragged footprint with more vertices is replaced by its convex hull."""

Preview = tuple[NDArray[Any], NDArray[np.bool_]] | None
"""Raw values (band, row, column) of a thinned copy and which of its pixels hold data; None where none was made."""


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
    files = _existing_files(key, source, settings.folder)
    scenes: dict[str, Scene] = {}
    outside = without_data = duplicates = 0
    for done, path in enumerate(files, start=1):
        scene = _describe(path, region, key, source)
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
    """The files that a source names, each once, sorted: what its globs match, and its plain paths, existing or not."""
    return sorted({path for pattern in source.paths for path in _matches(pattern, settings.folder)})


def _matches(pattern: str, folder: Path) -> list[Path]:
    """The files that a path or glob of the settings names: `~` is expanded, relative ones start at their folder."""
    wanted = Path(pattern).expanduser()
    plain = folder / wanted
    # A path that exists is meant as it stands, even where its name holds a bracket.
    if plain.is_file() or not glob.has_magic(pattern):
        return [plain.resolve()]
    found = glob.glob(str(Path(glob.escape(str(folder)), wanted)), recursive=True)  # noqa: PTH207 - may be absolute
    return [path.resolve() for match in found if (path := Path(match)).is_file()]


def _existing_files(key: str, source: FilesSource, folder: Path) -> list[Path]:
    """The files that a source names, all of which exist."""
    for pattern in source.paths:
        matches = _matches(pattern, folder)
        if not matches or not matches[0].is_file():
            what = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise MissingInputError(f"sources.yaml: {key}.paths: {folder / Path(pattern).expanduser()} {what}")
    return sorted({path for pattern in source.paths for path in _matches(pattern, folder)})


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


def _describe(path: Path, region: str, key: str, source: FilesSource) -> Scene | None:
    """The scene that a file is, or None where it holds no data at all."""
    with warnings.catch_warnings():
        # rasterio warns about a raster without a georeference; here that is an error with a remedy.
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        with open_raster(path) as dataset:
            _check_bands(dataset, key, source)
            crs = _crs_of(dataset)
            nodata = source.nodata if source.nodata is not None else dataset.nodatavals[source.bands[0] - 1]
            nodata = None if nodata is None or math.isnan(nodata) else float(nodata)
            preview = _preview(dataset, source, nodata)
            if preview is not None and not preview[1].any():
                return None
            low, high = _scaling(dataset, key, source, preview)
            to_wgs84 = Transformer.from_crs(crs, 4326, always_xy=True)
            digest = fingerprint(dataset)
            return Scene(
                scene_id=f"{re.sub(r'[^A-Za-z0-9_.]+', '-', path.stem)[:60]}-{digest[:8]}",
                region=region,
                source=key,
                datetime=_acquired(dataset, key, source),
                footprint=_footprint(dataset, preview, to_wgs84),
                gsd_m=_gsd_m(dataset, crs, to_wgs84, key, source),
                crs=_crs_text(crs),
                transform=tuple(dataset.transform[:6]),
                width=dataset.width,
                height=dataset.height,
                hrefs=(str(path),),
                fingerprint=digest,
                bands=source.bands,
                scale_low=low,
                scale_high=high,
                nodata=nodata,
                licence=source.licence,
                attribution=source.attribution,
            )


def _check_bands(dataset: Any, key: str, source: FilesSource) -> None:
    """Whether the bands that are shown exist, hold plain numbers, and are 8-bit or have a scaling."""
    if max(source.bands) > dataset.count or min(source.bands) < 1:
        raise SceneError(
            f"{dataset.name} has {dataset.count} band{'s' * (dataset.count != 1)}, but sources.yaml: "
            f"{key}.bands asks for {list(source.bands)}: name bands that exist (a grey image: [1, 1, 1]; a "
            "palette image: run `gdal_translate -expand rgb` on it first)"
        )
    kinds = {dataset.dtypes[band - 1] for band in source.bands}
    if any(kind.startswith("complex") for kind in kinds):
        raise SceneError(f"{dataset.name} holds complex numbers, which are no picture: convert it to amplitudes first")
    if kinds != {"uint8"} and source.scaling is None:
        raise SceneError(
            f"{dataset.name} is {', '.join(sorted(kinds))}, not 8-bit: state sources.yaml: {key}.scaling, either "
            "low and high raw values or percentiles such as [2, 98]"
        )


def _crs_of(dataset: Any) -> CRS:
    """The CRS of a georeferenced raster, geographic or projected."""
    if dataset.crs is None:
        control = " (it has ground control points: warp it with `gdalwarp`, or else)" if dataset.gcps[0] else ""
        raise SceneError(
            f"{dataset.name} has no CRS{control}: state it with `gdal_edit.py -a_srs EPSG:<code> {dataset.name}`"
        )
    if dataset.transform.is_identity or dataset.transform.is_degenerate:
        raise SceneError(
            f"{dataset.name} has no georeference: state its corners with "
            f"`gdal_edit.py -a_ullr <left> <top> <right> <bottom> {dataset.name}`"
        )
    crs = CRS.from_user_input(dataset.crs.to_wkt())
    if not (crs.is_geographic or crs.is_projected):
        raise SceneError(
            f"{dataset.name} has the local CRS {crs.name!r}, which cannot be placed on the globe: "
            f"state the true one with `gdal_edit.py -a_srs EPSG:<code> {dataset.name}`"
        )
    return crs


def _crs_text(crs: CRS) -> str:
    """`EPSG:n` where that says all of the CRS, else its WKT."""
    code = crs.to_epsg(min_confidence=100)
    return f"EPSG:{code}" if code is not None else crs.to_wkt()


def _preview(dataset: Any, source: FilesSource, nodata: float | None) -> Preview:
    """Raw values and validity of a thinned copy, or None where thinning would mean to read a very large raster."""
    if not dataset.overviews(source.bands[0]) and dataset.width * dataset.height > MAX_UNTHINNED_PIXELS:
        return None
    scale = min(1.0, PREVIEW_PX / max(dataset.width, dataset.height))
    shape = (math.ceil(dataset.height * scale), math.ceil(dataset.width * scale))
    return read_raw(dataset, source.bands, nodata, shape=shape)


def _scaling(dataset: Any, key: str, source: FilesSource, preview: Preview) -> tuple[float | None, float | None]:
    """The raw values that become 0 and 255, the same for all bands so that the colours keep their balance."""
    scaling = source.scaling
    if scaling is None:
        return None, None
    if scaling.percentiles is None:
        return scaling.low, scaling.high
    if preview is None:
        raise SceneError(
            f"{dataset.name} is too large to take percentiles from without overviews: "
            f"add them with `gdaladdo -r average {dataset.name}`, or state {key}.scaling as low and high"
        )
    raw, valid = preview
    low, high = (float(value) for value in np.percentile(raw[:, valid], scaling.percentiles))
    if not low < high:
        raise SceneError(
            f"{dataset.name}: percentiles {list(scaling.percentiles)} are both {low:g}, so that nothing would be seen: "
            f"state sources.yaml: {key}.scaling as low and high"
        )
    return low, high


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


def _gsd_m(dataset: Any, crs: CRS, to_wgs84: Transformer, key: str, source: FilesSource) -> float:
    """Metres on the ground per pixel at the raster's centre: the root of a pixel's area, where it is not square."""
    _, latitude = to_wgs84.transform(*(dataset.transform @ (dataset.width / 2, dataset.height / 2)))
    gsd = ground_gsd_m(crs, math.sqrt(abs(dataset.transform.determinant)), latitude)
    if not source.gsd_m / GSD_TOLERANCE <= gsd <= source.gsd_m * GSD_TOLERANCE:
        raise SceneError(
            f"{dataset.name} has pixels of {gsd:.3g} m on the ground, but sources.yaml: {key}.gsd_m says "
            f"{source.gsd_m:g}: correct it, or keep files of one resolution to a source"
        )
    return gsd


def _footprint(
    dataset: Any,
    preview: Preview,
    to_wgs84: Transformer,
) -> shapely.Geometry:
    """The ground with data, EPSG:4326: the raster's outline, cut to the valid pixels of its preview."""
    outline = shapely.box(0, 0, dataset.width, dataset.height)
    in_pixels = outline
    if preview is not None and not preview[1].all():
        in_pixels = _valid_outline(preview[1], outline)
    in_pixels = shapely.segmentize(in_pixels, max(dataset.width, dataset.height) / EDGE_POINTS)

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = dataset.transform @ (points[:, 0], points[:, 1])
        return np.column_stack(to_wgs84.transform(x, y))

    footprint = shapely.transform(in_pixels, place)
    west, south, east, north = shapely.bounds(footprint)
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise SceneError(
            f"{dataset.name} does not lie on the globe by its CRS and georeference: correct them with "
            f"`gdal_edit.py -a_srs EPSG:<code> -a_ullr <left> <top> <right> <bottom> {dataset.name}`"
        )
    return shapely.normalize(shapely.make_valid(footprint))


def _valid_outline(valid: NDArray[np.bool_], outline: shapely.Geometry) -> shapely.Geometry:
    """The valid part of a raster in its pixel coordinates, closed over specks and a little too large."""
    from rasterio.features import shapes

    padded = np.pad(valid, [(0, -side % POOL_PX) for side in valid.shape])
    pooled = padded.reshape(padded.shape[0] // POOL_PX, POOL_PX, -1, POOL_PX).any(axis=(1, 3))
    rings = [shape["coordinates"] for shape, _ in shapes(pooled.astype(np.uint8), mask=pooled)]
    area = shapely.union_all([shapely.Polygon(shell, holes) for shell, *holes in rings])
    area = area.buffer(1, join_style="mitre").buffer(-0.75, join_style="mitre").simplify(0.25)
    if shapely.get_num_coordinates(area) > MAX_FOOTPRINT_POINTS:
        area = area.convex_hull
    _, _, width, height = outline.bounds
    step = (POOL_PX * width / valid.shape[1], POOL_PX * height / valid.shape[0])
    return shapely.transform(area, lambda points: points * step).intersection(outline)
