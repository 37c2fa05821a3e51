import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.shutil import copy

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.geotiff.directories import Directory, read_directories
from skyscript_assets.lib.imagery.reader import Window


def fetch_from(data: bytes) -> Callable[[int, int], bytes]:
    def fetch(offset: int, length: int) -> bytes:
        if offset + length > len(data):
            raise CorruptInputError("ends early")
        return data[offset : offset + length]

    return fetch


def directories(data: bytes) -> list[Directory]:
    return read_directories(fetch_from(data), "a.tif")


@pytest.mark.parametrize(
    "options",
    [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}, {"interleave": "band"}, {"tiled": False, "blockysize": 7}],
    ids=str,
)
def test_blocks_lie_where_gdal_says(
    tmp_path: Path, write_raster: Callable[..., Path], textured: Callable, options: dict[str, object]
) -> None:
    if options.get("tiled") is False:
        options = options | {"blockxsize": 300}
    path = write_raster(tmp_path / "a.tif", textured(), **options)
    (full,) = directories(path.read_bytes())
    with rasterio.open(path) as dataset:
        assert full.size == (dataset.width, dataset.height)
        assert (full.block_height, full.block_width) == dataset.block_shapes[0]
        bands = range(1, 4) if full.offsets.shape[0] == 3 else [1]
        for plane, band in enumerate(bands):
            for (row, column), _ in dataset.block_windows(1):
                offset = int(dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", band))
                size = int(dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", band))
                assert (full.offsets[plane, row, column], full.sizes[plane, row, column]) == (offset, size)


def test_overviews_and_masks_follow_the_full_image(
    tmp_path: Path, write_raster: Callable[..., Path], textured: Callable
) -> None:
    mask = np.ones((400, 600), bool)
    mask[:9] = False
    plain = write_raster(tmp_path / "plain.tif", textured(600, 400), mask=mask)
    copy(plain, tmp_path / "a.tif", driver="COG", BLOCKSIZE=128, COMPRESS="DEFLATE")
    found = directories((tmp_path / "a.tif").read_bytes())
    sizes = [directory.size for directory in found]
    assert sizes[0] == (600, 400)
    assert (sizes.count((600, 400)), sizes.count((300, 200))) == (2, 2)


def test_the_ranges_of_a_window_are_those_of_the_blocks_under_it(
    tmp_path: Path, write_raster: Callable[..., Path], textured: Callable
) -> None:
    (full,) = directories(write_raster(tmp_path / "a.tif", textured()).read_bytes())
    assert len(full.ranges(Window(0, 0, 64, 64))) == 1
    assert len(full.ranges(Window(63, 63, 2, 2))) == 4
    assert len(full.ranges(Window(0, 0, *full.size))) == full.offsets.size
    begin, end = full.ranges(Window(64, 128, 1, 1))[0]
    assert (begin, end) == (full.offsets[0, 2, 1], full.offsets[0, 2, 1] + full.sizes[0, 2, 1])
    assert full.end == max(end for _, end in full.ranges(Window(0, 0, *full.size)))


def test_directories_that_form_a_loop_or_state_too_much_are_refused() -> None:
    entry = struct.pack("<HHII", 256, 4, 1, 10)
    loop = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    with pytest.raises(CorruptInputError, match="loop"):
        directories(loop + bytes(64))
    many = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 60_000)
    with pytest.raises(CorruptInputError, match="60000 tags"):
        directories(many + bytes(64))
    huge = struct.pack("<HHII", 324, 4, 1 << 30, 8)
    with pytest.raises(CorruptInputError, match="more than"):
        directories(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 1) + huge + bytes(64))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_damaged_header_is_corrupt_and_nothing_else(
    tmp_path: Path, write_raster: Callable[..., Path], textured: Callable, edits: list[tuple[int, int]]
) -> None:
    path = tmp_path / "a.tif"
    if not path.exists():
        write_raster(path, textured())
    data = bytearray(path.read_bytes())
    for at, value in edits:
        data[at] = value
    try:
        directories(bytes(data))
    except CorruptInputError:
        return
