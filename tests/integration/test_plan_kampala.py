"""Plan and captions on real imagery: drone photographs of Kampala at three GSDs, and the OSM buildings in them."""

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

import skyscript_assets
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CaptionInputs, write_captions
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules, PlanSummary
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.imagery.geotiff.raster import open_raster
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.osm.region_overlap import write_region_overlap
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.settings.plant import CaptionSettings, ChipSettings, PlanSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table
from tests.splits import split_of_bounds

pytestmark = pytest.mark.integration

PACKAGE = Path(skyscript_assets.__file__).parent
SETTINGS = load_settings(PACKAGE / "settings" / "demo")
GROUND = BBox(west=32.590, south=0.348, east=32.596, north=0.352)
ZOOM = 16
SCALES = ((19, 0.3), (20, 0.15), (21, 0.075))


@pytest.fixture(scope="module")
def objects(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pbf = shared_data / "pairs" / "kampala_oam" / "kampala_buildings_derived.osm.pbf"
    folder = tmp_path_factory.mktemp("kampala")
    stage_extract("kampala", Region(title="Kampala", path=str(pbf), bbox=GROUND), SETTINGS.shared, folder)
    write_objects(folder, folder)
    tags = [{"key": "building", "value": "yes", "coarsest_gsd_m": 1.0}]
    pq.write_table(pa.Table.from_pylist(tags), folder / "tags.parquet")
    count = {"key": "building", "value": "yes", "region": "kampala", "n_plannable": 200}
    pq.write_table(pa.Table.from_pylist([count | {"gsd_m": gsd_m} for _, gsd_m in SCALES]), folder / "snapshot.parquet")
    write_region_overlap("kampala", GROUND.bounds, folder / "objects.parquet", {}, folder)
    return folder


def index(shared_data: Path, level: int, gsd_m: float, out: Path) -> None:
    source = FilesSource(
        title="drone",
        gsd_m=gsd_m,
        licence="CC-BY-4.0",
        attribution="OpenAerialMap",
        paths=(str(shared_data / "pairs" / "kampala_oam" / f"oam_kampala_z{level}.tif"),),
        datetime=dt.date(2022, 1, 1),
    )
    index_files(Search("kampala", "OAM", source, SETTINGS.shared, GROUND.bounds, out))


def plan_chips(objects: Path, gsd_m: float, out: Path) -> PlanSummary:
    inputs = PlanInputs(objects / "objects.parquet", objects / "overlap.parquet", out, objects)
    rules = PlanRules(PlanSettings(snapshot="test", quota=1000), ZOOM)
    return write_plan(Ground("kampala", "OAM", GROUND.bounds, gsd_m), inputs, rules, out)


@pytest.mark.parametrize(("level", "gsd_m", "least"), [(19, 0.3, 35), (20, 0.15, 50), (21, 0.075, 50)])
def test_buildings_of_kampala_become_captioned_chips(
    shared_data: Path, objects: Path, tmp_path: Path, level: int, gsd_m: float, least: int
) -> None:
    index(shared_data, level, gsd_m, tmp_path)
    table = objects / "objects.parquet"
    plan = plan_chips(objects, gsd_m, tmp_path)
    assert plan.planned >= least
    assert plan.resampled == 0
    rows: list[dict[str, Any]] = read_table(tmp_path / "plan.parquet", PLAN_SCHEMA).to_pylist()
    geometry = dict(zip(*(read_table(table)[name].to_pylist() for name in ("object_id", "geometry")), strict=True))
    (scene,) = read_scenes(tmp_path)
    to_crs = Transformer.from_crs(4326, 3857, always_xy=True)
    with open_raster(scene.path) as raster:
        for row in rows:
            a, _, c, _, e, f = row["transform"]
            column, line = (c - raster.transform.c) / a, (f - raster.transform.f) / e
            assert (a, e) == (raster.transform.a, raster.transform.e)
            assert (column, line) == pytest.approx((round(column), round(line)), abs=1e-5)
            assert column > -1e-5 < line
            assert column + row["width"] < raster.width + 1e-5
            assert line + row["height"] < raster.height + 1e-5
            west, south, east, north = shapely.bounds(shapely.from_wkb(geometry[row["object_id"]]))
            x0, y1 = to_crs.transform(west, south)
            x1, y0 = to_crs.transform(east, north)
            ground = ((x0 - c) / a, (y0 - f) / e, (x1 - c) / a, (y1 - f) / e)
            assert row["focus_box"] == pytest.approx(ground, abs=1.01)
            assert row["gsd_m"] == pytest.approx(gsd_m, rel=0.01)
            assert row["split"] == split_of_bounds(tuple(row["bbox"].values()), ZOOM)

    cut_chips(CutInputs(tmp_path, tmp_path), ChipSettings(), tmp_path)
    rules = PACKAGE / "settings" / "caption_rules.yaml"
    summary = write_captions(CaptionInputs(tmp_path, tmp_path, table, objects, rules), CaptionSettings(), tmp_path)
    captions = read_table(tmp_path / "captions.parquet", CAPTION_SCHEMA)
    assert summary["captions"] == captions.num_rows == summary["chips"] >= least * 0.9
    assert set(captions["title"].to_pylist()) == {"building"}


def test_the_three_gsds_agree_on_the_ground_of_a_building(shared_data: Path, objects: Path, tmp_path: Path) -> None:
    splits: dict[str, set[str]] = {}
    for level, gsd_m in SCALES:
        out = tmp_path / str(level)
        out.mkdir()
        index(shared_data, level, gsd_m, out)
        plan_chips(objects, gsd_m, out)
        for row in read_table(out / "plan.parquet", PLAN_SCHEMA).to_pylist():
            splits.setdefault(row["object_id"], set()).add(row["split"])
    assert max(map(len, splits.values())) == 1
