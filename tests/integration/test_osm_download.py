"""Downloads from a real HTTP server on this machine that can cut connections, forget ranges and change its file."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import osmium
import pytest

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    MissingInputError,
    NoSpaceError,
    SettingsError,
)
from skyscript_assets.lib.osm import download as download_module
from skyscript_assets.lib.osm.download import download
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.settings import BBox, Region, Settings

pytestmark = pytest.mark.integration


class Server(ThreadingHTTPServer):
    """Serves `files`; the first answers can be cut after some bytes or refused with a status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.validators = True
        self.asked: list[str | None] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        data = self.server.files.get(self.path.lstrip("/").partition("?")[0])
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        if data is None:
            self.send_error(404)
            return
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start = 0
        if wanted and self.headers.get("If-Range") == etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.server.validators:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def extract(tmp_path: Path) -> bytes:
    path = tmp_path / "source.osm.pbf"
    header = osmium.io.Header().add_box(osmium.osm.Box(10, 50, 11, 51))
    with osmium.SimpleWriter(path, header=header) as writer:
        for i, (x, y) in enumerate(np.random.default_rng(0).random((3000, 2)), start=1):
            writer.add_node(osmium.osm.mutable.Node(id=i, version=1, location=(10 + x, 50 + y)))
    data = path.read_bytes()
    path.unlink()
    assert len(data) > 10_000
    return data


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download_leaves_nothing_but_the_file(tmp_path: Path, server: Server) -> None:
    server.files["a"] = b"x" * 1_000_000
    told: list[tuple[int, int, str]] = []
    download(server.url("a"), tmp_path / "a", lambda *args: told.append(args))
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert names(tmp_path) == ["a"]
    assert told[-1] == (1_000_000, 1_000_000, "bytes")


def test_a_cut_download_continues_where_it_was_cut(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["a"], server.cuts = extract, [5_000, 2_000]
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == extract
    assert server.asked == [None, "bytes=5000-", "bytes=7000-"]


def test_a_later_call_continues_what_an_earlier_one_left(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["a"], server.cuts = extract, [5_000, 0, 0]
    with pytest.raises(MissingInputError, match="failed 2 times in a row.*5000 bytes are kept"):
        download(server.url("a"), tmp_path / "a", tries=2, wait_s=0)
    assert names(tmp_path) == ["a.part", "a.part.tag"]
    server.asked.clear()
    server.cuts.clear()
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == extract
    assert server.asked == ["bytes=5000-"]


def test_a_part_of_another_version_is_not_continued(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["a"], server.cuts = b"old" * 50_000, [90_000, 0]
    with pytest.raises(MissingInputError):
        download(server.url("a"), tmp_path / "a", tries=1, wait_s=0)
    server.files["a"], server.cuts = extract, []
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == extract


def test_without_a_name_for_the_version_a_cut_download_starts_afresh(tmp_path: Path, server: Server) -> None:
    server.files["a"], server.cuts, server.validators = b"y" * 100_000, [60_000], False
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == [None, None]


def test_a_part_that_is_already_whole_is_taken(tmp_path: Path, server: Server) -> None:
    server.files["a"] = b"z" * 1000
    etag = f'"{hashlib.sha256(server.files["a"]).hexdigest()[:16]}"'
    (tmp_path / "a.part").write_bytes(server.files["a"])
    (tmp_path / "a.part.tag").write_text(etag)
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == ["bytes=1000-"]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, server: Server) -> None:
    server.files["a"] = b"z" * 1000
    etag = f'"{hashlib.sha256(server.files["a"]).hexdigest()[:16]}"'
    (tmp_path / "a.part").write_bytes(b"q" * 2000)
    (tmp_path / "a.part.tag").write_text(etag)
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == server.files["a"]


def test_a_busy_server_is_asked_again(tmp_path: Path, server: Server) -> None:
    server.files["a"], server.statuses = b"z", [503, 429]
    download(server.url("a"), tmp_path / "a", wait_s=0)
    assert (tmp_path / "a").read_bytes() == b"z"


def test_what_the_server_does_not_have_is_missing_at_once(tmp_path: Path, server: Server) -> None:
    with pytest.raises(MissingInputError, match=r"/gone: the server answers 404"):
        download(server.url("gone"), tmp_path / "a")
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_missing(tmp_path: Path, server: Server) -> None:
    url = server.url("a")
    server.server_close()
    with pytest.raises(MissingInputError, match="failed 2 times in a row"):
        download(url, tmp_path / "a", tries=2, wait_s=0)


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="http or https"):
        download("file:///etc/hostname", tmp_path / "a")


def test_a_download_that_does_not_fit_is_not_begun(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a"] = b"z" * 1000
    usage = download_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda folder: usage._replace(free=999))
    with pytest.raises(NoSpaceError, match="1000 bytes are to be downloaded, 999 are free"):
        download(server.url("a"), tmp_path / "a", wait_s=0)


def stage(out: Path, url: str, **region: object) -> dict[str, object]:
    settings = Settings.model_construct(folder=out)
    return vars(stage_extract("here", Region(title="Here", url=url, **region), settings, out))


def test_an_extract_is_downloaded_and_checked(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["latest.osm.pbf"], server.cuts = extract, [1000]
    digest = hashlib.md5(extract).hexdigest()
    server.files["latest.osm.pbf.md5"] = f"{digest}  latest.osm.pbf\n".encode()
    url = server.url("latest.osm.pbf")
    facts = stage(tmp_path, url + "?token=1", md5_url=url + ".md5", sha256=hashlib.sha256(extract).hexdigest())
    assert (facts["file"], facts["size_bytes"]) == ("extract.osm.pbf", len(extract))
    assert facts["bbox"] == pytest.approx((10, 50, 11, 51))
    assert names(tmp_path) == ["extract.json", "extract.osm.pbf"]


def test_a_whole_download_of_an_earlier_call_is_not_repeated(tmp_path: Path, server: Server, extract: bytes) -> None:
    (tmp_path / "extract.osm.pbf").write_bytes(extract)
    facts = stage(tmp_path, server.url("a.osm.pbf"))
    assert facts["sha256"] == hashlib.sha256(extract).hexdigest()
    assert server.asked == []


def test_a_wrong_md5_is_a_mismatch_and_the_file_is_not_kept(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files |= {"a.osm.pbf": extract, "a.md5": b""}
    with pytest.raises(DigestMismatchError, match=r"/a\.md5 promises nothing"):
        stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("a.md5"))
    server.files["a.md5"] = b"0" * 32
    with pytest.raises(DigestMismatchError, match="promises 0000"):
        stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("a.md5"))
    assert names(tmp_path) == []


def test_an_error_page_in_place_of_an_extract_is_corrupt(tmp_path: Path, server: Server) -> None:
    server.files["a.osm.pbf"] = b"<html>Please log in</html>"
    with pytest.raises(CorruptInputError, match=r"region here: http://.*/a\.osm\.pbf is no OSM extract"):
        stage(tmp_path, server.url("a.osm.pbf"), bbox=BBox(west=10, south=50, east=11, north=51))
    assert names(tmp_path) == []
