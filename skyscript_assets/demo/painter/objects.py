"""OSM objects as the painter takes them: what can be seen, what is left out or moved, and what part it plays."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from skyscript_assets.demo.painter.grid import Grid
from skyscript_assets.demo.painter.layers import clip
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import Tags, is_hidden, is_yes
from skyscript_assets.lib.tables import TAGS_TYPE, read_table

REACH_M = 120.0
"""Objects this far outside the canvas are still looked at: their shadows or crowns may fall onto it."""

_SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("geometry", pa.binary())])
"""What the painter reads of `objects.parquet`."""

_FAR_DEG = 0.05
"""How far beyond the canvas an object is kept whole, degrees."""


@dataclass(frozen=True)
class MapObject:
    """An object of the extract on the canvas.

    Attributes:
        object_id: As in `objects.parquet`.
        tags: Its tags.
        geometry: Local metres, moved where the painting displaces it.
        role: The part it plays, see `role_of`.
    """

    object_id: str
    tags: Tags
    geometry: shapely.Geometry
    role: str

    @property
    def is_area(self) -> bool:
        """Whether it has a ground plan."""
        return self.geometry.geom_type in {"Polygon", "MultiPolygon"}


@dataclass
class Counts:
    """What became of the objects, by role; `unseen` have nothing that an orthophoto shows."""

    painted: Counter[str] = field(default_factory=Counter)
    omitted: Counter[str] = field(default_factory=Counter)
    displaced: Counter[str] = field(default_factory=Counter)
    unseen: int = 0


def role_of(object_id: str, tags: Tags) -> str | None:
    """The part an object plays in the painting, or None where an orthophoto does not show it.

    Roles: building, road, rail, area (any ground with a material), zone (land use that only says what kind of ground is
    between other things), coastline, stream, barrier, tree, tree_row, crossing, power_line, thing (small, by point).
    """
    if not tags or is_hidden(tags):
        return None
    kind = "area" if object_id[0] in "ar" else "line" if object_id[0] == "w" else "node"
    if kind == "area":
        return _area_role(tags)
    return _line_role(tags) if kind == "line" else _node_role(tags)


def read_objects(
    path: Path, grid: Grid, seed: int, omit_share: float, displace_share: float
) -> tuple[list[MapObject], Counts]:
    """Read the objects that may show on a canvas, sorted by id; leave some out and move some.

    Args:
        path: `objects.parquet`.
        grid: The canvas.
        seed: Seed of the painting; with the object's id it decides what is left out or moved.
        omit_share: Share of visible objects left out.
        displace_share: Share of visible objects moved by 3 to 9 metres.

    Raises:
        UpstreamMissingError: the table does not exist.
        OutputSchemaError: another version wrote it.
        CorruptInputError: it is damaged, or a geometry in it is not WKB.
    """
    table = read_table(path, _SCHEMA, _SCHEMA.names).sort_by("object_id")
    try:
        geometries = shapely.from_wkb(np.array(table["geometry"].to_pylist(), dtype=object))
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is not WKB ({error}); make the objects again") from error
    counts = Counts()
    degrees = shapely.buffer(grid.footprint(), 2 * REACH_M / 111_000.0 / max(0.05, _cosine(grid)))
    near = np.flatnonzero(shapely.intersects(geometries, degrees))
    local = grid.to_local(_cut(geometries[near], shapely.bounds(degrees)))
    ids, tags = table["object_id"].take(near).to_pylist(), table["tags"].take(near).to_pylist()
    width, height = grid.size_m
    touched = shapely.intersects(local, shapely.box(0, 0, width, height))
    objects = []
    for object_id, pairs, geometry, inside in zip(ids, tags, local, touched, strict=True):
        item = _decide(
            object_id, dict(pairs or ()), geometry, (seed, omit_share, displace_share), counts, inside=inside
        )
        if item is not None:
            objects.append(item)
    return objects, counts


def _decide(
    object_id: str,
    tags: Tags,
    geometry: shapely.Geometry,
    chance: tuple[int, float, float],
    counts: Counts,
    *,
    inside: bool,
) -> MapObject | None:
    """One object as it is painted; only those that touch the canvas are counted."""
    seed, omit_share, displace_share = chance
    role = role_of(object_id, tags)
    if role is None:
        counts.unseen += int(inside)
        return None
    if role == "coastline":  # A gap would turn land into sea.
        omit_share = displace_share = 0.0
    if unit_hash("omit", seed, object_id) < omit_share:
        counts.omitted[role] += int(inside)
        return None
    counts.painted[role] += int(inside)
    if unit_hash("displace", seed, object_id) < displace_share:
        counts.displaced[role] += int(inside)
        angle, distance = (
            2 * math.pi * unit_hash("angle", seed, object_id),
            3 + 6 * unit_hash("metres", seed, object_id),
        )
        shift = np.array([math.cos(angle), math.sin(angle)]) * distance
        geometry = shapely.transform(geometry, lambda xy: xy + shift)
    return MapObject(object_id, tags, geometry, role)


def _cut(geometries: npt.NDArray[np.object_], bounds: npt.NDArray[np.float64]) -> npt.NDArray[np.object_]:
    """Cut what reaches far beyond the canvas: a projection's zone ends somewhere."""
    west, south, east, north = bounds
    box = (west - _FAR_DEG, south - _FAR_DEG, east + _FAR_DEG, north + _FAR_DEG)
    far = ~shapely.within(geometries, shapely.box(*box))
    geometries[far] = clip(geometries[far], box)
    return geometries


def _cosine(grid: Grid) -> float:
    return math.cos(math.radians(grid.footprint().centroid.y))


_ZONES = {"residential", "commercial", "retail", "industrial", "civil", "institutional", "port", "depot"}
_ZONE_AMENITIES = {"school", "university", "college", "hospital", "kindergarten", "clinic"}


def _area_role(tags: Tags) -> str | None:
    from skyscript_assets.demo.painter.ground import area_material

    if is_yes(tags, "building") or is_yes(tags, "building:part") or tags.get("man_made") in BUILT_AREAS:
        return "building"
    if tags.get("amenity") == "shelter":
        return "building"
    if area_material(tags) is not None:
        return "area"
    if tags.get("landuse") in _ZONES or tags.get("amenity") in _ZONE_AMENITIES:
        return "zone"
    if is_yes(tags, "barrier"):
        return "barrier"
    return None


BUILT_AREAS = {"storage_tank", "silo", "gasometer", "water_tower", "tower", "canopy", "chimney", "works", "bunker_silo"}
"""Values of `man_made` that are built like a house when they have a ground plan."""

_UNSEEN_ROADS = {"proposed", "construction", "corridor", "elevator", "trail", "razed", "abandoned", "no", "platform"}
_RAILS = {"rail", "tram", "light_rail", "narrow_gauge", "subway", "preserved", "disused", "abandoned", "siding"}
_STREAMS = {"river", "canal", "stream", "ditch", "drain"}


def _line_role(tags: Tags) -> str | None:
    if tags.get("natural") == "coastline":
        return "coastline"
    if tags.get("highway") == "platform" or tags.get("railway") == "platform":
        return "road"
    if is_yes(tags, "highway") and tags["highway"] not in _UNSEEN_ROADS:
        return "road"
    simple = (
        ("railway", _RAILS, "rail"),
        ("waterway", _STREAMS, "stream"),
        ("natural", {"tree_row"}, "tree_row"),
        ("man_made", {"pier", "breakwater", "groyne"}, "road"),
        ("power", {"line", "minor_line"}, "power_line"),
    )
    for key, values, role in simple:
        if tags.get(key) in values:
            return role
    return "barrier" if is_yes(tags, "barrier") else None


def _node_role(tags: Tags) -> str | None:
    from skyscript_assets.demo.painter.props import POINT_THINGS

    if tags.get("natural") == "tree":
        return "tree"
    if is_yes(tags, "building") and tags["building"] != "entrance":
        return "thing"
    if tags.get("highway") == "crossing" and tags.get("crossing") not in {"unmarked", "no"}:
        return "crossing"
    return "thing" if any((key, tags.get(key)) in POINT_THINGS for key in _POINT_KEYS) else None


_POINT_KEYS = ("amenity", "highway", "man_made", "power", "natural", "leisure", "historic", "barrier", "aeroway")
