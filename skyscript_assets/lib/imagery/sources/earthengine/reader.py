"""Pixels of an Earth Engine image, computed on its own grid window by window (`computePixels`)."""

import contextlib
import io
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.geotiff.raster import to_pixels
from skyscript_assets.lib.imagery.reader import Coefficients, Pixels, SceneReader, Window
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.sources.earthengine.session import EarthEngine
from skyscript_assets.lib.imagery.sources.earthengine.settings import EarthEngineSource
from skyscript_assets.lib.secrets import told

SCHEME = "earthengine://"
"""Before an image's id in `Scene.hrefs`."""

MAX_REQUEST_BYTES = 48_000_000
"""Most uncompressed bytes of a request, by Google's reference of computePixels: width x height x bytes of all bands
(https://developers.google.com/earth-engine/reference/rest/v1/projects.image/computePixels)."""

MAX_REQUEST_SIDE = 32_000
"""Most pixels of a request in either dimension, ibid. (`32K`, taken as the smaller of its two meanings)."""

WIDEST_PIXEL_BYTES = 3 * 8 + 1
"""Bytes of a pixel at worst: three bands of double precision and the mask."""

BLOCK_PX = 512
"""Side of the squares by which windows are ordered: Earth Engine computes tiles of 256 pixels."""

AHEAD_PX = 1 << 24
"""Most pixels that are asked for ahead, so that a batch of large chips does not fill the memory."""

COLOURS, VALID = ("red", "green", "blue"), "valid"
"""Names of the bands of an answer: the three that are shown, and the mask."""


class EarthEngineReader(SceneReader):
    """Reads windows of a scene that is an Earth Engine image."""

    def __init__(self, scene: Scene, source: EarthEngineSource) -> None:
        super().__init__(scene)
        self._source = source
        self._coming: dict[Window, Future[Pixels]] = {}

    def open(self, stack: contextlib.ExitStack) -> None:
        """Connect.

        Raises:
            MissingInputError: package, credentials or project are missing or refused.
            UnreachableError: Earth Engine gives no answer.
        """
        self._engine = EarthEngine(self._source, self.scene.source)
        self._pool = ThreadPoolExecutor(self._source.connections, thread_name_prefix="earthengine")
        stack.callback(self._coming.clear)
        stack.callback(self._pool.shutdown, cancel_futures=True)

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) by which windows are ordered."""
        return BLOCK_PX, BLOCK_PX

    def expect(self, windows: Sequence[Window]) -> None:
        """Ask for the first of the windows, a few at a time."""
        self._coming.clear()
        pixels = 0
        for window in dict.fromkeys(windows):
            pixels += window.width * window.height
            if pixels > AHEAD_PX:
                return
            self._coming[window] = self._pool.submit(self._compute, window)

    def read_inside(self, window: Window) -> Pixels:
        """Pixels of a window of the image, scaled to 8 bits."""
        coming = self._coming.pop(window, None)
        return self._compute(window) if coming is None else coming.result()

    def _compute(self, window: Window) -> Pixels:
        """Pixels of a window, in as many requests as the limits ask for."""
        rgb = np.zeros((window.height, window.width, 3), dtype=np.uint8)
        valid = np.zeros((window.height, window.width), dtype=bool)
        for piece in pieces(window):
            a, b, c, d, e, f = self.scene.transform
            x, y = piece.column, piece.row
            grid = (a, b, c + a * x + b * y, d, e, f + d * x + e * y)
            raw, known = read_pixels(self._engine, self.scene, grid, piece.width, piece.height)
            top, left = piece.row - window.row, piece.column - window.column
            inside = (slice(top, top + piece.height), slice(left, left + piece.width))
            rgb[inside], valid[inside] = to_pixels(raw, known, self.scene).rgb, known
        return Pixels(rgb, valid)


def pieces(window: Window) -> list[Window]:
    """A window cut into requests below Google's limits: whole rows where they fit, row by row from the top."""
    most = MAX_REQUEST_BYTES // WIDEST_PIXEL_BYTES
    width = min(window.width, MAX_REQUEST_SIDE)
    height = max(1, min(window.height, MAX_REQUEST_SIDE, most // width))
    return [
        Window(
            window.column + left, window.row + top, min(width, window.width - left), min(height, window.height - top)
        )
        for top in range(0, window.height, height)
        for left in range(0, window.width, width)
    ]


def read_pixels(
    engine: EarthEngine, scene: Scene, transform: Coefficients, width: int, height: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Raw values (3, height, width) of a scene on a grid in its CRS, and which pixels hold data.

    The affine (a, b, c, d, e, f) leads from the grid's pixel corners to the scene's CRS.

    Raises:
        CorruptInputError: the image cannot be computed there, or the answer is no such array.
        MissingInputError: the credentials are refused.
        UnreachableError: Earth Engine gives no answer.
    """
    import ee

    bands = list(scene.access["bands"])
    a, b, c, d, e, f = transform
    crs = {"crsCode": scene.crs} if scene.crs.startswith("EPSG:") else {"crsWkt": scene.crs}
    affine = {"scaleX": a, "shearX": b, "translateX": c, "shearY": d, "scaleY": e, "translateY": f}
    grid = {"dimensions": {"width": width, "height": height}, "affineTransform": affine, **crs}

    def ask() -> Any:
        image = ee.Image(scene.hrefs[0].removeprefix(SCHEME)).select(bands, list(COLOURS))
        # Masked pixels have no value in an array: they are told by a band of their own.
        known = image.mask().reduce(ee.Reducer.min()).gt(0).rename(VALID)
        return ee.data.computePixels({"expression": image.unmask(0).addBands(known), "fileFormat": "NPY", "grid": grid})

    return _parse(engine.call(ask), width, height, scene.where)


def _parse(data: Any, width: int, height: int, where: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A structured array in NumPy's format, looked at before it is believed: shape, names, plain numbers."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, in_columns, dtype = read_header(file)
        named = dtype.names is not None and {*COLOURS, VALID} <= set(dtype.names)
        if not named or dtype.hasobject or shape != (height, width) or in_columns:
            raise ValueError(f"an array of shape {shape} and type {str(dtype)[:80]}")
        values = np.frombuffer(data, dtype=dtype, count=height * width, offset=file.tell()).reshape(height, width)
    except (TypeError, ValueError) as error:
        raise CorruptInputError(f"{where}: Earth Engine sends no array of pixels ({told(str(error), 120)})") from error
    raw = np.stack([values[name] for name in COLOURS])
    valid = values[VALID] != 0
    if raw.dtype.kind == "f":
        valid &= np.isfinite(raw).all(axis=0)
    return raw, valid
