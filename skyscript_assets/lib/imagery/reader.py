"""Pixels of scenes: one reader for every kind of image, which gives 8-bit RGB and says which pixels hold data.

What is asked for is a box: pixels anywhere on the globe. A box on the scene's own pixel grid is a window of the image
and read as it is; any other one (another CRS or pixel size, or a shift by less than a pixel) is resampled bilinearly,
invalid pixels left out of the mean. What becomes of the pixels belongs to callers.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.scenes import Scene

ALIGNED_TOLERANCE_PX = 0.01
"""Boxes nearer than this to whole pixels of the scene count as lying on its grid."""

MARGIN_PX = 2
"""Scene pixels read around a resampled box, so that the bilinear kernel finds its neighbours."""

VALID_ALPHA = 128
"""Least blended alpha (of 255) of a resampled pixel that counts as data: half of its kernel's weight."""

MAX_READ_PIXELS = 1 << 25
"""Most pixels of a window: the greatest tile of the settings (4,096 px a side) turned by 45 degrees."""

AHEAD = 64
"""Windows that a reader is told of ahead of reading them."""


class Pixels(NamedTuple):
    """Pixels that were read.

    Attributes:
        rgb: uint8 (height, width, 3), black without data.
        mask: bool (height, width), where there is data; None where there is everywhere.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where there is data, bool (height, width)."""
        return np.ones(self.rgb.shape[:2], dtype=bool) if self.mask is None else self.mask

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.rgb.nbytes + (0 if self.mask is None else self.mask.nbytes)


Coefficients = tuple[float, float, float, float, float, float]
"""Affine (a, b, c, d, e, f): x = a column + b row + c, y = d column + e row + f."""


class Window(NamedTuple):
    """A window of a scene's image, in its pixels, all of which lies inside it."""

    column: int
    row: int
    width: int
    height: int


class GeoBox(NamedTuple):
    """Pixels to read: CRS (`EPSG:n` or WKT), affine (a, b, c, d, e, f) from their corners to it, columns and rows."""

    crs: str
    transform: Coefficients
    width: int
    height: int


class SceneReader(abc.ABC):
    """Reads windows of one scene, used as a context manager.

    Each kind of scene says how the pixels of a window of its image are got (`read_inside`) and in which blocks they are
    stored; which window a box needs, and what becomes of it, is the same for all. A reader belongs to the thread that
    opened it; threads that share a scene open one each.
    """

    def __init__(self, scene: Scene) -> None:
        from affine import Affine

        self.scene = scene
        self._transform = Affine(*scene.transform)
        self._to_scene: tuple[float, ...] = tuple((~self._transform)[:6])
        self._crs_of: dict[str, Any] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @abc.abstractmethod
    def open(self, stack: contextlib.ExitStack) -> None:
        """Open the image, until the stack is closed."""

    @property
    @abc.abstractmethod
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which the image is stored or served."""

    @abc.abstractmethod
    def read_inside(self, window: Window) -> Pixels:
        """Pixels of a window of the image, of at most `MAX_READ_PIXELS` pixels.

        Raises:
            CorruptInputError: the image cannot be read there.
        """

    def expect(self, windows: Sequence[Window]) -> None:  # noqa: B027 - most readers need no warning
        """Told the windows that are read next, in this order: a remote reader fetches them together."""

    def read(self, crs: str, transform: Coefficients, width: int, height: int) -> Pixels:
        """Read a box, stated as a `GeoBox`; what lies outside the scene is not valid.

        Raises:
            CorruptInputError: the image cannot be decoded there.
            SceneError: the box covers more than `MAX_READ_PIXELS` pixels of the scene.
        """
        box = GeoBox(crs, transform, width, height)
        place = self._aligned(box)
        return self._read(box, place, self._window(box, place))

    def read_many(self, boxes: Sequence[GeoBox]) -> Iterator[tuple[int, Pixels | CorruptInputError]]:
        """Read boxes in the order of the image's blocks, so that each block is decoded once.

        Yields:
            (index in `boxes`, its pixels), or the error in place of the pixels of a box that cannot be decoded.
        """
        places = [self._aligned(box) for box in boxes]
        windows = [self._window(box, place) for box, place in zip(boxes, places, strict=True)]
        rows, columns = self.block_shape
        blocks = [(0, 0) if window is None else (window.row // rows, window.column // columns) for window in windows]
        order = sorted(range(len(boxes)), key=blocks.__getitem__)
        for start in range(0, len(order), AHEAD):
            ahead = order[start : start + AHEAD]
            self.expect([window for index in ahead if (window := windows[index]) is not None])
            for index in ahead:
                try:
                    yield index, self._read(boxes[index], places[index], windows[index])
                except CorruptInputError as error:
                    yield index, error

    def _read(self, box: GeoBox, place: tuple[int, int] | None, window: Window | None) -> Pixels:
        """The pixels of a box from those of the window that it reads."""
        if window is None:
            return Pixels(*_blank(box))
        if window.width * window.height > MAX_READ_PIXELS:
            raise SceneError(
                f"a window covers {window.width} x {window.height} pixels of {self.scene.where}, more than "
                f"{MAX_READ_PIXELS} in all: plan its chips nearer to the image's own GSD"
            )
        pixels = self.read_inside(window)
        if place is None:
            return self._resampled(box, window, pixels)
        if window[2:] == box[2:]:
            return pixels
        rgb, valid = _blank(box)
        top, left = window.row - place[1], window.column - place[0]
        inside = (slice(top, top + window.height), slice(left, left + window.width))
        rgb[inside], valid[inside] = pixels.rgb, pixels.valid
        return Pixels(rgb, valid)

    def _aligned(self, box: GeoBox) -> tuple[int, int] | None:
        """(column, row) of a box's upper left pixel where it lies on the scene's grid, else None."""
        if box.crs != self.scene.crs and self._crs(box.crs) != self._crs(self.scene.crs):
            return None
        # The product of two affines in plain numbers: asked of every chip, and their class is slow.
        a, b, c, d, e, f = box.transform
        place = []
        for axis, (first, second, last) in enumerate((self._to_scene[:3], self._to_scene[3:])):
            moved = first * c + second * f + last
            by_column, by_row = first * a + second * d - (axis == 0), first * b + second * e - (axis == 1)
            ends = [x * by_column + y * by_row for x in (0, box.width) for y in (0, box.height)]
            if max(abs(end + moved - round(moved)) for end in ends) > ALIGNED_TOLERANCE_PX:
                return None
            place.append(round(moved))
        return place[0], place[1]

    def _window(self, box: GeoBox, aligned: tuple[int, int] | None) -> Window | None:
        """The window of the image that a box reads, or None where it lies beside it."""
        if aligned is None:
            return self._under(box)
        left, top = aligned
        return self._clipped(left, top, left + box.width, top + box.height)

    def _clipped(self, left: int, top: int, right: int, bottom: int) -> Window | None:
        """What lies inside the image of the pixels from (left, top) to before (right, bottom), None where none do."""
        left, right = max(0, left), min(self.scene.width, right)
        top, bottom = max(0, top), min(self.scene.height, bottom)
        return Window(left, top, right - left, bottom - top) if left < right and top < bottom else None

    def _resampled(self, box: GeoBox, window: Window, pixels: Pixels) -> Pixels:
        """The pixels of a window, warped with their mask to a box that is not on the scene's grid."""
        import rasterio
        from affine import Affine
        from rasterio.warp import Resampling, reproject

        target = np.zeros((4, box.height, box.width), dtype=np.uint8)
        alpha = np.where(pixels.valid, np.uint8(255), np.uint8(0))
        turned, corner = Affine.translation(-self._turned(box), 0), Affine.translation(window.column, window.row)
        bands = np.concatenate([np.moveaxis(pixels.rgb, -1, 0), alpha[np.newaxis]])
        given = {"src_transform": turned @ self._transform @ corner, "src_crs": self._crs(self.scene.crs)}
        wanted = {"dst_transform": Affine(*box.transform), "dst_crs": self._crs(box.crs)}
        try:
            reproject(bands, target, **given, **wanted, src_alpha=4, dst_alpha=4, resampling=Resampling.bilinear)
        except rasterio.errors.RasterioError as error:
            raise CorruptInputError(f"{self.scene.where} cannot be warped to {box.crs} ({error})") from error
        valid = target[3] >= VALID_ALPHA
        rgb = np.ascontiguousarray(np.moveaxis(target[:3], 0, -1))
        rgb[~valid] = 0
        return Pixels(rgb, valid)

    def _under(self, box: GeoBox) -> Window | None:
        """The scene's pixels under a box, or None where there are none."""
        from affine import Affine
        from rasterio._err import CPLE_BaseError
        from rasterio.warp import transform as warp_points

        # The outline bends in the scene's CRS: nine points a side follow it far within the margin for a chip.
        steps = np.linspace(0.0, 1.0, 9)
        columns, rows = np.meshgrid(steps * box.width, steps * box.height)
        x, y = Affine(*box.transform) @ (columns.ravel(), rows.ravel())
        crs = self._crs(box.crs)
        if crs != self._crs(self.scene.crs):
            try:
                x, y = warp_points(crs, self._crs(self.scene.crs), x, y)
            except CPLE_BaseError:  # what rasterio passes on, unwrapped, for places that PROJ refuses
                return None
        x, y = np.asarray(x), np.asarray(y)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        if self._crs(self.scene.crs).is_geographic:
            # Longitudes near the box's own, then as many turns away as the scene counts them.
            x = x[0] + (x - x[0] + 180) % 360 - 180 + self._turned(box)
        column, row = ~self._transform @ (x, y)
        left, top = (int(np.floor(side.min())) - MARGIN_PX for side in (column, row))
        right, bottom = (int(np.ceil(side.max())) + MARGIN_PX for side in (column, row))
        return self._clipped(left, top, right, bottom)

    def _turned(self, box: GeoBox) -> float:
        """Degrees, a multiple of 360, by which a scene's longitudes differ from those that PROJ gives for a box."""
        from affine import Affine
        from rasterio.warp import transform as warp_points

        crs = self._crs(self.scene.crs)
        if not crs.is_geographic:
            return 0.0
        x, y = Affine(*box.transform) @ (0.0, 0.0)
        if self._crs(box.crs) != crs:
            (x,), _ = warp_points(self._crs(box.crs), crs, [x], [y])
        middle, _ = self._transform @ (self.scene.width / 2, self.scene.height / 2)
        return 360.0 * round((middle - x) / 360) if np.isfinite(x) else 0.0

    def _crs(self, text: str) -> Any:
        import rasterio

        if text not in self._crs_of:
            try:
                self._crs_of[text] = rasterio.crs.CRS.from_user_input(text)
            except (rasterio.errors.CRSError, ValueError) as error:
                raise SceneError(f"a box on scene {self.scene.scene_id} states no readable CRS ({error})") from error
        return self._crs_of[text]


def assembled(window: Window, shape: tuple[int, int], block: Callable[[int, int], Pixels | None]) -> Pixels:
    """A window of an image put together from blocks of a shape (rows, columns).

    `block` gives the pixels of that in some row and column of blocks, None where it holds no data.
    """
    column, row, width, height = window
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    mask: NDArray[np.bool_] | None = None
    rows, columns = shape
    for y in range(row // rows, (row + height - 1) // rows + 1):
        top, bottom = max(row, y * rows), min(row + height, (y + 1) * rows)
        for x in range(column // columns, (column + width - 1) // columns + 1):
            left, right = max(column, x * columns), min(column + width, (x + 1) * columns)
            pixels = block(y, x)
            target = (slice(top - row, bottom - row), slice(left - column, right - column))
            origin = (slice(top - y * rows, bottom - y * rows), slice(left - x * columns, right - x * columns))
            rgb[target] = 0 if pixels is None else pixels.rgb[origin]
            if pixels is None or pixels.mask is not None:
                mask = np.ones((height, width), dtype=bool) if mask is None else mask
                mask[target] = False if pixels is None else pixels.valid[origin]
    return Pixels(rgb, mask)


def _blank(box: GeoBox) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """RGB and validity of a box without data."""
    return np.zeros((box.height, box.width, 3), dtype=np.uint8), np.zeros((box.height, box.width), dtype=bool)
