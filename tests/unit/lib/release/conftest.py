"""The partitions that tests of pairs write, for releases of them."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import shapely

from skyscript_assets.lib.captions.audit import write_verdicts
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.release.data import SUMS_FILE, ReleaseConfig, ReleaseInputs
from skyscript_assets.lib.release.write import write_release
from skyscript_assets.lib.settings.base import CaptionPolicy
from skyscript_assets.lib.settings.load import GivenFile
from skyscript_assets.lib.settings.plant import ChipSettings, PlanSettings, ReleaseSettings
from skyscript_assets.lib.tables import write_table
from skyscript_assets.lib.tags.snapshot import TAGS_FILE, TAGS_SCHEMA

Partitions = dict[tuple[str, str], PartitionFolders]
CHIPS = ChipSettings(jpeg_quality=80)
PLAN = PlanSettings(snapshot="first", quota=40)
SETTINGS = {"name": "roofs", "version": "1.0.0", "authors": ["A. Mapper"], "contact": "roofs@example.org"}


def scene(source: str, fingerprint: str = "none", **more: Any) -> Scene:
    """The scene that the partitions' plans name."""
    facts: dict[str, Any] = {
        "scene_id": "S-20200601",
        "region": "here",
        "source": source,
        "datetime": dt.datetime(2020, 6, 1, tzinfo=dt.UTC),
        "footprint": shapely.box(0, 0, 180, 60),
        "gsd_m": 1.0,
        "crs": "EPSG:32632",
        "transform": (1.0, 0.0, 1000.0, 0.0, -1.0, 5000.0),
        "width": 400,
        "height": 400,
        "hrefs": ("/home/somebody/scene.tif",),
        "fingerprint": fingerprint,
        "licence": "CC0-1.0",
        "attribution": "A surveyor",
    }
    return Scene(**facts | more)


@pytest.fixture
def released(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Writes the release of partitions into a folder of that name; what it counts."""

    def write(
        partitions: Partitions,
        name: str = "release",
        before: Path | None = None,
        asked: Path | None = None,
        plan: PlanSettings = PLAN,
        policy: CaptionPolicy = "ours",
        **more: Any,
    ) -> tuple[Path, dict[str, Any]]:
        out, manifest, snapshot = tmp_path / name, tmp_path / "manifest", tmp_path / "snapshot"
        out.mkdir(exist_ok=True)
        snapshot.mkdir(exist_ok=True)
        if not (snapshot / TAGS_FILE).exists():
            write_table(snapshot / TAGS_FILE, TAGS_SCHEMA.empty_table())
        manifest.mkdir(exist_ok=True)
        write_manifest({pair: replace(each, objects=None) for pair, each in partitions.items()}, manifest)
        write_verdicts([], [], manifest)
        scenes = {pair: folders.plan.parent / "scenes" for pair, folders in partitions.items()}
        for (_, source), folder in scenes.items():
            if not folder.exists():
                folder.mkdir()
                write_scenes(folder, [scene(source)])
        settings = ReleaseSettings.model_validate(SETTINGS | more)
        given = {
            name: GivenFile(path=path, sha256="") if path else None
            for name, path in (("previous", before and before / SUMS_FILE), ("removed", asked))
        }
        config = ReleaseConfig(settings=settings, plan=plan, zoom=16, policy=policy, chips=CHIPS, **given)
        return out, write_release(
            ReleaseInputs(settings, config, partitions, scenes, snapshot, manifest, manifest), out
        )

    return write
