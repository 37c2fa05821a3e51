"""What the measurements share: which code ran, contenders in turn, inputs made from what the plant reads, tables."""

import argparse
import datetime as dt
import hashlib
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray

from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search, source_kind
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.settings.sources import SourceBase

Result = TypeVar("Result")
PROFILE = load_settings(PACKAGED_PROFILES / "demo")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real extracts, images and benchmarks beside the project."""

GRID, CRS = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000), "EPSG:32632"
WORLD: Bounds = (-180.0, -90.0, 180.0, 90.0)
TIMED = """
import sys, time
{imports}
started = time.perf_counter()
{work}
print("work_s", time.perf_counter() - started)
"""
"""Code for `run_apart` that tells the seconds of its work without start and imports."""


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """A parser that shows a module's docstring as it stands."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def stages_of_scores() -> str:
    """Eight digits that change with the code version of any stage that the scores of a model are made from."""
    from skyscript_assets.assets import STAGES

    found = ["benchmark_scores"]
    for name in found:
        above = [one if isinstance(one, str) else one.asset for one in STAGES[name].upstream]
        found += [one for one in above if one not in found]
    versions = " ".join(f"{name} {STAGES[name].code_version}" for name in sorted(found))
    return hashlib.sha256(versions.encode()).hexdigest()[:8]


def options_of(parser: argparse.ArgumentParser, *, scores: bool = False) -> argparse.Namespace:
    """Parse the command line, and print which code runs on what: figures without that are worth little.

    `scores` adds by which stages: where the measurement reads a plant's outputs and scores models.
    """
    options = parser.parse_args()
    git = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        version = done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        version = "unknown"
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    told = f"code: {version} · Python {platform.python_version()}, {cores} CPUs, load {load:.1f}"
    print(f"{told}, stages: {stages_of_scores()}\n" if scores else f"{told}\n", flush=True)
    return options


def print_head(*columns: str) -> None:
    """Print the head of a Markdown table."""
    print_row(*columns)
    print("|" + "---|" * len(columns), flush=True)


def print_row(*cells: object) -> None:
    """Print a row of it."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_rates(unit: str, rates: Mapping[str, Sequence[float]], ours: str) -> None:
    """Print the rates of each contender in a unit, medians, and how many times as much one of them has."""
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print_head("", unit, "least to most", f"{ours} is")
    for name, rate in medians.items():
        least, most = min(rates[name]), max(rates[name])
        print_row(name, f"{rate:,.0f}", f"{least:,.0f}-{most:,.0f}", f"{medians[ours] / rate:.2f} times")


def in_turn(contenders: Mapping[str, Callable[[], Result]], runs: int) -> dict[str, list[Result]]:
    """What each contender gave, run in turn so that a busy moment meets all; those that fail are named and left out."""
    given: dict[str, list[Result]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name in list(given):
            try:
                given[name].append(contenders[name]())
            except RuntimeError as error:
                print(f"{name}: {str(error)[:200]}", flush=True)
                del given[name]
    return given


@dataclass(frozen=True)
class Run:
    """One run of a process: what it printed, its seconds, those of its work alone, its largest memory in MB."""

    printed: str
    process_s: float
    work_s: float
    memory_mb: float


def run_apart(command: Sequence[str], cores: Sequence[int] = (), environment: Mapping[str, str] | None = None) -> Run:
    """Run a process, pinned to some cores where they are named.

    Raises:
        RuntimeError: there is no such program, or it failed; the message is the last line that it wrote of it.
    """
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} is not installed")
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=printed, stderr=said, env={**os.environ, **(environment or {})})
        if cores:
            os.sched_setaffinity(process.pid, cores)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        said.seek(0)
        text, complaint = printed.read(), said.read().strip()
    if process.returncode:
        raise RuntimeError(complaint.splitlines()[-1] if complaint else f"exit status {process.returncode}")
    work_s = float(text.rpartition("work_s ")[2]) if "work_s " in text else seconds
    return Run(text, seconds, work_s, usage.ru_maxrss / 1024)


def extracts_in(folder: Path) -> list[Path]:
    """The extracts of a folder, by name."""
    return sorted(path for ending in ("pbf", "bz2", "osm") for path in folder.glob(f"*.{ending}"))


def objects_of(extract: Path, folder: Path, bounds: Bounds | None = None) -> Path:
    """`objects.parquet` of an extract, made in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    box = BBox(**dict(zip(("west", "south", "east", "north"), bounds, strict=True))) if bounds else None
    stage_extract("here", Region(title="here", path=str(extract.resolve()), bbox=box), PROFILE.shared, folder)
    write_objects(folder, folder)
    return folder / "objects.parquet"


def photograph(path: Path, gsd_m: float, folder: Path, bounds: Bounds = WORLD) -> Scene:
    """A georeferenced file as a scene."""
    facts = {"title": "photograph", "licence": "none", "attribution": "none", "datetime": dt.date(2020, 6, 1)}
    return scene_of(FilesSource(gsd_m=gsd_m, paths=(str(path.resolve()),), **facts), folder, bounds)


def scene_of(
    source: SourceBase, folder: Path, bounds: Bounds = WORLD, region: str = "here", objects: Path | None = None
) -> Scene:
    """The one scene of a source, indexed or painted in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    source_kind(source.kind).index(Search(region, "S", source, PROFILE.shared, bounds, folder, objects=objects))
    (scene,) = read_scenes(folder)
    return scene


def write_cog(path: Path, strips: Iterable[NDArray[np.uint8]], side: int, **options: Any) -> None:
    """Write strips (bands, rows, columns) of a square image as a COG with blocks of 512 px, half a metre a pixel."""
    plain, top = path.with_suffix(".plain.tif"), 0
    profile = {"width": side, "height": side, "count": 3, "dtype": "uint8", "crs": CRS, "transform": GRID}
    with rasterio.open(plain, "w", driver="GTiff", tiled=True, BIGTIFF="IF_SAFER", **profile) as dataset:
        for strip in strips:
            dataset.write(strip, window=((top, top + strip.shape[1]), (0, side)))
            top += strip.shape[1]
    rasterio.shutil.copy(plain, path, driver="COG", BLOCKSIZE=512, NUM_THREADS=2, **options)
    plain.unlink()
