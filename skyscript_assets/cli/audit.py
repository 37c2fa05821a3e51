"""`skyscript audit`: let people judge a blind sample of captions, and read what they say."""

import json
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from skyscript_assets.assets import STAGES
from skyscript_assets.cli.shared import console, every_output
from skyscript_assets.lib.captions.audit import Captioned, judged, read_verdicts, write_audit
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.partitions import partitions_of

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("number", metavar="N", type=click.IntRange(min=1), default=100)
@click.option("--seed", default=0, show_default=True, help="Another seed draws another sample.")
@click.option("--style", "styles", multiple=True, type=click.Choice(STYLES), help="Only this style; may be repeated.")
@click.option("--synthetic", is_flag=True, help="Also draw chips of synthetic imagery, which prove nothing.")
@click.option("--out", type=_FILE, default="audit.html", show_default=True, help="The page.")
@click.option(
    "--read", "verdicts", multiple=True, type=_FILE, help="Read verdicts that the page saved; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="With --read: print one JSON document instead.")
def audit(
    number: int,
    *,
    seed: int,
    styles: tuple[str, ...],
    synthetic: bool,
    out: Path,
    verdicts: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Draw N captions of each style onto one page for people to judge, or read their verdicts.

    Open the page in a browser: keys 1 (right) and 0 (wrong). Send it to a second reader to know how far they agree.
    """
    if verdicts:
        figures = judged(one for path in verdicts for one in read_verdicts(path))
        if as_json:
            click.echo(json.dumps(figures, indent=1))
            return
        table = Table("style", "captions", "right", "share", "95 %", "kappa", "faults, times told")
        for one in figures:
            told = ", ".join(f"{fault} {times}" for fault, times in one["faults"].items())
            between = f"{one['low']:.1%} to {one['high']:.1%}"
            kappa = "" if one["kappa"] is None else f"{one['kappa']:.2f}"
            cells = (one["style"], one["captions"], one["right"], f"{one['share']:.1%}", between, kappa, escape(told))
            table.add_row(*map(str, cells))
        console.print(table)
        return
    outputs = every_output()
    stages = [STAGES[name] for name in ("chip_plan", "image_chips", "captions")]
    made = [
        Captioned(*(outputs.store.folder(stage.key(outputs.settings, pair)) for stage in stages))
        for pair in partitions_of(stages[0].scheme, outputs.settings)
        if all(outputs.head(stage.key(outputs.settings, pair)) is not None for stage in stages)
    ]
    drawn = write_audit(made, number, seed, styles or STYLES, out, synthetic=synthetic)
    console.print(f"{drawn} captions of {len(made)} partitions on {escape(str(out))}: open it in a browser")
