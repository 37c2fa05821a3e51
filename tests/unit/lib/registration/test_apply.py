"""From a picture beside its map to chips and captions: what is planned and said lies where the picture shows it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

import skyscript_assets
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CaptionInputs, write_captions
from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.osm.region_overlap import write_region_overlap
from skyscript_assets.lib.registration.estimate import write_offsets
from skyscript_assets.lib.settings.plant import CaptionSettings, ChipSettings, OffsetSettings, PlanSettings
from skyscript_assets.lib.tables import read_table

SHIFT = (7.0, -5.0)
PLAN = PlanSettings(snapshot="test", quota=1000, max_overlap=1.0)
WORLD = (-180.0, -90.0, 180.0, 90.0)
RULES = Path(skyscript_assets.__file__).parent / "settings" / "caption_rules.yaml"
UTM = Transformer.from_crs(4326, 32632, always_xy=True)
SETTINGS = OffsetSettings(search_radius_m=12, windows=16)


@pytest.fixture
def planned(
    tmp_path: Path, town: Callable[..., Scene], index: Callable[..., Path]
) -> Callable[..., list[dict[str, Any]]]:
    """Plans chips of a town whose picture lies `SHIFT` from its map, with the offset applied or not."""

    def plan(*, apply: bool, grid: str = "UTM", zoom: int = 12) -> list[dict[str, Any]]:
        folder, objects = index(town(SHIFT, grid=grid)), tmp_path / "objects.parquet"
        write_offsets(folder, objects, SETTINGS, tmp_path, open_scene=RasterReader)
        pq.write_table(
            pa.Table.from_pylist([{"key": "building", "value": "yes", "coarsest_gsd_m": 1.0}]),
            tmp_path / "tags.parquet",
        )
        counts = [{"key": "building", "value": "yes", "region": "here", "gsd_m": 0.5, "n_plannable": 144}]
        pq.write_table(pa.Table.from_pylist(counts), tmp_path / "snapshot.parquet")
        write_region_overlap("here", WORLD, objects, {}, tmp_path)
        offsets = tmp_path if apply else None
        inputs = PlanInputs(objects, tmp_path / "overlap.parquet", folder, tmp_path, offsets=offsets)
        write_plan(Ground("here", "S", WORLD, 0.5), inputs, PlanRules(PLAN, zoom), tmp_path)
        return read_table(tmp_path / "plan.parquet", PLAN_SCHEMA).to_pylist()

    return plan


def boxes_on_image(folder: Path, shift: tuple[float, float]) -> dict[str, np.ndarray]:
    """(xmin, ymin, xmax, ymax) of each house in UTM, where the picture shows it."""
    table = read_table(folder / "objects.parquet")
    found = {}
    for object_id, wkb in zip(table["object_id"].to_pylist(), table["geometry"].to_pylist(), strict=True):
        shape = shapely.transform(shapely.from_wkb(wkb), lambda p: np.column_stack(UTM.transform(p[:, 0], p[:, 1])))
        found[object_id] = np.array(shapely.bounds(shape)) + np.tile(shift, 2)
    return found


def to_utm(row: dict[str, Any], box: list[int]) -> np.ndarray:
    a, _, c, _, e, f = row["transform"]
    x0, y0, x1, y1 = box
    return np.array([c + x0 * a, f + y1 * e, c + x1 * a, f + y0 * e])


@pytest.mark.parametrize("grid", ["UTM", "turned"])
def test_the_focus_box_covers_the_object_in_the_picture(tmp_path: Path, planned: Any, grid: str) -> None:
    rows = planned(apply=True, grid=grid)
    shown = boxes_on_image(tmp_path, SHIFT)
    assert len(rows) > 80
    for row in rows:
        assert row["osm_shift_m"] == pytest.approx(SHIFT, abs=0.2)
        assert to_utm(row, row["focus_box"]) == pytest.approx(shown[row["object_id"]], abs=0.8)


def test_without_the_setting_objects_stay_where_osm_has_them(tmp_path: Path, planned: Any) -> None:
    rows = planned(apply=False)
    mapped = boxes_on_image(tmp_path, (0.0, 0.0))
    assert len(rows) > 80
    for row in rows:
        assert row["osm_shift_m"] == [0.0, 0.0]
        assert to_utm(row, row["focus_box"]) == pytest.approx(mapped[row["object_id"]], abs=0.51)


def test_the_ground_of_a_chip_is_where_osm_has_it(planned: Any) -> None:
    for row in planned(apply=True):
        x, y = UTM.transform(row["bbox"]["xmin"], row["bbox"]["ymin"])
        image = to_utm(row, [0, 0, row["width"], row["height"]])
        assert (x, y) == pytest.approx((image[0] - SHIFT[0], image[1] - SHIFT[1]), abs=0.3)


def test_pixels_in_the_focus_box_are_the_house(tmp_path: Path, planned: Any, town: Callable[..., Scene]) -> None:
    contrast = {}
    for apply in (True, False):
        rows = planned(apply=apply)
        differences = []
        with RasterReader(town(SHIFT)) as reader:
            for row in rows:
                pixels = reader.read(row["crs"], tuple(row["transform"]), row["width"], row["height"])
                x0, y0, x1, y1 = row["focus_box"]
                # The middle of a turned rectangle's box is inside the rectangle; the ground around it is at 120.
                middle = pixels.rgb[(y0 + y1) // 2 - 3 : (y0 + y1) // 2 + 3, (x0 + x1) // 2 - 3 : (x0 + x1) // 2 + 3]
                differences.append(abs(float(middle.mean()) - 120.0))
        contrast[apply] = np.mean(np.array(differences) > 25)
    assert contrast[True] > 0.98
    assert contrast[False] < 0.7


def test_what_a_caption_names_around_an_object_is_where_the_picture_shows_it(tmp_path: Path, planned: Any) -> None:
    rows = {row["chip_id"]: row for row in planned(apply=True)}
    # Every second house says another tag, so that houses are named beside each other.
    table = read_table(tmp_path / "objects.parquet").to_pylist()
    for number, row in enumerate(table):
        row["tags"] = [("building", "yes")] if number % 2 else [("building", "church")]
    schema = read_table(tmp_path / "objects.parquet").schema
    pq.write_table(pa.Table.from_pylist(table, schema=schema), tmp_path / "objects.parquet")
    tags = [{"key": "building", "value": value, "coarsest_gsd_m": 1.0} for value in ("yes", "church")]
    pq.write_table(pa.Table.from_pylist(tags), tmp_path / "tags.parquet")
    cut_chips(CutInputs(tmp_path, tmp_path / "scenes"), ChipSettings(), tmp_path)
    inputs = CaptionInputs(tmp_path, tmp_path, tmp_path / "objects.parquet", tmp_path, RULES)
    write_captions(inputs, CaptionSettings(), tmp_path)
    shown = boxes_on_image(tmp_path, SHIFT)
    named = 0
    for caption in read_table(tmp_path / "captions.parquet", CAPTION_SCHEMA).to_pylist():
        row = rows[caption["chip_id"]]
        frame = to_utm(row, [0, 0, row["width"], row["height"]])
        for one in caption["surrounding"]:
            box = shown[one["object_id"]]
            if (box[:2] > frame[:2] + 1).all() and (box[2:] < frame[2:] - 1).all():
                assert to_utm(row, one["box"]) == pytest.approx(box, abs=0.8)
                named += 1
    assert named > 10
