"""A server on this machine that speaks XYZ, WMTS, WMS and WCS, and can fail in every way that services do.

Its picture is known in every pixel (`painted`): a function of the absolute column and row of a grid, so that a pixel
that lands elsewhere, or an axis that is turned round, shows.
"""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.serving import serving


def painted(column: int, row: int, width: int, height: int) -> NDArray[np.uint8]:
    """RGB (height, width, 3) of a part of the picture that begins at an absolute pixel."""
    columns, rows = np.meshgrid(np.arange(column, column + width), np.arange(row, row + height))
    return np.stack([columns % 251, rows % 241, (columns // 251 * 7 + rows // 241 * 13) % 256], axis=2).astype(np.uint8)


def encoded(pixels: NDArray[Any], format: str = "PNG", **options: Any) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


class TileServer(ThreadingHTTPServer):
    """Serves tiles and maps.

    `faults` are what becomes of a tile by its column and row: (status, headers, body), or "stall", or "cut". `refusals`
    come before, one for each of the next requests. `key` must be in every request where it is not empty. `tiles` are
    the tiles asked for, `requests` all paths with their headers.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tile_px = 256
        self.origin = (0, 0)
        self.documents: dict[str, str] = {}
        self.faults: dict[tuple[int, int], Any] = {}
        self.everything: Any = None
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.key = ""
        self.media_type, self.format = "image/png", "PNG"
        self.tiles: list[tuple[int, int]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.maps: Callable[[dict[str, str]], tuple[int, int, int, int]] | None = None
        self.draw = painted
        self.release = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: TileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        parts = urlsplit(self.path)
        query: dict[str, str] = {}
        for name, value in parse_qsl(parts.query):
            query[name.upper()] = f"{query[name.upper()]};{value}" if name.upper() in query else value
        if server.key and server.key not in (*query.values(), *self.headers.values(), *unquote(parts.path).split("/")):
            self.answer(403, b"no key", {})
        elif server.refusals:
            status, headers = server.refusals.pop(0)
            self.answer(status, b"busy", headers)
        elif query.get("REQUEST") in ("GetMap", "GetCoverage") and server.maps is not None:
            self.tile(*server.maps(query))
        elif query.get("REQUEST") == "GetTile":
            self.numbered(int(query["TILECOL"]), int(query["TILEROW"]))
        elif parts.path in server.documents or query.get("REQUEST") in ("GetCapabilities", "DescribeCoverage"):
            document = server.documents.get(parts.path, "")
            self.answer(200 if document else 404, document.encode(), {"Content-Type": "application/xml"})
        else:
            # /{anything}/{column}/{row}.png
            column, row = parts.path.rpartition(".")[0].split("/")[-2:]
            self.numbered(int(column), int(row))

    def numbered(self, column: int, row: int) -> None:
        side = self.server.tile_px
        self.tile(column * side, row * side, side, side)

    def tile(self, column: int, row: int, width: int, height: int) -> None:
        """A part of the picture, from an absolute pixel on."""
        place = (column // width, row // height)
        self.server.tiles.append(place)
        fault = self.server.faults.get(place, self.server.everything)
        body = encoded(self.server.draw(column, row, width, height), self.server.format)
        if fault is None:
            self.answer(200, body, {"Content-Type": self.server.media_type})
        elif fault == "stall":
            self.server.release.wait()
            self.close_connection = True
        elif fault == "cut":
            self.answer(200, body, {"Content-Type": "image/png"}, sent=len(body) // 2)
        else:
            status, headers, content = fault
            self.answer(status, content, headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        pass


@contextmanager
def tile_server() -> Iterator[TileServer]:
    server = TileServer()
    with serving(server, server.release):
        yield server


# -------------------------------------------------------------------------------------------------------- capabilities

WMTS = """<?xml version="1.0" encoding="UTF-8"?>
<Capabilities xmlns="http://www.opengis.net/wmts/1.0" xmlns:ows="http://www.opengis.net/ows/1.1"
    xmlns:xlink="http://www.w3.org/1999/xlink" version="1.0.0">
  {operations}
  <Contents>
    <Layer>
      <ows:Title>Photographs</ows:Title>
      {ground}
      <ows:Identifier>photos</ows:Identifier>
      <Style><ows:Identifier>dark</ows:Identifier></Style>
      <Style isDefault="true"><ows:Identifier>plain</ows:Identifier></Style>
      <Format>image/png</Format>
      {layer}
    </Layer>
    {sets}
  </Contents>
</Capabilities>"""


def matrix_set(name: str, crs: str, corner: str, finest_m: float, levels: int = 3, size: int = 1 << 20) -> str:
    """A matrix set whose matrix `{name}:{levels - 1}` has pixels of `finest_m`, each coarser one of twice that."""
    matrices = "".join(
        f"""<TileMatrix><ows:Identifier>{name}:{level}</ows:Identifier>
        <ScaleDenominator>{finest_m * 2 ** (levels - 1 - level) / 0.00028!r}</ScaleDenominator>
        <TopLeftCorner>{corner}</TopLeftCorner><TileWidth>256</TileWidth><TileHeight>256</TileHeight>
        <MatrixWidth>{size}</MatrixWidth><MatrixHeight>{size}</MatrixHeight></TileMatrix>"""
        for level in range(levels)
    )
    return (
        f"<TileMatrixSet><ows:Identifier>{name}</ows:Identifier><ows:SupportedCRS>{crs}</ows:SupportedCRS>{matrices}"
        "</TileMatrixSet>"
    )


def wmts_document(
    sets: str, links: list[str], *, resource: str = "", kvp: str = "", ground: str = "", dimension: str = ""
) -> str:
    """Capabilities of the layer `photos`, asked by a resource template or by parameters."""
    layer = dimension + "".join(
        f"<TileMatrixSetLink><TileMatrixSet>{name}</TileMatrixSet></TileMatrixSetLink>" for name in links
    )
    if resource:
        layer += f'<ResourceURL format="image/png" resourceType="tile" template="{resource}"/>'
    operations = ""
    if kvp:
        operations = f"""<ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP>
        <ows:Get xlink:href="{kvp}"><ows:Constraint name="GetEncoding"><ows:AllowedValues><ows:Value>KVP</ows:Value>
        </ows:AllowedValues></ows:Constraint></ows:Get></ows:HTTP></ows:DCP></ows:Operation></ows:OperationsMetadata>"""
    return WMTS.format(operations=operations, ground=ground, layer=layer, sets=sets)


def wms_document(
    version: str, *, crs: str, extra: str = "", service: str = "", href: str = "http://backend/wms"
) -> str:
    """Capabilities of the layer `photos` of a WMS."""
    root, tag = ("WMS_Capabilities", "CRS") if version == "1.3.0" else ("WMT_MS_Capabilities", "SRS")
    return f"""<?xml version="1.0"?>
<{root} version="{version}" xmlns:xlink="http://www.w3.org/1999/xlink">
  <Service><Name>WMS</Name>{service}</Service>
  <Capability>
    <Request><GetMap><Format>image/png</Format><Format>image/jpeg</Format>
      <DCPType><HTTP><Get><OnlineResource xlink:href="{href}"/></Get></HTTP></DCPType></GetMap></Request>
    <Layer><Title>All</Title><{tag}>{crs}</{tag}>
      <Layer queryable="1"><Name>photos</Name>{extra}<Style><Name>plain</Name></Style></Layer>
    </Layer>
  </Capability>
</{root}>"""


def wcs_document(
    *, crs: str, labels: str, lower: str, upper: str, steps: tuple[str, str] = ("0.5 0", "0 -0.5"), points: str = ""
) -> str:
    """The description of the coverage `photos` of a WCS 2.0."""
    vectors = "".join(f'<gml:offsetVector srsName="{crs}">{step}</gml:offsetVector>' for step in steps)
    return f"""<?xml version="1.0"?>
<wcs:CoverageDescriptions xmlns:wcs="http://www.opengis.net/wcs/2.0" xmlns:gml="http://www.opengis.net/gml/3.2">
  <wcs:CoverageDescription gml:id="photos">
    <gml:boundedBy><gml:Envelope srsName="{crs}" axisLabels="{labels}">
      <gml:lowerCorner>{lower}</gml:lowerCorner><gml:upperCorner>{upper}</gml:upperCorner></gml:Envelope></gml:boundedBy>
    <gml:domainSet><gml:RectifiedGrid dimension="2">{points}{vectors}</gml:RectifiedGrid></gml:domainSet>
  </wcs:CoverageDescription>
</wcs:CoverageDescriptions>"""
