"""What a daemon that asks a code server knows of dependencies, against what runs really read."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from skyscript_assets.assets import STAGES
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.partitions import inputs_of, key_of, partitions_of
from tests.workshop import demo_files, served, write_profile

pytestmark = pytest.mark.integration

BOXES = {
    "west": {"west": 24.90, "south": 60.1, "east": 24.96, "north": 60.2},
    "middle": {"west": 24.95, "south": 60.1, "east": 25.00, "north": 60.2},
    "away": {"west": 26.90, "south": 60.1, "east": 26.95, "north": 60.2},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three regions, two of which overlap, and two sources, one of which does not reach the third region."""
    files = demo_files()
    files["regions"]["regions"] = {
        name: {"title": name, "path": f"{name}.osm.pbf", "bbox": box} for name, box in BOXES.items()
    }
    files["sources"]["sources"]["SYN1"]["extent"] = {"west": 24, "south": 60, "east": 25.5, "north": 61}
    return load_settings(write_profile(tmp_path_factory.mktemp("profile"), files))


@pytest.fixture(scope="module")
def graph(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The asset graph of the profile as a code server in another process describes it."""
    with served(settings, tmp_path_factory.mktemp("served")) as process:
        yield process.create_request_context().asset_graph


def test_dagster_knows_of_every_partition_that_a_run_reads(settings: Settings, graph: Any) -> None:
    unknown = [
        f"{'/'.join((stage.name, *partition))} reads {key}"
        for stage in STAGES.values()
        for partition in partitions_of(stage.scheme, settings)
        for key in inputs_of(stage, STAGES, settings, partition)
        if not knows(graph, stage.name, partition, key.asset, key.partition)
    ]
    assert unknown == []


def test_a_region_waits_for_the_objects_of_earlier_regions_on_its_ground(settings: Settings, graph: Any) -> None:
    assert {key.partition for key in inputs_of(STAGES["region_overlap"], STAGES, settings, ("west",))} == {
        ("middle",),
        ("west",),
    }
    assert knows(graph, "region_overlap", ("west",), "osm_objects", ("middle",))
    assert not knows(graph, "region_overlap", ("west",), "osm_objects", ("away",))


def knows(graph: Any, asset: str, partition: tuple[str, ...], upstream: str, theirs: tuple[str, ...]) -> bool:
    """Whether the remote graph says that a partition of an asset depends on one of another."""
    child, parent = graph.get(dg.AssetKey(asset)), graph.get(dg.AssetKey(upstream))
    if parent.key not in child.parent_keys:
        return False
    if parent.partitions_def is None or STAGES[upstream].frozen_as is not None:
        return True
    mapping = graph.get_partition_mapping(child.key, parent.key)
    own = child.partitions_def
    wanted = own.subset_with_partition_keys([key_of(partition)]) if own is not None else None
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(wanted, own, parent.partitions_def)
    return key_of(theirs) in set(found.partitions_subset.get_partition_keys())
