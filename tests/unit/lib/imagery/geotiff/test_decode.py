import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.geotiff.decode import DeflateBlocks, JpegBlocks
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import Window

Factory = Callable[..., Path]

DEFLATE: dict[str, Any] = {"compress": "deflate", "interleave": "pixel", "blockxsize": 128, "blockysize": 128}


@pytest.fixture
def jpeg_cog(tmp_path: Path, write_raster: Factory, textured: Callable) -> Callable[..., Path]:
    def write(*, grey: bool = False, **options: Any) -> Path:
        values = textured(700, 600)
        plain = write_raster(tmp_path / "plain.tif", values[:1].repeat(3, axis=0) if grey else values)
        path = tmp_path / "cog.tif"
        rasterio.shutil.copy(plain, path, driver="COG", COMPRESS="JPEG", QUALITY=90, BLOCKSIZE=256, **options)
        return path

    return write


def test_jpeg_blocks_are_decoded_as_pillow_does(jpeg_cog: Callable[..., Path], scene_of: Any) -> None:
    path = jpeg_cog()
    with RasterReader(scene_of(path)) as reader:
        assert isinstance(reader._stored, JpegBlocks)
        read = reader.read_inside(Window(256, 0, 256, 256))
    with rasterio.open(path) as dataset, path.open("rb") as file:
        place = [int(dataset.get_tag_item(f"BLOCK_{what}_1_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]
        tables = bytes.fromhex(dataset.get_tag_item("JPEGTABLES", "TIFF", bidx=1))
        file.seek(place[0])
        whole = tables[:-2] + file.read(place[1])[2:]
    assert np.array_equal(read.rgb, np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")))


def test_greys_of_jpeg_blocks_are_those_of_gdal(jpeg_cog: Callable[..., Path], scene_of: Any) -> None:
    path = jpeg_cog(grey=True)
    with RasterReader(scene_of(path)) as reader, rasterio.open(path) as dataset:
        direct = reader.read_inside(Window(0, 0, 700, 600))
        assert direct.valid.all()
        assert np.abs(np.moveaxis(dataset.read(), 0, -1).astype(int) - direct.rgb).max() <= 2


def test_bands_and_mask_of_a_jpeg_image_are_heeded(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    values = textured(256, 256)
    mask = np.ones((256, 256), bool)
    mask[:, 200:] = False
    options = {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel", "blockxsize": 128, "blockysize": 128}
    path = write_raster(tmp_path / "a.tif", values, mask=mask, **options)
    with RasterReader(scene_of(path)) as reader:
        assert isinstance(reader._stored, JpegBlocks)
        plain = reader.read_inside(Window(100, 100, 156, 100))
    with RasterReader(scene_of(path, bands=(3, 1, 1))) as reader:
        mapped = reader.read_inside(Window(100, 100, 156, 100))
    assert np.array_equal(plain.valid, mask[100:200, 100:])
    assert not plain.rgb[~plain.valid].any()
    assert np.array_equal(mapped.rgb, plain.rgb[..., [2, 0, 0]])


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize("predictor", [1, 2])
def test_deflate_blocks_are_those_of_gdal(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any, bands: int, predictor: int
) -> None:
    values = np.concatenate([textured(300, 200), textured(300, 200, seed=1)])[:bands]
    options = {"compress": "deflate", "predictor": predictor, "photometric": "minisblack", "alpha": "no"}
    path = write_raster(tmp_path / "a.tif", values, interleave="pixel", blockxsize=128, blockysize=128, **options)
    chosen = (1, 1, 1) if bands == 1 else (bands, 2, 1)
    with RasterReader(scene_of(path, bands=chosen)) as reader:
        assert isinstance(reader._stored, DeflateBlocks)
        blocks = [reader._stored.read(row, column) for row in range(2) for column in range(3)]
        read = reader.read_inside(Window(100, 20, 200, 180))
    assert all(block is not None and block.shape == (128, 128, bands) for block in blocks)
    assert read.mask is None
    assert np.array_equal(read.rgb, np.moveaxis(values[[band - 1 for band in chosen], 20:, 100:], 0, -1))


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_a_deflate_image_without_data_in_places(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any, kind: str
) -> None:
    values, mask = textured(300, 200), np.ones((200, 300), bool)
    mask[:, 200:] = False
    if kind == "alpha":
        alpha = np.where(mask, np.uint8(255), np.uint8(0))[np.newaxis]
        path = write_raster(tmp_path / "a.tif", np.concatenate([values, alpha]), **DEFLATE, alpha="yes")
    else:
        path = write_raster(tmp_path / "a.tif", values, mask=mask, **DEFLATE)
    with RasterReader(scene_of(path)) as reader:
        assert isinstance(reader._stored, DeflateBlocks)
        read, full = reader.read_inside(Window(100, 0, 200, 200)), reader.read_inside(Window(0, 0, 100, 100))
        plain = reader.read_plainly(Window(100, 0, 200, 200))
    assert full.mask is None
    assert np.array_equal(read.valid, mask[:, 100:])
    assert np.array_equal(read.rgb, np.moveaxis(values[:, :, 100:] * mask[:, 100:], 0, -1))
    assert np.array_equal(read.rgb[:, :100], plain.rgb[:, :100])


@pytest.mark.parametrize("nodata", [0, 255, 1.5, -9999])
def test_a_value_without_data_is_heeded_as_by_way_of_gdal(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any, nodata: float
) -> None:
    values = np.concatenate([textured(300, 200), textured(300, 200, seed=1)[:1]])
    stated = nodata if nodata in (0, 255) else 7
    values[:, :, 150:] = stated
    values[:2, :20] = stated
    values[3, 40:60, 160:] = 9
    options = {"compress": "deflate", "interleave": "pixel", "photometric": "minisblack", "alpha": "no"}
    path = write_raster(tmp_path / "a.tif", values, blockxsize=128, blockysize=128, **options)
    with RasterReader(scene_of(path, nodata=nodata)) as reader:
        assert isinstance(reader._stored, DeflateBlocks)
        read, plain = reader.read_inside(Window(5, 0, 290, 199)), reader.read_plainly(Window(5, 0, 290, 199))
    assert np.array_equal(read.valid, plain.valid)
    assert np.array_equal(read.rgb, plain.rgb)
    assert read.valid.all() == (stated != nodata)


def test_what_is_stored_otherwise_goes_by_way_of_gdal(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    values = textured(256, 256)
    side = {"blockxsize": 128, "blockysize": 128, "interleave": "pixel"}
    ycbcr = {"compress": "jpeg", "photometric": "ycbcr"}
    kinds: dict[str, dict[str, Any]] = {
        "not compressed": {"compress": "none"},
        "lzw": {"compress": "lzw", "predictor": 2},
        "planar": {"compress": "jpeg", "interleave": "band"},
        "planar deflate": {"compress": "deflate", "interleave": "band"},
        "rgb": {"compress": "jpeg", "photometric": "rgb"},
        "small": ycbcr | {"blockxsize": 64, "blockysize": 64},
    }
    for name, options in kinds.items():
        path = write_raster(tmp_path / f"{name}.tif", values, **(side | options))
        with RasterReader(scene_of(path)) as reader, rasterio.open(path) as dataset:
            assert reader._stored is None, name
            read = reader.read_inside(Window(30, 40, 150, 160))
            assert np.array_equal(np.moveaxis(read.rgb, -1, 0), dataset.read()[:, 40:200, 30:180])


def test_a_block_that_holds_more_or_less_than_its_pixels_is_left_to_gdal(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    path = write_raster(tmp_path / "a.tif", textured(256, 256), **DEFLATE)
    scene = scene_of(path)
    with rasterio.open(path) as dataset:
        places = [
            [int(dataset.get_tag_item(f"BLOCK_{what}_{column}_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]
            for column in range(2)
        ]
    data = bytearray(path.read_bytes())
    for (offset, size), count in zip(places, (1, 128 * 128 * 3 * 1000), strict=True):
        other = zlib.compress(bytes(count), 9)[:size]
        data[offset : offset + len(other)] = other
    path.write_bytes(data)
    with RasterReader(scene) as reader:
        assert reader._stored is not None
        assert reader._stored.read(0, 0) is None
        assert reader._stored.read(0, 1) is None
        assert reader._stored.read(1, 1) is not None
        with pytest.raises(CorruptInputError, match="cannot be decoded"):
            reader.read_inside(Window(0, 0, 100, 100))
        assert reader.read_inside(Window(128, 128, 128, 128)).valid.all()


def test_a_file_that_ends_early_spoils_the_blocks_behind_its_end(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    path = write_raster(tmp_path / "a.tif", textured(256, 256), **DEFLATE)
    scene = scene_of(path)
    with RasterReader(scene) as reader:
        os.truncate(path, path.stat().st_size - 2000)
        assert reader._stored is not None
        found = [reader._stored.read(row, column) is not None for row in range(2) for column in range(2)]
        assert found == [True, True, True, False]


def test_jpeg_blocks_that_hold_their_own_tables_are_decoded(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    options = {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel", "jpegtablesmode": 0}
    values = textured(256, 256)[:1].repeat(3, axis=0)
    path = write_raster(tmp_path / "a.tif", values, blockxsize=128, blockysize=128, **options)
    with RasterReader(scene_of(path)) as reader:
        assert isinstance(reader._stored, JpegBlocks)
        assert not reader._stored._tables
        block = reader._stored.read(1, 1)
        plain = reader.read_plainly(Window(128, 128, 128, 128))
    assert block is not None
    assert np.abs(block.astype(int) - plain.rgb).max() <= 2


def test_a_torn_jpeg_block_spoils_its_own_windows_alone(jpeg_cog: Callable[..., Path], scene_of: Any) -> None:
    path = jpeg_cog()
    scene = scene_of(path)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_2", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 200] = bytes(200)
    path.write_bytes(data)
    with RasterReader(scene) as reader:
        assert reader.read_inside(Window(0, 0, 500, 500)).valid.all()
        with pytest.raises(CorruptInputError, match="cannot be decoded"):
            reader.read_inside(Window(520, 520, 50, 50))
