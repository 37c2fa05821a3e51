"""What services and sets of the outside world really do, a fact a test; stand-ins behave as the real ones were seen to.

Facts of one protocol as a whole are beside their kind: searches in `test_stac_services.py`, limits and refusals in
`test_earthengine.py`, coverages in `test_tile_services.py`, published checkpoints in `test_published_models.py`.
"""

import datetime as dt
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer

from skyscript_assets.lib import http
from skyscript_assets.lib.benchmarks.image_folder import build_image_folder
from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.earthengine import session
from skyscript_assets.lib.imagery.sources.kind import Search, open_scene, source_kind
from skyscript_assets.lib.imagery.sources.stac import hrefs
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.settings.sources import SourceBase
from skyscript_assets.lib.tables import read_table
from tests.earth_engine_server import EarthEngineServer, StoredImage, earth_engine_server, write_key_file
from tests.rehearsal import packed, picture
from tests.tile_server import TileServer, matrix_set, painted, tile_server, wms_document, wmts_document
from tests.web import FileServer, StacApi, feature, running
from tests.workshop import shared_in

pytestmark = pytest.mark.integration

PROFILE = load_settings(PACKAGED_PROFILES / "skyscript")
MADRID = (-3.7050, 40.4160, -3.7010, 40.4190)
HELSINKI = (24.935, 60.165, 24.940, 60.168)
BLUE = (12, 40, 75)
"""What the mosaic of PNOA shows beyond the coast."""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(hrefs, "_FILES", Cache(hrefs.MAX_FILES))


@pytest.fixture
def tiles() -> Iterator[TileServer]:
    with tile_server() as running_:
        yield running_


@pytest.fixture
def web() -> Iterator[FileServer]:
    with running(FileServer()) as started:
        yield started


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (folder := tmp_path / "cache").mkdir()
    return folder


@pytest.fixture
def find(tmp_path: Path, cache: Path) -> Callable[..., list[Scene]]:
    """The scenes of a source over a box, as `scene_index` finds them."""

    def run(source: SourceBase, box: tuple[float, ...]) -> list[Scene]:
        (out := tmp_path / "scenes").mkdir(exist_ok=True)
        source_kind(source.kind).find(Search("here", "S", source, shared_in(tmp_path), box, out, cache=cache))  # type: ignore[arg-type]
        return read_scenes(out)

    return run


def of_profile(key: str, **facts: Any) -> SourceBase:
    """A source of profile `skyscript`, its address and what else is named replaced."""
    stated = PROFILE.sources[key].model_dump(mode="json", exclude_defaults=True) | {"kind": PROFILE.sources[key].kind}
    return source_kind(stated["kind"]).settings.model_validate(stated | facts)


def source(kind: str, **facts: Any) -> SourceBase:
    known = {"kind": kind, "title": "t", "licence": "CC-BY-4.0", "attribution": "a", "datetime": "2022-06-01"}
    return source_kind(kind).settings.model_validate(known | {"requests_per_second": 100.0} | facts)


def read(scene: Scene, of: SourceBase, cache: Path, column: int, row: int, side: int) -> Pixels:
    grid = Affine(*scene.transform) @ Affine.translation(column, row)
    with open_scene(scene, of, cache) as reader:
        return reader.read(scene.crs, tuple(grid[:6]), side, side)


# ---------------------------------------------------------------------------------------------------- PNOA, NLS Finland


def pnoa_wmts(server: TileServer) -> SourceBase:
    """The newest mosaic as guide and profile name it; matrices 0 to 20, JPEG."""
    finest = 2 * 20037508.342789244 / (256 << 20)
    corner = "-20037508.342789244 20037508.342789244"
    sets = matrix_set("GoogleMapsCompatible", "urn:ogc:def:crs:EPSG::3857", corner, finest, levels=21)
    document = wmts_document(sets, ["GoogleMapsCompatible"], kvp=f"{server.address}/wmts/pnoa-ma?")
    document = document.replace("photos", "OI.OrthoimageCoverage").replace("image/png", "image/jpeg")
    server.documents["/wmts/pnoa-ma"] = document
    server.format, server.media_type = "JPEG", "image/jpeg"
    facts = {"layer": "OI.OrthoimageCoverage", "matrix_set": "GoogleMapsCompatible", "gsd_m": 0.25}
    return source("wmts", url=f"{server.address}/wmts/pnoa-ma", **facts)


def test_pnoa_by_tiles_is_25_cm_though_a_finer_matrix_is_declared(
    tiles: TileServer, find: Callable[..., list[Scene]]
) -> None:
    (scene,) = find(pnoa_wmts(tiles), MADRID)
    assert "TILEMATRIX=GoogleMapsCompatible:19" in tiles.requests[-1][0]
    assert scene.gsd_m == pytest.approx(0.228, abs=0.001)
    assert not any("key" in path for path, _ in tiles.requests)


def test_pnoa_by_maps_is_10_cm_and_dated_by_its_layer(tiles: TileServer, find: Callable[..., list[Scene]]) -> None:
    tiles.maps = lambda query: (0, 0, int(query["WIDTH"]), int(query["HEIGHT"]))
    document = wms_document("1.3.0", crs="EPSG:25830", href=f"{tiles.address}/wms/pnoa-historico")
    tiles.documents["/wms/pnoa-historico"] = document.replace("photos", "pnoa10_2018")
    (scene,) = find(of_profile("ES", url=f"{tiles.address}/wms/pnoa-historico"), MADRID)
    assert (scene.gsd_m, scene.crs) == (pytest.approx(0.1, rel=1e-3), "EPSG:25830")
    assert (scene.datetime.year, scene.date_is) == (2018, "year")
    assert "LAYERS=pnoa10_2018" in tiles.requests[-1][0]


def test_the_blue_of_pnoa_beyond_the_coast_makes_no_chip(
    tiles: TileServer,
    find: Callable[..., list[Scene]],
    cache: Path,
    tmp_path: Path,
    textured: Callable[..., NDArray[np.uint8]],
    write_chip_plan: Callable[..., Any],
) -> None:
    of, land = pnoa_wmts(tiles), np.moveaxis(textured(4096, 4096), 0, -1)
    coast: list[int] = []

    def draw(column: int, row: int, width: int, height: int) -> NDArray[np.uint8]:
        columns, rows = np.arange(column, column + width), np.arange(row, row + height)
        shown = land[rows % 4096][:, columns % 4096].copy()
        shown[:, columns >= min(coast, default=1 << 40)] = BLUE
        return shown

    tiles.draw = draw
    (scene,) = find(of, MADRID)
    first = scene.access["first"][0] * 256
    coast.append(first + 400)  # amid the second tile
    (plan := tmp_path / "plan").mkdir()
    (out := tmp_path / "chips").mkdir()
    # On land, at sea within the tile that the coast crosses, and on a tile that has nothing but sea.
    windows = [(scene, 100, 100, 128, 128), (scene, 384 + 24, 100, 96, 96), (scene, 600, 100, 128, 128)]
    write_chip_plan(plan, windows)
    reader = CutInputs(plan, tmp_path / "scenes", lambda scene: open_scene(scene, of, cache))
    cut_chips(reader, ChipSettings(), out)
    rows = read_table(out / "chips.parquet").to_pylist()
    assert [row["reason"] or row["status"] for row in rows] == ["ok", "blank", "no-data"]


def test_tiles_of_nls_finland_have_row_before_column_and_want_a_key(
    tiles: TileServer, find: Callable[..., list[Scene]], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = matrix_set("ETRS-TM35FIN", "urn:ogc:def:crs:EPSG:6.18:3:3067", "-548576 8388608", 0.125, levels=17)
    corner = "-20037508.342789244 20037508.342789244"
    world = 2 * 20037508.342789244 / 256
    sets += matrix_set("WGS84_Pseudo-Mercator", "urn:ogc:def:crs:EPSG:6.18:3:3857", corner, world / 2**18, levels=19)
    place = "avoin/wmts/1.0.0/ortokuva/default"
    template = f"{tiles.address}/{place}/{{TileMatrixSet}}/{{TileMatrix}}/{{TileRow}}/{{TileCol}}.jpg"
    document = wmts_document(sets, ["ETRS-TM35FIN", "WGS84_Pseudo-Mercator"], resource=template)
    address = "/avoin/wmts/1.0.0/WMTSCapabilities.xml"
    tiles.documents[address] = document.replace("photos", "ortokuva").replace("image/png", "image/jpeg")
    tiles.key, tiles.media_type = "a-key", "image/jpeg"
    # The stand-in takes the last number of an address for a row; here it is the column.
    tiles.draw = lambda column, row, width, height: painted(row, column, width, height)
    monkeypatch.setenv("NLS_API_KEY", "a-key")
    facts = {"url": f"{tiles.address}{address}", "layer": "ortokuva", "gsd_m": 0.5, "api_key_variable": "NLS_API_KEY"}
    (scene,) = find(of := source("wmts", **facts), HELSINKI)
    assert (scene.crs, scene.gsd_m) == ("EPSG:3067", pytest.approx(0.5, rel=1e-3))
    asked = tiles.requests[-1][0]
    assert asked.startswith(f"/{place}/ETRS-TM35FIN/ETRS-TM35FIN:14/")
    assert asked.endswith(".jpg?api-key=a-key")
    column, row = (scene.access["first"][axis] * 256 for axis in (0, 1))
    np.testing.assert_array_equal(read(scene, of, cache, 30, 40, 300).rgb, painted(column + 30, row + 40, 300, 300))
    assert b"a-key" not in (tmp_path / "scenes/scenes.parquet").read_bytes()


# ------------------------------------------------------------------------------------------------------------- catalogs


@pytest.mark.parametrize("lon", [-105.0, -102.01], ids=["amid a zone", "where zones meet"])
def test_each_vintage_of_naip_has_its_own_resolution(
    web: FileServer,
    find: Callable[..., list[Scene]],
    write_raster: Callable[..., Path],
    textured: Callable[..., NDArray[np.uint8]],
    tmp_path: Path,
    lon: float,
) -> None:
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", "EPSG:26913", [lon], [39.0])
    items = []
    for year, gsd_m in ((2017, 1.0), (2019, 0.6), (2023, 0.3)):
        values = np.concatenate([textured(300, 300), textured(300, 300, seed=1)[:1]])
        grid = Affine(gsd_m, 0, x, 0, -gsd_m, y)
        path = write_raster(tmp_path / f"{year}.tif", values, crs="EPSG:26913", transform=grid, alpha="NO")
        with rasterio.open(path) as dataset:
            box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        href = web.put(f"{year}.tif", path)
        items.append(feature(f"naip_{year}", box, {"image": href}, datetime=f"{year}-08-01T00:00:00Z"))
    api = StacApi(web, [item | {"collection": "naip"} for item in items])
    api.collection_ids, api.names_next, api.page = ["naip"], False, 100
    region = (lon - 0.01, 38.99, lon + 0.01, 39.01)
    scenes = find(of_profile("US", catalog=api.url, signing=None, depth=3), region)
    assert {scene.datetime.year: scene.gsd_m for scene in scenes} == {
        2017: pytest.approx(1.0, rel=2e-3),
        2019: pytest.approx(0.6, rel=2e-3),
        2023: pytest.approx(0.3, rel=2e-3),
    }


def test_swissimage_of_the_alps_is_known_for_its_25_cm_where_that_is_asked_for(
    shared_data: Path,
    web: FileServer,
    find: Callable[..., list[Scene]],
    write_raster: Callable[..., Path],
    tmp_path: Path,
) -> None:
    with rasterio.open(shared_data / "imagery/swissortho_zurich_1091-322.tif") as dataset:
        picture = Image.fromarray(np.moveaxis(dataset.read([1, 2, 3]), 0, -1)[:600, :600])
    grid = Affine(0.1, 0, 2_640_000, 0, -0.1, 1_150_000)
    enlarged = np.moveaxis(np.asarray(picture.resize((1500, 1500), Image.Resampling.BICUBIC)), -1, 0)
    path = write_raster(tmp_path / "alps.tif", enlarged, crs="EPSG:2056", transform=grid)
    with rasterio.open(path) as dataset:
        box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    hrefs_ = {"alps_0.1_2056.tif": web.put("alps.tif", path), "alps_2_2056.tif": web.url("coarse.tif")}
    item = feature("alps", box, hrefs_, datetime="2023-01-01T00:00:00Z")
    api = StacApi(web, [item | {"collection": "ch.swisstopo.swissimage-dop10"}])
    api.collection_ids = ["ch.swisstopo.swissimage-dop10"]
    (scene,) = find(of_profile("CH", catalog=api.url, resolution="effective"), box)
    assert scene.gsd_m == pytest.approx(0.1, rel=1e-3)
    assert scene.effective_gsd_m == pytest.approx(0.25, rel=0.35)


def test_the_offset_of_sentinel_s_reflectance_leaves_its_true_colour_as_it_is(
    web: FileServer, find: Callable[..., list[Scene]], write_raster: Callable[..., Path], cache: Path, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    grid = Affine(10, 0, 500_000, 0, -10, 5_250_000)
    path = write_raster(tmp_path / "visual.tif", values, transform=grid)
    with rasterio.open(path) as dataset:
        box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    items = []
    for applied in (True, False):
        facts = {"eo:cloud_cover": 1.0, "s2:processing_baseline": "05.00", "earthsearch:boa_offset_applied": applied}
        hrefs_ = {"visual": web.put(f"{applied}.tif", path), "red": web.url("none.tif")}
        item = feature(f"S2_{applied}", box, hrefs_, datetime=f"202{int(applied)}-07-01T10:00:00Z", **facts)
        item["assets"]["red"]["raster:bands"] = [{"scale": 0.0001, "offset": -0.1}]
        items.append(item | {"collection": "sentinel-2-l2a"})
    api = StacApi(web, items)
    api.collection_ids = ["sentinel-2-l2a"]
    scenes = find(of := of_profile("S2", catalog=api.url), (8.99, 47.36, 9.01, 47.41))
    assert len(scenes) == 2
    for scene in scenes:
        np.testing.assert_array_equal(read(scene, of, cache, 0, 0, 512).rgb, np.moveaxis(values, 0, -1))


# --------------------------------------------------------------------------------------------------------- Earth Engine


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EarthEngineServer]:
    if importlib.util.find_spec("ee") is None:
        pytest.skip("the extra `earthengine` is not installed")
    import ee
    from ee import deprecation

    monkeypatch.setattr(deprecation, "_FetchDataCatalogStac", dict)
    with earth_engine_server() as started:
        monkeypatch.setenv("EE_KEY_FILE", str(write_key_file(tmp_path / "key.json", started.address)))
        yield started
    ee.Reset()
    session._connected.clear()


@pytest.mark.parametrize(
    ("collection", "bands", "gsd_m", "crs", "place"),
    [
        ("Finland/SMK/V/50cm", "RGB", 0.5, "EPSG:3067", (24.94, 60.17)),
        ("Germany/Brandenburg/orthos/20cm", "NRGB", 0.2, "EPSG:25833", (13.06, 52.39)),
        ("Spain/PNOA/PNOA10", "RGB", 0.1, "EPSG:25830", (-3.70, 40.41)),
        ("Switzerland/SWISSIMAGE/orthos/10cm", "RGB", 0.1, "EPSG:2056", (8.54, 47.37)),
        ("USDA/NAIP/DOQQ", "RGBN", 1.0, "EPSG:26918", (-74.50, 40.20)),
    ],
)
def test_the_collections_of_earth_engine_show_red_green_and_blue(
    google: EarthEngineServer,
    find: Callable[..., list[Scene]],
    cache: Path,
    collection: str,
    bands: str,
    gsd_m: float,
    crs: str,
    place: tuple[float, float],
) -> None:
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(*place)
    grid = Affine(gsd_m, 0, x - 300 * gsd_m, 0, -gsd_m, y + 250 * gsd_m)
    when = dt.datetime(2019, 6, 1, tzinfo=dt.UTC)
    google.collections[collection] = [StoredImage(f"{collection}/one", when, grid, crs=crs, bands=tuple(bands))]
    facts = {"collection": collection, "gsd_m": gsd_m, "credentials_variable": "EE_KEY_FILE", "url": google.address}
    known = {"kind": "earthengine", "title": "t", "licence": "l", "attribution": "a"}
    of = source_kind("earthengine").settings.model_validate(known | {"bands": ["R", "G", "B"]} | facts)
    (scene,) = find(of, (place[0] - 1e-4, place[1] - 1e-4, place[0] + 1e-4, place[1] + 1e-4))
    assert (scene.gsd_m, scene.datetime.year) == (pytest.approx(gsd_m, rel=2e-3), 2019)
    np.testing.assert_array_equal(read(scene, of, cache, 40, 50, 60).rgb, painted(40, 50, 60, 60))


# ----------------------------------------------------------------------------------------------------------- benchmarks

SETS = {
    "aid": (2000, 30),
    "eurosat": (2700, 10),
    "skyscript-70": (54 * 128, 70),
    "roof-shape": (600, 6),
    "smoothness": (500, 5),
    "surface": (440, 5),
}
"""Images and classes of the sets of which a number is known."""

NUMBERS = {"skyscript-70": set(), "aid": {"images"}, "eurosat": {"images"}}
"""What the profile states of them, where that is not both."""


@pytest.mark.parametrize("key", SETS)
def test_a_set_has_as_many_images_and_classes_as_its_publishers(key: str, web: FileServer, tmp_path: Path) -> None:
    images, classes = SETS[key]
    benchmark: Any = PROFILE.benchmarks.benchmarks[key]
    folder, csv = benchmark.csv.split("/")
    names, shown = [f"class {number}" for number in range(classes)], [picture(level) for level in range(0, 255, 25)]
    paths = [f"{folder}/images/{number}.jpg" for number in range(images)]
    # Sets of attributes have a second list of labels, which some images are not in.
    lines = [f"{path},{n % classes},{n % classes},{n % 2 or ''}" for n, path in enumerate(paths)]
    members = {f"{folder}/{csv}": "\r\n".join(["filepath,label,label_v1,label_v2", *lines]).encode()}
    members |= {benchmark.classnames: "\n".join(names).encode()}
    members |= {path: shown[number % len(shown)] for number, path in enumerate(paths)}
    stated = {"archive": web.put("set.zip", packed(members)), "root": str(tmp_path / "sets")}
    (out := tmp_path / "out").mkdir()
    built = build_image_folder(benchmark.model_copy(update=stated), shared_in(tmp_path), out)
    assert (built["items"], len(built["positives"])) == ({"test": images}, classes)
    assert sum(built["positives"].values()) == images
    numbers = {name: built["found"][name] for name in ("images", "classes") if name in built["found"]}
    assert numbers == {name: str(SETS[key][name == "classes"]) for name in numbers}
    assert set(numbers) == NUMBERS.get(key, {"images", "classes"})
    assert built["found"]["labels"] == "indices"
