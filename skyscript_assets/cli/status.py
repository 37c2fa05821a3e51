"""`skyscript status`: how every output stands, why, and what to type next."""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import dagster as dg
from rich.markup import escape
from rich.table import Table

from skyscript_assets import backfill
from skyscript_assets.asset import Stage
from skyscript_assets.assets import PAIRS, STAGES
from skyscript_assets.cli.shared import console, instance, plain_errors, settings_and_store
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.partitions import Partition, key_of, keys_of, partitions_of
from skyscript_assets.provenance import Outputs, State

SIGNS = {
    "unreadable": "[red]![/]",
    "failed": "[red]✗[/]",
    "stale": "[yellow]~[/]",
    "missing": "·",
    "waiting": "[dim]…[/]",
    "current": "[green]✓[/]",
}
"""What an output may be, the worst first, with its sign in the table of pairs."""

_ENDED_BADLY = ("failure", "canceled")


@dataclass(frozen=True)
class Standing:
    """How an output stands, as `--json` prints it.

    Attributes:
        asset: Its asset.
        partition: Its keys in the store.
        state: One of `SIGNS` but `failed`.
        reasons: What it would be made from now and was not: `what`, `before`, `now`.
        message: What is wrong with a record that cannot be read.
        size_bytes: Of its files, None where it is not made.
        failed_items: Those of its items that failed and may be tried again.
        last_run: The last run where that has not made it: `id`, `status` as Dagster has it, `error`.
    """

    asset: str
    partition: tuple[str, ...]
    state: str
    reasons: Sequence[Mapping[str, Any]] = ()
    message: str | None = None
    size_bytes: int | None = None
    failed_items: int = 0
    last_run: Mapping[str, Any] | None = None

    @property
    def shown(self) -> str:
        """The state as it is counted: an output whose last run failed is failed, unless it is current all the same."""
        failed = self.last_run is not None and self.last_run["status"] in _ENDED_BADLY
        return "failed" if failed and self.state != "current" else self.state

    @property
    def why(self) -> list[str]:
        """Why it is not current, in words."""
        if self.shown == "failed" and self.last_run is not None:
            return [" ".join((self.last_run["error"] or "the run ended without a result").split())]
        words = [_words(**reason) for reason in self.reasons]
        return words or [self.message or "a secret of the settings, or the layout of the store"]


@click.command()
@click.option("--why", "output", metavar="OUTPUT", help="List what an output would be made from now and was not.")
@click.option("--full", is_flag=True, help="Show every region in a line of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with every output instead.")
def status(output: str | None, *, full: bool, as_json: bool) -> None:
    """Show how every output stands and why, region by source, and what to type next."""
    with plain_errors():
        settings, store = settings_and_store()
        outputs = Outputs(STAGES, settings, store)
        if output is not None:
            console.print(_why(outputs, output), soft_wrap=True)
            return
        runs, trouble = _last_runs()
        found = [
            standing(outputs, stage, partition, runs.get((stage.name, key_of(partition))))
            for stage in STAGES.values()
            for partition in partitions_of(stage.scheme, settings)
        ]
        left = [str(key) for key in left_over(outputs)]
        following = _next(found, left)
        if as_json:
            document = {"profile": settings.plant.title, "data": store.root, "run_records": trouble}
            every = {"outputs": [asdict(one) for one in found], "no_longer_in_the_settings": left, "next": following}
            click.echo(json.dumps(document | every, indent=1))
            return
        console.print(_counted("asset", _grouped((one.asset, one) for one in found)))
        console.print(_reasons(found))
        console.print("  ".join(f"{sign} {state}" for state, sign in SIGNS.items()))
        console.print(_pairs(outputs, [one for one in found if STAGES[one.asset] in PAIRS.stages], full=full))
        for line in _notes(found, left, trouble):
            console.print(escape(line))
        console.print(f"next: [bold]{escape(following)}[/]")


def left_over(outputs: Outputs) -> list[OutputKey]:
    """Outputs of the store that the settings do not name: of partitions and snapshots that were left out of them."""
    named = {
        stage.key(outputs.settings, partition)
        for stage in STAGES.values()
        for partition in partitions_of(stage.scheme, outputs.settings)
    }
    return [key for name in STAGES for key in outputs.heads.names(name) if key not in named]


# -------------------------------------------------------------------------------------------------------- what there is


def standing(
    outputs: Outputs, stage: Stage, partition: Partition, last_run: Mapping[str, Any] | None = None
) -> Standing:
    """How an output stands."""
    key, state = stage.key(outputs.settings, partition), outputs.state(stage, partition)
    head = outputs.head(key)
    return Standing(
        stage.name,
        key.partition,
        state.value.partition(" ")[0],
        [reason._asdict() for reason in outputs.differences(stage, partition)] if state is State.STALE else [],
        outputs.problem(key),
        None if head is None else head.size_bytes,
        0 if head is None else head.failed,
        last_run,
    )


def _last_runs() -> tuple[dict[tuple[str, str | None], dict[str, Any]], str | None]:
    """The last runs that have not made their outputs, by asset and partition key; what hinders reading them, if so."""
    home = Path(os.environ.get("DAGSTER_HOME") or ".dagster").absolute()
    if not (home / "dagster.yaml").exists():
        return {}, f"no run has been recorded in {home}"
    try:
        with instance() as records:
            return _unfinished(records), None
    except Exception as error:  # noqa: BLE001 - each kind of instance fails in its own way, and the store can be shown
        return {}, f"the run records of {home} cannot be read ({error})"


def _unfinished(records: dg.DagsterInstance) -> dict[tuple[str, str | None], dict[str, Any]]:
    tried: dict[tuple[str, str | None], str] = {}
    single = [dg.AssetKey(name) for name, stage in STAGES.items() if not stage.scheme.dimensions]
    for record in records.get_asset_records(single):
        entry, made = record.asset_entry, record.asset_entry.last_materialization
        if entry.last_run_id is not None and entry.last_run_id != (made and made.run_id):
            tried[entry.asset_key.path[-1], None] = entry.last_run_id
    attempts = records.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations
    for name in (name for name, stage in STAGES.items() if stage.scheme.dimensions):
        tried |= {(name, partition): run for partition, (run, _) in attempts(dg.AssetKey(name)).items()}
    ids = sorted(set(tried.values()))
    runs = {run.run_id: run for run in (records.get_runs(dg.RunsFilter(run_ids=ids)) if ids else ())}
    errors = {run_id: _errors(records, run_id) for run_id, run in runs.items() if run.is_finished}
    return {
        what: {"id": run_id, "status": runs[run_id].status.value.lower(), "error": errors.get(run_id, {}).get(what[0])}
        for what, run_id in tried.items()
        # Where another step of its run failed, this one was not tried.
        if run_id in runs and (not errors.get(run_id) or what[0] in errors[run_id])
    }


def _errors(records: dg.DagsterInstance, run_id: str) -> dict[str | None, str]:
    """The error of each step of a run that failed."""
    found = records.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    events = [record.event_log_entry.get_dagster_event() for record in found]
    return {event.step_key: backfill.message_of(event.step_failure_data) for event in events}


# -------------------------------------------------------------------------------------------------------- what is shown


def _grouped(named: Iterable[tuple[str, Standing]]) -> dict[str, list[Standing]]:
    groups = defaultdict(list)
    for name, one in named:
        groups[name].append(one)
    return groups


def plain_table(*headings: str, numbers: int) -> Table:
    """A table without lines, `numbers` columns of it to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=True, justify="right" if 0 < place <= numbers else "left")
    return table


def _counted(heading: str, groups: Mapping[str, Sequence[Standing]]) -> Table:
    """How many outputs of each group stand how, and their size."""
    table = plain_table(heading, *reversed(SIGNS), "size", numbers=len(SIGNS) + 1)
    for name, outputs in groups.items():
        states = Counter(one.shown for one in outputs)
        counts = [str(states[state] or "·") for state in reversed(SIGNS)]
        table.add_row(escape(name), *counts, _size(sum(one.size_bytes or 0 for one in outputs)))
    return table


def _reasons(found: Sequence[Standing]) -> Table | str:
    """Of each asset the most frequent reason for which outputs are stale, failed or unreadable."""
    table = plain_table("\nwhy", numbers=0)
    for name, alike in _grouped((f"{one.asset} {one.shown}", one) for one in found).items():
        shown = alike[0].shown
        if shown in ("unreadable", "failed", "stale"):
            reasons = Counter(reason for one in alike for reason in dict.fromkeys(one.why))
            # Of equally frequent ones the cause: an input differs because of something else.
            first, _ = max(reasons.items(), key=lambda item: (item[1], not item[0].startswith("input ")))
            others = f" (and {len(reasons) - 1} more: skyscript status --why)" if len(reasons) > 1 else ""
            table.add_row(f"{SIGNS[shown]} {name}: {escape(first)}{others}")
    table.columns[0].no_wrap = False
    return table if table.row_count else ""


def _pairs(outputs: Outputs, found: Sequence[Standing], *, full: bool) -> Table:
    """Regions by sources: how all outputs of a pair stand together, and their size; alike regions in one line."""
    sources = keys_of("source", outputs.settings)
    pairs = _grouped((str(one.partition), one) for one in found)
    rows: dict[Any, list[tuple[str, list[int]]]] = defaultdict(list)
    for region in keys_of("region", outputs.settings):
        of_region = [pairs.get(str((region, source)), []) for source in sources]
        signs = tuple(next((s for s in SIGNS if any(one.shown == s for one in pair)), None) for pair in of_region)
        sizes = [sum(one.size_bytes or 0 for one in pair) for pair in of_region]
        rows[region if full else signs, signs].append((region, sizes))
    table = plain_table("region", *map(escape, sources), numbers=len(sources))
    table.padding = (0, 1, 0, 0)
    for (_, signs), regions in rows.items():
        total = map(sum, zip(*(sizes for _, sizes in regions), strict=True))
        cells = [f"{SIGNS[sign]}{_size(size)}" if sign else "" for sign, size in zip(signs, total, strict=True)]
        name = regions[0][0] + (f" +{len(regions) - 1}" if len(regions) > 1 else "")
        table.add_row(escape(name), *cells)
    if console.measure(table, options=console.options.update(width=9_999)).maximum <= console.width:
        return table
    return _counted("source", _grouped((one.partition[1], one) for one in found))


def _notes(found: Sequence[Standing], left: Sequence[str], trouble: str | None) -> list[str]:
    running = {one.last_run["id"] for one in found if one.last_run and one.last_run["status"] not in _ENDED_BADLY}
    failed = [one.failed_items for one in found if one.failed_items]
    notes = [
        f"{len(running)} runs under way" if running else "",
        f"{sum(failed):,} items of {len(failed)} outputs could not be read" if failed else "",
        f"{len(left)} outputs are no longer in the settings, such as {left[0]}" if left else "",
    ]
    return ["", *filter(None, (*notes, trouble))]


def _next(found: Sequence[Standing], left: Sequence[str]) -> str:
    """The command to type."""
    if any(one.state != "current" for one in found):
        return "skyscript run"
    if any(one.failed_items for one in found):
        return "skyscript retry"
    return "skyscript clean" if left else "nothing, all is current"


def _words(what: str, before: Any, now: Any) -> str:
    kind, _, name = what.partition(".")
    if kind == "inputs":
        gone = {(True, False): " (new)", (False, True): " (gone)"}.get((before is None, now is None), "")
        return f"input {name.partition('/')[0]}{gone}"
    values = ["-" if value is None else str(value) for value in (before, now)]
    change = f" {values[0]} -> {values[1]}" if max(map(len, values)) <= 20 else ""
    return f"{kind} {name}".strip() + change


def _size(number: float) -> str:
    """Bytes in at most four characters."""
    steps = min(4, int(math.log(max(number, 1), 999.5)))
    scaled = number / 1000**steps
    return f"{scaled:.1f}{' kMGT'[steps]}" if steps and scaled < 9.95 else f"{scaled:.0f}{' kMGT'[steps].strip()}"


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
