"""The one resource: which profile, and where the data is. It hands out plain objects of the library."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from skyscript_assets import runs
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.provenance import Outputs

if TYPE_CHECKING:
    from skyscript_assets.asset import Stage


class Plant(dg.ConfigurableResource[None]):
    """A profile, and the root of its outputs: a local folder, or an address, which needs a local folder `scratch`."""

    settings_folder: str
    data: str
    scratch: str | None = None

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Dagster calls this when the process of a run begins."""
        runs.attend(context)

    def settings(self) -> Settings:
        """The profile, read once a process."""
        return _settings(self.settings_folder)

    def store(self) -> Store:
        """Where the outputs lie."""
        return Store(self.data, Path(self.scratch) if self.scratch else None)

    def outputs(self, stages: Mapping[str, Stage]) -> Outputs:
        """The outputs of stages as they stand now."""
        return Outputs(stages, self.settings(), self.store())


@functools.lru_cache(maxsize=8)
def _settings(folder: str) -> Settings:
    return load_settings(Path(folder))
