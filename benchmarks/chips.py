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

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from measuring import GRID, TIMED, Run, in_turn, options_of, parser_of, photograph, print_rates, run_apart, write_cog
from numpy.typing import NDArray
from plan_of_windows import write_chip_plan

from skyscript_assets.lib.osm.measures import hilbert_index

IMAGES = (
    "neon_sjer_2018.tif",
    "spacenet2_vegas_img0.tif",
    "swissortho_zurich_1091-322.tif",
    "naip_nd_m_4709963_se_20200831.tif",
)
PIECE_PX = 400
OURS_NAME = "image_chips, one core"

GIVEN = """
import contextlib, io, json, tarfile
from pathlib import Path
import numpy as np
import PIL.Image
path, work, out, few, workers = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
windows = json.loads((work / "windows.json").read_text())[:few or None]
def store(images):
    with tarfile.open(out / "chips.tar", "w") as tar:
        for number, rgb in enumerate(images):
            buffer = io.BytesIO()
            PIL.Image.fromarray(rgb).save(buffer, "JPEG", quality=90)
            about = tarfile.TarInfo(f"{number:08d}.jpg")
            about.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(about, buffer)
"""

RASTERIO = """
import rasterio
from rasterio.windows import Window
def images(keep):
    with rasterio.open(path) as kept:
        for window in windows:
            with contextlib.nullcontext(kept) if keep else rasterio.open(path) as dataset:
                yield np.ascontiguousarray(np.moveaxis(dataset.read([1, 2, 3], window=Window(*window)), 0, -1))
"""

RIO_TILER = """
from rio_tiler.io import Reader
def images(keep):
    with Reader(path) as kept:
        for x, y, width, height in windows:
            with contextlib.nullcontext(kept) if keep else Reader(path) as reader:
                crs = reader.dataset.crs
                west, north = reader.dataset.transform * (x, y)
                east, south = reader.dataset.transform * (x + width, y + height)
                image = reader.part((west, south, east, north), dst_crs=crs, bounds_crs=crs, width=width, height=height)
                yield np.ascontiguousarray(np.moveaxis(image.data[:3], 0, -1))
"""

ODC_STAC = """
import datetime, pystac, rasterio, odc.stac
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
def images(keep):
    for x, y, width, height in windows:
        box = GeoBox((height, width), grid * Affine.translation(x, y), f"EPSG:{crs}")
        found = odc.stac.load([item], bands=names, geobox=box)
        yield np.ascontiguousarray(np.stack([found[name].values[0] for name in names], axis=-1).astype(np.uint8))
"""

OURS = """
import resource
import rasterio, pyarrow, simplejpeg
import skyscript_assets.lib.chips.row_sums, skyscript_assets.lib.imagery.geotiff.predictor
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.threads import limit_libraries
limit_libraries()
settings = ChipSettings(jpeg_quality=90)
peak = []
def progress(done, total, unit):
    if done * 10 // total > len(peak):
        peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""

CUT = """
cut_chips(CutInputs(work, work), settings, out, progress, workers=workers)
print("peaks", peak)
"""

BLOCKS = """
import rasterio, simplejpeg
import skyscript_assets.lib.imagery.geotiff.predictor
from rasterio.windows import Window as RasterWindow
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.reader import Window
from skyscript_assets.lib.imagery.scenes import read_scenes
blocks = sorted({(r, c) for x, y, w, h in windows for r in range(y // 512, (y + h - 1) // 512 + 1)
                 for c in range(x // 512, (x + w - 1) // 512 + 1)})
(scene,) = read_scenes(work)
reader = RasterReader(scene).__enter__()
"""

DECODE_GDAL = """
with rasterio.Env(GDAL_NUM_THREADS=1), rasterio.open(path) as dataset:
    side = dataset.width
    for r, c in blocks:
        dataset.read([1, 2, 3], window=RasterWindow(c * 512, r * 512, *(min(512, side - n * 512) for n in (c, r))))
"""

DECODE_OURS = """
for r, c in blocks:
    reader._decode(r, c)
"""

ENCODE = """
for window in windows:
    begun = time.perf_counter()
    rgb = reader.read_inside(Window(*window)).rgb
    started += time.perf_counter() - begun
    simplejpeg.encode_jpeg(rgb, 90, colorspace="RGB", colorsubsampling="420")
"""


def strips(folder: Path, side: int) -> Iterator[NDArray[np.uint8]]:
    """Strips of a mosaic of a side in pixels from pieces of the real images in a folder."""
    rng = np.random.default_rng(0)
    pictures = []
    for name in IMAGES:
        with rasterio.open(folder / name) as dataset:
            pictures.append(np.moveaxis(dataset.read([1, 2, 3]), 0, -1))
    for top in range(0, side, PIECE_PX):
        strip = np.concatenate([_piece(rng, pictures) for _ in range(-(-side // PIECE_PX))], axis=1)
        yield np.moveaxis(strip[: min(PIECE_PX, side - top), :side], -1, 0)


def _piece(rng: np.random.Generator, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    picture = pictures[rng.integers(len(pictures))]
    y, x = (rng.integers(size - PIECE_PX + 1) for size in picture.shape[:2])
    piece = np.rot90(picture[y : y + PIECE_PX, x : x + PIECE_PX], rng.integers(4))
    return piece[:, ::-1] if rng.integers(2) else piece


def plan(path: Path, work: Path, count: int) -> None:
    """Draw windows on the mosaic and write them as a plan, a scene table, and a list for the other contenders."""
    scene = photograph(path, GRID.a, work)
    rng = np.random.default_rng(1)
    sizes = rng.integers(256, 513, (count, 2))
    places = (rng.random((count, 2)) * ([scene.width, scene.height] - sizes)).astype(int)
    order = np.argsort(hilbert_index(*(places * (90 / scene.width)).T), kind="stable")
    windows = [(*map(int, places[i]), *map(int, sizes[i])) for i in order]
    write_chip_plan(work, [(scene, *window) for window in windows])
    (work / "windows.json").write_text(json.dumps(windows))


def run(code: tuple[str, str], python: str, path: Path, work: Path, few: int, cores: Sequence[int]) -> Run:
    """One run of a contender, pinned to some cores."""
    with tempfile.TemporaryDirectory(dir=work.parent) as out:
        given = [str(path), str(work), out, str(few), str(len(cores))]
        return run_apart([python, "-c", TIMED.format(imports=GIVEN + code[0], work=code[1]), *given], cores)


def compare(path: Path, work: Path, options: argparse.Namespace, cores: list[int]) -> None:
    """Print the table of one mosaic."""
    few, here, there, one = options.few, sys.executable, options.peers, cores[-1:]
    contenders: dict[str, tuple[tuple[str, str], str, int, list[int]]] = {
        "naive: opened for each chip, Pillow": ((RASTERIO, "store(images(False))"), here, few, one),
        "kept open, Pillow": ((RASTERIO, "store(images(True))"), here, few, one),
        "rio-tiler, kept open": ((RIO_TILER, "store(images(True))"), there, few, one),
        "rio-tiler, opened for each chip": ((RIO_TILER, "store(images(False))"), there, few, one),
        "odc-stac": ((ODC_STAC, "store(images(False))"), there, few, one),
        "decode only, GDAL": ((BLOCKS, DECODE_GDAL), here, 0, one),
        "decode only, the plant's reader": ((BLOCKS, DECODE_OURS), here, 0, one),
        "decode and encode, nothing else": ((BLOCKS, DECODE_OURS + ENCODE), here, 0, one),
        OURS_NAME: ((OURS, CUT), here, 0, one),
    }
    if len(cores) > 1:
        contenders["image_chips, two cores"] = ((OURS, CUT), here, 0, cores[:2])
    runs = in_turn(
        {name: partial(run, code, python, path, work, few, on) for name, (code, python, few, on) in contenders.items()},
        options.runs,
    )
    rates = {
        name: [(contenders[name][2] or options.chips) / one.work_s for one in found] for name, found in runs.items()
    }
    print(f"\n{path.name}, {path.stat().st_size / 1e6:.0f} MB, {options.chips:,} chips, medians of {options.runs}\n")
    print_rates("chips/s", rates, OURS_NAME)


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("imagery", type=Path, help="folder with the real images")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "skyscript-chips"), help="for mosaics")
    parser.add_argument("--side", type=int, default=24_576, help="side of the mosaic, pixels")
    parser.add_argument("--chips", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=500, help="chips of slow contenders")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--compress", nargs="+", default=["JPEG", "DEFLATE"], help="compression of the mosaics")
    parser.add_argument("--memory", type=int, help="cut so many chips once, and show the memory instead")
    parser.add_argument("--peers", default="peers-python", help="Python interpreter that has rio-tiler and odc-stac")
    options = options_of(parser)
    cores = sorted(os.sched_getaffinity(0))
    options.work.mkdir(parents=True, exist_ok=True)
    for compress in options.compress:
        path = options.work / f"{compress.lower()}-{options.side}.tif"
        if not path.exists():
            made = {"QUALITY": 85} if compress == "JPEG" else {"PREDICTOR": "YES"}
            write_cog(
                path, strips(options.imagery, options.side), options.side, COMPRESS=compress, OVERVIEWS="NONE", **made
            )
        work = options.work / f"{compress.lower()}-plan-{options.side}"
        plan(path, work, options.memory or options.chips)
        if options.memory:
            peaks = run((OURS, CUT), sys.executable, path, work, 0, cores[:2]).printed
            print(f"\n{path.name}, peak memory in MB after each tenth of the chips: {peaks.splitlines()[0]}")
        else:
            compare(path, work, options, cores)


if __name__ == "__main__":
    main()
