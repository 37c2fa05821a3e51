"""The data set as it is given away: `dataset_release`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.pairs.table import MADE_OF, partition_folders
from skyscript_assets.lib.release.data import ReleaseInputs
from skyscript_assets.lib.release.write import SUMS_FILE, write_release
from skyscript_assets.lib.settings.base import CaptionPolicy, Model
from skyscript_assets.lib.settings.load import GivenFile, Settings
from skyscript_assets.lib.settings.plant import ChipSettings, PlanSettings, ReleaseSettings
from skyscript_assets.partitions import Partition, Scheme
from skyscript_assets.provenance import Run


class ReleaseConfig(Model):
    """What a release is made by: its settings, the files that these name, and what it says of how pairs were made."""

    release: ReleaseSettings | None
    previous: GivenFile | None
    removed: GivenFile | None
    plan: PlanSettings
    zoom: int
    policy: CaptionPolicy
    chips: ChipSettings


def _config(settings: Settings, partition: Partition) -> ReleaseConfig:  # noqa: ARG001
    release, plant = settings.plant.release, settings.plant
    before, removed = (release.previous, release.removed) if release is not None else (None, None)
    return ReleaseConfig(
        release=release,
        previous=GivenFile.of(settings, str(Path(before) / SUMS_FILE)) if before else None,
        removed=GivenFile.of(settings, removed) if removed else None,
        plan=plant.plan,
        zoom=plant.split.zoom,
        policy=plant.captions.policy,
        chips=plant.chips,
    )


def _preview(run: Run[ReleaseConfig]) -> dict[str, dg.MetadataValue]:
    if run.config.release is None:
        return {}
    return {
        "map": metadata.image(run.out / "map.png", "Where the pairs lie"),
        "distributions": metadata.image(run.out / "distributions.png", "Tags, resolution and dates"),
    }


@asset(
    Scheme.SINGLE,
    group="release",
    kinds=["parquet", "huggingface"],
    upstream=("scene_index", *MADE_OF, "osm_objects", "training_manifest", "caption_audit"),
    config=_config,
    needs=lambda settings, _, key: len(key.partition) < 2 or not settings.sources[key.partition[1]].is_control,
    preview=_preview,
)
def dataset_release(run: Run[ReleaseConfig]) -> Counts:
    """The eligible pairs, but for controls, as a data set: Parquet with images, card, Croissant, STAC, licences."""
    config = run.config
    if config.release is None:
        return {"pairs": 0, "why_none": "plant.yaml has no section `release`"}
    objects = {region: folder for (region,), folder in run.folders("osm_objects").items()}
    inputs = ReleaseInputs(
        *(config.release, config.plan, config.zoom, config.policy, config.chips),
        partitions={
            pair: replace(folders, objects=objects[pair[0]]) for pair, folders in partition_folders(run.pairs).items()
        },
        scenes=run.pairs("scene_index"),
        manifest=run.input("training_manifest"),
        audit=run.input("caption_audit"),
        previous=config.previous.path.parent if config.previous else None,
        removed=config.removed.path if config.removed else None,
    )
    return write_release(inputs, run.out, run.progress)
