"""What OSM says an image should have edges along: outlines of buildings, and both edges of motor roads.

Only geometry is here, in degrees and in the metres of a window's frame; what is done with the edges belongs to `match`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import shapely
from pyproj import CRS

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.geometry import from_lonlat
from skyscript_assets.lib.osm.meaning import MEANING, is_hidden
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.osm.roads import road_width_m
from skyscript_assets.lib.tables import read_geometry, read_table

ROAD_WEIGHT = 0.5
"""Weight of a road's edge beside a building's: its width is guessed, verges and parked cars blur it."""


@dataclass(frozen=True)
class Frame:
    """A square of ground in metres: x east and y north of its centre, on the WGS 84 ellipsoid.

    Attributes:
        longitude: Of the centre, degrees.
        latitude: Of the centre, degrees.
        crs: The transverse Mercator projection about the centre as WKT; its north is true north, its scale 1.
    """

    longitude: float
    latitude: float
    crs: str

    @classmethod
    def at(cls, longitude: float, latitude: float) -> Self:
        """The frame about a place."""
        crs = CRS.from_proj4(f"+proj=tmerc +lat_0={latitude!r} +lon_0={longitude!r} +k=1 +datum=WGS84 +units=m")
        return cls(longitude, latitude, crs.to_wkt())


@dataclass(frozen=True)
class Segments:
    """Straight pieces of edges in metres: `start`, `end` [n, 2] and the weight of each [n]."""

    start: FloatArray
    end: FloatArray
    weight: FloatArray


@dataclass(frozen=True)
class Outlines:
    """Buildings and roads of a region, in degrees.

    Attributes:
        geometry: Areas of buildings and lines of roads, EPSG:4326.
        width_m: Width of a road, 0 for a building.
    """

    geometry: npt.NDArray[np.object_]
    width_m: FloatArray
    tree: shapely.STRtree

    @classmethod
    def of(cls, geometry: Sequence[shapely.Geometry], width_m: npt.ArrayLike) -> Self:
        """Outlines of some geometries."""
        array = np.array(list(geometry), dtype=object)
        return cls(array, np.asarray(width_m, dtype=np.float64), shapely.STRtree(array))

    def segments(self, frame: Frame, reach_m: float) -> Segments:
        """The edges of what comes within `reach_m` metres of a frame's centre, east or north, in its metres."""
        to_metres = from_lonlat(frame.crs)
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * reach_m
        lon, lat = to_metres.transform(corners[:, 0], corners[:, 1], direction="INVERSE")
        found = np.sort(self.tree.query(shapely.box(min(lon), min(lat), max(lon), max(lat)), predicate="intersects"))
        coordinates, first, owner = _pieces(self.geometry[found])
        places = np.column_stack(to_metres.transform(coordinates[:, 0], coordinates[:, 1]))
        start, end, width = places[first], places[first + 1], self.width_m[found][owner]
        near = (np.minimum(start, end) <= reach_m + width[:, None]).all(axis=1)
        near &= (np.maximum(start, end) >= -reach_m - width[:, None]).all(axis=1)
        near &= np.isfinite(start).all(axis=1) & np.isfinite(end).all(axis=1)
        return _edges(start[near], end[near], width[near])

    @cached_property
    def lengths(self) -> tuple[FloatArray, FloatArray]:
        """Where there is how much edge: middles of pieces in degrees, [n, 2], and their weighted length in metres, [n].

        Lengths are on the sphere, for choosing windows only.
        """
        coordinates, first, owner = _pieces(self.geometry)
        start, end = coordinates[first], coordinates[first + 1]
        middle = (start + end) / 2
        step = np.radians(end - start) * 6_371_000.0
        length = np.hypot(step[:, 0] * np.cos(np.radians(middle[:, 1])), step[:, 1])
        road = self.width_m[owner] > 0
        return middle, np.where(road, 2 * ROAD_WEIGHT, 1.0) * length


def read_outlines(path: Path) -> Outlines:
    """Buildings and motor roads of `objects.parquet` that can be seen from above. Raises what `read_geometry` does."""
    table = read_table(path, OBJECT_SCHEMA, ["object_id", "tags"])
    keys = (pc.is_valid(pc.map_lookup(table["tags"], key, "first")) for key in ("building", "highway"))
    rows = np.flatnonzero(pc.or_(*keys).to_numpy())
    shapes = read_geometry(path, rows)
    ids, tags = table["object_id"].take(rows).to_pylist(), table["tags"].take(rows).to_pylist()
    widths = np.array([_width_m(object_id, dict(pairs)) for object_id, pairs in zip(ids, tags, strict=True)], float)
    kept = np.isfinite(widths) & np.isfinite(shapely.bounds(shapes)).all(axis=1)
    return Outlines.of(shapes[kept], widths[kept])


def _width_m(object_id: str, tags: dict[str, str]) -> float | None:
    """Width of a road, 0 for a building, None for what has no edges that are looked for."""
    if is_hidden(tags):
        return None
    if object_id[:1] in ("a", "r"):
        return 0.0 if tags.get("building", "no") not in MEANING.without_edges else None
    road = tags.get("highway", "")
    return road_width_m(tags, MEANING.roads[road]) if object_id[:1] == "w" and road in MEANING.motor_roads else None


def _pieces(geometry: npt.NDArray[np.object_]) -> tuple[FloatArray, IntArray, IntArray]:
    """Coordinates of rings of areas and of lines, which of them go straight to the next, and the geometry of these."""
    parts, of_part = shapely.get_parts(geometry, return_index=True)
    areas = shapely.get_type_id(parts) == 3
    rings, of_ring = shapely.get_rings(parts[areas], return_index=True)
    of_line = np.concatenate([of_part[areas][of_ring], of_part[~areas]]).astype(np.int64)
    coordinates, line = shapely.get_coordinates(np.concatenate([rings, parts[~areas]]), return_index=True)
    first = np.flatnonzero(line[1:] == line[:-1])
    return coordinates, first, of_line[line[first]]


def _edges(start: FloatArray, end: FloatArray, width: FloatArray) -> Segments:
    """Pieces of outlines as they are; pieces of roads once on each side of their centre line."""
    along = end - start
    length = np.hypot(*along.T)
    kept = length > 0
    start, end, along, width, length = (a[kept] for a in (start, end, along, width, length))
    road = width > 0
    across = np.column_stack([-along[:, 1], along[:, 0]])[road] / length[road, None] * width[road, None] / 2
    return Segments(
        np.concatenate([start[~road], start[road] + across, start[road] - across]),
        np.concatenate([end[~road], end[road] + across, end[road] - across]),
        np.concatenate([np.ones((~road).sum()), np.full(2 * road.sum(), ROAD_WEIGHT)]),
    )
