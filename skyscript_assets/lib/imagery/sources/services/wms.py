"""WMS 1.1.1 (OGC 01-068r3) and 1.3.0 (OGC 06-042): a layer cut into maps that lie on one grid, like tiles."""

from collections.abc import Iterator
from dataclasses import replace
from xml.etree.ElementTree import Element

import shapely
from pyproj import CRS

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import TRUE_TO_SCALE, crs_label, metres_per_unit, parse_crs, utm_crs
from skyscript_assets.lib.imagery.sources.services.client import Client, followed, with_query
from skyscript_assets.lib.imagery.sources.services.grid import TileGrid
from skyscript_assets.lib.imagery.sources.services.layer import (
    WORLD,
    ServedLayer,
    box_of,
    choose,
    choose_format,
    dimension_values,
)
from skyscript_assets.lib.imagery.sources.services.settings import WmsSource
from skyscript_assets.lib.imagery.sources.services.wmts import is_northing_first
from skyscript_assets.lib.imagery.sources.services.xml import text_at

Path = tuple[Element, ...]
"""A layer with the layers around it, outermost first: what they state holds for it too (OGC 06-042, 7.2.4.8)."""


def served_by_wms(source: WmsSource, key: str, ground: shapely.Geometry, client: Client) -> ServedLayer:
    """The layer of a WMS on a grid of the wanted resolution: see `Served`.

    The grid starts at the origin of the CRS, so that regions and runs that meet share it.
    """
    url = with_query(source.url, {"SERVICE": "WMS", "REQUEST": "GetCapabilities", "VERSION": source.version})
    capabilities = client.capabilities(url, "WMS", ("WMS_Capabilities", "WMT_MS_Capabilities"))
    version = capabilities.attrib.get("version", source.version)
    if version != source.version:
        raise SceneError(
            f"source {key}: the WMS speaks version {version}; state sources.yaml: {key}.version: {version}"
        )
    layers = {text_at(path[-1], "Name"): path for path in _layers(capabilities, "Capability/Layer")}
    path = layers[choose(source.layer, [name for name in layers if name], None, f"sources.yaml: {key}.layer")]
    name, crs = _crs(source, key, path, ground)
    grid = _grid(source, capabilities, TileGrid(name, crs, 0.0, 0.0, 1.0, 0, 0, None), ground)
    values, moment = dimension_values(source, _dimensions(path), key)
    resources = capabilities.iterfind("Capability/Request/GetMap/DCPType/HTTP/Get/OnlineResource")
    stated = next(filter(None, (resource.attrib.get("href") for resource in resources)), None)
    address = followed(source.url, stated, same_host=True) if stated else source.url
    template = with_query(address, _parameters(source, key, capabilities, path, grid) | _named(values))
    swaps = source.version == "1.3.0" and is_northing_first(crs)
    facts, terms = {"axes": "yx" if swaps else "xy"}, text_at(capabilities, "Service/AccessConstraints")
    return ServedLayer(grid, client.keyless(template), _ground(path), moment, facts, terms)


def _layers(parent: Element, where: str = "Layer", around: Path = ()) -> Iterator[Path]:
    for layer in parent.iterfind(where):
        yield (*around, layer)
        yield from _layers(layer, around=(*around, layer))


def _crs(source: WmsSource, key: str, path: Path, ground: shapely.Geometry) -> tuple[str, CRS]:
    """What the service calls the CRS to ask for, and this: the settings', the region's UTM zone, or Web Mercator."""
    tag = "CRS" if source.version == "1.3.0" else "SRS"
    # In 1.1.1 one element may list several.
    names = (name for layer in path for entry in layer.iterfind(tag) for name in text_at(entry).split())
    offered = {crs_label(name): name for name in names}
    centre = shapely.centroid(ground)
    utm = int(utm_crs(centre.x, centre.y).to_epsg() or 0)
    natural = [f"EPSG:258{utm % 100:02}", f"EPSG:{utm}", "EPSG:3857"]
    usable = next((name for name in natural if name in offered), None)
    if source.crs is None and usable is None:
        shown = ", ".join(sorted(offered)[:20]) or "none"
        raise SceneError(f"source {key}: state sources.yaml: {key}.crs, a projected one; the layer comes in {shown}")
    name = choose(source.crs, sorted(offered), usable, f"sources.yaml: {key}.crs")
    crs = parse_crs(name)
    if not crs.is_projected:
        raise SceneError(f"sources.yaml: {key}.crs: {name} has no square pixels; choose a projected one")
    return offered[name], crs


def _grid(source: WmsSource, capabilities: Element, units: TileGrid, ground: shapely.Geometry) -> TileGrid:
    """A grid of units of its CRS with pixels of the wanted size at the region's centre, in maps that are allowed."""
    side = source.tile_px
    for name in ("MaxWidth", "MaxHeight"):
        stated = text_at(capabilities, f"Service/{name}")
        if stated.isascii() and stated.isdigit() and int(stated) > 0:
            side = min(side, int(stated))
    unit_m, ground_m = metres_per_unit(units.crs), units.gsd_m(ground)
    # Pixels are those of the service itself where its CRS is true to scale.
    pixel = source.gsd_m / (unit_m if abs(ground_m / unit_m - 1.0) <= TRUE_TO_SCALE else ground_m)
    return replace(units, pixel=pixel, tile_width=side, tile_height=side)


def _dimensions(path: Path) -> dict[str, str | None]:
    """Default of each dimension, None where it has none: attributes of Dimension (1.3.0) or Extent (1.1.1)."""
    found: dict[str, str | None] = {}
    for layer in path:
        for entry in [*layer.iterfind("Dimension"), *layer.iterfind("Extent")]:
            name = entry.attrib.get("name", "").lower()
            if name:
                found[name] = entry.attrib.get("default") or found.get(name)
    return found


def _named(values: dict[str, str]) -> dict[str, str]:
    """Parameters of dimensions: TIME and ELEVATION as they are, others with DIM_ (OGC 06-042, C.3)."""
    return {name.upper() if name in ("time", "elevation") else f"DIM_{name.upper()}": values[name] for name in values}


def _parameters(source: WmsSource, key: str, capabilities: Element, path: Path, grid: TileGrid) -> dict[str, str]:
    formats = [text_at(entry) for entry in capabilities.iterfind("Capability/Request/GetMap/Format")]
    wanted = choose_format(source, formats, key)
    names = [text_at(style, "Name") for layer in path for style in layer.iterfind("Style")]
    style = choose(source.style, names, "", f"sources.yaml: {key}.style") if source.style else ""
    parameters = {"SERVICE": "WMS", "REQUEST": "GetMap", "VERSION": source.version}
    parameters |= {"LAYERS": source.layer, "STYLES": style, "FORMAT": wanted}
    parameters |= {"CRS" if source.version == "1.3.0" else "SRS": grid.name, "BBOX": "{bbox}"}
    parameters |= {"WIDTH": str(grid.tile_width), "HEIGHT": str(grid.tile_height)}
    if source.transparent and wanted != "image/jpeg":
        parameters["TRANSPARENT"] = "TRUE"
    return parameters


def _ground(path: Path) -> shapely.Geometry:
    """Where the layer has images: its own geographic box, else that of the layers around it, else the world."""
    for layer in reversed(path):
        older = layer.find("LatLonBoundingBox")
        names = ("westBoundLongitude", "southBoundLatitude", "eastBoundLongitude", "northBoundLatitude")
        sides = [text_at(layer, f"EX_GeographicBoundingBox/{name}") for name in names]
        if older is not None and not any(sides):
            sides = [older.attrib.get(name, "") for name in ("minx", "miny", "maxx", "maxy")]
        if (found := box_of(sides)) is not None:
            return found
    return WORLD
