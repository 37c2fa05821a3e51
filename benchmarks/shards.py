"""Samples to a tar shard: `TarShard` beside webdataset's TarWriter and tarfile, as ratios in one run.

    python benchmarks/shards.py
    python benchmarks/shards.py --samples 100000 --runs 1

Each sample is a JPEG of about `--kilobytes` kB of random bytes, a caption and a JSON document. Shards of 1,000 samples
are written into `--folder` (default: memory, /dev/shm, so that no disk is measured) and removed, `--runs` times in
turn. That they hold the same is a matter of the tests.
"""

import io
import json
import os
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import webdataset
from measuring import in_turn, options_of, parser_of, print_rates

from skyscript_assets.lib.tar import TarShard

Sample = dict[str, bytes | str]
SHARD_SAMPLES = 1000
EXTENSIONS = ("jpg", "txt", "json")


def samples(start: int, count: int, kilobytes: int) -> list[Sample]:
    """Samples of different lengths, as webdataset has them: `__key__`, then contents by extension."""
    noise = os.urandom(2048 * kilobytes)
    made = []
    for number in range(start, start + count):
        size = kilobytes * (512 + number * 37 % 1024)
        about = json.dumps({"chip_id": f"w{number}_S_20200601_{number:08x}", "split": "train", "score": 0.25}).encode()
        contents = (noise[:size], b"a satellite image of a house beside a road", about)
        made.append({"__key__": f"{number:09d}", **dict(zip(EXTENSIONS, contents, strict=True))})
    return made


def ours(path: Path, batch: list[Sample]) -> None:
    """Write a shard with TarShard."""
    with TarShard(path) as shard:
        for sample in batch:
            for extension in EXTENSIONS:
                shard.add(f"{sample['__key__']}.{extension}", sample[extension])


def by_webdataset(path: Path, batch: list[Sample]) -> None:
    """Write a shard with TarWriter, which is given bytes and encodes nothing."""
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for sample in batch:
            writer.write(sample)


def by_tarfile(path: Path, batch: list[Sample]) -> None:
    """Write a shard with the standard library."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in batch:
            for extension in EXTENSIONS:
                about = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                about.size = len(sample[extension])
                tar.addfile(about, io.BytesIO(sample[extension]))


Write = Callable[[Path, list[Sample]], None]
WRITERS: dict[str, Write] = {"TarShard": ours, "webdataset.TarWriter": by_webdataset, "tarfile": by_tarfile}


def rate(folder: Path, write: Write, count: int, kilobytes: int) -> float:
    """Samples a second; making them is not counted."""
    total = 0.0
    path = folder / "shard.tar"
    for start in range(0, count, SHARD_SAMPLES):
        batch = samples(start, min(SHARD_SAMPLES, count - start), kilobytes)
        started = time.perf_counter()
        write(path, batch)
        total += time.perf_counter() - started
        path.unlink()
    return count / total


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--kilobytes", type=int, nargs="+", default=[2, 10, 30])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm" if Path("/dev/shm").is_dir() else "."))
    options = options_of(parser)
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        for kilobytes in options.kilobytes:
            rates = in_turn(
                {name: partial(rate, Path(work), write, options.samples, kilobytes) for name, write in WRITERS.items()},
                options.runs,
            )
            print(f"\n{options.samples:,} samples, JPEGs of {kilobytes} kB, medians of {options.runs}\n")
            print_rates("samples/s", rates, "TarShard")
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
