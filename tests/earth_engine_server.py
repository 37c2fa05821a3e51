"""A stand-in for Earth Engine on this machine: the REST calls that Google's client makes, over images known throughout.

It describes itself (`$discovery/rest`) and its algorithms, hands out tokens to a service account, evaluates the few
functions that the source uses in the graphs that the client sends, and can refuse in the ways that Earth Engine does.
"""

import datetime as dt
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from tests.serving import serving
from tests.tile_server import painted

Json = dict[str, Any]

SIGNATURES = {
    "ImageCollection.load": ("ImageCollection", "id:String"),
    "Collection.filter": ("Collection", "collection:Collection filter:Filter"),
    "Collection.limit": ("Collection", "collection:Collection limit:Integer? key:String? ascending:Boolean?"),
    "Filter.intersects": (
        "Filter",
        "leftField:String? rightValue:Object? rightField:String? leftValue:Object? maxError:ErrorMargin?",
    ),
    "Filter.dateRangeContains": ("Filter", "leftValue:Object? rightField:String?"),
    "Filter.lessThanOrEquals": ("Filter", "leftField:String? rightValue:Object?"),
    "Filter.not": ("Filter", "filter:Filter"),
    "Filter.greaterThan": ("Filter", "leftField:String? rightValue:Object?"),
    "Feature": ("Feature", "geometry:Geometry? metadata:Dictionary?"),
    "DateRange": ("DateRange", "start:Object end:Object? timeZone:String?"),
    "GeometryConstructors.Rectangle": ("Geometry", "coordinates:Object crs:Object? geodesic:Boolean? evenOdd:Boolean?"),
    "Image.load": ("Image", "id:String version:Long?"),
    "Image.select": ("Image", "input:Image bandSelectors:List newNames:List?"),
    "Image.mask": ("Image", "image:Image mask:Image?"),
    "Image.unmask": ("Image", "input:Image value:Image? sameFootprint:Boolean?"),
    "Image.reduce": ("Image", "image:Image reducer:Reducer"),
    "Reducer.min": ("Reducer", "numInputs:Integer?"),
    "Image.gt": ("Image", "image1:Image image2:Image"),
    "Image.constant": ("Image", "value:Object"),
    "Image.rename": ("Image", "input:Image names:List"),
    "Image.addBands": ("Image", "dstImg:Image srcImg:Image? names:List? overwrite:Boolean?"),
}
"""Functions: what they return, and their arguments as name:type, optional with a question mark."""


class StoredImage:
    """An image: the painted picture on a grid, with a corner that is masked.

    Args:
        name: Its id.
        when: Time of acquisition, UTC.
        transform: Affine from pixel corners to the CRS.
        bands: Names of its bands.
        properties: Further properties.
        levels: The type of its values, and what the painted 0..255 are multiplied with.
        origin: Absolute pixel of the painting at its corner.
    """

    def __init__(
        self,
        name: str,
        when: dt.datetime,
        transform: Affine,
        *,
        crs: str = "EPSG:32610",
        size: tuple[int, int] = (600, 500),
        bands: tuple[str, ...] = ("N", "R", "G", "B"),
        properties: Json | None = None,
        levels: tuple[str, int] = ("uint8", 1),
        footprint: shapely.Geometry | None = None,
        masked: tuple[int, int] = (0, 0),
    ) -> None:
        self.name, self.when, self.transform, self.crs, self.size, self.bands = name, when, transform, crs, size, bands
        self.properties, self.levels, self.footprint, self.masked = properties or {}, levels, footprint, masked

    def described(self) -> Json:
        kind = self.levels[0]
        pixel = {"type": "PixelType", "precision": "int", "min": 0, "max": 255 if kind == "uint8" else 65535}
        bands = [
            {
                "id": name,
                "data_type": pixel,
                "dimensions": list(self.size),
                "crs": self.crs,
                "crs_transform": list(self.transform[:6]),
            }
            for name in self.bands
        ]
        properties: Json = {"system:time_start": int(self.when.timestamp() * 1000), **self.properties}
        if self.footprint is not None:
            ring = shapely.get_coordinates(self.footprint).tolist()
            properties["system:footprint"] = {"type": "LinearRing", "coordinates": ring}
        return {"type": "Image", "id": self.name, "version": 1, "bands": bands, "properties": properties}

    def values(self, band: str, columns: NDArray[Any], rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values and mask at places in pixels (floats), by nearest neighbour."""
        columns, rows = np.floor(columns).astype(int), np.floor(rows).astype(int)
        inside = (columns >= 0) & (rows >= 0) & (columns < self.size[0]) & (rows < self.size[1])
        picture = painted(0, 0, *self.size)
        channel = {"R": 0, "G": 1, "B": 2}.get(band, 0)
        values = picture[np.clip(rows, 0, self.size[1] - 1), np.clip(columns, 0, self.size[0] - 1), channel]
        kind, factor = self.levels
        masked = (columns < self.masked[0]) & (rows < self.masked[1])
        return (values.astype(np.int64) * factor).astype(kind), inside & ~masked


class EarthEngineServer(ThreadingHTTPServer):
    """Serves images by collection.

    `refusals` are (status, message) of the next calls that compute, `asked` their paths, `grids` the grids of pixels
    asked for. A token is refused once it is in `expired`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.collections: dict[str, list[StoredImage]] = {}
        self.refusals: list[tuple[int, str]] = []
        self.always: tuple[int, str] | None = None
        self.retry_after: str | None = None
        self.asked: list[str] = []
        self.grids: list[Json] = []
        self.tokens = 0
        self.token_status = 200
        self.expired: set[str] = set()
        self.body: Callable[[bytes], bytes] = lambda body: body
        self.stall = False
        self.release = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def image(self, name: str) -> StoredImage:
        return next(image for images in self.collections.values() for image in images if image.name == name)


class Handler(BaseHTTPRequestHandler):
    server: EarthEngineServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/$discovery/rest"):
            self.send_json(200, discovery(self.server.address))
        elif self.path.startswith("/v1/projects/") and "/algorithms" in self.path:
            self.send_json(200, {"algorithms": algorithms()})
        else:
            self.send_json(404, {})

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            server.tokens += 1
            refused = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
            granted = {"access_token": f"token-{server.tokens}", "expires_in": 3600, "token_type": "Bearer"}
            self.send_json(server.token_status, granted if server.token_status == 200 else refused)
            return
        server.asked.append(self.path.partition("?")[0])
        if server.stall:
            server.release.wait()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token.startswith("token-") or token in server.expired:
            self.refuse(401, "Request had invalid authentication credentials.")
        elif server.refusals or server.always:
            self.refuse(*(server.refusals.pop(0) if server.refusals else server.always or (500, "")))
        else:
            self.compute(json.loads(body))

    def compute(self, request: Json) -> None:
        graph = request["expression"]
        try:
            result = Evaluation(self.server, graph["values"]).of({"valueReference": graph["result"]})
        except LookupError as error:
            self.refuse(400, f"{error.args[0]} not found (does not exist or caller does not have access).")
            return
        if self.path.partition("?")[0].endswith("value:compute"):
            self.send_json(200, {"result": {"type": "ImageCollection", "features": [i.described() for i in result]}})
            return
        assert request["fileFormat"] == "NPY"
        grid = request["grid"]
        self.server.grids.append(grid)
        data = self.server.body(array_of(result, grid))
        self.answer(200, data, "application/octet-stream")

    def refuse(self, status: int, message: str) -> None:
        self.send_json(status, {"error": {"code": status, "message": message, "status": "X"}})

    def send_json(self, status: int, content: Json) -> None:
        self.answer(status, json.dumps(content).encode(), "application/json")

    def answer(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 429 and self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        pass


# ----------------------------------------------------------------------------------------------------------- evaluation

Band = Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[np.bool_]]]
"""Values and mask of a band at places in pixels of the image it comes from."""


class Picture:
    """An image under computation: bands by name, on the grid of a stored image."""

    def __init__(self, stored: StoredImage, bands: dict[str, Band]) -> None:
        self.stored, self.bands = stored, bands


class Evaluation:
    """Evaluates a graph of the client's: values by name, functions by the names in `SIGNATURES`."""

    def __init__(self, server: EarthEngineServer, values: Json) -> None:
        self.server, self.values = server, values

    def of(self, node: Json) -> Any:
        if "valueReference" in node:
            return self.of(self.values[node["valueReference"]])
        if "constantValue" in node:
            return node["constantValue"]
        if "arrayValue" in node:
            return [self.of(entry) for entry in node["arrayValue"]["values"]]
        call = node["functionInvocationValue"]
        arguments = {name: self.of(value) for name, value in call.get("arguments", {}).items()}
        known = {entry.partition(":")[0] for entry in SIGNATURES[call["functionName"]][1].split()}
        assert set(arguments) <= known, call
        return getattr(self, call["functionName"].replace(".", "_"))(**arguments)

    def ImageCollection_load(self, id: str) -> list[StoredImage]:  # noqa: A002
        if id not in self.server.collections:
            raise LookupError(f"ImageCollection.load: ImageCollection asset '{id}'")
        return self.server.collections[id]

    def Collection_filter(self, collection: list[StoredImage], filter: Callable[[StoredImage], bool]) -> Any:  # noqa: A002
        return [image for image in collection if filter(image)]

    def Collection_limit(self, collection: Any, limit: int | None = None, key: str = "", ascending: bool = True) -> Any:
        if key:
            collection = sorted(collection, key=lambda i: i.described()["properties"][key], reverse=not ascending)
        return collection[:limit]

    def Filter_intersects(self, leftField: str, rightValue: shapely.Geometry) -> Any:  # noqa: N803
        assert leftField == ".all"
        return lambda image: image.footprint is None or image.footprint.intersects(rightValue)

    def GeometryConstructors_Rectangle(self, coordinates: list[float], geodesic: bool) -> shapely.Geometry:
        assert not geodesic
        return shapely.box(*coordinates)

    def Feature(self, geometry: shapely.Geometry) -> shapely.Geometry:
        return geometry

    def DateRange(self, start: str, end: str) -> tuple[dt.datetime, dt.datetime]:
        begin, until = (dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in (start, end))
        return begin, until

    def Filter_dateRangeContains(self, leftValue: Any, rightField: str) -> Any:  # noqa: N803
        assert rightField == "system:time_start"
        return lambda image: leftValue[0] <= image.when < leftValue[1]

    def Filter_lessThanOrEquals(self, leftField: str, rightValue: float) -> Any:  # noqa: N803
        return lambda image: image.properties.get(leftField, np.inf) <= rightValue

    def Filter_greaterThan(self, leftField: str, rightValue: float) -> Any:  # noqa: N803
        return lambda image: image.properties.get(leftField, np.inf) > rightValue

    def Filter_not(self, filter: Any) -> Any:  # noqa: A002
        return lambda image: not filter(image)

    def Image_load(self, id: str) -> Picture:  # noqa: A002
        try:
            stored = self.server.image(id)
        except StopIteration:
            raise LookupError(f"Image.load: Image asset '{id}'") from None

        def band(name: str) -> Band:
            return lambda columns, rows: stored.values(name, columns, rows)

        return Picture(stored, {name: band(name) for name in stored.bands})

    def Image_select(self, input: Picture, bandSelectors: list[str], newNames: list[str]) -> Picture:  # noqa: A002, N803
        return Picture(input.stored, {new: input.bands[old] for old, new in zip(bandSelectors, newNames, strict=True)})

    def Image_mask(self, image: Picture) -> Picture:
        def mask(band: Band) -> Band:
            return lambda columns, rows: (band(columns, rows)[1].astype(np.float32), np.ones(columns.shape, dtype=bool))

        return Picture(image.stored, {name: mask(band) for name, band in image.bands.items()})

    def Reducer_min(self) -> Any:
        return np.minimum.reduce

    def Image_reduce(self, image: Picture, reducer: Any) -> Picture:
        def least(columns: NDArray[Any], rows: NDArray[Any]) -> Any:
            found = [band(columns, rows) for band in image.bands.values()]
            return reducer([values for values, _ in found]), np.logical_and.reduce([known for _, known in found])

        return Picture(image.stored, {"min": least})

    def Image_constant(self, value: float) -> float:
        return value

    def Image_gt(self, image1: Picture, image2: float) -> Picture:
        def above(band: Band) -> Band:
            def compare(columns: NDArray[Any], rows: NDArray[Any]) -> Any:
                values, known = band(columns, rows)
                return (values > image2).astype(np.uint8), known

            return compare

        return Picture(image1.stored, {name: above(band) for name, band in image1.bands.items()})

    def Image_rename(self, input: Picture, names: list[str]) -> Picture:  # noqa: A002
        return Picture(input.stored, dict(zip(names, input.bands.values(), strict=True)))

    def Image_unmask(self, input: Picture, value: float) -> Picture:  # noqa: A002
        def filled(band: Band) -> Band:
            def fill(columns: NDArray[Any], rows: NDArray[Any]) -> Any:
                values, known = band(columns, rows)
                return np.where(known, values, np.asarray(value, dtype=values.dtype)), np.ones(known.shape, dtype=bool)

            return fill

        return Picture(input.stored, {name: filled(band) for name, band in input.bands.items()})

    def Image_addBands(self, dstImg: Picture, srcImg: Picture) -> Picture:  # noqa: N803
        return Picture(dstImg.stored, dstImg.bands | srcImg.bands)


def array_of(picture: Picture, grid: Json) -> bytes:
    """A picture on a grid of its own CRS, as a structured array in NumPy's format."""
    assert grid["crsCode"] == picture.stored.crs
    width, height = grid["dimensions"]["width"], grid["dimensions"]["height"]
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    asked = Affine(*(grid["affineTransform"].get(name, 0.0) for name in names))
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    places = (~picture.stored.transform @ asked) @ (columns, rows)
    found = {name: band(*places) for name, band in picture.bands.items()}
    array = np.zeros((height, width), dtype=[(name, values.dtype) for name, (values, _) in found.items()])
    for name, (values, known) in found.items():
        array[name] = np.where(known, values, np.zeros((), dtype=values.dtype))
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------- description


def algorithms() -> list[Json]:
    found = []
    for name, (returns, arguments) in SIGNATURES.items():
        described = [
            {
                "argumentName": entry.partition(":")[0],
                "type": entry.partition(":")[2].rstrip("?"),
                "optional": entry.endswith("?"),
                "description": "",
            }
            for entry in arguments.split()
        ]
        found.append({"name": f"algorithms/{name}", "description": "", "returnType": returns, "arguments": described})
    return found


def discovery(address: str) -> Json:
    """The part of Earth Engine's discovery document that the client needs for these calls."""

    def method(name: str, verb: str, path: str, parameter: str) -> Json:
        described: Json = {
            "id": f"earthengine.projects.{name}",
            "path": path,
            "flatPath": path,
            "httpMethod": verb,
            "parameters": {
                parameter: {"type": "string", "location": "path", "required": True, "pattern": "^projects/[^/]+$"}
            },
            "parameterOrder": [parameter],
            "response": {"$ref": "Anything"},
        }
        return described | ({"request": {"$ref": "Anything"}} if verb == "POST" else {})

    resources = {
        "algorithms": {"methods": {"list": method("algorithms.list", "GET", "v1/{+parent}/algorithms", "parent")}},
        "value": {"methods": {"compute": method("value.compute", "POST", "v1/{+project}/value:compute", "project")}},
        "image": {
            "methods": {
                "computePixels": method("image.computePixels", "POST", "v1/{+project}/image:computePixels", "project")
            }
        },
    }
    return {
        "kind": "discovery#restDescription",
        "name": "earthengine",
        "version": "v1",
        "rootUrl": f"{address}/",
        "servicePath": "",
        "batchPath": "batch",
        "parameters": {"prettyPrint": {"type": "boolean", "location": "query"}},
        "schemas": {"Anything": {"id": "Anything", "type": "object", "additionalProperties": {"type": "any"}}},
        "resources": {"projects": {"resources": resources}},
    }


def write_key_file(path: Path, address: str) -> Path:
    """The key file of a service account whose tokens the server hands out; its key is made here for nothing else."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    facts = {
        "type": "service_account",
        "project_id": "a-project",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "robot@a-project.iam.gserviceaccount.com",
        "token_uri": f"{address}/token",
    }
    path.write_text(json.dumps(facts), encoding="utf-8")
    return path


@contextmanager
def earth_engine_server() -> Iterator[EarthEngineServer]:
    server = EarthEngineServer()
    with serving(server, server.release):
        yield server
