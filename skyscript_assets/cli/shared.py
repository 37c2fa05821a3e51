"""What every command needs: errors as plain messages, the terminal, the profile and its outputs, the instance."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as ProgressBar

from skyscript_assets.assets import STAGES
from skyscript_assets.lib.errors import SkyScriptError, StoppedError, StorageError
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.partitions import Scheme, partitions_of
from skyscript_assets.provenance import Outputs

console = Console(highlight=False)


class Commands(click.Group):
    """Commands that end with the message alone where an error was raised on purpose."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except SkyScriptError as error:
            Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
            sys.exit(1)
        except (StoppedError, KeyboardInterrupt) as stopped:
            console.print("stopped; finished parts are kept: the same command continues")
            sys.exit(128 + getattr(stopped, "signum", signal.SIGINT))


def every_output() -> Outputs:
    """The profile and its outputs, as the environment names them."""
    from skyscript_assets.definitions import plant_from_environment

    plant = plant_from_environment()
    return Outputs(STAGES, load_settings(Path(plant.settings_folder)), plant.store())


def pair_folders(outputs: Outputs, stage: str) -> dict[tuple[str, str], Path]:
    """Folders of the outputs of a stage that are there, by region and source."""
    pairs = partitions_of(Scheme.REGION_SOURCE, outputs.settings)
    keys = {(region, source): STAGES[stage].key(outputs.settings, (region, source)) for region, source in pairs}
    return {pair: outputs.store.folder(key) for pair, key in keys.items() if outputs.head(key) is not None}


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A listener that shows how far a piece of work is, until the block ends."""
    with ProgressBar(console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME; by default one in ./.dagster with the settings of ./dagster.yaml."""
    home = Path(os.environ.get("DAGSTER_HOME") or ".dagster").absolute()
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists() and Path("dagster.yaml").exists():
            shutil.copyfile("dagster.yaml", config)
        elif not config.exists():
            # Without a file Dagster would collect usage statistics, and say so at length.
            config.write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the folder of run records {home} cannot be used ({error}); set DAGSTER_HOME") from error
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance:
        yield instance
