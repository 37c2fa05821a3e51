"""The picture of offsets: a window of some scenes, with OSM's outlines as they are mapped and as they are moved."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from skyscript_assets.lib.imagery.reader import SceneReader, Window
from skyscript_assets.lib.offset.outlines import Frame, Outlines, Segments

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

    Args:
        drawn: Rows of `offsets.parquet` that are estimated, one or more, with readers not yet entered.
        outlines: Buildings and roads of the region.
        path: Where the JPEG ends.

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
    temporary = path.with_name(f".{path.name}.tmp")
    for quality in QUALITIES:
        sheet.save(temporary, format="JPEG", quality=quality, optimize=True)
        if temporary.stat().st_size <= MAX_BYTES:
            break
    os.replace(temporary, path)


def _pair(row: Mapping[str, Any], reader: SceneReader, outlines: Outlines) -> tuple[Image.Image, Image.Image]:
    """The first window that agreed, with outlines as mapped and as moved."""
    used = next(window for window in row["windows"] if window["used"])
    frame = Frame.at(used["lon"], used["lat"])
    gsd_m = reader.scene.gsd_m
    side = max(LEAST_GROUND_PX, round(GROUND_M / gsd_m))
    half_m = side * gsd_m / 2
    window = Window(frame.crs, (gsd_m, 0.0, -half_m, 0.0, -gsd_m, half_m), side, side)
    with reader:
        picture = Image.fromarray(reader.read(*window).rgb).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
    segments = outlines.segments(frame, half_m + abs(row["dx_m"]) + abs(row["dy_m"]))
    return (
        _outlined(picture, segments, (0.0, 0.0), half_m),
        _outlined(picture, segments, (row["dx_m"], row["dy_m"]), half_m),
    )


def _outlined(picture: Image.Image, segments: Segments, shift: tuple[float, float], half_m: float) -> Image.Image:
    answer = picture.copy()
    pen = ImageDraw.Draw(answer)
    scale = np.array([SIDE_PX, -SIDE_PX]) / (2 * half_m)
    start, end = ((places + shift) * scale + SIDE_PX / 2 for places in (segments.start, segments.end))
    for colour, width in ((_HALO, _LINE_PX + 2), (_INK, _LINE_PX)):
        for line in np.concatenate([start, end], axis=1).tolist():
            pen.line(line, fill=colour, width=width)
    return answer
