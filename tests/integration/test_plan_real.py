"""Scenes chosen and chips planned on real imagery: NAIP at two dates over one ground, Landsat with San Francisco's OSM.

The OSM objects on the NAIP ground are made up (no extract covers it); imagery and dates are real.
"""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
import simplejpeg
from affine import Affine

import skyscript_assets
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CutInputs, cut_chips
from skyscript_assets.lib.chips.estimate import estimate
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules, PlanSummary
from skyscript_assets.lib.chips.plan_report import REPORT_SCHEMA
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.imagery.scenes import read_scenes, write_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.osm.region_overlap import write_region_overlap
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.settings.plant import ChipSettings, PlanSettings, RateSettings, SizeSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.vocabulary import count_vocabulary
from skyscript_assets.lib.tar import read_member
from tests.splits import split_of_bounds

pytestmark = pytest.mark.integration

PACKAGE = Path(skyscript_assets.__file__).parent
SETTINGS = load_settings(PACKAGE / "settings" / "demo")
WORLD = (-180.0, -90.0, 180.0, 90.0)
NAIP = {2010: (dt.date(2010, 6, 29), "20100629"), 2020: (dt.date(2020, 8, 31), "20200831")}


def time(*date: int) -> dt.datetime:
    return dt.datetime(*date, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


def files_source(path: Path, gsd_m: float, date: dt.date, **more: Any) -> FilesSource:
    known = {"title": "t", "licence": "public domain", "attribution": "USDA", "paths": (str(path),)}
    return FilesSource.model_validate({**known, "gsd_m": gsd_m, "datetime": date, **more})


def snapshot_of_labels(objects: Path, region: str, gsd_m: float, out: Path) -> None:
    """The labelled tags with their counts, as a sampling snapshot."""
    count_vocabulary({region: objects}, [gsd_m], SizeSettings(), out)
    labels = read_labels(PACKAGE / "settings" / "tag_labels.csv")
    tags = {tag: label.coarsest_gsd_m for tag, label in labels.items() if label.coarsest_gsd_m is not None}
    rows = [{"key": k, "value": v, "coarsest_gsd_m": gsd} for (k, v), gsd in tags.items()]
    write_table(out / "tags.parquet", pa.Table.from_pylist(rows))
    counts = [{**row, "n_plannable": row["n"]} for row in read_table(out / "plannable.parquet").to_pylist()]
    write_table(out / "snapshot.parquet", pa.Table.from_pylist(counts))


class Naip:
    """The two images as scenes of one source, and 200 trees on their ground, every other one edited in 2012."""

    def __init__(self, images: Path, folder: Path) -> None:
        self.images, self.folder = images, folder
        scenes = []
        for date, name in NAIP.values():
            source = files_source(self.path(name), 5.0, date)
            index_files(Search("dakota", "NAIP", source, SETTINGS.shared, WORLD, folder))
            scenes += read_scenes(folder)
        write_scenes(folder, scenes)
        self.source = source
        places = np.random.default_rng(0).uniform((-99.18, 47.008), (-99.13, 47.032), (200, 2))
        rows = []
        for number, (x, y) in enumerate(places.tolist()):
            rows.append(
                {
                    "object_id": f"n{number}",
                    "osm_type": "node",
                    "osm_id": number,
                    "version": 1,
                    "timestamp": time(2012, 5, 1) if number % 2 else time(2009, 5, 1),
                    "tags": {"natural": "tree"},
                    "geometry": shapely.to_wkb(shapely.Point(x, y)),
                    "bbox": {"xmin": x, "ymin": y, "xmax": x, "ymax": y},
                    "area_m2": 0.0,
                    "length_m": 0.0,
                }
            )
        write_table(folder / "objects.parquet", rows_to_table(rows, OBJECT_SCHEMA))
        tags = [{"key": "natural", "value": "tree", "coarsest_gsd_m": 10.0}]
        write_table(folder / "tags.parquet", pa.Table.from_pylist(tags))
        counted = [{"key": "natural", "value": "tree", "region": "dakota", "gsd_m": 5.0, "n_plannable": 200}]
        write_table(folder / "snapshot.parquet", pa.Table.from_pylist(counted))

    def path(self, name: str) -> Path:
        return self.images / f"naip_nd_m_4709963_se_{name}.tif"

    def plan(self, data: dt.datetime, **rules: Any) -> PlanSummary:
        here = self.folder
        plan = PlanSettings(snapshot="s", quota=1000, point_tile_px=64, max_overlap=1.0)
        write_region_overlap("dakota", WORLD, here / "objects.parquet", {}, here)
        return write_plan(
            Ground("dakota", "NAIP", WORLD, 5.0, data),
            PlanInputs(here / "objects.parquet", here / "overlap.parquet", here, here),
            PlanRules(plan, 10, SceneChoice.model_validate(rules)),
            here,
        )

    def rows(self) -> list[dict[str, Any]]:
        return read_table(self.folder / "plan.parquet", PLAN_SCHEMA).to_pylist()

    def years(self) -> dict[str, set[int]]:
        """Years of each object's chips."""
        found: dict[str, set[int]] = {}
        for row in self.rows():
            found.setdefault(row["object_id"], set()).add(int(row["chip_id"].split("_")[2][:4]))
        return found


@pytest.fixture
def naip(shared_data: Path, tmp_path: Path) -> Naip:
    return Naip(shared_data / "imagery", tmp_path)


def test_the_image_of_the_maps_date_is_chosen_for_each_object(naip: Naip) -> None:
    assert naip.plan(time(2013, 1, 1)).planned > 150
    assert set(map(tuple, naip.years().values())) == {(2010,)}
    naip.plan(time(2018, 1, 1))
    assert {tuple(years) for name, years in naip.years().items() if int(name[1:]) % 2 == 0} == {(2010,)}
    assert {tuple(years) for name, years in naip.years().items() if int(name[1:]) % 2 == 1} == {(2010,)}
    naip.plan(time(2019, 1, 1))
    assert {tuple(years) for name, years in naip.years().items() if int(name[1:]) % 2 == 0} == {(2010,)}
    assert {tuple(years) for name, years in naip.years().items() if int(name[1:]) % 2 == 1} == {(2020,)}
    naip.plan(time(2021, 1, 1))
    assert set(map(tuple, naip.years().values())) == {(2020,)}


def test_rules_of_season_and_years_leave_one_image_or_none(naip: Naip) -> None:
    naip.plan(time(2021, 1, 1), months=[6])
    assert set(map(tuple, naip.years().values())) == {(2010,)}
    summary = naip.plan(time(2016, 1, 1), max_years_apart=1)
    assert summary.dropped["date"] > 70
    assert {int(name[1:]) % 2 for name in naip.years()} == {0}, "those edited in 2012 stood unseen in 2010 and 2020"


def test_both_dates_show_the_same_ground_and_are_cut_from_their_own_image(naip: Naip, tmp_path: Path) -> None:
    summary = naip.plan(time(2021, 1, 1), dates=2)
    assert summary.scenes_used == 2
    both = [name for name, years in naip.years().items() if years == {2010, 2020}]
    assert len(both) == summary.planned / 2 > 150
    by_object: dict[str, list[dict[str, Any]]] = {}
    for row in naip.rows():
        by_object.setdefault(row["object_id"], []).append(row)
    for first, second in by_object.values():
        boxes = [shapely.box(*row["bbox"].values()) for row in (first, second)]
        assert boxes[0].intersection(boxes[1]).area > 0.95 * boxes[0].area
        assert first["split"] == second["split"]
    chips = ChipSettings(jpeg_quality=95, min_sharpness=0, min_contrast=0, max_cloud_share=1)
    cut_chips(CutInputs(tmp_path, tmp_path), chips, tmp_path)
    plan = {row["chip_id"]: row for row in naip.rows()}
    pictures = {}
    for year, (_, name) in NAIP.items():
        with rasterio.open(naip.path(name)) as dataset:
            pictures[year] = (dataset.transform, np.moveaxis(dataset.read([1, 2, 3]), 0, -1))
    for chip in read_table(tmp_path / "chips.parquet", CHIP_SCHEMA).to_pylist()[::25]:
        row = plan[chip["chip_id"]]
        transform, picture = pictures[chip["datetime"].year]
        column, line = map(round, ~transform @ (row["transform"][2], row["transform"][5]))
        truth = picture[line : line + row["height"], column : column + row["width"]].mean(axis=2)
        jpeg = read_member(tmp_path / chip["shard"], chip["offset"], chip["length"])
        assert np.abs(simplejpeg.decode_jpeg(jpeg, colorspace="RGB").mean(axis=2) - truth).mean() < 3


def test_an_estimate_is_near_what_is_cut(naip: Naip, tmp_path: Path) -> None:
    naip.plan(time(2021, 1, 1), dates=2)
    chips = ChipSettings()
    before = estimate(tmp_path, tmp_path, naip.source, chips, RateSettings())
    done = cut_chips(CutInputs(tmp_path, tmp_path), chips, tmp_path)
    assert before.chips == done["planned"]
    assert before.scenes == 2
    assert before.requests == 0
    assert before.blocks == 2 * 4, "the images have 934 x 723 pixels"
    assert not before.measured
    assert 0.5 < before.disk_bytes / done["bytes"] < 2
    after = estimate(tmp_path, tmp_path, naip.source, chips, RateSettings(), earlier=tmp_path)
    assert after.measured
    assert 0.7 < after.disk_bytes / done["bytes"] < 1.3


@pytest.mark.parametrize("rule", ["focus", "paper"])
def test_san_francisco_is_planned_on_landsat_at_30_metres(shared_data: Path, tmp_path: Path, rule: str) -> None:
    folder = shared_data / "pairs" / "sf_landsat7"
    region = Region(title="Mission Bay", path=str(folder / "sf_mission_bay.osm"))
    stage_extract("mission", region, SETTINGS.shared, tmp_path)
    write_objects(tmp_path, tmp_path)
    source = files_source(folder / "landsat7_sf_bay_30m_3857.tif", 23.7, dt.date(2001, 7, 1), bands=(2, 3, 3))
    index_files(Search("mission", "L7", source, SETTINGS.shared, WORLD, tmp_path))
    snapshot_of_labels(tmp_path / "objects.parquet", "mission", 23.7, tmp_path)
    plan = PlanSettings.model_validate(
        {"snapshot": "s", "quota": 50, "rule": rule, "min_object_px": 3, "min_tile_px": 32, "point_tile_px": 32}
    )
    write_region_overlap("mission", WORLD, tmp_path / "objects.parquet", {}, tmp_path)
    inputs = PlanInputs(tmp_path / "objects.parquet", tmp_path / "overlap.parquet", tmp_path, tmp_path)
    summary = write_plan(Ground("mission", "L7", WORLD, 23.7), inputs, PlanRules(plan, 11), tmp_path)
    rows = read_table(tmp_path / "plan.parquet", PLAN_SCHEMA).to_pylist()
    assert summary.planned == len(rows) >= (1 if rule == "focus" else 0)
    assert summary.drawn == len(rows) + sum(summary.dropped.values())
    with rasterio.open(folder / "landsat7_sf_bay_30m_3857.tif") as dataset:
        for row in rows:
            column, line = ~dataset.transform @ (row["transform"][2], row["transform"][5])
            assert (column, line) == pytest.approx((round(column), round(line)), abs=1e-6)
            assert 0 <= round(column) <= dataset.width - row["width"]
            assert Affine(*row["transform"]).a == 30.0
            assert row["gsd_m"] == pytest.approx(23.7, rel=0.01)
            assert row["split"] == split_of_bounds(tuple(row["bbox"].values()), 11)
    report = read_table(tmp_path / "report.parquet", REPORT_SCHEMA).to_pylist()
    assert sum(row["planned"] for row in report) >= len(rows)
    assert {row["gsd_m"] for row in report} <= {23.7}
