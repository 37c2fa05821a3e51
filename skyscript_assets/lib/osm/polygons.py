"""The polygon that cuts a region, read from a vector file of any usual format or a `.poly` file (Osmosis, Geofabrik).

What a region does with its polygon belongs to `lib.osm.extract` and `lib.osm.objects`.
"""

import hashlib
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import shapely
from shapely.affinity import translate

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SettingsError
from skyscript_assets.lib.files import file_sha256

MAX_VERTICES = 500_000
"""Most vertices of a polygon; Geofabrik's largest have some ten thousand."""

MAX_BYTES = 32 << 20
"""Largest file that is read: far more than `MAX_VERTICES` need."""

LAYERED = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml", ".gml")
"""Endings of the formats that are read with GDAL."""

PARQUET = (".parquet", ".geoparquet")

BENDS = 100
"""Edges in a projected CRS become pieces of at most a hundredth of the polygon's extent, so that they can bend."""

Ground: TypeAlias = shapely.Polygon | shapely.MultiPolygon

_PROBLEMS = (RuntimeError, ValueError, TypeError, KeyError, OSError, shapely.GEOSException, pa.ArrowException)
"""What pyogrio, geopandas, GEOS and Arrow raise of files that are not what they seem."""


class _WrongError(Exception):
    """What is wrong with a polygon, behind where: a line, or a layer and its feature."""


def read_polygon(path: Path) -> Ground:
    """The ground that a file describes, EPSG:4326, its holes left out; overlapping polygons become one.

    A `.poly` file is in degrees. A vector file (GeoJSON, GeoPackage, shapefile, FlatGeobuf, KML, GML, GeoParquet) is in
    the CRS that it states, and all features of its one layer count. The order of a ring's points does not matter, nor
    whether its first point is repeated at its end; heights are left out.

    Raises:
        SettingsError: the name's ending is none that is read.
        MissingInputError: the file does not exist or cannot be opened.
        CorruptInputError: it is too large, not what its ending says, or describes no valid polygon; the message has
            the line, or the layer and the feature, at fault.
    """
    suffix, endings = path.suffix.lower(), (".poly", *LAYERED, *PARQUET)
    if suffix not in endings:
        raise SettingsError(f"{path} is no polygon: give a file that ends in {', '.join(endings)}")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
    except OSError as error:
        raise MissingInputError(f"the polygon {path} cannot be opened ({error.strerror}); correct its path") from error
    if size > MAX_BYTES:
        raise CorruptInputError(
            f"{path} has {size} bytes, at most {MAX_BYTES} are read: simplify the polygon to what the ground needs"
        )
    try:
        ground = _poly_ground(path) if suffix == ".poly" else _vector_ground(path)
        vertices = int(shapely.get_num_coordinates(ground))
        if vertices == 0:
            raise _WrongError("there is no ring, or the holes leave nothing of the polygon")
        if vertices > MAX_VERTICES:
            raise _WrongError(f"{vertices} vertices, at most {MAX_VERTICES} are used: simplify the polygon")
    except _WrongError as error:
        raise CorruptInputError(f"{path}: {error}; correct the polygon") from None
    except _PROBLEMS as error:
        problem = str(error).partition("; It might help")[0]
        raise CorruptInputError(f"{path} cannot be read as {suffix} ({problem}); correct the polygon") from error
    return shapely.orient_polygons(shapely.normalize(_in_one_piece(ground)))


def _in_one_piece(ground: Any) -> Any:
    """Ground that is cut at 180 degrees (RFC 7946, 3.1.9) whose western part is moved beyond them, unless wide."""
    parts = shapely.get_parts(ground)
    joined = shapely.union_all([translate(part, 360.0) if part.bounds[2] <= 0 else part for part in parts])
    (west, _, east, _), (low, _, high, _) = ground.bounds, joined.bounds
    return joined if east - west > 180.0 and high - low <= 90.0 else ground


def polygon_digest(path: Path) -> str | None:
    """Digest of what `read_polygon` reads, with a shapefile its CRS; None where it cannot be read."""
    try:
        digest, crs = file_sha256(path), path.with_suffix(".prj")
        if path.suffix.lower() != ".shp" or not crs.is_file():
            return digest
        return hashlib.sha256((digest + file_sha256(crs)).encode()).hexdigest()
    except OSError:
        return None


def _vector_ground(path: Path) -> Any:
    """The polygons of a vector file together; a polygon's holes are taken from it alone."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        where, shapes = _read_layer(path)
    # A polygon of a MultiPolygon that GDAL cannot read, it would leave out.
    if lost := [str(warning.message) for warning in warned if "OGRGeoJSON" in str(warning.message)]:
        raise _WrongError(f"{where}: {lost[0]}")
    if shapes.crs is None:
        raise _WrongError(f"{where}: it states no CRS: save it with one (beside a shapefile that is its .prj file)")
    other = ~shapes.geom_type.isin(["Polygon", "MultiPolygon"]).to_numpy()
    if other.any():
        found = shapes[other].geom_type.iloc[0] or "no geometry"
        raise _WrongError(f"{where}, feature {other.argmax() + 1}: a polygon is needed, it has {found}")
    # Their index is that of the features.
    polygons = shapes.force_2d().set_crs(shapes.crs.to_2d(), allow_override=True).explode()
    wrong = (polygons.is_empty | ~polygons.is_valid).to_numpy()
    if wrong.any():
        polygon = polygons[wrong].iloc[0]
        reason = "it is empty" if polygon.is_empty else shapely.is_valid_reason(polygon)
        raise _WrongError(f"{where}, feature {polygons.index[wrong][0] + 1}: the polygon is not valid: {reason}")
    if polygons.crs.is_projected:
        west, south, east, north = polygons.total_bounds
        polygons = polygons.segmentize(max(east - west, north - south) / BENDS)
    polygons = polygons.to_crs(4326)
    outside = ~(abs(polygons.bounds.to_numpy()) <= (180, 90, 180, 90)).all(axis=1)
    if outside.any():
        box = ", ".join(f"{side:g}" for side in polygons[outside].bounds.iloc[0])
        raise _WrongError(
            f"{where}, feature {polygons.index[outside][0] + 1}: its box ({box}) is none in degrees: "
            "state the CRS that its coordinates are in"
        )
    return polygons.union_all()


def _read_layer(path: Path) -> tuple[str, Any]:
    """The one layer of a vector file that has geometry: its name for messages, and its geometry as a GeoSeries."""
    import geopandas

    if path.suffix.lower() in PARQUET:
        return "its table", geopandas.read_parquet(path).geometry.reset_index(drop=True)
    layers = geopandas.list_layers(path).dropna()["name"].to_list()
    if len(layers) != 1:
        names = ", ".join(map(repr, layers[:9]))
        raise _WrongError(f"one layer with geometry is needed, it has {len(layers)} ({names}): save the right one")
    return f"layer {layers[0]!r}", geopandas.read_file(path, layer=layers[0], columns=[], on_invalid="fix").geometry


def _poly_ground(path: Path) -> Any:
    """Rings of a `.poly` file are added, and holes taken away, in the order in which they stand, as Osmosis does."""
    ground = shapely.Polygon()
    text = path.read_text(encoding="utf-8-sig")
    for hole, rings in itertools.groupby(_poly_rings(text), key=lambda ring: ring[0].startswith("!")):
        area = shapely.union_all([ring for _, ring in rings])
        ground = ground.difference(area) if hole else ground.union(area)
    return ground


def _poly_rings(text: str) -> Iterator[tuple[str, Any]]:
    """Sections of a `.poly` file: a name, then rings, each after its own name (`!` marks a hole)."""
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    rest = iter([(where, line) for where, line in lines if line])
    if next(rest, None) is None:
        raise _WrongError("the file is empty")
    for where, name in rest:
        if name == "END":
            break
        yield name, _poly_ring(rest, where, name)
    else:
        raise _WrongError("the last END is missing: the file is cut")
    for where, line in rest:
        raise _WrongError(f"{where}: {line[:40]!r} stands after the last END")


def _poly_ring(rest: Iterator[tuple[str, str]], begins: str, name: str) -> Any:
    """What a ring encloses."""
    ring: list[tuple[float, float]] = []
    for where, line in rest:
        if line == "END":
            break
        try:
            x, y = map(float, line.split())
        except ValueError:
            raise _WrongError(f"{where}: {line[:40]!r} is no pair of longitude and latitude") from None
        if not (abs(x) <= 180 and abs(y) <= 90):
            raise _WrongError(f"{where}: {f'{x} {y}'[:40]} is no longitude and latitude in degrees")
        ring.append((x, y))
    else:
        raise _WrongError(f"{begins}: the END of ring {name[:40]!r} is missing: the file is cut")
    if len(set(ring)) < 3:
        raise _WrongError(f"{begins}: a ring of {len(set(ring))} different points, 3 are needed")
    area = shapely.Polygon(ring)
    if not area.is_valid:
        raise _WrongError(f"{begins}: the ring is not valid: {shapely.is_valid_reason(area)}")
    return area
