"""Polygons that cut a region, read from `.poly` files (Osmosis, Geofabrik) and GeoJSON. Coordinates are EPSG:4326.

What a region does with its polygon belongs to `lib.osm.extract` and `lib.osm.objects`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SettingsError

MAX_VERTICES = 500_000
"""Most vertices of a polygon; Geofabrik's largest have some ten thousand."""

MAX_BYTES = 32 << 20
"""Largest file that is read: far more than `MAX_VERTICES` need."""

_WGS84_NAMES = ("CRS84", "EPSG::4326", "EPSG:4326")

Ring = list[tuple[float, float]]


class _WrongError(Exception):
    """What is wrong with a polygon, and where: a line, or a member of the GeoJSON."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}" if where else problem)


def read_polygon(path: Path) -> shapely.Polygon | shapely.MultiPolygon:
    """The ground that a `.poly` or GeoJSON file describes, its holes left out; overlapping parts become one.

    GeoJSON may be a Polygon, a MultiPolygon, a Feature or a FeatureCollection of them. The order of a ring's points
    does not matter, nor whether its first point is repeated at its end; heights are left out.

    Raises:
        SettingsError: the name's ending is neither `.poly`, `.geojson` nor `.json`.
        MissingInputError: the file does not exist or cannot be opened.
        CorruptInputError: it is too large, not what its ending says, or describes no valid polygon; the message has
            the line or the member at fault.
    """
    readers = {".poly": _poly_ground, ".geojson": _geojson_ground, ".json": _geojson_ground}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise SettingsError(f"{path} is no polygon: give a file that ends in {', '.join(readers)}")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CorruptInputError(
                f"{path} has {size} bytes, at most {MAX_BYTES} are read: simplify the polygon to what the ground needs"
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MissingInputError(f"the polygon {path} cannot be opened ({error.strerror}); correct its path") from error
    except UnicodeDecodeError as error:
        raise CorruptInputError(f"{path} is not UTF-8 text ({error}); give a .poly or GeoJSON file") from error
    try:
        return _whole(reader(text))
    except RecursionError:
        raise CorruptInputError(f"{path} is nested too deeply for GeoJSON; give a polygon") from None
    except _WrongError as error:
        raise CorruptInputError(f"{path}: {error}; correct the polygon") from None


def polygon_json(ground: shapely.Polygon | shapely.MultiPolygon) -> dict[str, Any]:
    """A polygon as a GeoJSON geometry."""
    geometry: dict[str, Any] = json.loads(shapely.to_geojson(ground))
    return geometry


def _area(where: str, ring: Ring) -> shapely.Polygon:
    """What a ring encloses."""
    different = len(set(ring))
    if different < 3:
        raise _WrongError(where, f"a ring of {different} different points, 3 are needed")
    if different > MAX_VERTICES:
        raise _WrongError(where, f"{different} vertices, at most {MAX_VERTICES} are used: simplify the polygon")
    area = shapely.Polygon(ring)
    if not area.is_valid:
        raise _WrongError(where, f"the ring is not valid: {shapely.is_valid_reason(area)}")
    return area


def _whole(ground: Any) -> shapely.Polygon | shapely.MultiPolygon:
    """The finished polygon, once it is seen to be of use."""
    vertices = int(shapely.get_num_coordinates(ground))
    if vertices == 0:
        raise _WrongError("", "there is no ring, or the holes leave nothing of the polygon")
    if vertices > MAX_VERTICES:
        raise _WrongError("", f"{vertices} vertices, at most {MAX_VERTICES} are used: simplify the polygon")
    return shapely.orient_polygons(shapely.normalize(ground))


def _position(x: float, y: float, where: str) -> tuple[float, float]:
    """A point, once it is seen to lie on the Earth."""
    if not (abs(x) <= 180 and abs(y) <= 90):
        raise _WrongError(where, f"{f'{x} {y}'[:40]} is no longitude and latitude in degrees")
    return x, y


# ---------------------------------------------------------------------------------------------------------------- .poly


def _poly_ground(text: str) -> Any:
    """Rings are added, and holes taken away, in the order in which they stand, as Osmosis does."""
    ground = shapely.Polygon()
    for hole, rings in itertools.groupby(_poly_rings(text), key=lambda ring: ring[1].startswith("!")):
        area = shapely.union_all([_area(where, ring) for where, _, ring in rings])
        ground = ground.difference(area) if hole else ground.union(area)
    return ground


def _poly_rings(text: str) -> Iterator[tuple[str, str, Ring]]:
    """Sections of a `.poly` file: a name, then rings, each after its own name (`!` marks a hole)."""
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    rest = iter([(where, line) for where, line in lines if line])
    if next(rest, None) is None:
        raise _WrongError("", "the file is empty")
    for where, name in rest:
        if name == "END":
            break
        yield where, name, _poly_ring(rest, where, name)
    else:
        raise _WrongError("", "the last END is missing: the file is cut")
    for where, line in rest:
        raise _WrongError(where, f"{line[:40]!r} stands after the last END")


def _poly_ring(rest: Iterator[tuple[str, str]], begins: str, name: str) -> Ring:
    ring: Ring = []
    for where, line in rest:
        if line == "END":
            return ring
        try:
            x, y = map(float, line.split())
        except ValueError:
            raise _WrongError(where, f"{line[:40]!r} is no pair of longitude and latitude") from None
        ring.append(_position(x, y, where))
    raise _WrongError(begins, f"the END of ring {name[:40]!r} is missing: the file is cut")


# -------------------------------------------------------------------------------------------------------------- GeoJSON


def _geojson_ground(text: str) -> Any:
    """The polygons together; a polygon's holes are taken from it alone."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise _WrongError(f"line {error.lineno}, column {error.colno}", f"this is not JSON ({error.msg})") from None
    except ValueError as error:  # a number of thousands of digits
        raise _WrongError("", f"this is not JSON ({error})") from None
    crs = document.get("crs") if isinstance(document, dict) else None
    if crs is not None and not any(name in json.dumps(crs) for name in _WGS84_NAMES):
        raise _WrongError("crs", f"{json.dumps(crs)[:80]}; coordinates must be longitude and latitude (EPSG:4326)")
    polygons = []
    for where, rings in _geojson_polygons(document, ""):
        areas = [_area(f"{where}[{i}]", _geojson_ring(ring, f"{where}[{i}]")) for i, ring in enumerate(rings)]
        polygons += [areas[0].difference(shapely.union_all(areas[1:]))] if areas else []
    return shapely.union_all(polygons)


def _geojson_polygons(value: Any, where: str) -> Iterator[tuple[str, list[Any]]]:
    """Coordinates of every polygon, with the place where they stand."""
    kind = value.get("type") if isinstance(value, dict) else None
    dot = f"{where}." if where else ""
    if kind == "FeatureCollection":
        for i, feature in enumerate(_list(value.get("features"), f"{dot}features")):
            yield from _geojson_polygons(feature, f"{dot}features[{i}]")
    elif kind == "Feature":
        yield from _geojson_polygons(value.get("geometry"), f"{dot}geometry")
    elif kind == "Polygon":
        yield f"{dot}coordinates", _list(value.get("coordinates"), f"{dot}coordinates")
    elif kind == "MultiPolygon":
        for i, polygon in enumerate(_list(value.get("coordinates"), f"{dot}coordinates")):
            yield f"{dot}coordinates[{i}]", _list(polygon, f"{dot}coordinates[{i}]")
    else:
        found = repr(kind) if isinstance(value, dict) else type(value).__name__
        allowed = "Polygon, MultiPolygon, Feature or FeatureCollection"
        raise _WrongError(where, f"a {allowed} is needed, its type is {found}")


def _geojson_ring(value: Any, where: str) -> Ring:
    ring = []
    for i, position in enumerate(_list(value, where)):
        place = f"{where}[{i}]"
        numbers = _list(position, place)[:2]
        if len(numbers) < 2 or not all(type(number) in (int, float) for number in numbers):
            raise _WrongError(place, f"{json.dumps(position)[:40]} is no pair of longitude and latitude")
        ring.append(_position(numbers[0], numbers[1], place))
    return ring


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _WrongError(where, f"a list is needed, this is {json.dumps(value)[:40]}")
    return value
