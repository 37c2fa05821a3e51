"""The synthetic source: paint a region's objects into an orthophoto and describe it as a scene.

What is painted, and how, belongs to the `painter` package; here are the files: the picture, its surfaces, the report.
"""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import shapely
from PIL import Image

from skyscript_assets.demo.painter.grid import FILE_TILE_PX, Grid, make_grid
from skyscript_assets.demo.painter.looks import SURFACE_NAMES
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.files import file_sha256, picture_file, write_json
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, write_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, SourceKind
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.progress import Progress

if TYPE_CHECKING:
    from skyscript_assets.demo.painter.painting import Painting

SCENE_FILE = "scene.tif"
SURFACES_FILE = "surfaces.tif"
SURFACE_NAMES_FILE = "surfaces.json"
REPORT_FILE = "painting.json"
OVERVIEW_FILE = "overview.jpg"

PAINTER_VERSION = "3"
"""Raised when the same input would be painted differently: painted scenes, and no others, become stale by it."""

_THREADS, _OVERVIEW_PX = 2, 1600


def paint_scene(search: Search[SyntheticSource]) -> dict[str, Any]:
    """Paint the scene of a region; palette and sun vary by the Web Mercator cells of the split.

    Writes `scene.tif` (uint8 RGB), `surfaces.tif` (uint8 codes in the same grid), `surfaces.json` (code to name),
    `scenes.parquet` (one row), `painting.json` (the report) and `overview.jpg`.

    Returns:
        What is also in `painting.json`: scene id, columns, rows, metres a pixel, `EPSG:n`, and counts: objects painted,
        left out on purpose, and painted but moved, by role; those that an orthophoto does not show; things that the map
        lacks, by kind; crowns that stand for no object; share of the pixels by surface name.

    Raises:
        SceneError: the ground is empty or too large for one painting; and what `read_objects` raises.
    """
    from skyscript_assets.demo.painter.objects import read_objects
    from skyscript_assets.demo.painter.painting import make_painting

    assert search.objects is not None, "a painted source needs the region's objects"
    source, out = search.source, search.out
    grid = make_grid(search.bbox, source.gsd_m, f"{search.region} x {search.key}")
    objects, counts = read_objects(search.objects, grid, source.seed, source.omit_share, source.displace_share)
    painting = make_painting(grid, objects, source, search.shared.zoom, search.bbox)
    scene_id = f"{search.region}_{search.key}_{source.datetime:%Y%m%d}"
    crowns, pixels = _paint(painting, out, scene_id, search.progress)
    summary = {
        "scene_id": scene_id,
        "width": grid.width,
        "height": grid.height,
        "gsd_m": grid.gsd_m,
        "crs": f"EPSG:{grid.epsg}",
        "painted": dict(+counts.painted),
        "omitted": dict(+counts.omitted),
        "displaced": dict(+counts.displaced),
        "unseen": counts.unseen,
        "invented": dict(+painting.made),
        "background_crowns": crowns,
        "surface_share": {
            name: round(int(pixels[code]) / int(pixels.sum()), 6) for code, name in SURFACE_NAMES.items()
        },
    }
    what = "A synthetic orthophoto, painted from OpenStreetMap objects; not a photograph."
    origin = {"region": search.region, "source": search.key, "settings": source.model_dump(mode="json")}
    report = {"what": what, "painter_version": PAINTER_VERSION} | origin | summary
    write_json(out / REPORT_FILE, report)
    write_json(out / SURFACE_NAMES_FILE, {str(code): name for code, name in SURFACE_NAMES.items()})
    write_scenes(out, [_scene(search, grid, scene_id)])
    return summary


def _paint(painting: Painting, out: Path, scene_id: str, progress: Progress) -> tuple[int, npt.NDArray[np.int64]]:
    """Paint and write all blocks; returns the crowns and the number of pixels of every surface code."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    from skyscript_assets.demo.painter.painting import paint_block

    grid, crowns, pixels = painting.grid, 0, np.zeros(256, np.int64)
    windows = list(grid.blocks())
    for name in (SCENE_FILE, SURFACES_FILE):  # half a file of a run that was ended: GDAL would read it before replacing
        (out / name).unlink(missing_ok=True)
    with ExitStack() as stack:
        picture = stack.enter_context(rasterio.open(out / SCENE_FILE, "w", **_profile(grid, 3)))
        surfaces = stack.enter_context(rasterio.open(out / SURFACES_FILE, "w", **_profile(grid, 1)))
        picture.update_tags(TITLE=f"Synthetic orthophoto {scene_id}, painted from OpenStreetMap; not a photograph")
        blocks = in_order(partial(paint_block, painting), windows, threads=_THREADS)
        for done, (window, painted) in enumerate(zip(windows, blocks, strict=True), start=1):
            colours, codes, standing = painted
            row, col, height, width = (value // grid.supersampling for value in window)
            where = Window(col, row, width, height)
            picture.write(colours, window=where)
            surfaces.write(codes, 1, window=where)
            pixels += np.bincount(codes.ravel(), minlength=256)
            crowns += standing
            progress(done, len(windows), "blocks")
    step = max(1.0, max(grid.width, grid.height) / _OVERVIEW_PX)
    # A disk that is full when a file is closed raises nothing: both are read whole, the picture for its overview.
    with rasterio.open(out / SURFACES_FILE) as surfaces:
        for _, window in surfaces.block_windows(1):
            surfaces.read(1, window=window)
    with rasterio.open(out / SCENE_FILE) as scene:
        shape = (3, max(1, round(grid.height / step)), max(1, round(grid.width / step)))
        overview = scene.read(out_shape=shape, resampling=Resampling.average)
    with picture_file(out / OVERVIEW_FILE) as buffer:
        Image.fromarray(np.moveaxis(overview, 0, -1)).save(buffer, format="JPEG", quality=85)
    return crowns, pixels


_TILED = {"driver": "GTiff", "dtype": "uint8", "tiled": True, "blockxsize": FILE_TILE_PX, "blockysize": FILE_TILE_PX}
_DEFLATED = {"compress": "deflate", "predictor": 2, "zlevel": 1, "interleave": "pixel"}


def _profile(grid: Grid, bands: int) -> dict[str, Any]:
    from affine import Affine

    size = {"width": grid.width, "height": grid.height, "count": bands}
    place = {"crs": f"EPSG:{grid.epsg}", "transform": Affine(*grid.transform)}
    return _TILED | _DEFLATED | size | place | {"photometric": "rgb" if bands == 3 else "minisblack"}


def _scene(search: Search[SyntheticSource], grid: Grid, scene_id: str) -> Scene:
    """The scene; its footprint is the region's box, since the canvas beyond it lacks the objects of the neighbours."""
    when = search.source.datetime
    when = when if isinstance(when, dt.datetime) else dt.datetime.combine(when, dt.time(10))
    return search.scene(
        scene_id=scene_id,
        datetime=acquisition_time(when),
        footprint=shapely.box(*search.bbox),
        cloud_share=0.0,
        gsd_m=grid.gsd_m,
        crs=f"EPSG:{grid.epsg}",
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        hrefs=(SCENE_FILE,),
        fingerprint=file_sha256(search.out / SCENE_FILE),
        synthetic=True,
    )


KIND = SourceKind(
    settings=SyntheticSource,
    version=PAINTER_VERSION,
    reads=lambda _source, shared: {"zoom": shared.zoom},
    index=paint_scene,
    open_scene=lambda scene, _source, _cache: RasterReader(scene),
    needs_objects=True,
)
