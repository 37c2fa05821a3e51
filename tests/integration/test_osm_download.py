"""Downloads from a real HTTP server on this machine that can cut connections, forget ranges and change its file."""

import datetime as dt
import email.utils
import errno
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import dagster as dg
import numpy as np
import osmium
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skyscript_assets import resources
from skyscript_assets.assets import STAGES
from skyscript_assets.automation import sensors
from skyscript_assets.lib import http
from skyscript_assets.lib.download import Version, download
from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    MissingInputError,
    NoSpaceError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.origin import changed_at_server, read_of_region
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.storage import OutputKey, OutputRecord, Store
from skyscript_assets.provenance import Outputs
from tests.serving import serving
from tests.workshop import demo_files, shared_in, write_profile

pytestmark = pytest.mark.integration


class Server(ThreadingHTTPServer):
    """Serves `files`; answers can be cut, refused, redirected, prolonged or sent without what continues them.

    `cuts` are the bytes after which the first answers end, `refusals` their statuses with the value of Retry-After,
    `asked` the range, `conditions` the known version of every request for a file that is not an .md5 file. Its clock is
    `clock_s` ahead.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cuts: list[int] = []
        self.refusals: list[tuple[int, str | None]] = []
        self.validators = ("ETag", "Last-Modified")
        self.knows_ranges = True
        self.knows_if_range = True
        self.surplus = b""
        self.chunked = False
        self.hold = threading.Event()
        self.hold.set()
        self.paths: list[str] = []
        self.asked: list[str | None] = []
        self.conditions: list[str | None] = []
        self.after: Callable[[], None] = lambda: None
        self.clock_s = 0.0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def names_of(self, data: bytes) -> dict[str, str]:
        digest = hashlib.sha256(data).digest()
        date = email.utils.formatdate(1_600_000_000 + digest[0] * 1000 + digest[1], usegmt=True)
        names = {"ETag": f'"{digest.hex()[:16]}"', "Last-Modified": date}
        return {name: value for name, value in names.items() if name in self.validators}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.clock_s)

    def do_GET(self) -> None:
        server, name = self.server, self.path.lstrip("/").partition("?")[0]
        data = server.files.get(name)
        server.paths.append(name)
        if not name.endswith(".md5"):
            server.asked.append(self.headers.get("Range"))
            server.conditions.append(self.condition())
            if server.refusals:
                status, pause = server.refusals.pop(0)
                self.answer(status, {"Retry-After": pause} if pause is not None else {})
                return
        if name in server.redirects:
            self.answer(302, {"Location": server.redirects[name]})
        elif data is None:
            self.answer(404)
        elif self.condition() in server.names_of(data).values():
            self.answer(304)
        else:
            self.send_file(data)
            server.after()

    def condition(self) -> str | None:
        return self.headers.get("If-None-Match") or self.headers.get("If-Modified-Since")

    def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def send_file(self, data: bytes) -> None:
        wanted, start, names = self.headers.get("Range"), 0, self.server.names_of(data)
        same = self.headers.get("If-Range") in names.values() or not self.server.knows_if_range
        if wanted and self.server.knows_ranges and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
                return
        headers = names | {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.close_connection = self.close_connection or end < len(data)
        body = data[start:end] + (self.server.surplus if end >= len(data) else b"")
        if self.server.chunked:
            headers = {"Transfer-Encoding": "chunked", **headers, "Content-Length": ""}
            body = b"%x\r\n%b" % (len(data) - start, body) + (b"\r\n0\r\n\r\n" if end >= len(data) else b"")
        self.answer(206 if start else 200, headers)
        self.wfile.write(body)
        self.server.hold.wait()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(server, server.hold):
        yield server


def write_nodes(path: Path, count: int) -> bytes:
    """The bytes of an extract of untagged nodes."""
    header = osmium.io.Header().add_box(osmium.osm.Box(10, 50, 11, 51))
    with osmium.SimpleWriter(path, header=header) as writer:
        for i, (x, y) in enumerate(np.random.default_rng(0).random((count, 2)), start=1):
            writer.add_node(osmium.osm.mutable.Node(id=i, version=1, location=(10 + x, 50 + y)))
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture
def extract(tmp_path: Path) -> bytes:
    data = write_nodes(tmp_path / "source.osm.pbf", 3000)
    assert len(data) > 10_000
    return data


@pytest.fixture
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key with a certificate that nobody trusts."""
    path = tmp_path_factory.mktemp("tls") / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-days", "2"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path, "-out", f"{path}.crt", *subject],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)


@pytest.fixture
def pauses(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between tries, which are noted and not made."""
    made: list[float] = []
    monkeypatch.setattr(http.time, "sleep", made.append)
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 1.0)
    return made


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
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == extract
    assert server.asked == [None, "bytes=5000-", "bytes=7000-"]


def test_a_later_call_continues_what_an_earlier_one_left(
    tmp_path: Path, server: Server, extract: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "TRIES", 2)
    server.files["a"], server.cuts = extract, [5_000, 0, 0]
    with pytest.raises(UnreachableError, match="2 requests in a row failed.*5000 bytes are kept"):
        download(server.url("a"), tmp_path / "a")
    assert names(tmp_path) == ["a.part", "a.part.tag"]
    server.asked.clear()
    server.cuts.clear()
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == extract
    assert server.asked == ["bytes=5000-"]


def test_a_part_of_another_version_is_not_continued(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["a"], server.cuts = b"old" * 50_000, [90_000]
    server.after = lambda: server.refusals.extend([(404, None)] * (len(server.asked) == 1))
    with pytest.raises(RefusedError):
        download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a.part").stat().st_size == 90_000
    server.files["a"], server.cuts = extract, []
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == extract


def test_without_a_name_for_the_version_a_cut_download_starts_afresh(tmp_path: Path, server: Server) -> None:
    server.files["a"], server.cuts, server.validators = b"y" * 100_000, [60_000], ()
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == [None, None]


def leave_part(server: Server, folder: Path, data: bytes) -> None:
    """What a download of the server's present file `a` leaves when it is killed."""
    names = server.names_of(server.files["a"])
    tag = {"url": server.url("a"), "etag": names.get("ETag"), "last_modified": names.get("Last-Modified")}
    (folder / "a.part").write_bytes(data)
    (folder / "a.part.tag").write_text(json.dumps(tag))


def test_a_part_that_is_already_whole_is_taken(tmp_path: Path, server: Server) -> None:
    server.files["a"] = b"z" * 1000
    leave_part(server, tmp_path, server.files["a"])
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == ["bytes=1000-"]


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path: Path, server: Server) -> None:
    server.files["a"] = b"z" * 1000
    leave_part(server, tmp_path, b"q" * 2000)
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]


def test_a_part_of_another_address_is_not_continued(tmp_path: Path, server: Server) -> None:
    server.files |= {"a": b"z" * 1000, "b": b"z" * 1000}
    leave_part(server, tmp_path, b"z" * 10)
    download(server.url("b"), tmp_path / "a")
    assert server.asked == [None]


@pytest.mark.parametrize("tag", ["", "[]", '{"url": 1}', '"etag"'])
def test_a_part_with_a_damaged_tag_is_not_continued(tmp_path: Path, server: Server, tag: str) -> None:
    server.files["a"] = b"z" * 1000
    (tmp_path / "a.part").write_bytes(b"q" * 10)
    (tmp_path / "a.part.tag").write_text(tag)
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert names(tmp_path) == ["a"]


def test_a_server_that_ignores_ranges_sends_the_file_from_its_beginning(tmp_path: Path, server: Server) -> None:
    server.files["a"], server.cuts, server.knows_ranges = bytes(range(256)) * 400, [60_000], False
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == [None, "bytes=60000-"]


def test_a_rest_of_another_version_is_not_taken(tmp_path: Path, server: Server) -> None:
    server.files["a"] = b"z" * 1000
    leave_part(server, tmp_path, b"z" * 10)
    server.files["a"], server.knows_if_range = b"y" * 1000, False
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == ["bytes=10-", None]


def test_a_weak_etag_alone_does_not_continue_a_download(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "names_of", lambda data: {"ETag": 'W/"1"'})
    server.files["a"], server.cuts = b"y" * 1000, [600]
    assert download(server.url("a"), tmp_path / "a") == Version('W/"1"', None)
    assert server.asked == [None, None]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 20_000), max_size=4), validators=st.booleans())
def test_a_download_cut_at_any_bytes_becomes_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, server: Server, extract: bytes, cuts: list[int], validators: bool
) -> None:
    server.files["a"], server.cuts = extract, list(cuts)
    server.validators = ("ETag",) if validators else ()
    folder = tmp_path_factory.mktemp("cut")
    download(server.url("a"), folder / "a")
    assert (folder / "a").read_bytes() == extract
    assert names(folder) == ["a"]


def test_more_than_was_announced_is_an_error(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    server.files["a"], server.surplus = b"z" * 1000, b"!"
    with pytest.raises(UnreachableError, match="at last with: the server sent more than the 1000 bytes"):
        download(server.url("a"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_what_follows_the_file_on_a_connection_that_stays_open_is_not_its_own(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
    server.files["a"], server.surplus = b"z" * 1000, b"!"
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]


def test_a_download_in_chunks_that_is_cut_continues(
    tmp_path: Path, server: Server, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
    server.files["a"], server.cuts, server.chunked = bytes(range(256)) * 400, [60_000], True
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == [None, "bytes=60000-"]


def test_a_certificate_that_is_not_trusted_ends_the_download_at_once(
    tmp_path: Path, server: Server, self_signed: Path, pauses: list[float]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(UnreachableError, match="/a: the server's certificate is not trusted; correct the address"):
        download(server.url("a").replace("http:", "https:"), tmp_path / "a")
    assert pauses == []


def test_less_than_was_announced_is_an_error(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    server.files["a"], server.cuts = b"z" * 1000, [400, 0, 0, 0, 0]
    with pytest.raises(UnreachableError, match="the connection ended after 400 of 1000 bytes.*400 bytes are kept"):
        download(server.url("a"), tmp_path / "a")
    assert pauses == [1, 2, 4, 8]


def test_a_connection_that_stalls_counts_as_cut(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "STALL_S", 0.05)
    monkeypatch.setattr(http.time, "sleep", lambda seconds: server.hold.set())
    server.files["a"], server.cuts = b"z" * 10_000, [4000]
    server.hold.clear()
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.files["a"]
    assert server.asked == [None, "bytes=4000-"]


def test_a_busy_server_is_asked_again_later_each_time(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    server.files["a"], server.refusals = b"z", [(status, None) for status in (408, 425, 429, 500)]
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"z"
    assert pauses == [1, 2, 4, 8]


def test_a_server_that_stays_broken_is_named(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    server.refusals = [(500, None)] * 5
    with pytest.raises(
        UnreachableError,
        match=r"/a: 5 .* in a row failed, .* for now \(500\); run again later, or .*`path` in re",
    ):
        download(server.url("a"), tmp_path / "a")


def test_the_server_s_wish_when_to_come_back_is_granted(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    soon = email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5), usegmt=True)
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    server.files["a"] = b"z"
    server.refusals = [(429, "120"), (503, soon), (503, past), (429, "soon")]
    download(server.url("a"), tmp_path / "a")
    assert [round(pause, -1) for pause in pauses[:2]] == [120, 300]
    assert pauses[2:] == [4, 8]


@pytest.mark.parametrize("clock_s", [-3600.0, 3600.0])
def test_when_to_come_back_is_counted_by_the_server_s_clock(
    tmp_path: Path, server: Server, pauses: list[float], clock_s: float
) -> None:
    server.clock_s, server.files["a"] = clock_s, b"z"
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=clock_s + 60)
    server.refusals = [(503, email.utils.format_datetime(soon, usegmt=True))]
    download(server.url("a"), tmp_path / "a")
    assert [round(pause, -1) for pause in pauses] == [60]


def test_a_date_that_there_cannot_be_is_none(tmp_path: Path, server: Server, pauses: list[float]) -> None:
    server.files["a"], server.refusals = b"z", [(503, "Wed, 21 Oct 99999 07:28:00 GMT")]
    download(server.url("a"), tmp_path / "a")
    assert pauses == [1]


def test_a_server_that_asks_to_come_back_much_later_ends_the_download(
    tmp_path: Path, server: Server, pauses: list[float]
) -> None:
    server.files["a"] = b"z" * 1000
    leave_part(server, tmp_path, b"z" * 10)
    server.refusals = [(429, "86400")]
    with pytest.raises(UnreachableError, match=r"fewer requests \(429\).*after 86400 s; run again then; 10 bytes are"):
        download(server.url("a"), tmp_path / "a")
    assert pauses == []


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(404, "404; correct the address"), (403, "403; it needs a login"), (407, "407; it needs a login")],
)
def test_what_the_server_refuses_is_refused_at_once(tmp_path: Path, server: Server, status: int, remedy: str) -> None:
    server.refusals = [(status, None)]
    with pytest.raises(RefusedError, match=rf"/gone: the server answers {remedy}.*as `path` in regions\.yaml"):
        download(server.url("gone"), tmp_path / "a")
    assert len(server.asked) == 1


def test_a_refusal_leaves_the_part_as_it_was(tmp_path: Path, server: Server) -> None:
    server.files["a"], server.refusals = b"z" * 1000, [(403, None)]
    leave_part(server, tmp_path, b"z" * 10)
    with pytest.raises(RefusedError):
        download(server.url("a"), tmp_path / "a")
    download(server.url("a"), tmp_path / "a")
    assert server.asked == ["bytes=10-", "bytes=10-"]


@pytest.mark.parametrize(
    "page", [b"<html>Log in</html>", b"\n<!DOCTYPE html>\n", b"\xef\xbb\xbf<!doctype HTML public>"]
)
def test_a_web_page_is_refused_and_the_part_stays(tmp_path: Path, server: Server, page: bytes) -> None:
    server.files["a"] = b"z" * 1000
    leave_part(server, tmp_path, b"z" * 10)
    whole, server.files["a"] = server.files["a"], page
    with pytest.raises(CorruptInputError, match="/a answers with a web page.*open it in a browser"):
        download(server.url("a"), tmp_path / "a")
    server.files["a"] = whole
    download(server.url("a"), tmp_path / "a")
    assert server.asked == ["bytes=10-", "bytes=10-"]


def test_a_redirect_is_followed(tmp_path: Path, server: Server) -> None:
    server.files["b"], server.redirects["a"] = b"z", server.url("b")
    download(server.url("a"), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"z"


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/b", "file:///etc/hostname"])
def test_a_redirect_to_another_scheme_is_refused(tmp_path: Path, server: Server, place: str) -> None:
    server.redirects["a"] = place
    with pytest.raises(RefusedError, match=f"/a redirects to {place}, which is neither http nor https"):
        download(server.url("a"), tmp_path / "a")


def test_redirects_in_a_circle_end(tmp_path: Path, server: Server) -> None:
    server.redirects["a"] = server.url("a")
    with pytest.raises(RefusedError, match="/a redirects more than 5 times"):
        download(server.url("a"), tmp_path / "a")


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",), ("ETag", "Last-Modified")])
def test_a_known_version_is_not_downloaded_again(tmp_path: Path, server: Server, validators: tuple[str, ...]) -> None:
    server.files["a"], server.validators = b"z" * 1000, validators
    known = download(server.url("a"), tmp_path / "a")
    assert known is not None
    assert download(server.url("a"), tmp_path / "b", known=known) is None
    assert names(tmp_path) == ["a"]
    server.files["a"] = b"y" * 1000
    assert download(server.url("a"), tmp_path / "b", known=known) != known
    assert (tmp_path / "b").read_bytes() == b"y" * 1000


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path, server: Server) -> None:
    url = server.url("a")
    server.server_close()
    with pytest.raises(UnreachableError, match=r"5 requests in a row.*\(Connection refused\); check the network"):
        download(url, tmp_path / "a")


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is no address that can be asked"):
        download("http://127.0.0.1:none/a", tmp_path / "a")


class FullDisk:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: IO[bytes], room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self) -> "FullDisk":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> None:
        self.file.write(data[: self.room])
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(data)


def test_a_full_disk_keeps_the_part(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["a"] = bytes(range(256)) * 10_000
    real = Path.open

    def open_on_a_full_disk(path: Path, mode: str = "r", *options: Any, **more: Any) -> Any:
        file = real(path, mode, *options, **more)
        return FullDisk(file, 1_000_000) if path.name == "a.part" else file

    monkeypatch.setattr(Path, "open", open_on_a_full_disk)
    with pytest.raises(NoSpaceError, match=r"the disk is full after 1000000 bytes of .*/a; free some and run again"):
        download(server.url("a"), tmp_path / "a")
    monkeypatch.undo()
    download(server.url("a"), tmp_path / "a")
    assert server.asked == [None, "bytes=1000000-"]
    assert (tmp_path / "a").read_bytes() == server.files["a"]


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="http or https"):
        download("file:///etc/hostname", tmp_path / "a")


def test_a_download_that_does_not_fit_is_not_begun(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["a"] = b"z" * 1000
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=999))
    with pytest.raises(NoSpaceError, match="1000 bytes are to be downloaded from .*/a, 999 are free"):
        download(server.url("a"), tmp_path / "a")


# ------------------------------------------------------------------------------------------- extracts of a region


def stage(out: Path, url: str | None = None, **region: Any) -> dict[str, Any]:
    mirror = region.pop("mirror", "http://127.0.0.1:9")
    out.mkdir(exist_ok=True)
    profile = shared_in(out, mirror=mirror)
    described = Region(title="Here", url=url, **region)
    return stage_extract("here", described, profile, out)


def md5_of(data: bytes) -> bytes:
    """What an .md5 file says of an extract."""
    return f"{hashlib.md5(data).hexdigest()}  latest.osm.pbf\n".encode()


def test_an_extract_is_downloaded_and_checked(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files |= {"latest.osm.pbf": extract, "sums": md5_of(extract)}
    url = server.url("latest.osm.pbf")
    facts = stage(tmp_path, f"{url}?token=1", md5_url=server.url("sums"), sha256=hashlib.sha256(extract).hexdigest())
    assert (facts["file"], facts["size_bytes"], facts["origin"]) == ("extract.osm.pbf", len(extract), url)
    assert (facts["checksum"], facts["not_modified"]) == ("sha256", False)
    assert facts["bbox"] == pytest.approx((10, 50, 11, 51))
    assert names(tmp_path) == ["extract.json", "extract.osm.pbf"]


def test_a_name_at_geofabrik_becomes_the_address_of_its_latest_extract(
    tmp_path: Path, server: Server, extract: bytes
) -> None:
    server.files["mirror/europe/here-latest.osm.pbf"] = extract
    server.files["mirror/europe/here-latest.osm.pbf.md5"] = md5_of(extract)
    facts = stage(tmp_path, geofabrik="europe/here", mirror=server.url("mirror/"))
    assert facts["origin"] == server.url("mirror/europe/here-latest.osm.pbf")
    assert facts["checksum"] == "md5"


def test_another_mirror_is_another_origin(tmp_path: Path) -> None:
    region = Region(title="Here", geofabrik="europe/here")
    read = [read_of_region(region, shared_in(tmp_path, mirror=f"http://{host}")) for host in "ab"]
    assert [facts["address"] for facts in read] == [f"http://{host}/europe/here-latest.osm.pbf" for host in "ab"]


@pytest.mark.parametrize("beside", [None, b"<html>no such file</html>", b""])
def test_without_an_md5_file_beside_it_an_extract_is_not_checked(
    tmp_path: Path, server: Server, extract: bytes, beside: bytes | None
) -> None:
    server.files["a.osm.pbf"] = extract
    if beside is not None:
        server.files["a.osm.pbf.md5"] = beside
    assert stage(tmp_path, server.url("a.osm.pbf"))["checksum"] == "none"


@pytest.mark.parametrize("refusal", [401, 500])
def test_an_md5_file_that_cannot_be_read_fails_and_keeps_the_extract(
    tmp_path: Path, server: Server, extract: bytes, pauses: list[float], refusal: int
) -> None:
    server.files |= {"a.osm.pbf": extract, "sums": md5_of(extract)}
    server.after = lambda: server.refusals.extend([(refusal, None)] * 5)
    with pytest.raises(RefusedError if refusal == 401 else UnreachableError, match=f"/sums: .*{refusal}"):
        stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("sums"))
    server.refusals.clear()
    server.after = lambda: None
    assert stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("sums"))["checksum"] == "md5"
    assert server.paths.count("a.osm.pbf") == 1


def test_an_md5_file_that_is_cut_is_read_again(
    tmp_path: Path, server: Server, extract: bytes, pauses: list[float]
) -> None:
    server.files |= {"a.osm.pbf": extract, "sums": md5_of(extract)}
    server.after = lambda: server.cuts.append(20) if server.paths == ["a.osm.pbf"] else None
    assert stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("sums"))["checksum"] == "md5"
    assert server.paths == ["a.osm.pbf", "sums", "sums"]


def test_an_md5_file_that_the_settings_name_must_exist(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["a.osm.pbf"] = extract
    with pytest.raises(MissingInputError, match=r"/gone\.md5 does not exist; correct md5_url in regions\.yaml"):
        stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("gone.md5"))
    server.files["gone.md5"] = md5_of(extract)
    server.asked.clear()
    assert stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("gone.md5"))["checksum"] == "md5"
    assert server.asked == [], "what was downloaded has been kept"


def test_a_whole_download_of_an_earlier_call_is_not_repeated(tmp_path: Path, server: Server, extract: bytes) -> None:
    (tmp_path / "extract.osm.pbf").write_bytes(extract)
    facts = stage(tmp_path, server.url("a.osm.pbf"))
    assert facts["sha256"] == hashlib.sha256(extract).hexdigest()
    assert server.asked == []


@pytest.mark.parametrize(("listing", "promise"), [(b"", "nothing"), (b"0" * 32, "0{32}")])
def test_a_wrong_md5_is_a_mismatch_and_the_file_is_not_kept(
    tmp_path: Path, server: Server, extract: bytes, listing: bytes, promise: str
) -> None:
    server.files |= {"a.osm.pbf": extract, "a.md5": listing}
    with pytest.raises(DigestMismatchError, match=rf"/a\.md5 promises {promise}; run again later"):
        stage(tmp_path, server.url("a.osm.pbf"), md5_url=server.url("a.md5"))
    assert names(tmp_path) == []
    assert server.asked == [None, None], "fetched afresh once"


def test_a_wrong_sha256_is_a_mismatch_and_the_file_is_not_kept(tmp_path: Path, server: Server, extract: bytes) -> None:
    server.files["a.osm.pbf"] = extract
    with pytest.raises(DigestMismatchError, match="the settings promise 0000.*correct sha256 in regions.yaml"):
        stage(tmp_path, server.url("a.osm.pbf"), sha256="0" * 64)
    assert names(tmp_path) == []


def test_an_extract_published_between_the_file_and_its_md5_is_fetched_afresh(
    tmp_path: Path, server: Server, extract: bytes
) -> None:
    server.files |= {"a.osm.pbf": b"yesterday's extract", "a.osm.pbf.md5": md5_of(extract)}
    server.after = lambda: server.files.update({"a.osm.pbf": extract})
    assert stage(tmp_path, server.url("a.osm.pbf"))["sha256"] == hashlib.sha256(extract).hexdigest()
    assert server.asked == [None, None]


def test_a_web_page_in_place_of_an_extract_and_of_its_md5_is_named(tmp_path: Path, server: Server) -> None:
    server.files |= dict.fromkeys(("a.osm.pbf", "a.osm.pbf.md5"), b"<html>Please log in</html>")
    with pytest.raises(CorruptInputError, match=r"http://.*/a\.osm\.pbf answers with a web page"):
        stage(tmp_path, server.url("a.osm.pbf"), bbox=BBox(west=10, south=50, east=11, north=51))
    assert names(tmp_path) == []


def test_what_else_is_no_extract_is_corrupt(tmp_path: Path, server: Server) -> None:
    server.files["a.osm.pbf"] = b"Internal error"
    with pytest.raises(CorruptInputError, match=r"region here: http://.*/a\.osm\.pbf is no OSM extract"):
        stage(tmp_path, server.url("a.osm.pbf"), bbox=BBox(west=10, south=50, east=11, north=51))
    assert names(tmp_path) == []


# ------------------------------------------------------------------------------------------- what has not changed


class Plant:
    """A profile of one region that is downloaded, and its store."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.store = Store(folder / "data")

    def make(self, **region: Any) -> OutputRecord:
        """Make the extract again whether or not it is current; counts how often as it goes."""
        files = demo_files()
        files["regions"] = {"regions": {"here": {"title": "Here", "url": self.url, **region}}}
        profile = load_settings(write_profile(self.folder / "profile", files))
        return Outputs(STAGES, profile, self.store).materialize(STAGES["osm_extract"], ("here",), force=True).record


@pytest.fixture
def plant(tmp_path: Path, server: Server, extract: bytes) -> Plant:
    server.files["a.osm.pbf"] = extract
    return Plant(tmp_path, server.url("a.osm.pbf"))


def test_an_unchanged_extract_is_not_fetched_again(plant: Plant, server: Server, extract: bytes) -> None:
    first, etag = plant.make(), server.names_of(extract)["ETag"]
    again = plant.make()
    assert (first.counts["not_modified"], again.counts["not_modified"]) == (False, True)
    assert server.conditions == [None, etag]
    assert again.data_version == first.data_version
    third = plant.make()
    assert third.counts == again.counts
    assert (plant.store.folder(OutputKey("osm_extract", ("here",))) / "extract.osm.pbf").read_bytes() == extract


def test_another_ground_of_an_unchanged_extract_needs_no_download(plant: Plant, server: Server) -> None:
    plant.make()
    cut = plant.make(bbox={"west": 10.1, "south": 50.1, "east": 10.2, "north": 50.2})
    assert cut.counts["not_modified"]
    assert cut.counts["bbox"] == [10.1, 50.1, 10.2, 50.2]


def test_a_changed_extract_is_fetched(plant: Plant, server: Server, extract: bytes) -> None:
    first = plant.make()
    server.files["a.osm.pbf"] = write_nodes(plant.folder / "other.osm.pbf", 2000)
    again = plant.make()
    assert (again.counts["not_modified"], again.data_version == first.data_version) == (False, False)
    assert again.counts["etag"] == server.names_of(server.files["a.osm.pbf"])["ETag"]


def test_the_same_extract_under_another_name_of_its_version_changes_nothing_downstream(
    plant: Plant, server: Server
) -> None:
    first = plant.make()
    server.validators = ()
    again = plant.make()
    assert (again.counts["etag"], again.data_version) == (None, first.data_version)


def test_what_came_from_another_address_is_not_asked_for(plant: Plant, server: Server, extract: bytes) -> None:
    plant.make()
    server.files["b.osm.pbf"], plant.url = extract, server.url("b.osm.pbf")
    assert not plant.make().counts["not_modified"]
    assert server.conditions == [None, None]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"damaged")])
def test_an_earlier_output_that_was_damaged_is_not_taken(
    plant: Plant, extract: bytes, damage: Callable[[Path], None]
) -> None:
    plant.make()
    folder = plant.store.folder(OutputKey("osm_extract", ("here",)))
    damage(folder / "extract.osm.pbf")
    assert not plant.make().counts["not_modified"]
    assert (plant.store.folder(OutputKey("osm_extract", ("here",))) / "extract.osm.pbf").read_bytes() == extract


def test_without_hard_links_the_earlier_file_is_copied(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.make()

    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert plant.make().counts["not_modified"]


def test_an_md5_that_contradicts_an_unchanged_file_has_it_fetched_afresh(
    plant: Plant, server: Server, extract: bytes
) -> None:
    plant.make()
    new = write_nodes(plant.folder / "other.osm.pbf", 2000)
    server.files["a.osm.pbf.md5"] = md5_of(new)
    # The first answer is still of the old extract.
    asked = []
    real = Handler.answer

    def answer(self: Handler, status: int, headers: dict[str, str] | None = None) -> None:
        asked.append(status)
        real(self, status, headers)
        if status == 304:
            server.files["a.osm.pbf"] = new

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "answer", answer)
        made = plant.make()
    assert asked == [304, 200, 200, 200]
    assert (made.counts["not_modified"], made.counts["checksum"]) == (False, "md5")


def test_a_failed_refresh_leaves_the_earlier_extract(
    plant: Plant, server: Server, extract: bytes, pauses: list[float]
) -> None:
    plant.make()
    folder = plant.store.folder(OutputKey("osm_extract", ("here",)))
    for refusals in ([(404, None)], [(500, None)] * 5, [(429, "86400")]):
        server.refusals = list(refusals)
        with pytest.raises((RefusedError, UnreachableError), match=re.escape(plant.url)):
            plant.make()
    server.files["a.osm.pbf"] = extract[:-100]
    with pytest.raises(CorruptInputError, match=re.escape(plant.url)):
        plant.make()
    assert (folder / "extract.osm.pbf").read_bytes() == extract


# --------------------------------------------------------------------------------------------- whether it has changed


def has_changed(plant: Plant, record: OutputRecord) -> bool | None:
    region = Region(title="Here", url=plant.url)
    return changed_at_server("here", region, shared_in(plant.folder), record.counts)


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",), ("ETag", "Last-Modified")])
def test_a_server_is_asked_once_whether_its_extract_is_another_one(
    plant: Plant, server: Server, validators: tuple[str, ...]
) -> None:
    server.validators = validators
    record, before = plant.make(), len(server.paths)
    assert has_changed(plant, record) is False
    server.files["a.osm.pbf"] = write_nodes(plant.folder / "other.osm.pbf", 2000)
    assert has_changed(plant, record) is True
    assert len(server.paths) == before + 2


def test_without_validators_only_another_length_tells(plant: Plant, server: Server) -> None:
    server.validators = ()
    record = plant.make()
    assert has_changed(plant, record) is None
    server.files["a.osm.pbf"] += b"x"
    assert has_changed(plant, record) is True


def test_a_server_that_sends_an_extract_whatever_the_condition_is_judged_by_its_names(
    plant: Plant, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = plant.make()
    monkeypatch.setattr(Handler, "condition", lambda _: None)
    assert has_changed(plant, record) is False


def test_a_server_that_fails_or_refuses_is_asked_no_second_time(plant: Plant, server: Server) -> None:
    record, before = plant.make(), len(server.asked)
    server.refusals = [(503, None), (404, None)]
    with pytest.raises(UnreachableError, match="503"):
        has_changed(plant, record)
    with pytest.raises(RefusedError, match="404"):
        has_changed(plant, record)
    assert len(server.asked) == before + 2


class Regions:
    """A profile whose regions are downloaded from a server, but for one, and what the sensor asks for."""

    def __init__(self, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        files = demo_files()
        urls = {name: server.url(f"{name}.osm.pbf") for name in ("broken", "changed", "same", "pinned")}
        files["regions"] = {"regions": {name: {"title": name, "url": url} for name, url in urls.items()}}
        files["regions"]["regions"]["pinned"]["sha256"] = hashlib.sha256(server.files["pinned.osm.pbf"]).hexdigest()
        write_profile(folder / "profile", files)
        self.plant = resources.Plant(settings_folder=str(folder / "profile"), data=str(folder / "data"))
        outputs = self.plant.outputs(STAGES)
        for name in urls:
            outputs.materialize(STAGES["osm_extract"], (name,))
        self.now, self.cursor = 1e9, None
        monkeypatch.setattr(sensors, "time", SimpleNamespace(time=lambda: self.now, monotonic=time.monotonic))
        server.paths.clear()

    def look(self, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
        given = {"plant": self.plant}
        result = sensors.changed_extracts(dg.build_sensor_context(instance, cursor=self.cursor, resources=given))
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return list(result.run_requests or [])


@pytest.fixture
def regions(tmp_path: Path, server: Server, extract: bytes, monkeypatch: pytest.MonkeyPatch) -> Regions:
    names = ("broken", "changed", "same", "pinned")
    server.files |= {f"{name}.osm.pbf": extract for name in names}
    found = Regions(tmp_path, server, monkeypatch)
    server.files["changed.osm.pbf"] = write_nodes(tmp_path / "other.osm.pbf", 2000)
    del server.files["broken.osm.pbf"]
    return found


def test_the_sensor_has_changed_extracts_fetched_and_asks_once_a_day(
    regions: Regions, server: Server, instance: dg.DagsterInstance
) -> None:
    (request,) = regions.look(instance)
    assert (request.job_name, request.partition_key) == ("regions", "changed")
    assert request.run_config == {"ops": {"osm_extract": {"config": {"force": True}}}}
    assert request.tags["skyscript/why"] == "another extract at its server"
    assert server.paths == ["broken.osm.pbf", "changed.osm.pbf", "same.osm.pbf"], "pinned ones are not asked for"
    regions.now += sensors.ASK_SERVERS_EVERY_S - 1
    assert regions.look(instance) == []
    assert len(server.paths) == 3
    regions.now += 1
    (again,) = regions.look(instance)
    assert again.run_key != request.run_key
    assert len(server.paths) == 6


def test_a_clock_that_was_set_back_has_servers_asked_now_and_then_once_a_day(
    regions: Regions, server: Server, instance: dg.DagsterInstance
) -> None:
    regions.look(instance)
    for later_s, asked in ((-3600, 6), (600, 6), (sensors.ASK_SERVERS_EVERY_S, 9)):
        regions.now += later_s
        regions.look(instance)
        assert len(server.paths) == asked


def test_a_region_that_is_being_made_is_not_asked_for(regions: Regions, instance: dg.DagsterInstance) -> None:
    started = dg.DagsterRunStatus.STARTED
    instance.add_run(dg.DagsterRun(job_name="regions", status=started, tags={"dagster/partition": "changed"}))
    assert regions.look(instance) == []


def test_servers_are_asked_again_where_the_cursor_cannot_be_read(
    regions: Regions, instance: dg.DagsterInstance
) -> None:
    regions.cursor = '{"changed": "never"}'
    assert [request.partition_key for request in regions.look(instance)] == ["changed"]


def test_slow_servers_do_not_outlast_an_evaluation(
    regions: Regions, server: Server, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "PATIENCE_S", -1.0)
    assert regions.look(instance) == []
    assert server.paths == []
    monkeypatch.setattr(sensors, "PATIENCE_S", 25.0)
    assert [request.partition_key for request in regions.look(instance)] == ["changed"]


def test_each_week_every_region_with_a_server_is_asked_for(regions: Regions, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    when = dt.datetime(2026, 1, 3, 3, tzinfo=dt.UTC)
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        started = dg.DagsterRunStatus.STARTED
        instance.add_run(dg.DagsterRun(job_name="regions", status=started, tags={"dagster/partition": "same"}))
        given = {"plant": regions.plant}
        # Closed: the context opens the instance once more, which would stay the current one of later tests.
        with dg.build_schedule_context(instance, scheduled_execution_time=when, resources=given) as context:
            requests = list(sensors.weekly_refresh(context))
    assert [request.partition_key for request in requests] == ["broken", "changed"]
    assert requests[0].run_config == {"ops": {"osm_extract": {"config": {"force": True}}}}
