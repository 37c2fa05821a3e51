"""Small geometry of the painter: frames along an object's longer axis, rectangles, stations along lines, strips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

F64 = npt.NDArray[np.float64]
Geometries = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Frames:
    """The smallest rectangles around polygons: centres, unit vectors along the longer side, half lengths and widths."""

    x: F64
    y: F64
    ux: F64
    uy: F64
    a: F64
    b: F64


def frames_of(polygons: Geometries) -> Frames:
    """The minimum rotated rectangles of polygons."""
    n = len(polygons)
    corners = np.zeros((n, 4, 2))
    for index, box in enumerate(shapely.oriented_envelope(polygons)):
        if box is not None and box.geom_type == "Polygon" and not box.is_empty:
            corners[index] = shapely.get_coordinates(box)[:4]
        else:
            corners[index] = shapely.get_coordinates(shapely.box(*polygons[index].bounds))[:4]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
    length_1, length_2 = np.hypot(*first.T), np.hypot(*second.T)
    longer = length_1 >= length_2
    axis = np.where(longer[:, None], first, second)
    length = np.maximum(np.maximum(length_1, length_2), 1e-6)
    axis = np.where(length[:, None] > 1e-5, axis / length[:, None], np.array([1.0, 0.0]))
    centre = corners.mean(axis=1)
    width = np.maximum(np.minimum(length_1, length_2), 1e-6)
    return Frames(centre[:, 0], centre[:, 1], axis[:, 0], axis[:, 1], length / 2, width / 2)


def rectangles(
    x: npt.ArrayLike, y: npt.ArrayLike, ux: npt.ArrayLike, uy: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike
) -> Geometries:
    """Rectangles by centre, unit vector along the length, half length and half width; arguments broadcast."""
    x, y, ux, uy, a, b = np.broadcast_arrays(*(np.asarray(v, np.float64).ravel() for v in (x, y, ux, uy, a, b)))
    along = np.array([-1, 1, 1, -1, -1.0])[None, :]
    across = np.array([-1, -1, 1, 1, -1.0])[None, :]
    px = x[:, None] + along * (a * ux)[:, None] - across * (b * uy)[:, None]
    py = y[:, None] + along * (a * uy)[:, None] + across * (b * ux)[:, None]
    polygons: Geometries = shapely.polygons(np.stack([px, py], axis=-1))
    return polygons


def stations(line: shapely.Geometry, step: float, start: float = 0.0) -> tuple[F64, F64, F64, F64]:
    """(x, y, ux, uy) at equal steps along a line, with its direction there."""
    length = shapely.length(line)
    at = np.arange(start, length, step)
    here, near = shapely.line_interpolate_point(line, at), shapely.line_interpolate_point(line, at - 0.25)
    ahead = shapely.line_interpolate_point(line, np.minimum(at + 0.25, length))
    x, y = shapely.get_x(here), shapely.get_y(here)
    back = at < 0.25
    bx, by = np.where(back, x, shapely.get_x(near)), np.where(back, y, shapely.get_y(near))
    dx, dy = shapely.get_x(ahead) - bx, shapely.get_y(ahead) - by
    norm = np.hypot(dx, dy)
    safe = np.maximum(norm, 1e-9)
    return x, y, np.where(norm > 1e-9, dx / safe, 1.0), dy / safe


def strips(lines: Geometries, width: npt.ArrayLike, *, flat: bool = False) -> Geometries:
    """Lines widened to bands of a width in metres."""
    widened: Geometries = shapely.buffer(
        lines, np.asarray(width) / 2, quad_segs=3, cap_style="flat" if flat else "round"
    )
    return widened


def line_parts(geometry: shapely.Geometry) -> list[shapely.LineString]:
    """The line strings of a line or the rings of an area."""
    if geometry.geom_type in {"Polygon", "MultiPolygon"}:
        geometry = shapely.boundary(geometry)
    return [part for part in shapely.get_parts(geometry) if part.geom_type in {"LineString", "LinearRing"}]
