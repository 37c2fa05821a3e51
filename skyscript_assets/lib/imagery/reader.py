"""Pixels of scenes: one reader for every kind of image, which gives 8-bit RGB and says which pixels hold data.

A window on the scene's own pixel grid is read as it is; any other window (another CRS or pixel size, or a shift by part
of a pixel) is resampled bilinearly, invalid pixels left out of the mean. What becomes of the pixels belongs to callers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.imagery.scenes import Scene

MAX_READ_PIXELS = 1 << 25
"""Most scene pixels behind one window: the greatest tile of the settings (4,096 px a side) turned by 45 degrees."""

MAX_BLOCK_BYTES = 1 << 29
"""Largest decoded block that is read: a small file can state blocks that fill the memory."""

CACHE_BYTES = 256 << 20
"""GDAL's block cache, shared by the threads of a process."""

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


@contextlib.contextmanager
def open_raster(path: Path) -> Iterator[Any]:
    """Open a GeoTIFF, COG or VRT as a rasterio dataset, for this thread alone.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is not a whole raster file of these kinds.
        SceneError: one of its blocks would take more memory than `MAX_BLOCK_BYTES`.
    """
    import rasterio

    if not path.is_file():
        raise MissingInputError(f"{path} does not exist")
    # A scene is untrusted: no other driver than these two gets to guess at it, and a VRT runs no code of its own.
    driver = "VRT" if path.suffix.lower() == ".vrt" else "GTiff"
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_NUM_THREADS=1, GDAL_VRT_ENABLE_PYTHON="NO"):
        try:
            dataset = rasterio.open(path, driver=driver)
        except rasterio.errors.RasterioError as error:
            raise CorruptInputError(f"{path} cannot be read as GeoTIFF, COG or VRT ({error})") from error
        with dataset:
            rows, columns = dataset.block_shapes[0]
            interleaved = dataset.count if dataset.interleaving and dataset.interleaving.name == "pixel" else 1
            if rows * columns * interleaved * np.dtype(_numpy_type(dataset)).itemsize > MAX_BLOCK_BYTES:
                raise SceneError(
                    f"{path} is stored in blocks of {columns} x {rows} pixels, too large to read in windows: "
                    "tile it with `gdal_translate -of COG`"
                )
            yield dataset


def read_raw(
    dataset: Any, bands: Sequence[int], nodata: float | None, window: Any = None, shape: tuple[int, int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Raw values (band, row, column) of a window that lies inside the dataset, and which pixels hold data.

    A pixel holds data unless the alpha band or the mask is 0 there, all bands of the file equal `nodata` (GDAL's rule
    for dataset masks: some bands may well be as dark as the no-data value), or a wanted band is no finite number.

    Args:
        dataset: An open rasterio dataset.
        bands: Band numbers, from 1.
        nodata: The value without data, or None.
        window: A rasterio window inside the dataset; default: all of it.
        shape: (rows, columns) to thin the window to by nearest neighbour, through overviews where there are some.

    Raises:
        CorruptInputError: the file cannot be decoded there.
    """
    import rasterio
    from rasterio.enums import MaskFlags

    def read(wanted: Sequence[int]) -> NDArray[Any]:
        out_shape = None if shape is None else (len(wanted), *shape)
        return np.asarray(dataset.read(list(wanted), window=window, out_shape=out_shape))

    try:
        raw = read(bands)
        valid = np.ones(raw.shape[1:], dtype=bool)
        if MaskFlags.per_dataset in dataset.mask_flag_enums[bands[0] - 1]:
            valid = dataset.read_masks(bands[0], window=window, out_shape=shape) != 0
        if nodata is not None and np.isfinite(nodata):
            doubtful = (raw == nodata).all(axis=0)
            others = [band for band in _colour_bands(dataset) if band not in bands]
            if others and doubtful.any():
                doubtful &= (read(others) == nodata).all(axis=0)
            valid &= ~doubtful
    except rasterio.errors.RasterioError as error:
        detail = error.__cause__ or error
        raise CorruptInputError(f"{dataset.name} cannot be decoded everywhere ({detail}): get it again") from error
    if raw.dtype.kind == "f":
        valid &= np.isfinite(raw).all(axis=0)
    return raw, valid


class SceneReader:
    """Reads windows of one scene, used as a context manager.

    A reader belongs to the thread that opened it; threads that share a scene open one each.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._stack = contextlib.ExitStack()
        self._dataset: Any = None
        self._crs_of: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Open the image.

        Raises:
            MissingInputError: the image does not exist.
            CorruptInputError: it cannot be opened.
            SceneError: it is not the image that was indexed, or its blocks are too large.
        """
        dataset = self._stack.enter_context(open_raster(self.scene.path))
        if dataset.crs is None or max(self.scene.bands) > dataset.count:
            self._stack.close()
            raise SceneError(
                f"{self.scene.path} is not the image that was indexed as scene {self.scene.scene_id} (no CRS or too "
                "few bands): materialize scene_index again"
            )
        self._dataset = dataset
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dataset = None
        self._stack.close()

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
        from affine import Affine

        if self._crs(window.crs) == self._dataset.crs:
            to_scene = ~self._dataset.transform @ Affine(*window.transform)
            if _is_whole_shift(to_scene, window.width, window.height):
                return self._read_aligned(round(to_scene.c), round(to_scene.f), window.width, window.height)
        return self._read_resampled(window)

    def _read_aligned(self, column: int, row: int, width: int, height: int) -> Pixels:
        """A window on the scene's grid whose upper left pixel is (column, row) of the scene."""
        rgb = np.zeros((height, width, 3), dtype=np.uint8)
        valid = np.zeros((height, width), dtype=bool)
        left, right = max(0, column), min(self._dataset.width, column + width)
        top, bottom = max(0, row), min(self._dataset.height, row + height)
        if left < right and top < bottom:
            inside = self._read_inside(left, top, right - left, bottom - top)
            part = (slice(top - row, bottom - row), slice(left - column, right - column))
            rgb[part], valid[part] = inside.rgb, inside.valid
        return Pixels(rgb, valid)

    def _read_inside(self, column: int, row: int, width: int, height: int) -> Pixels:
        from rasterio.windows import Window as RasterWindow

        if width * height > MAX_READ_PIXELS:
            raise SceneError(
                f"a window covers {width} x {height} pixels of {self.scene.path}, more than {MAX_READ_PIXELS} in all: "
                "plan its chips nearer to the image's own GSD"
            )
        raw, valid = read_raw(
            self._dataset, self.scene.bands, self.scene.nodata, RasterWindow(column, row, width, height)
        )
        rgb = np.ascontiguousarray(np.moveaxis(self._to_8_bit(raw), 0, -1))
        rgb[~valid] = 0
        return Pixels(rgb, valid)

    def _to_8_bit(self, raw: NDArray[Any]) -> NDArray[np.uint8]:
        low, high = self.scene.scale_low, self.scene.scale_high
        if low is None or high is None:
            if raw.dtype != np.uint8:
                raise SceneError(f"{self.scene.path} is {raw.dtype}, not 8-bit, and its source states no `scaling`")
            return np.asarray(raw, dtype=np.uint8)
        levels = np.nan_to_num(raw.astype(np.float32), nan=low, posinf=high, neginf=low)
        levels = np.rint((levels - low) * (255.0 / (high - low)))
        return np.asarray(np.clip(levels, 0, 255), dtype=np.uint8)

    def _read_resampled(self, window: Window) -> Pixels:
        """A window that is not on the scene's grid: what lies under it is read plainly, then warped with its mask."""
        import rasterio
        from affine import Affine
        from rasterio.warp import Resampling, reproject

        target = np.zeros((4, window.height, window.width), dtype=np.uint8)
        under = self._under(window)
        if under is not None:
            column, row, width, height = under
            source = self._read_inside(column, row, width, height)
            alpha = np.where(source.valid, np.uint8(255), np.uint8(0))
            try:
                reproject(
                    np.concatenate([np.moveaxis(source.rgb, -1, 0), alpha[np.newaxis]]),
                    target,
                    src_transform=self._dataset.transform @ Affine.translation(column, row),
                    src_crs=self._dataset.crs,
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
        if crs != self._dataset.crs:
            try:
                x, y = warp_points(crs, self._dataset.crs, x, y)
            except CPLE_BaseError:  # what rasterio passes on, unwrapped, for places that PROJ refuses
                return None
        column, row = ~self._dataset.transform @ (np.asarray(x), np.asarray(y))
        if not (np.isfinite(column).all() and np.isfinite(row).all()):
            return None
        left = max(0, int(np.floor(column.min())) - MARGIN_PX)
        right = min(self._dataset.width, int(np.ceil(column.max())) + MARGIN_PX)
        top = max(0, int(np.floor(row.min())) - MARGIN_PX)
        bottom = min(self._dataset.height, int(np.ceil(row.max())) + MARGIN_PX)
        return (left, top, right - left, bottom - top) if left < right and top < bottom else None

    def _first_block(self, window: Window) -> tuple[int, int]:
        """(row, column) of the block that holds the window's upper left pixel."""
        under = self._under(window)
        if under is None:
            return (0, 0)
        rows, columns = self._dataset.block_shapes[self.scene.bands[0] - 1]
        return (under[1] // rows, under[0] // columns)

    def _crs(self, text: str) -> Any:
        import rasterio

        if text not in self._crs_of:
            try:
                self._crs_of[text] = rasterio.crs.CRS.from_user_input(text)
            except (rasterio.errors.CRSError, ValueError) as error:
                raise SceneError(f"a window of scene {self.scene.scene_id} states no readable CRS ({error})") from error
        return self._crs_of[text]


def _is_whole_shift(to_scene: Any, width: int, height: int) -> bool:
    """Whether an affine from window to scene pixels only moves by whole pixels, at every corner of the window."""
    return all(
        abs(coordinate - shift - round(start)) <= ALIGNED_TOLERANCE_PX
        for corner in ((0, 0), (width, 0), (0, height), (width, height))
        for coordinate, start, shift in zip(to_scene @ corner, (to_scene.c, to_scene.f), corner, strict=True)
    )


def _colour_bands(dataset: Any) -> list[int]:
    """Numbers of the bands that are no alpha band."""
    from rasterio.enums import ColorInterp

    return [band for band, meaning in enumerate(dataset.colorinterp, start=1) if meaning != ColorInterp.alpha]


def _numpy_type(dataset: Any) -> str:
    """The largest numpy type among a dataset's bands; complex integers have none and are as large as complex64."""
    return max(
        (name if name in np.sctypeDict else "complex64" for name in dataset.dtypes),
        key=lambda name: np.dtype(name).itemsize,
    )
