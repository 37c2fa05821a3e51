"""What servers say leads to no private address: each spelling, redirects, names that change, proxies, kinds of sources.

The servers here are on 127.0.0.1, which settings state; `localhost` is the same machine under a name that they do not.
"""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.warp
from numpy.typing import NDArray

from skyscript_assets.lib import http
from skyscript_assets.lib.download import download, read_small
from skyscript_assets.lib.errors import MissingInputError, RefusedError, SceneError, SettingsError
from skyscript_assets.lib.imagery.sources.earthengine.session import _Transport
from skyscript_assets.lib.imagery.sources.earthengine.settings import EarthEngineSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.imagery.sources.services.client import Client
from skyscript_assets.lib.imagery.sources.services.settings import XyzSource
from skyscript_assets.lib.imagery.sources.stac.hrefs import checked, open_href
from skyscript_assets.lib.imagery.sources.stac.index import index_stac
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
from skyscript_assets.lib.settings.regions import Region
from tests.web import FileServer, Reply, StacApi, feature, running
from tests.workshop import shared_in

pytestmark = pytest.mark.integration

HERE = frozenset({"127.0.0.1"})
FACTS: dict[str, Any] = {"title": "t", "gsd_m": 0.5, "licence": "CC0-1.0", "attribution": "A surveyor"}
REFUSED = r"localhost leads to .*a loopback address.*name 'localhost' in `allow_private_hosts`"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running(FileServer()) as started:
        started.put("a", b"here")
        yield started


@pytest.fixture(autouse=True)
def _no_pauses_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def elsewhere(server: FileServer, name: str = "a") -> str:
    return server.url(name).replace("127.0.0.1", "localhost")


def get(url: str, private_hosts: frozenset[str] = frozenset()) -> bytes:
    return http.request(url, limit=1000, private_hosts=private_hosts).body


# ------------------------------------------------------------------------------------------------------------ spellings

SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "user@127.0.0.1",
    "１２７.0.0.1",
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_this_machine_reaches_it(host: str) -> None:
    """Not even a connection is made."""
    for family, place in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with socket.create_server((place, 0), family=family) as listener:
            listener.setblocking(False)
            with pytest.raises(
                (RefusedError, SettingsError), match="`allow_private_hosts`|no address that can be asked"
            ):
                get(f"http://{host}:{listener.getsockname()[1]}/a")
            with pytest.raises(BlockingIOError):
                listener.accept()


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[fd00:ec2::254]", "10.0.0.1", "[64:ff9b::a00:1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_networks_and_clouds_are_refused_before_anything_is_sent(scheme: str, host: str) -> None:
    with pytest.raises(RefusedError, match="private|cloud metadata"):
        get(f"{scheme}://{host}/latest/meta-data")


def test_a_host_of_the_settings_may_be_private(server: FileServer) -> None:
    assert get(server.url("a"), HERE) == b"here"
    assert get(elsewhere(server), frozenset({"localhost"})) == b"here"


def test_a_connection_that_was_allowed_serves_nobody_else(server: FileServer) -> None:
    assert get(server.url("a"), HERE) == b"here"
    with pytest.raises(RefusedError, match=r"127\.0\.0\.1 leads to"):
        get(server.url("a"))
    assert len(server.asked) == 1


# --------------------------------------------------------------------------------------------------- redirects, names


def redirect(server: FileServer, name: str, target: str) -> str:
    server.routes[name] = lambda _: Reply(302, headers={"Location": target})
    return server.url(name)


def test_redirects_stay_on_hosts_that_may_be_private(server: FileServer) -> None:
    with running(FileServer()) as other:
        other.put("a", b"there")
        assert get(redirect(server, "same", other.url("a")), HERE) == b"there"
        with pytest.raises(RefusedError, match=REFUSED):
            get(redirect(server, "other", elsewhere(other)), HERE)
        assert get(server.url("other"), HERE | {"localhost"}) == b"there"
        assert len(other.asked) == 2
    for target in ("http://169.254.169.254/latest", "http://0xA9FEA9FE/", "//[fd00:ec2::254]/"):
        with pytest.raises(RefusedError, match="cloud metadata"):
            get(redirect(server, "cloud", target), HERE)


def test_a_name_that_changes_between_look_up_and_connection_is_refused(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, real = iter(["93.184.216.34"]), socket.getaddrinfo

    def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
        return real(next(answers, "127.0.0.1") if host == "rebind.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = server.url("a").replace("127.0.0.1", "rebind.test")
    with pytest.raises(RefusedError, match=r"rebind\.test leads to 127\.0\.0\.1"):
        get(url, HERE)
    assert next(answers, None) is None
    assert server.asked == []
    assert get(url, frozenset({"rebind.test"})) == b"here"


# -------------------------------------------------------------------------------------------------------------- proxies


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A proxy on this machine that answers everything by itself."""
    with running(FileServer()) as started:
        started.answer = lambda _: Reply(200, b"by proxy")  # type: ignore[method-assign]
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, started.address)
        yield started


def test_a_proxy_may_be_private_and_is_not_asked_for_what_is(proxy: FileServer) -> None:
    assert get("http://93.184.216.34/a") == b"by proxy"
    assert get("http://name-that-only-the-proxy-knows.invalid/a") == b"by proxy"
    for url in ("http://169.254.169.254/", "http://2130706433/", "http://localhost/", "https://[::1]/"):
        with pytest.raises(RefusedError, match="`allow_private_hosts`"):
            get(url)
    assert len(proxy.asked) == 2
    assert get("http://localhost/", frozenset({"localhost"})) == b"by proxy"


def test_what_the_proxy_is_not_for_is_checked_as_without_it(
    proxy: FileServer, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert get(server.url("a"), HERE) == b"here"
    with pytest.raises(RefusedError, match=REFUSED):
        get(elsewhere(server))
    assert proxy.asked == []


# -------------------------------------------------------------------------------------------------------------- sources


@pytest.fixture
def index(server: FileServer, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Indexes a catalog of the server; returns the unusable items."""

    def run(catalog: str = "stac", **facts: Any) -> dict[str, str]:
        source = StacSource(catalog=server.url(catalog), assets=("image",), **FACTS | facts)
        box = (-180.0, -90.0, 180.0, 90.0)
        index_stac(Search("here", "S", source, shared_in(tmp_path), box, tmp_path))
        listed = json.loads((tmp_path / "unusable_items.json").read_text(encoding="utf-8"))
        return {entry["item"]: entry["reason"] for entry in listed}

    return run


@pytest.fixture
def item(
    server: FileServer, tmp_path: Path, write_raster: Callable[..., Path], textured: Callable[..., NDArray[np.uint8]]
) -> Callable[[str], dict[str, Any]]:
    path = write_raster(tmp_path / "a.tif", textured())
    server.put("a.tif", path)
    with rasterio.open(path) as dataset:
        box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    # Of a time of its own: equal ones are one acquisition.
    return lambda href: feature(f"item-{len(href)}", box, {"image": href}, datetime=f"20{len(href):02}-06-01T10:00:00Z")


def test_images_of_a_catalog_are_not_fetched_from_private_hosts(
    server: FileServer, index: Callable[..., dict[str, str]], item: Callable[[str], dict[str, Any]]
) -> None:
    good, bad = item(server.url("a.tif")), item(elsewhere(server, "a.tif?other"))
    StacApi(server, [good, bad])
    with running(FileServer()) as victim:
        redirected = item(redirect(server, "redirected-to-another.tif", elsewhere(victim, "a.tif")))
        StacApi(server, [good, bad, redirected])
        found = index(depth=9)
        assert set(found) == {bad["id"], redirected["id"]}
        assert all("`allow_private_hosts`" in reason for reason in found.values())
        assert victim.asked == []
    server.routes.pop("redirected-to-another.tif")
    StacApi(server, [good, bad])
    assert index(depth=9, allow_private_hosts=("localhost",)) == {}


def test_an_image_that_one_source_may_reach_is_not_handed_to_another(
    server: FileServer, item: Callable[[str], dict[str, Any]]
) -> None:
    url = item(elsewhere(server, "a.tif"))["assets"]["image"]["href"]
    one = StacSource(catalog="https://one.org", assets=("image",), allow_private_hosts=("localhost",), **FACTS)
    other = StacSource(catalog="https://other.org", assets=("image",), **FACTS)
    assert open_href(url, one).size > 0
    with pytest.raises(RefusedError, match=REFUSED):
        open_href(url, other)


@pytest.mark.parametrize("relation", ["search", "next", "child", "item"])
def test_links_of_a_catalog_are_not_followed_to_private_hosts(
    server: FileServer, index: Callable[..., dict[str, str]], relation: str
) -> None:
    with running(FileServer()) as victim:
        link = {"rel": relation, "href": elsewhere(victim)}
        page = {"type": "FeatureCollection", "features": [{"id": "x"}], "links": [link]}
        server.put("page", page)
        links = [{"rel": "search", "href": server.url("page")}] if relation == "next" else [link]
        server.put("stac", {"type": "Catalog", "id": "c", "links": links})
        with pytest.raises(RefusedError, match=REFUSED):
            index()
        assert victim.asked == []


def test_the_place_of_tokens_may_not_send_to_a_private_host(
    server: FileServer, index: Callable[..., dict[str, str]], item: Callable[[str], dict[str, Any]]
) -> None:
    StacApi(server, [item(server.url("a.tif"))])
    signing = {"endpoint": server.url("sas"), "hosts": ["127.0.0.1"]}
    redirect(server, "sas/token/aerial", "http://169.254.169.254/latest")
    with pytest.raises((RefusedError, SceneError), match="cloud metadata"):
        index(collection="aerial", signing=signing)


def test_a_service_may_not_send_to_a_private_host(server: FileServer, tmp_path: Path) -> None:
    redirect(server, "0/0/0", elsewhere(server))
    facts = FACTS | {"url": server.url("{z}/{x}/{y}"), "requests_per_second": 100}
    with pytest.raises(MissingInputError, match=f"source T: {REFUSED}"):
        Client(XyzSource(**facts), "T", tmp_path).get(server.url("0/0/0"))
    allowed = Client(XyzSource(**facts, allow_private_hosts=("localhost",)), "T", tmp_path).get(server.url("0/0/0"))
    assert allowed is not None
    assert allowed.body == b"here"
    with pytest.raises(MissingInputError, match="cloud metadata"):
        Client(XyzSource(**facts), "T", tmp_path).get("http://169.254.169.254/{z}/1/1.png")


def test_earth_engine_may_not_send_to_a_private_host(server: FileServer) -> None:
    url = redirect(server, "ee", elsewhere(server))
    source = EarthEngineSource(collection="C", url=server.address, **FACTS)
    with pytest.raises(RefusedError, match=REFUSED):
        _Transport(source).request(url)
    assert _Transport(source.model_copy(update={"allow_private_hosts": ("localhost",)})).request(url)[1] == b"here"


def test_an_extract_may_not_be_fetched_from_a_private_host(server: FileServer, tmp_path: Path) -> None:
    url = redirect(server, "extract", elsewhere(server))
    with pytest.raises(RefusedError, match=REFUSED):
        download(url, tmp_path / "a")
    with pytest.raises(RefusedError, match=REFUSED):
        read_small(url, 100)
    download(url, tmp_path / "a", allowed=["localhost"])
    assert (tmp_path / "a").read_bytes() == read_small(url, 100, ["localhost"]) == b"here"
    assert Region(title="t", url=url, allow_private_hosts=["localhost"]).allow_private_hosts == ("localhost",)


# ----------------------------------------------------------------------------------------------------------------- GDAL


@pytest.mark.parametrize("bucket", ["127.0.0.1:1#", "x.org?", "user@x.org", "2130706433:80#", "x%23", "b\\", ""])
def test_a_bucket_is_a_name_and_never_an_address(bucket: str) -> None:
    """GDAL puts a bucket's name before its store's: `s3://x.org#/a.tif` would go to x.org, signed with your key."""
    source = StacSource(catalog="https://x.org", assets=("image",), gdal_prefixes=("/vsis3/",), **FACTS)
    assert checked("s3://my-bucket/a.tif", source) == "/vsis3/my-bucket/a.tif"
    for href in (
        f"s3://{bucket}/a.tif",
        f"/vsis3/{bucket}/vsicurl/http://127.0.0.1/a.tif",
        "s3://my-bucket/../b/a.tif",
    ):
        with pytest.raises(SceneError, match="is read by GDAL"):
            checked(href, source)


@pytest.mark.parametrize("href", ["file:///vsicurl/http://127.0.0.1/a.tif", "/./vsicurl/http://127.0.0.1/a.tif"])
def test_a_file_on_this_machine_is_no_name_of_gdal_s(href: str) -> None:
    source = StacSource(catalog="mine.json", assets=("image",), allow_local_hrefs=True, **FACTS)
    assert checked("file:///data/a.tif", source) == "/data/a.tif"
    with pytest.raises(SceneError, match="is read by GDAL"):
        checked(href, source)


@pytest.mark.parametrize("prefix", ["/vsicurl/", "/vsicurl_streaming/", "/vsiwebhdfs/", "/vsizip/", "/vsimem/"])
def test_what_of_gdal_takes_hosts_or_files_cannot_be_allowed(prefix: str) -> None:
    with pytest.raises(ValueError, match="gdal_prefixes"):
        StacSource(catalog="https://x.org", assets=("image",), gdal_prefixes=(prefix,), **FACTS)


@pytest.mark.parametrize("host", ["http://x.org", "x.org:80", "x.org/a", "*", "X.ORG", "", "a b", "10.0.0.0/8"])
def test_what_may_be_private_is_named_by_host(host: str) -> None:
    with pytest.raises(ValueError, match="allow_private_hosts"):
        XyzSource(url="https://x.org/{z}/{x}/{y}", allow_private_hosts=(host,), **FACTS)
    names = ("x.org", ".x.org", "10.0.0.1", "::1", "fd00:ec2::254", "maps")
    assert XyzSource(url="https://x.org/{z}/{x}/{y}", allow_private_hosts=names, **FACTS).allow_private_hosts == names
