"""Pixels of scenes: one reader for every kind of image, which gives 8-bit RGB and says which pixels hold data.

A window on the scene's own pixel grid is read as it is; any other window (another CRS or pixel size, or a shift by part
of a pixel) is resampled bilinearly, invalid pixels left out of the mean. What becomes of the pixels belongs to callers.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.scenes import Scene

ALIGNED_TOLERANCE_PX = 0.01
"""Windows nearer than this to whole pixels of the scene count as lying on its grid."""

MARGIN_PX = 2
"""Scene pixels read around a resampled window, so that the bilinear kernel finds its neighbours."""

VALID_ALPHA = 128
"""Least blended alpha (of 255) of a resampled pixel that counts as data: half of its kernel's weight."""


class Pixels(NamedTuple):
    """A window that was read: `rgb` uint8 (height, width, 3), black where `valid` bool (height, width) is False."""

    rgb: NDArray[np.uint8]
    valid: NDArray[np.bool_]


class Window(NamedTuple):
    """A window to read: CRS (`EPSG:n` or WKT), affine (a, b, c, d, e, f) from pixel corners to it, size in pixels."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int


class SceneReader(abc.ABC):
    """Reads windows of one scene, used as a context manager.

    Each kind of scene says how the pixels of a part of its image are got (`read_inside`) and in which blocks they are
    stored; which part a window needs, and what becomes of it, is the same for all. A reader belongs to the thread that
    opened it; threads that share a scene open one each.
    """

    def __init__(self, scene: Scene) -> None:
        from affine import Affine

        self.scene = scene
        self._transform = Affine(*scene.transform)
        self._to_scene = ~self._transform
        self._crs_of: dict[str, Any] = {}

    @abc.abstractmethod
    def __enter__(self) -> Self:
        """Open the image."""

    @abc.abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    @property
    @abc.abstractmethod
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which the image is stored or served."""

    @abc.abstractmethod
    def read_inside(self, column: int, row: int, width: int, height: int) -> Pixels:
        """Pixels of a part of the image, all of which lies inside it.

        Raises:
            CorruptInputError: the image cannot be read there.
            SceneError: it is larger than can be read at once.
        """

    def read(
        self, crs: str, transform: tuple[float, float, float, float, float, float], width: int, height: int
    ) -> Pixels:
        """Read a window; what lies outside the scene is not valid.

        Args:
            crs: CRS of the window, `EPSG:n` or WKT.
            transform: Affine (a, b, c, d, e, f) from the window's pixel corners (column, row) to `crs`.
            width: Columns of the window.
            height: Rows of the window.

        Raises:
            CorruptInputError: the image cannot be decoded there.
            SceneError: the window covers more than `MAX_READ_PIXELS` pixels of the scene.
        """
        return self._read(Window(crs, transform, width, height))

    def read_many(self, windows: Sequence[Window]) -> Iterator[tuple[int, Pixels | CorruptInputError]]:
        """Read windows in the order of the image's blocks, so that each block is decoded once.

        Yields:
            (index in `windows`, its pixels), or the error in place of the pixels of a window that cannot be decoded.
        """
        for index in sorted(range(len(windows)), key=lambda i: (self._first_block(windows[i]), i)):
            try:
                yield index, self._read(windows[index])
            except CorruptInputError as error:
                yield index, error

    def _read(self, window: Window) -> Pixels:
        start = self._start(window)
        return (
            self._read_resampled(window) if start is None else self._read_aligned(*start, window.width, window.height)
        )

    def _start(self, window: Window) -> tuple[int, int] | None:
        """(column, row) of the scene at the upper left pixel of a window on its grid; None for other windows."""
        from affine import Affine

        if self._crs(window.crs) != self._crs(self.scene.crs):
            return None
        to_scene = self._to_scene @ Affine(*window.transform)
        return _whole_shift(to_scene, window.width, window.height)

    def _read_aligned(self, column: int, row: int, width: int, height: int) -> Pixels:
        """A window on the scene's grid whose upper left pixel is (column, row) of the scene."""
        if column >= 0 and row >= 0 and column + width <= self.scene.width and row + height <= self.scene.height:
            return self.read_inside(column, row, width, height)
        rgb = np.zeros((height, width, 3), dtype=np.uint8)
        valid = np.zeros((height, width), dtype=bool)
        left, right = max(0, column), min(self.scene.width, column + width)
        top, bottom = max(0, row), min(self.scene.height, row + height)
        if left < right and top < bottom:
            inside = self.read_inside(left, top, right - left, bottom - top)
            part = (slice(top - row, bottom - row), slice(left - column, right - column))
            rgb[part], valid[part] = inside.rgb, inside.valid
        return Pixels(rgb, valid)

    def _read_resampled(self, window: Window) -> Pixels:
        """A window that is not on the scene's grid: what lies under it is read plainly, then warped with its mask."""
        import rasterio
        from affine import Affine
        from rasterio.warp import Resampling, reproject

        target = np.zeros((4, window.height, window.width), dtype=np.uint8)
        under = self._under(window)
        if under is not None:
            column, row, width, height = under
            source = self.read_inside(column, row, width, height)
            alpha = np.where(source.valid, np.uint8(255), np.uint8(0))
            try:
                reproject(
                    np.concatenate([np.moveaxis(source.rgb, -1, 0), alpha[np.newaxis]]),
                    target,
                    src_transform=self._transform @ Affine.translation(column, row),
                    src_crs=self._crs(self.scene.crs),
                    src_alpha=4,
                    dst_transform=Affine(*window.transform),
                    dst_crs=self._crs(window.crs),
                    dst_alpha=4,
                    resampling=Resampling.bilinear,
                )
            except rasterio.errors.RasterioError as error:
                raise CorruptInputError(f"{self.scene.path} cannot be warped to {window.crs} ({error})") from error
        valid = target[3] >= VALID_ALPHA
        rgb = np.ascontiguousarray(np.moveaxis(target[:3], 0, -1))
        rgb[~valid] = 0
        return Pixels(rgb, valid)

    def _under(self, window: Window) -> tuple[int, int, int, int] | None:
        """(column, row, width, height) of the scene's pixels under a window, or None where there are none."""
        from affine import Affine
        from rasterio._err import CPLE_BaseError
        from rasterio.warp import transform as warp_points

        # The outline bends in the scene's CRS: nine points a side follow it far within the margin for a chip.
        steps = np.linspace(0.0, 1.0, 9)
        columns, rows = np.meshgrid(steps * window.width, steps * window.height)
        x, y = Affine(*window.transform) @ (columns.ravel(), rows.ravel())
        crs = self._crs(window.crs)
        if crs != self._crs(self.scene.crs):
            try:
                x, y = warp_points(crs, self._crs(self.scene.crs), x, y)
            except CPLE_BaseError:  # what rasterio passes on, unwrapped, for places that PROJ refuses
                return None
        column, row = ~self._transform @ (np.asarray(x), np.asarray(y))
        if not (np.isfinite(column).all() and np.isfinite(row).all()):
            return None
        left = max(0, int(np.floor(column.min())) - MARGIN_PX)
        right = min(self.scene.width, int(np.ceil(column.max())) + MARGIN_PX)
        top = max(0, int(np.floor(row.min())) - MARGIN_PX)
        bottom = min(self.scene.height, int(np.ceil(row.max())) + MARGIN_PX)
        return (left, top, right - left, bottom - top) if left < right and top < bottom else None

    def _first_block(self, window: Window) -> tuple[int, int]:
        """(row, column) of the block that holds the window's upper left pixel."""
        start = self._start(window)
        if start is None:
            under = self._under(window)
            start = (0, 0) if under is None else under[:2]
        column, row = (max(0, place) for place in start)
        if column >= self.scene.width or row >= self.scene.height:
            return (0, 0)
        rows, columns = self.block_shape
        return (row // rows, column // columns)

    def _crs(self, text: str) -> Any:
        import rasterio

        if text not in self._crs_of:
            try:
                self._crs_of[text] = rasterio.crs.CRS.from_user_input(text)
            except (rasterio.errors.CRSError, ValueError) as error:
                raise SceneError(f"a window of scene {self.scene.scene_id} states no readable CRS ({error})") from error
        return self._crs_of[text]


def _whole_shift(to_scene: Any, width: int, height: int) -> tuple[int, int] | None:
    """Columns and rows by which an affine from window to scene pixels moves, at every corner; None if it does more."""
    a, b, c, d, e, f = to_scene[:6]
    column, row = round(c), round(f)
    for x, y in ((0, 0), (width, 0), (0, height), (width, height)):
        across, down = (a - 1) * x + b * y + (c - column), d * x + (e - 1) * y + (f - row)
        if max(abs(across), abs(down)) > ALIGNED_TOLERANCE_PX:
            return None
    return column, row
