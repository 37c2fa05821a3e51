"""Offsets on photographs of Kampala at three GSDs, and the stage: its preview, and what follows from the setting."""

import dataclasses
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from pyproj import Geod, Transformer

from skyscript_assets.assets import STAGES
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.registration.estimate import SceneOffset, estimate_scene
from skyscript_assets.lib.registration.outlines import Outlines, read_outlines
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.settings.plant import OffsetSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table
from skyscript_assets.partitions import inputs_of
from skyscript_assets.provenance import Outputs, State
from tests.workshop import demo_files, write_profile

pytestmark = pytest.mark.integration

GROUND = BBox(west=32.590, south=0.348, east=32.596, north=0.352)
GSDS = {19: 0.3, 20: 0.15, 21: 0.075}
PAIR = ("kampala", "OAM")


@pytest.fixture(scope="module")
def outlines(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outlines:
    pbf = shared_data / "pairs" / "kampala_oam" / "kampala_buildings_derived.osm.pbf"
    folder = tmp_path_factory.mktemp("kampala")
    settings = load_settings(PACKAGED_PROFILES / "demo")
    stage_extract("kampala", Region(title="Kampala", path=str(pbf), bbox=GROUND), settings.shared, folder)
    write_objects(folder, folder)
    return read_outlines(folder / "objects.parquet")


@pytest.fixture(scope="module")
def scenes(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Scene]:
    found = {}
    for level, gsd_m in GSDS.items():
        source = FilesSource(
            title="drone",
            gsd_m=gsd_m,
            licence="CC-BY-4.0",
            attribution="OpenAerialMap",
            paths=(str(shared_data / "pairs" / "kampala_oam" / f"oam_kampala_z{level}.tif"),),
            datetime="2022-01-01",
        )
        folder = tmp_path_factory.mktemp(f"scenes-{level}")
        index_files(
            Search("kampala", "OAM", source, load_settings(PACKAGED_PROFILES / "demo").shared, GROUND.bounds, folder)
        )
        (found[level],) = read_scenes(folder)
    return found


def moved(scene: Scene, east_m: float, north_m: float) -> Scene:
    """The scene with a georeference that is wrong by metres on the ground, along the geodesic."""
    x, y = scene.footprint.centroid.coords[0]
    azimuth, distance = np.degrees(np.arctan2(east_m, north_m)), np.hypot(east_m, north_m)
    lon, lat, _ = Geod(ellps="WGS84").fwd(x, y, azimuth, distance)
    (x0, x1), (y0, y1) = Transformer.from_crs(4326, scene.crs, always_xy=True).transform([x, lon], [y, lat])
    a, b, c, d, e, f = scene.transform
    return dataclasses.replace(scene, transform=(a, b, c + x1 - x0, d, e, f + y1 - y0))


def estimate(scene: Scene, outlines: Outlines) -> SceneOffset:
    found = estimate_scene(RasterReader(scene), outlines, OffsetSettings())
    assert found.status == "estimated"
    return found


def test_the_three_photographs_of_a_place_agree(scenes: dict[int, Scene], outlines: Outlines) -> None:
    found = [estimate(scene, outlines) for scene in scenes.values()]
    shifts = np.array([one.best for one in found])
    assert np.ptp(shifts, axis=0).max() < 0.1
    assert min(one.confidence for one in found) > 0.9


@pytest.mark.parametrize("level", GSDS)
def test_a_known_error_of_the_georeference_is_found(scenes: dict[int, Scene], outlines: Outlines, level: int) -> None:
    own = np.array(estimate(scenes[level], outlines).best)
    for vector in ((8.2, -3.1), (-2.45, 9.0)):
        found = estimate(moved(scenes[level], *vector), outlines)
        assert np.array(found.best) - own == pytest.approx(vector, abs=0.1)


# ------------------------------------------------------------------------------------------------------------ the stage


@pytest.fixture
def files(shared_data: Path) -> dict[str, Any]:
    """A profile of Kampala at 30 cm."""
    folder = (shared_data / "pairs" / "kampala_oam").resolve()
    files = demo_files()
    bbox = dict(zip(("west", "south", "east", "north"), GROUND.bounds, strict=True))
    region = {"title": "Kampala", "path": str(folder / "kampala_buildings_derived.osm.pbf"), "bbox": bbox}
    files["regions"]["regions"] = {"kampala": region}
    source = {"kind": "files", "title": "Drone", "gsd_m": 0.3, "licence": "CC-BY-4.0", "attribution": "OpenAerialMap"}
    source |= {"paths": [str(folder / "oam_kampala_z19.tif")], "datetime": "2020-06-01"}
    files["sources"]["sources"]["OAM"] = source
    return files


def profile(folder: Path, files: dict[str, Any], **plan: Any) -> Settings:
    files["plant"]["plan"].update(plan)
    return load_settings(write_profile(folder, files))


def make(settings: Settings, store: Store, *assets: str) -> None:
    for name in assets:
        stage = STAGES[name]
        partition = PAIR[: len(stage.scheme.dimensions)]
        Outputs(STAGES, settings, store).materialize(stage, partition)


def test_the_stage_writes_a_table_and_shows_it_with_its_sign(tmp_path: Path, files: dict[str, Any]) -> None:
    settings, store = profile(tmp_path / "profile", files), Store(tmp_path / "data")
    make(settings, store, "osm_extract", "osm_objects", "scene_index")
    outcome = Outputs(STAGES, settings, store).materialize(STAGES["scene_offsets"], PAIR)
    assert outcome.record.counts["status"] == {"estimated": 1}
    assert set(outcome.record.files) == {"offsets.parquet", "offsets.jpg"}
    shown = STAGES["scene_offsets"].preview(outcome.run)
    assert set(shown) == {"offsets", "sign", "before and after"}
    assert "Add dx_m" in str(shown["sign"].value)
    assert isinstance(shown["before and after"], dg.MarkdownMetadataValue)
    assert "data:image/jpeg;base64," in str(shown["before and after"].value)


def test_plans_read_offsets_only_where_they_are_to_be_applied(tmp_path: Path, files: dict[str, Any]) -> None:
    store = Store(tmp_path / "data")
    off = profile(tmp_path / "off", files)
    on = profile(tmp_path / "on", files, apply_offsets=True)
    make(off, store, "osm_extract", "osm_objects", "scene_index", "scene_offsets")
    assert Outputs(STAGES, off, store).state(STAGES["scene_offsets"], PAIR) is State.CURRENT
    assert Outputs(STAGES, on, store).state(STAGES["scene_offsets"], PAIR) is State.CURRENT
    files["sources"]["sources"]["OAM"]["choice"] = {"months": [6]}
    chosen = profile(tmp_path / "chosen", files)
    assert Outputs(STAGES, chosen, store).state(STAGES["scene_offsets"], PAIR) is State.CURRENT
    keys = {
        name: {key.asset for key in inputs_of(STAGES["chip_plan"], STAGES, settings, PAIR)}
        for name, settings in (("off", off), ("on", on))
    }
    assert keys["on"] - keys["off"] == {"scene_offsets"}
    (row,) = read_table(store.folder(OutputKey("scene_offsets", PAIR)) / "offsets.parquet").to_pylist()
    assert row["status"] == "estimated"
