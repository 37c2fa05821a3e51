"""What a backfill of everything costs besides its work: runs, checks, records and instance are real, bodies are not.

    python benchmarks/backfill.py
    python benchmarks/backfill.py --sizes 5x4 20x5 --home FOLDER

The bodies of all stages are replaced by one that writes tables of five rows, and previews by none, so that what is
left is what the plant and Dagster add to each run. Every partition of a profile of so many regions and sources is run
as `skyscript run` does, then all of it is looked through once more, when nothing is left to do. Beside that stand runs
of bare Dagster on the same instance: the same assets and checks, which do and tell nothing. `--home` is a folder with
a `dagster.yaml` of an instance, for example on PostgreSQL; by default each size has a new one on SQLite. Prints a
Markdown table: CPU seconds of this process, and wall seconds, which hold the database's as well.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from measuring import options_of, parser_of, print_head, print_row
from orchestration import COUNTS, PLAIN, ROWS, value, write_profile

from skyscript_assets import backfill, checks
from skyscript_assets.asset import Stage
from skyscript_assets.assets import PAIRS, STAGES
from skyscript_assets.definitions import build_defs
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.partitions import definitions, key_of, partitions_of
from skyscript_assets.provenance import Run
from skyscript_assets.resources import Plant


def without_work(stage: Stage) -> None:
    """Let a stage write small tables instead of what it is for."""

    def build(run: Run[Any]) -> dict[str, Any]:
        texts = ["/".join((*run.partition, str(number))) for number in range(ROWS)]
        for name, schema in stage.tables.items():
            rows = [{field.name: PLAIN.get(field.name, value(field.type, text)) for field in schema} for text in texts]
            write_table(run.out / name, rows_to_table(rows, schema))
        (run.out / "made_for.json").write_text(json.dumps(run.partition))
        return COUNTS

    # Stages are frozen for good reasons, none of which holds in this process.
    object.__setattr__(stage, "build", build)
    object.__setattr__(stage, "preview", lambda _run: {})


def bare_definitions(settings: Settings) -> dg.Definitions:
    """Assets and checks of the level `pairs` without anything of the plant."""
    by_scheme = definitions(settings)

    def bare(stage: Stage) -> dg.AssetsDefinition:
        @dg.asset(
            name=stage.name,
            deps=[name for name in stage.upstream if name in {other.name for other in PAIRS.stages}],
            partitions_def=by_scheme[stage.scheme],
            check_specs=checks.specs(stage),
        )
        def made() -> Iterator[Any]:
            yield dg.MaterializeResult()
            for spec in checks.specs(stage):
                yield dg.AssetCheckResult(check_name=spec.name, passed=True)

        return made

    return dg.Definitions([bare(stage) for stage in PAIRS.stages], jobs=[PAIRS.job], executor=dg.in_process_executor)


def measure_bare(settings: Settings, instance: dg.DagsterInstance, size: str) -> None:
    """Run the bare level for every pair and print a line of the table."""
    job = bare_definitions(settings).resolve_job_def(PAIRS.name)
    pairs = partitions_of(PAIRS.scheme, settings)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    started, began = time.process_time(), time.perf_counter()
    for pair in pairs:
        assert job.execute_in_process(quiet, instance, key_of(pair)).success
    cpu, wall = time.process_time() - started, time.perf_counter() - began
    print_row("bare Dagster: pairs", size, len(pairs), f"{cpu:.1f}", f"{cpu / len(pairs):.2f}", f"{wall:.1f}")


def measure(folder: Path, regions: int, sources: int, home: Path) -> None:
    """Run everything twice and print lines of the table."""
    settings, store = write_profile(folder / "profile", regions, sources), Store(folder / "data")
    defs = build_defs(settings, Plant(settings_folder=str(folder / "profile"), data=str(folder / "data")))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for what in ("everything", "nothing is left"):
            cpu, wall, runs = Counter[str](), Counter[str](), Counter[str]()
            started, began = time.process_time(), time.perf_counter()
            for result in backfill.run_all(defs, settings, store, instance):
                assert result.error is None, result.error
                level = "pairs" if result.step.level is PAIRS else "all other levels"
                now, clock = time.process_time(), time.perf_counter()
                cpu[level] += now - started
                wall[level] += clock - began
                runs[level] += result.ran
                started, began = now, clock
            for level in sorted(cpu, reverse=True):
                each = f"{cpu[level] / runs[level]:.2f}" if runs[level] else "-"
                print_row(
                    f"{what}: {level}",
                    f"{regions} x {sources}",
                    runs[level],
                    f"{cpu[level]:.1f}",
                    each,
                    f"{wall[level]:.1f}",
                )
        measure_bare(settings, instance, f"{regions} x {sources}")


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", default=["5x4", "20x5"], help="regions x sources")
    parser.add_argument(
        "--home", type=Path, help="folder with a dagster.yaml; each size finds it as the one before left it"
    )
    options = options_of(parser)
    for stage in STAGES.values():
        without_work(stage)
    print_head("what", "regions x sources", "runs", "CPU s", "CPU s a run", "wall s")
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            home = options.home or Path(folder) / "home"
            if options.home is None:
                home.mkdir()
                (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
            regions, sources = map(int, size.split("x"))
            measure(Path(folder) / "plant", regions, sources, home)


if __name__ == "__main__":
    main()
