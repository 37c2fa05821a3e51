"""Samples to a tar shard: `TarShard` beside webdataset's TarWriter and tarfile, as ratios in one run.

    python benchmarks/shards.py
    python benchmarks/shards.py --samples 100000 --runs 1

Each sample is a JPEG of about `--kilobytes` kB of random bytes, a caption and a JSON document. Shards of 1,000 samples
are written into `--folder` (default: memory, /dev/shm, so that no disk is measured) and removed, `--runs` times in
turn. Before that a small shard of each is compared member by member, read by tarfile and by webdataset.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import webdataset

from skyscript_assets.lib.tar import TarShard

Sample = tuple[str, bytes, bytes, bytes]
SHARD_SAMPLES = 1000
EXTENSIONS = ("jpg", "txt", "json")


def samples(start: int, count: int, kilobytes: int) -> list[Sample]:
    """Samples of different lengths."""
    noise = os.urandom(2048 * kilobytes)
    made = []
    for number in range(start, start + count):
        size = kilobytes * (512 + number * 37 % 1024)
        about = json.dumps({"chip_id": f"w{number}_S_20200601_{number:08x}", "split": "train", "score": 0.25}).encode()
        made.append((f"{number:09d}", noise[:size], b"a satellite image of a house beside a road", about))
    return made


def ours(path: Path, batch: list[Sample]) -> None:
    """Write a shard with TarShard."""
    with TarShard(path) as shard:
        for key, *contents in batch:
            for extension, data in zip(EXTENSIONS, contents, strict=True):
                shard.add(f"{key}.{extension}", data)


def by_webdataset(path: Path, batch: list[Sample]) -> None:
    """Write a shard with TarWriter, which is given bytes and encodes nothing."""
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for key, *contents in batch:
            writer.write({"__key__": key} | dict(zip(EXTENSIONS, contents, strict=True)))


def by_tarfile(path: Path, batch: list[Sample]) -> None:
    """Write a shard with the standard library."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, *contents in batch:
            for extension, data in zip(EXTENSIONS, contents, strict=True):
                about = tarfile.TarInfo(f"{key}.{extension}")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))


WRITERS: dict[str, Callable[[Path, list[Sample]], None]] = {
    "TarShard": ours,
    "webdataset.TarWriter": by_webdataset,
    "tarfile": by_tarfile,
}


def check(folder: Path, kilobytes: int) -> None:
    """Fail unless all writers' members are the same, read by tarfile and by webdataset."""
    batch = samples(0, 20, kilobytes)
    found = {}
    for name, write in WRITERS.items():
        path = folder / f"{name}.tar"
        write(path, batch)
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}  # type: ignore[union-attr]
        read = [
            tuple(sample[key] for key in ("__key__", *EXTENSIONS))
            for sample in webdataset.WebDataset(str(path), shardshuffle=False)
        ]
        found[name] = (members, read)
        path.unlink()
    if any(
        content != ({f"{k}.{e}": d for k, *c in batch for e, d in zip(EXTENSIONS, c, strict=True)}, batch)
        for content in found.values()
    ):
        raise SystemExit("the members differ")


def seconds(folder: Path, write: Callable[[Path, list[Sample]], None], count: int, kilobytes: int) -> float:
    """Time of writing so many samples; making them is not counted."""
    total = 0.0
    path = folder / "shard.tar"
    for start in range(0, count, SHARD_SAMPLES):
        batch = samples(start, min(SHARD_SAMPLES, count - start), kilobytes)
        started = time.perf_counter()
        write(path, batch)
        total += time.perf_counter() - started
        path.unlink()
    return total


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[2, 10, 30])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm" if Path("/dev/shm").is_dir() else "."))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        folder = Path(work)
        for kilobytes in options.kilobytes:
            check(folder, kilobytes)
            rates: dict[str, list[float]] = {name: [] for name in WRITERS}
            for _ in range(options.runs):
                for name, write in WRITERS.items():
                    rates[name].append(options.samples / seconds(folder, write, options.samples, kilobytes))
            load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
            print(f"\n{options.samples:,} samples, JPEGs of {kilobytes} kB, medians of {options.runs}, load {load}\n")
            print("| | samples/s | least to most | TarShard is |\n|---|---|---|---|")
            best = statistics.median(rates["TarShard"])
            for name, found in rates.items():
                rate = statistics.median(found)
                print(f"| {name} | {rate:,.0f} | {min(found):,.0f}-{max(found):,.0f} | {best / rate:.1f} times |")
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
