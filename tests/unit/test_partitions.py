from pathlib import Path

import pytest

from skyscript_assets.assets import STAGES
from skyscript_assets.assets.chips import chip_plan
from skyscript_assets.assets.imagery import scene_index
from skyscript_assets.lib.settings.base import BBox, seen
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.partitions import Scheme, inputs_of, key_of, keys_of, not_covered, partition_of, partitions_of
from tests.workshop import demo_files, write_profile

HERE, THERE = BBox(west=24, south=60, east=25, north=61), BBox(west=26, south=60, east=27, north=61)


def profile(folder: Path, **boxes: BBox) -> Settings:
    settings = load_settings(write_profile(folder, demo_files()))
    regions = {name: region.model_copy(update={"bbox": boxes.get(name)}) for name, region in settings.regions.items()}
    return settings.model_copy(update={"regions": regions})


@pytest.mark.parametrize(
    ("boxes", "read"),
    [
        ({}, {"helsinki", "kotka"}),
        ({"helsinki": HERE, "kotka": HERE}, {"helsinki", "kotka"}),
        ({"helsinki": HERE, "kotka": THERE}, {"kotka"}),
    ],
)
def test_overlap_reads_earlier_regions_that_may_share_the_ground(
    tmp_path: Path, boxes: dict[str, BBox], read: set[str]
) -> None:
    settings, stage = profile(tmp_path, **boxes), STAGES["region_overlap"]
    found = inputs_of(stage, STAGES, settings, ("kotka",))
    assert {key.partition[0] for key in found if key.asset == "osm_objects"} == read
    assert {key.partition[0] for key in inputs_of(stage, STAGES, settings, ("helsinki",))} == {"helsinki"}


def test_a_partition_reads_equal_keys_and_gathers_the_others(tmp_path: Path) -> None:
    settings = profile(tmp_path)
    plan = inputs_of(chip_plan, STAGES, settings, ("kotka", "SYN1"))
    assert {key.partition for key in plan} == {("kotka",), ("kotka", "SYN1"), (settings.plant.plan.snapshot,)}
    assert OutputKey("scene_offsets", ("kotka", "SYN1")) not in plan, "offsets are not applied"
    vocabulary = inputs_of(STAGES["tag_vocabulary"], STAGES, settings, ())
    assert {key.partition for key in vocabulary if key.asset == "osm_objects"} == {("helsinki",), ("kotka",)}


def test_pairs_that_cannot_overlap_are_no_input_of_anything(tmp_path: Path) -> None:
    settings = profile(tmp_path, helsinki=HERE, kotka=THERE)
    source = settings.sources["SYN1"].model_copy(update={"extent": THERE})
    settings = settings.model_copy(update={"sources": {**settings.sources, "SYN1": source}})
    assert ("helsinki", "SYN1") not in partitions_of(Scheme.REGION_SOURCE, settings)
    reason = not_covered(Scheme.REGION_SOURCE, ("helsinki", "SYN1"), settings)
    assert reason is not None
    assert "outside the extent of source SYN1" in reason
    gathered = inputs_of(STAGES["training_manifest"], STAGES, settings, ())
    assert ("kotka", "SYN1") in {key.partition for key in gathered}
    assert ("helsinki", "SYN1") not in {key.partition for key in gathered}


def test_keys_are_those_of_dagster(tmp_path: Path) -> None:
    settings = profile(tmp_path)
    assert keys_of("region", settings) == list(settings.regions)
    assert (key_of(("kotka", "SYN1")), key_of(())) == ("kotka|SYN1", None)
    assert partition_of(Scheme.REGION_SOURCE, "kotka|SYN1") == ("kotka", "SYN1")
    assert partition_of(Scheme.SINGLE, None) == ()


def test_another_choice_of_scenes_concerns_the_plan_and_not_the_index(tmp_path: Path) -> None:
    settings, partition = profile(tmp_path), ("kotka", "SYN1")
    source = settings.sources["SYN1"].model_copy(update={"choice": SceneChoice(dates=3)})
    changed = settings.model_copy(update={"sources": {**settings.sources, "SYN1": source}})
    assert seen(chip_plan.config(changed, partition)) != seen(chip_plan.config(settings, partition))
    assert seen(scene_index.config(changed, partition)) == seen(scene_index.config(settings, partition))
