"""Lines on sports pitches, bays and parked cars on parking grounds, rows of graves."""

from __future__ import annotations

import numpy as np
import shapely

from skyscript_assets.demo.painter.layers import LayerBuilder, Style
from skyscript_assets.demo.painter.noise import rng_of
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.palette import RGB
from skyscript_assets.demo.painter.props import add_cars
from skyscript_assets.demo.painter.shapes import F64, Frames, Geometries, frames_of, rectangles
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import layer_of

_CHALK: RGB = (232, 232, 226)
_LINE_M = 0.3
"""Painted width of lines: real ones of 5 to 12 cm are drawn wider and fainter, as a pixel blends them."""


def add_pitch_lines(item: MapObject, material: str, marks: LayerBuilder, things: LayerBuilder) -> None:
    """Line markings of a pitch, by its sport, fitted into the smallest rectangle around it."""
    frame = frames_of(np.array([item.geometry], dtype=object))
    sport = item.tags.get("sport", "").split(";")[0]
    a, b = float(frame.a[0]), float(frame.b[0])
    if item.tags.get("leisure") == "track" or sport in {"running", "athletics"}:
        lines = [shapely.boundary(shapely.buffer(item.geometry, -1.22 * lane)) for lane in range(1, 5)]
        _draw(lines, item, marks, 0.35)
        return
    if material in {"turf", "artificial"} and a > 15:
        lines = _football(a, b)
    elif sport in {"tennis", "padel"} or (material == "clay" and a < 60):
        lines = _tennis(a, b)
    elif material in {"hard_court"} and a > 7:
        lines = _basketball(a, b)
    elif material == "sand_court":
        lines = [_rectangle(min(8.0, a - 2), min(4.0, b - 2))] if a > 4 and b > 4 else []
    else:
        lines = []
    _draw([_place(line, frame) for line in lines], item, marks, 0.62 if material == "turf" else 0.7)
    if lines and material in {"turf", "artificial"}:
        goals = rectangles(
            frame.x + np.array([-1, 1]) * (a - 2.0) * frame.ux,
            frame.y + np.array([-1, 1]) * (a - 2.0) * frame.uy,
            frame.ux,
            frame.uy,
            0.4,
            3.6 if a > 35 else 1.6,
        )
        things.add_all(goals, 1.0, Style(-1, 1.0, 0, 1.8, _CHALK, 0.6))


def _draw(lines: list[shapely.Geometry], item: MapObject, marks: LayerBuilder, opacity: float) -> None:
    level = max(0, layer_of(item.tags))
    for line in lines:
        drawn = shapely.intersection(shapely.buffer(line, _LINE_M / 2, quad_segs=2), shapely.make_valid(item.geometry))
        marks.add(drawn, level, Style(-1, 1.0, level, 0.0, _CHALK, opacity))


def _place(line: shapely.Geometry, frame: Frames) -> shapely.Geometry:
    """A line of pitch coordinates (length along x, middle at 0) on the ground."""
    axis = np.array([[frame.ux[0], -frame.uy[0]], [frame.uy[0], frame.ux[0]]])
    centre = np.array([frame.x[0], frame.y[0]])
    return shapely.transform(line, lambda xy: xy @ axis.T + centre)


def _rectangle(a: float, b: float, x: float = 0.0) -> shapely.Geometry:
    return shapely.LinearRing([(x - a, -b), (x + a, -b), (x + a, b), (x - a, b)])


def _football(a: float, b: float) -> list[shapely.Geometry]:
    """Laws of the Game, law 1: areas of 16.5 and 5.5 m, circle of 9.15 m; smaller on small pitches."""
    length, width = a - 2.0, b - 2.0
    scale = min(1.0, length / 50.0, width / 30.0)
    lines = [
        _rectangle(length, width),
        shapely.LineString([(0, -width), (0, width)]),
        shapely.boundary(shapely.buffer(shapely.Point(0, 0), 9.15 * scale, quad_segs=12)),
    ]
    for depth, half in ((16.5, 20.16), (5.5, 9.16)):
        middle = length - depth * scale / 2
        lines.extend(_rectangle(depth * scale / 2, half * scale, side * middle) for side in (-1, 1))
    return lines


def _tennis(a: float, b: float) -> list[shapely.Geometry]:
    """ITF court, 23.77 x 10.97 m, as many beside each other as fit."""
    courts = max(1, int(2 * a // 17.0)) if b > 14 else 1
    lines: list[shapely.Geometry] = []
    across = courts > 1
    for index in range(courts):
        middle = (index - (courts - 1) / 2) * 17.0 if across else 0.0
        for half_length, half_width in ((11.89, 5.49), (11.89, 4.12), (6.4, 4.12)):
            ring = _rectangle(half_width, half_length, middle) if across else _rectangle(half_length, half_width)
            lines.append(ring)
        net = [(middle - 6.0, 0), (middle + 6.0, 0)] if across else [(0, -6.0), (0, 6.0)]
        lines.append(shapely.LineString(net))
    return lines


def _basketball(a: float, b: float) -> list[shapely.Geometry]:
    """FIBA court, 28 x 15 m, scaled into the pitch: outline, halfway line, circles and keys."""
    scale = min((a - 0.8) / 14.0, (b - 0.8) / 7.5)
    if scale <= 0.2:
        return []
    length, width = 14.0 * scale, 7.5 * scale
    lines = [
        _rectangle(length, width),
        shapely.LineString([(0, -width), (0, width)]),
        shapely.boundary(shapely.buffer(shapely.Point(0, 0), 1.8 * scale, quad_segs=8)),
    ]
    for side in (-1, 1):
        lines.append(_rectangle(2.9 * scale, 2.45 * scale, side * (length - 2.9 * scale)))
        arc = shapely.buffer(shapely.Point(side * (length - 1.6 * scale), 0), 6.75 * scale, quad_segs=8)
        lines.append(shapely.boundary(arc))
    return lines


def add_parking(item: MapObject, marks: LayerBuilder, things: LayerBuilder, seed: int) -> int:
    """Bays along the longer axis of a parking ground, some of them taken; returns the number of cars."""
    frame = frames_of(np.array([item.geometry], dtype=object))
    x, y, along = _bays(frame)
    if len(x) == 0:
        return 0
    inner = shapely.buffer(item.geometry, -1.4)
    shapely.prepare(inner)
    inside = shapely.contains_xy(inner, x, y)
    x, y, along = x[inside], y[inside], along[inside]
    ux, uy = float(frame.ux[0]), float(frame.uy[0])
    level = max(0, layer_of(item.tags))
    bay_ux, bay_uy = np.where(along, ux, -uy), np.where(along, uy, ux)
    step = np.where(along, 3.1, 1.27)
    for side in (-1, 1):
        shift_x = side * step * np.where(along, bay_ux, ux)
        shift_y = side * step * np.where(along, bay_uy, uy)
        line_ux, line_uy = np.where(along, -uy, bay_ux), np.where(along, ux, bay_uy)
        lines = rectangles(x + shift_x, y + shift_y, line_ux, line_uy, np.where(along, 1.1, 2.5), 0.13)
        marks.add_all(lines, level, Style(-1, 1.0, level, 0.0, _CHALK, 0.5))
    rng = rng_of(seed, "parked", item.object_id)
    taken = rng.random(len(x)) < 0.30 + 0.5 * unit_hash("occupancy", seed, item.object_id)
    turn = np.where(rng.random(len(x)) < 0.5, 1.0, -1.0)
    slack = rng.normal(0, 0.12, (2, len(x)))
    add_cars(things, rng, (x + slack[0])[taken], (y + slack[1])[taken], (bay_ux * turn)[taken], (bay_uy * turn)[taken])
    return int(taken.sum())


def _bays(frame: Frames) -> tuple[F64, F64, F64]:
    """Centres of possible bays and whether cars stand along the axis: rows of 5 m at both sides of aisles of 6 m."""
    a, b = float(frame.a[0]), float(frame.b[0])
    if b < 2.3:
        at = np.arange(-a + 3.4, a - 3.0, 6.2)
        offsets = np.zeros(1)
        parallel = True
    else:
        at = np.arange(-a + 1.6, a - 1.2, 2.54)
        parallel = False
        rows = []
        start = -b + 2.7
        while start <= b - 2.4:
            rows.append(start)
            start += 11.2 if len(rows) % 2 else 5.1
        offsets = np.array(rows)
    u, v = (grid.ravel() for grid in np.meshgrid(at, offsets))
    x = frame.x[0] + u * frame.ux[0] - v * frame.uy[0]
    y = frame.y[0] + u * frame.uy[0] + v * frame.ux[0]
    return x, y, np.full(len(x), parallel)


def add_graves(item: MapObject, marks: LayerBuilder, seed: int) -> None:
    """Rows of graves on a cemetery: small pale and dark rectangles."""
    frame = frames_of(np.array([item.geometry], dtype=object))
    u, v = (
        grid.ravel()
        for grid in np.meshgrid(np.arange(-frame.a[0], frame.a[0], 2.6), np.arange(-frame.b[0], frame.b[0], 4.2))
    )
    rng = rng_of(seed, "graves", item.object_id)
    x = frame.x[0] + u * frame.ux[0] - v * frame.uy[0] + rng.normal(0, 0.2, len(u))
    y = frame.y[0] + u * frame.uy[0] + v * frame.ux[0] + rng.normal(0, 0.2, len(u))
    inside = shapely.contains_xy(shapely.buffer(item.geometry, -2), x, y) & (rng.random(len(x)) < 0.8)
    graves: Geometries = rectangles(x[inside], y[inside], -frame.uy[0], frame.ux[0], 1.0, 0.5)
    shades = rng.integers(70, 190, len(graves))
    for grave, shade in zip(graves, shades, strict=True):
        marks.add(grave, 0.0, Style(-1, 1.0, 0, 0.0, (float(shade), float(shade) - 3, float(shade) - 8), 0.6))
