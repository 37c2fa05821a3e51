"""Raster files (GeoTIFF, COG, VRT), opened with care: what a source of files reads its scenes with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.imagery.reader import Pixels, SceneReader
from skyscript_assets.lib.imagery.scenes import Scene

MAX_READ_PIXELS = 1 << 25
"""Most scene pixels behind one window: the greatest tile of the settings (4,096 px a side) turned by 45 degrees."""

MAX_BLOCK_BYTES = 1 << 29
"""Largest decoded block that is read: a small file can state blocks that fill the memory."""

CACHE_BYTES = 256 << 20
"""GDAL's block cache, shared by the threads of a process."""


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


class RasterReader(SceneReader):
    """Reads windows of a scene that is a raster file."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._stack = contextlib.ExitStack()
        self._dataset: Any = None

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

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which the file is stored."""
        rows, columns = self._dataset.block_shapes[self.scene.bands[0] - 1]
        return rows, columns

    def read_inside(self, column: int, row: int, width: int, height: int) -> Pixels:
        """Pixels of a part of the image, as it is stored."""
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
