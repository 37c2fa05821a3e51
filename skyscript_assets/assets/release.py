"""The data set as it is given away: `dataset_release`."""

from dataclasses import replace

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.pairs.table import MADE_OF, partition_folders
from skyscript_assets.lib.release.data import ReleaseConfig, ReleaseInputs
from skyscript_assets.lib.release.write import write_release
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Run


def _preview(run: Run[ReleaseConfig]) -> dict[str, dg.MetadataValue]:
    if run.config.settings is None:
        return {}
    return {
        "map": metadata.image(run.out / "map.png", "Where the pairs lie"),
        "distributions": metadata.image(run.out / "distributions.png", "Tags, resolution and dates"),
    }


@asset(
    Scheme.SINGLE,
    group="release",
    kinds=["parquet", "huggingface"],
    upstream=("scene_index", *MADE_OF, "osm_objects", "sampling_snapshot", "training_manifest", "caption_audit"),
    code_version="2",
    config=lambda settings, _: ReleaseConfig.of(settings),
    needs=lambda settings, _, key: len(key.partition) < 2 or not settings.sources[key.partition[1]].is_control,
    preview=_preview,
)
def dataset_release(run: Run[ReleaseConfig]) -> Counts:
    """The eligible pairs, but for controls, as a data set: Parquet with images, card, Croissant, STAC, licences."""
    config = run.config
    if config.settings is None:
        return {"pairs": 0, "why_none": "plant.yaml has no section `release`"}
    objects = {region: folder for (region,), folder in run.folders("osm_objects").items()}
    found = partition_folders(run.pairs).items()
    partitions = {pair: replace(folders, objects=objects[pair[0]]) for pair, folders in found}
    made = map(run.input, ("sampling_snapshot", "training_manifest", "caption_audit"))
    inputs = ReleaseInputs(config.settings, config, partitions, run.pairs("scene_index"), *made)
    return write_release(inputs, run.out, run.progress)
