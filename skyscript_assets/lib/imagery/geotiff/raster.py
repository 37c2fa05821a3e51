"""Raster files (GeoTIFF, COG, VRT), opened with care: what a source of files reads its scenes with."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.imagery.geotiff.decode import tiff_blocks
from skyscript_assets.lib.imagery.reader import Pixels, SceneReader, Window, assembled
from skyscript_assets.lib.imagery.scenes import Scene

MAX_BLOCK_BYTES = 1 << 29
"""Largest decoded block that is read: a small file can state blocks that fill the memory."""

GDAL_CACHE_BYTES = 64 << 20
"""GDAL's own block cache: what it decodes is kept in `BLOCKS`, and needed here only until all bands are read."""

CELL_PX = 128
"""Least side of what is decoded at once: smaller blocks are read several at a time."""

MAX_CELL_PIXELS = 1 << 22
"""Blocks that are small in one direction alone are not joined to more than this."""

CACHE_BYTES = 192 << 20
"""Decoded pixels that are kept for all open scenes of a process together."""

BLOCKS: Cache[Pixels] = Cache(CACHE_BYTES, lambda block: block.nbytes)
"""Decoded blocks, as 8-bit RGB, of all scenes that are open in this process: windows of a plan overlap."""


def open_raster(path: Path) -> contextlib.AbstractContextManager[Any]:
    """Open a GeoTIFF, COG or VRT as a rasterio dataset, for this thread alone.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is not a whole raster file of these kinds.
        SceneError: one of its blocks would take more memory than `MAX_BLOCK_BYTES`.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist")
    # A scene is untrusted: no other driver than these two gets to guess at it, and a VRT runs no code of its own.
    driver = "VRT" if path.suffix.lower() == ".vrt" else "GTiff"
    return open_dataset(str(path), str(path), driver=driver)


@contextlib.contextmanager
def open_dataset(
    place: str,
    name: str,
    *,
    driver: str = "GTiff",
    siblings: bool = True,
    env: Mapping[str, str] | None = None,
    overview: int | None = None,
) -> Iterator[Any]:
    """Open what GDAL knows under a name as a rasterio dataset, for this thread alone.

    Args:
        place: GDAL's name of it.
        name: What messages call it.
        driver: The only driver that is tried.
        siblings: Whether files beside it (.aux.xml, .ovr) count.
        env: GDAL's configuration while it is open, beside the project's own.
        overview: Index of the overview to open in its place.

    Raises:
        CorruptInputError: it is no whole raster that this driver reads.
        SceneError: one of its blocks would take more memory than `MAX_BLOCK_BYTES`.
    """
    import rasterio

    config: dict[str, Any] = {"GDAL_CACHEMAX": GDAL_CACHE_BYTES, "GDAL_NUM_THREADS": 1, "GDAL_VRT_ENABLE_PYTHON": "NO"}
    config |= ({} if siblings else {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}) | dict(env or {})
    options = {} if overview is None else {"overview_level": overview}
    with rasterio.Env(**config):
        try:
            dataset = rasterio.open(place, driver=driver, sharing=False, **options)
        except rasterio.errors.RasterioError as error:
            detail = str(error).replace(place, name)
            raise CorruptInputError(f"{name} cannot be read as GeoTIFF, COG or VRT ({detail})") from error
        with dataset:
            _check_blocks(dataset, name)
            yield dataset


def _check_blocks(dataset: Any, name: str) -> None:
    """Refuse an open dataset that is stored in blocks too large to read in windows."""
    rows, columns = dataset.block_shapes[0]
    interleaved = dataset.count if dataset.interleaving and dataset.interleaving.name == "pixel" else 1
    # Complex integers have no numpy type, and are at most as large as complex64.
    kinds = [name if name in np.sctypeDict else "complex64" for name in dataset.dtypes]
    if rows * columns * interleaved * max(np.dtype(kind).itemsize for kind in kinds) > MAX_BLOCK_BYTES:
        raise SceneError(
            f"{name} is stored in blocks of {columns} x {rows} pixels, too large to read in windows: "
            "tile it with `gdal_translate -of COG`"
        )


@dataclass(frozen=True)
class OpenImage:
    """An open image: one dataset with bands for red, green and blue, or one dataset for each of them on one grid.

    Attributes:
        name: What messages call it.
        datasets: One or three open rasterio datasets.
        bands: Numbers (from 1) of the bands shown as red, green, blue.
        ignore_alpha: Whether a band that is tagged alpha hides nothing.
    """

    name: str
    datasets: tuple[Any, ...]
    bands: tuple[int, int, int]
    ignore_alpha: bool = False

    def planes(self) -> list[tuple[Any, int]]:
        """(dataset, band number) of red, green and blue."""
        datasets = self.datasets * 3 if len(self.datasets) == 1 else self.datasets
        return list(zip(datasets, self.bands, strict=True))

    @functools.cached_property
    def alphas(self) -> list[int | None]:
        """Number of the alpha band of each dataset, None where it has none."""
        kinds = [[kind.name for kind in dataset.colorinterp] for dataset in self.datasets]
        return [names.index("alpha") + 1 if "alpha" in names else None for names in kinds]

    @functools.cached_property
    def colours(self) -> NDArray[np.uint8] | None:
        """What stored values stand for where they are no brightness, [3, values, 2]: the level, and 0 for no data."""
        tables = [table for dataset, band in self.planes() if (table := _colours(dataset, band)) is not None]
        if not tables:
            return None
        if len({len(table) for table in tables}) > 1 or len(tables) < 3:
            raise SceneError(f"{self.name}: some of the bands {list(self.bands)} are a palette or bits: name others")
        return np.stack([table[:, [plane, 3]] for plane, table in enumerate(tables)])


def read_raw(
    image: OpenImage, nodata: float | None, window: Any = None, shape: tuple[int, int] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Raw values (band, row, column) of a window that lies inside an image, and which pixels hold data.

    A pixel holds data unless an alpha band or a mask is 0 there, all bands of the image equal `nodata` (GDAL's rule
    for dataset masks: some bands may well be as dark as the no-data value), or a wanted band is no finite number.

    Without a window all of the image is read; `shape` is (rows, columns) to thin it to by nearest neighbour, through
    overviews where there are some.

    Raises:
        CorruptInputError: the image cannot be decoded there.
    """
    import rasterio

    def read(dataset: Any, bands: Sequence[int]) -> NDArray[Any]:
        out_shape = None if shape is None else (len(bands), *shape)
        return np.asarray(dataset.read(list(bands), window=window, out_shape=out_shape))

    single = image.datasets[0] if len(image.datasets) == 1 else None
    try:
        if single is not None:
            raw = read(single, image.bands)
        else:
            raw = np.concatenate([read(dataset, [band]) for dataset, band in image.planes()])
        valid = np.ones(raw.shape[1:], dtype=bool)
        for number in range(len(image.datasets)):
            masked = read_valid(image, number, window, shape)
            if masked is not None:
                valid &= masked
        if nodata is not None and np.isfinite(nodata):
            doubtful = (raw == nodata).all(axis=0)
            others = [band for band in _colour_bands(image) if band not in image.bands] if single else []
            if others and doubtful.any():
                doubtful &= (read(single, others) == nodata).all(axis=0)
            valid &= ~doubtful
    except rasterio.errors.RasterioError as error:
        detail = error.__cause__ or error
        raise CorruptInputError(f"{image.name} cannot be decoded everywhere ({detail}): get it again") from error
    if raw.dtype.kind == "f":
        valid &= np.isfinite(raw).all(axis=0)
    if image.colours is not None:
        levels = [colours[plane] for colours, plane in zip(image.colours, raw, strict=True)]
        raw, opaque = np.moveaxis(np.stack(levels), -1, 0)
        valid &= (opaque != 0).all(axis=0)
    return raw, valid


def read_valid(
    image: OpenImage, number: int, window: Any = None, shape: tuple[int, int] | None = None
) -> NDArray[np.bool_] | None:
    """Which pixels of a window hold data by the alpha band or mask of a dataset; None where it has neither."""
    from rasterio.enums import MaskFlags

    dataset, band, alpha = image.datasets[number], image.bands[number], image.alphas[number]
    if alpha is not None:  # GDAL's mask is another one where there is a value without data, too
        return None if image.ignore_alpha else np.asarray(dataset.read(alpha, window=window, out_shape=shape)) != 0
    if MaskFlags.per_dataset not in dataset.mask_flag_enums[band - 1]:
        return None
    return np.asarray(dataset.read_masks(band, window=window, out_shape=shape)).astype(bool)


class RasterReader(SceneReader):
    """Reads windows of a scene that is a raster file; windows that share blocks share their decoding."""

    def open(self, stack: contextlib.ExitStack) -> None:
        """Open the image.

        Raises:
            MissingInputError: the image does not exist.
            CorruptInputError: it cannot be opened.
            SceneError: it is not the image that was indexed, or its blocks are too large.
        """
        dataset = stack.enter_context(open_raster(self.scene.path))
        self.show(dataset)
        file = os.open(self.scene.path, os.O_RDONLY)
        stack.callback(os.close, file)
        stack.enter_context(BLOCKS.used())
        about = os.fstat(file)
        shown = (self.scene.bands, self.scene.scale_low, self.scene.scale_high, self.scene.nodata)
        self._identity = (str(self.scene.path), about.st_size, about.st_mtime_ns, *shown, self.scene.ignore_alpha)
        rows, columns = self.block_shape
        most = max(1, MAX_CELL_PIXELS // (rows * columns))
        down = min(most, -(-CELL_PX // rows))
        across = min(max(1, most // down), -(-CELL_PX // columns))
        self._cell = (rows * down, columns * across)
        one_each = self._cell == (rows, columns) and self.scene.scale_low is None and self._image.colours is None
        self._stored = tiff_blocks(dataset, file) if one_each else None
        self._shown = sorted({band - 1 for band in (*_colour_bands(self._image), *self.scene.bands)})

    def show(self, *datasets: Any) -> None:
        """Read from open datasets from now on.

        Raises:
            SceneError: they cannot be what was indexed as the scene: no CRS, too few bands, or another size.
        """
        scene = self.scene
        self._image = OpenImage(scene.where, datasets, scene.bands, scene.ignore_alpha)
        size = {(dataset.width, dataset.height) for dataset in datasets}
        enough = all(dataset.crs is not None and band <= dataset.count for dataset, band in self._image.planes())
        if not enough or size != {(scene.width, scene.height)}:
            raise SceneError(
                f"{scene.where} is not the image that was indexed as scene {scene.scene_id} (no CRS, too few bands or "
                "another size): materialize scene_index again"
            )

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which the file is stored."""
        rows, columns = self._image.datasets[0].block_shapes[self.scene.bands[0] - 1]
        return rows, columns

    def read_inside(self, window: Window) -> Pixels:
        """Pixels of a window of the image, as it is stored."""
        try:
            identity, decode = self._identity, self._decode
            return assembled(window, self._cell, lambda y, x: BLOCKS.get((identity, y, x), lambda: decode(y, x)))
        except CorruptInputError:
            # A cell that cannot be decoded may well be sound in the window that is wanted.
            return self.read_plainly(window)

    def read_plainly(self, window: Window) -> Pixels:
        """Pixels of a window of the image, by way of GDAL and of no cache of decoded blocks.

        Raises:
            CorruptInputError: the image cannot be decoded there.
        """
        from rasterio.windows import Window as RasterWindow

        raw, valid = read_raw(self._image, self.scene.nodata, RasterWindow(*window))
        return to_pixels(raw, valid, self.scene)

    def _decode(self, y: int, x: int) -> Pixels:
        """The cell in row y and column x of cells; of one at the edge, no more than the image has may be used."""
        rows, columns = self._cell
        top, left = y * rows, x * columns
        dataset = self._image.datasets[0]
        inside = Window(left, top, min(columns, dataset.width - left), min(rows, dataset.height - top))
        block = None if self._stored is None else self._stored.read(y, x)
        if block is None:
            return self.read_plainly(inside)
        mask = self._mask(block, inside)
        if self.scene.bands != (1, 2, 3) or block.shape[2] != 3:
            block = np.ascontiguousarray(block[..., [band - 1 for band in self.scene.bands]])
        if mask is None or mask.all():
            return Pixels(block, None)
        block[: inside.height, : inside.width][~mask] = 0
        return Pixels(block, mask)

    def _mask(self, block: NDArray[np.uint8], inside: Window) -> NDArray[np.bool_] | None:
        """Where a block that was decoded without GDAL has data, where it lies inside; None if everywhere."""
        from rasterio.windows import Window as RasterWindow

        pixels, nodata = block[: inside.height, : inside.width], self.scene.nodata
        if (alpha := self._image.alphas[0]) is not None and not self.scene.ignore_alpha:
            mask: NDArray[np.bool_] | None = pixels[..., alpha - 1] != 0
        else:
            mask = read_valid(self._image, 0, RasterWindow(*inside))
        if nodata is not None and nodata in range(256):
            known = np.logical_or.reduce([pixels[..., band] != np.uint8(nodata) for band in self._shown])
            mask = known if mask is None else mask & known
        return mask


def to_pixels(raw: NDArray[Any], valid: NDArray[np.bool_], scene: Scene) -> Pixels:
    """Raw values (band, row, column) as the scene shows them: scaled to 8-bit RGB, black where there is no data."""
    rgb = np.stack(list(_to_8_bit(raw, scene)), axis=-1)
    if valid.all():
        return Pixels(rgb, None)
    rgb[~valid] = 0
    return Pixels(rgb, valid)


def _to_8_bit(raw: NDArray[Any], scene: Scene) -> NDArray[np.uint8]:
    low, high = scene.scale_low, scene.scale_high
    if low is None or high is None:
        if raw.dtype != np.uint8:
            raise SceneError(f"{scene.where} is {raw.dtype}, not 8-bit, and its source states no `scaling`")
        return np.asarray(raw, dtype=np.uint8)
    lows, highs = (np.reshape(limits, (-1, 1, 1)) for limits in (low, high))
    with np.errstate(invalid="ignore"):  # infinite values
        levels = (raw.astype(np.float32) - lows.astype(np.float32)) * (255.0 / (highs - lows)).astype(np.float32)
    levels = np.rint(np.nan_to_num(levels, nan=0.0, posinf=255.0, neginf=0.0))
    return np.asarray(np.clip(levels, 0, 255), dtype=np.uint8)


def _colours(dataset: Any, band: int) -> NDArray[np.uint8] | None:
    """Red, green, blue and alpha, [values, 4], of the values of a palette, of bits or of inverted greys; else None."""
    kind = dataset.dtypes[band - 1]
    if kind not in ("uint8", "uint16"):
        return None
    try:
        table = dataset.colormap(band)  # GDAL has one for bits and for MinIsWhite, too
    except ValueError:
        bits = int(dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8"))
        if kind != "uint8" or bits == 8:
            return None
        table = {value: (round(value * 255 / (2**bits - 1)),) * 3 + (255,) for value in range(2**bits)}
    colours = np.zeros((np.iinfo(kind).max + 1, 4), dtype=np.uint8)
    colours[list(table)] = list(table.values())
    return colours


def _colour_bands(image: OpenImage) -> list[int]:
    """Numbers of the bands of a single dataset that are no alpha band."""
    bands = range(1, image.datasets[0].count + 1)
    return [band for band in bands if band != image.alphas[0] or image.ignore_alpha]
