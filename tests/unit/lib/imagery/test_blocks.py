import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.blocks import Block, BlockCache
from skyscript_assets.lib.imagery.raster import BLOCKS, RasterReader

Factory = Callable[..., Path]


def block(side: int = 10) -> Block:
    return Block(np.zeros((side, side, 3), np.uint8), None)


def test_the_least_lately_used_block_goes_first_and_the_limit_holds() -> None:
    cache = BlockCache(2 * 300)
    for key in "ab":
        cache.get(key, block)
    cache.get("a", lambda: pytest.fail("a is there"))
    cache.get("c", block)
    assert cache.nbytes == 600
    cache.get("a", lambda: pytest.fail("a is there"))
    made: list[str] = []
    cache.get("b", lambda: made.append("b") or block())
    assert made == ["b"]
    cache.get("large", lambda: block(100))
    assert cache.nbytes == 30_000


def test_a_block_that_two_threads_want_is_made_once() -> None:
    cache, begun, go, made = BlockCache(10_000), threading.Event(), threading.Event(), []

    def slow() -> Block:
        made.append(1)
        begun.set()
        go.wait()
        return block()

    threads = [threading.Thread(target=cache.get, args=("a", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    go.set()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_an_error_reaches_who_asked_and_is_not_kept() -> None:
    cache = BlockCache(10_000)

    def fail() -> Block:
        raise CorruptInputError("torn")

    with pytest.raises(CorruptInputError, match="torn"):
        cache.get("a", fail)
    assert cache.get("a", block).nbytes == 300


def test_the_last_reader_leaves_nothing_behind() -> None:
    cache = BlockCache(10_000)
    cache.join()
    cache.join()
    cache.get("a", block)
    cache.leave()
    assert cache.nbytes == 300
    cache.leave()
    assert cache.nbytes == 0


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
        assert reader._jpegs is not None
        read = reader.read_inside(256, 0, 256, 256)
    with rasterio.open(path) as dataset, path.open("rb") as file:
        place = [int(dataset.get_tag_item(f"BLOCK_{what}_1_0", "TIFF", bidx=1)) for what in ("OFFSET", "SIZE")]
        tables = bytes.fromhex(dataset.get_tag_item("JPEGTABLES", "TIFF", bidx=1))
        file.seek(place[0])
        whole = tables[:-2] + file.read(place[1])[2:]
    assert np.array_equal(read.rgb, np.asarray(Image.open(io.BytesIO(whole)).convert("RGB")))


def test_greys_of_jpeg_blocks_are_those_of_gdal(jpeg_cog: Callable[..., Path], scene_of: Any) -> None:
    path = jpeg_cog(grey=True)
    with RasterReader(scene_of(path)) as reader, rasterio.open(path) as dataset:
        direct = reader.read_inside(0, 0, 700, 600)
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
        assert reader._jpegs is not None
        plain = reader.read_inside(100, 100, 156, 100)
    with RasterReader(scene_of(path, bands=(3, 1, 1))) as reader:
        mapped = reader.read_inside(100, 100, 156, 100)
    assert np.array_equal(plain.valid, mask[100:200, 100:])
    assert not plain.rgb[~plain.valid].any()
    assert np.array_equal(mapped.rgb, plain.rgb[..., [2, 0, 0]])


def test_what_is_no_plain_colour_jpeg_goes_by_way_of_gdal(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    values = textured(256, 256)
    side = {"blockxsize": 128, "blockysize": 128}
    kinds = {
        "deflate": {},
        "planar": {"compress": "jpeg", "interleave": "band"},
        "rgb": {"compress": "jpeg", "photometric": "rgb", "interleave": "pixel"},
        "small": {
            "compress": "jpeg",
            "photometric": "ycbcr",
            "interleave": "pixel",
            "blockxsize": 64,
            "blockysize": 64,
        },
    }
    for name, options in kinds.items():
        path = write_raster(tmp_path / f"{name}.tif", values, **(side | options))
        with RasterReader(scene_of(path)) as reader, rasterio.open(path) as dataset:
            assert reader._jpegs is None
            read = reader.read_inside(30, 40, 150, 160)
            assert np.array_equal(np.moveaxis(read.rgb, -1, 0), dataset.read()[:, 40:200, 30:180])


def test_a_torn_jpeg_block_spoils_its_own_windows_alone(jpeg_cog: Callable[..., Path], scene_of: Any) -> None:
    path = jpeg_cog()
    scene = scene_of(path)
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_2", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 200] = bytes(200)
    path.write_bytes(data)
    with RasterReader(scene) as reader:
        assert reader.read_inside(0, 0, 500, 500).valid.all()
        with pytest.raises(CorruptInputError, match="cannot be decoded"):
            reader.read_inside(520, 520, 50, 50)


def test_scanlines_are_read_many_at_a_time(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    values = textured(300, 500)
    path = write_raster(tmp_path / "a.tif", values, tiled=False, blockysize=1, compress="lzw")
    loaded: list[Any] = []
    with RasterReader(scene_of(path)) as reader:
        decode = reader._decode
        reader._decode = lambda y, x: loaded.append((y, x)) or decode(y, x)  # type: ignore[method-assign]
        read = reader.read_inside(10, 100, 200, 300)
    assert np.array_equal(np.moveaxis(read.rgb, -1, 0), values[:, 100:400, 10:210])
    assert len(loaded) == 4
    assert BLOCKS.nbytes == 0
