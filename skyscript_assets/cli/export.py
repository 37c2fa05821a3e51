"""`skyscript export`: pairs as a folder in a format of others."""

from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from skyscript_assets.assets import STAGES
from skyscript_assets.cli.shared import console, every_output, pair_folders, progress_bar
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.pairs.export import FORMATS
from skyscript_assets.lib.pairs.export import export as write_export
from skyscript_assets.lib.pairs.selection import Selection
from skyscript_assets.lib.pairs.table import partition_folders
from skyscript_assets.lib.settings.base import STYLES


def _tag(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    for each in given:
        if "=" not in each:
            raise click.BadParameter(f"{each!r} is no KEY=VALUE")
    return tuple((key, value) for key, _, value in (each.partition("=") for each in given))


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="webdataset", show_default=True)
@click.option("--style", type=click.Choice(STYLES), default="title", show_default=True, help="Style of the caption.")
@click.option("--prefix", default="", help='Put before it, such as "a satellite image of ".')
@click.option("--share", type=click.FloatRange(0, 1), default=1.0, help="Only the best share by rank_share.")
@click.option(
    "--split", "splits", multiple=True, default=SPLITS, type=click.Choice(SPLITS), help="Only this; may be repeated."
)
@click.option("--region", "regions", multiple=True, help="Only this region; may be repeated.")
@click.option("--source", "sources", multiple=True, help="Only this source; may be repeated.")
@click.option("--max-gsd", "max_gsd_m", type=float, default=float("inf"), metavar="METRES", help="Only so fine chips.")
@click.option("--tag", "tags", multiple=True, callback=_tag, metavar="KEY=VALUE", help="Only objects with such a tag.")
def export(out: Path, form: str, **wanted: Any) -> None:
    """Write eligible pairs of the training manifest into the new folder OUT, with credits.json.

    webdataset: shards for open_clip; skyscript: its CSVs; parquet, imagefolder: for Hugging Face datasets; llava,
    coco-captions: for captioning; coco: boxes and polygons for detection and segmentation.
    """
    outputs = every_output()
    manifest = STAGES["training_manifest"].key(outputs.settings, ())
    if outputs.head(manifest) is None:
        raise SkyScriptError("there is no training manifest yet: skyscript run training_manifest")
    folders = partition_folders(partial(pair_folders, outputs))
    table = outputs.store.folder(manifest) / "manifest.parquet"
    with progress_bar() as progress:
        counts = write_export(form, table, folders, Selection(**wanted), out, progress)
    told = ", ".join(f"{n:,} {split}" for split, n in counts.items())
    console.print(f"{told} pairs as {form} in {escape(str(out))}; whose they are stands in credits.json")
