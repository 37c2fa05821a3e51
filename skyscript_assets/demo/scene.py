"""The synthetic source: paint a region's objects into an orthophoto and describe it as a scene.

What is painted, and how, belongs to the `painter` package; here are the files: the picture, its surfaces, the report.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image

from skyscript_assets.demo.painter.block import Painted, paint_block
from skyscript_assets.demo.painter.grid import Grid, make_grid
from skyscript_assets.demo.painter.objects import Counts, read_objects
from skyscript_assets.demo.painter.palette import SURFACE_NAMES
from skyscript_assets.demo.painter.plan import Painting, make_painting
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, SourceKind
from skyscript_assets.lib.progress import Progress, silent

SCENE_FILE = "scene.tif"
SURFACES_FILE = "surfaces.tif"
SURFACE_NAMES_FILE = "surfaces.json"
REPORT_FILE = "painting.json"
OVERVIEW_FILE = "overview.jpg"

PAINTER_VERSION = "1"
"""Raised when the same input would be painted differently: painted scenes, and no others, become stale by it."""

_WORKERS = 2
_AHEAD = 3
"""Blocks painted or waiting to be written at a time."""

_OVERVIEW_PX = 1600


@dataclass(frozen=True)
class PaintingSummary:
    """What a painting came to.

    Attributes:
        scene_id: The scene's name.
        width: Columns.
        height: Rows.
        gsd_m: Side of a pixel, metres.
        crs: `EPSG:n`.
        painted: Objects painted, by role.
        omitted: Objects left out on purpose, by role.
        displaced: Painted objects that were moved, by role.
        unseen: Objects that an orthophoto does not show.
        invented: Painted things that the map lacks, by kind.
        background_crowns: Crowns on mapped and unmapped greenery that stand for no object.
        surface_share: Share of the pixels by surface name.
    """

    scene_id: str
    width: int
    height: int
    gsd_m: float
    crs: str
    painted: dict[str, int]
    omitted: dict[str, int]
    displaced: dict[str, int]
    unseen: int
    invented: dict[str, int]
    background_crowns: int
    surface_share: dict[str, float]


def paint_scene(
    region: str,
    key: str,
    source: SyntheticSource,
    bbox: Bounds,
    objects_path: Path,
    out: Path,
    split_zoom: int = 16,
    progress: Progress = silent,
) -> PaintingSummary:
    """Paint the scene of a region.

    Writes `scene.tif` (uint8 RGB), `surfaces.tif` (uint8 codes in the same grid), `surfaces.json` (code to name),
    `scenes.parquet` (one row), `painting.json` (the report) and `overview.jpg`.

    Args:
        region: Region key.
        key: Source key.
        source: Date, sun, seed, colours, rates and GSD.
        bbox: Ground to paint: (west, south, east, north), EPSG:4326.
        objects_path: `objects.parquet` of the region.
        out: An existing folder.
        split_zoom: Zoom of the Web Mercator cells by which palette and sun vary.
        progress: Told the painted blocks.

    Returns:
        Counts, also in `painting.json`.

    Raises:
        SceneError: the ground is empty or too large for one painting.
        UpstreamMissingError: there is no `objects.parquet`.
        CorruptInputError: it is damaged.
        OutputSchemaError: another version wrote it.
    """
    grid = make_grid(bbox, source.gsd_m, f"{region} x {key}")
    objects, counts = read_objects(objects_path, grid, source.seed, source.omit_share, source.displace_share)
    painting = make_painting(grid, objects, source, split_zoom, bbox)
    scene_id = _scene_id(region, key, source)
    crowns, pixels = _paint(painting, out, scene_id, progress)
    summary = _summary(scene_id, grid, counts, painting, crowns, pixels)
    _write_json(out / SURFACE_NAMES_FILE, {str(code): name for code, name in SURFACE_NAMES.items()})
    _write_json(out / REPORT_FILE, _report(region, key, source, summary))
    write_scenes(out, [_scene(region, key, source, grid, bbox, out / SCENE_FILE)])
    return summary


def _paint(painting: Painting, out: Path, scene_id: str, progress: Progress) -> tuple[int, npt.NDArray[np.int64]]:
    """Paint and write all blocks; returns the crowns and the number of pixels of every surface code."""
    import rasterio
    from rasterio.windows import Window

    grid, crowns, pixels = painting.grid, 0, np.zeros(256, np.int64)
    overview = _Overview(grid)
    windows = list(grid.blocks())
    with ExitStack() as stack:
        picture = stack.enter_context(rasterio.open(out / SCENE_FILE, "w", **_profile(grid, 3)))
        surfaces = stack.enter_context(rasterio.open(out / SURFACES_FILE, "w", **_profile(grid, 1)))
        picture.update_tags(TITLE=f"Synthetic orthophoto {scene_id}, painted from OpenStreetMap; not a photograph")
        for done, (window, painted) in enumerate(_painted(painting, windows), start=1):
            row, col, height, width = (value // grid.supersampling for value in window)
            where = Window(col, row, width, height)
            picture.write(painted.picture, window=where)
            surfaces.write(painted.surfaces, 1, window=where)
            overview.add(painted.picture, row, col)
            pixels += np.bincount(painted.surfaces.ravel(), minlength=256)
            crowns += painted.crowns
            progress(done, len(windows), "blocks")
    overview.write(out / OVERVIEW_FILE)
    return crowns, pixels


def _painted(
    painting: Painting, windows: list[tuple[int, int, int, int]]
) -> Iterator[tuple[tuple[int, int, int, int], Painted]]:
    """Paint blocks on a few threads and give them out in order, with few in memory at a time."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: list[tuple[tuple[int, int, int, int], Future[Painted]]] = []
        for window in windows:
            waiting.append((window, pool.submit(paint_block, painting, window)))
            if len(waiting) >= _AHEAD:
                first, future = waiting.pop(0)
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _profile(grid: Grid, count: int) -> dict[str, Any]:
    from affine import Affine

    return {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": count,
        "dtype": "uint8",
        "crs": grid.crs,
        "transform": Affine(*grid.transform),
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 1,
        "interleave": "pixel",
        "photometric": "rgb" if count == 3 else "minisblack",
    }


class _Overview:
    """A reduced picture for people, gathered block by block: every n-th pixel's neighbourhood, averaged."""

    def __init__(self, grid: Grid) -> None:
        self._step = max(1, -(-max(grid.width, grid.height) // _OVERVIEW_PX))
        rows, cols = -(-grid.height // self._step), -(-grid.width // self._step)
        self._sum = np.zeros((3, rows, cols), np.float64)
        self._count = np.zeros((rows, cols), np.float64)

    def add(self, picture: npt.NDArray[np.uint8], row: int, col: int) -> None:
        step = self._step
        row_starts, rows = _starts(row, picture.shape[1], step)
        col_starts, cols = _starts(col, picture.shape[2], step)
        sums = np.add.reduceat(np.add.reduceat(picture.astype(np.uint32), row_starts, axis=1), col_starts, axis=2)
        at = np.ix_(rows, cols)
        for channel in range(3):
            self._sum[channel][at] += sums[channel]
        heights = np.diff([*row_starts, picture.shape[1]])
        widths = np.diff([*col_starts, picture.shape[2]])
        self._count[at] += np.outer(heights, widths)

    def write(self, path: Path) -> None:
        mean = np.rint(self._sum / np.maximum(self._count, 1)).astype(np.uint8)
        Image.fromarray(np.moveaxis(mean, 0, -1)).save(path, quality=85)


def _starts(first: int, length: int, step: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """(where each overview pixel begins inside a block, which overview pixel it is) along one axis."""
    pixels = np.arange(first, first + length) // step
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    return starts, pixels[starts]


def _summary(
    scene_id: str,
    grid: Grid,
    counts: Counts,
    painting: Painting,
    crowns: int,
    pixels: npt.NDArray[np.int64],
) -> PaintingSummary:
    total = int(pixels.sum())
    return PaintingSummary(
        scene_id=scene_id,
        width=grid.width,
        height=grid.height,
        gsd_m=grid.gsd_m,
        crs=grid.crs,
        painted=_sorted(counts.painted),
        omitted=_sorted(counts.omitted),
        displaced=_sorted(counts.displaced),
        unseen=counts.unseen,
        invented=_sorted(painting.invented),
        background_crowns=crowns,
        surface_share={name: round(int(pixels[code]) / total, 6) for code, name in SURFACE_NAMES.items()},
    )


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    return {name: int(counts[name]) for name in sorted(counts) if counts[name]}


def _report(region: str, key: str, source: SyntheticSource, summary: PaintingSummary) -> dict[str, Any]:
    return {
        "what": "A synthetic orthophoto, painted from OpenStreetMap objects; not a photograph.",
        "painter_version": PAINTER_VERSION,
        "region": region,
        "source": key,
        "settings": source.model_dump(mode="json"),
        **asdict(summary),
    }


def _scene(region: str, key: str, source: SyntheticSource, grid: Grid, bbox: Bounds, picture: Path) -> Scene:
    """The scene; its footprint is the region's box, since the canvas beyond it lacks the objects of the neighbours."""
    when = source.datetime
    if not isinstance(when, dt.datetime):
        when = dt.datetime(when.year, when.month, when.day, 10, tzinfo=dt.UTC)
    when = when.replace(tzinfo=dt.UTC) if when.tzinfo is None else when.astimezone(dt.UTC)
    with picture.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Scene(
        scene_id=_scene_id(region, key, source),
        region=region,
        source=key,
        kind=source.kind,
        datetime=when,
        footprint=shapely.box(*bbox),
        cloud_share=0.0,
        gsd_m=grid.gsd_m,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        hrefs=(picture.name,),
        fingerprint=digest,
        licence=source.licence,
        attribution=source.attribution,
        synthetic=True,
    )


def _scene_id(region: str, key: str, source: SyntheticSource) -> str:
    return f"{region}_{key}_{source.datetime:%Y%m%d}"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=False) + "\n", encoding="utf-8")


def _index(search: Search[SyntheticSource]) -> dict[str, Any]:
    assert search.objects is not None, "a painted source needs the region's objects"
    where = (search.region, search.key, search.source, search.bbox, search.objects, search.out)
    return vars(paint_scene(*where, search.shared.zoom, search.progress))


KIND = SourceKind(
    settings=SyntheticSource,
    version=PAINTER_VERSION,
    reads=lambda _source, shared: {"zoom": shared.zoom},
    index=_index,
    open_scene=lambda scene, _source, _cache: RasterReader(scene),
    needs_objects=True,
)
