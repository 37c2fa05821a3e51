"""OSM objects as the painter takes them: what can be seen, what is left out or moved, and what part it plays."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from skyscript_assets.demo.painter.grid import Grid
from skyscript_assets.demo.painter.layers import clip
from skyscript_assets.demo.painter.looks import PAINTER, Prop, area_material
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import Tags, is_hidden, is_yes
from skyscript_assets.lib.tables import TAGS_TYPE, read_table

REACH_M = 120.0
"""Objects this far outside the canvas are still looked at: their shadows or crowns may fall onto it."""

_SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("geometry", pa.binary())])
_FAR_DEG = 0.05
"""How far beyond the canvas an object is kept whole, degrees: a projection's zone ends somewhere."""


@dataclass(frozen=True)
class MapObject:
    """An object: id and tags of the extract, geometry in local metres (perhaps moved), and its role (`role_of`)."""

    object_id: str
    tags: Tags
    geometry: shapely.Geometry
    role: str


@dataclass
class Counts:
    """What became of the objects, by role; `unseen` have nothing that an orthophoto shows."""

    painted: Counter[str] = field(default_factory=Counter)
    omitted: Counter[str] = field(default_factory=Counter)
    displaced: Counter[str] = field(default_factory=Counter)
    unseen: int = 0


def read_objects(
    path: Path, grid: Grid, seed: int, omit_share: float, displace_share: float
) -> tuple[list[MapObject], Counts]:
    """Read the objects that may show on a canvas, sorted by id; leave some out and move some by 3 to 9 metres.

    Only what touches the canvas is counted. Seed and id decide what is left out or moved.

    Raises:
        CorruptInputError: a geometry is not WKB; and what `read_table` raises.
    """
    table = read_table(path, _SCHEMA, _SCHEMA.names).sort_by("object_id")
    try:
        geometries = shapely.from_wkb(np.array(table["geometry"].to_pylist(), dtype=object))
    except shapely.errors.GEOSException as error:
        raise CorruptInputError(f"{path}: a geometry is not WKB ({error}); make the objects again") from error
    canvas = grid.footprint()
    degrees = shapely.buffer(canvas, 2 * REACH_M / 111_000.0 / max(0.05, math.cos(math.radians(canvas.centroid.y))))
    near = np.flatnonzero(shapely.intersects(geometries, degrees))
    limits = shapely.bounds(degrees) + np.array([-_FAR_DEG, -_FAR_DEG, _FAR_DEG, _FAR_DEG])
    kept = geometries[near]
    far = ~shapely.within(kept, shapely.box(*limits))
    kept[far] = clip(kept[far], tuple(limits))
    local = grid.to_local(kept)
    touched = shapely.intersects(local, shapely.box(0, 0, *grid.size_m))
    ids, tags = table["object_id"].take(near).to_pylist(), table["tags"].take(near).to_pylist()
    objects, counts = [], Counts()
    for name, pairs, geometry, inside in zip(ids, tags, local, touched, strict=True):
        role = role_of(name, dict(pairs or ()))
        may_change = role != "coastline"  # A gap would turn land into sea.
        if role is None:
            counts.unseen += int(inside)
        elif may_change and unit_hash("omit", seed, name) < omit_share:
            counts.omitted[role] += int(inside)
        else:
            counts.painted[role] += int(inside)
            moved = may_change and unit_hash("displace", seed, name) < displace_share
            counts.displaced[role] += int(moved and inside)
            place = _displaced(geometry, seed, name) if moved else geometry
            objects.append(MapObject(name, dict(pairs), place, role))
    return objects, counts


def _displaced(geometry: shapely.Geometry, seed: int, name: str) -> shapely.Geometry:
    angle = 2 * math.pi * unit_hash("angle", seed, name)
    shift = (3 + 6 * unit_hash("metres", seed, name)) * np.array([math.cos(angle), math.sin(angle)])
    return shapely.transform(geometry, lambda xy: xy + shift)


_PROP_OF = {tag: prop for prop in PAINTER.props for tag in prop.tags}


def prop_of(tags: Tags) -> Prop | None:
    """What a node looks like, None where it is not seen."""
    pairs = (f"{key}={value}" for key, value in sorted(tags.items()))
    return next((_PROP_OF[pair] for pair in pairs if pair in _PROP_OF), None)


def role_of(object_id: str, tags: Tags) -> str | None:
    """The part an object plays in the painting, or None where an orthophoto does not show it.

    Roles: building, road, rail, area (any ground with a material), zone (land use that only says what kind of ground is
    between other things), coastline, stream, barrier, tree, tree_row, crossing, thing (small, by point).
    """
    if not tags or is_hidden(tags):
        return None
    if object_id[0] in "ar":
        return _area_role(tags)
    return _line_role(tags) if object_id[0] == "w" else _node_role(tags)


def _area_role(tags: Tags) -> str | None:
    built = is_yes(tags, "building") or is_yes(tags, "building:part") or tags.get("man_made") in PAINTER.built_areas
    if built or tags.get("amenity") == "shelter":
        return "building"
    if area_material(tags) is not None:
        return "area"
    zone = tags.get("landuse") in PAINTER.zones or tags.get("amenity") in PAINTER.zones
    return "zone" if zone else "barrier" if is_yes(tags, "barrier") else None


def _line_role(tags: Tags) -> str | None:
    if is_yes(tags, "highway") and tags["highway"] not in PAINTER.unseen_roads:
        return "road"
    pairs = {f"{key}={value}" for key, value in tags.items()}
    found = (role for role, those in PAINTER.lines if those & pairs)
    return next(found, "barrier" if is_yes(tags, "barrier") else None)


def _node_role(tags: Tags) -> str | None:
    if tags.get("natural") == "tree":
        return "tree"
    if tags.get("highway") == "crossing" and tags.get("crossing") not in {"unmarked", "no"}:
        return "crossing"
    return "thing" if prop_of(tags) else None
