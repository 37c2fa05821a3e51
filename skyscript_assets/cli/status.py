"""`skyscript status`: how every output stands, why, and what to type next."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import click
import dagster as dg
from rich.markup import escape
from rich.table import Table

from skyscript_assets import backfill
from skyscript_assets.asset import Stage
from skyscript_assets.assets import PAIRS, STAGES
from skyscript_assets.cli.shared import console, every_output, instance
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

ERRORS_READ = 20
"""Runs whose log is looked into for their error, the latest ones: it takes 25 ms each."""

Standing = dict[str, Any]
"""How an output stands: an entry of `outputs` in the document of `--json`, which docs/guide.md describes."""

_Key = TypeVar("_Key", bound=Hashable)
_LastRuns = dict[tuple[str, str | None], dict[str, Any]]


@click.command()
@click.option("--why", "output", metavar="OUTPUT", help="List what an output would be made from now and was not.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document with every output instead.")
def status(output: str | None, *, as_json: bool) -> None:
    """Show how every output stands and why, region by source, and what to type next."""
    outputs = every_output()
    if output is not None:
        console.print(_why(outputs, output), soft_wrap=True)
        return
    runs, trouble = _last_runs()
    every = [(stage, key) for stage in STAGES.values() for key in partitions_of(stage.scheme, outputs.settings)]
    document: dict[str, Any] = {
        "profile": outputs.settings.plant.title,
        "data": outputs.store.root,
        "run_records": trouble,
        "outputs": [standing(outputs, stage, key, runs.get((stage.name, key_of(key)))) for stage, key in every],
        "no_longer_in_the_settings": [str(key) for key in left_out(outputs)],
    }
    document["next"] = _next(document)
    if as_json:
        click.echo(json.dumps(document, indent=1))
        return
    console.print(_counted("asset", _grouped(document["outputs"], itemgetter("asset"))))
    console.print(_reasons(document["outputs"]))
    console.print("  ".join(f"{sign} {state}" for state, sign in SIGNS.items()))
    console.print(_pairs(outputs, document["outputs"]))
    for line in _notes(document):
        console.print(escape(line))


def left_out(outputs: Outputs) -> list[OutputKey]:
    """Outputs of the store that the settings do not name: partitions and snapshots that were taken out of them."""
    named = {
        stage.key(outputs.settings, partition)
        for stage in STAGES.values()
        for partition in partitions_of(stage.scheme, outputs.settings)
    }
    return [key for name in STAGES for key in outputs.heads.names(name) if key not in named]


def standing(
    outputs: Outputs, stage: Stage, partition: Partition, last_run: Mapping[str, Any] | None = None
) -> Standing:
    """How an output stands; `last_run` is the last one where that has not made it."""
    key, state = stage.key(outputs.settings, partition), outputs.state(stage, partition)
    head = outputs.head(key)
    failed = state is not State.CURRENT and last_run is not None and last_run["status"] in ("failure", "canceled")
    return {
        "asset": stage.name,
        "partition": key.partition,
        "state": "failed" if failed else state.value.partition(" ")[0],
        "reasons": [found._asdict() for found in outputs.differences(stage, partition)] if state is State.STALE else [],
        "problem": outputs.problem(key),
        "size_bytes": None if head is None else head.size_bytes,
        "failed_items": 0 if head is None else head.failed,
        "last_run": last_run,
    }


def _last_runs() -> tuple[_LastRuns, str | None]:
    """The last runs that have not made their outputs, by asset and partition key; what hinders reading them, if so."""
    home = Path(os.environ.get("DAGSTER_HOME") or ".dagster").absolute()
    if not (home / "dagster.yaml").exists():
        return {}, f"no run has been recorded in {home}"
    try:
        with instance() as records:
            return _unfinished(records), None
    except Exception as error:  # noqa: BLE001 - each kind of instance fails in its own way, and the store can be shown
        return {}, f"the run records of {home} cannot be read ({str(error).split(chr(10))[0]})"


def _unfinished(records: dg.DagsterInstance) -> _LastRuns:
    tried: dict[tuple[str, str | None], str] = {}
    single = [dg.AssetKey(name) for name, stage in STAGES.items() if not stage.scheme.dimensions]
    for record in records.get_asset_records(single):
        entry, made = record.asset_entry, record.asset_entry.last_materialization
        if entry.last_run_id is not None and entry.last_run_id != (made and made.run_id):
            tried[entry.asset_key.path[-1], None] = entry.last_run_id
    attempts = records.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations
    for name in (name for name, stage in STAGES.items() if stage.scheme.dimensions):
        tried |= {(name, partition): run for partition, (run, _) in attempts(dg.AssetKey(name)).items()}
    # Of the assets of a run the first in the pipeline's order is what failed, or goes on: later ones were not tried.
    first = {run_id: what for what, run_id in reversed(tried.items())}
    runs = records.get_runs(dg.RunsFilter(run_ids=sorted(first))) if first else ()
    ended = [run.run_id for run in runs if run.is_failure_or_canceled]
    errors = {run_id: _error(records, run_id) for run_id in ended[:ERRORS_READ]}
    return {
        first[run.run_id]: {"id": run.run_id, "status": run.status.value.lower(), "error": errors.get(run.run_id)}
        for run in runs
    }


def _error(records: dg.DagsterInstance, run_id: str) -> str | None:
    for failure in records.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records:
        return backfill.message_of(failure.event_log_entry.get_dagster_event().step_failure_data)
    return None


def _grouped(found: Iterable[Standing], key: Callable[[Standing], _Key]) -> dict[_Key, list[Standing]]:
    groups = defaultdict(list)
    for one in found:
        groups[key(one)].append(one)
    return groups


def plain_table(*headings: str, numbers: int, padding: int = 2) -> Table:
    """A table without lines; that many columns after the first are set to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, padding, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, no_wrap=True, justify="right" if 0 < place <= numbers else "left")
    return table


def _counted(heading: str, groups: Mapping[str, Sequence[Standing]]) -> Table:
    """How many outputs of each group stand how, and their size."""
    table = plain_table(heading, *reversed(SIGNS), "size", numbers=len(SIGNS) + 1)
    for name, found in groups.items():
        states = Counter(one["state"] for one in found)
        counts = [str(states[state] or "·") for state in reversed(SIGNS)]
        table.add_row(escape(name), *counts, _size(found))
    return table


def _reasons(found: Sequence[Standing]) -> str:
    """Of each asset the most frequent reason for which outputs are stale, failed or unreadable."""
    lines = [""]
    for (asset, state), alike in _grouped(found, itemgetter("asset", "state")).items():
        if state in ("unreadable", "failed", "stale"):
            reasons = Counter(reason for one in alike for reason in dict.fromkeys(_in_words(one)))
            # Of equally frequent ones the cause: an input differs because of something else.
            first, _ = max(reasons.items(), key=lambda item: (item[1], not item[0].startswith("input ")))
            others = f" (and {len(reasons) - 1} more: skyscript status --why)" if len(reasons) > 1 else ""
            lines.append(f"{SIGNS[state]} {asset} {state}: {escape(first)}{others}")
    return "\n".join(lines)


def _in_words(one: Standing) -> list[str]:
    """Why an output is not current."""
    if one["state"] == "failed":
        return [" ".join((one["last_run"]["error"] or "no error is known: see the run").split())]
    words = []
    for what, before, now in map(dict.values, one["reasons"]):
        kind, _, name = what.partition(".")
        values = ["-" if value is None else str(value) for value in (before, now)]
        change = f" {values[0]} -> {values[1]}" if max(map(len, values)) <= 20 else ""
        gone = " is gone" if now is None else " is new" if before is None else ""
        words.append(f"input {name.partition('/')[0]}{gone}" if kind == "inputs" else f"{kind} {name}".strip() + change)
    return words or [one["problem"] or "a secret of the settings, or the layout of the store"]


def _pairs(outputs: Outputs, found: Sequence[Standing]) -> Table:
    """Regions by sources: how all outputs of a pair stand together, and their size."""
    pairs = _grouped((one for one in found if STAGES[one["asset"]] in PAIRS.stages), itemgetter("partition"))
    sources = keys_of("source", outputs.settings)
    table = plain_table("region", *map(escape, sources), numbers=len(sources), padding=1)
    for region in keys_of("region", outputs.settings):
        table.add_row(escape(region), *(_cell(pairs.get((region, source), ())) for source in sources))
    if console.measure(table, options=console.options.update(width=9_999)).maximum <= console.width:
        return table
    return _counted("source", _grouped(chain(*pairs.values()), lambda one: one["partition"][1]))


def _cell(pair: Sequence[Standing]) -> str:
    states = {one["state"] for one in pair}
    worst = next((sign for state, sign in SIGNS.items() if state in states), "")
    return worst + _size(pair) if pair else ""


def _notes(document: Mapping[str, Any]) -> list[str]:
    found, left = document["outputs"], document["no_longer_in_the_settings"]
    failed = [one["failed_items"] for one in found if one["failed_items"]]
    notes = [
        f"{sum(failed):,} items of {len(failed)} outputs could not be read" if failed else None,
        f"{len(left)} outputs are no longer in the settings, such as {left[0]}" if left else None,
        document["run_records"],
        f"next: {document['next']}",
    ]
    return ["", *filter(None, notes)]


def _next(document: Mapping[str, Any]) -> str:
    """The command to type."""
    if any(one["state"] != "current" for one in document["outputs"]):
        return "skyscript run"
    if any(one["failed_items"] for one in document["outputs"]):
        return "skyscript retry"
    return "skyscript clean" if document["no_longer_in_the_settings"] else "nothing, all is current"


def _size(found: Iterable[Standing]) -> str:
    """Bytes of outputs in at most four characters."""
    number = sum(one["size_bytes"] or 0 for one in found)
    steps = min(4, int(math.log(max(number, 1), 999.5)))
    scaled = number / 1000**steps
    return f"{scaled:.{1 if steps and scaled < 9.95 else 0}f}{' kMGT'[steps].strip()}"


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
