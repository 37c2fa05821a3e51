"""The ground-cover benchmark: fixed square windows of synthetic scenes, and the classes that visibly cover them.

Every window of a source has the same size, lies on a regular grid inside one Web Mercator cell of the split, and is cut
without regard to any object: neither its size nor its place tells what it shows. Truth comes from the painter's own map
of surfaces. How windows are scored belongs to `evaluate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from pydantic import Field
from pyproj import Transformer

from skyscript_assets.demo.scene import SURFACE_NAMES_FILE, SURFACES_FILE
from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.benchmarks.items import BenchmarkClass, ItemsWriter, open_items
from skyscript_assets.lib.benchmarks.kind import BenchmarkKind
from skyscript_assets.lib.errors import CorruptInputError, SceneError, SettingsError, TooLittleDataError
from skyscript_assets.lib.geometry import cell_bounds, cell_of, cells_of_bounds, split_of_cell, unit_hash
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import Model, Share, SourceKey
from skyscript_assets.lib.settings.benchmarks import BenchmarkBase

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MAX_NODATA_SHARE = 0.05
"""A window with a larger share of pixels without data is left out."""

JPEG_QUALITY = 95
"""Quality of the windows' JPEG files, without chroma subsampling."""

STATEMENT = (
    "Synthetic imagery: every window is painted from OpenStreetMap objects and is no photograph. "
    "The figures say how well a model reads this painter, not how well it reads the Earth."
)

CODES = 256
"""Number of codes that a uint8 map of surfaces can hold."""


@dataclass(frozen=True)
class Window:
    """A window's place: row and column in its cell's grid, and its top left pixel in the scene."""

    row: int
    col: int
    x: int
    y: int


Cut = tuple[Window, NDArray[np.uint8], NDArray[np.float64]]
"""A window with its pixels [size, size, 3] and the share of it that each class covers."""


class CoverClass(Model):
    """One class of the ground-cover benchmark."""

    text: str = Field(description="Words that stand for the class in a prompt.")
    surfaces: tuple[str, ...] = Field(min_length=1, description="The painter's surfaces that make up the class.")


class GroundCoverBenchmark(BenchmarkBase):
    """Fixed windows of synthetic scenes: which visible classes cover a share of the window?"""

    kind: Literal["ground-cover"] = "ground-cover"
    sources: tuple[SourceKey, ...] = Field(min_length=1, description="Synthetic sources whose scenes are cut.")
    window_px: int = Field(128, ge=32, description="Side of a window, pixels.")
    min_share: Share = Field(0.05, description="A class is true where it covers this share of the window or more.")
    windows_per_cell: int | None = Field(
        None, ge=1, description="Most windows of a cell and source, drawn by hash; default: all that fit."
    )
    classes: dict[str, CoverClass] = Field(min_length=2, description="Classes by name.")

    @property
    def cut_from(self) -> tuple[SourceKey, ...]:
        """The synthetic sources."""
        return self.sources


def build_ground_cover(
    benchmark: GroundCoverBenchmark,
    scenes: Mapping[tuple[str, str], Path],
    split_zoom: int,
    out: Path,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Cut the windows of every split and write `items.parquet` and `benchmark.json`.

    Windows of train cells teach the control classifiers; windows of test cells are scored. `scenes` are `scene_index`
    folders by (region, source).

    Raises:
        SettingsError: a source is not synthetic, a class names an unknown surface.
        SceneError: a scene cannot be read or is not north-up.
        CorruptInputError: a folder's surfaces do not fit its scene.
        TooLittleDataError: no window was found in the test cells.
    """
    wanted = [scenes[pair] for pair in sorted(scenes) if pair[1] in benchmark.sources]
    skipped = {"empty scene": 0, "no data": 0}
    found: set[str] = set()
    with open_items(out) as items:
        for done, folder in enumerate(wanted):
            progress(done, len(wanted), "scenes")
            scene = _only_scene(folder)
            if scene is None:
                skipped["empty scene"] += 1
                continue
            names = _surface_names(folder)
            found |= set(names.values())
            skipped["no data"] += _cut_scene(benchmark, scene, names, split_zoom, items)
        progress(len(wanted), len(wanted), "scenes")
    _check_surfaces(benchmark, found)
    summary = items.summary({reason: n for reason, n in skipped.items() if n}, synthetic=True)
    if not items.items["test"]:
        raise TooLittleDataError(
            f"benchmark {benchmark.title!r}: no window of {benchmark.window_px} px lies wholly inside a test cell "
            f"(zoom {split_zoom}) of its scenes; choose smaller windows, a lower zoom or larger regions"
        )
    items.describe(
        benchmark,
        out,
        synthetic=True,
        statement=STATEMENT,
        licence="ODbL-1.0",
        classes=tuple(BenchmarkClass(name=name, text=cls.text) for name, cls in benchmark.classes.items()),
        window_px=benchmark.window_px,
        min_share=benchmark.min_share,
        split_zoom=split_zoom,
    )
    return summary


def _only_scene(folder: Path) -> Scene | None:
    """The scene of a folder, or None where it is explicitly empty."""
    scenes = read_scenes(folder)
    if not scenes:
        return None
    if len(scenes) > 1 or not scenes[0].synthetic:
        raise SettingsError(
            f"a ground-cover benchmark needs synthetic sources with one scene a region; {folder} holds "
            f"{len(scenes)} of source {scenes[0].source!r}: name other sources in benchmarks.yaml"
        )
    return scenes[0]


def _surface_names(folder: Path) -> dict[int, str]:
    """Surface names by code."""
    path = folder / SURFACE_NAMES_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        names = {int(code): str(name) for code, name in raw.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CorruptInputError(
            f"{path} is not a JSON object of code and name ({error}); make the scene again"
        ) from None
    if not all(0 <= code < CODES for code in names):
        raise CorruptInputError(f"{path}: codes must lie in 0..255; make the scene again")
    return names


def _check_surfaces(benchmark: GroundCoverBenchmark, found: set[str]) -> None:
    for name, cls in benchmark.classes.items():
        unknown = sorted(set(cls.surfaces) - found)
        if found and unknown:
            raise SettingsError(
                f"benchmark {benchmark.title!r}: class {name!r} names unknown surfaces {', '.join(unknown)}; "
                f"known are {', '.join(sorted(found))}"
            )


def _cut_scene(
    benchmark: GroundCoverBenchmark, scene: Scene, names: Mapping[int, str], zoom: int, items: ItemsWriter
) -> int:
    """Add the windows of a scene to the items; returns how many lacked data."""
    import rasterio
    from rasterio.errors import RasterioError

    member = np.array(
        [[names.get(code) in cls.surfaces for cls in benchmark.classes.values()] for code in range(CODES)]
    )
    unknown = np.array([code not in names for code in range(CODES)])
    without_data = 0
    try:
        with rasterio.open(scene.path) as image, rasterio.open(scene.folder / SURFACES_FILE) as surfaces:
            _check_grid(scene, image, surfaces)
            for cell in cells_of_bounds(scene.bounds, zoom):
                windows = cell_windows(scene, cell, zoom, benchmark.window_px)
                kept = list(_read_windows(image, surfaces, windows, benchmark.window_px, unknown, member))
                without_data += len(windows) - len(kept)
                for cut in _draw(scene, cell, kept, benchmark.windows_per_cell):
                    items.add(_row(benchmark, scene, cell, cut))
    except RasterioError as error:
        raise SceneError(
            f"{scene.path} or its {SURFACES_FILE} cannot be read ({error}); make the scene again"
        ) from error
    return without_data


def _check_grid(scene: Scene, image: DatasetReader, surfaces: DatasetReader) -> None:
    grid = (image.width, image.height, image.transform)
    if (surfaces.width, surfaces.height, surfaces.transform) != grid or surfaces.dtypes[0] != "uint8":
        raise CorruptInputError(f"{scene.folder / SURFACES_FILE} does not lie on the grid of {scene.path.name}")
    stated = (scene.width, scene.height, scene.transform)
    if (
        stated != (image.width, image.height, tuple(image.transform)[:6])
        or image.count < 3
        or set(image.dtypes[:3]) != {"uint8"}
    ):
        raise CorruptInputError(f"{scene.path} is not the 8-bit RGB scene that scenes.parquet states; make it again")
    if image.transform.b or image.transform.d or image.transform.a <= 0 or image.transform.e >= 0:
        raise SceneError(f"{scene.path} is not north-up: windows cannot be laid on its grid")


def cell_windows(scene: Scene, cell: tuple[int, int], zoom: int, size: int) -> list[Window]:
    """The regular grid of windows of `size` pixels a side inside one cell (x, y) of a zoom, centred in it, row by row.

    A cell is a slightly turned square in the CRS of the scene, which is north-up; the grid fills the largest upright
    rectangle between its corners, one pixel inside. Windows that reach past the scene, or whose corners are not in the
    cell, are left out.
    """
    west, south, east, north = cell_bounds(*cell, zoom)
    to_scene = Transformer.from_crs("EPSG:4326", scene.crs, always_xy=True)
    xs, ys = to_scene.transform(np.array([west, east, east, west]), np.array([north, north, south, south]))
    a, _, c, _, e, f = scene.transform
    nw, ne, se, sw = zip((xs - c) / a, (ys - f) / e, strict=True)
    left, right = max(nw[0], sw[0]) + 1, min(ne[0], se[0]) - 1
    top, bottom = max(nw[1], ne[1]) + 1, min(sw[1], se[1]) - 1
    cols, rows = int((right - left) // size), int((bottom - top) // size)
    x0 = int(np.ceil(left + (right - left - cols * size) / 2))
    y0 = int(np.ceil(top + (bottom - top - rows * size) / 2))
    windows = [Window(row, col, x0 + col * size, y0 + row * size) for row in range(rows) for col in range(cols)]
    inside = [w for w in windows if 0 <= w.x <= scene.width - size and 0 <= w.y <= scene.height - size]
    corners = np.array([[(w.x + dx, w.y + dy) for dx in (0, size) for dy in (0, size)] for w in inside])
    if not inside:
        return []
    places = to_scene.transform(a * corners[..., 0] + c, e * corners[..., 1] + f, direction="INVERSE")
    return [
        window
        for window, lons, lats in zip(inside, *places, strict=True)
        if {cell_of(lon, lat, zoom) for lon, lat in zip(lons, lats, strict=True)} == {cell}
    ]


def _read_windows(
    image: DatasetReader,
    surfaces: DatasetReader,
    windows: Sequence[Window],
    size: int,
    unknown: BoolArray,
    member: BoolArray,
) -> Iterator[Cut]:
    """The windows of a cell that have data, by one read for all; `unknown` codes [256] mean none.

    `member` says which codes belong to which class, [256, classes].
    """
    if not windows:
        return
    x0, y0 = windows[0].x, windows[0].y
    area = ((y0, windows[-1].y + size), (x0, windows[-1].x + size))
    rgb = np.moveaxis(image.read((1, 2, 3), window=area), 0, -1)
    empty = image.dataset_mask(window=area) == 0
    codes = surfaces.read(1, window=area)
    for window in windows:
        place = np.s_[window.y - y0 : window.y - y0 + size, window.x - x0 : window.x - x0 + size]
        share = np.bincount(codes[place].ravel(), minlength=CODES) / size**2
        if max(share[unknown].sum(), empty[place].mean()) <= MAX_NODATA_SHARE:
            yield window, np.ascontiguousarray(rgb[place]), share @ member


def _draw(scene: Scene, cell: tuple[int, int], cuts: list[Cut], limit: int | None) -> list[Cut]:
    """At most `limit` windows of a cell, chosen by a hash of their place, in the order of the grid."""
    order = sorted(cuts, key=lambda cut: unit_hash("window", scene.region, scene.source, *cell, cut[0].row, cut[0].col))
    return sorted(order[:limit], key=lambda cut: (cut[0].row, cut[0].col))


def _row(benchmark: GroundCoverBenchmark, scene: Scene, cell: tuple[int, int], cut: Cut) -> dict[str, Any]:
    (x, y), (window, rgb, shares) = cell, cut
    return {
        "item_id": f"{scene.region}_{scene.source}_{x}_{y}_{window.row}_{window.col}",
        "image": simplejpeg.encode_jpeg(rgb, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"),
        "label": None,
        "truth": [name for name, share in zip(benchmark.classes, shares, strict=True) if share >= benchmark.min_share],
        "region": scene.region,
        "source": scene.source,
        "gsd_m": scene.gsd_m,
        "cell": f"{x}/{y}",
        "split": split_of_cell(x, y),
        "width": benchmark.window_px,
        "height": benchmark.window_px,
    }


KIND = BenchmarkKind(
    settings=GroundCoverBenchmark,
    reads=lambda _benchmark, shared: {"zoom": shared.zoom},
    build=lambda benchmark, shared, inputs, out, progress: build_ground_cover(
        benchmark, inputs["scene_index"], shared.zoom, out, progress
    ),
    made_of=("scene_index",),
    labels="many",
)
