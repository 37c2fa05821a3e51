from pathlib import Path

from skyscript_assets.assets.chips import chip_plan
from skyscript_assets.assets.imagery import scene_index
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.storage import OutputKey
from tests.workshop import demo_files, write_profile

HERE, THERE = BBox(west=24, south=60, east=25, north=61), BBox(west=26, south=60, east=27, north=61)


def profile(folder: Path, **boxes: BBox) -> Settings:
    settings = load_settings(write_profile(folder, demo_files()))
    regions = {name: region.model_copy(update={"bbox": boxes.get(name)}) for name, region in settings.regions.items()}
    return settings.model_copy(update={"regions": regions})


def test_a_plan_reads_the_objects_of_earlier_regions_that_may_share_its_ground(tmp_path: Path) -> None:
    objects, parts = OutputKey("osm_objects", ("helsinki",)), ("kotka", "SYN1")
    assert chip_plan.beside(profile(tmp_path), parts, objects)
    assert chip_plan.beside(profile(tmp_path, helsinki=HERE, kotka=HERE), parts, objects)
    assert not chip_plan.beside(profile(tmp_path, helsinki=HERE, kotka=THERE), parts, objects)
    assert not chip_plan.beside(profile(tmp_path), ("helsinki", "SYN1"), OutputKey("osm_objects", ("kotka",)))
    assert not chip_plan.beside(profile(tmp_path), parts, OutputKey("scene_index", ("helsinki", "SYN1")))


def test_another_choice_of_scenes_concerns_the_plan_and_not_the_index(tmp_path: Path) -> None:
    settings, parts = profile(tmp_path), ("kotka", "SYN1")
    source = settings.sources["SYN1"].model_copy(update={"choice": SceneChoice(dates=3)})
    changed = settings.model_copy(update={"sources": {**settings.sources, "SYN1": source}})
    assert chip_plan.reads(changed, parts) != chip_plan.reads(settings, parts)
    assert scene_index.reads(changed, parts) == scene_index.reads(settings, parts)
