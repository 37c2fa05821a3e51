"""WCS 2.0 (OGC 09-110r4): a coverage at its own resolution, cut along its own pixels into subsets, like tiles."""

from urllib.parse import quote
from xml.etree.ElementTree import Element

import shapely
from pyproj.exceptions import CRSError

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import parse_crs
from skyscript_assets.lib.imagery.sources.services.client import Client, with_query
from skyscript_assets.lib.imagery.sources.services.grid import TileGrid, TileRange, nearest_grid
from skyscript_assets.lib.imagery.sources.services.layer import WORLD, ServedLayer, dimension_values
from skyscript_assets.lib.imagery.sources.services.settings import WcsSource
from skyscript_assets.lib.imagery.sources.services.wmts import is_northing_first
from skyscript_assets.lib.imagery.sources.services.xml import text_at

VERSION = "2.0.1"


def served_by_wcs(source: WcsSource, key: str, ground: shapely.Geometry, client: Client) -> ServedLayer:
    """A coverage of a WCS (`layer`): see `Served`; an edge that is narrower than a subset is left out.

    `dimensions` are values of axes besides the two of the ground, such as time. A SceneError, too, is a coverage
    without square pixels in a projected CRS, or of another resolution.
    """
    asked = {"SERVICE": "WCS", "VERSION": VERSION, "COVERAGEID": source.layer}
    described = client.capabilities(
        with_query(source.url, asked | {"REQUEST": "DescribeCoverage"}), "WCS", ("CoverageDescriptions",)
    )
    coverage = described.find("CoverageDescription")
    try:
        if coverage is None:
            raise ValueError("it describes no coverage")
        grid, labels, times = _grid(coverage, source.tile_px)
    except (ValueError, KeyError, CRSError) as error:
        raise SceneError(
            f"source {key}: coverage {source.layer!r} has no grid that is read here ({error}); correct sources.yaml: "
            f"{key}.layer"
        ) from error
    nearest_grid([grid], source.gsd_m, ground, f"source {key}, coverage {source.layer!r},")
    values, moment = dimension_values(source, times, key)
    template = with_query(source.url, asked | {"REQUEST": "GetCoverage", "FORMAT": "image/tiff"})
    subsets = [f"{labels[0]}({{west}},{{east}})", f"{labels[1]}({{south}},{{north}})"]
    subsets += [f'{name}("{value}")' for name, value in values.items()]
    template += "".join(f"&SUBSET={quote(subset, safe='(),{}:')}" for subset in subsets)
    return ServedLayer(grid, client.keyless(template), WORLD, moment)


def _grid(coverage: Element, tile_px: int) -> tuple[TileGrid, tuple[str, str], dict[str, str | None]]:
    """The grid of a coverage, the labels of its axes x and y, and the last value of each other axis, such as time."""
    envelope = next(element for name in ("Envelope", "EnvelopeWithTimePeriod") for element in coverage.iter(name))
    labels = envelope.attrib["axisLabels"].split()
    lower, upper = (text_at(envelope, f"{name}Corner").split() for name in ("lower", "upper"))
    if len(labels) != len(lower) or len(labels) != len(upper):
        raise ValueError("its corners do not fit its axes")
    # The CRS of the ground comes first where a compound name also has one of time.
    crs = parse_crs(envelope.attrib["srsName"].partition("&")[0].rpartition("1=")[2])
    steps = [[float(step) for step in (element.text or "").split()] for element in coverage.iter("offsetVector")]
    ground = [index for index, corner in enumerate(lower) if _is_number(corner)][:2]
    sizes = {abs(step) for vector in steps for step in vector if step}
    if not crs.is_projected or len(ground) != 2 or len(sizes) != 1:
        raise ValueError("it needs square pixels in a projected CRS")
    x, y = ground[::-1] if is_northing_first(crs) else ground
    (pixel,) = sizes
    left, top = float(lower[x]), float(upper[y])
    columns, rows = (int((float(upper[axis]) - float(lower[axis])) / (pixel * tile_px) + 1e-6) for axis in (x, y))
    grid = TileGrid(crs.to_string(), crs, left, top, pixel, tile_px, tile_px, TileRange(0, 0, columns, rows))
    others = {label: upper[index].strip('"') for index, label in enumerate(labels) if index not in ground}
    return grid, (labels[x], labels[y]), dict(others)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
