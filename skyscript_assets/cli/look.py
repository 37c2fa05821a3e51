"""Commands that list, and change nothing unless told to: `sources`, `estimate`, `gc`, `clean`."""

from collections import defaultdict

import click
from rich.markup import escape
from rich.table import Table

from skyscript_assets.assets import STAGES
from skyscript_assets.assets.chips import EstimateConfig, estimate_of
from skyscript_assets.cli.shared import console, every_output
from skyscript_assets.cli.status import left_out
from skyscript_assets.lib.imagery.sources.kind import source_kind
from skyscript_assets.lib.storage.garbage import Left, left_over, remove
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import State


@click.command()
def sources() -> None:
    """List the profile's image sources, what each needs, and whether that is here; no service is asked."""
    settings = every_output().settings
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


@click.command()
def estimate() -> None:
    """Show what cutting the chips that are planned and not yet cut will take: requests, disk, time."""
    outputs, cut, planned = every_output(), STAGES["image_chips"], STAGES["chip_plan"]
    settings, store = outputs.settings, outputs.store
    uncut = [
        partition
        for partition in partitions_of(cut.scheme, settings)
        if outputs.state(cut, partition) is not State.CURRENT
    ]
    known = [partition for partition in uncut if outputs.head(planned.key(settings, partition)) is not None]
    table = Table("region", "source", "chips", "scenes", "source MB", "requests", "disk MB", "minutes")
    for partition in known:
        found = estimate_of(EstimateConfig.of(settings, partition), store, partition)
        cells = (found.source_bytes / 1e6, found.requests, found.disk_bytes / 1e6, found.seconds / 60)
        numbers = [f"{cell:,.{digits}f}" for cell, digits in zip(cells, (0, 0, 1, 1), strict=True)]
        table.add_row(*partition, f"{found.chips:,}", f"{found.scenes:,}", *numbers)
    console.print(table)
    console.print(f"{len(uncut) - len(known)} more have no plan yet: skyscript run chip_plan/REGION/SOURCE")


@click.command()
@click.option("--delete", is_flag=True, help="Remove what is listed; without it nothing is changed.")
@click.option("--older-than", default=24.0, show_default=True, help="Hours for which it has not been in use.")
def gc(*, delete: bool, older_than: float) -> None:
    """List what no output needs: earlier versions, aborted work, uploads that were never named."""
    store = every_output().store
    groups: dict[tuple[str, str], list[Left]] = defaultdict(list)
    table = Table("output", "what", "number", "MB")
    with console.status(f"looking through {store.root}") as shown:
        found = list(left_over(store, older_than * 3600))
        for left in found:
            groups[str(left.key), left.what].append(left)
        for (output, what), group in sorted(groups.items()):
            table.add_row(output, what, str(len(group)), f"{sum(left.size_bytes for left in group) / 1e6:,.1f}")
        for number, left in enumerate(found if delete else ()):
            shown.update(f"removing {number + 1} of {len(found)}: {left.key}")
            remove(store, left)
    if found:
        console.print(table)
    verb = "removed" if delete else "could be removed (--delete)"
    size = sum(left.size_bytes for left in found) / 1e6
    console.print(f"{len(found)} things, {size:,.1f} MB, {verb}: not in use for {older_than:g} hours")


@click.command()
@click.option("--delete", is_flag=True, help="Remove what is listed; without it nothing is changed.")
def clean(*, delete: bool) -> None:
    """List outputs that the settings no longer name: of regions, sources, models, benchmarks and snapshots."""
    outputs = every_output()
    found = left_out(outputs)
    for key in found:
        head = outputs.head(key)
        console.print(f"{0 if head is None else head.size_bytes / 1e6:10,.1f} MB  {escape(str(key))}")
        if delete:
            outputs.store.remove(key)
    verb = "removed" if delete else "could be removed (--delete)"
    console.print(f"{len(found)} outputs, {verb}; what the settings name stays")
    if found and delete:
        wipe = " ".join(dict.fromkeys(key.asset for key in found if STAGES[key.asset].scheme.dimensions))
        console.print("their space is freed by: skyscript gc --delete, a day later")
        console.print(f"Dagster still shows them: dagster asset wipe {wipe}, then skyscript run records what is there")
