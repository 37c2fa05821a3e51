"""The partitions that tests of pairs write, for releases of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skyscript_assets.lib.captions.audit import write_verdicts
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.release.write import ReleaseInputs, write_release
from skyscript_assets.lib.settings.plant import PlanSettings, ReleaseSettings
from tests.unit.lib.pairs.conftest import write_partition

__all__ = ["write_partition"]

Partitions = dict[tuple[str, str], PartitionFolders]
PLAN = PlanSettings(snapshot="first", quota=40)
SETTINGS = {"name": "roofs", "version": "1.0.0", "authors": ["A. Mapper"], "contact": "roofs@example.org"}


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Writes the release of partitions into a folder of that name; what it counts."""

    def write(
        partitions: Partitions,
        name: str = "release",
        before: Path | None = None,
        asked: Path | None = None,
        **more: Any,
    ) -> tuple[Path, dict[str, Any]]:
        out, manifest = tmp_path / name, tmp_path / "manifest"
        out.mkdir(exist_ok=True)
        manifest.mkdir(exist_ok=True)
        write_manifest(partitions, manifest)
        write_verdicts([], [], manifest)
        inputs, settings = ReleaseInputs(partitions, manifest, manifest, before, asked), SETTINGS | more
        return out, write_release(inputs, ReleaseSettings.model_validate(settings), PLAN, 16, "ours", out)

    return write
