"""The one resource: which profile, and where the data is. It hands out plain objects of the library."""

from __future__ import annotations

import functools
from pathlib import Path

import dagster as dg

from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.storage import Store


class Plant(dg.ConfigurableResource[None]):
    """A profile and a data folder.

    Attributes:
        settings_folder: Folder of the profile.
        data: Root of the outputs: a local folder or an fsspec address.
        scratch: Local folder for a remote root.
    """

    settings_folder: str
    data: str
    scratch: str | None = None

    def settings(self) -> Settings:
        """The profile, read once a process."""
        return _settings(self.settings_folder)

    def store(self) -> Store:
        """The outputs."""
        return Store(self.data, Path(self.scratch) if self.scratch else None)


@functools.lru_cache(maxsize=8)
def _settings(folder: str) -> Settings:
    return load_settings(Path(folder))
