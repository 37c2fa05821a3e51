"""A local server for as long as a test needs it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import TypeVar

Server = TypeVar("Server", bound=ThreadingHTTPServer)


@contextmanager
def serving(server: Server, held: threading.Event) -> Iterator[Server]:
    """Serves until the block ends; `held` is then set, to let go of answers that wait for it."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        held.set()
        server.shutdown()
        thread.join()
