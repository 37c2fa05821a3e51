"""`skyscript`: run a profile, try again what failed, look at its state, list its sources.

Everything that runs is a Dagster run.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import dagster as dg
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from skyscript_assets import backfill
from skyscript_assets.assets import STAGES
from skyscript_assets.assets.chips import EstimateConfig, estimate_of
from skyscript_assets.lib.errors import SkyScriptError, StorageError
from skyscript_assets.lib.imagery.sources.kind import source_kind
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.partitions import keys_of, partitions_of
from skyscript_assets.provenance import Outputs, State
from skyscript_assets.resources import Plant

console = Console(highlight=False)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """From OpenStreetMap extracts to captioned chips, trained CLIP models and benchmark scores.

    The profile is the folder or packaged name in SKYSCRIPT_SETTINGS (default: demo), outputs lie below SKYSCRIPT_DATA
    (default: ./data), runs are recorded below DAGSTER_HOME (default: ./.dagster).
    """


@main.command()
def demo() -> None:
    """Materialize every asset and partition of the profile, in order, and show the scoreboard."""
    with _plain_errors():
        settings, store = _settings_and_store()
        _run_steps(settings, store, backfill.steps_of(settings), force=False)
        _show_scoreboard(store)


@main.command()
@click.argument("outputs", nargs=-1)
@click.option("--force", is_flag=True, help="Make the outputs again although nothing has changed.")
def run(outputs: tuple[str, ...], *, force: bool) -> None:
    """Run what is not current: everything, or just OUTPUTS such as image_chips/helsinki/SYN03."""
    with _plain_errors():
        settings, store = _settings_and_store()
        steps = [backfill.step_named(name, settings) for name in outputs] or backfill.steps_of(settings)
        _run_steps(settings, store, list(dict.fromkeys(steps)), force=force)


@main.command()
@click.argument("outputs", nargs=-1)
def retry(outputs: tuple[str, ...]) -> None:
    """Try again what failed: of all outputs, or just of OUTPUTS such as image_chips/helsinki/SYN03.

    What is good stays as it is; what is made from it follows with `skyscript run`.
    """
    with _plain_errors():
        settings, store = _settings_and_store()
        if steps := backfill.retry_steps(outputs, settings, store):
            _run_steps(settings, store, steps, force=False, retry=True)
        else:
            console.print("nothing has failed: there is nothing to try again")


@main.command()
@click.option("--why", "output", metavar="OUTPUT", help="List what an output would be made from now and was not.")
def status(output: str | None) -> None:
    """Show, for every asset, how many partitions are current, stale, missing, waiting or not covered."""
    with _plain_errors():
        settings, store = _settings_and_store()
        outputs = Outputs(STAGES, settings, store)
        if output is not None:
            console.print(_why(outputs, output), soft_wrap=True)
            return
        table = Table("asset", "current", "stale", "missing", "waiting", "not covered", "no longer in the settings")
        table.columns[0].no_wrap = True
        for stage in STAGES.values():
            known = partitions_of(stage.scheme, settings)
            states = Counter(outputs.state(stage, partition).value for partition in known)
            every = 1
            for dimension in stage.scheme.dimensions:
                every *= len(keys_of(dimension, settings))
            names = {stage.key(settings, partition) for partition in known}
            left = [str(key) for key in store.keys(stage.name) if key not in names]
            shown = [states[name] for name in ("current", "stale", "missing", "waiting for upstream")]
            cells = [str(count) if count else "·" for count in (*shown, every - len(known))]
            table.add_row(stage.name, *cells, ", ".join(left))
        console.print(table)


@main.command()
def sources() -> None:
    """List the profile's image sources, what each needs, and whether that is here; no service is asked."""
    with _plain_errors():
        settings, _ = _settings_and_store()
        table = Table("source", "title", "kind", "GSD m", "extent", "needs", "licence", "can be read here")
        for key, source in settings.sources.items():
            kind = source_kind(source.kind)
            needed = kind.requirements(source, settings.shared)
            missing = [requirement.remedy for requirement in needed if not requirement.met]
            box = source.extent
            extent = "world" if box is None else f"{box.west:g} {box.south:g} to {box.east:g} {box.north:g}"
            needs = ", ".join(["OSM objects"] * kind.needs_objects + [requirement.what for requirement in needed])
            here = f"[yellow]no[/]: {escape('; '.join(missing))}" if missing else "yes"
            facts = [source.title, source.kind, f"{source.gsd_m:g}", extent, needs or "nothing", source.licence]
            table.add_row(key, *map(escape, facts), here)
        console.print(table)


@main.command()
def estimate() -> None:
    """Show what cutting the chips that are planned and not yet cut will take: requests, disk, time."""
    with _plain_errors():
        settings, store = _settings_and_store()
        cut, planned = STAGES["image_chips"], STAGES["chip_plan"]
        outputs = Outputs(STAGES, settings, store)
        uncut = [
            partition
            for partition in partitions_of(cut.scheme, settings)
            if outputs.state(cut, partition) is not State.CURRENT
        ]
        known = [partition for partition in uncut if outputs.record(planned.key(settings, partition)) is not None]
        table = Table("region", "source", "chips", "scenes", "source MB", "requests", "disk MB", "minutes")
        for partition in known:
            found = estimate_of(EstimateConfig.of(settings, partition), store, partition)
            cells = (found.source_bytes / 1e6, found.requests, found.disk_bytes / 1e6, found.seconds / 60)
            numbers = [f"{cell:,.{digits}f}" for cell, digits in zip(cells, (0, 0, 1, 1), strict=True)]
            table.add_row(*partition, f"{found.chips:,}", f"{found.scenes:,}", *numbers)
        console.print(table)
        console.print(f"{len(uncut) - len(known)} more have no plan yet: skyscript run chip_plan/REGION/SOURCE")


def _why(outputs: Outputs, name: str) -> Table | str:
    """What an output was made from against what it would be made from now; a reason where there is no such table."""
    step = backfill.step_named(name, outputs.settings)
    (stage,) = step.stages
    state = outputs.state(stage, step.partition)
    found = outputs.differences(stage, step.partition)
    if state in (State.MISSING, State.BLOCKED) or not found:
        missing = ", ".join(map(str, outputs.provenance(stage, step.partition).required))
        return f"{name} is {state.value}" + (f": {escape(missing)} missing" if missing else "")
    held = ", frozen: it stays as it is" if stage.frozen_as is not None else ""
    table = Table("what", "before", "now", title=f"{name} is {state.value}{held}", title_justify="left")
    for what, before, now in found:
        table.add_row(*(escape("-" if value is None else str(value)) for value in (what, before, now)))
    return table


def _settings_and_store() -> tuple[Settings, Store]:
    plant = _plant()
    settings = load_settings(Path(plant.settings_folder))
    return settings, plant.store()


def _plant() -> Plant:
    from skyscript_assets.definitions import plant_from_environment

    return plant_from_environment()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """End with the message alone where an error was raised on purpose."""
    try:
        yield
    except SkyScriptError as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped; finished parts are kept: the same command continues")
        sys.exit(130)


@contextmanager
def _instance() -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME; by default one in ./.dagster with the settings of ./dagster.yaml."""
    home = Path(os.environ.get("DAGSTER_HOME") or ".dagster").absolute()
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists() and Path("dagster.yaml").exists():
            shutil.copyfile("dagster.yaml", config)
        elif not config.exists():
            # Without a file Dagster would collect usage statistics, and say so at length.
            config.write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the folder of run records {home} cannot be used ({error}); set DAGSTER_HOME") from error
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance:
        yield instance


def _run_steps(
    settings: Settings, store: Store, steps: list[backfill.Step], *, force: bool, retry: bool = False
) -> None:
    from skyscript_assets.definitions import build_defs

    started = time.monotonic()
    ran = 0
    failed: list[backfill.StepResult] = []
    with _instance() as instance, _bar() as bar:
        task = bar.add_task("", total=len(steps), now="")
        defs = build_defs(settings, _plant())

        def begin(step: backfill.Step) -> None:
            bar.update(task, description=f"{step.level.name} {step.title}", now="")

        def progress(done: int, total: int, unit: str) -> None:
            bar.update(task, now=f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}")

        for result in backfill.run_all(
            defs, settings, store, instance, steps=steps, begin=begin, progress=progress, force=force, retry=retry
        ):
            bar.advance(task)
            ran += result.ran
            if result.ran:
                bar.console.print(_line(result), soft_wrap=True)
            if result.error is not None or result.failed_checks:
                failed.append(result)
    _report(settings, store, started, ran, len(steps))
    if failed:
        raise SkyScriptError("\n".join(_failure(result) for result in failed))


def _bar() -> ProgressBar:
    columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    return ProgressBar(
        *columns, TextColumn("[dim]{task.fields[now]}"), TimeElapsedColumn(), console=console, transient=True
    )


def _line(result: backfill.StepResult) -> str:
    sign = "[green]✓[/]" if result.error is None and not result.failed_checks else "[red]✗[/]"
    times = " · ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    return f"{sign} {result.step.level.name:<16} {result.step.title:<32} [dim]{times}[/]"


def _failure(result: backfill.StepResult) -> str:
    what = result.error or f"failed checks: {', '.join(result.failed_checks)}"
    return f"{result.step.level.name} {result.step.title}: {what}"


def _report(settings: Settings, store: Store, started: float, ran: int, steps: int) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if ran:
        seconds = time.monotonic() - started
        console.print(
            f"\n{ran} of {steps} runs of profile [bold]{escape(settings.plant.title)}[/] in {seconds:.0f} s, "
            f"peak memory {memory:.2f} GB, {store.size_bytes() / 1e6:.0f} MB in {escape(str(store.local))}"
        )
    else:
        console.print(
            f"nothing has changed: all {steps} runs of profile {escape(settings.plant.title)} are current, none started"
        )


def _show_scoreboard(store: Store) -> None:
    folder = store.folder(OutputKey("scoreboard"))
    console.print(Markdown((folder / "scoreboard.md").read_text(encoding="utf-8")))
    console.print(
        f"\nchips and captions: {store.local / 'caption_shards'}\nscoreboard:         {folder / 'scoreboard.md'}\n"
        "lineage and runs:   `make ui`, then open http://127.0.0.1:3000"
    )


if __name__ == "__main__":
    main()
