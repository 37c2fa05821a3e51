"""Chips from a COG over HTTP with 50 ms of latency: this project beside its peers, as ratios in one run.

    python benchmarks/http_reading.py --chips 512 --runs 3

A COG that is made for the run is served by ranges, by a process of its own that adds the latency to every request and
to every new connection. Each contender is a fresh process that reads the same windows in a plan's order (neighbours
follow each other) and checks them against the file on disk. Time is without start and imports; requests and bytes are
those that were answered. "Naive" opens the file for each chip, with GDAL as it comes; "opened once, tuned" keeps it
open and has GDAL's documented options for COGs. async-geotiff takes part where it is installed, with obstore.
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from measuring import TIMED, in_turn, options_of, parser_of, print_head, print_row, run_apart, scene_of, write_cog
from numpy.typing import NDArray

from skyscript_assets.lib.imagery.sources.stac.settings import StacSource

CHIP_PX = 224
CLUSTER_PX = 700
NAIVE = "naive: rasterio.open per chip"

SERVER = """
import asyncio, sys
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
folder, latency_s, known = sys.argv[1], float(sys.argv[2]), set()
files, log = Starlette(routes=[Mount("/", StaticFiles(directory=folder))]), open(folder + "/../log", "w", buffering=1)
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await asyncio.sleep(latency_s * (2 - (scope["client"] in known)))
    known.add(scope["client"])
    sizes = []
    async def count(message):
        sizes.append(len(message.get("body", b"")))
        await send(message)
    await files(scope, receive, count)
    print(sum(sizes), file=log)
uvicorn.run(app, fd=int(sys.argv[3]), log_level="error")
"""

GIVEN = """
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, rasterio
from rasterio.windows import Window as RasterWindow
url, local, folder, threads = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
windows = json.loads((folder / "windows.json").read_text())
"""

COMPARE = """
with rasterio.open(local) as truth:
    for (column, row, side), chip in zip(windows, chips, strict=True):
        apart = np.abs(truth.read((1, 2, 3), window=RasterWindow(column, row, side, side)) - np.int16(chip))
        assert apart.mean() <= float(sys.argv[5]), apart.mean()
"""

READ_NAIVE = """
chips = []
for column, row, side in windows:
    with rasterio.open(url) as dataset:
        chips.append(dataset.read((1, 2, 3), window=RasterWindow(column, row, side, side)))
"""

READ_TUNED = """
options = dict(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", CPL_VSIL_CURL_ALLOWED_EXTENSIONS=".tif", VSI_CACHE="YES",
    GDAL_HTTP_MULTIRANGE="YES", GDAL_HTTP_MERGE_CONSECUTIVE_RANGES="YES", GDAL_INGESTED_BYTES_AT_OPEN="32768",
    CPL_VSIL_CURL_CACHE_SIZE="200000000")
with rasterio.Env(**options), rasterio.open(url) as dataset:
    chips = [dataset.read((1, 2, 3), window=RasterWindow(column, row, side, side)) for column, row, side in windows]
"""

PEER = """
import asyncio
from urllib.parse import urlsplit
from async_geotiff import GeoTIFF, Window
from obstore.store import HTTPStore
"""

READ_PEER = """
async def everything():
    place = urlsplit(url)
    store = HTTPStore(f"{place.scheme}://{place.netloc}", client_options={"allow_http": True})
    image, turn = await GeoTIFF.open(place.path.lstrip("/"), store=store), asyncio.Semaphore(16)
    async def one(column, row, side):
        async with turn:
            return (await image.read(window=Window(column, row, side, side))).data
    return await asyncio.gather(*(one(*window) for window in windows))
chips = asyncio.run(everything())
"""

OURS = """
from affine import Affine
from skyscript_assets.lib.chips.cut import BATCH
from skyscript_assets.lib.imagery.reader import GeoBox
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.imagery.sources.kind import open_scene
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
(scene,) = read_scenes(folder)
source = StacSource.model_validate_json((folder / "source.json").read_text())
open_scene(scene, source)  # imports the kinds
"""

READ_OURS = """
def batch(part):
    grid = Affine(*scene.transform)
    asked = [GeoBox(scene.crs, tuple((grid @ Affine.translation(c, r))[:6]), s, s) for c, r, s in part]
    with open_scene(scene, source) as reader:
        found = dict(reader.read_many(asked))
    return [np.moveaxis(found[index].rgb, -1, 0) for index in range(len(part))]
with ThreadPoolExecutor(threads) as pool:
    parts = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
    chips = [chip for part in pool.map(batch, parts) for chip in part]
"""


def picture(side: int) -> NDArray[np.uint8]:
    """A picture that compresses about as an orthophoto does."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 220, (3, side // 16, side // 16)).repeat(16, axis=1).repeat(16, axis=2)
    return np.clip(coarse + rng.integers(-12, 12, coarse.shape), 0, 255).astype(np.uint8)


def make_windows(count: int, side: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """Windows in clusters of eight, as objects of towns are, in the order of their clusters along the rows."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(CLUSTER_PX, side - CLUSTER_PX - CHIP_PX, (-(-count // 8), 2))
    centres = centres[np.lexsort((centres[:, 0], centres[:, 1] // 1024))]
    places = np.repeat(centres, 8, axis=0)[:count] + rng.integers(-CLUSTER_PX // 2, CLUSTER_PX // 2, (count, 2))
    return [(int(column), int(row), CHIP_PX) for column, row in places]


def index(folder: Path, url: str) -> None:
    """The scene of the COG, as the project finds it in an ItemCollection, and the settings of its source."""
    item = {
        "type": "Feature",
        "id": "cog",
        "geometry": None,
        "properties": {"datetime": "2023-06-01T00:00:00Z"},
        "assets": {"image": {"href": url}},
    }
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}), encoding="utf-8")
    facts = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a", "assets": ["image"]}
    source = StacSource.model_validate(
        facts | {"catalog": str(folder / "items.json"), "allow_private_hosts": ["127.0.0.1"]}
    )
    (folder / "source.json").write_text(source.model_dump_json(), encoding="utf-8")
    scene_of(source, folder)


def read(
    imports: str, work: str, threads: int, url: str, cog: Path, folder: Path, *, apart: float = 0.0
) -> tuple[float, int, int]:
    """Seconds, requests and bytes of one run of a contender in a process of its own."""
    log = folder / "log"
    before = len(log.read_text().splitlines())
    code = TIMED.format(imports=GIVEN + imports, work=work) + COMPARE
    command = [sys.executable, "-c", code, url, str(cog), str(folder), str(threads), str(apart)]
    spent = run_apart(command, environment={"no_proxy": "127.0.0.1"}).work_s
    sizes = list(map(int, log.read_text().splitlines()[before:]))
    return spent, len(sizes), sum(sizes)


def main() -> None:
    """Make the image, serve it, measure all contenders in turn and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--chips", type=int, default=512, help="chips read")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender; medians are shown")
    parser.add_argument("--side", type=int, default=8192, help="side of the COG, pixels")
    parser.add_argument("--latency-ms", type=float, default=50.0, help="added to every request and connection")
    given = options_of(parser)
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as listening:
        folder, served = Path(name), Path(name, "served")
        served.mkdir()
        cog = served / "cog.tif"
        write_cog(cog, [picture(given.side)], given.side, COMPRESS="JPEG", QUALITY=90)
        windows = make_windows(given.chips, given.side)
        (folder / "windows.json").write_text(json.dumps(windows), encoding="utf-8")
        stated = [str(served), str(given.latency_ms / 1000), str(listening.fileno())]
        server = subprocess.Popen([sys.executable, "-c", SERVER, *stated], pass_fds=[listening.fileno()])
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/cog.tif"
        try:
            index(folder, url)
            # Its JPEG decoder interpolates colour in another way than GDAL's.
            known = find_spec("async_geotiff") and find_spec("obstore")
            peer = {"async-geotiff, 16 at a time": partial(read, PEER, READ_PEER, 1, apart=5.0)} if known else {}
            contenders = {
                NAIVE: partial(read, "", READ_NAIVE, 1),
                "rasterio, opened once, tuned": partial(read, "", READ_TUNED, 1),
                **peer,
                "this project, 1 thread": partial(read, OURS, READ_OURS, 1),
                "this project, 2 threads": partial(read, OURS, READ_OURS, 2),
            }
            runs = in_turn({n: partial(c, url, cog, folder) for n, c in contenders.items()}, given.runs)
        finally:
            server.terminate()
            server.wait()
        size = cog.stat().st_size
    print(
        f"{given.chips} chips of {CHIP_PX} px, COG of {size / 1e6:.0f} MB, {given.latency_ms:.0f} ms, "
        f"median of {given.runs}\n"
    )
    print_head("reader", "seconds", "chips/s", "times naive", "requests/chip", "kB/chip")
    naive = statistics.median(seconds for seconds, _, _ in runs[NAIVE])
    for name, found in runs.items():
        seconds, requests, fetched = (statistics.median(column) for column in zip(*found, strict=True))
        rate, ratio, kilobytes = given.chips / seconds, naive / seconds, fetched / given.chips / 1000
        print_row(
            name, f"{seconds:.2f}", f"{rate:.0f}", f"{ratio:.1f}", f"{requests / given.chips:.2f}", f"{kilobytes:.0f}"
        )


if __name__ == "__main__":
    main()
