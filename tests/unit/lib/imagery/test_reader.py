from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.imagery import reader as reader_module
from skyscript_assets.lib.imagery.geotiff import raster as raster_module
from skyscript_assets.lib.imagery.geotiff.raster import BLOCKS, RasterReader, open_raster
from skyscript_assets.lib.imagery.reader import GeoBox, Window
from skyscript_assets.lib.imagery.scenes import Scene

UTM = "EPSG:32632"
GRID = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000)
Factory = Callable[..., Path]
Describe = Callable[..., Scene]


def window(column: float, row: float, width: int = 40, height: int = 30) -> GeoBox:
    return GeoBox(UTM, tuple((GRID @ Affine.translation(column, row))[:6]), width, height)


def test_a_window_on_the_grid_is_read_to_the_pixel(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable
) -> None:
    values = textured()
    scene = scene_of(write_raster(tmp_path / "a.tif", values))
    with RasterReader(scene) as reader:
        pixels = reader.read(*window(55, 60))
    assert pixels.rgb.shape == (30, 40, 3)
    assert np.array_equal(np.moveaxis(pixels.rgb, -1, 0), values[:, 60:90, 55:95])
    assert pixels.valid.all()
    assert pixels.rgb.flags.c_contiguous


def test_what_lies_outside_the_scene_is_not_valid_and_black(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable
) -> None:
    values = textured()
    with RasterReader(scene_of(write_raster(tmp_path / "a.tif", values))) as reader:
        corner = reader.read(*window(-10, -5))
        nowhere = reader.read(*window(5_000, 0))
        off_the_globe = reader.read("EPSG:4326", (1.0, 0, 9, 0, -1.0, 200), 40, 30)
        elsewhere = reader.read("EPSG:32733", (0.5, 0, 500_000, 0, -0.5, 5_250_000), 40, 30)
    assert corner.valid.sum() == 25 * 30
    assert np.array_equal(corner.rgb[5:, 10:], np.moveaxis(values[:, :25, :30], 0, -1))
    assert not corner.rgb[~corner.valid].any()
    assert not nowhere.valid.any()
    assert not elsewhere.valid.any()
    assert not off_the_globe.valid.any()


def test_bands_are_mapped_in_the_order_of_the_scene(tmp_path: Path, write_raster: Factory, scene_of: Describe) -> None:
    values = np.stack([np.full((64, 64), level, np.uint8) for level in (10, 20, 30, 40)])
    with RasterReader(scene_of(write_raster(tmp_path / "a.tif", values), bands=(4, 2, 2))) as reader:
        assert reader.read(*window(0, 0)).rgb[0, 0].tolist() == [40, 20, 20]


def test_raw_values_are_scaled_to_8_bit_and_clipped(tmp_path: Path, write_raster: Factory, scene_of: Describe) -> None:
    values = np.full((3, 64, 64), 1000, np.uint16)
    values[:, 0, 0], values[:, 0, 1], values[:, 0, 2] = 0, 9000, 2000
    path = write_raster(tmp_path / "a.tif", values)
    with RasterReader(scene_of(path, scale_low=(1000.0,) * 3, scale_high=(3000.0,) * 3)) as reader:
        assert reader.read(*window(0, 0)).rgb[0, :4, 0].tolist() == [0, 255, 128, 0]
    with RasterReader(scene_of(path)) as reader, pytest.raises(SceneError, match=r"uint16.*scaling"):
        reader.read(*window(0, 0))


def test_nan_and_infinity_are_no_data(tmp_path: Path, write_raster: Factory, scene_of: Describe) -> None:
    values = np.full((3, 64, 64), 0.5, np.float32)
    values[1, 0, 0], values[2, 0, 1], values[:, 0, 2] = np.nan, np.inf, -9999
    scene = scene_of(
        write_raster(tmp_path / "a.tif", values, nodata=-9999),
        nodata=-9999.0,
        scale_low=(0.0,) * 3,
        scale_high=(1.0,) * 3,
    )
    with RasterReader(scene) as reader:
        pixels = reader.read(*window(0, 0))
    assert pixels.valid[0, :4].tolist() == [False, False, False, True]
    assert pixels.rgb[0, :4, 0].tolist() == [0, 0, 0, 128]


def test_a_pixel_is_without_data_only_where_all_its_bands_are(
    tmp_path: Path, write_raster: Factory, scene_of: Describe
) -> None:
    values = np.full((3, 64, 64), 90, np.uint8)
    values[:, 0, 0], values[0, 0, 1], values[1:, 0, 2] = 0, 0, 0
    path = write_raster(tmp_path / "a.tif", values)
    for bands in ((1, 2, 3), (2, 3, 3)):
        with RasterReader(scene_of(path, nodata=0.0, bands=bands)) as reader:
            pixels = reader.read(*window(0, 0))
        assert pixels.valid[0, :3].tolist() == [False, True, True]


def test_an_alpha_band_says_what_is_valid(tmp_path: Path, write_raster: Factory, scene_of: Describe) -> None:
    values = np.full((4, 64, 64), 90, np.uint8)
    values[3, :, :32] = 0
    path = write_raster(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    with RasterReader(scene_of(path)) as reader:
        pixels = reader.read(*window(0, 0, 64, 64))
    assert not pixels.valid[:, :32].any()
    assert pixels.valid[:, 32:].all()
    assert not pixels.rgb[:, :32].any()


def test_a_mask_inside_the_file_says_what_is_valid(tmp_path: Path, write_raster: Factory, scene_of: Describe) -> None:
    mask = np.ones((64, 64), bool)
    mask[:10] = False
    path = write_raster(tmp_path / "a.tif", np.full((3, 64, 64), 90, np.uint8), mask=mask)
    with RasterReader(scene_of(path)) as reader:
        assert np.array_equal(reader.read(*window(0, 0, 64, 64)).valid, mask)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:2056", "EPSG:4326", "EPSG:32633"])
def test_a_window_in_another_crs_shows_the_same_ground(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, crs: str
) -> None:
    # A ramp in both directions: a value tells the place it was taken from to a small part of a pixel.
    rows, columns = np.mgrid[0:240, 0:240]
    values = np.stack([columns, rows, columns]).astype(np.uint8)
    scene = scene_of(write_raster(tmp_path / "a.tif", values))
    to_scene = Transformer.from_crs(crs, UTM, always_xy=True)
    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(*(GRID @ (100, 100)))
    step = 0.5 if crs != "EPSG:4326" else 0.5 / 111_320
    transform = Affine(step, 0, x, 0, -step, y)
    with RasterReader(scene) as reader:
        pixels = reader.read(crs, tuple(transform[:6]), 60, 50)
    middles = transform @ (np.arange(60)[np.newaxis, :] + 0.5, np.arange(50)[:, np.newaxis] + 0.5)
    east, north = to_scene.transform(*np.broadcast_arrays(*middles))
    column, row = ~GRID @ (east, north)
    assert pixels.valid.all()
    assert np.abs(pixels.rgb[..., 0] - (column - 0.5)).max() < 1.0
    assert np.abs(pixels.rgb[..., 1] - (row - 0.5)).max() < 1.0


def test_invalid_pixels_do_not_darken_their_resampled_neighbours(
    tmp_path: Path, write_raster: Factory, scene_of: Describe
) -> None:
    values = np.full((3, 64, 64), 200, np.uint8)
    values[:, :, :20] = 0
    with RasterReader(scene_of(write_raster(tmp_path / "a.tif", values), nodata=0.0)) as reader:
        pixels = reader.read(*window(5.5, 5.5, 40, 40))
    assert 0 < pixels.valid.sum() < pixels.valid.size
    assert (pixels.rgb[pixels.valid] == 200).all()
    assert not pixels.rgb[~pixels.valid].any()


def test_a_rotated_scene_is_turned_north_up(tmp_path: Path, write_raster: Factory, scene_of: Describe) -> None:
    rows, columns = np.mgrid[0:200, 0:200]
    values = np.stack([columns, rows, columns]).astype(np.uint8)
    turned = GRID @ Affine.rotation(30)
    scene = scene_of(write_raster(tmp_path / "a.tif", values, transform=turned))
    x, y = turned @ (100, 100)
    with RasterReader(scene) as reader:
        pixels = reader.read(UTM, (0.5, 0, x - 10, 0, -0.5, y + 10), 40, 40)
        aligned = reader.read(UTM, tuple((turned @ Affine.translation(10, 20))[:6]), 30, 30)
    assert pixels.valid.all()
    assert pixels.rgb[20, 20, :2].tolist() == pytest.approx([100, 100], abs=1)
    assert np.array_equal(aligned.rgb[..., 1], values[1, 20:50, 10:40])


def test_many_windows_come_in_the_order_of_blocks_with_their_own_pixels(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable
) -> None:
    windows = [window(200, 150), window(0, 0), window(150, 0), window(9_000, 0), window(10, 10)]
    with RasterReader(scene_of(write_raster(tmp_path / "a.tif", textured()))) as reader:
        read = list(reader.read_many(windows))
        assert [index for index, _ in read] == [1, 3, 4, 2, 0]
        for index, pixels in read:
            assert np.array_equal(pixels.rgb, reader.read(*windows[index]).rgb)


def test_a_truncated_file_spoils_only_the_windows_that_reach_the_missing_part(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable
) -> None:
    path = write_raster(tmp_path / "a.tif", textured(640, 640))
    scene = scene_of(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with RasterReader(scene) as reader:
        read = dict(reader.read_many([window(0, 0), window(590, 600), window(600.5, 600.5)]))
    assert not isinstance(read[0], CorruptInputError)
    assert isinstance(read[1], CorruptInputError)
    assert isinstance(read[2], CorruptInputError)
    assert "a.tif cannot be decoded" in str(read[1])


def test_a_window_over_far_too_many_pixels_is_refused(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAX_READ_PIXELS", 10_000)
    coarse = GeoBox(UTM, (50.0, 0, 500_000, 0, -50.0, 5_250_000), 100, 100)
    with (
        RasterReader(scene_of(write_raster(tmp_path / "a.tif", textured()))) as reader,
        pytest.raises(SceneError, match="nearer to the image's own GSD"),
    ):
        reader.read(*coarse)


def test_a_window_without_a_readable_crs_is_refused(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable
) -> None:
    with (
        RasterReader(scene_of(write_raster(tmp_path / "a.tif", textured()))) as reader,
        pytest.raises(SceneError, match="no readable CRS"),
    ):
        reader.read("EPSG:nonsense", (1, 0, 0, 0, -1, 0), 10, 10)


def test_blocks_that_would_fill_the_memory_are_refused(
    tmp_path: Path, write_raster: Factory, textured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster_module, "MAX_BLOCK_BYTES", 1_000)
    path = write_raster(tmp_path / "a.tif", textured())
    with pytest.raises(SceneError, match="gdal_translate -of COG"), open_raster(path):
        pass


def test_a_missing_file_and_another_format_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="gone.tif"), open_raster(tmp_path / "gone.tif"):
        pass
    for name in ("text.tif", "text.vrt"):
        (tmp_path / name).write_text("no raster")
        with pytest.raises(CorruptInputError, match=name), open_raster(tmp_path / name):
            pass


def test_an_image_that_is_not_the_indexed_one_is_refused(
    tmp_path: Path, write_raster: Factory, scene_of: Describe
) -> None:
    path = write_raster(tmp_path / "a.tif", np.zeros((3, 64, 64), np.uint8))
    scene = scene_of(path)
    write_raster(path, np.zeros((1, 64, 64), np.uint8))
    with pytest.raises(SceneError, match="materialize scene_index again"), RasterReader(scene):
        pass


def test_a_virtual_mosaic_is_read_like_one_file(
    tmp_path: Path, write_raster: Factory, scene_of: Describe, textured: Callable
) -> None:
    values = textured(128, 64)
    write_raster(tmp_path / "a.tif", values)
    (tmp_path / "m.vrt").write_text(
        '<VRTDataset rasterXSize="128" rasterYSize="64"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>500000, 0.5, 0, 5250000, 0, -0.5</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
            f"</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
            for band in (1, 2, 3)
        )
        + "</VRTDataset>"
    )
    with RasterReader(scene_of(tmp_path / "m.vrt")) as reader:
        assert np.array_equal(reader.read(*window(10, 10)).rgb, np.moveaxis(values[:, 10:40, 10:50], 0, -1))


def test_scanlines_are_read_many_at_a_time(
    tmp_path: Path, write_raster: Factory, textured: Callable, scene_of: Any
) -> None:
    values = textured(300, 500)
    path = write_raster(tmp_path / "a.tif", values, tiled=False, blockysize=1, compress="lzw")
    loaded: list[Any] = []
    with RasterReader(scene_of(path)) as reader:
        decode = reader._decode
        reader._decode = lambda y, x: loaded.append((y, x)) or decode(y, x)  # type: ignore[method-assign]
        read = reader.read_inside(Window(10, 100, 200, 300))
    assert np.array_equal(np.moveaxis(read.rgb, -1, 0), values[:, 100:400, 10:210])
    assert len(loaded) == 4
    assert BLOCKS.size == 0
