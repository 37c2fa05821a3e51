"""Scenes and pixels of tile and map services, from real servers on this machine that speak their protocols."""

import datetime as dt
import hashlib
import io
import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from PIL import Image
from pyproj import Transformer

from skyscript_assets.lib import http
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.errors import (
    CorruptInputError,
    MissingInputError,
    SceneError,
    SettingsError,
    UnreachableError,
)
from skyscript_assets.lib.imagery.reader import GeoBox, Pixels
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, open_scene, source_kind
from skyscript_assets.lib.imagery.sources.services import client as client_module
from skyscript_assets.lib.imagery.sources.services import reader as reader_module
from skyscript_assets.lib.imagery.sources.services.cache import TileCache
from skyscript_assets.lib.imagery.sources.services.reader import TileReader
from skyscript_assets.lib.imagery.sources.services.settings import Service, WcsSource, WmsSource, WmtsSource, XyzSource
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.tables import read_table
from tests.tile_server import (
    TileServer,
    encoded,
    matrix_set,
    painted,
    tile_server,
    wcs_document,
    wms_document,
    wmts_document,
)

pytestmark = pytest.mark.integration

SETTINGS = load_settings(PACKAGED_PROFILES / "demo")
HELSINKI = (24.935, 60.165, 24.945, 60.170)
"""A region of about 560 m by 560 m."""

FACTS: dict[str, Any] = {
    "title": "Tiles",
    "licence": "CC0-1.0",
    "attribution": "A painter",
    "datetime": dt.date(2020, 6, 1),
    "requests_per_second": 100.0,
}


@pytest.fixture
def server() -> Iterator[TileServer]:
    with tile_server() as running:
        yield running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture
def index(tmp_path: Path, cache: Path) -> Callable[..., tuple[dict[str, Any], list[Scene]]]:
    def run(source: Service, bbox: tuple[float, float, float, float] = HELSINKI) -> tuple[dict[str, Any], list[Scene]]:
        out = tmp_path / "scenes"
        out.mkdir(exist_ok=True)
        summary = source_kind(source.kind).index(Search("here", "T", source, SETTINGS.shared, bbox, out, cache=cache))
        return summary, read_scenes(out)

    return run


@pytest.fixture
def scene(server: TileServer, index: Callable[..., Any]) -> Scene:
    (found,) = index(xyz(server))[1]
    server.tiles.clear()
    server.requests.clear()
    return found


def xyz(server: TileServer, **facts: Any) -> XyzSource:
    return XyzSource(**FACTS | {"url": f"{server.address}/{{z}}/{{x}}/{{y}}.png", "gsd_m": 0.6} | facts)


def wmts(server: TileServer, **facts: Any) -> WmtsSource:
    return WmtsSource(**FACTS | {"url": f"{server.address}/wmts", "layer": "photos", "gsd_m": 0.5} | facts)


def wms(server: TileServer, **facts: Any) -> WmsSource:
    return WmsSource(**FACTS | {"url": f"{server.address}/wms", "layer": "photos", "gsd_m": 0.5} | facts)


def window_of(scene: Scene, column: int, row: int, width: int, height: int) -> GeoBox:
    transform = Affine(*scene.transform) @ Affine.translation(column, row)
    return GeoBox(scene.crs, tuple(transform[:6]), width, height)


def absolute(scene: Scene, column: int, row: int) -> tuple[int, int]:
    """Absolute pixel of a scene's pixel in the service's grid."""
    first, tile = scene.access["first"], scene.access["tile"]
    return first[0] * tile[0] + column, first[1] * tile[1] + row


def read_one(scene: Scene, source: Service, cache: Path | None, *place: int) -> Pixels:
    with TileReader(scene, source, cache) as reader:
        return reader.read(*window_of(scene, *place))


def assert_painted(scene: Scene, pixels: Pixels, *place: int) -> None:
    assert pixels.valid.all()
    np.testing.assert_array_equal(pixels.rgb, painted(*absolute(scene, place[0], place[1]), place[2], place[3]))


def place_of_pixel(scene: Scene, column: float, row: float) -> tuple[float, float]:
    """Longitude and latitude of a scene's pixel corner."""
    x, y = Affine(*scene.transform) @ (column, row)
    longitude, latitude = Transformer.from_crs(scene.crs, 4326, always_xy=True).transform(x, y)
    return longitude, latitude


# ------------------------------------------------------------------------------------------------------------------ XYZ


def mercator_scale(latitude_deg: float) -> float:
    """Metres to the east on the ellipsoid of WGS 84 in one of EPSG:3857 (Snyder, Map Projections, eq. 4-20)."""
    latitude = np.radians(latitude_deg)
    return float(np.cos(latitude) / np.sqrt(1 - 0.00669437999 * np.sin(latitude) ** 2))


def test_the_zoom_follows_from_the_wanted_resolution_at_the_region_s_latitude(
    server: TileServer, index: Callable[..., Any]
) -> None:
    summary, (scene,) = index(xyz(server))
    # 0.597 m of Web Mercator at zoom 18, halved by cos(60.17 degrees).
    assert summary["grid"] == "17"
    assert scene.gsd_m == pytest.approx(1.19433 * mercator_scale(60.1675), rel=1e-4)
    _, (at_equator,) = index(xyz(server), bbox=(9.0, 0.0, 9.01, 0.01))
    assert at_equator.hrefs[0].endswith("/18/{x}/{y}.png")


def test_a_scene_covers_the_region_and_no_more_tiles_than_that_takes(
    server: TileServer, index: Callable[..., Any]
) -> None:
    summary, (scene,) = index(xyz(server))
    west, south, east, north = HELSINKI
    left, top = place_of_pixel(scene, 0, 0)
    right, bottom = place_of_pixel(scene, scene.width, scene.height)
    assert left <= west < east <= right
    assert bottom <= south < north <= top
    inner_left, inner_top = place_of_pixel(scene, 256, 256)
    assert inner_left > west
    assert inner_top < north
    assert summary["tiles"] == scene.width * scene.height // 256**2
    assert scene.bounds == pytest.approx(HELSINKI)
    assert (scene.kind, scene.datetime) == ("xyz", dt.datetime(2020, 6, 1, tzinfo=dt.UTC))
    assert (scene.licence, scene.attribution) == ("CC0-1.0", "A painter")


def test_the_tile_at_the_centre_is_looked_at_and_no_other(server: TileServer, index: Callable[..., Any]) -> None:
    summary, (scene,) = index(xyz(server))
    assert server.tiles == [tuple(scene.access["probe"])]
    assert summary["first_tile"] == "image"


def test_pixels_lie_where_they_were_painted(server: TileServer, scene: Scene, cache: Path) -> None:
    for place in [(0, 0, 256, 256), (200, 180, 300, 350), (511, 255, 2, 2), (scene.width - 3, scene.height - 5, 3, 5)]:
        assert_painted(scene, read_one(scene, xyz(server), cache, *place), *place)


def test_what_lies_beside_the_scene_is_not_valid(server: TileServer, scene: Scene, cache: Path) -> None:
    pixels = read_one(scene, xyz(server), cache, -10, -10, 20, 20)
    assert not pixels.valid[:10].any()
    assert pixels.valid[10:, 10:].all()


def test_many_windows_ask_for_each_tile_once(server: TileServer, scene: Scene, cache: Path) -> None:
    rng = np.random.default_rng(0)
    places = [(int(x), int(y), 120, 110) for x, y in rng.integers(0, [scene.width - 120, scene.height - 110], (90, 2))]
    with TileReader(scene, xyz(server, connections=4), cache) as reader:
        for index, pixels in reader.read_many([window_of(scene, *place) for place in places]):
            assert isinstance(pixels, Pixels)
            assert_painted(scene, pixels, *places[index])
    assert len(server.tiles) == len(set(server.tiles))


def test_a_reader_that_starts_again_asks_for_nothing_that_is_here(
    server: TileServer, scene: Scene, cache: Path
) -> None:
    read_one(scene, xyz(server), cache, 0, 0, 500, 500)
    asked = len(server.tiles)
    assert_painted(scene, read_one(scene, xyz(server), cache, 100, 100, 300, 300), 100, 100, 300, 300)
    assert len(server.tiles) == asked


def test_a_damaged_tile_on_this_machine_is_fetched_again(server: TileServer, scene: Scene, cache: Path) -> None:
    read_one(scene, xyz(server), cache, 0, 0, 100, 100)
    (kept,) = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".turn"]
    kept.write_bytes(kept.read_bytes()[:50])
    assert_painted(scene, read_one(scene, xyz(server), cache, 0, 0, 100, 100), 0, 0, 100, 100)
    assert len(server.tiles) == 2


def test_the_cache_forgets_the_oldest_tiles_beyond_its_limit(server: TileServer, scene: Scene, cache: Path) -> None:
    read_one(scene, xyz(server, cache_mb=0), cache, 0, 0, 500, 500)
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".turn"] == []


def test_the_tiles_just_fetched_stay_where_the_clock_was_set_back(cache: Path) -> None:
    earlier, now = (TileCache(cache / name, 2000) for name in ("earlier", "now"))
    for number in range(2):
        earlier.write(number, 0, bytes(1000))
    now.write(0, 0, bytes(1000))
    (tile,) = (cache / "now").rglob("*/*")
    os.utime(tile, (time.time() - 3600,) * 2)
    now.prune()
    assert [path.is_file() for path in (now.path(0, 0), earlier.path(0, 0), earlier.path(1, 0))] == [True, False, False]


def test_without_a_folder_tiles_are_kept_as_long_as_the_reader(server: TileServer, scene: Scene) -> None:
    assert_painted(scene, read_one(scene, xyz(server), None, 10, 20, 300, 30), 10, 20, 300, 30)


def test_rows_may_count_from_the_south_and_tiles_have_quadkeys(
    server: TileServer, index: Callable[..., Any], cache: Path
) -> None:
    _, (scene,) = index(xyz(server, url=f"{server.address}/tms/{{z}}/{{x}}/{{-y}}.png"))
    column, row = scene.access["probe"]
    assert server.tiles[-1] == (column, (1 << 17) - 1 - row)
    index(xyz(server, url=f"{server.address}/q/1/{{q}}.png"))
    key = server.requests[-1][0].rpartition("/")[2].removesuffix(".png")
    assert (len(key), set(key) <= set("0123")) == (17, True)
    assert int(key.replace("2", "0").replace("3", "1"), 2) == column


def test_a_region_beside_the_extent_has_no_scene_and_costs_no_request(
    server: TileServer, index: Callable[..., Any]
) -> None:
    extent = {"west": 0.0, "south": 0.0, "east": 1.0, "north": 1.0}
    summary, scenes = index(xyz(server, extent=extent))
    assert (summary, scenes) == ({"scenes": 0, "why_none": "the region lies outside sources.yaml: T.extent"}, [])
    assert server.requests == []


def test_a_resolution_that_the_service_does_not_have_is_named_with_those_that_it_has(
    server: TileServer, index: Callable[..., Any]
) -> None:
    with pytest.raises(SceneError, match=r"T up to zoom 14 has no resolution near 0.6 m .* 4.7[0-9]"):
        index(xyz(server, max_zoom=14))


def test_tiles_of_another_size_are_found_out_before_anything_is_planned(
    server: TileServer, index: Callable[..., Any]
) -> None:
    server.tile_px = 512
    with pytest.raises(CorruptInputError, match=r"first tile .* has 512 x 512 pixels instead of 256 x 256.*tile_px"):
        index(xyz(server))


def test_larger_tiles_have_a_finer_resolution_at_the_same_zoom(
    server: TileServer, index: Callable[..., Any], cache: Path
) -> None:
    server.tile_px = 512
    source = xyz(server, tile_px=512)
    summary, (scene,) = index(source)
    assert summary["grid"] == "16"
    assert_painted(scene, read_one(scene, source, cache, 500, 10, 40, 700), 500, 10, 40, 700)


# ----------------------------------------------------------------------------------------------------------------- WMTS

TM35 = matrix_set("TM35", "urn:ogc:def:crs:EPSG::3067", "-548576 8388608", 0.5)
MERCATOR = matrix_set(
    "Mercator", "urn:ogc:def:crs:EPSG::3857", "-20037508.342789244 20037508.342789244", 0.5971642834779395
)
DEGREES = matrix_set("Degrees", "urn:ogc:def:crs:EPSG::4326", "90 -180", 0.5)


@pytest.mark.parametrize(
    "crs",
    [
        "ESRI:102100",
        "urn:ogc:def:crs:ESRI::102100",
        "epsg:3857",
        "http://www.opengis.net/gml/srs/epsg.xml#3857",
        "urn:ogc:def:crs:EPSG:6.18:3:3857",
        "EPSG:900913",
    ],
)
def test_a_matrix_set_may_name_web_mercator_in_any_way(server: TileServer, index: Callable[..., Any], crs: str) -> None:
    corner = "-20037508.342789244 20037508.342789244"
    sets = matrix_set("M", crs, corner, 0.5971642834779395)
    server.documents["/wmts"] = wmts_document(sets, ["M"], kvp=f"{server.address}/kvp?")
    _, (scene,) = index(wmts(server, gsd_m=0.3))
    assert scene.crs == "EPSG:3857"


def test_a_matrix_set_of_an_unknown_crs_is_named(server: TileServer, index: Callable[..., Any]) -> None:
    sets = matrix_set("M", "LOCAL:1", "0 0", 0.5)
    server.documents["/wmts"] = wmts_document(sets, ["M"], kvp=f"{server.address}/kvp?")
    with pytest.raises(SceneError, match=r"no matrix set .* M \(LOCAL:1\)"):
        index(wmts(server))


def test_a_template_with_a_place_that_nothing_fills_is_refused(server: TileServer, index: Callable[..., Any]) -> None:
    template = f"{server.address}/rest/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png?{{Elevation}}"
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], resource=template)
    with pytest.raises(SceneError, match=r"a place \{Elevation\}"):
        index(wmts(server))


@pytest.mark.parametrize("resource", [True, False])
def test_a_wmts_is_read_by_templates_and_by_parameters(
    server: TileServer, index: Callable[..., Any], cache: Path, resource: bool
) -> None:
    template = f"{server.address}/rest/{{Style}}/{{TileMatrixSet}}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png"
    document = wmts_document(
        DEGREES + TM35,
        ["Degrees", "TM35"],
        resource=template if resource else "",
        kvp="" if resource else f"{server.address}/kvp?",
    )
    server.documents["/wmts"] = document
    summary, (scene,) = index(wmts(server))
    assert (summary["grid"], scene.crs, scene.gsd_m) == ("TM35:2", "EPSG:3067", pytest.approx(0.5, rel=5e-4))
    asked = server.requests[-1][0]
    assert asked.startswith("/rest/plain/TM35/TM35:2/" if resource else "/kvp?")
    if not resource:
        for part in ("SERVICE=WMTS", "REQUEST=GetTile", "LAYER=photos", "STYLE=plain", "FORMAT=image/png"):
            assert part in asked
    assert_painted(scene, read_one(scene, wmts(server), cache, 250, 260, 300, 20), 250, 260, 300, 20)
    # The corner of the national grid and the size of its pixels say where a pixel lies, whatever the code thinks.
    column, row = absolute(scene, 0, 0)
    east, north = Transformer.from_crs(4326, 3067, always_xy=True).transform(*place_of_pixel(scene, 0, 0))
    assert (east, north) == pytest.approx((-548576 + column * 0.5, 8388608 - row * 0.5))


def test_the_matrix_nearest_to_the_wanted_resolution_is_taken_of_all_sets(
    server: TileServer, index: Callable[..., Any]
) -> None:
    server.documents["/wmts"] = wmts_document(TM35 + MERCATOR, ["TM35", "Mercator"], kvp=f"{server.address}/kvp")
    assert index(wmts(server, gsd_m=0.5))[0]["grid"] == "TM35:2"
    assert index(wmts(server, gsd_m=0.3))[0]["grid"] == "Mercator:2"
    assert index(wmts(server, gsd_m=0.3, matrix_set="TM35"))[0]["grid"] == "TM35:2"
    assert index(wmts(server, gsd_m=1.9))[0]["grid"] == "TM35:0"
    with pytest.raises(SceneError, match=r"no resolution near 10 m"):
        index(wmts(server, gsd_m=10.0))


def test_sets_of_neighbouring_zones_and_limits_of_a_layer_are_minded(
    server: TileServer, index: Callable[..., Any]
) -> None:
    zones = [
        matrix_set(f"U{zone}", f"urn:ogc:def:crs:EPSG::258{zone}", "300000 6700000", 0.5, size=1500)
        for zone in (32, 35)
    ]
    document = wmts_document("".join(zones), ["U32", "U35"], kvp=f"{server.address}/kvp")
    server.documents["/wmts"] = document
    summary, (whole,) = index(wmts(server))
    assert (summary["grid"], whole.crs) == ("U35:2", "EPSG:25835")
    column, row = whole.access["first"]
    limits = (
        "<TileMatrixSet>U35</TileMatrixSet><TileMatrixSetLimits><TileMatrixLimits><TileMatrix>U35:2</TileMatrix>"
        f"<MinTileRow>{row + 1}</MinTileRow><MaxTileRow>{row + 2}</MaxTileRow><MinTileCol>{column}</MinTileCol>"
        f"<MaxTileCol>{column + 1}</MaxTileCol></TileMatrixLimits></TileMatrixSetLimits>"
    )
    server.documents["/wmts"] = document.replace("<TileMatrixSet>U35</TileMatrixSet>", limits)
    _, (limited,) = index(wmts(server))
    assert (limited.access["first"], limited.width, limited.height) == ([column, row + 1], 512, 512)
    west, south, east, north = HELSINKI
    assert limited.bounds[0] == pytest.approx(west)
    assert south < limited.bounds[1] < limited.bounds[3] <= north
    assert limited.bounds[2] < east


@pytest.mark.parametrize(
    ("crs", "corner"),
    [
        ("urn:ogc:def:crs:EPSG::2180", "850000 100000"),
        ("EPSG:2180", "100000 850000"),
        ("urn:ogc:def:crs:EPSG::2180", "100000 850000"),
    ],
)
def test_corners_may_have_the_order_of_the_crs_or_not(
    server: TileServer, index: Callable[..., Any], crs: str, corner: str
) -> None:
    server.documents["/wmts"] = wmts_document(
        matrix_set("PL", crs, corner, 0.5, size=6000), ["PL"], kvp=f"{server.address}/kvp"
    )
    _, (scene,) = index(wmts(server), bbox=(21.0, 52.2, 21.01, 52.21))
    column, row = absolute(scene, 0, 0)
    east, north = Transformer.from_crs(4326, 2180, always_xy=True).transform(*place_of_pixel(scene, 0, 0))
    assert (east, north) == pytest.approx((100000 + column * 0.5, 850000 - row * 0.5), abs=1e-3)


def test_the_time_of_a_layer_is_asked_for_and_dates_the_scene(server: TileServer, index: Callable[..., Any]) -> None:
    dimension = (
        "<Dimension><ows:Identifier>Time</ows:Identifier><Default>2019</Default><Value>2019</Value><Value>2021-07-04</Value>"
        "</Dimension>"
    )
    resource = f"{server.address}/{{Time}}/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png"
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], resource=resource, dimension=dimension)
    _, (scene,) = index(wmts(server, datetime=None))
    assert scene.datetime == dt.datetime(2019, 1, 1, tzinfo=dt.UTC)
    _, (scene,) = index(wmts(server, datetime=None, dimensions={"time": "2021-07-04"}))
    assert server.requests[-1][0].startswith("/2021-07-04/")
    assert scene.datetime == dt.datetime(2021, 7, 4, tzinfo=dt.UTC)
    with pytest.raises(SceneError, match="'flavour' is no dimension of the layer; it has Time"):
        index(wmts(server, dimensions={"flavour": "salt"}))


def test_without_any_time_the_settings_must_state_one(server: TileServer, index: Callable[..., Any]) -> None:
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], kvp=f"{server.address}/kvp")
    with pytest.raises(SceneError, match=r"state sources.yaml: T.datetime"):
        index(wmts(server, datetime=None))


def test_the_layer_s_own_ground_bounds_the_scene(server: TileServer, index: Callable[..., Any]) -> None:
    ground = (
        "<ows:WGS84BoundingBox><ows:LowerCorner>24.94 60.0</ows:LowerCorner><ows:UpperCorner>30 61</ows:UpperCorner>"
        "</ows:WGS84BoundingBox>"
    )
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], kvp=f"{server.address}/kvp", ground=ground)
    _, (scene,) = index(wmts(server))
    assert scene.bounds == pytest.approx((24.94, 60.165, 24.945, 60.170))
    assert index(wmts(server), bbox=(20.0, 60.0, 20.1, 60.1))[1] == []


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"layer": "maps"}, "T.layer: 'maps' is not offered; there are photos"),
        ({"style": "bright"}, "T.style: 'bright' is not offered; there are dark, plain"),
        ({"format": "image/jpeg"}, "T.format: 'image/jpeg' is not offered; there are image/png"),
        ({"matrix_set": "UTM"}, "T.matrix_set: 'UTM' is not offered; there are TM35"),
    ],
)
def test_what_is_not_offered_is_named_with_what_is(
    server: TileServer, index: Callable[..., Any], facts: dict[str, str], message: str
) -> None:
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], kvp=f"{server.address}/kvp")
    with pytest.raises(SceneError, match=message):
        index(wmts(server, **facts))


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("<html><body>Sorry</body>", CorruptInputError),
        ("<html><body>Sorry</body></html>", SceneError),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Capabilities>&b;</Capabilities>', CorruptInputError),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><Capabilities>&b;</Capabilities>', CorruptInputError),
        ("<a>" * 200, CorruptInputError),
    ],
)
def test_a_document_that_is_no_list_of_capabilities_or_would_do_harm_is_refused(
    server: TileServer, index: Callable[..., Any], document: str, error: type[Exception]
) -> None:
    server.documents["/wmts"] = document
    with pytest.raises(error, match="127.0.0.1"):
        index(wmts(server))


# ------------------------------------------------------------------------------------------------------------------ WMS


def serve_maps(server: TileServer, *, first_axis: str, pixel: float) -> None:
    """Answer GetMap as a WMS does whose first axis is `first_axis`: the picture begins at the origin of the CRS."""

    def part(query: dict[str, str]) -> tuple[int, int, int, int]:
        a, b, c, d = (float(number) for number in query["BBOX"].split(","))
        left, bottom, right, top = (a, b, c, d) if first_axis == "east" else (b, a, d, c)
        width, height = int(query["WIDTH"]), int(query["HEIGHT"])
        assert (right - left) / width == pytest.approx(pixel)
        assert (top - bottom) / height == pytest.approx(pixel)
        return round(left / pixel), round(-top / pixel), width, height

    server.maps = part


@pytest.mark.parametrize(
    ("version", "crs", "first_axis"),
    [
        ("1.3.0", "EPSG:25835", "east"),
        ("1.1.1", "EPSG:25835", "east"),
        ("1.3.0", "EPSG:2180", "north"),
        ("1.1.1", "EPSG:2180", "east"),
    ],
)
def test_a_wms_is_cut_into_maps_on_one_grid_with_the_axes_of_its_version(
    server: TileServer, index: Callable[..., Any], cache: Path, version: str, crs: str, first_axis: str
) -> None:
    bbox = HELSINKI if crs == "EPSG:25835" else (21.0, 52.2, 21.01, 52.21)
    server.documents["/wms"] = wms_document(version, crs=f"EPSG:4326 {crs}")
    serve_maps(server, first_axis=first_axis, pixel=0.5)
    source = wms(server, version=version, crs=crs, tile_px=300)
    summary, (scene,) = index(source, bbox=bbox)
    assert (summary["grid"], scene.crs, scene.access["tile"]) == (crs, crs, [300, 300])
    assert_painted(scene, read_one(scene, source, cache, 290, 280, 400, 330), 290, 280, 400, 330)
    asked = server.requests[-1][0]
    assert asked.startswith("/wms?")  # and not where the service, behind its proxy, believes itself to be
    for part in (
        f"VERSION={version}",
        "LAYERS=photos",
        "FORMAT=image/png",
        f"{'CRS' if version == '1.3.0' else 'SRS'}=",
    ):
        assert part in asked or part == "FORMAT=image/png"


def test_a_wms_is_asked_in_the_region_s_utm_zone_and_never_for_more_than_it_allows(
    server: TileServer, index: Callable[..., Any]
) -> None:
    server.documents["/wms"] = wms_document(
        "1.3.0", crs="EPSG:3857</CRS><CRS>EPSG:32635", service="<MaxWidth>200</MaxWidth><MaxHeight>400</MaxHeight>"
    )
    serve_maps(server, first_axis="east", pixel=0.5)
    summary, (scene,) = index(wms(server, format="image/png"))
    assert (summary["grid"], scene.access["tile"]) == ("EPSG:32635", [200, 200])
    assert "TRANSPARENT=TRUE" in server.requests[-1][0]


def test_web_mercator_maps_have_the_wanted_resolution_on_the_ground(
    server: TileServer, index: Callable[..., Any]
) -> None:
    server.documents["/wms"] = wms_document("1.1.1", crs="EPSG:3857 EPSG:4326")
    serve_maps(server, first_axis="east", pixel=0.5 / mercator_scale(60.1675))
    _, (scene,) = index(wms(server, version="1.1.1"))
    assert (scene.crs, scene.gsd_m) == ("EPSG:3857", pytest.approx(0.5))


@pytest.mark.parametrize("stated", [None, 3857, "epsg:900913", "urn:ogc:def:crs:EPSG::3857"])
def test_a_crs_is_asked_for_by_the_name_that_the_service_has_for_it(
    server: TileServer, index: Callable[..., Any], stated: str | int | None
) -> None:
    server.documents["/wms"] = wms_document("1.1.1", crs="ESRI:102100 EPSG:4326")
    serve_maps(server, first_axis="east", pixel=0.5 / mercator_scale(60.1675))
    _, (scene,) = index(wms(server, version="1.1.1", **({} if stated is None else {"crs": stated})))
    assert (scene.crs, scene.gsd_m) == ("EPSG:3857", pytest.approx(0.5))
    assert "SRS=ESRI:102100" in scene.hrefs[0].replace("%3A", ":")


@pytest.mark.parametrize(
    ("version", "dimension"),
    [
        ("1.3.0", '<Dimension name="time" units="ISO8601" default="2021-05-01">2020-05-01,2021-05-01</Dimension>'),
        (
            "1.1.1",
            '<Dimension name="time" units="ISO8601"/><Extent name="time" default="2021-05-01">2021-05-01</Extent>',
        ),
    ],
)
def test_a_wms_with_time_is_asked_for_it(
    server: TileServer, index: Callable[..., Any], version: str, dimension: str
) -> None:
    server.documents["/wms"] = wms_document(version, crs="EPSG:25835", extra=dimension)
    serve_maps(server, first_axis="east", pixel=0.5)
    _, (scene,) = index(wms(server, version=version, datetime=None))
    assert scene.datetime == dt.datetime(2021, 5, 1, tzinfo=dt.UTC)
    assert "TIME=2021-05-01" in server.requests[-1][0]


def test_a_service_exception_with_status_200_is_quoted_as_no_image(
    server: TileServer, index: Callable[..., Any]
) -> None:
    server.documents["/wms"] = wms_document("1.3.0", crs="EPSG:25835")
    serve_maps(server, first_axis="east", pixel=0.5)
    server.everything = (
        200,
        {"Content-Type": "text/xml"},
        b"<ServiceExceptionReport><ServiceException>Layer closed</ServiceException></ServiceExceptionReport>",
    )
    with pytest.raises(CorruptInputError, match=r"web page or an XML message.*service says: Layer closed"):
        index(wms(server))


# --------------------------------------------------------------------------------------------------------------- faults


def read_around(scene: Scene, source: Service, cache: Path) -> list[Pixels | CorruptInputError]:
    """Four windows: the first inside the tile (0, 0) of the scene, the others in the other three of the square."""
    places = [(x, y, 100, 100) for y in (50, 300) for x in (50, 300)]
    with TileReader(scene, source, cache) as reader:
        found = dict(reader.read_many([window_of(scene, *place) for place in places]))
    for index, place in enumerate(places[1:], start=1):
        pixels = found[index]
        assert isinstance(pixels, Pixels)
        assert_painted(scene, pixels, *place)
    return [found[index] for index in range(4)]


def corner(scene: Scene) -> tuple[int, int]:
    return (scene.access["first"][0], scene.access["first"][1])


BOMB = encoded(np.zeros((3000, 3000, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((500, {}, b"oops"), "500"),
        ("cut", "ends before the length"),
        (
            (200, {"Content-Type": "text/html"}, b"<html>The service is down</html>"),
            "web page.*the service says: The service is down",
        ),
        ((200, {"Content-Type": "image/png"}, encoded(painted(0, 0, 256, 256))[:300]), "no whole PNG"),
        ((200, {"Content-Type": "image/png"}, BOMB), "has 3000 x 3000 pixels instead of 256 x 256"),
        ((200, {"Content-Type": "image/png"}, b""), "no whole PNG"),
    ],
    ids=["500", "cut", "html", "truncated", "bomb", "empty"],
)
def test_a_tile_that_cannot_be_had_is_an_error_for_its_windows_alone(
    server: TileServer, scene: Scene, cache: Path, fault: Any, message: str
) -> None:
    server.faults[corner(scene)] = fault
    found, *_ = read_around(scene, xyz(server), cache)
    assert isinstance(found, CorruptInputError)
    assert re.search(message, str(found))


def test_a_tile_that_stalls_is_an_error_for_its_windows_alone(
    server: TileServer, scene: Scene, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "STALL_S", 0.3)
    server.faults[corner(scene)] = "stall"
    found, *_ = read_around(scene, xyz(server), cache)
    assert isinstance(found, CorruptInputError)
    assert "in time" in str(found)


@pytest.mark.parametrize(
    "answer",
    [
        (404, {}, b"none"),
        (204, {}, b""),
        (200, {"Content-Type": "image/png"}, encoded(np.zeros((256, 256, 4), dtype=np.uint8))),
        (200, {"Content-Type": "image/png"}, encoded(np.full((256, 256, 3), 255, dtype=np.uint8))),
        (200, {"Content-Type": "image/jpeg"}, encoded(np.full((256, 256, 3), 204, dtype=np.uint8), "JPEG")),
    ],
    ids=["404", "204", "transparent", "white", "grey"],
)
def test_a_tile_without_an_image_is_no_data_and_asked_for_once(
    server: TileServer, scene: Scene, cache: Path, answer: Any
) -> None:
    server.faults[corner(scene)] = answer
    for _ in range(2):
        found, *_ = read_around(scene, xyz(server), cache)
        assert isinstance(found, Pixels)
        assert not found.valid.any()
        assert not found.rgb.any()
    assert server.tiles.count(corner(scene)) == 1


def test_a_picture_that_says_no_imagery_is_known_by_its_digest(
    server: TileServer, index: Callable[..., Any], cache: Path
) -> None:
    notice = encoded(painted(7, 7, 256, 256))
    source = xyz(server, blank_sha256=[hashlib.sha256(notice).hexdigest()], nodata=[3, 4, 0])
    _, (scene,) = index(source)
    server.faults[corner(scene)] = (200, {"Content-Type": "image/png"}, notice)
    found, *_ = read_around(scene, source, cache)
    assert isinstance(found, Pixels)
    assert not found.valid.any()


@pytest.mark.parametrize("status", [401, 403])
def test_a_service_that_refuses_is_one_error_for_the_stage(
    server: TileServer, scene: Scene, cache: Path, status: int
) -> None:
    server.everything = (status, {}, b"go away")
    with pytest.raises(MissingInputError, match=rf"refuses with {status}; it needs a key .*api_key_variable"):
        with TileReader(scene, xyz(server), cache) as reader:
            list(reader.read_many([window_of(scene, 0, 0, scene.width, scene.height)]))
    assert len(set(server.tiles)) <= 4  # those that were under way


def test_a_service_that_fails_altogether_is_one_error_for_the_stage(
    server: TileServer, scene: Scene, cache: Path
) -> None:
    server.everything = (500, {}, b"oops")
    with pytest.raises(UnreachableError, match="nor does the tile come that did"):
        read_around(scene, xyz(server), cache)


def test_a_service_that_has_turned_into_web_pages_is_one_error_for_the_stage(
    server: TileServer, scene: Scene, cache: Path
) -> None:
    server.everything = (200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")
    with pytest.raises(UnreachableError, match="web page.*materialize scene_index again"):
        read_around(scene, xyz(server), cache)


def test_a_service_of_which_nothing_comes_but_the_first_tile_is_one_error(
    server: TileServer, scene: Scene, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "MAX_FAILED_IN_A_ROW", 2)
    server.everything = (200, {"Content-Type": "text/html"}, b"<html></html>")
    server.faults[tuple(scene.access["probe"])] = (200, {}, encoded(painted(0, 0, 256, 256)))
    with pytest.raises(UnreachableError):
        read_around(scene, xyz(server), cache)


def test_a_busy_service_is_waited_for_as_long_as_it_asks(
    server: TileServer, scene: Scene, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    server.refusals = [(429, {"Retry-After": "7"}), (503, {}), (429, {"Retry-After": "3"})]
    assert_painted(scene, read_one(scene, xyz(server, connections=1), cache, 0, 0, 100, 100), 0, 0, 100, 100)
    assert [seconds for seconds in waited if seconds > 1] == [7.0, 3.0]


def test_a_service_that_stays_busy_ends_the_stage(server: TileServer, scene: Scene, cache: Path) -> None:
    server.everything = (429, {}, b"slow down")
    with pytest.raises(UnreachableError, match="429"):
        read_one(scene, xyz(server), cache, 0, 0, 100, 100)


def test_a_pause_too_long_ends_the_stage_at_once(server: TileServer, scene: Scene, cache: Path) -> None:
    server.everything = (429, {"Retry-After": "86400"}, b"tomorrow")
    with pytest.raises(UnreachableError, match="86400 s"):
        read_one(scene, xyz(server, connections=1), cache, 0, 0, 100, 100)


def test_tiles_that_came_before_a_failure_are_not_asked_for_again(
    server: TileServer, scene: Scene, cache: Path
) -> None:
    read_one(scene, xyz(server), cache, 0, 0, 100, 100)
    server.everything = (500, {}, b"oops")
    with pytest.raises(UnreachableError):
        read_one(scene, xyz(server), cache, 0, 0, 300, 300)
    server.everything = None
    before = server.tiles.count(corner(scene))
    assert_painted(scene, read_one(scene, xyz(server), cache, 0, 0, 300, 300), 0, 0, 300, 300)
    assert server.tiles.count(corner(scene)) == before == 1


# --------------------------------------------------------------------------------------------------- rate, keys, stages


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses, which are noted and not made, while the machine's own time stands still at a thousand seconds."""
    found: list[float] = []
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    monkeypatch.setattr("time.sleep", found.append)
    return found


def test_all_readers_together_keep_the_rate(server: TileServer, scene: Scene, cache: Path, waited: list[float]) -> None:
    source = xyz(server, requests_per_second=2.0)
    read_one(scene, source, cache, 0, 0, 300, 200)
    read_one(scene, source, cache, 0, 300, 300, 200)
    # Time stands still, so that each request waits half a second longer than the one before it.
    assert sorted(waited)[-4:] == pytest.approx([0.5 * k for k in range(len(waited) - 4, len(waited))], abs=0.02)


@pytest.mark.parametrize("ahead_s", [-3600.0, -600.0, 3600.0])
def test_a_clock_that_is_set_changes_nobody_s_turn(
    server: TileServer, scene: Scene, cache: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    now, source = time.time, xyz(server, requests_per_second=2.0, connections=1)
    read_one(scene, source, cache, 0, 0, 10, 10)
    monkeypatch.setattr("time.time", lambda: now() + ahead_s)
    read_one(scene, source, cache, 300, 300, 10, 10)
    assert waited == [0.5 * k for k in range(len(waited))]
    assert len(waited) > 1


def test_a_turn_taken_before_the_machine_was_started_anew_is_nobody_s(
    server: TileServer, scene: Scene, cache: Path, waited: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_one(scene, xyz(server), cache, 0, 0, 10, 10)
    monkeypatch.setattr("time.monotonic", lambda: 50.0)
    read_one(scene, xyz(server), cache, 300, 300, 10, 10)
    assert max(waited) < 1


def test_the_service_is_told_who_asks(server: TileServer, scene: Scene, cache: Path) -> None:
    read_one(scene, xyz(server, contact="mapper@example.org"), cache, 0, 0, 10, 10)
    agent = server.requests[-1][1]["User-Agent"]
    assert agent.startswith("skyscript-assets/")
    assert "mapper@example.org" in agent


SECRET = "s3cret/key+value"


@pytest.mark.parametrize(
    "facts",
    [{}, {"api_key_parameter": "token"}, {"api_key_header": "X-Key"}, {"url": "{address}/{api_key}/{z}/{x}/{y}.png"}],
    ids=["query", "named", "header", "path"],
)
def test_a_key_reaches_the_service_and_nothing_else(
    server: TileServer,
    index: Callable[..., Any],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    facts: dict[str, str],
) -> None:
    caplog.set_level(logging.DEBUG)
    http._pool.cache_clear()
    monkeypatch.setenv("TILES_KEY", SECRET)
    if "url" in facts:
        facts = {"url": facts["url"].replace("{address}", server.address)}
        server.key = SECRET.split("/")[1]
    else:
        server.key = SECRET
    source = xyz(server, api_key_variable="TILES_KEY", **facts)
    _, (scene,) = index(source)
    assert_painted(scene, read_one(scene, source, cache, 0, 0, 100, 100), 0, 0, 100, 100)
    server.key = "another"
    with pytest.raises(MissingInputError, match="variable TILES_KEY is wrong, has expired") as caught:
        read_one(scene, source, cache, 0, 600, 100, 100)
    told = "".join(traceback.format_exception(caught.value)) + (tmp_path / "scenes/scenes.parquet").read_bytes().decode(
        "latin1"
    )
    for form in (SECRET, SECRET.replace("/", "%2F"), "key%2Bvalue", "key+value"):
        assert form not in told
        assert form not in "".join(record.getMessage() for record in caplog.records)


def test_a_key_in_the_path_of_an_address_stays_out_of_what_fails_below_it(
    server: TileServer, index: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILES_KEY", "abcdef123")
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 10)
    with pytest.raises(CorruptInputError, match=r"/\{api_key\}/.*longer than the 10 bytes") as caught:
        index(xyz(server, api_key_variable="TILES_KEY", url=f"{server.address}/{{api_key}}/{{z}}/{{x}}/{{y}}.png"))
    assert "abcdef123" not in "".join(traceback.format_exception(caught.value))


def test_a_key_that_a_service_repeats_in_its_addresses_stays_out_of_the_scene(
    server: TileServer, index: Callable[..., Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILES_KEY", "abcdef123")
    server.key = "abcdef123"
    resource = f"{server.address}/rest/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png?api-key=abcdef123"
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], resource=resource)
    source = wmts(server, api_key_variable="TILES_KEY")
    _, (scene,) = index(source)
    assert scene.hrefs[0].endswith("?api-key={api_key}")
    assert_painted(scene, read_one(scene, source, cache, 0, 0, 50, 50), 0, 0, 50, 50)


def test_a_key_is_not_given_to_another_host(
    server: TileServer, index: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILES_KEY", "abcdef123")
    with tile_server() as other:
        resource = f"{other.address}/rest/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png?api-key=abcdef123"
        server.documents["/wmts"] = wmts_document(TM35, ["TM35"], resource=resource)
        index(wmts(server, api_key_variable="TILES_KEY"))
        path, headers = other.requests[-1]
        assert "abcdef123" not in path + str(headers)


def test_a_missing_key_names_the_variable_to_set(server: TileServer, index: Callable[..., Any]) -> None:
    with pytest.raises(SettingsError, match="set the environment variable TILES_KEY_THAT_IS_NOT"):
        index(xyz(server, api_key_variable="TILES_KEY_THAT_IS_NOT"))


def test_chips_of_a_service_are_cut_as_they_are_served(
    server: TileServer, scene: Scene, cache: Path, tmp_path: Path, write_chip_plan: Callable[..., Any]
) -> None:
    plan, out = tmp_path / "plan", tmp_path / "chips"
    plan.mkdir()
    out.mkdir()
    write_chip_plan(plan, [(scene, 50, 50, 128, 128), (scene, 300, 300, 128, 128), (scene, 60, 300, 128, 128)])
    server.faults[corner(scene)] = (200, {}, b"<html>")
    inputs = CutInputs(plan, tmp_path / "scenes", lambda scene: open_scene(scene, xyz(server), cache))
    summary = cut_chips(inputs, ChipSettings(jpeg_quality=100, min_sharpness=0.0), out)
    assert (summary["ok"], dict(summary["rejected"])) == (2, {"unreadable": 1})
    rows = read_table(out / "chips.parquet").to_pylist()
    data = (out / rows[1]["shard"]).read_bytes()[rows[1]["offset"] :][: rows[1]["length"]]
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(pixels.astype(int) - painted(*absolute(scene, 300, 300), 128, 128)).mean() < 12


# ------------------------------------------------------------------------------------------------------------------ WCS

NORTHING_FIRST = "http://www.opengis.net/def/crs/EPSG/0/3067"  # ETRS-TM35FIN as the register orders it: easting first
LEFT, TOP = 380_000.0, 6_680_000.0


def wcs(server: TileServer, **facts: Any) -> WcsSource:
    return WcsSource(**FACTS | {"url": f"{server.address}/wcs", "layer": "photos", "gsd_m": 0.5} | facts)


def subsets(query: dict[str, str]) -> dict[str, list[str]]:
    found = {}
    for part in query["SUBSET"].split(";"):
        name, _, values = part.rstrip(")").partition("(")
        found[name] = values.split(",")
    return found


def serve_coverage(server: TileServer, axes: str, **facts: Any) -> None:
    """A coverage of 20 km a side whose first pixel is the first of the picture."""
    corners = {"E": (LEFT, LEFT + 20_000), "N": (TOP - 20_000, TOP), "time": ('"2019-01-01"', '"2021-06-01"')}
    lower, upper = (" ".join(str(corners[label][end]) for label in axes.split()) for end in (0, 1))
    server.documents["/wcs"] = wcs_document(labels=axes, lower=lower, upper=upper, **facts)
    server.format, server.media_type = "TIFF", "image/tiff"

    def place(query: dict[str, str]) -> tuple[int, int, int, int]:
        cut = subsets(query)
        west, east, south, north = (float(value) for name in ("E", "N") for value in cut[name])
        return round((west - LEFT) * 2), round((TOP - north) * 2), round((east - west) * 2), round((north - south) * 2)

    server.maps = place


@pytest.mark.parametrize("axes", ["E N", "E N time"])
def test_a_coverage_is_read_along_its_own_pixels(
    server: TileServer, index: Callable[..., Any], cache: Path, axes: str
) -> None:
    serve_coverage(server, axes, crs=NORTHING_FIRST)
    dated = {"datetime": None} if "time" in axes else {}
    summary, (scene,) = index(wcs(server, **dated))
    assert (summary["scenes"], summary["first_tile"]) == (1, "image")
    assert scene.crs == "EPSG:3067"
    assert_painted(scene, read_one(scene, wcs(server), cache, 100, 200, 700, 300), 100, 200, 700, 300)
    assert scene.date_is == ("stated" if "time" in axes else "guess")
    assert scene.datetime.year == (2021 if "time" in axes else 2020)
    asked = [path for path, _ in server.requests if "GetCoverage" in path]
    assert all(("time" in path) == ("time" in axes) for path in asked)


def test_a_coverage_may_name_its_northing_first(server: TileServer, index: Callable[..., Any], cache: Path) -> None:
    # That of Helsinki (EPSG:3879, ETRS-GK25FIN) has.
    server.documents["/wcs"] = wcs_document(
        crs="http://www.opengis.net/def/crs/EPSG/0/3879",
        labels="N E",
        lower="6660000 25480000",
        upper="6690000 25510000",
    )
    server.format = "TIFF"

    def place(query: dict[str, str]) -> tuple[int, int, int, int]:
        cut = subsets(query)
        west, east, south, north = (float(value) for name in ("E", "N") for value in cut[name])
        return (
            round((west - 25_480_000) * 2),
            round((6_690_000 - north) * 2),
            round((east - west) * 2),
            round((north - south) * 2),
        )

    server.maps = place
    _, (scene,) = index(wcs(server))
    assert_painted(scene, read_one(scene, wcs(server), cache, 10, 20, 300, 300), 10, 20, 300, 300)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"steps": ("0.5 0", "0 -0.25")}, "square pixels"),
        ({"crs": "EPSG:4326"}, "projected CRS"),
        ({"crs": "nonsense"}, "nonsense"),
        ({"steps": ("2 0", "0 -2")}, "no resolution near 0.5 m"),
    ],
)
def test_a_coverage_that_is_not_as_stated_is_refused(
    server: TileServer, index: Callable[..., Any], facts: dict[str, Any], message: str
) -> None:
    serve_coverage(server, "E N", **{"crs": NORTHING_FIRST} | facts)
    with pytest.raises(SceneError, match=message):
        index(wcs(server))


MONACO = (7.418, 43.732, 7.423, 43.736)
FAR = (21.0, 62.0, 21.01, 62.01)


def test_a_service_that_has_nothing_of_a_region_says_why(server: TileServer, index: Callable[..., Any]) -> None:
    serve_coverage(server, "E N", crs=NORTHING_FIRST)
    found, scenes = index(wcs(server), MONACO)
    assert (found["scenes"], scenes) == (0, [])
    assert re.fullmatch(r"the region lies outside where .*TM35FIN.* may be used, \[19\.\d+, .*\]", found["why_none"])
    found, scenes = index(wcs(server), FAR)
    assert (found["scenes"], scenes) == (0, [])
    assert found["why_none"] == "the region lies outside the tiles of EPSG:3067 that the service has"
    box = "<LowerCorner>24 60</LowerCorner><UpperCorner>26 61</UpperCorner>"
    ground = f"<WGS84BoundingBox>{box}</WGS84BoundingBox>".replace("<", "<ows:").replace("<ows:/", "</ows:")
    server.documents["/wmts"] = wmts_document(TM35, ["TM35"], kvp=f"{server.address}/kvp?", ground=ground)
    found, scenes = index(wmts(server), FAR)
    assert (found["scenes"], scenes) == (0, [])
    assert found["why_none"] == ("the region lies outside the ground that the service states, [24.0, 60.0, 26.0, 61.0]")
