"""What every command needs: the terminal, the profile and its outputs, the instance, errors as plain messages."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.markup import escape

from skyscript_assets.lib.errors import SkyScriptError, StoppedError, StorageError
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.storage import Store

console = Console(highlight=False)


def settings_and_store() -> tuple[Settings, Store]:
    """The profile and its outputs, as the environment names them."""
    from skyscript_assets.definitions import plant_from_environment

    plant = plant_from_environment()
    return load_settings(Path(plant.settings_folder)), plant.store()


@contextmanager
def plain_errors() -> Iterator[None]:
    """End with the message alone where an error was raised on purpose."""
    try:
        yield
    except SkyScriptError as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
    except StoppedError as stopped:
        console.print(str(stopped))
        sys.exit(128 + stopped.signum)
    except KeyboardInterrupt:
        console.print("stopped; finished parts are kept: the same command continues")
        sys.exit(130)


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
