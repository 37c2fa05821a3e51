"""Small geometry of the painter: frames around areas, rectangles, places along lines, the sea beside a coast."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.ops import polygonize

from skyscript_assets.demo.painter.grid import Geometries
from skyscript_assets.demo.painter.kernels import F64


@dataclass(frozen=True)
class Frame:
    """The smallest rectangle around an area: centre, unit vector along it, half length and half width, metres."""

    x: float
    y: float
    ux: float
    uy: float
    a: float
    b: float

    def on_ground(self, along: npt.ArrayLike, across: npt.ArrayLike) -> F64:
        """Local (x, y), (n, 2), of places in metres along and across from the centre."""
        u, v = np.ravel(along), np.ravel(across)
        return np.column_stack([self.x + u * self.ux - v * self.uy, self.y + u * self.uy + v * self.ux])


def frame_of(area: shapely.Geometry) -> Frame:
    """The minimum rotated rectangle; that along the axes where an area has none."""
    box = shapely.oriented_envelope(area)
    corners = shapely.get_coordinates(box if box.geom_type == "Polygon" else shapely.box(*area.bounds))
    sides = np.diff(corners[:3], axis=0)
    lengths = np.maximum(np.hypot(*sides.T), 1e-6)
    longer = int(lengths[1] > lengths[0])
    ux, uy = sides[longer] / lengths[longer] if lengths[longer] > 1e-5 else (1.0, 0.0)
    x, y = corners[:4].mean(axis=0)
    return Frame(float(x), float(y), float(ux), float(uy), lengths[longer] / 2, lengths[1 - longer] / 2)


def rectangles(
    x: npt.ArrayLike, y: npt.ArrayLike, ux: npt.ArrayLike, uy: npt.ArrayLike, *half: npt.ArrayLike
) -> Geometries:
    """Rectangles by centre, unit vector along the length, half length and half width; arguments broadcast."""
    x, y, ux, uy, a, b = (v[:, None] for v in np.broadcast_arrays(*(np.ravel(v) for v in (x, y, ux, uy, *half))))
    along, across = a * np.array([-1, 1, 1, -1, -1.0]), b * np.array([-1, -1, 1, 1, -1.0])
    corners = np.stack([x + along * ux - across * uy, y + along * uy + across * ux], axis=-1)
    return np.asarray(shapely.polygons(corners))


def stations(line: shapely.Geometry, step: float, start: float = 0.0) -> tuple[F64, F64, F64, F64]:
    """(x, y, ux, uy) at equal steps along a line, with its direction there."""
    at = np.arange(start, line.length, step)

    def xy(distance: F64) -> F64:
        return np.asarray(shapely.get_coordinates(line.interpolate(np.clip(distance, 0, line.length))))

    (x, y), (dx, dy) = xy(at).T, (xy(at + 0.25) - xy(at - 0.25)).T
    length = np.maximum(np.hypot(dx, dy), 1e-9)
    return x, y, dx / length, dy / length


def line_parts(geometry: shapely.Geometry) -> list[shapely.LineString]:
    """The line strings of a line or the rings of an area."""
    if geometry.geom_type in {"Polygon", "MultiPolygon"}:
        geometry = shapely.boundary(geometry)
    return [part for part in shapely.get_parts(geometry) if part.geom_type in {"LineString", "LinearRing"}]


def beside(line: shapely.Geometry, metres: float) -> shapely.Geometry:
    """A parallel line; the line itself where none can be made."""
    parallel = shapely.offset_curve(line, metres, quad_segs=2) if line.length > 0.5 and metres else line
    return line if parallel.is_empty else parallel


def sea_polygons(coastlines: list[shapely.Geometry], ground: shapely.Polygon) -> list[shapely.Geometry]:
    """The parts of the ground that lie on the right of the coastlines in it (OSM wiki, Tag:natural=coastline).

    They are in local metres, and must be known on the ground without gaps: a missing one would turn land into sea.
    """
    touching = [line for line in coastlines if shapely.intersects(line, ground)]
    lines = [part for geometry in touching for part in line_parts(geometry) if part.length > 0]
    if not lines:
        return []
    sides = np.concatenate([np.stack([(xy := shapely.get_coordinates(line))[:-1], xy[1:]], axis=1) for line in lines])
    along, middle = sides[:, 1] - sides[:, 0], sides.mean(axis=1)
    # With y to the south, (-dy, dx) points to the right.
    across = 0.2 * np.column_stack([-along[:, 1], along[:, 0]]) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    right, left = (shapely.points(middle + side * across) for side in (1, -1))
    network = shapely.node(shapely.MultiLineString([*lines, shapely.boundary(ground)]))
    parts = [part for part in polygonize(shapely.get_parts(network)) if ground.contains(part.representative_point())]
    return [part for part in parts if shapely.contains(part, right).sum() > shapely.contains(part, left).sum()]
