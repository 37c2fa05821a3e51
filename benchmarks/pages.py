"""How long pages of the UI take on a large plant: lineage, an asset, the matrix of its partitions, the runs.

    python benchmarks/pages.py
    python benchmarks/pages.py --sizes 2x2 40x10

Serves a profile of so many regions and sources, whose outputs are complete (as `benchmarks/orchestration.py` makes
them) and recorded in an instance on SQLite, and opens each page in headless Chromium: seconds until the text that a
person looks for stands there, and requests to the server. Each page is opened once to warm up, then three times; the
median is printed. `--pictures FOLDER` keeps a picture of each page. Needs `chromium`.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import orchestration
from measuring import options_of, parser_of, print_head, print_row
from websockets.sync.client import ClientConnection, connect

from skyscript_assets.assets import LEVELS, MANIFEST, STAGES
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import key_of, partitions_of
from skyscript_assets.provenance import Outputs

RUNS = 3
PAGES = {
    "lineage of everything": ("/assets/scoreboard?view=lineage&lineageScope=upstream&lineageDepth=20", "osm_extract"),
    "an asset with its partitions": ("/assets/image_chips?view=partitions", "r000"),
    "one partition": ("/assets/image_chips?view=partitions&partition=r000|SYN00", "Materialized"),
    "jobs": ("/jobs", "pairs"),
}
"""Path and text of each page; the text appears when what the page is for is there."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@contextlib.contextmanager
def serving(home: Path, profile: Path, data: Path) -> Iterator[str]:
    """The webserver of a code location, until the block ends."""
    port = free_port()
    environment = {"DAGSTER_HOME": str(home), "SKYSCRIPT_SETTINGS": str(profile), "SKYSCRIPT_DATA": str(data)}
    command = [sys.executable, "-m", "dagster_webserver", "-p", str(port), "-m", "skyscript_assets.definitions"]
    with (home / "webserver.log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        while server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/server_info").close()
                break
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait()


class Tab:
    """A tab of headless Chromium, driven by its debugging protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._number, self.requests = connection, itertools.count(), 0
        self.ask("Network.enable")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """One command and its answer; events that come before it are counted where they are requests."""
        number = next(self._number)
        self._connection.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            said = json.loads(self._connection.recv())
            self.requests += said.get("method") == "Network.requestWillBeSent"
            if said.get("id") == number:
                return dict(said.get("result", {}))

    def seconds_until(self, address: str, text: str, most_s: float = 120.0) -> float:
        """Open a page and wait until it shows a text."""
        self.ask("Page.navigate", url="about:blank")
        started, self.requests = time.perf_counter(), 0
        self.ask("Page.navigate", url=address)
        shows = f"document.body !== null && document.body.innerText.includes({json.dumps(text)})"
        while not self.ask("Runtime.evaluate", expression=shows)["result"].get("value"):
            if time.perf_counter() - started > most_s:
                raise TimeoutError(f"{address} does not show {text!r} within {most_s:.0f} s")
            time.sleep(0.05)
        return time.perf_counter() - started

    def picture(self, path: Path) -> None:
        """Keep what the tab shows, PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browsing(folder: Path) -> Iterator[Tab]:
    """A tab of a headless Chromium with an empty profile, until the block ends."""
    port = free_port()
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000", f"--user-data-dir={folder}"]
    command = ["chromium", *options, f"--remote-debugging-port={port}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        tabs: list[str] = []
        while not tabs and browser.poll() is None:
            time.sleep(0.2)
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as listed:
                tabs = [tab["webSocketDebuggerUrl"] for tab in json.load(listed) if tab["type"] == "page"]
        with connect(tabs[0], max_size=None) as connection:
            yield Tab(connection)
    finally:
        browser.terminate()
        browser.wait()


def record(outputs: Outputs, home: Path) -> None:
    """Tell an instance of every output that is there, as runs would."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for stage in STAGES.values():
            for partition in partitions_of(stage.scheme, outputs.settings):
                found = outputs.record(stage.key(outputs.settings, partition))
                if found is not None:
                    tags = {"dagster/data_version": found.data_version}
                    instance.report_runless_asset_event(
                        dg.AssetMaterialization(asset_key=stage.name, partition=key_of(partition), tags=tags)
                    )


def measure(folder: Path, regions: int, sources: int, pictures: Path | None) -> None:
    """Make a plant, look at its pages and print lines of the table."""
    settings, store = orchestration.write_profile(folder / "profile", regions, sources), Store(folder / "data")
    for stage in (stage for level in LEVELS[: LEVELS.index(MANIFEST) + 1] for stage in level.stages):
        outputs = Outputs(STAGES, settings, store)
        for partition in partitions_of(stage.scheme, settings):
            orchestration.write_output(stage, outputs, partition)
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
    record(Outputs(STAGES, settings, store), home)
    with browsing(folder / "browser") as tab, serving(home, folder / "profile", folder / "data") as address:
        for name, (path, text) in PAGES.items():
            times = [tab.seconds_until(address + path, text) for _ in range(RUNS + 1)][1:]
            print_row(name, f"{regions} x {sources}", f"{statistics.median(times):.2f}", tab.requests)
            if pictures is not None:
                time.sleep(2)  # drawing goes on after the text stands there
                tab.picture(pictures / f"{name.replace(' ', '-')}-{regions}x{sources}.png")


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["5x4", "20x5", "40x10"], help="regions x sources")
    parser.add_argument("--pictures", type=Path, help="existing folder for pictures of the pages")
    options = options_of(parser)
    if shutil.which("chromium") is None:
        sys.exit("chromium is not installed")
    print_head("page", "regions x sources", "seconds", "requests")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            measure(Path(folder) / "plant", *map(int, size.split("x")), pictures=options.pictures)


if __name__ == "__main__":
    main()
