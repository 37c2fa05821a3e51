"""STAC sources against servers on this machine: catalogs and searches, images read by ranges, and all their faults."""

import datetime as dt
import gzip
import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from numpy.typing import NDArray

from skyscript_assets.assets import STAGES
from skyscript_assets.lib import http as http_module
from skyscript_assets.lib.cache import Cache
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CutInputs, cut_chips
from skyscript_assets.lib.chips.failures import read_failures
from skyscript_assets.lib.errors import (
    CorruptInputError,
    MissingInputError,
    RefusedError,
    SceneError,
    SettingsError,
    UnreachableError,
)
from skyscript_assets.lib.imagery.geotiff import remote as remote_module
from skyscript_assets.lib.imagery.reader import GeoBox
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, open_scene, source_kind
from skyscript_assets.lib.imagery.sources.stac import hrefs as hrefs_module
from skyscript_assets.lib.imagery.sources.stac.index import index_stac
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.tables import read_table
from tests.web import Asked, FileServer, Reply, StacApi, by_range, feature, nginx, running
from tests.workshop import Workshop, few_labels, shared_in, tiny_files, write_profile

pytestmark = pytest.mark.integration
GRID = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000)
WORLD = (-180.0, -90.0, 180.0, 90.0)
LAND = (8.9, 47.3, 9.4, 47.8)
"""A region that is not cut into cells."""

BOX = (9.0, 47.4017, 9.0039, 47.4034)
"""Around the rasters of `write_raster`."""


class Place:
    """A server, a folder to index into, and what a source says of them."""

    def __init__(self, server: FileServer, folder: Path, write_raster: Callable[..., Path], textured: Callable) -> None:
        self.server, self.folder = server, folder
        self._write, self._textured = write_raster, textured
        self.items: list[dict[str, Any]] = []

    def raster(self, name: str, values: NDArray[Any] | None = None, **options: Any) -> str:
        """Serve a GeoTIFF; returns its address."""
        values = self._textured(600, 400, seed=len(self.server.files)) if values is None else values
        path = self._write(self.folder / name, values, **{"compress": "deflate"} | options)
        return self.server.put(name, path)

    def item(self, name: str, href: str | None = None, **facts: Any) -> dict[str, Any]:
        """An item of the API; by default with a good raster of its own."""
        href = href or self.raster(f"{name}.tif")
        # Of another time than the others: equal ones are one acquisition.
        facts = {"datetime": f"2022-06-01T10:{2 * len(self.items):02}:00Z"} | facts
        file = self.folder / href.partition("?")[0].rsplit("/", 1)[-1]
        item = feature(name, facts.pop("box", None) or footprint_of(file), {"image": href}, **facts)
        self.items.append(item)
        return item

    def source(self, **fields: Any) -> StacSource:
        known = {
            "title": "t",
            "gsd_m": 0.5,
            "licence": "CC-BY-4.0",
            "attribution": "A surveyor",
            "catalog": self.server.url("stac"),
            "collection": "aerial",
            "assets": ["image"],
        }
        self.api = StacApi(self.server, self.items)
        return StacSource.model_validate(known | fields)

    def index(self, source: StacSource | None = None, bbox: tuple[float, ...] = LAND) -> dict[str, Any]:
        profile = shared_in(self.folder)
        return index_stac(Search("here", "S", source or self.source(), profile, bbox, self.folder))  # type: ignore[arg-type]

    def scenes(self) -> list[Scene]:
        return read_scenes(self.folder)

    def unusable(self) -> dict[str, str]:
        listed = json.loads((self.folder / "unusable_items.json").read_text(encoding="utf-8"))
        return {entry["item"]: entry["reason"] for entry in listed}


def footprint_of(path: Path) -> tuple[float, float, float, float]:
    if not path.exists():
        return BOX
    with rasterio.open(path) as dataset:
        if dataset.crs is None:
            return BOX
        return rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running(FileServer()) as started:
        yield started


def counts(**known: int) -> dict[str, Any]:
    """What an index counts; nothing but what is named."""
    names = ("items", "passing", "scenes", "enough", "over_limit", "outside", "without_data", "duplicates")
    names += ("mostly_hidden", "unusable")
    return dict.fromkeys(names, 0) | known


@pytest.fixture
def place(
    server: FileServer,
    tmp_path: Path,
    write_raster: Callable[..., Path],
    textured: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    monkeypatch.setattr(hrefs_module, "_FILES", Cache(hrefs_module.MAX_FILES))
    monkeypatch.setattr(http_module, "FIRST_PAUSE_S", 0.0)
    return Place(server, tmp_path, write_raster, textured)


def whole(scene: Scene, source: StacSource) -> Any:
    with open_scene(scene, source) as reader:
        return reader.read(scene.crs, scene.transform, scene.width, scene.height)


def tiles_of(scene: Scene, size: int = 100) -> list[GeoBox]:
    grid = Affine(*scene.transform)
    return [
        GeoBox(scene.crs, tuple((grid @ Affine.translation(column, row))[:6]), size, size)
        for row in range(0, scene.height - size + 1, size)
        for column in range(0, scene.width - size + 1, size)
    ]


# ---------------------------------------------------------------------------------------------------------- catalogs


@pytest.mark.parametrize(("methods", "merges"), [(("GET",), False), (("GET", "POST"), False), (("POST",), True)])
def test_items_of_an_api_are_found_page_by_page(place: Place, methods: tuple[str, ...], merges: bool) -> None:
    for number in range(5):
        place.item(f"i{number}")
    source = place.source(depth=9)
    place.api.methods, place.api.merges = methods, merges
    assert place.index(source) == counts(items=5, passing=5, scenes=5)
    searches = [asked.method for asked in place.server.asked if asked.path == "/stac/search"]
    assert searches == [methods[-1]] * 3
    scene = place.scenes()[0]
    assert scene.kind == "stac"
    assert scene.access == {"item": "i0"}
    assert (scene.licence, scene.attribution) == ("CC-BY-4.0", "A surveyor")
    assert scene.datetime == dt.datetime(2022, 6, 1, 10, tzinfo=dt.UTC)


def test_the_rules_of_a_source_choose_items_whatever_the_server_makes_of_them(place: Place) -> None:
    place.item("good", platform="one", **{"eo:cloud_cover": 5})
    place.item("cloudy", platform="one", **{"eo:cloud_cover": 50})
    place.item("other", platform="two")
    place.item("winter", platform="one", datetime="2022-12-01T10:00:00Z")
    place.item("old", platform="one", datetime="2012-06-01T10:00:00Z")
    place.item("elsewhere", platform="one")["collection"] = "radar"
    rules = {"max_cloud_share": 0.2, "since": "2020-01-01", "until": "2023-12-31", "months": [5, 6, 7]}
    source = place.source(properties={"platform": "one"}, **rules)
    place.api.conforms = place.api.conforms[:2]
    place.index(source)
    (scene,) = place.scenes()
    assert scene.access["item"] == "good"
    assert scene.cloud_share == 0.05


def test_no_more_scenes_are_taken_than_wanted_over_a_place_and_the_preferred_ones(place: Place) -> None:
    for number, cloud in enumerate((30, 10, 20, 40)):
        place.item(f"i{number}", datetime=f"202{number}-06-01T00:00:00Z", **{"eo:cloud_cover": cloud})
    far = {"transform": Affine(0.5, 0, 520_000, 0, -0.5, 5_250_000)}
    place.item("alone", place.raster("alone.tif", **far), **{"eo:cloud_cover": 90})
    summary = place.index(place.source(depth=2))
    assert {scene.access["item"] for scene in place.scenes()} == {"i1", "i2", "alone"}
    assert summary["enough"] == 2
    place.index(place.source(depth=1, sort="newest"))
    assert {scene.access["item"] for scene in place.scenes()} == {"i3", "alone"}
    place.index(place.source(depth=9, sort="oldest", limit=1))
    assert {scene.access["item"] for scene in place.scenes()} == {"i0"}


def test_an_unusable_item_gives_its_place_to_the_next(place: Place) -> None:
    place.item("best", place.server.url("gone.tif"), **{"eo:cloud_cover": 0})
    place.item("second", **{"eo:cloud_cover": 50})
    place.index(place.source(depth=1))
    assert [scene.access["item"] for scene in place.scenes()] == ["second"]
    assert "404" in place.unusable()["best"]


def static(place: Place, base: str) -> str:
    """A static catalog of two collections, with links that go in circles; returns the address of its root."""
    place.raster("a.tif")
    item = feature("a", footprint_of(place.folder / "a.tif"), {"image": "../a.tif"})
    collection = {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": "aerial",
        "description": "d",
        "license": "CC0-1.0",
        "extent": {"spatial": {"bbox": [[8, 47, 10, 48]]}, "temporal": {"interval": [[None, None]]}},
        "links": [{"rel": "item", "href": "./a.json"}, {"rel": "child", "href": "../catalog.json"}],
    }
    elsewhere = collection | {"links": [{"rel": "item", "href": "never.json"}]}
    elsewhere["extent"] = {"spatial": {"bbox": [[-60, -10, -50, 0]]}}
    files = {
        "catalog.json": {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "root",
            "description": "d",
            "links": [
                {"rel": "child", "href": f"{base}{name}"} for name in ("one/collection.json", "two/collection.json")
            ],
        },
        "one/collection.json": collection,
        "two/collection.json": elsewhere,
        "one/a.json": item,
    }
    for name, content in files.items():
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_text(json.dumps(content), encoding="utf-8")
        place.server.put(name, content)
    return place.server.url("catalog.json")


def test_a_static_catalog_is_walked_and_its_loops_are_not(place: Place) -> None:
    source = place.source(catalog=static(place, "./"))
    assert place.index(source, BOX) == counts(items=1, passing=1, scenes=1)
    assert "/one/a.json" in [asked.path for asked in place.server.asked]
    assert place.index(place.source(catalog=place.server.url("one/collection.json")), BOX)["scenes"] == 1


def test_a_catalog_on_this_machine_may_name_local_files_where_the_settings_allow_it(place: Place) -> None:
    static(place, "./")
    allowed = place.source(catalog="catalog.json", allow_local_hrefs=True)
    assert place.index(allowed, BOX)["scenes"] == 1
    (scene,) = place.scenes()
    with rasterio.open(place.folder / "a.tif") as dataset:
        assert np.array_equal(np.moveaxis(whole(scene, allowed).rgb, -1, 0), dataset.read())
    with pytest.raises(SceneError, match=r"a\.tif is a file on this machine.*allow_local_hrefs"):
        place.index(place.source(catalog="catalog.json"), BOX)
    with pytest.raises(MissingInputError, match="none.json"):
        place.index(place.source(catalog="none.json"), BOX)


def test_an_item_collection_is_a_catalog_too(place: Place) -> None:
    place.item("a")
    url = place.server.put("items.json", {"type": "FeatureCollection", "features": place.items})
    assert place.index(place.source(catalog=url))["scenes"] == 1


@pytest.mark.parametrize(
    "href",
    [
        "/etc/hostname",
        "file:///etc/hostname",
        "../../../secret.tif",
        "/vsicurl/http://127.0.0.1:1/a.tif",
        "/vsizip//vsicurl/http://127.0.0.1:1/a.zip/a.tif",
        "s3://bucket/a.tif",
        "VRT://a.tif",
        "GTIFF_DIR:1:/etc/hostname",
        "http://127.0.0.1:1/a.vrt",
        "ftp://127.0.0.1/a.tif",
        "http://[127.0.0.1/a.tif",
        "http:///a.tif",
        "\ud800.tif",
        "a\0.tif",
    ],
)
def test_only_the_web_is_reached_from_a_catalog(place: Place, href: str) -> None:
    place.item("good")
    place.item("bad", href)
    if href.startswith(".."):
        place.items[-1]["links"] = [{"rel": "self", "href": "file:///tmp/x/y.json"}]
    place.index(place.source(depth=9))
    assert len(place.scenes()) == 1
    assert set(place.unusable()) == {"bad"}


@pytest.mark.parametrize(
    "facts",
    [
        {"links": [{"rel": "self", "href": "http://[::1"}, {"rel": "self", "href": 7}, 7]},
        {"links": {"rel": "self"}},
        {"properties": {"datetime": "2022-07-01T10:00:00Z", "eo:cloud_cover": "none"}},
    ],
)
def test_what_an_item_says_amiss_of_itself_costs_nobody_a_scene(place: Place, facts: dict[str, Any]) -> None:
    place.item("good")
    place.item("odd")
    place.items[-1] |= facts
    assert place.index(place.source(depth=9)) == counts(items=2, passing=2, scenes=2)


@pytest.mark.parametrize(
    "facts",
    [
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [10**400, 0], [1, 1], [0, 0]]]}},
        {"geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]}},
        {"properties": {"datetime": "2022-07-01T10:00:00Z", "eo:cloud_cover": 10**400}},
        {"assets": {"image": {"href": "a.tif", "raster:bands": [{"scale": 10**400}] * 3}}},
    ],
)
def test_numbers_beyond_all_bounds_cost_no_other_item_its_scene(place: Place, facts: dict[str, Any]) -> None:
    place.item("good")
    place.item("absurd")
    place.items[-1] |= facts
    url = place.server.put("items.json", {"type": "FeatureCollection", "features": place.items})
    place.index(place.source(catalog=url, depth=9))
    assert "good" in {scene.access["item"] for scene in place.scenes()}


def test_a_link_that_is_no_address_is_named(place: Place) -> None:
    links = [{"rel": "item", "href": "http://[::1"}]
    url = place.server.put("catalog.json", {"type": "Catalog", "id": "c", "links": links})
    with pytest.raises(CorruptInputError, match=r"catalog\.json names 'http://\[::1', which is no address"):
        place.index(place.source(catalog=url))


def test_a_catalog_of_the_web_that_links_to_this_machine_is_refused(place: Place) -> None:
    links = [{"rel": "item", "href": "file:///etc/passwd"}]
    url = place.server.put("catalog.json", {"type": "Catalog", "id": "c", "links": links})
    with pytest.raises(SceneError, match="a file on this machine"):
        place.index(place.source(catalog=url))


def test_pages_that_go_in_circles_end_with_an_error(place: Place) -> None:
    for number in range(3):
        place.item(f"i{number}")
    source = place.source()
    place.api.loops = True
    with pytest.raises(CorruptInputError, match="go in circles"):
        place.index(source)


def test_a_catalog_with_more_items_than_wanted_says_which_rule_to_narrow(place: Place) -> None:
    for number in range(3):
        place.item(f"i{number}")
    with pytest.raises(SceneError, match="more than 2 items.*max_items"):
        place.index(place.source(max_items=2))


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b'{"type": "Topology"}', b'{"a":' * 50_000])
def test_what_is_no_catalog_is_named(place: Place, content: bytes) -> None:
    with pytest.raises(CorruptInputError, match=r"c\.json"):
        place.index(place.source(catalog=place.server.put("c.json", content)))


def test_a_redirect_leaves_the_web_never(place: Place) -> None:
    place.server.routes["to-file"] = lambda asked: Reply(302, headers={"Location": "file:///etc/passwd"})
    place.server.routes["around"] = lambda asked: Reply(302, headers={"Location": "/around"})
    place.server.routes["moved.tif"] = lambda asked: Reply(307, headers={"Location": "/a.tif"})
    with pytest.raises(RefusedError, match="neither http nor https"):
        place.index(place.source(catalog=place.server.url("to-file")))
    with pytest.raises(RefusedError, match="redirects more than"):
        place.index(place.source(catalog=place.server.url("around")))
    place.raster("a.tif")
    place.item("a", place.server.url("moved.tif"))
    assert place.index()["scenes"] == 1


# ------------------------------------------------------------------------------------------------------ broken items


def broken(place: Place, kind: str) -> str:
    """The address of a raster with a fault."""
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 255, (3, 400, 600)).astype(np.uint8)
    url = place.raster("bad.tif", noise, **{"crs": None} if kind == "no CRS" else {})
    data = place.server.files["bad.tif"]
    answers: dict[str, Callable[[Asked], Reply]] = {
        "wrong length": lambda asked: Reply(
            206, data[:1000], {"Content-Length": "32768", "Content-Range": f"bytes 0-32767/{len(data)}"}, cut=1000
        ),
        "another range": lambda asked: by_range(data, "bytes=100-32867"),
        "no ranges": lambda asked: Reply(200, data, {"Content-Length": str(1 << 33)}, cut=0),
        **{status: lambda asked, status=status: Reply(int(status)) for status in ("403", "404", "410")},
    }
    contents = {
        "ends early": data[: len(data) // 2],
        "vrt": b'<VRTDataset rasterXSize="1" rasterYSize="1">' + bytes(100),
        "directory loop": struct.pack("<2sHIHI", b"II", 42, 8, 0, 8) + bytes(40),
        "web page": b"<html>please log in</html>",
        "empty": b"",
    }
    if kind in answers:
        place.server.routes["bad.tif"] = answers[kind]
    if kind in contents:
        place.server.put("bad.tif", contents[kind])
    if kind == "16 bit":
        place.raster("bad.tif", noise.astype(np.uint16) * 200)
    return bomb(place) if kind == "bomb" else url


def bomb(place: Place) -> str:
    """A few kilobytes that state blocks of gigabytes."""
    path = place.folder / "bad.tif"
    path.unlink()
    shape = {"width": 40_000, "height": 40_000, "count": 3, "dtype": "uint16"}
    tiles = {"tiled": True, "blockxsize": 40_000, "blockysize": 40_000, "compress": "deflate", "SPARSE_OK": True}
    rasterio.open(path, "w", driver="GTiff", crs="EPSG:32632", transform=GRID, **shape, **tiles).close()
    return place.server.put("bad.tif", path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no CRS", "has no CRS"),
        ("ends early", "ends early"),
        ("wrong length", "ends before the length"),
        ("another range", "another range than bytes"),
        ("no ranges", "longer than the"),
        ("403", "answers 403.*`token`"),
        ("404", "answers 404"),
        ("410", "answers 410"),
        ("16 bit", r"uint16, not 8-bit.*S\.scaling"),
        ("bomb", "too large to read in windows"),
        ("vrt", "a VRT, which is refused"),
        ("directory loop", "loop|without an image"),
        ("web page", "is no TIFF file"),
        ("empty", "416|is no TIFF file|ends early"),
    ],
)
def test_a_broken_image_is_listed_with_its_reason_and_the_others_are_found(
    place: Place, kind: str, message: str
) -> None:
    place.item("good")
    place.item("bad", broken(place, kind))
    summary = place.index(place.source(depth=9))
    assert (summary["scenes"], summary["unusable"]) == (1, 1)
    assert re.search(message, place.unusable()["bad"]), place.unusable()
    assert "bad.tif" in place.unusable()["bad"]


def test_a_false_footprint_is_caught(place: Place) -> None:
    place.item("good")
    place.item("shifted", place.raster("shifted.tif"), box=(9.5, 47.4, 9.6, 47.5))
    place.item("whole world", place.raster("world.tif"), box=WORLD)
    place.index(place.source(depth=9), bbox=WORLD)
    assert [scene.access["item"] for scene in place.scenes()] == ["good"]
    assert all("footprint that the catalog claims" in reason for reason in place.unusable().values())
    assert set(place.unusable()) == {"shifted", "whole world"}


def test_a_footprint_is_what_both_the_catalog_and_the_image_have(place: Place, textured: Callable) -> None:
    values = textured(600, 400)
    values[:, :, :300] = 0
    href = place.raster("half.tif", values, nodata=0)
    west, south, east, north = footprint_of(place.folder / "half.tif")
    place.item("half", href, box=(west, (south + north) / 2, east, north))
    place.item("unknown", place.raster("unknown.tif"))["geometry"] = None
    place.server.routes["stac/search"] = lambda asked: Reply(
        200, json.dumps({"type": "FeatureCollection", "features": place.items, "links": []}).encode()
    )
    source = place.source(depth=9)
    place.server.routes["stac/search"] = lambda asked: Reply(
        200, json.dumps({"type": "FeatureCollection", "features": place.items, "links": []}).encode()
    )
    place.index(source)
    half, unknown = place.scenes()
    assert half.bounds == pytest.approx(((west + east) / 2, (south + north) / 2, east, north), abs=3e-5)
    assert unknown.bounds == pytest.approx((west, south, east, north), abs=1e-6)


def test_two_scenes_with_one_id_stay_two_and_a_copy_is_one(place: Place) -> None:
    place.item("same", place.raster("one.tif"))
    place.item("same", place.raster("two.tif"))
    place.server.files["copy.tif"] = place.server.files["one.tif"]
    place.item("same", place.server.url("copy.tif"))
    summary = place.index(place.source(depth=9))
    assert (summary["scenes"], summary["duplicates"]) == (2, 1)
    assert len({scene.scene_id for scene in place.scenes()}) == 2


def test_an_item_without_the_asset_or_a_time_is_listed(place: Place) -> None:
    place.item("good")
    place.item("no asset")["assets"] = {"thumbnail": {"href": "x.jpg"}}
    place.item("no time")["properties"] = {"datetime": None}
    place.item("span")["properties"] = {
        "datetime": None,
        "start_datetime": "2022-06-01T00:00:00Z",
        "end_datetime": "2022-06-03T00:00:00Z",
    }
    place.index(place.source(depth=9))
    assert {scene.access["item"] for scene in place.scenes()} == {"good", "span"}
    assert "has no asset 'image'; it has thumbnail" in place.unusable()["no asset"]
    assert "datetime" in place.unusable()["no time"]
    span = next(scene for scene in place.scenes() if scene.access["item"] == "span")
    assert span.datetime == dt.datetime(2022, 6, 2, tzinfo=dt.UTC)


def test_where_no_item_can_be_used_the_first_reason_is_told(place: Place) -> None:
    place.item("bad", place.server.url("gone.tif"))
    with pytest.raises(SceneError, match=r"none of 1 items over here can be used; bad: .*gone\.tif.*404"):
        place.index()


def test_a_region_without_items_makes_an_empty_table(place: Place) -> None:
    place.item("a")
    assert place.index(bbox=(0, 0, 1, 1))["scenes"] == 0
    assert place.scenes() == []


# ------------------------------------------------------------------------------------------------------------ pixels


def test_a_rotated_image_and_values_that_are_no_numbers_are_read_right(place: Place) -> None:
    values = np.random.default_rng(0).random((3, 400, 600)).astype(np.float32)
    values[0, 10, 10], values[1, 20, 20] = np.nan, np.inf
    turned = GRID @ Affine.rotation(30)
    place.item("a", place.raster("a.tif", values, transform=turned))
    source = place.source(scaling={"low": 0, "high": 1})
    place.index(source)
    (scene,) = place.scenes()
    assert scene.footprint.area < 0.7 * shapely.box(*scene.bounds).area
    pixels = whole(scene, source)
    assert np.flatnonzero(~pixels.valid).tolist() == [10 * 600 + 10, 20 * 600 + 20]
    expected = np.moveaxis(np.rint(values * 255), 0, -1)
    assert np.array_equal(pixels.rgb[pixels.valid], expected[pixels.valid])


@pytest.mark.parametrize(
    ("crs", "transform", "inside", "parts"),
    [
        ("EPSG:32660", Affine(1000, 0, 700_000, 0, -1000, 600_000), [(179.9, 3), (-179.5, 3)], 2),
        ("EPSG:3031", Affine(1000, 0, -200_000, 0, -1000, 200_000), [(0, -89.9), (90, -89.5), (-135, -89)], 1),
        ("EPSG:3413", Affine(1000, 0, -200_000, 0, -1000, 200_000), [(0, 89.9), (179, 89.5), (45, 89)], 1),
        ("EPSG:4326", Affine(0.01, 0, 178, 0, -0.01, 3), [(179, 1), (-179, 1)], 2),
    ],
)
def test_footprints_across_the_antimeridian_and_around_the_poles_are_true(
    place: Place, crs: str, transform: Affine, inside: list[tuple[float, float]], parts: int, textured: Callable
) -> None:
    place.item("a", place.raster("a.tif", textured(400, 400), crs=crs, transform=transform), box=WORLD)
    place.items[0]["geometry"] = None
    source = place.source(gsd_m=1000)
    place.server.routes["stac/search"] = lambda asked: Reply(
        200, json.dumps({"type": "FeatureCollection", "features": place.items, "links": []}).encode()
    )
    place.index(source, bbox=WORLD)
    (scene,) = place.scenes()
    assert scene.footprint.is_valid
    assert all(scene.footprint.contains(shapely.Point(point)) for point in inside)
    assert len(shapely.get_parts(scene.footprint)) == parts
    assert not scene.footprint.contains(shapely.Point(20, 40))
    if parts == 2:
        assert scene.footprint.area < 20
        window = GeoBox("EPSG:32601", (1000, 0, 222_000, 0, -1000, 222_000), 20, 20)
        with open_scene(scene, source) as reader:
            assert reader.read(*window).valid.any()


def test_three_assets_are_read_as_one_picture_scaled_by_percentiles_of_an_overview(place: Place) -> None:
    values = np.random.default_rng(0).normal(3000, 500, (3, 1200, 1500)).clip(1, 9000).astype(np.uint16)
    names = ("red", "green", "blue")
    hrefs = {}
    for name, band in zip(names, values, strict=True):
        path = place._write(place.folder / "plain.tif", band[np.newaxis], nodata=0)
        copy_as_cog(path, place.folder / f"{name}.tif")
        hrefs[name] = place.server.put(f"{name}.tif", place.folder / f"{name}.tif")
    place.items.append(feature("a", footprint_of(place.folder / "red.tif"), hrefs))
    source = place.source(assets=names, scaling={"percentiles": [2, 98]})
    place.index(source)
    fetched = sum(len(place.server.answer(asked).body) for asked in place.server.asked if asked.path.endswith(".tif"))
    assert fetched < 0.5 * sum(len(place.server.files[f"{name}.tif"]) for name in names)
    (scene,) = place.scenes()
    assert len(scene.hrefs) == 3
    assert scene.bands == (1, 1, 1)
    low, high = np.array([scene.scale_low, scene.scale_high]).reshape(2, 3, 1, 1)
    assert np.array([low, high]).reshape(2, 3) == pytest.approx(np.percentile(values, [2, 98], axis=(1, 2)), rel=0.1)
    levels = (values.astype(float) - low) / (high - low) * 255
    assert np.abs(whole(scene, source).rgb - np.moveaxis(np.clip(levels, 0, 255), 0, -1)).max() <= 0.51
    other = place.raster("other.tif", np.ones((1, 400, 600), np.uint16))
    place.items[0]["assets"]["blue"]["href"] = other
    with pytest.raises(SceneError, match="differ in CRS, pixels or size"):
        place.index(source)


def copy_as_cog(path: Path, target: Path, **options: Any) -> None:
    from rasterio.shutil import copy

    copy(
        path,
        target,
        driver="COG",
        **{"BLOCKSIZE": 256, "COMPRESS": "DEFLATE", "OVERVIEW_RESAMPLING": "NEAREST"} | options,
    )


LAYOUTS = {
    "cog": {},
    "strips": {"tiled": False, "blockysize": 7, "blockxsize": None},
    "one strip": {"tiled": False, "blockysize": 400, "blockxsize": None},
    "planes": {"interleave": "band"},
    "uncompressed": {"compress": "none"},
    "big endian": {"ENDIANNESS": "BIG"},
    "bigtiff": {"BIGTIFF": "YES"},
    "jpeg": {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_geotiff_is_read_as_it_is(place: Place, layout: str, textured: Callable) -> None:
    mask = np.ones((400, 600), bool)
    mask[:150, :250] = False
    options = {name: value for name, value in LAYOUTS[layout].items() if value is not None}
    if LAYOUTS[layout].get("blockxsize", 1) is None:
        options["blockxsize"] = 600
    path = place._write(place.folder / "a.tif", textured(600, 400), mask=mask, **options)
    if layout == "cog":
        copy_as_cog(path, place.folder / "b.tif")
        path = place.folder / "b.tif"
    with rasterio.open(path) as dataset:
        expected = np.moveaxis(dataset.read(), 0, -1)
    place.item("a", place.server.put("a.tif", path))
    source = place.source()
    place.index(source)
    (scene,) = place.scenes()
    with open_scene(scene, source) as reader:
        for index, pixels in reader.read_many(tiles_of(scene)):
            row, column = divmod(index, 6)
            part = (slice(100 * row, 100 * row + 100), slice(100 * column, 100 * column + 100))
            assert np.array_equal(pixels.valid, mask[part])
            assert np.array_equal(pixels.rgb[pixels.valid], expected[part][pixels.valid])


def test_real_images_over_nginx_are_read_to_the_pixel(shared_data: Path, place: Place, tmp_path: Path) -> None:
    folder = shared_data / "imagery"
    work = tmp_path / "nginx"
    work.mkdir()
    cases = {
        "naip_tulelake_cog_3857": (0.444, {}),
        "sentinel2_tci_T34RFV_100m_cog": (100, {}),
        "swissortho_zurich_1091-322": (0.5, {}),
        "spacenet2_vegas_img0": (0.3, {}),
        "naip_nd_m_4709963_se_20200831": (5, {"bands": [4, 1, 2]}),
        "landsat8_elkton_va_b432": (30, {"scaling": {"percentiles": [2, 98]}}),
        "landsat7_olinda_br": (28.5, {"bands": [3, 2, 1]}),
        "neon_sjer_2018": (0.1, {}),
    }
    with nginx(folder, work) as (address, log):
        for name, (gsd, fields) in cases.items():
            place.items = [feature(name, footprint_of(folder / f"{name}.tif"), {"image": f"{address}/{name}.tif"})]
            source = place.source(gsd_m=gsd, **fields)
            place.index(source, bbox=WORLD)
            (scene,) = place.scenes()
            pixels = whole(scene, source)
            with rasterio.open(folder / f"{name}.tif") as dataset:
                values = np.moveaxis(dataset.read(list(scene.bands)), 0, -1)
                assert np.array_equal(pixels.valid, dataset.dataset_mask() != 0)
            if scene.scale_low is None:
                assert np.array_equal(pixels.rgb[pixels.valid], values[pixels.valid])
            else:
                low, high = np.array([scene.scale_low, scene.scale_high])
                levels = (values - low) / (high - low) * 255
                assert np.abs(pixels.rgb - np.clip(levels, 0, 255))[pixels.valid].max() <= 0.51
        lines = log.read_text(encoding="utf-8").splitlines()
    assert lines
    assert all(line.startswith("206 ") for line in lines)


def bands_1(scale: float, offset: float) -> dict[str, Any]:
    return {"raster:bands": [{"scale": scale, "offset": offset}] * 3}


@pytest.mark.parametrize(
    ("facts", "properties", "added"),
    [
        (bands_1(1e-4, -0.1), {}, 1000),
        ({"bands": [{"raster:scale": 1e-4, "raster:offset": -0.1}] * 3}, {}, 1000),
        ({"raster:scale": 1e-4, "raster:offset": -0.1}, {}, 1000),
        (bands_1(1e-4, 0), {}, 0),
        (bands_1(1e-4, -0.1), {"earthsearch:boa_offset_applied": True}, 0),
        ({"raster:bands": [{"scale": "no"}, 7]}, {}, 0),
    ],
)
def test_the_offset_of_an_item_makes_it_as_bright_as_others(
    place: Place, textured: Callable, facts: dict[str, Any], properties: dict[str, Any], added: int
) -> None:
    values = textured(600, 400).astype(np.uint16) * 10
    item = place.item("a", place.raster("a.tif", values + added))
    item["assets"]["image"] |= facts
    item["properties"] |= properties
    source = place.source(scaling={"low": 0, "high": 2550})
    place.index(source)
    (scene,) = place.scenes()
    assert scene.scale_low == pytest.approx([added] * 3)
    assert np.abs(whole(scene, source).rgb - np.moveaxis(values // 10, 0, -1).astype(int)).max() <= 1


def test_an_alpha_band_of_an_item_can_be_ignored(place: Place, textured: Callable) -> None:
    values = np.concatenate([textured(600, 400), np.zeros((1, 400, 600), np.uint8)])
    values[3, :200] = 9
    place.item("a", place.raster("a.tif", values, photometric="RGB", alpha="yes"))
    for alpha, share in (("mask", 0.5), ("ignore", 1.0)):
        source = place.source(alpha=alpha)
        place.index(source)
        assert whole(place.scenes()[0], source).valid.mean() == share


def test_an_alpha_band_that_hides_most_of_an_item_is_counted(place: Place, textured: Callable) -> None:
    for name, shown in (("mostly", 80), ("partly", 300)):
        values = np.concatenate([textured(600, 400, seed=shown), np.zeros((1, 400, 600), np.uint8)])
        values[3, :shown] = 9  # near infrared that is tagged alpha
        place.item(name, place.raster(f"{name}.tif", values, photometric="RGB", alpha="yes"))
    for alpha, hidden in (("mask", 1), ("ignore", 0)):
        counted = place.index(place.source(alpha=alpha, depth=9))
        assert counted == counts(items=2, passing=2, scenes=2, mostly_hidden=hidden)


def test_scenes_elsewhere_are_measured_where_that_is_asked_for(place: Place) -> None:
    place.item("a")
    search = Search("here", "S", place.source(), shared_in(place.folder), WORLD, place.folder)
    assert "coarser_than_pixels" not in source_kind("stac").find(search)
    assert place.scenes()[0].effective_gsd_m is None
    source_kind("stac").find(replace(search, source=place.source(resolution="effective")))
    assert place.scenes()[0].effective_gsd_m is not None


@pytest.mark.parametrize("etag", ["0x8DA1", '"0x8DA1"', 'W/"0x8DA1"'])
def test_the_tag_of_a_file_may_be_unquoted(place: Place, etag: str) -> None:
    # Blob storage behind the Planetary Computer sends it so.
    place.item("a")
    content = place.server.files["a.tif"]

    def answer(asked: Asked) -> Reply:
        reply = by_range(content, asked.headers.get("range"))
        reply.headers["ETag"] = etag
        return reply

    place.server.routes["a.tif"] = answer
    assert place.index() == counts(items=1, passing=1, scenes=1)
    assert whole(place.scenes()[0], place.source()).valid.all()


def test_blocks_under_many_windows_come_in_few_requests_and_once(place: Place, textured: Callable) -> None:
    path = place._write(place.folder / "plain.tif", textured(2000, 1600))
    copy_as_cog(path, place.folder / "a.tif")
    place.item("a", place.server.put("a.tif", place.folder / "a.tif"))
    source = place.source()
    place.index(source)
    (scene,) = place.scenes()
    place.server.asked.clear()
    for _ in range(2):
        with open_scene(scene, source) as reader:
            assert len(list(reader.read_many(tiles_of(scene)))) == 320
    fetched = [place.server.answer(asked) for asked in place.server.asked]
    assert sum(len(reply.body) for reply in fetched) <= len(place.server.files["a.tif"])
    assert len(fetched) < 10


def test_a_copy_that_has_grown_is_begun_anew_and_reads_the_same(
    place: Place, textured: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "MAX_COPY_BYTES", 200_000)
    values = textured(1000, 800)
    place.item("a", place.raster("a.tif", values))
    source = place.source()
    place.index(source)
    (scene,) = place.scenes()
    with open_scene(scene, source) as reader:
        for number, window in enumerate(tiles_of(scene)):
            row, column = divmod(number, 10)
            part = (slice(100 * row, 100 * row + 100), slice(100 * column, 100 * column + 100))
            assert np.array_equal(np.moveaxis(reader.read(*window).rgb, -1, 0), values[:, *part])


# ---------------------------------------------------------------------------------------------- servers that fail


def once(server: FileServer, name: str, *replies: Reply) -> None:
    """Answer the first requests for a file with these, later ones as usual."""
    waiting = list(replies)
    server.routes[name] = lambda asked: waiting.pop(0) if waiting else None


def test_failures_that_pass_are_tried_again_and_retry_after_is_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(http_module.time, "sleep", pauses.append)
    monkeypatch.setattr(http_module, "FIRST_PAUSE_S", 1.0)
    place.item("a")
    data = place.server.files["a.tif"]
    short = Reply(206, data[:100], {"Content-Length": "32768", "Content-Range": f"bytes 0-32767/{len(data)}"}, cut=100)
    once(place.server, "a.tif", Reply(429, headers={"Retry-After": "7"}), Reply(500), Reply(503), short)
    assert place.index()["scenes"] == 1
    assert pauses == [7.0, 2.0, 4.0, 8.0]


def test_a_stall_is_cut_and_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "STALL_S", 0.2)
    place.item("a")
    once(place.server, "a.tif", Reply(stall=True))
    assert place.index()["scenes"] == 1


@pytest.mark.parametrize(
    "reply", [Reply(500), Reply(429, headers={"Retry-After": "100000"}), Reply(stall=True)], ids=["500", "429", "stall"]
)
def test_a_server_that_fails_for_now_ends_the_index_so_that_no_scene_is_lost(
    place: Place, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "STALL_S", 0.1)
    place.item("good")
    place.item("bad")
    place.server.routes["bad.tif"] = lambda asked: reply
    with pytest.raises(UnreachableError, match=r"bad\.tif"):
        place.index(place.source(depth=9))
    assert not (place.folder / "scenes.parquet").exists()
    del place.server.routes["bad.tif"]
    assert place.index(place.source(depth=9))["scenes"] == 2


@pytest.fixture
def cutting(place: Place, write_chip_plan: Callable) -> Callable[..., Any]:
    """Indexes two scenes, applies a fault to the second, and cuts chips of both: the rows of `chips.parquet`."""
    place.item("good")
    place.item("bad")

    def cut(fault: Callable[[], Any], **fields: Any) -> list[dict[str, Any]]:
        source = place.source(depth=9, **fields)
        place.index(source)
        hrefs_module._FILES = Cache(hrefs_module.MAX_FILES)
        fault()
        bad, good = place.scenes()
        windows = [(scene, column, 50, 100, 100) for scene in (good, bad) for column in range(0, 500, 100)]
        for name in ("plan", "chips"):
            (place.folder / name).mkdir(exist_ok=True)
        write_chip_plan(place.folder / "plan", windows)
        inputs = CutInputs(place.folder / "plan", place.folder, lambda scene: open_scene(scene, source))
        cut_chips(inputs, ChipSettings(), place.folder / "chips")
        rows: list[dict[str, Any]] = read_table(place.folder / "chips/chips.parquet", CHIP_SCHEMA).to_pylist()
        return rows

    return cut


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_scene_that_is_refused_makes_its_chips_unreadable_and_no_others(
    place: Place, cutting: Callable[..., Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    rows = cutting(lambda: place.server.routes.update({"bad.tif": lambda asked: Reply(status)}))
    assert [row["reason"] for row in rows] == [None] * 5 + ["unreadable"] * 5
    assert f"bad.tif: the server answers {status}" in caplog.text
    assert caplog.text.count("the server answers") == 1


def test_blocks_that_are_refused_make_only_the_chips_on_them_unreadable(
    place: Place, cutting: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "MERGE_BYTES", 0)
    monkeypatch.setattr(remote_module, "MAX_REQUEST_BYTES", 4096)

    def refuse_the_end(asked: Asked) -> Reply | None:
        begin = int(asked.headers["range"].removeprefix("bytes=").split("-")[0])
        return Reply(403) if begin > 0.38 * len(place.server.files["bad.tif"]) else None

    rows = cutting(lambda: place.server.routes.update({"bad.tif": refuse_the_end}))
    reasons = [row["reason"] for row in rows]
    assert reasons[:5] == [None] * 5
    assert set(reasons[5:]) == {None, "unreadable"}


def test_a_server_that_fails_for_now_fails_its_own_chips_and_a_later_run_finishes(
    place: Place, cutting: Callable[..., Any]
) -> None:
    chips = cutting(lambda: place.server.routes.update({"bad.tif": lambda asked: Reply(503)}))
    assert sorted(str(row["reason"]) for row in chips) == ["None"] * 5 + ["unreadable"] * 5
    failures = read_failures(place.folder / "chips").values()
    assert [failure["reason"] for failure in failures] == ["http"] * 5
    place.server.routes.pop("bad.tif")
    assert {row["status"] for row in cutting(lambda: None)} == {"ok"}


def test_an_image_that_changed_since_it_was_indexed_ends_the_cutting(
    place: Place, cutting: Callable[..., Any], textured: Callable
) -> None:
    with pytest.raises(SceneError, match=r"bad\.tif has changed since it was indexed"):
        cutting(lambda: place.raster("bad.tif", textured(600, 400, seed=99)))


def test_an_image_that_changes_while_it_is_read_is_noticed(place: Place, textured: Callable) -> None:
    place.item("a", place.raster("a.tif", textured(1200, 1000)))
    source = place.source()
    place.index(source)
    (scene,) = place.scenes()
    hrefs_module._FILES = Cache(hrefs_module.MAX_FILES)
    with open_scene(scene, source) as reader:
        place.server.files["a.tif"] = place.server.files["a.tif"] + b"more"
        with pytest.raises(SceneError, match="has changed while it was read"):
            reader.read(scene.crs, scene.transform, scene.width, scene.height)


# ------------------------------------------------------------------------------------------------------- credentials


class Vault:
    """Gives out SAS tokens, and a file that wants the newest."""

    def __init__(self, place: Place, expiry_s: float = 3600) -> None:
        self.given = 0
        self.valid = 0
        self.expiry_s = expiry_s
        place.item("a")
        self.data, self.server = place.server.files["a.tif"], place.server
        place.server.routes["sas/token/aerial"] = self.token
        place.server.routes["a.tif"] = self.file
        self.signing = {"kind": "planetary-computer", "endpoint": place.server.url("sas"), "hosts": ["127.0.0.1"]}

    def token(self, asked: Asked) -> Reply:
        self.given += 1
        self.valid = self.given
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.server.clock_s + self.expiry_s)
        facts = {"msft:expiry": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"), "token": f"se=then&sig=secret{self.given}"}
        return Reply(200, json.dumps(facts).encode())

    def file(self, asked: Asked) -> Reply | None:
        return None if asked.query.get("sig") == f"secret{self.valid}" else Reply(403)


def test_a_sas_token_is_asked_for_once_and_anew_when_it_has_expired(place: Place) -> None:
    vault = Vault(place)
    source = place.source(signing=vault.signing)
    place.index(source)
    (scene,) = place.scenes()
    assert vault.given == 1
    vault.valid = -1
    hrefs_module._FILES = Cache(hrefs_module.MAX_FILES)
    assert whole(scene, source).valid.all()
    assert vault.given == 2
    table = (place.folder / "scenes.parquet").read_bytes()
    assert b"secret" not in table


def test_a_sas_token_close_to_its_end_is_not_used_again(place: Place) -> None:
    vault = Vault(place, expiry_s=30)
    place.index(place.source(signing=vault.signing))
    assert vault.given > 1


@pytest.mark.parametrize(("clock_s", "expiry_s", "once"), [(-7200.0, 3600, True), (7200.0, 30, False)])
def test_a_sas_token_lasts_by_the_clock_of_its_server(
    place: Place, clock_s: float, expiry_s: float, once: bool
) -> None:
    place.server.clock_s = clock_s
    vault = Vault(place, expiry_s)
    place.index(place.source(signing=vault.signing))
    assert (vault.given == 1) is once


def test_a_sas_token_that_stays_refused_is_an_error_without_the_token(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    vault = Vault(place)
    place.server.routes["a.tif"] = lambda asked: Reply(403)
    with pytest.raises(SceneError, match=r"a\.tif: the server answers 403") as caught:
        place.index(place.source(signing=vault.signing))
    assert vault.given == 2
    assert "secret" not in str(caught.value) + caplog.text


def test_a_token_of_the_environment_goes_to_its_hosts_alone_and_is_read_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SURVEY_TOKEN", "stale-secret")
    place.item("a")

    def guarded(asked: Asked) -> Reply | None:
        if asked.headers.get("authorization") == "Bearer fresh-secret":
            return None
        monkeypatch.setenv("SURVEY_TOKEN", "fresh-secret")
        return Reply(401)

    place.server.routes["a.tif"] = guarded
    place.index(place.source(token={"env": "SURVEY_TOKEN"}))
    assert place.server.asked[0].headers["authorization"] == "Bearer stale-secret"
    place.server.asked.clear()
    with pytest.raises(SceneError, match="401"):
        place.index(place.source(token={"env": "SURVEY_TOKEN", "hosts": ["example.org"]}))
    assert not any("authorization" in asked.headers for asked in place.server.asked)
    monkeypatch.delenv("SURVEY_TOKEN")
    with pytest.raises(SettingsError, match="SURVEY_TOKEN"):
        place.index(place.source(token={"env": "SURVEY_TOKEN"}))


def test_signatures_in_a_catalog_stay_out_of_the_table(place: Place) -> None:
    place.item("a", place.raster("a.tif") + "?sig=secret&x=1")
    place.item("b", place.raster("b.tif") + "?version=2")
    place.index(place.source(depth=9))
    assert sorted(scene.hrefs[0].rsplit("/", 1)[1] for scene in place.scenes()) == ["a.tif", "b.tif?version=2"]


def test_what_you_pay_for_is_read_by_gdal_where_the_settings_name_its_file_system(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = place.server.address.removeprefix("http://")
    for name, value in {
        "AWS_S3_ENDPOINT": host,
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-west-2",
    }.items():
        monkeypatch.setenv(name, value)
    place.item("a", "s3://bucket/a.tif")
    place.raster("a.tif")
    place.server.files["bucket/a.tif"] = place.server.files["a.tif"]
    source = place.source(gdal_prefixes=["/vsis3/"], requester_pays=True)
    place.index(source)
    (scene,) = place.scenes()
    assert whole(scene, source).valid.all()
    paid = [asked for asked in place.server.asked if asked.path == "/bucket/a.tif"]
    assert paid
    assert all(asked.headers.get("x-amz-request-payer") == "requester" for asked in paid)


def test_compressed_answers_are_bounded_by_what_they_hold(server: FileServer) -> None:
    server.routes["bomb"] = lambda asked: Reply(200, gzip.compress(bytes(50 << 20)), {"Content-Encoding": "gzip"})
    with pytest.raises(CorruptInputError, match="longer than the 1000000 bytes"):
        http_module.request(server.url("bomb"), limit=1_000_000, private_hosts=frozenset({"127.0.0.1"}))


# ------------------------------------------------------------------------------------------------------------ stages


def test_the_stages_go_from_a_catalog_on_the_web_to_chips(
    place: Place, demo_packages: None, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    (left,), (top,) = rasterio.warp.transform("EPSG:4326", "EPSG:32635", [26.937], [60.536])
    grid = Affine(1, 0, left, 0, -1, top)
    values = np.random.default_rng(0).integers(20, 230, (3, 60, 60)).astype(np.uint8).repeat(20, 1).repeat(20, 2)
    place.item("kotka", place.raster("kotka.tif", values, crs="EPSG:32635", transform=grid))
    place.item("gone", place.server.url("gone.tif"), box=tuple(place.items[0]["bbox"]))
    files = tiny_files()
    files["plant"]["tags"]["labels"] = few_labels(tmp_path / "labels.csv")
    stac = place.source(gsd_m=1.0, catalog=place.server.url("stac")).model_dump(mode="json", exclude_defaults=True)
    files["sources"]["sources"]["AIR"] = stac | {"kind": "stac"}
    workshop = Workshop(write_profile(tmp_path / "profile", files), tmp_path / "data", instance)
    pair = ("kotka", "AIR")
    chips = workshop.make("image_chips", pair)
    index = workshop.make("scene_index", pair)
    assert index.reused
    assert index.record.counts["scenes"] == 1
    assert index.record.counts["unusable"] == 1
    assert chips.record.counts["ok"] > 10
    shown = STAGES["scene_index"].preview(index.run)
    assert "gone.tif: the server answers 404" in str(shown["unusable items"])


def test_a_twin_takes_the_place_of_one_that_proves_unusable(place: Place) -> None:
    when = "2022-06-01T10:00:00Z"
    place.item("a-broken", place.server.url("gone.tif"), datetime=when)
    place.item("b-twin", datetime=when)
    place.item("c-third", datetime=when)
    assert place.index(place.source(depth=9)) == counts(items=3, passing=3, scenes=1, unusable=1, duplicates=1)
    assert [scene.access["item"] for scene in place.scenes()] == ["b-twin"]
