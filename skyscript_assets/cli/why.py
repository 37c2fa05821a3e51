"""`skyscript why`: what became of one object or chip, on one screen."""

import contextlib
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from skyscript_assets.assets import PAIRS, STAGES
from skyscript_assets.assets.chips import plan_materials
from skyscript_assets.cli.shared import console, every_output
from skyscript_assets.cli.status import plain_table, standing
from skyscript_assets.lib.pairs.trace import Made, Materials, trace
from skyscript_assets.lib.settings.base import SENTENCES, STYLES
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import Run

_OF_CHIP = (
    ("chip", "{chip_id}"),
    ("", "{width} x {height} px of {gsd_m:.3g} m, scene {scene_id}"),
    ("", "drawn for {stratum}, split {split}, cell {cell}"),
    ("image", "{image[status]}"),
    ("", "{image[reason]:s}"),
    ("", "{failure[error]:s}"),
    ("", "image_chips/{region}/{source}/{image[shard]:s}, {image[length]} bytes at {image[offset]}"),
    ("", "sharpness {image[sharpness]:.4g}, contrast {image[contrast]:.3g}, cloud {image[cloud_share]:.0%}"),
    ("title", "{captions[title]}"),
    ("multi", "{captions[title_multi_objects]}"),
    *((style, f"{{captions[{style}]}}") for style in SENTENCES),
    ("score", "{score[score]:.4f} by {score[scorer]}"),
    ("manifest", "eligible: {manifest[eligible]}"),
    ("", "{manifest[dropped_because]:s}"),
    ("", "among the best {manifest[rank_share]:.1%} of those it is ranked among"),
)
"""Lines about a chip; one that needs what is not made is left out."""


@click.command()
@click.argument("asked", metavar="OBJECT|CHIP")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
def why(asked: str, *, as_json: bool) -> None:
    """Show what became of an object (w123456) or a chip: tags, plans, image, captions, score, place in the manifest."""
    outputs = every_output()
    settings, store = outputs.settings, outputs.store

    @functools.cache
    def folder(asset: str, *partition: str) -> Path | None:
        key = STAGES[asset].key(settings, partition)
        return None if outputs.head(key) is None else store.folder(key)

    def planned_from(*pair: str) -> Materials | None:
        known = outputs.provenance(STAGES["chip_plan"], pair)
        run = Run(known.config, pair, store.local, known.inputs, (), store)
        return None if known.required else plan_materials(run)

    pairs = partitions_of(PAIRS.scheme, settings)
    sources = {region: [source for other, source in pairs if other == region] for region in settings.regions}
    told = trace(asked, Made(sources, folder, planned_from))
    for one in told["sources"]:
        stood = [standing(outputs, stage, (one["region"], one["source"])) for stage in PAIRS.stages]
        one["not_current"] = {each["asset"]: each["state"] for each in stood if each["state"] != "current"}
    if as_json:
        click.echo(json.dumps(told, indent=1, default=str))
    else:
        _show(told)


def _show(told: Mapping[str, Any]) -> None:
    for one in told["objects"]:
        size = f"{one['area_m2']:,.0f} m²" if one["area_m2"] else f"{one['length_m']:,.0f} m"
        belongs = "" if one["belongs_to"] == one["region"] else f", planned by region {one['belongs_to']}"
        facts = f"{one['kind']}, {size}, in region {one['region']}{belongs}, at {one['lat']:.5f} {one['lon']:.5f}"
        console.print(f"[bold]{one['object_id']}[/]  {facts}\n{one['osm']}  edited {str(one['timestamp'])[:10]}\n")
    tags = plain_table("tag", "seen up to", "p visible", "decided by", numbers=2)
    tags.columns[0].no_wrap = False
    for tag in told["tags"]:
        gsd, p = tag["frozen_gsd_m"] or tag["coarsest_gsd_m"], tag["p_visible"]
        by = tag["decided_by"] or f"not used: {tag['not_used_as'] or 'not counted'}"
        name = escape(f"{tag['key']}={tag['value']}")
        tags.add_row(name, f"{gsd:g} m" if gsd else "·", "·" if p is None else f"{p:.2f}", by)
    console.print(tags)
    for one in told["sources"]:
        reason = f": {escape(one['why'])}" if one["why"] else ""
        console.print(f"\n[bold]{one['region']} {one['source']}[/]  {one['outcome']}{reason}")
        lines = Table.grid("", "", padding=(0, 2))
        for what, said in _lines(one):
            lines.add_row(what, escape(said))
        console.print(lines)


def _lines(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is told of a source."""
    for tag in one["draws"]:
        yield "tag", f"{tag['key']}={tag['value']} draws about {tag['wanted']:,} of its {tag['n_plannable']:,} objects"
    for chip in one["chips"]:
        for what, line in _OF_CHIP:
            with contextlib.suppress(TypeError):  # of None
                yield what, line.format(**chip)
        for scorer, scores in (chip["score"] or {"scores": {}})["scores"].items():
            of_styles = [f"{style} {score:.4f}" for style, score in scores.items() if score is not None]
            yield "scores", f"{', '.join(of_styles)} by {scorer}"
        for proof in chip["captions"]["trace"] if chip["captions"] else ():
            # What a shorter style says, the longest says too.
            if proof["style"] not in STYLES[2:-1]:
                objects, role = ", ".join(proof["object_ids"]), f"{proof['role']} {proof['fact']}".strip()
                yield "because", f"{objects} {proof['key']}={proof['value']}: {proof['phrase']} ({role})"
    if one["not_current"]:
        yield "but", ", ".join(f"{asset} is {state}" for asset, state in one["not_current"].items())
