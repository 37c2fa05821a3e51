"""Commands that run: `demo`, `run`, `retry`. Everything that runs is a Dagster run."""

import resource
import time
from typing import Any

import click
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from skyscript_assets import backfill, runs
from skyscript_assets.cli.shared import console, every_output, instance
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.provenance import Outputs

_waiting = click.option(
    "--wait", default=60.0, show_default=True, metavar="MINUTES", help="How long a run may wait for a slot of a pool."
)


@click.command()
@_waiting
def demo(wait: float) -> None:
    """Materialize every asset and partition of the profile, in order, and show the scoreboard."""
    every = every_output()
    _run_steps(every, backfill.steps_of(every.settings), wait)
    _show_scoreboard(every.store)


@click.command()
@click.argument("outputs", nargs=-1)
@click.option("--force", is_flag=True, help="Make the outputs again although nothing has changed.")
@_waiting
def run(outputs: tuple[str, ...], wait: float, *, force: bool) -> None:
    """Run what is not current: everything, or OUTPUTS such as image_chips/helsinki/SYN03, after what they lack."""
    every = every_output()
    steps = backfill.steps_to(outputs, every.settings, every.store) or backfill.steps_of(every.settings)
    _run_steps(every, steps, wait, force=force)


@click.command()
@click.argument("outputs", nargs=-1)
@_waiting
def retry(outputs: tuple[str, ...], wait: float) -> None:
    """Try again what failed: of all outputs, or just of OUTPUTS such as image_chips/helsinki/SYN03.

    What is good stays as it is; what is made from it follows with `skyscript run`.
    """
    every = every_output()
    if steps := backfill.retry_steps(outputs, every.settings, every.store):
        _run_steps(every, steps, wait, retry=True)
    else:
        console.print("nothing has failed: there is nothing to try again")


def _run_steps(every: Outputs, steps: list[backfill.Step], wait: float, **how: Any) -> None:
    from skyscript_assets.definitions import build_defs, plant_from_environment

    settings, store, started = every.settings, every.store, time.monotonic()
    results: list[backfill.StepResult] = []
    with instance() as records, _bar() as bar, runs.STOP, runs.signals_deferred():
        runs.wait_here(records, 60 * wait)
        task = bar.add_task("", total=len(steps), now="")
        defs = build_defs(settings, plant_from_environment())
        for line in runs.close_dead_runs(records):
            bar.console.print(line)

        def begin(step: backfill.Step) -> None:
            bar.update(task, description=f"{step.level.name} {step.title}", now="")

        def progress(done: int, total: int, unit: str) -> None:
            bar.update(task, now=f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}")

        how |= {"steps": steps, "begin": begin, "progress": progress}
        for result in backfill.run_all(defs, settings, store, records, **how):
            results.append(result)
            bar.advance(task)
            if result.ran:
                bar.console.print(_line(result), soft_wrap=True)
                for warning in result.warnings:
                    bar.console.print(f"  [yellow]![/] {escape(warning)}", soft_wrap=True)
    if ran := sum(result.ran for result in results):
        memory, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, time.monotonic() - started
        console.print(
            f"\n{ran} of {len(steps)} runs of profile [bold]{escape(settings.plant.title)}[/] in {seconds:.0f} s, "
            f"peak memory {memory:.2f} GB, {store.size_bytes() / 1e6:.0f} MB in {escape(str(store.local))}"
        )
    else:
        known = f"all {len(steps)} runs of profile {escape(settings.plant.title)}"
        console.print(f"nothing has changed: {known} are current, none started")
    failed = [
        f"{result.step.level.name} {result.step.title}: {result.error}"
        for result in results
        if result.error is not None
    ]
    if failed:
        raise SkyScriptError("\n".join(failed))


def _bar() -> ProgressBar:
    columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}"))
    return ProgressBar(
        *columns, TextColumn("[dim]{task.fields[now]}"), TimeElapsedColumn(), console=console, transient=True
    )


def _line(result: backfill.StepResult) -> str:
    sign = "[green]✓[/]" if result.error is None else "[red]✗[/]"
    times = " · ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    return f"{sign} {result.step.level.name:<16} {result.step.title:<32} [dim]{times}[/]"


def _show_scoreboard(store: Store) -> None:
    folder = store.folder(OutputKey("scoreboard"))
    console.print(Markdown((folder / "scoreboard.md").read_text(encoding="utf-8")))
    console.print(
        f"\nchips and captions: {store.local / 'caption_shards'}\n"
        f"scoreboard:         {store.local / 'scoreboard/scoreboard.md'}\n"
        "lineage and runs:   `make ui`, then open http://127.0.0.1:3000"
    )
