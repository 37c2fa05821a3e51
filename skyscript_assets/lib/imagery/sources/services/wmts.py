"""WMTS 1.0.0 (OGC 07-057r7): capabilities to a grid and a template, by parameters (KVP) or resource addresses."""

import re
from urllib.parse import quote
from xml.etree.ElementTree import Element

import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import metres_per_unit, parse_crs
from skyscript_assets.lib.imagery.sources.services.client import Client, followed, with_query
from skyscript_assets.lib.imagery.sources.services.grid import TileGrid, TileRange, nearest_grid
from skyscript_assets.lib.imagery.sources.services.layer import (
    WORLD,
    ServedLayer,
    box_of,
    choose,
    choose_format,
    dimension_values,
)
from skyscript_assets.lib.imagery.sources.services.settings import WmtsSource, places_of
from skyscript_assets.lib.imagery.sources.services.xml import text_at

PIXEL_M = 0.00028
"""Side in metres of the pixel that scale denominators are stated for (OGC 07-057r7, 6.1)."""

MAX_TILE_PX = 4096


def served_by_wmts(source: WmtsSource, key: str, ground: shapely.Geometry, client: Client) -> ServedLayer:
    """The layer of a WMTS at the resolution nearest to the wanted one: see `Served`.

    The source's address is that of the service or of its capabilities.
    """
    url = source.url
    if not url.partition("?")[0].endswith(".xml"):
        url = with_query(url, {"SERVICE": "WMTS", "REQUEST": "GetCapabilities", "VERSION": "1.0.0"})
    capabilities = client.capabilities(url, "WMTS", ("Capabilities",))
    layers = {text_at(layer, "Identifier"): layer for layer in capabilities.iterfind("Contents/Layer")}
    layer = layers[choose(source.layer, list(layers), None, f"sources.yaml: {key}.layer")]
    grids = _grids(source, key, capabilities, layer, ground)
    best = nearest_grid([grid for _, grid in grids], source.gsd_m, ground, f"source {key}, layer {source.layer!r}")
    matrix_set = next(name for name, grid in grids if grid is best)
    defaults = {
        text_at(entry, "Identifier"): text_at(entry, "Default") or None for entry in layer.iterfind("Dimension")
    }
    values, moment = dimension_values(source, defaults, key)
    template = _template(source, key, url, capabilities, layer)
    for name, value in (values | {"TileMatrixSet": matrix_set, "TileMatrix": best.name}).items():
        template = template.replace(f"{{{name}}}", quote(value, safe=":"))
    if unknown := places_of(template) - {"{x}", "{y}"}:
        raise SceneError(
            f"source {key}: its address of tiles has a place {min(unknown)} that the service says nothing of"
        )
    terms = text_at(capabilities, "ServiceIdentification/AccessConstraints")
    corners = " ".join(text_at(layer, f"WGS84BoundingBox/{corner}Corner") for corner in ("Lower", "Upper"))
    return ServedLayer(best, client.keyless(template), box_of(corners.split()) or WORLD, moment, terms=terms)


def _grids(
    source: WmtsSource, key: str, capabilities: Element, layer: Element, ground: shapely.Geometry
) -> list[tuple[str, TileGrid]]:
    """The matrices of a layer's matrix sets in a projected CRS over the ground, each with the name of its set."""
    links = {text_at(link, "TileMatrixSet"): link for link in layer.iterfind("TileMatrixSetLink")}
    names = list(links)
    if source.matrix_set is not None:
        names = [choose(source.matrix_set, names, None, f"sources.yaml: {key}.matrix_set")]
    described = {text_at(entry, "Identifier"): entry for entry in capabilities.iterfind("Contents/TileMatrixSet")}
    grids: list[tuple[str, TileGrid]] = []
    systems = {name: text_at(described[name], "SupportedCRS") if name in described else "" for name in names}
    for name, stated in systems.items():
        try:
            crs = parse_crs(stated)
        except CRSError:
            continue
        if not crs.is_projected:  # it has no square pixels
            continue
        # In URNs coordinates have the order of the CRS (OGC 07-092r3): corners may be stated as (north, east).
        swaps = not stated.upper().startswith(("EPSG:", "ESRI:")) and is_northing_first(crs)
        found = (_grid(matrix, links[name], crs, swaps, ground) for matrix in described[name].iterfind("TileMatrix"))
        grids += [(name, grid) for grid in found if grid is not None]
    if not grids:
        raise SceneError(
            f"source {key}: layer {source.layer!r} has no matrix set in a projected CRS that is known here among "
            f"{', '.join(f'{name} ({stated})' for name, stated in systems.items()) or 'none'}; choose another one with "
            "matrix_set"
        )
    # Sets of neighbouring zones may lie beside the region.
    return [(name, grid) for name, grid in grids if grid.tiles_over(ground) is not None] or grids


def is_northing_first(crs: CRS) -> bool:
    """Whether the first axis of a CRS points north or south."""
    return bool(crs.axis_info) and crs.axis_info[0].direction in ("north", "south")


def _grid(matrix: Element, link: Element, crs: CRS, swaps: bool, ground: shapely.Geometry) -> TileGrid | None:
    """One matrix, None where its numbers are none."""
    try:
        first, second = (float(number) for number in text_at(matrix, "TopLeftCorner").split())
        tile = (int(text_at(matrix, "TileWidth")), int(text_at(matrix, "TileHeight")))
        size = (int(text_at(matrix, "MatrixWidth")), int(text_at(matrix, "MatrixHeight")))
        pixel = float(text_at(matrix, "ScaleDenominator")) * PIXEL_M / metres_per_unit(crs)
    except ValueError:
        return None
    if not (min(tile) > 0 and max(tile) <= MAX_TILE_PX and min(size) > 0 and 0 < pixel < 1e9):
        return None
    name = text_at(matrix, "Identifier")
    limits = _limits(link, name, TileRange(0, 0, *size))
    corners = [(second, first), (first, second)] if swaps else [(first, second), (second, first)]
    grids = [TileGrid(name, crs, left, top, pixel, *tile, limits) for left, top in corners]
    # Some services state corners in the other order than their CRS has; then the grid lies elsewhere altogether.
    rightly, otherwise = (grid.tiles_over(ground) is not None for grid in grids)
    return grids[1] if otherwise and not rightly else grids[0]


def _limits(link: Element, name: str, whole: TileRange) -> TileRange:
    """The tiles that a layer has of a matrix (TileMatrixSetLimits), all where it does not say."""
    for entry in link.iterfind("TileMatrixSetLimits/TileMatrixLimits"):
        if text_at(entry, "TileMatrix") == name:
            try:
                low = (int(text_at(entry, "MinTileCol")), int(text_at(entry, "MinTileRow")))
                high = (int(text_at(entry, "MaxTileCol")), int(text_at(entry, "MaxTileRow")))
            except ValueError:
                continue
            columns, rows = min(high[0], whole.columns - 1) - low[0] + 1, min(high[1], whole.rows - 1) - low[1] + 1
            if min(low) >= 0 and min(columns, rows) > 0:
                return TileRange(*low, columns, rows)
    return whole


def _template(source: WmtsSource, key: str, url: str, capabilities: Element, layer: Element) -> str:
    """Address of a tile with places for matrix set, matrix and dimensions, and {x} and {y} for column and row."""
    resources = [entry for entry in layer.iterfind("ResourceURL") if entry.attrib.get("resourceType") == "tile"]
    formats = [text_at(value) for value in layer.iterfind("Format")]
    wanted = choose_format(source, formats or [entry.attrib.get("format", "") for entry in resources], key)
    style = _style(source, key, layer)
    for entry in resources:
        template = entry.attrib.get("template", "")
        if entry.attrib.get("format") == wanted and "{TileRow}" in template and "{TileCol}" in template:
            template = followed(url, template).replace("{TileCol}", "{x}").replace("{TileRow}", "{y}")
            return re.sub(r"\{style\}", quote(style), template, flags=re.IGNORECASE)
    parameters = {"SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0"}
    parameters |= {"LAYER": source.layer, "STYLE": style, "FORMAT": wanted}
    parameters |= {"TILEMATRIXSET": "{TileMatrixSet}", "TILEMATRIX": "{TileMatrix}"}
    parameters |= {"TILEROW": "{y}", "TILECOL": "{x}"}
    names = (text_at(entry, "Identifier") for entry in layer.iterfind("Dimension"))
    return with_query(_kvp_url(capabilities, url), parameters | {name: f"{{{name}}}" for name in names})


def _style(source: WmtsSource, key: str, layer: Element) -> str:
    styles = [(text_at(style, "Identifier"), style.attrib.get("isDefault")) for style in layer.iterfind("Style")]
    names = [name for name, _ in styles]
    default = next((name for name, is_default in styles if is_default in ("true", "1")), None)
    return choose(source.style, names, default, f"sources.yaml: {key}.style") if names else source.style or "default"


def _kvp_url(capabilities: Element, url: str) -> str:
    """Where GetTile is asked by parameters: as the capabilities say, else where these came from."""
    for operation in capabilities.iterfind("OperationsMetadata/Operation"):
        if operation.attrib.get("name") == "GetTile":
            for get in operation.iterfind("DCP/HTTP/Get"):
                encodings = [text_at(value) for value in get.iter("Value")]
                if get.attrib.get("href") and (not encodings or "KVP" in encodings):
                    return followed(url.partition("?")[0], get.attrib["href"], same_host=True)
    return url.partition("?")[0]
