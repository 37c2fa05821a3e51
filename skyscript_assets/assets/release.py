"""The data set as it is given away: `dataset_release`."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.pairs.table import PartitionFolders
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
        previous=GivenFile.of(settings, "release.previous", str(Path(before) / SUMS_FILE)) if before else None,
        removed=GivenFile.of(settings, "release.removed", removed) if removed else None,
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


def _folders(run: Run[ReleaseConfig]) -> dict[tuple[str, str], PartitionFolders]:
    plans, objects = run.pairs("chip_plan"), run.folders("osm_objects")
    chips, captions, scores = (run.pairs(name) for name in ("image_chips", "captions", "clip_scores"))
    return {
        pair: PartitionFolders(plan, chips[pair], captions[pair], scores[pair], objects[pair[0],])
        for pair, plan in plans.items()
        if pair in chips and pair in captions and pair in scores
    }


@asset(
    Scheme.SINGLE,
    group="release",
    kinds=["parquet", "huggingface"],
    upstream=(
        *("scene_index", "chip_plan", "image_chips", "captions", "clip_scores"),
        *("osm_objects", "training_manifest", "caption_audit"),
    ),
    config=_config,
    needs=lambda settings, _, key: len(key.partition) < 2 or not settings.sources[key.partition[1]].is_control,
    preview=_preview,
)
def dataset_release(run: Run[ReleaseConfig]) -> Counts:
    """The eligible pairs, but for controls, as a data set: Parquet with images, card, Croissant, STAC, licences."""
    config = run.config
    if config.release is None:
        return {"pairs": 0, "why_none": "plant.yaml has no section `release`"}
    inputs = ReleaseInputs(
        *(config.release, config.plan, config.zoom, config.policy, config.chips),
        partitions=_folders(run),
        scenes=run.pairs("scene_index"),
        manifest=run.input("training_manifest"),
        audit=run.input("caption_audit"),
        previous=config.previous.path.parent if config.previous else None,
        removed=config.removed.path if config.removed else None,
    )
    return write_release(inputs, run.out, run.progress)
