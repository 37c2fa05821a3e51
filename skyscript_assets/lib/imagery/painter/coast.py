"""The sea: OSM draws only the coastline, with land on the left of its direction and water on the right."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.ops import linemerge, polygonize

from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.painter.shapes import line_parts


def sea_polygons(coastlines: list[shapely.Geometry], bounds: Bounds) -> list[shapely.Polygon]:
    """The parts of a box that lie on the right of the coastlines in it (OSM wiki, Tag:natural=coastline).

    Args:
        coastlines: Lines in local metres, whose y grows southward.
        bounds: The box.
    """
    box = shapely.box(*bounds)
    inside = [shapely.intersection(line, box) for line in coastlines if shapely.intersects(line, box)]
    lines = [part for geometry in inside for part in line_parts(geometry) if shapely.length(part) > 0]
    if not lines:
        return []
    network = shapely.node(shapely.MultiLineString([*lines, shapely.boundary(box)]))
    merged = linemerge(shapely.MultiLineString(lines)) if len(lines) > 1 else lines[0]
    tree = shapely.STRtree(line_parts(merged))
    pieces = np.array(line_parts(merged), dtype=object)
    return [part for part in polygonize(shapely.get_parts(network)) if _is_sea(part, tree, pieces)]


def _is_sea(polygon: shapely.Polygon, tree: shapely.STRtree, pieces: np.ndarray) -> bool:  # type: ignore[type-arg]
    """Whether a part lies to the right of the coastline nearest to a place in it, seen from the line's direction."""
    place = polygon.representative_point()
    line = pieces[tree.nearest(place)]
    at = float(shapely.line_locate_point(line, place))
    length = shapely.length(line)
    step = min(0.5, length / 4)
    before, after = shapely.line_interpolate_point(line, [max(0.0, at - step), min(length, at + step)])
    # With y to the south the cross product is positive on the right.
    cross = (after.x - before.x) * (place.y - before.y) - (after.y - before.y) * (place.x - before.x)
    return bool(cross > 0)
