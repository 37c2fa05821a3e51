import datetime as dt
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError
from skyscript_assets.lib.geometry import from_lonlat
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import UNUSABLE_FILE, Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files import index as files_module
from skyscript_assets.lib.imagery.sources.files.index import check_files, check_unchanged, files_of, index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from tests.workshop import shared_in

WORLD = (-180.0, -90.0, 180.0, 90.0)
Factory = Callable[..., Path]


def files_source(*paths: str, **fields: Any) -> FilesSource:
    known = {"title": "t", "gsd_m": 0.5, "licence": "CC0-1.0", "attribution": "A surveyor", "datetime": "2020-06-01"}
    return FilesSource.model_validate(known | {"paths": paths or ("*.tif",)} | fields)


def counts(**known: int) -> dict[str, Any]:
    """What an index counts; nothing but what is named."""
    names = ("files", "scenes", "outside", "without_data", "duplicates", "mostly_hidden", "unusable")
    return dict.fromkeys(names, 0) | known


def index(folder: Path, source: FilesSource, bbox: tuple[float, float, float, float] = WORLD) -> dict[str, Any]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return index_files(Search("here", "S", source, shared_in(folder), bbox, out))


def scenes(folder: Path) -> list[Scene]:
    return read_scenes(folder / "out")


def test_a_file_becomes_a_scene_with_its_grid_its_gsd_and_its_credit(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    path = write_raster(tmp_path / "Nord 1.tif", textured())
    assert index(tmp_path, files_source()) == counts(files=1, scenes=1)
    (scene,) = scenes(tmp_path)
    assert scene.scene_id.startswith("Nord-1-")
    assert (scene.region, scene.source, scene.crs, scene.hrefs) == ("here", "S", "EPSG:32632", (str(path),))
    assert scene.transform == (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_250_000.0)
    assert (scene.width, scene.height, scene.bands) == (300, 200, (1, 2, 3))
    assert scene.gsd_m == pytest.approx(0.5, rel=5e-4)  # UTM is scaled by 0.9996 at its middle
    assert scene.datetime == dt.datetime(2020, 6, 1, tzinfo=dt.UTC)
    assert (scene.scale_low, scene.scale_high, scene.nodata) == (None, None, None)
    assert (scene.licence, scene.attribution, scene.synthetic) == ("CC0-1.0", "A surveyor", False)
    x, y = Transformer.from_crs(32632, 4326, always_xy=True).transform([500_000, 500_150], [5_249_900, 5_250_000])
    assert scene.bounds == pytest.approx((x[0], y[0], x[1], y[1]), abs=1e-7)


def test_indexing_twice_writes_the_same_bytes(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    write_raster(tmp_path / "a.tif", textured())
    write_raster(tmp_path / "b.tif", textured(seed=1))
    index(tmp_path, files_source())
    first = (tmp_path / "out/scenes.parquet").read_bytes()
    index(tmp_path, files_source("b.tif", "a.tif"))
    assert (tmp_path / "out/scenes.parquet").read_bytes() == first


def test_paths_and_globs_start_at_the_settings_folder_and_each_file_counts_once(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    (tmp_path / "deep").mkdir()
    for name, seed in (("a.tif", 0), ("deep/b[1].tif", 1)):
        write_raster(tmp_path / name, textured(seed=seed))
    (tmp_path / "deep/c.txt").write_text("")
    source = files_source("a.tif", "**/*.tif", "deep/b[1].tif", str(tmp_path / "*.tif"), f"../{tmp_path.name}/a.tif")
    assert files_of(source, shared_in(tmp_path)) == [tmp_path / "a.tif", tmp_path / "deep/b[1].tif"]
    assert index(tmp_path, source)["scenes"] == 2


def test_a_path_may_start_at_home(tmp_path: Path, write_raster: Factory, textured: Callable, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    image = write_raster(tmp_path / "home/a.tif", textured())
    for pattern in ("~/a.tif", "~/*.tif"):
        assert files_of(files_source(pattern), shared_in(tmp_path)) == [image]
    with pytest.raises(MissingInputError, match=f"{tmp_path}/home/b.tif does not exist"):
        index(tmp_path, files_source("~/b.tif"))


def test_the_files_of_a_source_can_be_listed_before_they_exist(tmp_path: Path) -> None:
    assert files_of(files_source("later.tif", "*.tif"), shared_in(tmp_path)) == [tmp_path / "later.tif"]


def test_only_files_that_overlap_the_region_become_scenes(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    write_raster(tmp_path / "near.tif", textured())
    write_raster(tmp_path / "far.tif", textured(seed=1), transform=Affine(0.5, 0, 700_000, 0, -0.5, 5_250_000))
    assert index(tmp_path, files_source(), (8.9, 47.0, 9.1, 47.5)) == counts(files=2, scenes=1, outside=1)
    assert index(tmp_path, files_source(), (0.0, 0.0, 1.0, 1.0)) == counts(files=2, outside=2)
    assert scenes(tmp_path) == []


def test_a_copy_of_a_file_is_no_second_scene(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    (tmp_path / "copy").mkdir()
    for folder in (tmp_path, tmp_path / "copy"):
        write_raster(folder / "a.tif", textured())
    assert index(tmp_path, files_source("**/*.tif")) == counts(files=2, scenes=1, duplicates=1)


def test_a_file_without_data_is_counted_and_left_out(tmp_path: Path, write_raster: Factory) -> None:
    write_raster(tmp_path / "a.tif", np.zeros((3, 64, 64), np.uint8), nodata=0)
    assert index(tmp_path, files_source()) == counts(files=1, without_data=1)


def test_the_footprint_follows_the_data_and_not_the_frame(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    values = textured(600, 400)
    values[:, :, :300] = 0
    values[:, 100:103, 400:402] = 0
    write_raster(tmp_path / "a.tif", values, nodata=0)
    index(tmp_path, files_source())
    footprint = shapely.transform(
        scenes(tmp_path)[0].footprint,
        lambda points: np.column_stack(Transformer.from_crs(4326, 32632, always_xy=True).transform(*points.T)),
    )
    west, south, east, north = footprint.bounds
    assert (east, south, north) == pytest.approx((500_300, 5_249_800, 5_250_000), abs=0.1)
    assert 500_145 < west <= 500_150.1
    assert len(footprint.interiors) == 0


def test_a_ragged_footprint_is_replaced_by_its_hull(tmp_path: Path, write_raster: Factory) -> None:
    rows, columns = np.mgrid[0:512, 0:512]
    values = np.where((rows // 16 + columns // 16) % 2, 90, 0).astype(np.uint8)[np.newaxis].repeat(3, axis=0)
    write_raster(tmp_path / "a.tif", values, nodata=0)
    index(tmp_path, files_source())
    footprint = scenes(tmp_path)[0].footprint
    assert footprint.geom_type == "Polygon"
    assert footprint.equals_exact(footprint.convex_hull, 1e-4) or footprint.area > 0.98 * footprint.convex_hull.area


def test_percentiles_are_taken_from_the_valid_pixels_of_the_scene(tmp_path: Path, write_raster: Factory) -> None:
    values = np.full((3, 200, 200), 60_000, np.uint16)
    values[:, :, 100:] = np.linspace(1000, 2000, 100).astype(np.uint16)
    write_raster(tmp_path / "a.tif", values, nodata=60_000)
    index(tmp_path, files_source(scaling={"percentiles": (2, 98)}))
    (scene,) = scenes(tmp_path)
    assert scene.nodata == 60_000
    assert scene.scale_low + scene.scale_high == pytest.approx([1020] * 3 + [1980] * 3, abs=2)


def test_percentiles_are_those_of_each_band(tmp_path: Path, write_raster: Factory) -> None:
    """One range for all made what is bright in one band, such as haze in the blue, a cast over everything."""
    base = np.random.default_rng(0).integers(0, 1000, (200, 300))
    values = np.stack([base + 500, base * 2 + 3000, base + 9000]).astype(np.uint16)
    write_raster(tmp_path / "a.tif", values)
    index(tmp_path, files_source(scaling={"percentiles": (2, 98)}))
    (scene,) = scenes(tmp_path)
    assert scene.scale_low == pytest.approx((520, 3040, 9020), abs=10)
    assert scene.scale_high == pytest.approx((1480, 4960, 9980), abs=10)
    with RasterReader(scene) as reader:
        rgb = reader.read(scene.crs, scene.transform, 300, 200).rgb
    assert np.ptp(rgb.mean(axis=(0, 1))) < 1


def calibrated(path: Path, scales: tuple[float, ...], offsets: tuple[float, ...]) -> None:
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = scales, offsets


@pytest.mark.parametrize(
    "scaling",
    [{"low": 0, "high": 3000}, {"low": 0, "high": 0.3, "values": "physical"}, {"percentiles": (0, 100)}],
)
def test_equal_reflectance_is_equally_bright_whatever_the_offset(
    tmp_path: Path, write_raster: Factory, textured: Callable, scaling: dict[str, Any]
) -> None:
    values = textured().astype(np.uint16) * 12
    for name, band_offsets in (("old", (0, 0, 0)), ("new", (1000, 1000, 1000)), ("mixed", (0, 1000, 500))):
        stored = values + np.array(band_offsets, np.uint16)[:, None, None]
        path = write_raster(tmp_path / f"{name}.tif", stored)
        calibrated(path, (1e-4,) * 3, tuple(-1e-4 * offset for offset in band_offsets))
    assert index(tmp_path, files_source(scaling=scaling))["scenes"] == 3
    pictures = []
    for scene in scenes(tmp_path):
        with RasterReader(scene) as reader:
            pictures.append(reader.read(scene.crs, scene.transform, scene.width, scene.height).rgb)
    for picture in pictures[1:]:
        assert np.abs(picture.astype(int) - pictures[0]).max() <= 1
    assert 50 < pictures[0].mean() < 200


def test_physical_limits_hold_over_files_of_other_scales_and_need_one(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    physical = files_source(scaling={"low": 0.0, "high": 0.5, "values": "physical"})
    calibrated(write_raster(tmp_path / "a.tif", textured().astype(np.uint16)), (0.002,) * 3, (0.1,) * 3)
    calibrated(write_raster(tmp_path / "b.tif", textured().astype(np.uint16) * 4), (0.0005,) * 3, (0.1,) * 3)
    index(tmp_path, physical)
    a, b = scenes(tmp_path)
    assert a.scale_low == pytest.approx([-50] * 3)
    assert a.scale_high == pytest.approx([200] * 3)
    assert b.scale_high == pytest.approx([800] * 3)
    index(tmp_path, files_source(scaling={"low": 7, "high": 9, "values": "stored"}))
    assert scenes(tmp_path)[0].scale_low == (7, 7, 7)
    write_raster(tmp_path / "a.tif", textured().astype(np.uint16))
    (tmp_path / "b.tif").unlink()
    with pytest.raises(SceneError, match=r"S\.scaling\.values: physical cannot use"):
        index(tmp_path, physical)


def test_a_scale_of_nothing_is_refused(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    calibrated(write_raster(tmp_path / "a.tif", textured().astype(np.uint16)), (1.0, 0.0, 1.0), (0.0,) * 3)
    with pytest.raises(SceneError, match=r"scales \[1.0, 0.0, 1.0\]"):
        index(tmp_path, files_source(scaling={"low": 0, "high": 255}))


@pytest.mark.parametrize("compress", ["deflate", "lzw"])
def test_a_band_that_is_wrongly_tagged_alpha_can_be_ignored(
    tmp_path: Path, write_raster: Factory, textured: Callable, compress: str
) -> None:
    values = np.concatenate([textured(256, 256), np.zeros((1, 256, 256), np.uint8)])
    values[3, :, :64] = 77  # near infrared: none over water
    write_raster(tmp_path / "a.tif", values, photometric="RGB", alpha="yes", compress=compress, nodata=0)
    for alpha, shown, hidden in (("mask", 0.25, 1), ("ignore", 1.0, 0)):
        assert index(tmp_path, files_source(alpha=alpha)) == counts(files=1, scenes=1, mostly_hidden=hidden)
        (scene,) = scenes(tmp_path)
        with RasterReader(scene) as reader:
            pixels = reader.read(scene.crs, scene.transform, 256, 256)
        assert pixels.valid.mean() == shown
        assert np.array_equal(pixels.rgb[pixels.valid], np.moveaxis(values[:3], 0, -1)[pixels.valid])


def test_a_bad_file_is_listed_and_the_others_are_used(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    for number in range(3):
        write_raster(tmp_path / f"good{number}.tif", textured(seed=number))
    (tmp_path / "bad.tif").write_bytes(b"II*\0" + bytes(20))
    write_raster(tmp_path / "coarse.tif", textured(), transform=Affine(9, 0, 500_000, 0, -9, 5_250_000))
    write_raster(tmp_path / "deep.tif", textured().astype(np.uint16))
    write_raster(tmp_path / "nowhere.tif", textured(), crs=None)
    assert index(tmp_path, files_source()) == counts(files=7, scenes=3, unusable=4)
    listed = json.loads((tmp_path / "out" / UNUSABLE_FILE).read_text())
    reasons = {Path(entry["item"]).name: entry["reason"] for entry in listed}
    assert list(reasons) == ["bad.tif", "coarse.tif", "deep.tif", "nowhere.tif"]
    for name, words in (("bad.tif", "cannot be read"), ("coarse.tif", "gsd_m says"), ("nowhere.tif", "has no CRS")):
        assert words in reasons[name]
    facts = check_files("S", files_source(), shared_in(tmp_path))
    assert (facts["files"], facts["unusable"]) == (4, 3)


def test_where_every_file_is_bad_the_first_is_the_error(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(b"II*\0" + bytes(20))
    with pytest.raises(CorruptInputError, match=r"a\.tif cannot be read"):
        index(tmp_path, files_source())
    with pytest.raises(CorruptInputError, match=r"a\.tif cannot be read"):
        check_files("S", files_source(), shared_in(tmp_path))


def test_a_file_that_is_named_twice_counts_once(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    write_raster(tmp_path / "a.tif", textured())
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    source = files_source("a.tif", "./a.tif", "*.tif", f"{tmp_path}/../{tmp_path.name}/a.tif", "link.tif")
    assert index(tmp_path, source) == counts(files=1, scenes=1)
    assert check_files("S", source, shared_in(tmp_path))["files"] == 1


@pytest.mark.parametrize("crs", ["EPSG:3857+5773", "EPSG:3395", "EPSG:3857"])
def test_stretched_metres_are_measured_and_heights_left_out(
    tmp_path: Path, write_raster: Factory, textured: Callable, crs: str
) -> None:
    x, y = from_lonlat(crs).transform(25.0, 60.0)
    write_raster(
        tmp_path / "a.tif", textured(), crs=CRS.from_user_input(crs).to_wkt(), transform=Affine(1, 0, x, 0, -1, y)
    )
    index(tmp_path, files_source())
    (scene,) = scenes(tmp_path)
    assert scene.crs == crs.partition("+")[0]
    assert scene.gsd_m == pytest.approx(0.50126, rel=2e-4)


def test_a_fixed_scaling_is_taken_as_it_is(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    write_raster(tmp_path / "a.tif", textured())
    index(tmp_path, files_source(scaling={"low": 10, "high": 100}, nodata=7))
    (scene,) = scenes(tmp_path)
    assert (scene.scale_low, scene.scale_high, scene.nodata) == ((10,) * 3, (100,) * 3, 7)


def test_the_time_of_a_file_is_its_own_tag_where_the_settings_state_none(
    tmp_path: Path, write_raster: Factory, textured: Callable
) -> None:
    write_raster(tmp_path / "a.tif", textured(), tags={"TIFFTAG_DATETIME": "2019:07:02 10:30:00"})
    index(tmp_path, files_source(datetime=None))
    assert scenes(tmp_path)[0].datetime == dt.datetime(2019, 7, 2, 10, 30, tzinfo=dt.UTC)


def test_gsd_is_metres_on_the_ground(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    # At 60 degrees north EPSG:3857 stretches by 1 / 0.50126 to the east (EPSG guidance note 7-2).
    write_raster(
        tmp_path / "a.tif", textured(), crs="EPSG:3857", transform=Affine(1.0, 0, 2_700_000, 0, -1.0, 8_399_837.9)
    )
    index(tmp_path, files_source())
    assert scenes(tmp_path)[0].gsd_m == pytest.approx(0.50126, abs=1e-5)


def test_a_crs_without_a_code_is_kept_as_wkt(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    local = "+proj=laea +lat_0=47 +lon_0=9 +ellps=WGS84 +units=m"
    write_raster(tmp_path / "a.tif", textured(), crs=local, transform=Affine(0.5, 0, 0, 0, -0.5, 0))
    index(tmp_path, files_source())
    (scene,) = scenes(tmp_path)
    assert rasterio.crs.CRS.from_user_input(scene.crs) == rasterio.crs.CRS.from_user_input(local)
    assert scene.bounds[:2] == pytest.approx((9.0, 46.999), abs=1e-3)


def test_a_rotated_file_has_a_rotated_footprint(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    turned = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000) @ Affine.rotation(30)
    write_raster(tmp_path / "a.tif", textured(), transform=turned)
    index(tmp_path, files_source())
    (scene,) = scenes(tmp_path)
    assert scene.gsd_m == pytest.approx(0.5, rel=5e-4)  # UTM is scaled by 0.9996 at its middle
    assert scene.footprint.area < 0.7 * shapely.box(*scene.bounds).area


def test_a_very_large_file_without_overviews_is_not_read_whole(
    tmp_path: Path, write_raster: Factory, textured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "MAX_UNTHINNED_PIXELS", 100)
    path = write_raster(tmp_path / "a.tif", textured(600, 400), nodata=30)
    index(tmp_path, files_source())
    assert len(scenes(tmp_path)) == 1
    with pytest.raises(SceneError, match="gdaladdo"):
        index(tmp_path, files_source(scaling={"percentiles": (2, 98)}))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    index(tmp_path, files_source(scaling={"percentiles": (2, 98)}))
    assert scenes(tmp_path)[0].scale_low is not None


def test_a_changed_file_is_noticed(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    path = write_raster(tmp_path / "a.tif", textured())
    index(tmp_path, files_source())
    (scene,) = scenes(tmp_path)
    check_unchanged(scene)
    write_raster(path, textured(seed=1))
    with pytest.raises(SceneError, match="has changed since it was indexed"):
        check_unchanged(scene)


def test_a_missing_file_and_an_empty_glob_are_named_with_their_key(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"S\.paths: .*gone\.tif does not exist"):
        index(tmp_path, files_source("gone.tif"))
    with pytest.raises(MissingInputError, match=r"S\.paths: .*\*\.tif matches no file"):
        index(tmp_path, files_source("*.tif"))


def test_a_file_of_another_format_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(20))
    with pytest.raises(CorruptInputError, match=r"a\.tif"):
        index(tmp_path, files_source())


class Mistakes:
    """Rasters that cannot be used, each with the words of its remedy."""

    no_crs = ({"crs": None}, {}, r"gdal_edit\.py -a_srs")
    no_georeference = ({"transform": None}, {}, r"gdal_edit\.py -a_ullr")
    local_crs = ({"crs": 'LOCAL_CS["site",UNIT["metre",1]]'}, {}, "local CRS")
    off_the_globe = ({"crs": "EPSG:4326"}, {"gsd_m": 55_660}, "does not lie on the globe")
    too_few_bands = ({}, {"bands": (1, 2, 5)}, r"has 3 bands.*S\.bands")
    band_zero = ({}, {"bands": (0, 1, 2)}, r"S\.bands")
    other_resolution = ({}, {"gsd_m": 10}, r"S\.gsd_m says 10")
    no_date = ({}, {"datetime": None}, r"S\.datetime")
    unreadable_date = ({"tags": {"TIFFTAG_DATETIME": "June"}}, {"datetime": None}, r"'June'.*S\.datetime")


MISTAKES = [pytest.param(*value, id=name) for name, value in vars(Mistakes).items() if not name.startswith("_")]


@pytest.mark.parametrize(("raster", "fields", "message"), MISTAKES)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mistake_ends_with_the_file_and_the_remedy(
    tmp_path: Path,
    write_raster: Factory,
    textured: Callable,
    raster: dict[str, Any],
    fields: dict[str, Any],
    message: str,
) -> None:
    write_raster(tmp_path / "a.tif", textured(), **raster)
    with pytest.raises(SceneError, match=f"a.tif.*{message}"):
        index(tmp_path, files_source(**fields))


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32", "complex64"])
def test_what_is_not_8_bit_needs_a_scaling(tmp_path: Path, write_raster: Factory, kind: str) -> None:
    write_raster(tmp_path / "a.tif", np.ones((3, 64, 64), kind))
    with pytest.raises(SceneError, match="complex" if kind == "complex64" else rf"{kind}, not 8-bit.*S\.scaling"):
        index(tmp_path, files_source())


def test_equal_percentiles_are_refused(tmp_path: Path, write_raster: Factory) -> None:
    write_raster(tmp_path / "a.tif", np.full((3, 64, 64), 7, np.uint16))
    with pytest.raises(SceneError, match=r"both 7.*low and high"):
        index(tmp_path, files_source(scaling={"percentiles": (2, 98)}))


def test_no_two_different_files_share_a_scene_id(tmp_path: Path, write_raster: Factory, textured: Callable) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        write_raster(tmp_path / str(number) / "tile.tif", textured(seed=number))
    index(tmp_path, files_source("**/*.tif"))
    assert all(a.scene_id != b.scene_id for a, b in itertools.combinations(scenes(tmp_path), 2))
    assert len(scenes(tmp_path)) == 3
