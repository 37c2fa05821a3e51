"""Pairs to train on, shuffled and decoded: `Pairs` beside webdataset, litdata and datasets, as ratios in one run.

    python benchmarks/reader.py data
    python benchmarks/reader.py data --pairs 5000 --peers /path/to/peers/bin/python

Chips of a data folder, over and over up to `--pairs`, with their captions, are written as tars of image, text and json.
`Pairs` reads these by a manifest and checks each digest; webdataset reads the same tars (a buffer of 1,000), litdata
its own chunks, datasets streamed Parquet (a buffer of 1,000), all of the same JPEGs. All decode with simplejpeg; what
is counted is images that arrive in the process that would train. Each contender is a process of its own, pinned to one
core or two, `--runs` times in turn; seconds are those of one pass, without imports and opening, and those of the
processor, which other work on the machine hardly changes. On two cores peers run two workers with batches of 64. Then
the orders of passes are compared, and the reader is opened on a manifest of `--rows` made-up pairs. `--peers` names a
Python that has litdata and datasets; what is not installed is said to be. Files are read from memory: no disk is
measured.
"""

import hashlib
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

SHARD_PAIRS, BUFFER, BATCH = 1000, 1000, 64


def decoded(data: bytes) -> Any:
    """Pixels of a JPEG, as every contender makes them."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def made(data: Path, pairs: int, work: Path) -> None:
    """Write the pairs as each contender has them, but for litdata's chunks."""
    from skyscript_assets.lib.pairs.manifest import MANIFEST_SCHEMA
    from skyscript_assets.lib.storage import OutputKey, Store
    from skyscript_assets.lib.tables import read_table
    from skyscript_assets.lib.tar import TarShard, read_member

    found: list[tuple[bytes, str]] = []
    for folder in sorted(data.glob("image_chips/*/*")):
        captions = read_table(data / "captions" / folder.relative_to(data / "image_chips") / "captions.parquet")
        texts = dict(zip(captions["chip_id"].to_pylist(), captions["title"].to_pylist(), strict=True))
        for chip in read_table(folder / "chips.parquet").to_pylist():
            if chip["status"] == "ok" and chip["chip_id"] in texts:
                image = read_member(folder / chip["shard"], chip["offset"], chip["length"])
                found.append((image, texts[chip["chip_id"]]))
    rows, store, key = [], Store(work / "data"), OutputKey("image_chips", ("here", "S"))
    with store.writing(key, "made") as out:
        for start in range(0, pairs, SHARD_PAIRS):
            with TarShard(out / f"{start // SHARD_PAIRS:06d}.tar") as shard:
                for number in range(start, min(pairs, start + SHARD_PAIRS)):
                    (image, text), name = found[number % len(found)], f"w{number:08d}"
                    entry = shard.add(f"{name}.jpg", image)
                    shard.add(f"{name}.txt", text.encode())
                    shard.add(f"{name}.json", json.dumps({"chip_id": name, "split": "train"}).encode())
                    sha256 = hashlib.sha256(image).hexdigest()
                    rows.append((name, f"here/S/{shard.path.name}", *entry, sha256, text))
        store.complete(key, fingerprint="made", made_from={}, counts={})
    names = ("chip_id", "image_shard", "image_offset", "image_length", "image_sha256", "title")
    known = dict(zip(names, zip(*rows, strict=True), strict=True))
    known |= {
        "region": ["here"] * pairs,
        "source": ["S"] * pairs,
        "split": ["train"] * pairs,
        "eligible": [True] * pairs,
    }
    with store.writing(OutputKey("training_manifest"), "made") as out:
        columns = [pa.array(known.get(field.name, [None] * pairs), field.type) for field in MANIFEST_SCHEMA]
        pq.write_table(pa.table(columns, schema=MANIFEST_SCHEMA), out / "manifest.parquet")
        store.complete(OutputKey("training_manifest"), fingerprint="made", made_from={}, counts={})
    images = [found[number % len(found)] for number in range(pairs)]
    table = pa.table({"image": [image for image, _ in images], "text": [text for _, text in images]})
    for start in range(0, pairs, SHARD_PAIRS):
        pq.write_table(table.slice(start, SHARD_PAIRS), work / f"{start:08d}.parquet", row_group_size=100)
    print(f"{len(found):,} chips, {statistics.mean(len(image) for image, _ in found) / 1000:.1f} kB each\n")


def ours(work: Path, cores: int) -> Iterable[Any]:
    """The reader of this project."""
    from skyscript_assets.read import Pairs

    return (pair.image for pair in Pairs(work / "data", threads=cores))


def decoded_rows(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with pixels instead of JPEGs."""
    return [{"image": decoded(row["image"]), "text": row["text"]} for row in rows]


def in_workers(dataset: Any, cores: int, loader: Any = None, collate: Callable[..., Any] = list) -> Iterable[Any]:
    """Images of a dataset, by two worker processes where there are two cores; `collate` is called there."""
    from torch.utils.data import DataLoader

    if cores == 1:
        return (sample["image"] for row in dataset for sample in collate([row]))
    batches = (loader or DataLoader)(dataset, batch_size=BATCH, num_workers=cores, collate_fn=collate)
    return (sample["image"] for sample in chain.from_iterable(batches))


def by_webdataset(work: Path, cores: int) -> Iterable[Any]:
    """Webdataset: shards in a random order, then a buffer."""
    import webdataset

    tars = [str(path) for path in sorted((work / "data/image_chips/here/S").glob("*.tar"))]
    samples = webdataset.WebDataset(tars, shardshuffle=len(tars), nodesplitter=webdataset.split_by_node)
    return in_workers(
        samples.shuffle(BUFFER).map(lambda sample: {"image": decoded(sample["jpg"]), "text": sample["txt"].decode()}),
        cores,
    )


def for_litdata(row: dict[str, Any]) -> dict[str, Any]:
    """A row as litdata stores it."""
    return row


def chunks_of_litdata(work: Path) -> None:
    """Write litdata's chunks."""
    import litdata

    rows = [row for path in sorted(work.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    litdata.optimize(for_litdata, rows, str(work / "litdata"), chunk_bytes="64MB", num_workers=1, verbose=False)


def by_litdata(work: Path, cores: int) -> Iterable[Any]:
    """Litdata: its own shuffle over chunks and within them."""
    import litdata

    rows = litdata.StreamingDataset(str(work / "litdata"), shuffle=True)
    return in_workers(rows, cores, litdata.StreamingDataLoader, decoded_rows)


def by_datasets(work: Path, cores: int) -> Iterable[Any]:
    """Datasets: a Parquet streamed, with a buffer."""
    import datasets

    files = [str(path) for path in sorted(work.glob("*.parquet"))]
    rows = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    return in_workers(rows.shuffle(seed=0, buffer_size=BUFFER), cores, collate=decoded_rows)


CONTENDERS: dict[str, Callable[[Path, int], Iterable[Any]]] = {
    "Pairs": ours,
    "webdataset": by_webdataset,
    "litdata": by_litdata,
    "datasets, streaming": by_datasets,
}


def cpu_s() -> float:
    """Seconds of the processor that this process and the workers that ended took."""
    return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def one_pass(name: str, work: Path, cores: int, pairs: int) -> None:
    """Read all pairs once."""
    images = CONTENDERS[name](work, cores)
    started, cpu = time.perf_counter(), cpu_s()
    seen = sum(image.shape[2] == 3 for image in images)
    seconds = time.perf_counter() - started
    if seen != pairs:
        raise SystemExit(f"{seen} images of {pairs}")
    print("cpu_s", cpu_s() - cpu, "work_s", seconds)


def orders(work: Path) -> None:
    """Compare the orders of passes."""
    from skyscript_assets.read import Pairs

    pairs = Pairs(work / "data", transform=lambda pair: int(pair.chip_id[1:]))
    first, second = np.array(list(pairs)), np.array(list(pairs))
    same = np.array(list(Pairs(work / "data", transform=lambda pair: int(pair.chip_id[1:]))))
    neighbours = int((np.abs(np.diff(first)) == 1).sum())
    print(f"\nof {len(first):,} pairs, at the place of the pass before: {int((first == second).sum())}")
    print(f"at the same place with the same seed: {int((first == same).sum()):,}")
    print(f"beside a neighbour in the tars: {neighbours}\n")


def opened(work: Path, count: int) -> None:
    """What opening a large manifest takes, and the first pairs of it."""
    from skyscript_assets.lib.storage import OutputKey, Store
    from skyscript_assets.read import Pairs

    store, key = Store(work / "data"), OutputKey("training_manifest")
    few = pq.read_table(store.folder(key) / "manifest.parquet")
    large = few.take(pa.array(np.arange(count) % few.num_rows))
    with store.writing(key, "large") as out:
        pq.write_table(large, out / "manifest.parquet", row_group_size=65_536)
        store.complete(key, fingerprint="large", made_from={}, counts={})
    del large, few
    pid = os.fork()
    if pid == 0:
        for told in ("written", "mapped"):
            started = time.perf_counter()
            pairs = Pairs(work / "data")
            seconds = time.perf_counter() - started
            next(iter(pairs))
            first = time.perf_counter() - started
            own = int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1e3
            took = f"opened in {seconds:.2f} s, first pair after {first:.2f} s, {own:.0f} MB of its own"
            print(f"{len(pairs):,} pairs, {told}: {took}", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)


def main() -> None:
    """Run the command."""
    from measuring import in_turn, options_of, parser_of, print_rates, run_apart

    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path, help="finished data folder")
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--peers", default=sys.executable, help="Python interpreter that has litdata and datasets")
    options = options_of(parser)
    cores = sorted(os.sched_getaffinity(0))[-2:]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        made(options.data, options.pairs, work)
        root = {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path[1:]]),
            "HF_HOME": f"{folder}/hf",
        }

        def apart(name: str, number: int) -> tuple[float, float]:
            python = sys.executable if name in ("Pairs", "webdataset") else options.peers
            command = [python, __file__, "--only", name, folder, str(number), str(options.pairs)]
            run = run_apart(command, cores[-number:], root)
            return options.pairs / run.work_s, options.pairs / float(run.printed.split()[1])

        apart_for_litdata = [options.peers, __file__, "--only", "chunks", folder, "1", "0"]
        try:
            run_apart(apart_for_litdata, (), root)
        except RuntimeError as error:
            print(f"litdata's chunks: {error}")
        for number in range(1, len(cores) + 1):
            rates = in_turn({name: partial(apart, name, number) for name in CONTENDERS}, options.runs)
            for at, what in enumerate(("seconds", "seconds of the processor")):
                print(f"\n{options.pairs:,} pairs, cores: {number}, {what}, medians of {options.runs}\n")
                print_rates("pairs/s", {name: [run[at] for run in runs] for name, runs in rates.items()}, "Pairs")
        orders(work)
        opened(work, options.rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--only"]:
        what, where, number, count = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
        chunks_of_litdata(where) if what == "chunks" else one_pass(what, where, number, count)
    else:
        main()
