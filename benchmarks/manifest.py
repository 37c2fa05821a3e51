"""How long the training manifest takes, and how much memory, by number of pairs.

    python benchmarks/manifest.py --pairs 1000000 5000000

The pairs are made up: partitions of 100,000 chips side by side on the ground, with captions, scores and digests; one in
a hundred has an image that is there already. They have no hashes, the search for which `duplicates.py` measures. Each
size runs in its own process. Prints a Markdown table.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measuring import options_of, parser_of, print_head, print_row, run_apart

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.base import STYLES

PARTITION, STEP_DEG = 100_000, 0.002
TEXT = "road of residential with surface of asphalt, surrounded by building; landuse of grass; natural tree; kind of "


def made_up(number: int, n: int, out: Path) -> PartitionFolders:
    """The tables of one partition of some pairs."""
    out.mkdir()
    rng, at = np.random.default_rng(number), np.arange(n)
    ids = pa.array([f"a{number}{i:07d}_S{number}_20200601_{i:08x}" for i in range(n)])
    west, south = at % 400 * STEP_DEG, number * 1.0 % 80 + at // 400 * STEP_DEG
    sides = (west, south, west + STEP_DEG / 2, south + STEP_DEG / 2)
    kinds = [f"{TEXT}{i}" for i in range(2000)]
    texts = pa.array(kinds).take(rng.integers(0, len(kinds), n))
    stated = {
        "object_id": "a1",
        "focus": True,
        "clause": "road",
        "main": "road",
        "kind": "road",
        "key": "k",
        "value": "v",
    }
    statements = pa.array([[stated] * 3], CAPTION_SCHEMA.field("statements").type).take(pa.array(np.zeros(n, int)))
    digests = np.where(rng.random(n) < 0.01, 0, at + 1)
    score = pa.array(rng.random(n).astype(np.float32))
    styles = pa.StructArray.from_arrays([score] * len(STYLES), list(STYLES))
    known: dict[str, Any] = {
        "chip_id": ids,
        "source": pa.array([f"S{number}"] * n),
        "region": pa.array(["here"] * n),
        "shard": pa.array(["part-00000.tar"] * n),
        "split": pa.array(SPLITS).take((at // 400 // 20) % len(SPLITS)),
        "status": pa.array(["ok"] * n),
        "bbox": pa.StructArray.from_arrays(list(map(pa.array, sides)), fields=list(PLAN_SCHEMA.field("bbox").type)),
        "statements": statements,
        "column": pa.repeat("title", n),
        "score": score,
        "scores": pa.MapArray.from_arrays(np.arange(n + 1, dtype=np.int32), pa.repeat("scorer@1", n), styles),
        "object_id": pa.array([f"a{number}{i:07d}" for i in range(n)]),
        "sha256": pa.array([f"{(number << 40) + digest + 1:016x}".ljust(64, "0") for digest in digests.tolist()]),
        **dict.fromkeys(STYLES, texts),
    }
    for name, schema in (
        ("plan", PLAN_SCHEMA),
        ("chips", CHIP_SCHEMA),
        ("captions", CAPTION_SCHEMA),
        ("scores", SCORE_SCHEMA),
    ):
        columns = [known[f.name].cast(f.type) if f.name in known else pa.nulls(n, f.type) for f in schema]
        pq.write_table(pa.table(columns, schema=schema), out / f"{name}.parquet", compression="zstd")
    return PartitionFolders(out, out, out, out)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 5_000_000], help="pairs of the manifests")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    if "--only" in sys.argv:
        folder = parser.parse_args().only
        partitions = {("here", path.name): PartitionFolders(*[path] * 4) for path in folder.glob("S*")}
        started, cpu = time.perf_counter(), time.process_time()
        counts = write_manifest(partitions, folder)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        size = (folder / "manifest.parquet").stat().st_size / 1e6
        print_row(f"{counts['pairs']:,}", f"{seconds:.1f}", f"{cpu:.1f}", f"{memory:.2f}", f"{size:.0f}")
        return
    options = options_of(parser)
    print_head("pairs", "seconds", "CPU s", "peak memory GB", "manifest.parquet MB")
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            for number, start in enumerate(range(0, pairs, PARTITION)):
                made_up(number, min(PARTITION, pairs - start), Path(folder) / f"S{number}")
            print(run_apart([sys.executable, __file__, "--only", folder]).printed.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
