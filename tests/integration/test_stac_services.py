"""Catalogs as they are in the world: what a server leaves out, names wrongly or lists twice costs no scene."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import shapely

from skyscript_assets.lib import http as http_module
from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.sources.stac import documents, search
from skyscript_assets.lib.imagery.sources.stac.catalog import find_items
from skyscript_assets.lib.imagery.sources.stac.index import _is_twin
from skyscript_assets.lib.imagery.sources.stac.items import Item
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from tests.web import Asked, FileServer, Reply, StacApi, feature, running

pytestmark = pytest.mark.integration

BOX = (9.0, 47.4, 9.2, 47.6)
"""A region on one cell."""


def items(count: int, **properties: Any) -> list[dict[str, Any]]:
    return [feature(f"i{n:03}", BOX, {"image": "https://tiles.example.org/a.tif"}, **properties) for n in range(count)]


def source(catalog: str, **fields: Any) -> StacSource:
    known = {"title": "t", "gsd_m": 1, "licence": "l", "attribution": "a", "assets": ["image"], "collection": "aerial"}
    return StacSource.model_validate(known | {"catalog": catalog} | fields)


def found(of: StacSource, bbox: tuple[float, float, float, float] = BOX, **how: Any) -> list[Item]:
    wanted = how.get("wanted", lambda _: True)
    return [item for some in find_items("S", of, how.get("folder", Path()), bbox, wanted) for item in some.items]


def ids(some: list[Item]) -> set[str]:
    return {item.id for item in some}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(http_module, "FIRST_PAUSE_S", 0.0)
    with running(FileServer()) as started:
        yield started


def test_a_slow_search_is_waited_for_and_no_page_is_larger_than_the_smallest_limit() -> None:
    # The Planetary Computer takes a minute over some; swisstopo refuses more than 100 items.
    assert documents.STALL_S >= 60
    assert search.PAGE_ITEMS <= 100


@pytest.mark.parametrize("methods", [("GET",), ("POST",)])
def test_a_search_that_names_no_next_page_goes_on_by_id(server: FileServer, methods: tuple[str, ...]) -> None:
    api = StacApi(server, items(250)[::-1], methods=methods)
    api.names_next, api.page = False, 100
    assert len(ids(found(source(api.url)))) == 250


def test_a_full_page_without_a_next_one_is_an_error_where_ids_cannot_be_asked_for(server: FileServer) -> None:
    api = StacApi(server, items(250))
    api.names_next, api.page, api.conforms = False, 100, []
    with pytest.raises(CorruptInputError, match="items would be lost"):
        found(source(api.url))


def test_a_full_page_that_the_server_counts_as_all_is_the_end(server: FileServer) -> None:
    api = StacApi(server, items(100))
    api.names_next, api.page, api.conforms = False, 100, []
    given = api.search

    def counted(asked: Asked) -> Reply:
        reply = given(asked)
        return Reply(200, json.dumps(json.loads(reply.body) | {"numberMatched": 100}).encode(), reply.headers)

    server.routes["stac/search"] = counted
    assert len(found(source(api.url))) == 100


def searches(server: FileServer) -> list[dict[str, Any]]:
    return [json.loads(asked.body) for asked in server.asked if asked.path == "/stac/search" and asked.body]


def test_of_a_large_collection_no_more_is_asked_for_than_is_wanted(server: FileServer) -> None:
    today = dt.datetime.now(dt.UTC)
    many = items(3000)
    for number, item in enumerate(many):
        item["properties"]["datetime"] = f"{today - dt.timedelta(days=number, hours=1):%Y-%m-%dT%H:%M:%SZ}"
    api = StacApi(server, many)
    api.page = 100
    asked = iter((True, False))
    taken = found(source(api.url, sort="newest"), wanted=lambda _: next(asked))
    assert {f"i{number:03}" for number in range(60)} <= ids(taken)
    assert len(taken) < 100
    assert len(searches(server)) == 2


def test_clouds_are_asked_for_least_first_and_never_more_than_allowed(server: FileServer) -> None:
    many = [items(1, **{"eo:cloud_cover": number / 4})[0] | {"id": f"i{number:03}"} for number in range(400)]
    api = StacApi(server, many)
    api.page = 100
    of = source(api.url, max_cloud_share=0.5)
    taken = [some.items for some in find_items("S", of, Path(), BOX, lambda _: True)]
    assert [item.id for some in taken for item in some] == [f"i{number:03}" for number in range(201)]
    shares = [max(item.cloud_share or 0 for item in some) for some in taken]
    assert shares == sorted(shares)


def test_a_large_region_is_searched_in_cells_and_each_item_comes_once(server: FileServer) -> None:
    grid = [(x / 10, y / 10) for x in range(30) for y in range(30)]
    many = [
        feature(f"i{n:03}", (x, y, x + 0.1, y + 0.1), {"image": "https://e.org/a.tif"}) for n, (x, y) in enumerate(grid)
    ]
    api = StacApi(server, many)
    api.page = 100
    taken = found(source(api.url, sort="newest"), (0.0, 0.0, 3.0, 3.0))
    assert len(taken) == len(ids(taken)) == 900


def test_the_address_of_a_collection_is_a_catalog_in_pages(server: FileServer) -> None:
    many = items(5)
    server.put(
        "api/c", {"type": "Collection", "id": "aerial", "links": [{"rel": "items", "href": server.url("api/c/items")}]}
    )

    def page(asked: Asked) -> Reply:
        start = int(asked.query.get("offset", 0))
        links = [{"rel": "next", "href": f"?offset={start + 2}"}] if start + 2 < 5 else []
        return Reply(
            200, json.dumps({"type": "FeatureCollection", "features": many[start : start + 2], "links": links}).encode()
        )

    server.routes["api/c/items"] = page
    assert len(found(source(server.url("api/c")))) == 5
    assert "bbox" in server.asked[1].query
    assert len(found(source(server.url("api/c/items")))) == 5
    server.put("api", {"links": [{"rel": "data", "href": server.url("api/collections")}]})
    listed = json.loads(server.files["api/c"])
    server.put("api/collections", {"collections": [listed, listed | {"id": "other", "links": []}]})
    assert len(found(source(server.url("api")))) == 5


def test_an_inner_host_behind_a_proxy_is_not_asked(server: FileServer) -> None:
    inner = "http://10.255.255.1/stac"
    (item,) = items(1)
    item["links"] = [{"rel": "self", "href": f"{inner}/collections/aerial/items/i000"}, {"rel": "root", "href": inner}]
    item["assets"]["image"]["href"] = "./a.tif"
    api = StacApi(server, [item])
    given = api.landing

    def landing(asked: Asked) -> Reply:
        document = json.loads(given(asked).body)
        document["links"] += [{"rel": "root", "href": inner}]
        return Reply(200, json.dumps(document).encode())

    server.routes["stac"] = landing
    (only,) = found(source(api.url))
    assert only.hrefs == (server.url("stac/a.tif"),)


def test_a_next_page_may_ask_for_headers_and_be_relative(server: FileServer) -> None:
    api = StacApi(server, items(5), methods=("GET",))

    def search(asked: Asked) -> Reply:
        start = int(asked.headers.get("x-token", 0))
        links = (
            [{"rel": "next", "href": "search?page=2", "headers": {"X-Token": str(start + 2)}}] if start + 2 < 5 else []
        )
        page = {"type": "FeatureCollection", "features": api.items[start : start + 2], "links": links}
        return Reply(200, json.dumps(page).encode())

    server.routes["stac/search"] = search
    assert len(found(source(api.url))) == 5


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Catalog", "id": "c", "links": []},
        {"type": "FeatureCollection", "features": []},
        {"links": [{"rel": "data", "href": "none.json"}]},
    ],
)
def test_a_catalog_without_any_item_is_an_error(server: FileServer, document: dict[str, Any]) -> None:
    server.put("none.json", {"collections": []})
    with pytest.raises(CorruptInputError, match="leads to no item"):
        found(source(server.put("catalog.json", document)))


def test_a_collection_that_is_not_there_is_an_error(server: FileServer) -> None:
    with pytest.raises(CorruptInputError, match=r"no collection 'arial'.*correct `collection`"):
        found(source(StacApi(server, items(1)).url, collection="arial"))
    assert found(source(StacApi(server, items(1)).url), (1.0, 1.0, 1.2, 1.2)) == []


@pytest.mark.parametrize("name", ["a b.tif", "a#b.tif", "ü.tif", "a%20b.tif"])
def test_local_addresses_may_be_escaped_or_not(tmp_path: Path, name: str) -> None:
    from urllib.parse import quote

    (tmp_path / name).write_bytes(b"")
    for href in (quote(name), name):
        item = feature("i", BOX, {"image": f"./{href}"})
        (tmp_path / "c.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
        (only,) = found(source("c.json", allow_local_hrefs=True), folder=tmp_path)
        assert only.hrefs == (str(tmp_path / name),)


@pytest.mark.parametrize(
    ("stated", "right"),
    [
        ({"datetime": "2020-06-01t10:00:00z"}, (2020, 6, 1, 10)),
        ({"datetime": "2016-12-31T23:59:60Z"}, (2016, 12, 31, 23, 59, 59)),
        ({"datetime": "2016-12-31T23:59:60.5+00:00"}, (2016, 12, 31, 23, 59, 59, 500000)),
        ({"datetime": None, "start_datetime": "2020-06-01T00:00:00Z"}, (2020, 6, 1)),
        ({"datetime": None, "end_datetime": "2020-06-01T00:00:00Z", "start_datetime": None}, (2020, 6, 1)),
        (
            {"datetime": None, "start_datetime": "2020-06-01T00:00:00Z", "end_datetime": "2020-06-03T00:00:00Z"},
            (2020, 6, 2),
        ),
    ],
)
def test_dates_are_read_as_they_are_written(tmp_path: Path, stated: dict[str, Any], right: tuple[int, ...]) -> None:
    item = feature("i", BOX, {"image": "https://e.org/a.tif"}) | {"properties": stated}
    (tmp_path / "c.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    (only,) = found(source("c.json"), folder=tmp_path)
    assert only.datetime == dt.datetime(*right, tzinfo=dt.UTC)  # type: ignore[arg-type]


def test_more_items_than_allowed_end_with_an_error(server: FileServer) -> None:
    with pytest.raises(SceneError, match="more than 4 items"):
        found(source(StacApi(server, items(5)).url, max_items=4))


def test_one_acquisition_that_is_listed_twice_is_a_twin_and_parts_of_a_pass_are_none() -> None:
    def item(name: str, second: int, east: float) -> Item:
        when = dt.datetime(2020, 1, 5, 10, 30, second, tzinfo=dt.UTC)
        return Item(name, when, shapely.box(9.0, 47.0, east, 48.0), 0.0, ("https://e.org/a.tif",))

    first = item("S2A_32TMT_20200105_0_L2A", 0, 10.0)
    assert _is_twin(first, item("S2A_32TMT_20200105_1_L2A", 7, 10.01))
    assert not _is_twin(first, item("S2A_32TMT_20200105_1_L2A", 7, 9.4))
    assert not _is_twin(first, Item("x", first.datetime + dt.timedelta(days=5), first.claimed, 0.0, ("a",)))
