"""Commands that only look at the profile and its plans: `sources`, `estimate`."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.table import Table

from skyscript_assets.assets import STAGES
from skyscript_assets.assets.chips import EstimateConfig, estimate_of
from skyscript_assets.cli.shared import console, every_output
from skyscript_assets.lib.imagery.sources.kind import source_kind
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
