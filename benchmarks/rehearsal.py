"""The paper's scale without its pixels: extracts, copied until millions of pairs are planned, become a manifest.

    python benchmarks/rehearsal.py ../shared/data/osm --pairs 500000 1000000 5000000 --work FOLDER

Each copy of each extract is a region of its own, with its own ids and ground (`make_extract.py`), and has two made-up
sources of `--gsds-m`, whose scenes cover it. Objects, vocabulary, decisions, snapshot, plans, captions and manifest
are made by the plant's own code, every stage in one process of its own; of `clip_scores` and `image_chips` there is
what a manifest reads: scores and digests at random, no hashes, all chips accepted. A size goes on with the regions of
the one before, whose seconds it counts with (the first one, of one copy, tells how many are needed); only vocabulary,
decisions, snapshot and manifest are made anew. Prints Markdown tables: what each stage took, and pairs and distinct
tags before and after the better half is kept.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import osmium
import pyarrow as pa
import pyarrow.parquet as pq
from captions import RULES
from chip_plan import ZOOM, make_scenes
from make_extract import write_moved
from measuring import PROFILE, WORLD, objects_of, options_of, parser_of, print_head, print_row, run_apart

from skyscript_assets.lib.captions.write import CaptionInputs, write_captions
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE, OVERLAP_SCHEMA
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.settings.plant import CaptionSettings, PlanSettings, TagSettings
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.tags.embedding import load_encoder
from skyscript_assets.lib.tags.groundability import LabelFiles, decide_groundability
from skyscript_assets.lib.tags.snapshot import freeze_snapshot
from skyscript_assets.lib.tags.vocabulary import count_vocabulary

PAPER = (("before", "5.2 M", "44 K"), ("after", "2.6 M", "29 K"))
"""Pairs and distinct tags of SkyScript before and after its filter (paper, section on the dataset)."""


class Partition(NamedTuple):
    """A region with a source of a GSD, metres, and the folder of its stages."""

    region: Path
    gsd_m: float

    @property
    def source(self) -> str:
        """The source's name."""
        return f"UP{round(self.gsd_m * 100)}"

    @property
    def folder(self) -> Path:
        """Where its stages lie."""
        return self.region / self.source


class Rehearsal:
    """The stages over all regions that there are in a folder."""

    def __init__(self, work: Path, gsds_m: list[float]) -> None:
        self.regions = sorted(path.parent for path in work.glob("*/moved.osm.pbf"))
        self.partitions = [Partition(region, gsd) for region in self.regions for gsd in gsds_m]
        self.tags, self._gsds_m = work / "tags", gsds_m
        self._plan = PlanSettings(snapshot="rehearsal", quota=1_000_000_000)

    def objects(self) -> int:
        """`osm_objects`, and scenes over them; nothing overlaps."""
        for region in self.regions:
            if (region / "objects.parquet").exists():
                continue
            objects_of(region / "moved.osm.pbf", region, WORLD)
            write_table(region / OVERLAP_FILE, OVERLAP_SCHEMA.empty_table())
        return sum(pq.read_metadata(region / "objects.parquet").num_rows for region in self.regions)

    def tags_decided(self) -> int:
        """`tag_vocabulary`, `tag_groundability` and `sampling_snapshot` of all regions."""
        self.tags.mkdir(exist_ok=True)
        known = {region.name: region / "objects.parquet" for region in self.regions}
        found = count_vocabulary(known, self._gsds_m, self._plan.sizes, self.tags)
        encode = load_encoder(TagSettings().encoder, PROFILE.weights, PROFILE.bases, None)
        labels = LabelFiles(PACKAGED_PROFILES / "tag_labels.csv")
        decide_groundability(self.tags, labels, encode, TagSettings(), self.tags)
        freeze_snapshot(self.tags, self.tags, self.tags)
        return int(found["tags"])

    def plans(self) -> int:
        """`chip_plan` of all pairs; every object is drawn."""
        rules = PlanRules(self._plan, ZOOM)
        for part in self._without("plan.parquet"):
            part.folder.mkdir(exist_ok=True)
            objects, name = part.region / "objects.parquet", part.region.name
            make_scenes(objects, part.gsd_m, 1, part.folder, name, part.source)
            inputs = PlanInputs(objects, part.region / OVERLAP_FILE, part.folder, self.tags)
            write_plan(Ground(name, part.source, WORLD, part.gsd_m), inputs, rules, part.folder)
            accepted(part.folder)
        return self._rows("plan.parquet")

    def captions(self) -> int:
        """`captions` of all pairs, in every style."""
        for part in self._without("captions.parquet"):
            out, objects = part.folder, part.region / "objects.parquet"
            write_captions(CaptionInputs(out, out, objects, self.tags, RULES), CaptionSettings(), out)
            scored(out)
        return self._rows("captions.parquet")

    def manifest(self) -> int:
        """`training_manifest`."""
        folders = {(part.region.name, part.source): PartitionFolders(*[part.folder] * 4) for part in self.partitions}
        return int(write_manifest(folders, self.tags)["pairs"])

    def yields(self) -> list[tuple[int, int]]:
        """Pairs and distinct tags of them, of all that may be used and of their better half."""
        captions = [str(part.folder / "captions.parquet") for part in self.partitions]
        said = (
            "SELECT count(DISTINCT m.chip_id), count(DISTINCT concat(tag.key, '=', tag.value)) FROM "
            "(SELECT chip_id, unnest(map_entries(center_tags)) AS tag FROM read_parquet(?)) "
            "JOIN read_parquet(?) AS m USING (chip_id) WHERE eligible AND coalesce(rank_share, 1) <= ?"
        )
        with duckdb.connect() as db:
            asked = ([captions, str(self.tags / "manifest.parquet"), share] for share in (1.0, 0.5))
            return [db.execute(said, each).fetchall()[0] for each in asked]

    def _rows(self, name: str) -> int:
        return sum(pq.read_metadata(part.folder / name).num_rows for part in self.partitions)

    def _without(self, name: str) -> Iterable[Partition]:
        """Pairs that lack a table."""
        return [part for part in self.partitions if not (part.folder / name).exists()]


STAGES: dict[str, Callable[[Rehearsal], int]] = {
    "objects": Rehearsal.objects,
    "vocabulary, decisions, snapshot": Rehearsal.tags_decided,
    "plans": Rehearsal.plans,
    "captions": Rehearsal.captions,
    "manifest": Rehearsal.manifest,
}
"""What each stage does, and gives: objects, tags or pairs."""

GROWING = ("objects", "plans", "captions")
"""Stages that only make what is not there."""


def accepted(folder: Path) -> None:
    """Call all chips of a plan accepted, with digests at random."""
    ids = read_table(folder / "plan.parquet", PLAN_SCHEMA, ["chip_id"])["chip_id"]
    rng = np.random.default_rng(int(unit_hash(str(ids[0]) if len(ids) else "") * 2**32))
    drawn = rng.integers(0, 2**64, (len(ids), 4), dtype=np.uint64).astype(object)
    known = {
        "chip_id": ids,
        "status": pa.array(["ok"] * len(ids)),
        "shard": pa.array(["part-00000.tar"] * len(ids)),
        "sha256": pa.array(["".join(f"{part:016x}" for part in row) for row in drawn]),
    }
    columns = [known[f.name] if f.name in known else pa.nulls(len(ids), f.type) for f in CHIP_SCHEMA]
    write_table(folder / "chips.parquet", pa.table(columns, schema=CHIP_SCHEMA))


def scored(folder: Path) -> None:
    """Give all captions of a folder a score at random."""
    ids = read_table(folder / "captions.parquet", columns=["chip_id"])["chip_id"]
    n, score = len(ids), pa.array(np.random.default_rng(len(ids)).random(len(ids)), pa.float32())
    styles = pa.StructArray.from_arrays([score] * len(STYLES), list(STYLES))
    known = {
        "chip_id": ids,
        "column": pa.repeat("title", n),
        "score": score.cast(pa.float64()),
        "scorer": pa.repeat("random", n),
        "scores": pa.MapArray.from_arrays(np.arange(n + 1, dtype=np.int32), pa.repeat("random", n), styles),
    }
    columns = [known[f.name].cast(f.type) if f.name in known else pa.nulls(n, f.type) for f in SCORE_SCHEMA]
    write_table(folder / "scores.parquet", pa.table(columns, schema=SCORE_SCHEMA))


def copied(extracts: list[Path], copies: int, work: Path) -> None:
    """A region for each extract and copy, where there is none."""
    for copy in range(copies):
        for extract in extracts:
            region = work / f"{extract.name.split('.')[0]}-{copy:03d}"
            if (region / "moved.osm.pbf").exists():
                continue
            region.mkdir(parents=True, exist_ok=True)
            header = osmium.io.Header()
            header.set("sorting", "Type_then_ID")
            with osmium.SimpleWriter(region / "moving.osm.pbf", header=header, overwrite=True) as writer:
                for entity in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
                    write_moved(writer, extract, entity, copy)
            (region / "moving.osm.pbf").rename(region / "moved.osm.pbf")


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("extracts", type=Path, help="folder of extracts")
    parser.add_argument("--pairs", type=int, nargs="+", default=[500_000, 1_000_000, 5_000_000], help="pairs wanted")
    parser.add_argument("--gsds-m", type=float, nargs="+", default=[0.3, 1.0], help="metres a pixel of the sources")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything: about 2 GB a million pairs")
    parser.add_argument("--only", choices=STAGES, help=argparse.SUPPRESS)
    if "--only" in sys.argv:
        options = parser.parse_args()
        started, began = time.process_time(), time.perf_counter()
        rows = STAGES[options.only](Rehearsal(options.work, options.gsds_m))
        spent = [time.perf_counter() - began, time.process_time() - started]
        log = options.work / f"{options.only.split(',')[0]}.json"
        if options.only in GROWING and log.exists():
            spent = [a + b for a, b in zip(spent, json.loads(log.read_text()), strict=True)]
        log.write_text(json.dumps(spent))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print_row(options.only, f"{rows:,}", *(f"{each:.0f}" for each in spent), f"{peak:.2f}")
        return
    options = options_of(parser)
    again = [sys.executable, __file__, str(options.extracts), "--work", str(options.work)]
    again += ["--gsds-m", *map(str, options.gsds_m)]
    extracts, pairs = sorted(options.extracts.glob("*.osm.pbf")), 0
    for wanted in (0, *options.pairs):
        copies = max(1, -(-wanted // max(1, pairs)))
        copied(extracts, copies, options.work)
        print_head("stage", "objects, tags or pairs", "seconds", "CPU s", "peak memory GB")
        for name in STAGES:
            print(run_apart([*again, "--only", name]).printed.splitlines()[-1], flush=True)
        rehearsal = Rehearsal(options.work, options.gsds_m)
        found = rehearsal.yields()
        pairs = found[0][0] if not wanted else pairs
        if not pairs:
            raise SystemExit("one copy gives no pair that may be used")
        print()
        print_head(f"{len(rehearsal.regions)} regions", "pairs", "distinct tags", "SkyScript's pairs", "tags")
        for (when, *paper), (n, tags) in zip(PAPER, found, strict=True):
            print_row(when, f"{n:,}", f"{tags:,}", *paper)
        print(flush=True)


if __name__ == "__main__":
    main()
