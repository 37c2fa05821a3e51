"""The stages `scene_index` and `image_chips` on a tile service, run and run again as the plant does."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import osmium
import pytest

from skyscript_assets.assets import STAGES
from skyscript_assets.lib import http
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table
from skyscript_assets.provenance import Outputs, State
from tests.tile_server import TileServer, tile_server
from tests.workshop import demo_files, write_profile

pytestmark = pytest.mark.integration

PARTITION = ("here", "TILES")


@pytest.fixture
def server() -> Iterator[TileServer]:
    with tile_server() as running:
        yield running


@pytest.fixture
def settings_with(tmp_path: Path, server: TileServer) -> Callable[..., Settings]:
    """Makes the settings of a region of some houses and a tile service over it."""
    path = tmp_path / "here.osm.pbf"
    header = osmium.io.Header().add_box(osmium.osm.Box(24.935, 60.165, 24.945, 60.170))
    houses = list(itertools.product(range(8), range(8)))
    with osmium.SimpleWriter(path, header=header) as writer:
        for house, (x, y) in enumerate(houses):
            for corner, (east, north) in enumerate(((0, 0), (5, 0), (5, 3), (0, 3)), start=4 * house + 1):
                place = (24.9353 + 0.0012 * x + 1e-4 * east, 60.1653 + 0.0006 * y + 1e-4 * north)
                writer.add_node(osmium.osm.mutable.Node(id=corner, version=1, location=place))
        for house in range(len(houses)):
            refs = [4 * house + corner for corner in (1, 2, 3, 4, 1)]
            way = osmium.osm.mutable.Way(id=house + 1, version=1, nodes=refs, tags={"building": "yes"})
            writer.add_way(way)

    def make(**facts: Any) -> Settings:
        files = demo_files()
        files["regions"]["regions"] = {"here": {"title": "Here", "path": str(path)}}
        files["sources"]["sources"]["TILES"] = {
            "kind": "xyz",
            "title": "Tiles",
            "gsd_m": 0.6,
            "url": f"{server.address}/{{z}}/{{x}}/{{y}}.png",
            "datetime": "2020-06-01",
            "licence": "CC0-1.0",
            "attribution": "A painter",
            "requests_per_second": 100,
            **facts,
        }
        files["plant"]["chips"] = {"part_size": 2, "min_sharpness": 0.0}
        return load_settings(write_profile(tmp_path / "profile", files))

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def run(settings: Settings, store: Store, stage: str, partition: tuple[str, ...] = PARTITION) -> None:
    Outputs(STAGES, settings, store).materialize(STAGES[stage], partition)


def put_plan(
    store: Store, write_chip_plan: Callable[..., Any], windows: list[tuple[Scene, int, int, int, int]]
) -> None:
    key = OutputKey("chip_plan", PARTITION)
    with store.writing(key, "by hand") as out:
        write_chip_plan(out, windows, region="here", source="TILES")
        store.complete(key, fingerprint="by hand", made_from={}, counts={})


def test_a_retry_asks_for_tiles_of_what_failed_alone(
    server: TileServer,
    settings_with: Callable[..., Settings],
    store: Store,
    write_chip_plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.0)
    settings = settings_with()
    run(settings, store, "osm_extract", ("here",))
    run(settings, store, "scene_index")
    (scene,) = read_scenes(store.folder(OutputKey("scene_index", PARTITION)))
    put_plan(store, write_chip_plan, [(scene, 20 + 170 * k, 30 + 170 * k, 120, 120) for k in range(4)])
    server.tiles.clear()
    last = (scene.access["first"][0] + 2, scene.access["first"][1] + 2)
    server.faults[last] = (500, {}, b"oops")
    server.faults[tuple(scene.access["probe"])] = (500, {}, b"oops")
    run(settings, store, "image_chips")
    record = store.record(OutputKey("image_chips", PARTITION))
    assert record is not None
    assert 0 < record.counts["failed"] <= 2
    before, faults = len(server.tiles), set(server.faults)
    server.faults.clear()
    Outputs(STAGES, settings, store).materialize(STAGES["image_chips"], PARTITION, retry=True)
    # Only tiles under the chips that had failed, at most four each; none that was kept.
    assert faults & set(server.tiles[before:])
    assert len(server.tiles) - before <= 4 * record.counts["failed"]
    chips = read_table(store.folder(OutputKey("image_chips", PARTITION)) / "chips.parquet").to_pylist()
    assert [chip["status"] for chip in chips] == ["ok"] * 4
    names = {path.name for path in store.folder(OutputKey("image_chips", PARTITION)).iterdir()}
    tables = {"chips.parquet", "failures.parquet", "output.json", "accepted.jpg", "rejected.jpg"}
    assert names == {*tables, "part-00000.tar", "part-00001.tar", "part-00002.tar"}


def test_offsets_and_chips_share_the_tiles_of_a_service(
    server: TileServer, settings_with: Callable[..., Settings], store: Store
) -> None:
    settings = settings_with()
    for stage in ("osm_extract", "osm_objects"):
        run(settings, store, stage, ("here",))
    run(settings, store, "scene_index")
    server.tiles.clear()
    run(settings, store, "scene_offsets")
    asked = len(server.tiles)
    assert asked > 4
    Outputs(STAGES, settings, store).materialize(STAGES["scene_offsets"], PARTITION, force=True)
    assert len(server.tiles) == asked


def test_how_a_service_is_asked_makes_nothing_stale_and_what_it_is_asked_for_does(
    settings_with: Callable[..., Settings], store: Store
) -> None:
    settings = settings_with()
    run(settings, store, "osm_extract", ("here",))
    run(settings, store, "scene_index")

    def state(**facts: Any) -> State:
        return Outputs(STAGES, settings_with(**facts), store).state(STAGES["scene_index"], PARTITION)

    assert state(requests_per_second=5, contact="me@example.org", cache_mb=10, connections=1) is State.CURRENT
    assert state(api_key_variable="SOME_KEY") is State.CURRENT
    assert state(max_zoom=18) is State.STALE
    assert state(nodata=[0, 0, 0]) is State.STALE
