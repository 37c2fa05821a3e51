"""Real extracts with real imagery of the same ground, from extract to shards, and a model that has too little data.

Kampala: drone imagery at 7.5, 15 and 30 cm and OSM buildings. San Francisco: Landsat 7 in false colour, 30 m in
EPSG:3857, and three small OSM exports; tiles reach past them.
"""

import csv
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import osmium
import pytest
import rasterio
import simplejpeg
import webdataset
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from skyscript_assets import backfill
from skyscript_assets.lib.geometry import cell_of
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.release.rebuild import SAME, rebuild
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tar import read_member
from tests.splits import split_of_bounds
from tests.workshop import Workshop, demo_files, few_labels, write_profile

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("demo_packages")]

KAMPALA_BBOX = {"west": 32.59, "south": 0.348, "east": 32.596, "north": 0.352}
KAMPALA_SOURCES = {"OAM21": 0.075, "OAM20": 0.15, "OAM19": 0.30}
MISSION_BAY_BBOX = {"west": -122.411, "south": 37.763, "east": -122.381, "north": 37.782}
BANDS = [2, 3, 3]
"""The Landsat file has near infrared, red and green: red and green are shown, green again for the blue it lacks."""


class Pairs(Workshop):
    """A workshop whose regions, tags and pairs have been run."""

    results: list[backfill.StepResult]

    def run(self, *levels: str) -> list[backfill.StepResult]:
        steps = [step for step in backfill.steps_of(self.settings) if step.level.name in levels]
        return list(backfill.run_all(self.defs, self.settings, self.store, self.instance, steps=steps))

    def folder(self, asset: str, *partition: str) -> Path:
        return self.store.folder(OutputKey(asset, partition))

    def counts(self, asset: str, *partition: str) -> dict[str, Any]:
        record = self.store.record(OutputKey(asset, partition))
        assert record is not None
        return dict(record.counts)

    def rows(self, asset: str, *partition: str, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.folder(asset, *partition) / table).to_pylist()
        return rows

    def image(self, chip: dict[str, Any], *partition: str) -> NDArray[np.uint8]:
        data = read_member(self.folder("image_chips", *partition) / chip["shard"], chip["offset"], chip["length"])
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        return image


def make(folder: Path, files: dict[str, Any], instance: dg.DagsterInstance, overrides: str | None = None) -> Pairs:
    """Write a profile of one's own: the demo's towers, a sixth of its labels, one model."""
    files = demo_files() | files
    models = {key: files["models"][key] for key in ("weights", "bases")}
    model = {"title": "Mine", "base": "lite0-minilm", "recipe": {"kind": "align", "epochs": 2}}
    files["models"] = models | {"models": {"mine": model}}
    files["plant"]["scores"]["views"] = 1
    files["plant"]["tags"]["labels"] = few_labels(folder / "labels.csv")
    published = {"kind": "image-folder", "title": "Not run here", "csv": "none.csv", "classnames": "none.txt"}
    files["benchmarks"] = {"benchmarks": {"published": published}}
    if overrides is not None:
        files["plant"]["tags"]["overrides"] = "overrides.csv"
    profile = write_profile(folder / "profile", files)
    if overrides is not None:
        header = (PACKAGED_PROFILES / "tag_labels.csv").read_text(encoding="utf-8").partition("\n")[0]
        (profile / "overrides.csv").write_text(f"{header}\n{overrides}", encoding="utf-8")
    workshop = Pairs(profile, folder / "data", instance)
    workshop.results = workshop.run("regions", "overlaps", "given", "tags", "pairs")
    return workshop


def files_source(path: Path, gsd_m: float, **fields: Any) -> dict[str, Any]:
    known = {"kind": "files", "title": path.stem, "licence": "CC-BY-4.0", "attribution": "Its photographer"}
    return known | {"paths": [str(path)], "gsd_m": gsd_m} | fields


def evaluations(instance: dg.DagsterInstance) -> list[Any]:
    events = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    records = instance.get_event_records(events, limit=1000)
    return [record.event_log_entry.dagster_event.asset_check_evaluation_data for record in records]


# -------------------------------------------------------------------------------------------------------------- Kampala


@pytest.fixture(scope="module")
def kampala(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Pairs]:
    folder = (shared_data / "pairs/kampala_oam").resolve()
    plant = demo_files()["plant"]
    plant["plan"].update(snapshot="kampala-1", quota=30)
    plant["split"]["zoom"] = 19
    region = {"title": "Kampala", "path": str(folder / "kampala_buildings_derived.osm.pbf"), "bbox": KAMPALA_BBOX}
    sources = {
        key: files_source(folder / f"oam_kampala_z{key[-2:]}.tif", gsd, datetime="2020-06-01")
        for key, gsd in KAMPALA_SOURCES.items()
    }
    files = {"plant": plant, "regions": {"regions": {"kampala": region}}, "sources": {"sources": sources}}
    with dg.DagsterInstance.ephemeral() as instance:
        yield make(tmp_path_factory.mktemp("kampala"), files, instance)


def test_kampala_runs_from_extract_to_shards_with_every_check_passed(kampala: Pairs) -> None:
    assert [result.error for result in kampala.results] == [None] * 7
    failed = [f"{e.asset_key.to_user_string()}.{e.check_name}" for e in evaluations(kampala.instance) if not e.passed]
    assert evaluations(kampala.instance)
    assert failed == []


@pytest.mark.parametrize("source", KAMPALA_SOURCES)
def test_each_resolution_of_kampala_has_chips_with_captions_and_shards(kampala: Pairs, source: str) -> None:
    pair = ("kampala", source)
    chips = kampala.rows("image_chips", *pair, table="chips.parquet")
    captions = kampala.rows("captions", *pair, table="captions.parquet")
    ok = [chip["chip_id"] for chip in chips if chip["status"] == "ok"]
    assert len(ok) >= 12
    assert [caption["chip_id"] for caption in captions] == ok
    assert all("building" in caption["title"] for caption in captions)
    read = {}
    for shard in sorted(kampala.folder("caption_shards", *pair).glob("*/*.tar")):
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False).decode("pil"):
            read[sample["__key__"]] = (shard.parent.name, sample)
    assert sorted(read) == sorted(ok)
    plan = {row["chip_id"]: row for row in kampala.rows("chip_plan", *pair, table="plan.parquet")}
    for chip_id, (split, sample) in read.items():
        assert split == plan[chip_id]["split"]
        assert sample["jpg"].size == (plan[chip_id]["width"], plan[chip_id]["height"])
        assert sample["txt"].startswith("a satellite image of building")
        assert sample["json"]["chip_id"] == chip_id


@pytest.mark.parametrize("source", KAMPALA_SOURCES)
def test_every_focus_box_of_kampala_lies_on_its_building(kampala: Pairs, shared_data: Path, source: str) -> None:
    outlines = mercator_outlines(shared_data / "pairs/kampala_oam/kampala_buildings_derived.osm.pbf")
    plan = kampala.rows("chip_plan", "kampala", source, table="plan.parquet")
    for row in plan:
        x, y = outlines[int(row["object_id"][1:])]
        column, line = ~Affine(*row["transform"]) @ (x, y)
        box = np.array([column.min(), line.min(), column.max(), line.max()])
        focus = np.array(row["focus_box"], dtype=float)
        assert np.abs(box - focus).max() <= 1, row["chip_id"]
        assert np.abs((box[:2] + box[2:]) / 2 - (focus[:2] + focus[2:]) / 2).max() <= 0.75, row["chip_id"]
        assert (focus[:2] >= 0).all()
        assert (focus[2:] <= [row["width"], row["height"]]).all()
        assert row["gsd_m"] == pytest.approx(KAMPALA_SOURCES[source], rel=0.01)
    assert len({tuple(row["focus_box"]) for row in plan}) > 10


def mercator_outlines(path: Path) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Coordinates in EPSG:3857 of each way's nodes, read and projected with nothing of the package."""
    found = {}
    for way in osmium.FileProcessor(str(path)).with_locations():
        if way.is_way():
            lon, lat = np.radians([(node.location.lon, node.location.lat) for node in way.nodes]).T
            found[way.id] = (6_378_137.0 * lon, 6_378_137.0 * np.log(np.tan(math.pi / 4 + lat / 2)))
    return found


def test_no_ground_of_kampala_is_in_two_splits(kampala: Pairs) -> None:
    boxes = [
        (row["bbox"], row["split"])
        for source in KAMPALA_SOURCES
        for row in kampala.rows("chip_plan", "kampala", source, table="plan.parquet")
    ]
    assert len({split for _, split in boxes}) > 1
    for box, split in boxes:
        assert split_of_bounds((box["xmin"], box["ymin"], box["xmax"], box["ymax"]), 19) == split


def test_training_on_kampala_ends_with_one_message_that_counts_what_is_missing(kampala: Pairs) -> None:
    (gathered,) = kampala.run("manifest")
    assert gathered.error is None
    manifest = kampala.rows("training_manifest", table="manifest.parquet")
    train = [row for row in manifest if row["split"] == "train" and row["eligible"]]
    captions, cells = {row["title"] for row in train}, {row["cell"] for row in train}
    (trained,) = kampala.run("models")
    assert trained.error is not None
    assert trained.error.startswith("trained_checkpoint: Mine: too little to train on: ")
    assert "\n" not in trained.error
    for count, needed, noun in (
        (len(train), 256, "pairs"),
        (len(captions), 2, "distinct captions"),
        (len(cells), 2, "training cells"),
    ):
        missing = max(0, needed - count)
        assert f"{count} {noun} (at least {needed} needed, {missing} missing)" in trained.error
    assert kampala.store.record(OutputKey("trained_checkpoint", ("mine",))) is None


def test_the_release_of_kampala_is_rebuilt_elsewhere_and_an_altered_image_is_told_by_its_chips(
    kampala: Pairs, shared_data: Path, tmp_path: Path
) -> None:
    kampala.run("manifest", "release")
    release = kampala.folder("dataset_release")
    listed = read_table(release / "rebuild.parquet", columns=["chip_id", "source"]).to_pylist()
    assert {row["source"] for row in listed} == set(KAMPALA_SOURCES)
    home = tmp_path / "home"
    home.mkdir()
    for source in KAMPALA_SOURCES:
        shutil.copy(shared_data / f"pairs/kampala_oam/oam_kampala_z{source[-2:]}.tif", home)
    assert rebuild(release, tmp_path / "again", {}, home) == {SAME: len(listed)}
    with rasterio.open(home / "oam_kampala_z20.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        window = Window(0, 0, 1, 1)
        dataset.write(255 - dataset.read(window=window), window=window)
    rebuild(release, tmp_path / "altered", {}, home)
    with (tmp_path / "altered/rebuilt.csv").open(encoding="utf-8", newline="") as file:
        found = {row["chip_id"] for row in csv.DictReader(file) if row["outcome"] != SAME}
    assert found == {row["chip_id"] for row in listed if row["source"] == "OAM20"}


# -------------------------------------------------------------------------------------------------------- San Francisco


@pytest.fixture(scope="module")
def san_francisco(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Pairs]:
    pairs = (shared_data / "pairs").resolve()
    folder = pairs / "sf_landsat7"
    plant = demo_files()["plant"]
    plan = {"snapshot": "sf-1", "quota": 10, "min_object_px": 3, "min_tile_px": 32, "point_tile_px": 32}
    plant["plan"].update(plan)
    plant["split"]["zoom"] = 12
    regions = {
        "alcatraz": {"title": "Alcatraz", "path": str(folder / "alcatraz.osm")},
        "mission-bay": {
            "title": "Mission Bay",
            "path": str(folder / "sf_mission_bay.osm"),
            "bbox": MISSION_BAY_BBOX,
        },
        "west-oakland": {"title": "West Oakland", "path": str(folder / "west_oakland.osm.bz2")},
        "kampala": {
            "title": "Kampala, where the image is not",
            "path": str(pairs / "kampala_oam/kampala_buildings_derived.osm.pbf"),
            "bbox": KAMPALA_BBOX,
        },
    }
    landsat = files_source(folder / "landsat7_sf_bay_30m_3857.tif", 24, bands=BANDS, datetime="2001-07-01")
    files = {"plant": plant, "regions": {"regions": regions}, "sources": {"sources": {"L7": landsat}}}
    overrides = "".join(
        f"{key},{value},yes,30,hundreds of metres wide in this region\n"
        for key, value in (
            ("leisure", "park"),
            ("landuse", "residential"),
            ("landuse", "industrial"),
            ("natural", "water"),
            ("natural", "coastline"),
        )
    )
    with dg.DagsterInstance.ephemeral() as instance:
        yield make(tmp_path_factory.mktemp("sf"), files, instance, overrides)


def test_san_francisco_runs_in_every_partition(san_francisco: Pairs) -> None:
    assert [result.error for result in san_francisco.results] == [None] * 14


def test_the_ground_sample_distance_of_a_mercator_image_is_metres_on_the_ground(san_francisco: Pairs) -> None:
    (scene,) = read_scenes(san_francisco.folder("scene_index", "alcatraz", "L7"))

    def eastward_m(latitude_deg: float) -> float:
        """The longer side of a pixel, by the radius of the parallel on the ellipsoid of WGS 84."""
        latitude = math.radians(latitude_deg)
        return 30 * math.cos(latitude) / math.sqrt(1 - 0.00669437999 * math.sin(latitude) ** 2)

    assert scene.gsd_m == pytest.approx(eastward_m(37.774), rel=0.0005)
    for region in ("alcatraz", "mission-bay"):
        for row in san_francisco.rows("chip_plan", region, "L7", table="plan.parquet"):
            latitude = (row["bbox"]["ymin"] + row["bbox"]["ymax"]) / 2
            assert row["gsd_m"] == pytest.approx(eastward_m(latitude), rel=0.0005)


def test_large_things_of_san_francisco_become_chips_in_mapped_bands(san_francisco: Pairs, shared_data: Path) -> None:
    strata: set[str] = set()
    differences = []
    with rasterio.open(shared_data / "pairs/sf_landsat7/landsat7_sf_bay_30m_3857.tif") as dataset:
        for region in ("alcatraz", "mission-bay", "west-oakland"):
            plan = san_francisco.rows("chip_plan", region, "L7", table="plan.parquet")
            chips = san_francisco.rows("image_chips", region, "L7", table="chips.parquet")
            strata |= {row["stratum"] for row in plan}
            for row, chip in zip(plan, chips, strict=True):
                image = san_francisco.image(chip, region, "L7")
                assert image.shape == (row["height"], row["width"], 3)
                pair = (read_window(dataset, row, bands).astype(float) for bands in (BANDS, [1, 2, 3]))
                differences.append([np.abs(image - picture).mean() for picture in pair])
    shown, as_stored = np.array(differences).T
    assert shown.max() < 5
    assert (as_stored > shown).all()
    assert as_stored.mean() > 2 * shown.mean()
    assert strata >= {"leisure=park", "landuse=residential", "landuse=industrial", "natural=coastline"}


def read_window(dataset: Any, row: dict[str, Any], bands: list[int]) -> NDArray[np.uint8]:
    """A planned chip read straight from the file: the tile lies on the file's own pixels."""
    column, line = ~dataset.transform @ (row["transform"][2], row["transform"][5])
    assert (column, line) == (pytest.approx(round(column), abs=1e-6), pytest.approx(round(line), abs=1e-6))
    window = Window(round(column), round(line), row["width"], row["height"])
    picture: NDArray[np.uint8] = np.moveaxis(dataset.read(bands, window=window), 0, -1)
    return picture


def test_tiles_reach_past_the_small_extracts(san_francisco: Pairs) -> None:
    extract = json.loads((san_francisco.folder("osm_extract", "alcatraz") / "extract.json").read_text("utf-8"))
    west, _, east, _ = extract["header_bbox"]
    plan = san_francisco.rows("chip_plan", "alcatraz", "L7", table="plan.parquet")
    assert plan
    assert all(row["bbox"]["xmax"] - row["bbox"]["xmin"] > east - west for row in plan)


def test_captions_of_san_francisco_name_only_what_shows_at_that_resolution(san_francisco: Pairs) -> None:
    titles = {
        caption["title"]
        for region in ("alcatraz", "mission-bay", "west-oakland")
        for caption in san_francisco.rows("captions", region, "L7", table="captions.parquet")
    }
    words = " ".join(titles)
    assert "park" in words
    assert "building" not in words
    assert "footway" not in words


def test_a_region_where_the_image_is_not_succeeds_with_empty_tables(san_francisco: Pairs) -> None:
    assert san_francisco.counts("scene_index", "kampala", "L7")["outside"] == 1
    tables = {
        "scene_index": "scenes",
        "chip_plan": "plan",
        "image_chips": "chips",
        "captions": "captions",
        "chip_features": "features",
        "clip_scores": "scores",
        "caption_shards": "samples",
    }
    for asset, table in tables.items():
        assert read_table(san_francisco.folder(asset, "kampala", "L7") / f"{table}.parquet").num_rows == 0
    warned = {
        e.asset_key.to_user_string()
        for e in evaluations(san_francisco.instance)
        if not e.passed and e.check_name == "rows" and e.severity is dg.AssetCheckSeverity.WARN
    }
    assert warned >= set(tables) - {"chip_features"}


def test_splits_of_san_francisco_follow_the_ground(san_francisco: Pairs) -> None:
    for region in ("alcatraz", "mission-bay", "west-oakland"):
        for row in san_francisco.rows("chip_plan", region, "L7", table="plan.parquet"):
            box = row["bbox"]
            x, y = cell_of((box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2, 12)
            assert row["cell"] == f"{x}/{y}"


def test_the_manifest_lists_the_empty_partition(san_francisco: Pairs) -> None:
    (gathered,) = san_francisco.run("manifest")
    assert gathered.error is None
    event = san_francisco.instance.get_latest_materialization_event(dg.AssetKey("training_manifest"))
    assert event is not None
    assert event.asset_materialization is not None
    partitions = event.asset_materialization.metadata["partitions"].value
    assert partitions["missing"] == ["benchmark_data/published"], "no benchmark was fetched, which stops nothing"
    assert "kampala|L7" in partitions["empty"]
    assert len(partitions["present"]) == 3
