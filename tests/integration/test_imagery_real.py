"""Real images of many kinds: each becomes a scene that is read to the pixel, or ends with the error that mends it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.enums import Compression

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import utm_crs
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from tests.workshop import shared_in

pytestmark = pytest.mark.integration
WORLD = (-180.0, -90.0, 180.0, 90.0)


@dataclass(frozen=True)
class Image:
    """A real file, how its source would be described, and what is known of it."""

    file: str
    gsd_m: float
    crs: str
    fields: dict[str, Any] = field(default_factory=dict)


IMAGES = [
    Image("imagery/landsat7_olinda_br.tif", 28.5, "EPSG:31985", {"bands": (3, 2, 1)}),
    Image("imagery/landsat8_elkton_va_b432.tif", 30, "EPSG:32617", {"scaling": {"percentiles": (2, 98)}}),
    Image("imagery/naip_nd_m_4709963_se_20100629.tif", 5, "EPSG:26914"),
    Image("imagery/naip_nd_m_4709963_se_20200831.tif", 5, "EPSG:26914", {"bands": (4, 1, 2)}),
    Image("imagery/naip_tulelake_cog_3857.tif", 0.444, "EPSG:3857"),
    Image("imagery/neon_sjer_2018.tif", 0.1, "EPSG:32611"),
    Image("imagery/sentinel2_tci_T34RFV_100m_cog.tif", 100, "EPSG:32634"),
    Image("imagery/spacenet2_vegas_img0.tif", 0.3, "EPSG:4326"),
    Image("imagery/swissortho_zurich_1091-322.tif", 0.5, "EPSG:2056"),
    Image("pairs/bahamas_300m/landsat_bahamas_RGB.byte_300m.tif", 300, "EPSG:32618"),
    Image("pairs/kampala_oam/oam_kampala_z21.tif", 0.075, "EPSG:3857"),
    Image("pairs/kampala_oam/oam_kampala_z20.tif", 0.15, "EPSG:3857"),
    Image("pairs/kampala_oam/oam_kampala_z19.tif", 0.3, "EPSG:3857"),
    Image("pairs/sf_landsat7/landsat7_sf_bay_30m_3857.tif", 23.7, "EPSG:3857", {"bands": (2, 3, 3)}),
]


def source_of(path: Path, image: Image, **fields: Any) -> FilesSource:
    known = {"title": "t", "licence": "l", "attribution": "a", "datetime": "2020-06-01", "gsd_m": image.gsd_m}
    return FilesSource.model_validate(known | {"paths": [str(path)]} | image.fields | fields)


def index(path: Path, image: Image, out: Path, **fields: Any) -> list[Scene]:
    profile = shared_in(out)
    index_files(Search("here", "S", source_of(path, image, **fields), profile, WORLD, out))
    return read_scenes(out)


@pytest.fixture(params=IMAGES, ids=lambda image: Path(image.file).stem)
def indexed(request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path) -> tuple[Image, Path, Scene]:
    image: Image = request.param
    path = (shared_data / image.file).resolve()
    (scene,) = index(path, image, tmp_path)
    return image, path, scene


def raw(path: Path, scene: Scene, column: int, row: int, width: int, height: int) -> NDArray[Any]:
    """The scene's bands (height, width, 3), read without the project's reader."""
    with rasterio.open(path) as dataset:
        window = rasterio.windows.Window(column, row, width, height)
        return np.moveaxis(dataset.read(list(scene.bands), window=window), 0, -1)


def read_own_grid(scene: Scene, column: int, row: int, width: int, height: int) -> Pixels:
    transform = Affine(*scene.transform) @ Affine.translation(column, row)
    with RasterReader(scene) as reader:
        return reader.read(scene.crs, tuple(transform[:6]), width, height)


def test_a_real_file_is_described_by_its_own_facts(indexed: tuple[Image, Path, Scene]) -> None:
    image, path, scene = indexed
    assert scene.crs == image.crs
    assert scene.gsd_m == pytest.approx(image.gsd_m, rel=0.01)
    with rasterio.open(path) as dataset:
        frame = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds, densify_pts=21)
    west, south, east, north = scene.bounds
    slack = 1e-6
    assert frame[0] - slack <= west < east <= frame[2] + slack
    assert frame[1] - slack <= south < north <= frame[3] + slack
    assert scene.footprint.is_valid


def test_its_own_pixels_come_back_unchanged_where_they_hold_data(indexed: tuple[Image, Path, Scene]) -> None:
    _, path, scene = indexed
    column, row = scene.width // 3, scene.height // 3
    pixels = read_own_grid(scene, column, row, 90, 50)
    values = raw(path, scene, column, row, 90, 50)
    with rasterio.open(path) as dataset:
        jpeg = dataset.compression == Compression.jpeg
    if jpeg:
        # Where colours are stored at half the resolution, how they are interpolated is up to the decoder.
        difference = pixels.rgb.astype(float) - values
        assert np.abs(difference).mean() < 1
        assert np.abs(difference @ [0.299, 0.587, 0.114]).max() < 3
    elif scene.scale_low is None:
        assert np.array_equal(pixels.rgb[pixels.valid], values[pixels.valid])
    else:
        assert values.dtype == np.uint16
        low, high = np.array([scene.scale_low, scene.scale_high])
        levels = (values - low) / (high - low) * 255
        assert np.abs(pixels.rgb - np.clip(levels, 0, 255)).max() <= 0.51
        assert 20 < pixels.rgb.mean() < 235
    assert not pixels.rgb[~pixels.valid].any()


def test_what_is_valid_agrees_with_gdals_own_mask(indexed: tuple[Image, Path, Scene]) -> None:
    _, path, scene = indexed
    pixels = read_own_grid(scene, 0, 0, scene.width, scene.height)
    with rasterio.open(path) as dataset:
        assert np.array_equal(pixels.valid, dataset.dataset_mask() != 0)
    assert pixels.valid.any()


def sampled(values: NDArray[Any], column: NDArray[Any], row: NDArray[Any]) -> NDArray[np.float64]:
    """Bilinear values (n, 3) at places in pixel coordinates, written out independently of GDAL."""
    x, y = column - 0.5, row - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[..., np.newaxis], (y - y0)[..., np.newaxis]
    v = values.astype(np.float64)
    top = v[y0, x0] * (1 - fx) + v[y0, x0 + 1] * fx
    bottom = v[y0 + 1, x0] * (1 - fx) + v[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


@pytest.mark.parametrize(
    ("file", "target"),
    [
        ("pairs/kampala_oam/oam_kampala_z21.tif", "utm"),
        ("pairs/kampala_oam/oam_kampala_z20.tif", "EPSG:4326"),
        ("imagery/swissortho_zurich_1091-322.tif", "utm"),
        ("imagery/swissortho_zurich_1091-322.tif", "EPSG:3857"),
        ("imagery/naip_nd_m_4709963_se_20100629.tif", "EPSG:3857"),
        ("imagery/spacenet2_vegas_img0.tif", "utm"),
        ("imagery/landsat7_olinda_br.tif", "utm"),
        ("imagery/naip_nd_m_4709963_se_20200831.tif", "EPSG:4326"),
        ("imagery/neon_sjer_2018.tif", "EPSG:3857"),
        ("imagery/sentinel2_tci_T34RFV_100m_cog.tif", "EPSG:3857"),
        ("pairs/kampala_oam/oam_kampala_z19.tif", "utm"),
        ("pairs/bahamas_300m/landsat_bahamas_RGB.byte_300m.tif", "EPSG:4326"),
        ("pairs/sf_landsat7/landsat7_sf_bay_30m_3857.tif", "utm"),
    ],
)
def test_a_resampled_window_lies_where_an_independent_projection_puts_it(
    shared_data: Path, tmp_path: Path, file: str, target: str
) -> None:
    path = (shared_data / file).resolve()
    with rasterio.open(path) as dataset:
        size = abs(dataset.transform.a) * (111_320 if dataset.crs.is_geographic else 1)
    (scene,) = index(path, Image(file, size, ""), tmp_path)
    grid = Affine(*scene.transform)
    lon, lat = scene.footprint.centroid.coords[0]
    crs = f"EPSG:{utm_crs(lon, lat).to_epsg()}" if target == "utm" else target
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    step = size / (111_320 if crs == "EPSG:4326" else 1)
    transform = Affine(step, 0, x - 60 * step, 0, -step, y + 40 * step)
    with RasterReader(scene) as reader:
        pixels = reader.read(crs, tuple(transform[:6]), 120, 80)
    middles = np.broadcast_arrays(np.arange(120)[np.newaxis] + 0.5, np.arange(80)[:, np.newaxis] + 0.5)
    east, north = Transformer.from_crs(crs, scene.crs, always_xy=True).transform(*(transform @ tuple(middles)))
    column, row = ~grid @ (east, north)
    values = raw(path, scene, 0, 0, scene.width, scene.height)
    with rasterio.open(path) as dataset:
        mask = np.repeat(dataset.dataset_mask()[..., np.newaxis] != 0, 3, axis=2)
    # Where each of the four neighbours holds data.
    known = sampled(mask, column, row).min(axis=2) == 1
    error = np.abs(pixels.rgb - sampled(values, column, row))[known].mean()
    beside = [sampled(values, column + dx, row + dy) for dx, dy in ((1, 0), (0, 1))]
    shifted = [np.abs(pixels.rgb - moved)[known].mean() for moved in beside]
    assert pixels.valid[known].all()
    assert known.mean() > 0.95
    # An eighth of a pixel is GDAL's own tolerance; one whole pixel beside it must be clearly wrong.
    assert error < 1.5
    assert min(shifted) > 2.5 * error


def test_a_strip_that_is_mostly_transparent_has_a_footprint_of_the_strip_alone(
    shared_data: Path, tmp_path: Path
) -> None:
    image = IMAGES[4]
    path = (shared_data / image.file).resolve()
    (scene,) = index(path, image, tmp_path)
    with rasterio.open(path) as dataset:
        frame = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    assert scene.footprint.area < 0.2 * (frame[2] - frame[0]) * (frame[3] - frame[1])


def test_a_landscape_without_data_at_its_corners_has_a_footprint_without_them(
    shared_data: Path, tmp_path: Path
) -> None:
    image = IMAGES[9]
    path = (shared_data / image.file).resolve()
    (scene,) = index(path, image, tmp_path)
    west, south, east, north = scene.bounds
    assert scene.footprint.area < 0.9 * (east - west) * (north - south)
    pixels = read_own_grid(scene, 0, 0, scene.width, scene.height)
    rows, columns = np.nonzero(pixels.valid)
    x, y = Affine(*scene.transform) @ (columns + 0.5, rows + 0.5)
    lon, lat = Transformer.from_crs(scene.crs, 4326, always_xy=True).transform(x, y)
    inside = shapely.contains_xy(scene.footprint, lon, lat)
    assert inside.mean() > 0.999


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("imagery/landsat8_elkton_va_b432.tif", {"scaling": None, "gsd_m": 30}, r"uint16.*S\.scaling"),
        ("imagery/neon_sjer_2018.tif", {"bands": (1, 2, 4), "gsd_m": 0.1}, r"3 bands.*S\.bands"),
        ("imagery/swissortho_zurich_1091-322.tif", {"gsd_m": 0.1}, r"S\.gsd_m"),
        ("imagery/swissortho_zurich_1091-322.tif", {"datetime": None, "gsd_m": 0.5}, r"S\.datetime"),
    ],
)
def test_a_real_file_that_is_described_wrongly_names_the_key(
    shared_data: Path, tmp_path: Path, file: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(SceneError, match=message):
        index((shared_data / file).resolve(), Image(file, 1, ""), tmp_path, **fields)


def test_a_real_file_stripped_of_its_crs_names_the_command(
    shared_data: Path, tmp_path: Path, write_raster: Callable[..., Path]
) -> None:
    with rasterio.open(shared_data / "imagery/neon_sjer_2018.tif") as dataset:
        path = write_raster(tmp_path / "stripped.tif", dataset.read(), crs=None, transform=dataset.transform)
    with pytest.raises(SceneError, match=r"stripped\.tif has no CRS.*gdal_edit\.py -a_srs"):
        index(path, Image("", 0.1, ""), tmp_path)
