"""Servers on this machine that stand for remote ones: files by ranges with faults, a STAC API, nginx."""

import contextlib
import json
import operator
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import shapely


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What a server answers; `cut` bytes of the body are sent, then the connection ends."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: bool = False


class FileServer(ThreadingHTTPServer):
    """Serves `files` by ranges, and what `routes` say instead: functions of the request, None for "as usual".

    Its clock is `clock_s` ahead of this machine's.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.routes: dict[str, Callable[[Asked], Reply | None]] = {}
        self.asked: list[Asked] = []
        self.knows_ranges = True
        self.clock_s = 0.0
        self.release = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    def put(self, name: str, content: Path | bytes | dict[str, Any]) -> str:
        """Serve a file, bytes or JSON; returns its address."""
        if isinstance(content, Path):
            content = content.read_bytes()
        self.files[name] = json.dumps(content).encode() if isinstance(content, dict) else content
        return self.url(name)

    def answer(self, asked: Asked) -> Reply:
        name = asked.path.lstrip("/")
        if name in self.routes and (reply := self.routes[name](asked)) is not None:
            return reply
        if name not in self.files:
            return Reply(404)
        return by_range(self.files[name], asked.headers.get("range") if self.knows_ranges else None)


def by_range(data: bytes, wanted: str | None) -> Reply:
    """A file, or the one range of it that was asked for (RFC 9110, 14)."""
    headers = {"ETag": f'"{hash(data) & 0xFFFFFFFF:08x}"'}
    if wanted is None:
        return Reply(200, data, headers)
    stated = wanted.removeprefix("bytes=").split("-")
    first, last = int(stated[0]), int(stated[1] or len(data))
    if first >= len(data):
        return Reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    last = min(last, len(data) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Reply(206, data[first : last + 1], headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.server.clock_s)

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, parts.path, dict(parse_qsl(parts.query)), headers, self.rfile.read(length))
        self.server.asked.append(asked)
        reply = self.server.answer(asked)
        if reply.stall:
            self.server.release.wait()
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: reply.cut])
        if reply.cut is not None:
            self.close_connection = True

    do_POST = do_HEAD = do_GET  # noqa: N815 - the names are those of the base class

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of the base class
        pass


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[Any]:
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            if isinstance(server, FileServer):
                server.release.set()
            server.shutdown()
            thread.join()


def feature(
    name: str, box: tuple[float, float, float, float], hrefs: dict[str, str], **properties: Any
) -> dict[str, Any]:
    """A STAC item over a box."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "aerial",
        "geometry": shapely.geometry.mapping(shapely.box(*box)),
        "bbox": list(box),
        "properties": {"datetime": "2022-06-01T10:00:00Z", **properties},
        "links": [],
        "assets": {key: {"href": href, "type": "image/tiff; application=geotiff"} for key, href in hrefs.items()},
    }


class StacApi:
    """A STAC API with search by GET and POST and pages, as routes of a server."""

    def __init__(
        self, server: FileServer, items: list[dict[str, Any]], *, methods: tuple[str, ...] = ("GET", "POST")
    ) -> None:
        self.server, self.items, self.page = server, items, 2
        self.loops = self.merges = False
        self.names_next = True
        self.collection_ids = ["aerial", "radar"]
        self.conforms = [
            "https://api.stacspec.org/v1.0.0/core",
            "https://api.stacspec.org/v1.0.0/item-search",
            "https://api.stacspec.org/v1.0.0/item-search#query",
        ]
        self.methods = methods
        server.routes["stac"] = self.landing
        server.routes["stac/search"] = self.search
        server.routes["stac/collections"] = self.collections
        for name in self.collection_ids:
            server.routes[f"stac/collections/{name}"] = lambda _, name=name: _json({"type": "Collection", "id": name})

    @property
    def url(self) -> str:
        return self.server.url("stac")

    def landing(self, asked: Asked) -> Reply:
        links = [{"rel": "self", "href": self.url}, {"rel": "data", "href": f"{self.url}/collections"}]
        kind = "application/geo+json"
        links += [{"rel": "search", "type": kind, "href": f"{self.url}/search", "method": m} for m in self.methods]
        return _json(
            {
                "type": "Catalog",
                "stac_version": "1.0.0",
                "id": "stand-in",
                "description": "a stand-in",
                "conformsTo": self.conforms,
                "links": links,
            }
        )

    def collections(self, asked: Asked) -> Reply:
        return _json({"collections": [], "links": []})

    def search(self, asked: Asked) -> Reply:
        stated = json.loads(asked.body) if asked.method == "POST" else dict(asked.query)
        box = stated.get("bbox") or [-180, -90, 180, 90]
        box = [float(side) for side in box.split(",")] if isinstance(box, str) else box
        start = int(stated.get("token", 0))
        hits = [item for item in self.items if shapely.box(*box).intersects(shapely.geometry.shape(item["geometry"]))]
        names = stated.get("collections") or self.collection_ids
        hits = [item for item in hits if item["collection"] in names]
        query = stated.get("query") or {}
        query = json.loads(query) if isinstance(query, str) else query
        hits = [item for item in hits if _satisfies(item, stated.get("datetime"), query)]
        if stated.get("sortby"):
            hits = sorted(hits, key=lambda item: item["id"])
        size = min(self.page, int(stated.get("limit", self.page)))
        page, links = hits[start : start + size], []
        if self.names_next and (start + size < len(hits) or self.loops):
            token = 0 if self.loops else start + size
            link: dict[str, Any] = {"rel": "next", "href": f"{self.url}/search", "method": asked.method}
            if asked.method == "POST":
                link |= (
                    {"merge": True, "body": {"token": token}} if self.merges else {"body": stated | {"token": token}}
                )
            else:
                query_string = urllib.parse.urlencode(stated | {"token": token})
                link |= {"href": f"{self.url}/search?{query_string}"}
            links.append(link)
        return _json({"type": "FeatureCollection", "features": page, "links": links})


def _satisfies(item: dict[str, Any], days: str | None, query: dict[str, dict[str, Any]]) -> bool:
    """Whether an item lies in a stretch of time and fits the rules of the query extension."""
    since, until = (days or "../..").split("/")
    when = item["properties"]["datetime"]
    if (since != ".." and when < since) or (until != ".." and when > until):
        return False
    known = item["properties"] | {"id": item["id"]}
    compare = {"eq": operator.eq, "gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    rules = [(known.get(name), compare[sign], limit) for name, rule in query.items() for sign, limit in rule.items()]
    return all(value is not None and sign(value, limit) for value, sign, limit in rules)


def _json(content: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


@contextlib.contextmanager
def nginx(folder: Path, work: Path) -> Iterator[tuple[str, Path]]:
    """Nginx serving a folder: (its address, its log of one line a request: status, bytes sent, range, path)."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = work / "access.log"
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"  {name}_temp_path {work}/{name};" for name in names)
    (work / "nginx.conf").write_text(
        f"""
daemon off; master_process off; pid {work}/nginx.pid; error_log {work}/error.log;
events {{ worker_connections 256; }}
http {{
{temporary}
  log_format plain '$status $body_bytes_sent "$http_range" $uri';
  access_log {log} plain;
  keepalive_requests 100000;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
""",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [program, "-c", str(work / "nginx.conf"), "-p", str(work)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if process.poll() is not None:
                pytest.skip(f"nginx does not start: {(work / 'error.log').read_text(encoding='utf-8')}")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        process.wait()
