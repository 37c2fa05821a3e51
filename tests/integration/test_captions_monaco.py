"""Plan and captions of a real extract: every object of Monaco that a 0.5 m image would show."""

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

import skyscript_assets
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CaptionInputs, write_captions
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules, PlanSummary
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.geometry import cells_of_bounds, split_of_cell
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.osm.region_overlap import write_region_overlap
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.settings.plant import CaptionSettings, PlanSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.text import attribute_reason, text_reason

pytestmark = pytest.mark.integration

PACKAGE = Path(skyscript_assets.__file__).parent
SETTINGS = load_settings(PACKAGE / "settings" / "demo")
MONACO = BBox(west=7.405, south=43.720, east=7.445, north=43.755)
GSD, SOURCE, ZOOM, QUOTA = 0.5, "MAP05", 17, 30


@pytest.fixture(scope="module")
def monaco(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PlanSummary, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("monaco")
    pbf = shared_data / "osm" / "monaco.osm.pbf"
    stage_extract("monaco", Region(title="Monaco", path=str(pbf), bbox=MONACO), SETTINGS.shared, folder)
    write_objects(folder, folder)
    pairs = read_table(folder / "objects.parquet")["tags"].combine_chunks()
    mapped = zip(pairs.keys.to_pylist(), pairs.items.to_pylist(), strict=True)
    counted = Counter((key, value) for key, listed in mapped for value in normal_values(listed))
    seen = [
        {"key": key, "value": value, "region": "monaco", "gsd_m": GSD, "n_plannable": n}
        for (key, value), n in counted.items()
        if (text_reason(key, value) or attribute_reason(key)) is None
    ]
    pq.write_table(pa.Table.from_pylist(seen), folder / "snapshot.parquet")
    tags = [{"key": row["key"], "value": row["value"], "coarsest_gsd_m": 0.6} for row in seen]
    pq.write_table(pa.Table.from_pylist(tags), folder / "tags.parquet")
    to_utm = Transformer.from_crs(4326, "EPSG:32632", always_xy=True)
    left, bottom, right, top = to_utm.transform_bounds(*MONACO.bounds)
    write_scenes(
        folder,
        [
            Scene(
                scene_id="imagined",
                region="monaco",
                source=SOURCE,
                datetime=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
                footprint=shapely.box(*MONACO.bounds),
                gsd_m=GSD,
                crs="EPSG:32632",
                transform=(GSD, 0.0, left, 0.0, -GSD, top),
                width=int((right - left) / GSD),
                height=int((top - bottom) / GSD),
                hrefs=("none.tif",),
                fingerprint="none",
                licence="none",
                attribution="none",
            )
        ],
    )
    objects = folder / "objects.parquet"
    write_region_overlap("monaco", MONACO.bounds, objects, {}, folder)
    inputs = PlanInputs(objects, folder / "overlap.parquet", folder, folder)
    rules = PlanRules(PlanSettings(snapshot="test", quota=QUOTA), ZOOM)
    plan = write_plan(Ground("monaco", SOURCE, MONACO.bounds, GSD), inputs, rules, folder)
    ids = read_table(folder / "plan.parquet", PLAN_SCHEMA)["chip_id"]
    pq.write_table(pa.table({"chip_id": ids, "status": ["ok"] * len(ids)}), folder / "chips.parquet")
    rules = PACKAGE / "settings" / "caption_rules.yaml"
    captions = write_captions(CaptionInputs(folder, folder, objects, folder, rules), CaptionSettings(), folder)
    return folder, plan, captions


def test_a_whole_country_is_planned_within_its_quotas(monaco: tuple[Path, PlanSummary, dict[str, Any]]) -> None:
    folder, plan, _ = monaco
    assert plan.planned > 500
    assert plan.drawn == plan.planned + sum(plan.dropped.values())
    rows = read_table(folder / "report.parquet").to_pylist()
    for row in rows:
        if row["n_plannable"] > QUOTA:
            assert QUOTA * 0.3 < row["drawn"] < QUOTA * 2.2 or row["drawn"] < row["n_plannable"] * 0.6
        assert row["drawn"] <= row["n_plannable"]
    rare = [row for row in rows if row["n_plannable"] <= QUOTA]
    assert len(rare) > 100


def test_no_ground_is_shared_by_two_splits(monaco: tuple[Path, PlanSummary, dict[str, Any]]) -> None:
    ground: dict[tuple[int, int], str] = {}
    for row in read_table(monaco[0] / "plan.parquet", PLAN_SCHEMA).to_pylist():
        box = row["bbox"]
        for cell in cells_of_bounds((box["xmin"], box["ymin"], box["xmax"], box["ymax"]), ZOOM):
            assert ground.setdefault(cell, row["split"]) == row["split"] == split_of_cell(*cell)


def test_every_chip_has_captions_and_none_tells_a_name(monaco: tuple[Path, PlanSummary, dict[str, Any]]) -> None:
    folder, plan, summary = monaco
    # Three have nothing but keys that the caption rules keep silent, which this test's snapshot knows nothing of.
    assert (summary["chips"], summary["without_caption"]) == (plan.planned, 3)
    assert summary["with_surrounding"] > 0.9 * summary["captions"]
    assert summary["longest"] <= CaptionSettings().max_length
    rows: list[dict[str, Any]] = read_table(folder / "captions.parquet", CAPTION_SCHEMA).to_pylist()
    assert all(row["title"] and row["title_multi_objects"].isprintable() for row in rows)
    objects = read_table(folder / "objects.parquet", columns=["tags"])["tags"].combine_chunks()
    named = pc.equal(objects.keys, "name")
    names = {name for name in objects.items.filter(named).to_pylist() if len(name) > 12}
    assert len(names) > 200
    text = "\n".join(row["title_multi_objects"] for row in rows)
    assert not [name for name in names if name in text]


def test_named_surroundings_lie_in_their_chips(monaco: tuple[Path, PlanSummary, dict[str, Any]]) -> None:
    folder = monaco[0]
    sizes = {row["chip_id"]: row for row in read_table(folder / "plan.parquet", PLAN_SCHEMA).to_pylist()}
    for row in read_table(folder / "captions.parquet", CAPTION_SCHEMA).to_pylist():
        chip = sizes[row["chip_id"]]
        assert len(row["surrounding"]) <= CaptionSettings().max_surrounding
        for near in row["surrounding"]:
            x0, y0, x1, y1 = near["box"]
            assert 0 <= x0 < x1 <= chip["width"]
            assert 0 <= y0 < y1 <= chip["height"]
            assert near["object_id"] != chip["object_id"]
