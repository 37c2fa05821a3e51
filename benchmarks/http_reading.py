"""Chips from a COG over HTTP with 50 ms of latency: this project beside rasterio, as ratios in one run.

    python -m benchmarks.http_reading --chips 512 --runs 3

nginx serves a COG that is made for the run; a proxy in between adds the latency to every request and to every new
connection, in a process of its own. Each contender is a fresh process that reads the same windows in a plan's order
(neighbours follow each other) and checks them against the file on disk. Time is without start and imports; requests and
bytes are from nginx's log. "Naive" opens the file for each chip, with GDAL as it comes; "opened once, tuned" keeps it
open and has GDAL's documented options for COGs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy
from rasterio.transform import Affine

from tests.web import nginx

CHIP_PX = 224
CLUSTER_PX = 700
OURS, NAIVE = "this project, {threads} threads", "naive: rasterio.open per chip"
TUNED, THREADS = "rasterio, opened once, tuned", 2

PREPARE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np, rasterio
from rasterio.windows import Window as RasterWindow
url, local, folder, threads = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
windows = json.loads((folder / "windows.json").read_text())
{imports}
started = time.perf_counter()
{work}
spent = time.perf_counter() - started
with rasterio.open(local) as truth:
    for (column, row, side), chip in zip(windows, chips, strict=True):
        assert np.array_equal(chip, truth.read((1, 2, 3), window=RasterWindow(column, row, side, side)))
print(spent)
"""

WORK = {
    NAIVE: (
        "",
        """
chips = []
for column, row, side in windows:
    with rasterio.open(url) as dataset:
        chips.append(dataset.read((1, 2, 3), window=RasterWindow(column, row, side, side)))
""",
    ),
    TUNED: (
        "",
        """
options = dict(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", CPL_VSIL_CURL_ALLOWED_EXTENSIONS=".tif", VSI_CACHE="YES",
    GDAL_HTTP_MULTIRANGE="YES", GDAL_HTTP_MERGE_CONSECUTIVE_RANGES="YES", GDAL_INGESTED_BYTES_AT_OPEN="32768",
    CPL_VSIL_CURL_CACHE_SIZE="200000000")
with rasterio.Env(**options), rasterio.open(url) as dataset:
    chips = [dataset.read((1, 2, 3), window=RasterWindow(column, row, side, side)) for column, row, side in windows]
""",
    ),
    OURS: (
        """
from affine import Affine
from skyscript_assets.lib.chips.cut import BATCH
from skyscript_assets.lib.imagery.reader import GeoBox
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.imagery.sources.kind import open_scene
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
(scene,) = read_scenes(folder)
source = StacSource.model_validate_json((folder / "source.json").read_text())
open_scene(scene, source)  # imports the kinds
""",
        """
def batch(part):
    grid = Affine(*scene.transform)
    asked = [GeoBox(scene.crs, tuple((grid @ Affine.translation(c, r))[:6]), s, s) for c, r, s in part]
    with open_scene(scene, source) as reader:
        found = dict(reader.read_many(asked))
    return [np.moveaxis(found[index].rgb, -1, 0) for index in range(len(part))]
with ThreadPoolExecutor(threads) as pool:
    parts = [windows[start : start + BATCH] for start in range(0, len(windows), BATCH)]
    chips = [chip for part in pool.map(batch, parts) for chip in part]
""",
    ),
}


@dataclass(frozen=True)
class Run:
    """One run of a contender."""

    seconds: float
    requests: int
    fetched: int


def make_cog(path: Path, side: int, seed: int = 0) -> None:
    """A COG with 512-pixel blocks and overviews, of a picture that compresses about as an orthophoto does."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (3, side // 16, side // 16)).repeat(16, axis=1).repeat(16, axis=2)
    picture = np.clip(coarse + rng.integers(-12, 12, coarse.shape), 0, 255).astype(np.uint8)
    plain = path.with_suffix(".plain.tif")
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8", "crs": "EPSG:32632"}
    with rasterio.open(
        plain, "w", transform=Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000), photometric="rgb", tiled=True, **profile
    ) as dataset:
        dataset.write(picture)
    copy(plain, path, driver="COG", COMPRESS="JPEG", QUALITY=90, BLOCKSIZE=512)
    plain.unlink()


def make_windows(count: int, side: int, seed: int = 0) -> list[tuple[int, int, int]]:
    """Windows in clusters of eight, as objects of towns are, in the order of their clusters along the rows."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(CLUSTER_PX, side - CLUSTER_PX - CHIP_PX, (-(-count // 8), 2))
    centres = centres[np.lexsort((centres[:, 0], centres[:, 1] // 1024))]
    places = np.repeat(centres, 8, axis=0)[:count] + rng.integers(-CLUSTER_PX // 2, CLUSTER_PX // 2, (count, 2))
    return [(int(column), int(row), CHIP_PX) for column, row in places]


async def delay(port: int, latency_s: float) -> None:
    """A proxy to a local port that delays every connection and every request; prints its own port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait_s: float) -> None:
        while data := await reader.read(1 << 18):
            if wait_s:
                await asyncio.sleep(wait_s)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(latency_s)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, up_writer, latency_s), pump(up_reader, writer, 0.0), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def index(folder: Path, url: str) -> None:
    """The scene of the COG, as the project finds it in an ItemCollection."""
    from skyscript_assets.lib.imagery.sources.kind import Search
    from skyscript_assets.lib.imagery.sources.stac.index import index_stac
    from skyscript_assets.lib.imagery.sources.stac.settings import StacSource
    from skyscript_assets.lib.settings.base import BBox
    from skyscript_assets.lib.settings.load import Settings

    item = {
        "type": "Feature",
        "id": "cog",
        "geometry": None,
        "properties": {"datetime": "2023-06-01T00:00:00Z"},
        "assets": {"image": {"href": url}},
    }
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}), encoding="utf-8")
    facts = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a", "assets": ["image"]}
    source = StacSource.model_validate(facts | {"catalog": str(folder / "items.json")})
    (folder / "source.json").write_text(source.model_dump_json(), encoding="utf-8")
    world = BBox(west=-180, south=-90, east=180, north=90)
    index_stac(Search("here", "S", source, Settings.model_construct(folder=folder), world.bounds, folder))


def measure(name: str, threads: int, url: str, cog: Path, folder: Path, log: Path) -> Run:
    """One run of a contender in a process of its own."""
    before = len(log.read_text(encoding="utf-8").splitlines())
    imports, work = WORK[name]
    done = subprocess.run(
        [sys.executable, "-c", PREPARE.format(imports=imports, work=work), url, str(cog), str(folder), str(threads)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "no_proxy": "127.0.0.1"},
    )
    lines = log.read_text(encoding="utf-8").splitlines()[before:]
    return Run(float(done.stdout.split()[-1]), len(lines), sum(int(line.split()[1]) for line in lines))


def main() -> None:
    """Measure all contenders in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=512, help="chips read")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender; medians are shown")
    parser.add_argument("--side", type=int, default=8192, help="side of the COG, pixels")
    parser.add_argument("--latency-ms", type=float, default=50.0, help="added to every request and connection")
    parser.add_argument("--proxy-to", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.proxy_to is not None:
        asyncio.run(delay(given.proxy_to, given.latency_ms / 1000))
        return
    with tempfile.TemporaryDirectory() as name:
        report(Path(name), given)


def report(folder: Path, given: argparse.Namespace) -> None:
    """Make the image, start the servers, measure, print."""
    served = folder / "served"
    served.mkdir()
    cog = served / "cog.tif"
    make_cog(cog, given.side)
    windows = make_windows(given.chips, given.side)
    (folder / "windows.json").write_text(json.dumps(windows), encoding="utf-8")
    with nginx(served, folder) as (address, log):
        command = [sys.executable, "-m", "benchmarks.http_reading", "--proxy-to", address.rpartition(":")[2]]
        proxy = subprocess.Popen([*command, "--latency-ms", str(given.latency_ms)], stdout=subprocess.PIPE, text=True)
        try:
            assert proxy.stdout is not None
            url = f"http://127.0.0.1:{int(proxy.stdout.readline())}/cog.tif"
            index(folder, url)
            contenders = [(NAIVE, 1), (TUNED, 1), (OURS, 1), (OURS, THREADS)]
            runs: dict[str, list[Run]] = {}
            for _ in range(given.runs):
                for template, threads in contenders:
                    label = template.format(threads=threads)
                    runs.setdefault(label, []).append(measure(template, threads, url, cog, folder, log))
        finally:
            proxy.terminate()
            proxy.wait()
    size = cog.stat().st_size
    print(
        f"{given.chips} chips of {CHIP_PX} px, COG of {size / 1e6:.0f} MB, {given.latency_ms:.0f} ms, load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, median of {given.runs}\n"
    )
    print("| reader | seconds | chips/s | times naive | requests/chip | kB/chip |")
    print("|---|---:|---:|---:|---:|---:|")
    naive = statistics.median(run.seconds for run in runs[NAIVE])
    for label, found in runs.items():
        seconds = statistics.median(run.seconds for run in found)
        requests, fetched = (statistics.median(getattr(run, of) for run in found) for of in ("requests", "fetched"))
        print(
            f"| {label} | {seconds:.2f} | {given.chips / seconds:.0f} | {naive / seconds:.1f} "
            f"| {requests / given.chips:.2f} | {fetched / given.chips / 1000:.0f} |"
        )


if __name__ == "__main__":
    main()
