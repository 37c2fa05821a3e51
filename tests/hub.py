"""A Hugging Face hub of data sets on this machine, as `huggingface_hub` speaks to one without Xet: keeps, refuses."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_thisIsNoToken"
LARGE = (".parquet", ".jpg", ".png")
"""Endings of files that are kept as large ones, by SHA-256."""

Answer = tuple[int, Any] | None


class Hub(ThreadingHTTPServer):
    """Data sets by name, each a list of commits of files by path; what was sent of large files is kept by digest.

    `refuse` is asked before each request, by method and path, for an answer instead. `wrote` counts the large files.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.large: dict[str, bytes] = {}
        self.refuse: Callable[[str, str], Answer] = lambda _method, _path: None
        self.asked: list[str] = []
        self.wrote = 0

    def files(self, name: str) -> dict[str, bytes]:
        """What the last commit of a data set holds."""
        return self.commits[name][-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        answer = self.server.refuse(self.command, path)
        if answer is None and self.headers.get("Authorization") != f"Bearer {TOKEN}" and "/sent/" not in path:
            answer = 401, {"error": "Invalid username or password."}
        status, content = answer or self.answered(path, body)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        if isinstance(content, bytes):
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", f"{1:040x}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else data)

    do_GET = do_PUT = do_POST = do_HEAD = do  # noqa: N815 - names of the base class

    def answered(self, path: str, body: bytes) -> tuple[int, Any]:
        hub = self.server
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            url = {"url": f"{self.address}/datasets/{name}"}
            if name in hub.commits:
                return 409, {"error": "You already created this dataset repo", **url}
            hub.commits[name] = [{".gitattributes": b"*.parquet filter=lfs"}]
            return 200, url
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/sent/" in path:
            if hashlib.sha256(body).hexdigest() != path[-64:]:
                return 400, {"error": "another digest"}
            hub.large[path[-64:]] = body
            hub.wrote += 1
            return 200, b""
        found = re.fullmatch(r"/(?:api/)?datasets/([\w-]+/[\w-]+?)(?:\.git)?(?:/(.*))?", path)
        if found is None or found[1] not in hub.commits:
            return 404, {"error": "Repository not found"}
        name, rest = found[1], found[2] or ""
        verb, _, rest = rest.partition("/")
        if verb == "resolve":
            held = hub.files(name).get(rest.partition("/")[2])
            return (404, {"error": "Entry not found"}) if held is None else (200, held)
        do = {"tree": self.tree, "preupload": self.modes, "info": self.batch, "commit": self.commit}.get(verb)
        if do is None:
            return 200, {"id": name, "sha": self.head(name), "siblings": []}
        return do(name, body)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def head(self, name: str) -> str:
        return f"{len(self.server.commits[name]):040x}"

    def tree(self, name: str, _: bytes) -> tuple[int, Any]:
        rows = []
        for path, content in self.server.files(name).items():
            row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git(content)}
            if path.endswith(LARGE):
                row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            rows.append(row)
        return 200, rows

    def modes(self, name: str, body: bytes) -> tuple[int, Any]:
        held = self.server.files(name)
        told = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": git(held[each["path"]]) if each["path"] in held else None,
            }
            for each in json.loads(body)["files"]
        ]
        return 200, {"files": told}

    def batch(self, _: str, body: bytes) -> tuple[int, Any]:
        objects = json.loads(body)["objects"]
        for each in objects:
            if each["oid"] not in self.server.large:
                each["actions"] = {"upload": {"href": f"{self.address}/sent/{each['oid']}?X-Amz-Signature=secret"}}
        return 200, {"transfer": "basic", "objects": objects}

    def commit(self, name: str, body: bytes) -> tuple[int, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        files = dict(self.server.files(name))
        for line in lines:
            what = line["value"]
            if line["key"] == "header" and what.get("parentCommit", self.head(name)) != self.head(name):
                return 412, {"error": "A commit has happened since. Please refresh and try again."}
            if line["key"] == "file":
                files[what["path"]] = base64.b64decode(what["content"])
            elif line["key"] == "lfsFile":
                if what["oid"] not in self.server.large:
                    return 400, {"error": f"LFS file {what['oid']} was not sent"}
                files[what["path"]] = self.server.large[what["oid"]]
            elif line["key"] == "deletedFile":
                del files[what["path"]]
        self.server.commits[name].append(files)
        return 200, {"commitUrl": f"{self.address}/datasets/{name}/commit/1", "commitOid": self.head(name)}


def git(content: bytes) -> str:
    """Git's digest of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that `huggingface_hub` asks, with a token that it may use, and without pauses between tries."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        server.shutdown()
