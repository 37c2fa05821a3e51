"""Windows to JPEG chips in shards: `image_chips` beside plain code, rio-tiler and odc-stac, as ratios in one run.

    python benchmarks/chips.py ../shared/data/imagery --peers /path/to/peers/bin/python
    python benchmarks/chips.py ../shared/data/imagery --memory 100000

A mosaic of real images (pieces of 400 px, turned and mirrored at random, no two grids aligned) is written as a COG with
512 px blocks, once as JPEG (quality 85) and once as DEFLATE; 10,000 windows of 256 to 512 px a side are drawn on it and
sorted along a Hilbert curve, as the objects of a plan are. Every contender runs as a process of its own, pinned to one
core (or two, where it says so), `--runs` times in turn; seconds are those of the work without imports. The plant
measures quality, digests, writes its tables: all of `cut_chips`. Others read a window, encode it as JPEG of quality 90
and put it into a tar by `tarfile`. "Naive" opens the file for each chip; "kept open" does not. rio-tiler and odc-stac
(`pip install rio-tiler odc-stac` in an environment of their own) encode with Pillow; rio-tiler both ways, odc-stac is
given the item at each load. Slow contenders cut the first `--few` chips, which lie together as all of them do. "Decode
only" reads each block that the windows touch once, and does nothing else; "decode and encode" adds the seconds that
libjpeg-turbo takes for the same chips, and is the limit of any program that makes them with these two libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

IMAGES = (
    "neon_sjer_2018.tif",
    "spacenet2_vegas_img0.tif",
    "swissortho_zurich_1091-322.tif",
    "naip_nd_m_4709963_se_20200831.tif",
)
PIECE_PX, BLOCK_PX = 400, 512
GRID = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000)
CRS = "EPSG:32632"
QUALITY = 90
NAIVE_NAME = "naive: opened for each chip, Pillow"
LIMIT_NAME = "decode only, GDAL"
OURS_NAME = "image_chips, one core"

START = """
import io, json, sys, time, tarfile
import numpy as np
path, work, out, few, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
windows = json.load(open(work + "/windows.json"))[:few or None]
def store(images):
    from PIL import Image
    with tarfile.open(out + "/chips.tar", "w") as tar:
        for number, rgb in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, "JPEG", quality=90)
            about = tarfile.TarInfo(f"{number:08d}.jpg")
            about.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(about, buffer)
"""

NAIVE = """
import rasterio, PIL.Image
from rasterio.windows import Window
def images():
    for window in windows:
        with rasterio.open(path) as dataset:
            yield np.ascontiguousarray(np.moveaxis(dataset.read([1, 2, 3], window=Window(*window)), 0, -1))
started = time.perf_counter()
store(images())
"""

KEPT_OPEN = """
import rasterio, PIL.Image
from rasterio.windows import Window
def images():
    with rasterio.open(path) as dataset:
        for window in windows:
            yield np.ascontiguousarray(np.moveaxis(dataset.read([1, 2, 3], window=Window(*window)), 0, -1))
started = time.perf_counter()
store(images())
"""

RIO_TILER = """
import contextlib, PIL.Image
from rio_tiler.io import Reader
def images():
    with Reader(path) as kept:
        for x, y, width, height in windows:
            with contextlib.nullcontext(kept) if {keep} else Reader(path) as reader:
                crs = reader.dataset.crs
                west, north = reader.dataset.transform * (x, y)
                east, south = reader.dataset.transform * (x + width, y + height)
                image = reader.part((west, south, east, north), dst_crs=crs, bounds_crs=crs, width=width, height=height)
                yield np.ascontiguousarray(np.moveaxis(image.data[:3], 0, -1))
started = time.perf_counter()
store(images())
"""

ODC_STAC = """
import datetime, PIL.Image, pystac, rasterio, odc.stac
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pystac.extensions.projection import ProjectionExtension
with rasterio.open(path) as dataset:
    grid, crs, shape = dataset.transform, dataset.crs.to_epsg(), [dataset.height, dataset.width]
    west, south, east, north = rasterio.warp.transform_bounds(dataset.crs, 4326, *dataset.bounds)
ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
item = pystac.Item("scene", {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north],
                   datetime.datetime(2020, 6, 1), {}, collection="scenes")
item.add_asset("visual", pystac.Asset(path, media_type=pystac.MediaType.COG, roles=["data"]))
ProjectionExtension.ext(item, add_if_missing=True).apply(epsg=crs, transform=list(grid)[:6], shape=shape)
bands = [{"data_type": "uint8", "name": name} for name in ("red", "green", "blue")]
item.assets["visual"].extra_fields["raster:bands"] = bands
item.stac_extensions.append("https://stac-extensions.github.io/raster/v1.1.0/schema.json")
names = ["visual.1", "visual.2", "visual.3"]
def images():
    for x, y, width, height in windows:
        box = GeoBox((height, width), grid * Affine.translation(x, y), f"EPSG:{crs}")
        found = odc.stac.load([item], bands=names, geobox=box)
        yield np.ascontiguousarray(np.stack([found[name].values[0] for name in names], axis=-1).astype(np.uint8))
started = time.perf_counter()
store(images())
"""

OURS = """
from pathlib import Path
import rasterio, pyarrow, simplejpeg, PIL.Image
import skyscript_assets.lib.chips.row_sums, skyscript_assets.lib.imagery.geotiff.predictor
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.settings.plant import ChipSettings
import resource
inputs, settings = CutInputs(Path(work), Path(work)), ChipSettings(jpeg_quality=90)
peak = []
def progress(done, total, unit):
    if done * 10 // total > len(peak):
        peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
started = time.perf_counter()
cut_chips(inputs, settings, Path(out), progress, workers=workers)
if few < 0:
    print(peak, file=sys.stderr)
"""

BLOCKS = """
blocks = sorted({(r, c) for x, y, w, h in windows for r in range(y // 512, (y + h - 1) // 512 + 1)
                 for c in range(x // 512, (x + w - 1) // 512 + 1)})
"""

DECODE_GDAL = (
    BLOCKS
    + """
import rasterio
from rasterio.windows import Window
started = time.perf_counter()
with rasterio.Env(GDAL_NUM_THREADS=1), rasterio.open(path) as dataset:
    side = dataset.width
    for r, c in blocks:
        dataset.read([1, 2, 3], window=Window(c * 512, r * 512, min(512, side - c * 512), min(512, side - r * 512)))
"""
)

DECODE_OURS = (
    BLOCKS
    + """
import simplejpeg
from pathlib import Path
import skyscript_assets.lib.imagery.geotiff.predictor
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import read_scenes
(scene,) = read_scenes(Path(work))
reader = RasterReader(scene).__enter__()
started = time.perf_counter()
for r, c in blocks:
    reader._decode(r, c)
"""
)

DECODE_AND_ENCODE = (
    DECODE_OURS
    + """
for window in windows:
    begun = time.perf_counter()
    rgb = reader.read_inside(*window).rgb
    started += time.perf_counter() - begun
    simplejpeg.encode_jpeg(rgb, 90, colorspace="RGB", colorsubsampling="420")
"""
)

END = """
print(time.perf_counter() - started)
"""


def mosaic(folder: Path, path: Path, side: int, compress: str) -> None:
    """Write a COG of a side in pixels from pieces of the real images in a folder."""
    rng = np.random.default_rng(0)
    pictures = []
    for name in IMAGES:
        with rasterio.open(folder / name) as dataset:
            pictures.append(np.moveaxis(dataset.read([1, 2, 3]), 0, -1))
    plain = path.with_suffix(".plain.tif")
    profile: dict[str, Any] = {"width": side, "height": side, "count": 3, "dtype": "uint8", "crs": CRS}
    profile |= {"transform": GRID, "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "interleave": "pixel"}
    with rasterio.open(plain, "w", driver="GTiff", BIGTIFF="IF_SAFER", **profile) as dataset:
        for top in range(0, side, PIECE_PX):
            strip = np.concatenate([_piece(rng, pictures) for _ in range(-(-side // PIECE_PX))], axis=1)
            height = min(PIECE_PX, side - top)
            dataset.write(np.moveaxis(strip[:height, :side], -1, 0), window=Window(0, top, side, height))
    options = {"QUALITY": 85} if compress == "JPEG" else {"PREDICTOR": "YES"}
    rasterio.shutil.copy(
        plain, path, driver="COG", COMPRESS=compress, BLOCKSIZE=BLOCK_PX, OVERVIEWS="NONE", NUM_THREADS=2, **options
    )
    plain.unlink()


def _piece(rng: np.random.Generator, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    picture = pictures[rng.integers(len(pictures))]
    y, x = (rng.integers(size - PIECE_PX + 1) for size in picture.shape[:2])
    piece = np.rot90(picture[y : y + PIECE_PX, x : x + PIECE_PX], rng.integers(4))
    return piece[:, ::-1] if rng.integers(2) else piece


def plan(path: Path, work: Path, count: int) -> None:
    """Draw windows on the mosaic and write them as a plan, a scene table, and a list for the other contenders."""
    from skyscript_assets.lib.imagery.scenes import write_scenes
    from tests.conftest import scene_of, write_chip_plan

    scene = scene_of.__wrapped__()(path)
    rng = np.random.default_rng(1)
    sizes = rng.integers(256, 513, (count, 2))
    places = (rng.random((count, 2)) * ([scene.width, scene.height] - sizes)).astype(int)
    order = np.argsort([_hilbert(*(place * 4096 // scene.width)) for place in places], kind="stable")
    windows = [(*map(int, places[i]), *map(int, sizes[i])) for i in order]
    work.mkdir(exist_ok=True)
    write_scenes(work, [scene])
    write_chip_plan.__wrapped__()(work, [(scene, *window) for window in windows])
    (work / "windows.json").write_text(json.dumps(windows))


def _hilbert(x: int, y: int, side: int = 4096) -> int:
    """Place of a cell on the Hilbert curve through a square of a side that is a power of two."""
    place, step = 0, side // 2
    while step:
        right, down = int(bool(x & step)), int(bool(y & step))
        place += step * step * ((3 * right) ^ down)
        if not down:
            if right:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        step //= 2
    return place


def run(code: str, python: str, path: Path, work: Path, few: int, cores: Sequence[int]) -> tuple[float, str]:
    """Seconds of work of one run pinned to some cores, and what it said of its memory."""
    with tempfile.TemporaryDirectory(dir=work.parent) as out:
        command = [python, "-c", START + code + END, str(path), str(work), out, str(few), str(len(cores))]
        pinned = ["taskset", "-c", ",".join(map(str, cores))]
        done = subprocess.run([*pinned, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:200])
    return float(done.stdout.split()[-1]), done.stderr


def compare(path: Path, work: Path, options: argparse.Namespace, cores: list[int]) -> None:
    """Print the table of one mosaic."""
    count, one = options.chips, cores[-1:]
    contenders: dict[str, tuple[str, str, int, list[int]]] = {
        NAIVE_NAME: (NAIVE, sys.executable, options.few, one),
        "kept open, Pillow": (KEPT_OPEN, sys.executable, options.few, one),
        "rio-tiler, kept open": (RIO_TILER.format(keep=True), options.peers, options.few, one),
        "rio-tiler, opened for each chip": (RIO_TILER.format(keep=False), options.peers, options.few, one),
        "odc-stac": (ODC_STAC, options.peers, options.few, one),
        LIMIT_NAME: (DECODE_GDAL, sys.executable, 0, one),
        "decode only, the plant's reader": (DECODE_OURS, sys.executable, 0, one),
        "decode and encode, nothing else": (DECODE_AND_ENCODE, sys.executable, 0, one),
        OURS_NAME: (OURS, sys.executable, 0, one),
        "image_chips, two cores": (OURS, sys.executable, 0, cores[:2]),
    }
    rates: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    for _ in range(options.runs):
        for name, (code, python, few, pinned) in contenders.items():
            if name in failures or len(pinned) < 1 + ("two" in name):
                continue
            try:
                seconds, _ = run(code, python, path, work, few, pinned)
                rates.setdefault(name, []).append((few or count) / seconds)
            except (RuntimeError, OSError) as error:
                failures[name] = str(error)
    median = {name: statistics.median(found) for name, found in rates.items()}
    naive, limit, ours = median[NAIVE_NAME], median[LIMIT_NAME], median[OURS_NAME]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(
        f"\n{path.name}, {path.stat().st_size / 1e6:.0f} MB, {count:,} chips, medians of {options.runs}, load {load}\n"
    )
    print("| | chips/s | least to most | times naive | share of GDAL's decode only | image_chips on one core is |")
    print("|---|---|---|---|---|---|")
    for name, rate in median.items():
        spread = f"{min(rates[name]):.0f}-{max(rates[name]):.0f}"
        print(f"| {name} | {rate:.0f} | {spread} | {rate / naive:.2f} | {rate / limit:.0%} | {ours / rate:.2f} times |")
    for name, reason in failures.items():
        print(f"| {name} | {reason} | | | | |")


def memory(path: Path, work: Path, cores: list[int]) -> None:
    """Print the peak memory of one cutting of all the plan, tenth by tenth."""
    _, said = run(OURS, sys.executable, path, work, -1, cores[:2])
    print(f"\npeak memory in MB after each tenth of the chips of {path.name}: {said.strip().splitlines()[-1]}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagery", type=Path, help="folder with the real images")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "skyscript-chips"), help="for mosaics")
    parser.add_argument("--side", type=int, default=24_576, help="side of the mosaic, pixels")
    parser.add_argument("--chips", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=500, help="chips of slow contenders")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory", type=int, help="cut so many chips once, and show the memory instead")
    parser.add_argument("--peers", default="peers-python", help="Python interpreter that has rio-tiler and odc-stac")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if shutil.which("taskset") is None:
        sys.exit("taskset (util-linux) is needed to pin the contenders")
    options.work.mkdir(parents=True, exist_ok=True)
    for compress in ("JPEG", "DEFLATE"):
        path = options.work / f"{compress.lower()}-{options.side}.tif"
        if not path.exists():
            mosaic(options.imagery, path, options.side, compress)
        work = options.work / f"{compress.lower()}-plan"
        plan(path, work, options.memory or options.chips)
        if options.memory:
            memory(path, work, cores)
        else:
            compare(path, work, options, cores)


if __name__ == "__main__":
    main()
