"""The picture of offsets: a window of some scenes, with OSM's outlines as they are mapped and as they are moved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image, ImageDraw, ImageFont

from skyscript_assets.lib.files import picture_file
from skyscript_assets.lib.geometry import metres_per_degree
from skyscript_assets.lib.imagery.reader import GeoBox, SceneReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.registration.outlines import ROAD_WEIGHT, Frame, Outlines, Segments

FIGURE_FILE = "offsets.jpg"

SCENES = 3
"""Most scenes on the picture: the surest of those that were estimated."""

SIDE_PX, LEAST_GROUND_PX, GROUND_M = 320, 100, 60.0
"""Side of a crop on the picture, and of the ground it shows: metres, but no fewer pixels of the scene than given."""

QUALITIES = (85, 70, 50, 35)
"""JPEG qualities tried, the best first, until the picture is small enough."""

MAX_BYTES = 140_000
"""Greatest size of the picture: an event log carries it."""

_LINE_PX, _GAP_PX, _HALO, _INK = 2, 6, (0, 0, 0), (255, 214, 10)


def scenes_to_draw(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of `offsets.parquet` that are drawn."""
    estimated = [row for row in rows if row["status"] == "estimated"]
    return sorted(estimated, key=lambda row: (-row["confidence"], row["scene_id"]))[:SCENES]


def draw_scenes(drawn: Sequence[tuple[Mapping[str, Any], SceneReader]], outlines: Outlines, path: Path) -> None:
    """Draw a row for each scene, outlines as mapped on the left and as moved on the right, into a JPEG.

    `drawn` are rows of `offsets.parquet` that are estimated, one or more, with readers not yet entered.

    Raises:
        CorruptInputError: an image cannot be read.
    """
    font = ImageFont.load_default(12)
    height = SIDE_PX + 3 * _GAP_PX + 12
    sheet = Image.new("RGB", (2 * SIDE_PX + 3 * _GAP_PX, height * len(drawn)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for number, (row, reader) in enumerate(drawn):
        top = number * height + _GAP_PX
        text = f"{row['scene_id'][:40]}: {row['dx_m']:+.2f} m east, {row['dy_m']:+.2f} m north, confidence "
        pen.text((_GAP_PX, top), f"{text}{row['confidence']:.2f}; as mapped, and moved", fill=(28, 32, 38), font=font)
        left, right = _pair(row, reader, outlines)
        sheet.paste(left, (_GAP_PX, top + 12 + _GAP_PX))
        sheet.paste(right, (SIDE_PX + 2 * _GAP_PX, top + 12 + _GAP_PX))
    for quality in QUALITIES:
        with picture_file(path) as buffer:
            sheet.save(buffer, format="JPEG", quality=quality, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break


def _pair(row: Mapping[str, Any], reader: SceneReader, outlines: Outlines) -> tuple[Image.Image, Image.Image]:
    """A window that agreed, with outlines as mapped and as moved."""
    gsd_m = reader.scene.gsd_m
    side = max(LEAST_GROUND_PX, round(GROUND_M / gsd_m))
    half_m = side * gsd_m / 2
    frame = _frame(row, reader.scene, outlines, half_m)
    window = GeoBox(frame.crs, (gsd_m, 0.0, -half_m, 0.0, -gsd_m, half_m), side, side)
    with reader:
        picture = Image.fromarray(reader.read(*window).rgb).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    shift = (row["dx_m"], row["dy_m"])
    segments = outlines.segments(frame, half_m + max(map(abs, shift)))
    return _outlined(picture, segments, (0.0, 0.0), half_m), _outlined(picture, segments, shift, half_m)


def _frame(row: Mapping[str, Any], scene: Scene, outlines: Outlines, half_m: float) -> Frame:
    """The frame of the window that agreed, lies inside the scene and has the longest outlines of buildings."""
    reach = half_m / np.array(metres_per_degree((scene.bounds[1] + scene.bounds[3]) / 2))

    def worth(frame: Frame) -> tuple[bool, float]:
        place = np.array([frame.longitude, frame.latitude])
        inside = bool(shapely.contains(scene.footprint, shapely.box(*(place - reach), *(place + reach))))
        segments = outlines.segments(frame, half_m)
        building = segments.weight > ROAD_WEIGHT
        return inside, float(np.hypot(*(segments.end - segments.start)[building].T).sum())

    return max((Frame.at(one["lon"], one["lat"]) for one in row["windows"] if one["used"]), key=worth)


def _outlined(picture: Image.Image, segments: Segments, shift: tuple[float, float], half_m: float) -> Image.Image:
    answer = picture.copy()
    pen = ImageDraw.Draw(answer)
    scale = np.array([SIDE_PX, -SIDE_PX]) / (2 * half_m)
    start, end = ((places + shift) * scale + SIDE_PX / 2 for places in (segments.start, segments.end))
    for colour, width in ((_HALO, _LINE_PX + 2), (_INK, _LINE_PX)):
        for line in np.concatenate([start, end], axis=1).tolist():
            pen.line(line, fill=colour, width=width)
    return answer
