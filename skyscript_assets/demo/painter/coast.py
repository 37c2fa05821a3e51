"""The sea: OSM draws only the coastline, with land on the left of its direction and water on the right."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.ops import polygonize

from skyscript_assets.demo.painter.shapes import F64, line_parts

_BESIDE_M = 0.2
"""How far from the line its two sides are looked at."""


def sea_polygons(
    coastlines: list[shapely.Geometry], ground: shapely.Polygon, beyond_m: float = 0.0
) -> list[shapely.Geometry]:
    """The parts of the ground that lie on the right of the coastlines in it (OSM wiki, Tag:natural=coastline).

    Args:
        coastlines: Lines in local metres, whose y grows southward.
        ground: Where the coastlines are known without gaps; beyond it a missing line would turn land into sea.
        beyond_m: How far the sea goes on where it reaches the edge of the ground.
    """
    touching = [line for line in coastlines if shapely.intersects(line, ground)]
    lines = [part for geometry in touching for part in line_parts(geometry) if shapely.length(part) > 0]
    if not lines:
        return []
    network = shapely.node(shapely.MultiLineString([*lines, shapely.boundary(ground)]))
    right, left = _beside(lines, _BESIDE_M), _beside(lines, -_BESIDE_M)
    sea = [
        part
        for part in polygonize(shapely.get_parts(network))
        if shapely.contains(ground, part.representative_point())
        and shapely.contains_xy(part, right).sum() > shapely.contains_xy(part, left).sum()
    ]
    if beyond_m > 0 and sea:
        sea.append(shapely.difference(shapely.buffer(shapely.union_all(sea), beyond_m, join_style="mitre"), ground))
    return sea


def _beside(lines: list[shapely.LineString], distance: float) -> F64:
    """Places beside the middle of every segment, to the right of its direction; negative distances to the left."""
    places = []
    for line in lines:
        xy = shapely.get_coordinates(line)
        along = np.diff(xy, axis=0)
        # With y to the south, (-dy, dx) points to the right.
        across = np.column_stack([-along[:, 1], along[:, 0]])
        length = np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        places.append((xy[:-1] + xy[1:]) / 2 + distance * across / length)
    return np.concatenate(places)
