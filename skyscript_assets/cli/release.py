"""`skyscript release`, `rebuild`, `recaption`: the data set that is given away; its images and its captions anew."""

import sys
from pathlib import Path

import click
from rich.markup import escape

from skyscript_assets.assets import STAGES
from skyscript_assets.cli.shared import console, every_output, progress_bar
from skyscript_assets.lib.errors import SkyScriptError, StorageError
from skyscript_assets.lib.release.data import ReleaseConfig
from skyscript_assets.lib.release.push import push
from skyscript_assets.lib.release.rebuild import REBUILT_FILE, SAME
from skyscript_assets.lib.release.rebuild import rebuild as cut_again
from skyscript_assets.lib.release.recaption import recaption as say_again
from skyscript_assets.lib.settings.load import GivenFile


@click.command()
@click.option(
    "--push",
    "address",
    metavar="ADDRESS",
    help="Send it to s3://bucket/folder, gs:// or az://, or to hf://datasets/ORG/NAME.",
)
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
        with progress_bar() as progress:
            sent = push(folder, address, progress)
        console.print(f"{sent:,} files sent to {escape(address)}, which is now this release")


_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("folder", metavar="RELEASE", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option("--scenes", type=_FOLDER, help="Where scenes lie that are files: in it, or in its REGION/SOURCE.")
def rebuild(folder: Path, out: Path, scenes: Path | None) -> None:
    """Cut the images of the folder RELEASE again from their scenes, into OUT, and tell which are not the same."""
    sources = every_output().settings.sources
    with progress_bar() as progress:
        try:
            counts = cut_again(folder, out, sources, scenes, progress)
        except OSError as error:
            raise StorageError(f"{out} cannot be written ({error}); make room, or name another folder") from error
    for outcome, n in counts.most_common():
        console.print(f"{n:,} {outcome}")
    console.print(f"what became of each is in {escape(str(out / REBUILT_FILE))}", soft_wrap=True)
    sys.exit(0 if counts.keys() <= {SAME} else 1)


@click.command()
@click.argument("folder", metavar="RELEASE", type=_FOLDER)
@click.argument("out", type=_FOLDER)
def recaption(folder: Path, out: Path) -> None:
    """Write the captions of the folder RELEASE again by this profile's `captions`, and all of it into the new OUT.

    Images stay as they are, byte for byte. The name, version and people of OUT are those of the profile's `release`.
    """
    settings = every_output().settings
    config, captions = ReleaseConfig.of(settings), settings.plant.captions
    if config.settings is None:
        raise SkyScriptError("plant.yaml has no section `release`: state whose release it becomes, and its version")
    rules = GivenFile.of(settings, "captions.rules", captions.rules).path
    with progress_bar() as progress:
        counts = say_again(folder, config.settings, config, captions, rules, out, progress)
    for outcome, n in counts.most_common():
        console.print(f"{n:,} pairs {outcome}")
    console.print(f"the release is in {escape(str(out))}, what changed in its changes.csv", soft_wrap=True)
