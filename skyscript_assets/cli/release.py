"""`skyscript release`: where the data set is that is given away, and its way to a bucket."""

from __future__ import annotations

import click
from rich.markup import escape
from rich.progress import Progress as ProgressBar

from skyscript_assets.assets import STAGES
from skyscript_assets.cli.shared import console, every_output
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.release.push import push


@click.command()
@click.option("--push", "address", metavar="ADDRESS", help="Send it to s3://bucket/folder, gs:// or az://.")
def release(address: str | None) -> None:
    """Show the release (asset dataset_release), or send it; a push that was cut goes on where it stopped."""
    outputs = every_output()
    key = STAGES["dataset_release"].key(outputs.settings, ())
    record = outputs.record(key)
    if record is None or not record.counts["pairs"]:
        raise SkyScriptError("there is no release: state `release` in plant.yaml, then skyscript run dataset_release")
    folder = outputs.store.folder(key)
    console.print(f"{record.counts['pairs']:,} pairs in {escape(str(folder))}", soft_wrap=True)
    if address is not None:
        with ProgressBar(console=console, transient=True) as bar:
            task = bar.add_task("files", total=None)
            sent = push(folder, address, lambda done, total, _: bar.update(task, completed=done, total=total))
        console.print(f"{sent:,} files sent to {escape(address)}, which is now this release")
