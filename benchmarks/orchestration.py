"""What the state of a large plant costs: `skyscript status`, the checks of one run, a look of a sensor.

    python benchmarks/orchestration.py
    python benchmarks/orchestration.py --sizes 2x2 100x10

A profile of so many regions, side by side, and synthetic sources, all else as in the demo, gets a store in which every
output up to `training_manifest` is complete and current: tables of five rows, written as stages write theirs. Models,
benchmarks and scores are missing. Prints a Markdown table: medians of CPU and wall seconds in one process, and how many
records were opened; the smallest plant comes first and warms the process up.
"""

import datetime as dt
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import yaml
from click.testing import CliRunner
from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets import checks
from skyscript_assets.asset import Stage
from skyscript_assets.assets import LEVELS, MANIFEST, PAIRS, STAGES
from skyscript_assets.automation.decision import MAX_IN_FLIGHT
from skyscript_assets.automation.sensors import missing_pairs
from skyscript_assets.cli import main as skyscript
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.partitions import Partition, partitions_of
from skyscript_assets.provenance import Outputs
from skyscript_assets.resources import Plant

ROWS, RUNS, MADE = 5, 3, "/output.json"
PLAIN = {"reason": None, "status": "ok", "split": "train", "dropped_because": None}
"""Values of columns that checks look at; every other text is an id, unique over the plant."""

COUNTS: dict[str, Any] = {
    **dict.fromkeys(("failed", "shared_ground", "nodes", "lines", "areas", "outside", "invalid", "verified"), 0),
    **dict.fromkeys(("drawn", "planned", "leaks_left"), 0),
    "rows": ROWS,
    "objects": ROWS,
    "shared_ground_examples": [],
    "leaks": {"kinds": {}, "across_splits": 0, "examples": {}},
    "unseen_benchmarks": [],
    "without_images": [],
    "unmoved_from": None,
    "invalid_reasons": {},
    "unproven": {},
    "dropped": {},
    "splits": {"train": ROWS},
}
"""Counts that checks look at."""

opened: list[str] = []  # records, since `timed` began; an audit hook notes them


def write_profile(folder: Path, regions: int, sources: int) -> Settings:
    """The demo with so many regions and sources; its models read all sources, its benchmarks the first."""
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (PACKAGED_PROFILES / "demo").glob("*.yaml")}
    painted = files["sources"]["sources"]["SYN1"]
    files["sources"]["sources"] = {f"SYN{n:02}": {**painted, "seed": n} for n in range(sources)}
    boxes = [{"west": n / 10, "south": 60, "east": n / 10 + 0.09, "north": 60.1} for n in range(regions)]
    files["regions"]["regions"] = {
        f"r{n:03}": {"title": f"Region {n}", "path": f"{n}.pbf", "bbox": box} for n, box in enumerate(boxes)
    }
    for model in files["models"]["models"].values():
        model.pop("sources", None)
    for benchmark in files["benchmarks"]["benchmarks"].values():
        benchmark["sources"] = ["SYN00"]
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_settings(folder)


def value(kind: pa.DataType, text: str) -> Any:
    """A value of an Arrow type, `text` where it is one."""
    if pa.types.is_struct(kind):
        return {field.name: value(field.type, text) for field in kind}
    if pa.types.is_map(kind):
        return [(key, value(kind.item_type, of)) for key, of in (("highway", "residential"), ("surface", "asphalt"))]
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return [value(kind.value_type, text)] * (kind.list_size if pa.types.is_fixed_size_list(kind) else 2)
    when = dt.datetime(2019, 7, 2, tzinfo=dt.UTC)
    plain = {"string": text, "binary": text.encode(), "bool": True, "timestamp[ms, tz=UTC]": when}
    return plain.get(str(kind), 1)


def write_output(stage: Stage, outputs: Outputs, partition: Partition) -> None:
    """A complete output of a partition, current as things are now."""
    settings, store = outputs.settings, outputs.store
    provenance, key = outputs.provenance(stage, partition), stage.key(settings, partition)
    texts = ["/".join((*partition, str(number))) for number in range(ROWS)]
    with store.writing(key, provenance.fingerprint) as out:
        for name, schema in stage.tables.items():
            rows = [{field.name: PLAIN.get(field.name, value(field.type, text)) for field in schema} for text in texts]
            write_table(out / name, rows_to_table(rows, schema))
        if stage.name == "osm_extract":
            (out / "extract.json").write_text(json.dumps({"bbox": settings.regions[partition[0]].bbox.bounds}))
        store.complete(
            key,
            fingerprint=provenance.fingerprint,
            made_from=provenance.made_from,
            counts=COUNTS,
            unversioned=stage.unversioned,
        )


def measures(plant: Plant, stale: Plant, instance: dg.DagsterInstance) -> dict[str, Callable[[], None]]:
    """What is measured, by name; each makes sure that it found every pair current, or stale in the plant that is."""
    pair = partitions_of(PAIRS.scheme, plant.settings())[0]
    environment = {"SKYSCRIPT_SETTINGS": plant.settings_folder, "SKYSCRIPT_DATA": plant.data, "COLUMNS": "200"}

    def status() -> None:
        shown = CliRunner().invoke(skyscript, ["status"], env=environment, catch_exceptions=False).output
        cells = next(line for line in shown.splitlines() if "caption_shards" in line).split()
        assert int(cells[1]) == len(partitions_of(PAIRS.scheme, plant.settings())), shown

    def check_run() -> None:
        for stage in PAIRS.stages:
            outputs = plant.outputs(STAGES)
            outcome = outputs.materialize(stage, pair)
            assert outcome.reused
            assert all(result.passed for result in checks.results(outputs, stage, pair, outcome))

    def look(at: Plant, wanted: int) -> None:
        with dg.build_sensor_context(instance=instance, resources={"plant": at}) as context:
            found = missing_pairs(context)
        assert isinstance(found, dg.SensorResult)
        assert len(found.run_requests or ()) == wanted

    return {
        "`skyscript status`": status,
        "checks of a run of `pairs`": check_run,
        "look of `missing_pairs`": lambda: look(plant, 0),
        "the same, every pair stale": lambda: look(
            stale, min(MAX_IN_FLIGHT, len(partitions_of(PAIRS.scheme, stale.settings())))
        ),
    }


def timed(work: Callable[[], None]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and opened records of some work."""
    opened.clear()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall, len(opened)


def measure(folder: Path, regions: int, sources: int) -> None:
    """Make a plant, measure it and print lines of the table."""
    settings, store = write_profile(folder / "profile", regions, sources), Store(folder / "data")
    for stage in (stage for level in LEVELS[: LEVELS.index(MANIFEST) + 1] for stage in level.stages):
        outputs = Outputs(STAGES, settings, store)
        for partition in partitions_of(stage.scheme, settings):
            write_output(stage, outputs, partition)
    shutil.copytree(folder / "profile", folder / "changed")
    sources_file = folder / "changed" / "sources.yaml"
    sources_file.write_text(sources_file.read_text().replace("seed: ", "seed: 9"), encoding="utf-8")
    plant, stale = (
        Plant(settings_folder=str(folder / name), data=str(folder / "data")) for name in ("profile", "changed")
    )
    with dg.DagsterInstance.ephemeral() as instance:
        for name, work in measures(plant, stale, instance).items():
            cpu, wall, records = map(statistics.median, zip(*(timed(work) for _ in range(RUNS)), strict=True))
            print_row(name, f"{regions} x {sources}", f"{cpu:.2f}", f"{wall:.2f}", f"{records:,}")


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["2x2", "10x10", "40x10"], help="regions x sources")
    options = options_of(parser)
    sys.addaudithook(lambda event, of: opened.append(of[0]) if event == "open" and str(of[0]).endswith(MADE) else None)
    print_head("what", "regions x sources", "CPU s", "wall s", "records opened")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder) / "plant", *map(int, size.split("x")))


if __name__ == "__main__":
    main()
