"""A stand-in for an object store on this machine, and a proxy before it that is slow, refuses and drops connections."""

import contextlib
import http.client
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "plant"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "something",
    "AWS_REGION": "us-east-1",
}


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def object_store() -> Iterator[int]:
    """Moto's S3 server as a process, with an empty bucket; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")
        for _ in range(600):
            try:
                urllib.request.urlopen(asked)
                break
            except OSError:
                if process.poll() is not None:
                    raise RuntimeError("moto's server ended: is moto[server] installed?") from None
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


@dataclass
class Faults:
    """What goes wrong before a server; `seen` counts requests by method, and faults by kind.

    Attributes:
        to: Port of the server.
        latency_s: How long each request waits.
        refused: Share of requests answered with 503.
        dropped: Share of connections cut: before the server sees the request, after it did, or in the answer's body.
    """

    to: int
    latency_s: float = 0.0
    refused: float = 0.0
    dropped: float = 0.0
    seed: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._rng, self._lock = random.Random(self.seed), threading.Lock()

    def draw(self, method: str) -> str:
        """What goes wrong with a request; "" for nothing."""
        with self._lock:
            chance, moment = self._rng.random(), self._rng.choice(("before", "after", "within"))
            fault = "503" if chance < self.refused else ""
            if self.refused <= chance < self.refused + self.dropped:
                fault = f"dropped {moment}"
            self.seen.update([method, fault or "good"])
        return fault


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on to the server, unless something goes wrong."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    faults: Faults

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.draw(self.command)
        time.sleep(self.faults.latency_s)
        if fault == "503":
            self.give(503, [], b"")
        elif fault == "dropped before":
            self.cut()
        else:
            server = http.client.HTTPConnection("127.0.0.1", self.faults.to)
            server.request(self.command, self.path, body, dict(self.headers))
            answer = server.getresponse()
            content = answer.read()
            server.close()
            if fault != "dropped after":
                self.give(answer.status, answer.getheaders(), content, half=fault == "dropped within")
            if fault:
                self.cut()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - names of the base class

    def give(self, status: int, headers: list[tuple[str, str]], content: bytes, *, half: bool = False) -> None:
        self.send_response_only(status)
        lengths = [value for name, value in headers if name.lower() == "content-length" and self.command == "HEAD"]
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", lengths[0] if lengths else str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if half else content)

    def cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:  # clients that gave up
        pass


@contextlib.contextmanager
def before(faults: Faults) -> Iterator[int]:
    """A proxy with faults; gives its port."""
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"faults": faults})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
