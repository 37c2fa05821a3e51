"""`skyscript why`: what became of one object or chip, on one screen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from skyscript_assets.assets import PAIRS, STAGES
from skyscript_assets.assets.chips import plan_materials
from skyscript_assets.cli.shared import console, plain_errors, settings_and_store
from skyscript_assets.cli.status import plain_table, standing
from skyscript_assets.lib.chips.plan import Ground, PlanInputs, PlanRules
from skyscript_assets.lib.pairs.trace import Made, trace
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import Outputs, Run


@click.command()
@click.argument("asked", metavar="OBJECT|CHIP")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def why(asked: str, *, as_json: bool) -> None:
    """Show what became of an object (w123456) or a chip: tags, plans, image, captions, score, place in the manifest."""
    with plain_errors():
        settings, store = settings_and_store()
        outputs = Outputs(STAGES, settings, store)

        def folder(asset: str, *partition: str) -> Path | None:
            found = standing(outputs, STAGES[asset], partition, None)
            return store.folder(STAGES[asset].key(settings, partition)) if found.size_bytes is not None else None

        def planned_from(*pair: str) -> tuple[Ground, PlanInputs, PlanRules] | None:
            known = outputs.provenance(STAGES["chip_plan"], pair)
            run = Run(known.config, pair, store.local, known.inputs, (), store)
            return None if known.required else plan_materials(run)

        pairs = partitions_of(PAIRS.scheme, settings)
        sources = {region: [other for one, other in pairs if one == region] for region in settings.regions}
        told = trace(asked, Made(sources, folder, planned_from))
        for one in told["sources"]:
            stood = [standing(outputs, stage, (one["region"], one["source"]), None) for stage in PAIRS.stages]
            one["not_current"] = {each.asset: each.shown for each in stood if each.shown != "current"}
        if as_json:
            click.echo(json.dumps(told, indent=1, default=str))
            return
        _show(told)


def _show(told: Mapping[str, Any]) -> None:
    for one in told["objects"]:
        size = f"{one['area_m2']:,.0f} m²" if one["area_m2"] else f"{one['length_m']:,.0f} m"
        belongs = "" if one["belongs_to"] == one["region"] else f", planned by region {escape(one['belongs_to'])}"
        facts = (
            f"{one['kind']}, {size}, in region {escape(one['region'])}{belongs}, at {one['lat']:.5f} {one['lon']:.5f}"
        )
        console.print(f"[bold]{one['object_id']}[/]  {facts}\n{one['osm']}  edited {str(one['timestamp'])[:10]}\n")
    tags = plain_table("tag", "seen up to", "decided by", "p visible", numbers=1)
    tags.columns[0].no_wrap = False
    for tag in told["tags"]:
        gsd = tag["frozen_gsd_m"] or tag["coarsest_gsd_m"]
        by = tag["decided_by"] or f"not used: {tag['not_used_as'] or 'not counted'}"
        p = "" if tag["p_visible"] is None else f"{tag['p_visible']:.2f}"
        tags.add_row(escape(f"{tag['key']}={tag['value']}"), f"{gsd:g} m" if gsd else "·", by, p)
    console.print(tags)
    for one in told["sources"]:
        reason = f": {escape(one['why'])}" if one["why"] else ""
        console.print(f"\n[bold]{escape(one['region'])} {escape(one['source'])}[/]  {one['outcome']}{reason}")
        lines = Table.grid("", "", padding=(0, 2))
        for tag in one["draws"]:
            named = f"{tag['key']}={tag['value']}"
            lines.add_row("tag", escape(f"{named} draws about {tag['wanted']:,} of its {tag['n_plannable']:,} objects"))
        for what, said in (line for chip in one["chips"] for line in _chip(chip)):
            lines.add_row(what, escape(said))
        if one["not_current"]:
            states = (f"{asset} is {state}" for asset, state in one["not_current"].items())
            lines.add_row("but", f"[yellow]{', '.join(states)}[/]")
        console.print(lines)


def _chip(chip: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is told of a chip, line by line; what is not made is passed over."""
    image, written, score, pair = (chip[what] for what in ("image", "captions", "score", "manifest"))
    yield "chip", chip["chip_id"]
    yield "", f"{chip['width']} x {chip['height']} px of {chip['gsd_m']:.3g} m, scene {chip['scene_id']}"
    yield "", f"drawn for {chip['stratum']}, split {chip['split']}, cell {chip['cell']}"
    if image:
        yield "image", " ".join(filter(None, (image["status"], image["reason"])))
        if image["shard"]:
            yield "", f"image_chips/{chip['region']}/{chip['source']}/{image['shard']}"
            yield "", f"{image['length']:,} bytes at {image['offset']:,}"
        measures = ((name, image[name]) for name in ("sharpness", "contrast", "cloud_share", "nodata_share"))
        yield "", ", ".join(f"{name} {value:.3g}" for name, value in measures if value is not None)
    if chip["failure"]:
        yield "", chip["failure"]["error"]
    if written:
        yield "title", written["title"]
        yield "multi", written["title_multi_objects"]
        for proof in written["trace"]:
            yield "because", f"{proof['key']}={proof['value']}: {proof['phrase']} ({proof['role']})"
    if score:
        yield "score", f"{score['score']:.4f} by {score['scorer']}"
    if pair:
        share, used = pair["rank_share"], pair["eligible"]
        rank = "without a rank" if share is None else f"among the best {share:.1%} of its source"
        yield "manifest", f"{'eligible' if used else 'not used, ' + pair['dropped_because']}, {rank}"
