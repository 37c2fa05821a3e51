"""States that a run goes on from after it was killed or stopped: the last two, and one of each epoch."""

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

from skyscript_assets.lib.files import link_or_copy, replacing

KEPT = 2
"""States kept besides those of epochs: should the last one be damaged, the one before it is there."""


class States:
    """The states of one run in a folder, which is made when the first one is written.

    `identity` is the digest of what the run depends on: a state of another run is not continued.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def last(self) -> dict[str, Any] | None:
        """The latest state of this run that can be read."""
        import torch

        for path in sorted(self._folder.glob("step-*.pt"), reverse=True):
            # torch.save writes zip archives; torch's old reader, which takes anything else, fails in many ways.
            if not zipfile.is_zipfile(path):
                continue
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
                continue
            if state.get("identity") == self._identity:
                return state
        return None

    def save(self, step: int, state: dict[str, Any], *, epoch_ends: bool) -> None:
        """Write the state after a step; that at the end of an epoch stays until the run ends."""
        import torch

        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"step-{step:09d}.pt"
        with replacing(path) as temporary:
            torch.save({"identity": self._identity, **state}, temporary)
        if epoch_ends:
            of_epoch = path.with_suffix(".epoch.pt")
            of_epoch.unlink(missing_ok=True)
            link_or_copy(path, of_epoch)
        plain = sorted(set(self._folder.glob("step-*.pt")) - set(self._folder.glob("*.epoch.pt")))
        for old in plain[:-KEPT]:
            old.unlink()

    def remove(self) -> None:
        """Remove them all: the run has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
