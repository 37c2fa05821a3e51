"""The offset of each scene: well-spread windows with many outlines, matched, and the verdict on what they say.

`outlines` knows what should have edges and `match` how well they fit; here are the windows, their reading, the rules by
which a shift is believed, and the table, to which a killed run comes back.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import shapely
from pyproj.exceptions import CRSError

from skyscript_assets.lib.arrays import FloatArray
from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.geometry import from_lonlat, metres_per_degree
from skyscript_assets.lib.imagery.reader import GeoBox, Pixels, SceneReader
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.parts import Parts
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.registration.figure import FIGURE_FILE, draw_scenes, scenes_to_draw
from skyscript_assets.lib.registration.match import Consensus, Rgb, consensus, draw, edge_field, surface
from skyscript_assets.lib.registration.outlines import Frame, Outlines, read_outlines
from skyscript_assets.lib.registration.shift import OFFSET_SCHEMA, OFFSETS_FILE, Shift, move
from skyscript_assets.lib.settings.plant import OffsetSettings
from skyscript_assets.lib.tables import rows_to_table, write_table

FINEST_M = 0.3
"""Finer scenes are averaged up to this before they are matched, metres: maps are no sharper."""

MIN_SEARCH_PX, MAX_SEARCH_PX = 4, 192
"""Search radius in pixels matched on. Below the least, a peak cannot be told from what is around it; scenes that would
need more than the greatest are averaged."""

MIN_WINDOW_PX, MAX_WINDOW_PX = 96, 256
"""Side of the ground whose outlines a window matches, in pixels matched on; the search radius comes on top."""

MAX_READ_SIDE_PX = 3_800
"""Greatest side of a window in the scene's own pixels: turned by 45 degrees it still can be read at once."""

MIN_WINDOWS = 5
"""Least windows with outlines and pixels: halves of fewer say nothing."""

RICH_WINDOW = 6.0
"""Edges longer than this, in sides of the window, make it no better."""

TOLERANCE_M, TOLERANCE_PX = 1.0, 1.5
"""Shifts agree that differ by no more than the greater of the two: maps are true to about a metre, peaks to a pixel."""

Status = Literal["estimated", "too-few-objects", "disagree", "unresolved"]
OpenScene = Callable[[Scene], SceneReader]


@dataclass(frozen=True)
class Resolution:
    """What a scene is matched on.

    Attributes:
        factor: Pixels of the scene that are averaged, in each direction.
        pixel_m: Side of a pixel matched on, metres.
        radius_px: Search radius, pixels matched on.
        window_px: Side of the ground whose outlines a window matches, pixels matched on.
    """

    factor: int
    pixel_m: float
    radius_px: int
    window_px: int

    @property
    def side_px(self) -> int:
        """Side of a window that is read, pixels matched on."""
        return self.window_px + 2 * self.radius_px


@dataclass(frozen=True)
class SceneOffset:
    """What was found for a scene: see `shift.OFFSET_SCHEMA`. `best` is the best shift, believed or not."""

    scene_id: str
    status: Status
    resolution_m: float
    windows_tried: int = 0
    windows_used: int = 0
    confidence: float = 0.0
    spread_m: float | None = None
    peak_ratio: float | None = None
    best: Shift | None = None
    best_px: tuple[float, float] | None = None
    windows: Sequence[Mapping[str, Any]] = ()

    def row(self) -> dict[str, Any]:
        """The row of the table."""
        found = asdict(self)
        best, best_px = found.pop("best"), found.pop("best_px")
        shift = (*best, *best_px) if self.status == "estimated" else [None] * 4
        named = dict(zip(("dx_m", "dy_m", "dx_px", "dy_px"), shift, strict=True))
        return found | named | {"windows": list(self.windows)}


def write_offsets(
    scenes_folder: Path,
    objects_path: Path,
    settings: OffsetSettings,
    out: Path,
    progress: Progress = silent,
    *,
    open_scene: OpenScene,
) -> dict[str, Any]:
    """Estimate the offset of every scene of a source over a region: writes `offsets.parquet`.

    Scenes that an earlier run with the same inputs did in the folder are kept.

    Returns:
        Numbers of `scenes`, by `status`, and of those `kept` that an earlier, killed run had done; `median_shift_m`:
            median length of the estimated shifts, metres, None where there is none.

    Raises:
        UpstreamMissingError: an input table is missing.
        MissingInputError: a scene's image is gone.
        CorruptInputError: an input table is broken, or an image cannot be opened.
        SceneError: an image is not the one that was indexed, or its CRS cannot be read.
    """
    scenes = read_scenes(scenes_folder)
    parts = Parts(out)
    waiting = [(i, scene) for i, scene in enumerate(scenes) if not parts.keep(i, scene.scene_id)]
    kept = len(scenes) - len(waiting)
    outlines = read_outlines(objects_path) if scenes else Outlines.of((), ())
    for done, (i, scene) in enumerate(waiting, start=kept + 1):
        row = estimate_scene(open_scene(scene), outlines, settings).row()
        parts.finish(i, scene.scene_id, rows_to_table([row], OFFSET_SCHEMA))
        progress(done, len(scenes), "scenes")
    rows = [row for table in parts.tables() for row in table.to_pylist()]
    write_table(out / OFFSETS_FILE, rows_to_table(rows, OFFSET_SCHEMA))
    if drawn := scenes_to_draw(rows):
        by_id = {scene.scene_id: scene for scene in scenes}
        draw_scenes([(row, open_scene(by_id[row["scene_id"]])) for row in drawn], outlines, out / FIGURE_FILE)
    parts.clear()
    lengths = [math.hypot(row["dx_m"], row["dy_m"]) for row in rows if row["dx_m"] is not None]
    return {
        "scenes": len(scenes),
        "status": dict(sorted(Counter(row["status"] for row in rows).items())),
        "kept": kept,
        "median_shift_m": round(float(np.median(lengths)), 3) if lengths else None,
    }


def estimate_scene(reader: SceneReader, outlines: Outlines, settings: OffsetSettings) -> SceneOffset:
    """Estimate the offset of one scene, whose reader is not yet entered.

    Raises:
        MissingInputError: the image is gone.
        CorruptInputError: it cannot be opened.
        SceneError: it is not the one that was indexed, or its CRS cannot be read.
    """
    scene = reader.scene
    resolution = resolution_of(scene, settings)
    unknown = SceneOffset(scene.scene_id, "unresolved", round(resolution.pixel_m / 2, 4))
    if resolution.radius_px < MIN_SEARCH_PX or resolution.window_px < MIN_WINDOW_PX // 2:
        return unknown
    side_m = resolution.window_px * resolution.pixel_m
    frames = [Frame.at(*place) for place in choose_windows(scene, outlines.lengths, side_m, settings.windows)]
    matched: list[tuple[Frame, FloatArray]] = []
    if len(frames) >= MIN_WINDOWS:
        with reader:
            for index, pixels in reader.read_many([window_of(frame, resolution) for frame in frames]):
                if isinstance(pixels, CorruptInputError):
                    continue
                outline = outline_of(outlines, frames[index], resolution)
                fit = surface(*edge_field(*average(pixels, resolution.factor)), outline, resolution.radius_px)
                if fit is not None:
                    matched.append((frames[index], fit))
    if len(matched) < MIN_WINDOWS:
        return SceneOffset(scene.scene_id, "too-few-objects", unknown.resolution_m, windows_tried=len(frames))
    used, surfaces = zip(*matched, strict=True)
    agreed = consensus(np.stack(surfaces), max(TOLERANCE_PX, TOLERANCE_M / resolution.pixel_m))
    return _verdict(scene, resolution, used, len(frames), agreed, settings.min_confidence)


def resolution_of(scene: Scene, settings: OffsetSettings) -> Resolution:
    """What a scene is matched on: its own pixels or about `FINEST_M`, in windows that a small scene has enough of."""
    gsd_m = scene.gsd_m
    finest = int(FINEST_M / gsd_m + 0.01)
    factor = max(1, finest, math.ceil(settings.search_radius_m / (gsd_m * MAX_SEARCH_PX)))
    pixel_m = factor * gsd_m
    radius_px = int(settings.search_radius_m / pixel_m)
    per_lon, per_lat = metres_per_degree((scene.bounds[1] + scene.bounds[3]) / 2)
    area_m2 = float(shapely.area(scene.footprint)) * per_lon * per_lat
    side_px = math.sqrt(area_m2 / settings.windows) / pixel_m
    readable = MAX_READ_SIDE_PX // factor - 2 * radius_px
    return Resolution(factor, pixel_m, radius_px, int(min(max(side_px, MIN_WINDOW_PX), MAX_WINDOW_PX, readable)))


def choose_windows(
    scene: Scene, lengths: tuple[FloatArray, FloatArray], side_m: float, most: int
) -> list[tuple[float, float]]:
    """Centres (longitude, latitude) of windows with long edges, spread over the scene, the best of each square first.

    At most `most` of them, `side_m` metres a side, by `Outlines.lengths`.
    """
    middle, length = lengths
    west, south, east, north = scene.bounds
    step = side_m / np.array(metres_per_degree((south + north) / 2))
    near = ((middle >= (west, south)) & (middle <= (east, north))).all(axis=1)
    cells, of_cell = np.unique(
        np.floor((middle[near] - (west, south)) / step).astype(np.int64), axis=0, return_inverse=True
    )
    total = np.minimum(np.bincount(of_cell.ravel(), length[near], len(cells)) / side_m, RICH_WINDOW)
    centres = (west, south) + (cells + 0.5) * step
    kept = (total >= 1.0) & shapely.intersects_xy(scene.footprint, centres[:, 0], centres[:, 1])
    cells, total, centres = cells[kept], total[kept], centres[kept]
    if len(cells) == 0:
        return []
    first, last = cells.min(axis=0), cells.max(axis=0)
    squares = (cells - first) * math.ceil(math.sqrt(most)) // (last - first + 1)
    by_square = np.lexsort((cells[:, 0], cells[:, 1], -total, squares[:, 0], squares[:, 1]))
    opens = np.ones(len(cells), dtype=bool)
    opens[1:] = (squares[by_square][1:] != squares[by_square][:-1]).any(axis=1)
    starts = np.flatnonzero(opens)
    turn = np.arange(len(cells)) - starts[np.cumsum(opens) - 1]
    order = by_square[np.lexsort((-total[by_square], turn))]
    return [(float(lon), float(lat)) for lon, lat in centres[order[:most]]]


def window_of(frame: Frame, resolution: Resolution) -> GeoBox:
    """The window of a frame in pixels of the scene's GSD."""
    side = resolution.side_px * resolution.factor
    step = resolution.pixel_m / resolution.factor
    return GeoBox(frame.crs, (step, 0.0, -side * step / 2, 0.0, -step, side * step / 2), side, side)


def average(pixels: Pixels, factor: int) -> tuple[Rgb, npt.NDArray[np.bool_]]:
    """Means of `factor` x `factor` pixels, (rows, columns, 3), and where all of them hold data."""
    rows, columns = pixels.valid.shape[0] // factor, pixels.valid.shape[1] // factor
    shape = (rows, factor, columns, factor)
    means = pixels.rgb.reshape(*shape, 3).mean(axis=(1, 3), dtype=np.float32)
    return means, np.asarray(pixels.valid.reshape(shape).all(axis=(1, 3)))


def outline_of(outlines: Outlines, frame: Frame, resolution: Resolution) -> npt.NDArray[np.complex64]:
    """The edges of a window's ground as a picture."""
    middle = resolution.window_px / 2
    segments = outlines.segments(frame, resolution.window_px * resolution.pixel_m / 2)
    to_pixels = np.array([1.0, -1.0]) / resolution.pixel_m
    start, end = (places * to_pixels + middle for places in (segments.start, segments.end))
    return draw(start, end, segments.weight, resolution.window_px)


def _verdict(
    scene: Scene, resolution: Resolution, frames: Sequence[Frame], tried: int, agreed: Consensus, least: float
) -> SceneOffset:
    pixel_m = resolution.pixel_m
    confidence = round(_confidence(agreed), 4)
    shift = (round(float(agreed.dx) * pixel_m, 3), round(-float(agreed.dy) * pixel_m, 3))
    middle = np.mean([(frame.longitude, frame.latitude) for frame in frames], axis=0)
    used = int(agreed.used.sum())
    return SceneOffset(
        scene_id=scene.scene_id,
        status="estimated" if confidence >= least else "disagree",
        resolution_m=round(pixel_m / 2, 4),
        windows_tried=tried,
        windows_used=used,
        confidence=confidence,
        spread_m=round(agreed.spread_px * pixel_m, 3) if used else None,
        peak_ratio=round(agreed.peak_ratio, 4),
        best=shift,
        best_px=_in_pixels(scene, middle, shift),
        windows=[
            {
                "lon": round(frame.longitude, 7),
                "lat": round(frame.latitude, 7),
                "dx_m": round(float(dx) * pixel_m, 3),
                "dy_m": round(-float(dy) * pixel_m, 3),
                "used": bool(one),
            }
            for frame, (dx, dy), one in zip(frames, agreed.own, agreed.used, strict=True)
        ],
    )


def _confidence(agreed: Consensus) -> float:
    """How far a shift may be believed, 0..1.

    If half of the windows find the shift with a probability p, two halves agree with p squared: the root of the share
    of agreeing halves estimates p. It is lessened where another peak is more than half as high as the best, and 0 where
    the best shift lies on the border of what was searched, since the true one may lie beyond.
    """
    if agreed.on_border or not agreed.used.any():
        return 0.0
    return math.sqrt(agreed.halves) * min(1.0, 2.0 * (1.0 - agreed.peak_ratio))


def _in_pixels(scene: Scene, lonlat: FloatArray, shift: Shift) -> tuple[float, float]:
    """A shift at a place in columns and rows of the scene."""
    try:
        to_crs = from_lonlat(scene.crs)
    except CRSError as error:
        raise SceneError(f"scene {scene.scene_id}: its CRS {scene.crs[:80]!r} cannot be read ({error})") from error
    places = np.vstack([lonlat, move(lonlat[np.newaxis], shift)])
    (x0, x1), (y0, y1) = to_crs.transform(places[:, 0], places[:, 1])
    a, b, _, d, e, _ = scene.transform
    column, row = np.linalg.solve(np.array([[a, b], [d, e]]), np.array([x1 - x0, y1 - y0]))
    return round(float(column), 3), round(float(row), 3)
