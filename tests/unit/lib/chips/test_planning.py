import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules, PlanSummary
from skyscript_assets.lib.chips.plan_report import OUTCOME_SCHEMA, REPORT_SCHEMA, plot_plan, short_tags
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.errors import CorruptInputError, SceneError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.geometry import cell_of, from_lonlat, split_of_cell
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.osm.region_overlap import OVERLAP_SCHEMA
from skyscript_assets.lib.progress import silent
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_table, rows_to_table, write_table
from tests.splits import split_of_bounds

PLAN = PlanSettings(snapshot="test", quota=1000)
OBJECTS = pa.schema(
    [
        ("object_id", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("tags", TAGS_TYPE),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
    ]
)
ZOOM = 15
GSD = 0.5
LEFT, TOP = 400_000.0, 5_200_000.0
TO_LONLAT = Transformer.from_crs("EPSG:32632", 4326, always_xy=True)
EVERYTHING = {("building", "yes"): (1.0, 10), ("highway", "track"): (1.0, 10), ("natural", "tree"): (0.6, 10)}
WORLD = (-180.0, -90.0, 180.0, 90.0)

Shape = Callable[..., shapely.Geometry]


def ground(geometry: shapely.Geometry) -> shapely.Geometry:
    """From pixels of the scene to degrees."""
    return shapely.transform(
        geometry, lambda p: np.column_stack(TO_LONLAT.transform(LEFT + p[:, 0] * GSD, TOP - p[:, 1] * GSD))
    )


def scene(**changes: Any) -> Scene:
    size = changes.get("width", 4000)
    base = Scene(
        scene_id="one",
        region="r",
        source="S-1",
        datetime=dt.datetime(2021, 6, 5, 23, tzinfo=dt.UTC),
        footprint=ground(shapely.segmentize(shapely.box(0, 0, size, size), 200)),
        gsd_m=GSD,
        crs="EPSG:32632",
        transform=(GSD, 0.0, LEFT, 0.0, -GSD, TOP),
        width=size,
        height=size,
        hrefs=("one.tif",),
        fingerprint="f",
        licence="CC0-1.0",
        attribution="nobody",
    )
    return replace(base, **changes)


@dataclass
class Plan:
    """A small region in a folder, planned."""

    folder: Path

    def objects(
        self,
        *objects: tuple[str, shapely.Geometry, dict[str, str]],
        timestamps: Sequence[dt.datetime | None] | None = None,
    ) -> None:
        rows = []
        for (object_id, geometry, tags), edited in zip(objects, timestamps or [None] * len(objects), strict=True):
            bounds = shapely.bounds(geometry).tolist()
            box = dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True))
            row = {"object_id": object_id, "timestamp": edited, "tags": tags, "bbox": box}
            rows.append({**row, "geometry": shapely.to_wkb(geometry)})
        write_table(self.folder / "objects.parquet", rows_to_table(rows, OBJECTS))

    def snapshot(self, tags: dict[tuple[str, str], tuple[float, int]], gsds: tuple[float, ...] = (GSD,)) -> None:
        rows = [{"key": k, "value": v, "coarsest_gsd_m": gsd} for (k, v), (gsd, _) in tags.items()]
        pq.write_table(pa.Table.from_pylist(rows), self.folder / "tags.parquet")
        rows = [
            {"key": k, "value": v, "region": "r", "gsd_m": gsd, "n_plannable": n}
            for (k, v), (_, n) in tags.items()
            for gsd in gsds
        ]
        pq.write_table(pa.Table.from_pylist(rows), self.folder / "snapshot.parquet")

    def overlap(self, **owners: str) -> None:
        rows = [{"object_id": object_id, "owner": region} for object_id, region in owners.items()]
        write_table(self.folder / "overlap.parquet", rows_to_table(rows, OVERLAP_SCHEMA))

    def write(
        self,
        plan: PlanSettings = PLAN,
        zoom: int = ZOOM,
        choice: SceneChoice | None = None,
        progress: Any = silent,
        effective: bool = False,
        **ground: Any,
    ) -> PlanSummary:
        here = self.folder
        known = {"region": "r", "source": "S-1", "bbox": WORLD, "gsd_m": GSD}
        inputs = PlanInputs(here / "objects.parquet", here / "overlap.parquet", here, here)
        rules = PlanRules(plan, zoom, choice or SceneChoice(), effective)
        return write_plan(Ground(**known | ground), inputs, rules, here, progress)

    def rows(self) -> list[dict[str, Any]]:
        return read_table(self.folder / "plan.parquet", PLAN_SCHEMA).to_pylist()

    def only(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    made = Plan(tmp_path)
    made.snapshot(EVERYTHING)
    made.overlap()
    write_scenes(tmp_path, [scene()])
    return made


def inside_one_cell() -> tuple[float, float]:
    """A pixel of the scene in the middle of a cell."""
    for column in range(400, 3600, 50):
        for row in range(400, 3600, 50):
            west, south, east, north = shapely.bounds(
                ground(shapely.box(column - 300, row - 300, column + 300, row + 300))
            )
            if cell_of(west, north, ZOOM) == cell_of(east, south, ZOOM):
                return float(column), float(row)
    raise AssertionError("no such pixel")


X, Y = inside_one_cell()
HOUSE = ("a1", ground(shapely.box(X - 30, Y - 40, X + 30, Y + 40)), {"building": "yes"})
TREE = ("n1", ground(shapely.Point(X, Y)), {"natural": "tree"})
PATH = ("w1", ground(shapely.LineString([(X - 500, Y), (X - 5, Y + 3), (X + 500, Y)])), {"highway": "track"})


def many(count: int = 300) -> list[tuple[str, shapely.Geometry, dict[str, str]]]:
    rng = np.random.default_rng(5)
    objects: list[tuple[str, shapely.Geometry, dict[str, str]]] = []
    for i, (x, y) in enumerate(rng.uniform(-50, 4050, (count, 2)).tolist()):
        w, h = rng.uniform(20, 400, 2).tolist()
        house = shapely.box(x, y, x + w, y + h)
        road = shapely.LineString(rng.uniform(0, 4000, (5, 2)))
        objects += [
            (f"a{i}", ground(house), {"building": "yes", "name": "x"}),
            (f"n{i}", ground(shapely.Point(x, y)), {"natural": "tree"}),
            (f"w{i}", ground(road), {"highway": "track"}),
        ]
    return objects


def test_every_chip_keeps_the_promises_of_the_plan(plan: Plan) -> None:
    plan.objects(*many())
    summary = plan.write()
    rows = plan.rows()
    assert summary.planned == len(rows) > 500
    assert summary.drawn == summary.planned + sum(summary.dropped.values()) == 900
    assert summary.splits == {split: sum(row["split"] == split for row in rows) for split in summary.splits}
    assert len({row["chip_id"] for row in rows}) == len({row["object_id"] for row in rows}) == len(rows)
    for row in rows:
        a, b, c, d, e, f = row["transform"]
        column, line = (c - LEFT) / GSD, (TOP - f) / GSD
        assert (a, b, d, e) == (GSD, 0, 0, -GSD)
        assert (column % 1, line % 1) == (0, 0), "off the scene's pixels"
        assert column >= 0 <= line
        assert column + row["width"] <= 4000 >= line + row["height"]
        box = row["bbox"]
        bounds = (box["xmin"], box["ymin"], box["xmax"], box["ymax"])
        west, south, east, north = shapely.bounds(
            ground(shapely.segmentize(shapely.box(column, line, column + row["width"], line + row["height"]), 9))
        )
        assert bounds == pytest.approx((west, south, east, north), abs=1e-7)
        assert split_of_bounds(bounds, ZOOM) == row["split"]
        x0, y0, x1, y1 = row["focus_box"]
        assert 0 <= x0 < x1 <= row["width"]
        assert 0 <= y0 < y1 <= row["height"]
        assert not set(row["chip_id"]) & set("./ ")


def test_a_second_writing_is_equal_to_the_byte(plan: Plan, tmp_path: Path) -> None:
    plan.objects(*many(40))
    first = plan.write()
    files = [(tmp_path / name).read_bytes() for name in ("plan.parquet", "report.parquet")]
    assert plan.write() == first
    assert [(tmp_path / name).read_bytes() for name in ("plan.parquet", "report.parquet")] == files


def test_a_house_is_whole_in_its_chip_with_context_and_off_its_centre(plan: Plan) -> None:
    plan.objects(HOUSE)
    plan.write()
    row = plan.only()
    x0, y0, x1, y1 = row["focus_box"]
    assert row["chip_id"].startswith("a1_S-1_20210605_")
    assert row["width"] == PLAN.min_tile_px
    assert abs(x1 - x0 - 60) <= 2
    assert abs(y1 - y0 - 80) <= 2
    assert row["height"] == pytest.approx(80 * PLAN.context, abs=3)
    assert abs((x0 + x1) - row["width"]) > 2 or abs((y0 + y1) - row["height"]) > 2
    assert row["stratum"] == "building=yes"
    assert row["gsd_m"] == GSD


def test_a_long_house_gets_a_chip_no_longer_than_twice_its_width(plan: Plan) -> None:
    plan.objects(("a1", ground(shapely.box(X - 200, Y - 10, X + 200, Y + 10)), {"building": "yes"}))
    plan.write()
    row = plan.only()
    assert row["width"] == pytest.approx(600, abs=3)
    assert row["height"] == pytest.approx(300, abs=2)


def test_a_point_and_a_line_get_a_square_of_fixed_size_around_them(plan: Plan) -> None:
    plan.objects(TREE, PATH)
    plan.write()
    tree, path = plan.rows()
    assert {row["width"] for row in (tree, path)} | {row["height"] for row in (tree, path)} == {PLAN.point_tile_px}
    x0, y0, x1, y1 = tree["focus_box"]
    assert (x1 - x0, y1 - y0) == (1, 1)
    assert abs(x0 - 80) <= PLAN.shift * 160 >= abs(y0 - 80)
    x0, _, x1, _ = path["focus_box"]
    assert x1 - x0 == pytest.approx(160, abs=1) or x1 == 160 or x0 == 0


def test_a_line_is_shown_at_a_vertex_inside_the_region(plan: Plan) -> None:
    bbox = tuple(shapely.bounds(ground(shapely.box(X - 50, Y - 50, X + 50, Y + 50))).tolist())
    plan.objects(PATH, ("w2", ground(shapely.LineString([(X - 90, Y), (X + 90, Y)])), {"highway": "track"}))
    summary = plan.write(bbox=bbox)
    row = plan.only()
    left = (row["transform"][2] - LEFT) / GSD
    assert row["object_id"] == "w1"
    assert left <= X - 5 <= left + 160
    assert summary.dropped == {"outside": 1}


def test_objects_at_the_edge_of_the_scene_are_shifted_inward_and_beyond_it_dropped(plan: Plan) -> None:
    plan.objects(
        ("n1", ground(shapely.Point(3, 300)), {"natural": "tree"}),
        ("n2", ground(shapely.Point(-30, 300)), {"natural": "tree"}),
        ("a3", ground(shapely.box(-30, 280, 30, 330)), {"building": "yes"}),
    )
    summary = plan.write(zoom=10)
    row = plan.only()
    assert row["object_id"] == "n1"
    assert row["transform"][2] == LEFT
    assert row["focus_box"][0] == 3
    assert summary.dropped == {"outside": 2}


def test_a_chip_lies_on_ground_with_data(plan: Plan, tmp_path: Path) -> None:
    corner = shapely.Polygon([(0, 0), (4000, 0), (0, 4000)])
    write_scenes(tmp_path, [scene(footprint=ground(shapely.segmentize(corner, 100)))])
    plan.objects(*many(150))
    summary = plan.write()
    assert summary.dropped["outside"] > 100
    for row in plan.rows():
        right = (row["transform"][2] - LEFT) / GSD + row["width"]
        bottom = (TOP - row["transform"][5]) / GSD + row["height"]
        assert right + bottom <= 4004


def test_a_chip_near_the_border_of_two_splits_is_moved_to_its_objects_side(plan: Plan) -> None:
    def split_at(column: int) -> str:
        lon, lat = shapely.get_coordinates(ground(shapely.Point(column, Y)))[0]
        return split_of_cell(*cell_of(lon, lat, ZOOM))

    border = next(column for column in range(300, 3700) if split_at(column) != split_at(column + 1))
    near, nearest = (("n1", border + 20), ("n2", border + 2))
    plan.objects(*[(i, ground(shapely.Point(x, Y)), {"natural": "tree"}) for i, x in (near, nearest)])
    summary = plan.write()
    row = plan.only()
    assert (row["object_id"], row["split"]) == ("n1", split_at(border + 20))
    assert row["focus_box"][0] <= 20
    assert summary.dropped == {"split": 1}


def test_only_tags_that_can_be_seen_draw_an_object(plan: Plan, tmp_path: Path) -> None:
    write_scenes(
        tmp_path, [replace(scene(), gsd_m=0.8, transform=(0.8, 0.0, LEFT, 0.0, -0.8, TOP), width=2500, height=2500)]
    )
    plan.objects(TREE, HOUSE, ("n9", TREE[1], {"natural": "tree", "highway": "track"}))
    plan.write()
    assert [(row["object_id"], row["stratum"]) for row in plan.rows()] == [
        ("a1", "building=yes"),
        ("n9", "highway=track"),
    ]


def test_the_stratum_is_the_rarest_visible_tag(plan: Plan) -> None:
    plan.snapshot({("building", "yes"): (1.0, 500), ("roof:shape", "dome"): (0.6, 3), ("shop", "x"): (0.1, 1)})
    plan.objects(("a1", HOUSE[1], {"building": "yes", "roof:shape": "dome", "shop": "x"}))
    plan.write()
    assert plan.only()["stratum"] == "roof:shape=dome"


def test_objects_too_small_or_too_large_for_a_chip_are_not_drawn(plan: Plan) -> None:
    plan.objects(
        ("a1", ground(shapely.box(X, Y, X + 12, Y + 12)), {"building": "yes"}),
        ("a2", ground(shapely.box(X - 600, Y - 600, X + 600, Y + 600)), {"building": "yes"}),
        ("w3", ground(shapely.LineString([(X, Y), (X + 9, Y)])), {"highway": "track"}),
    )
    assert plan.write().drawn == 0


def test_the_paper_rule_takes_the_box_as_it_is(plan: Plan) -> None:
    plan.objects(
        ("a1", ground(shapely.box(X - 60, Y - 75, X + 60, Y + 75)), {"building": "yes"}),
        ("a2", ground(shapely.box(X - 20, Y - 75, X + 20, Y + 75)), {"building": "yes"}),
        TREE,
    )
    summary = plan.write(PLAN.model_copy(update={"rule": "paper"}))
    house, tree = plan.rows()
    assert house["width"] == pytest.approx(120, abs=2)
    assert house["height"] == pytest.approx(150, abs=2)
    x0, y0, x1, y1 = house["focus_box"]
    assert 0 in (x0, house["width"] - x1)
    assert 0 in (y0, house["height"] - y1)
    assert x1 - x0 >= house["width"] * 0.74
    assert tree["width"] == 160
    assert summary.dropped == {"size": 1}


def test_the_clearer_scene_wins_then_the_later_one(plan: Plan, tmp_path: Path) -> None:
    plan.objects(TREE)
    day = dt.timedelta(days=1)
    old, new = scene(scene_id="a-old"), scene(scene_id="b-new", datetime=scene().datetime + day)
    cloudy = replace(new, scene_id="c", datetime=new.datetime + day, cloud_share=0.5)
    write_scenes(tmp_path, [old, new, cloudy])
    plan.write()
    assert plan.only()["scene_id"] == "b-new"
    elsewhere = replace(new, footprint=ground(shapely.box(X - 20, Y - 20, X + 20, Y + 20)))
    write_scenes(tmp_path, [old, elsewhere, cloudy])
    plan.write()
    assert plan.only()["scene_id"] == "a-old", "the tile does not fit the newer one's ground"


def test_degrees_are_resampled_to_utm_on_whole_pixels(plan: Plan, tmp_path: Path) -> None:
    footprint = scene().footprint
    west, south, east, north = shapely.bounds(footprint)
    step = 4.5e-6
    width, height = int((east - west) / step), int((north - south) / step)
    transform = (step, 0.0, west, 0.0, -step, north)
    write_scenes(tmp_path, [scene(crs="EPSG:4326", transform=transform, width=width, height=height)])
    plan.objects(HOUSE, TREE, PATH)
    assert plan.write().resampled == 3
    for row in plan.rows():
        a, _, c, _, e, f = row["transform"]
        assert row["crs"] == "EPSG:32632"
        assert (a, e) == (GSD, -GSD)
        assert (c / GSD % 1, f / GSD % 1) == (0, 0)


def test_a_scene_across_two_utm_zones_is_cut_in_both(plan: Plan, tmp_path: Path) -> None:
    box = shapely.box(11.9, -0.1, 12.1, 0.1)
    write_scenes(
        tmp_path,
        [scene(crs="EPSG:4326", footprint=box, transform=(1e-5, 0, 11.9, 0, -1e-5, 0.1), width=20_000, height=20_000)],
    )
    plan.objects(
        *[
            (f"n{i}", shapely.Point(x, y), {"natural": "tree"})
            for i, (x, y) in enumerate([(11.95, 0.05), (12.05, 0.05), (11.95, -0.05), (12.05, -0.05)])
        ]
    )
    plan.write(zoom=8)
    assert {row["crs"] for row in plan.rows()} == {"EPSG:32632", "EPSG:32633", "EPSG:32732", "EPSG:32733"}


@pytest.mark.parametrize(
    "transform",
    [(0.4, 0.3, LEFT, 0.3, -0.4, TOP), (0.5, 0.0, LEFT, 0.0, -0.6, TOP)],
    ids=["rotated", "oblong"],
)
def test_pixels_that_are_not_square_and_north_up_are_resampled(
    plan: Plan, tmp_path: Path, transform: tuple[float, float, float, float, float, float]
) -> None:
    write_scenes(tmp_path, [scene(transform=transform)])
    plan.objects(TREE)
    assert plan.write().resampled == 1
    assert plan.only()["transform"][0] == GSD


def mercator_scale(latitude_deg: float) -> float:
    """Metres to the east on the ellipsoid of WGS 84 in one of EPSG:3857 (Snyder, Map Projections, eq. 4-20)."""
    latitude = np.radians(latitude_deg)
    return float(np.cos(latitude) / np.sqrt(1 - 0.00669437999 * np.sin(latitude) ** 2))


def test_web_mercator_is_kept_with_its_gsd_on_the_ground(plan: Plan, tmp_path: Path) -> None:
    forth = Transformer.from_crs(4326, 3857, always_xy=True)
    footprint = scene().footprint
    west, south, east, north = shapely.bounds(footprint)
    left, top = forth.transform(west, north)
    right, bottom = forth.transform(east, south)
    pixel = 0.75
    write_scenes(
        tmp_path,
        [
            scene(
                crs="EPSG:3857",
                transform=(pixel, 0.0, left, 0.0, -pixel, top),
                width=int((right - left) / pixel),
                height=int((top - bottom) / pixel),
            )
        ],
    )
    plan.objects(TREE)
    assert plan.write().resampled == 0
    row = plan.only()
    assert row["crs"] == "EPSG:3857"
    assert row["transform"][0] == pixel
    assert (row["transform"][2] - left) / pixel == pytest.approx(round((row["transform"][2] - left) / pixel), abs=1e-6)
    assert row["gsd_m"] == pytest.approx(pixel * mercator_scale(row["bbox"]["ymin"]), rel=1e-4)


def test_objects_of_another_region_or_outside_the_box_are_not_planned(plan: Plan) -> None:
    plan.objects(HOUSE, TREE, ("n2", ground(shapely.Point(X + 900, Y)), {"natural": "tree"}))
    bbox = tuple(shapely.bounds(ground(shapely.box(X - 50, Y - 50, X + 50, Y + 50))).tolist())
    plan.overlap(a1="earlier")
    summary = plan.write(bbox=bbox)
    assert plan.only()["object_id"] == "n1"
    assert (summary.objects, summary.elsewhere, summary.drawn) == (3, 2, 1)


def test_the_report_tells_wanted_against_achieved(plan: Plan, tmp_path: Path) -> None:
    plan.objects(*many(100))
    quota = 20
    plan.snapshot({tag: (gsd, 100) for tag, (gsd, _) in EVERYTHING.items()}, gsds=(0.52, 3.0))
    summary = plan.write(PLAN.model_copy(update={"quota": quota}), gsd_m=0.52)
    rows = read_table(tmp_path / "report.parquet", REPORT_SCHEMA).to_pylist()
    planned = plan.rows()
    assert [(row["key"], row["gsd_m"], row["n_plannable"], row["wanted"]) for row in rows] == [
        (key, 0.52, 100, quota) for key in ("building", "highway", "natural")
    ]
    assert sum(row["planned"] for row in rows) == len(planned)
    assert sum(row["drawn"] for row in rows) == summary.drawn
    assert 3 * 8 < summary.drawn < 3 * 35
    assert summary.tags == 3
    assert summary.tags_short == sum(row["planned"] < quota for row in rows)


def test_no_scenes_make_an_explicitly_empty_plan(plan: Plan, tmp_path: Path) -> None:
    write_scenes(tmp_path, [])
    plan.objects(HOUSE)
    assert plan.write() == PlanSummary(scenes=0, objects=1, elsewhere=0, drawn=0, planned=0)
    assert plan.rows() == []


def test_no_objects_make_an_empty_plan(plan: Plan) -> None:
    plan.objects()
    assert plan.write().planned == 0


def test_progress_ends_with_everything_that_was_drawn(plan: Plan) -> None:
    plan.objects(HOUSE, TREE)
    told: list[tuple[int, int, str]] = []
    plan.write(progress=lambda *news: told.append(news))
    assert told[-1] == (2, 2, "objects")


def test_bad_input_is_named(plan: Plan, tmp_path: Path) -> None:
    plan.objects(HOUSE, HOUSE)
    with pytest.raises(CorruptInputError, match="object ids repeat"):
        plan.write()
    plan.objects(HOUSE)
    write_scenes(tmp_path, [scene(crs="EPSG:nothing")])
    with pytest.raises(SceneError, match="scene one: its CRS"):
        plan.write()
    write_scenes(tmp_path, [scene()])
    table = pq.read_table(tmp_path / "objects.parquet")
    broken = table.set_column(table.schema.get_field_index("geometry"), "geometry", pa.array([b"no"]))
    pq.write_table(broken, tmp_path / "objects.parquet")
    with pytest.raises(CorruptInputError, match="a geometry is broken"):
        plan.write()
    (tmp_path / "objects.parquet").unlink()
    with pytest.raises(UpstreamMissingError, match=r"objects\.parquet"):
        plan.write()


# -------------------------------------------------------------------------------------------------- scenes, regions


def dated(name: str, year: int, month: int = 6, **changes: Any) -> Scene:
    return scene(scene_id=name, datetime=dt.datetime(year, month, 5, tzinfo=dt.UTC), **changes)


def test_an_object_becomes_chips_of_several_dates_that_lie_apart(plan: Plan, tmp_path: Path) -> None:
    write_scenes(tmp_path, [dated(f"s{year}-{month}", year, month) for year in (2019, 2021, 2023) for month in (6, 7)])
    plan.objects(TREE, HOUSE)
    summary = plan.write(choice=SceneChoice(dates=2))
    assert (summary.planned, summary.drawn, summary.scenes_used) == (4, 2, 2)
    assert sorted((row["object_id"], row["scene_id"]) for row in plan.rows()) == [
        ("a1", "s2023-6"),
        ("a1", "s2023-7"),
        ("n1", "s2023-6"),
        ("n1", "s2023-7"),
    ]
    plan.write(choice=SceneChoice(dates=9, min_days_apart=300))
    assert [row["scene_id"] for row in plan.rows() if row["object_id"] == "n1"] == ["s2019-7", "s2021-7", "s2023-7"]
    assert len({row["chip_id"] for row in plan.rows()}) == 6
    report = read_table(tmp_path / "report.parquet", REPORT_SCHEMA).to_pylist()
    assert {row["key"]: (row["drawn"], row["planned"]) for row in report if row["drawn"]} == {
        "building": (1, 3),
        "natural": (1, 3),
    }


def test_each_object_gets_the_scene_of_its_own_date(plan: Plan, tmp_path: Path) -> None:
    write_scenes(tmp_path, [dated("old", 2010), dated("new", 2020)])
    early, late = dt.datetime(2009, 1, 1, tzinfo=dt.UTC), dt.datetime(2012, 1, 1, tzinfo=dt.UTC)
    plan.objects(TREE, HOUSE, timestamps=[early, late])
    plan.write(data_time=dt.datetime(2013, 1, 1, tzinfo=dt.UTC))
    assert {row["object_id"]: row["scene_id"] for row in plan.rows()} == {"n1": "old", "a1": "old"}
    plan.write(data_time=dt.datetime(2017, 1, 1, tzinfo=dt.UTC))
    assert {row["object_id"]: row["scene_id"] for row in plan.rows()} == {"n1": "old", "a1": "old"}
    plan.write(data_time=dt.datetime(2021, 1, 1, tzinfo=dt.UTC))
    assert {row["object_id"]: row["scene_id"] for row in plan.rows()} == {"n1": "new", "a1": "new"}
    plan.objects(TREE, HOUSE, timestamps=[early, dt.datetime(2018, 1, 1, tzinfo=dt.UTC)])
    plan.write(data_time=dt.datetime(2019, 1, 1, tzinfo=dt.UTC))
    assert {row["object_id"]: row["scene_id"] for row in plan.rows()} == {"n1": "old", "a1": "new"}


def test_without_a_date_of_the_data_the_last_edit_stands_for_it(plan: Plan, tmp_path: Path) -> None:
    write_scenes(tmp_path, [dated("old", 2010), dated("new", 2020)])
    plan.objects(TREE, HOUSE, timestamps=[None, dt.datetime(2011, 1, 1, tzinfo=dt.UTC)])
    plan.write()
    assert {row["scene_id"] for row in plan.rows()} == {"old"}


def test_objects_whose_scenes_are_all_refused_say_by_which_rule(plan: Plan, tmp_path: Path) -> None:
    plan.objects(TREE, ("n2", ground(shapely.Point(-900, Y)), {"natural": "tree"}))
    for rules, reason in (({"months": (1,)}, "season"), ({"max_cloud_share": 0.1}, "cloud")):
        write_scenes(tmp_path, [dated("one", 2020, cloud_share=0.4)])
        assert plan.write(choice=SceneChoice.model_validate(rules)).dropped == {"outside": 1, reason: 1}
    data = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    late = plan.write(choice=SceneChoice(max_years_apart=1), data_time=data)
    assert late.dropped == {"date": 1, "outside": 1}
    outcomes = read_table(tmp_path / "outcomes.parquet", OUTCOME_SCHEMA).to_pylist()
    assert [(row["kind"], row["outcome"], row["n"]) for row in outcomes] == [
        ("node", "date", 1),
        ("node", "outside", 1),
    ]


def test_two_scenes_of_one_id_are_an_error(plan: Plan, tmp_path: Path) -> None:
    plan.objects(TREE)
    write_scenes(tmp_path, [scene(), scene()])
    with pytest.raises(CorruptInputError, match="scene id one occurs more than once"):
        plan.write()


def test_a_tile_across_the_seam_of_two_scenes_is_dropped_and_one_beside_it_is_not(plan: Plan, tmp_path: Path) -> None:
    left, right = (ground(shapely.segmentize(shapely.box(x, 0, x + 2000, 4000), 200)) for x in (0, 2000))
    write_scenes(tmp_path, [scene(scene_id="left", footprint=left), scene(scene_id="right", footprint=right)])
    plan.objects(
        ("a1", ground(shapely.box(1970, 300, 2030, 360)), {"building": "yes"}),
        ("a2", ground(shapely.box(1900, 600, 1960, 660)), {"building": "yes"}),
        ("a3", ground(shapely.box(2040, 900, 2100, 960)), {"building": "yes"}),
    )
    assert plan.write(zoom=10).dropped == {"outside": 1}
    assert {row["object_id"]: row["scene_id"] for row in plan.rows()} == {"a2": "left", "a3": "right"}


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:4326"])
def test_a_footprint_across_the_antimeridian_is_cut_on_both_sides_of_it(plan: Plan, tmp_path: Path, crs: str) -> None:
    footprint = shapely.MultiPolygon([shapely.box(179.9, -0.1, 180, 0.1), shapely.box(-180, -0.1, -179.9, 0.1)])
    if crs == "EPSG:4326":
        facts: dict[str, Any] = {"transform": (1e-5, 0, 179.9, 0, -1e-5, 0.1), "width": 20_000, "height": 20_000}
    else:
        left, top = Transformer.from_crs(4326, crs, always_xy=True).transform(179.89, 0.11)
        facts = {"transform": (0.5, 0, left, 0, -0.5, top), "width": 60_000, "height": 60_000}
    write_scenes(tmp_path, [scene(crs=crs, footprint=footprint, **facts)])
    places = {"n1": 179.95, "n2": -179.95, "n3": 179.9999}
    plan.objects(*[(i, shapely.Point(x, 0.05), {"natural": "tree"}) for i, x in places.items()])
    summary = plan.write(zoom=8)
    rows = {row["object_id"]: row["bbox"] for row in plan.rows()}
    assert {"n1", "n2"} <= set(rows)
    assert all(box["xmin"] <= places[i] <= box["xmax"] < box["xmin"] + 0.1 for i, box in rows.items())
    assert summary.planned + sum(summary.dropped.values()) == 3


def test_a_footprint_around_the_pole_does_not_break_the_plan(plan: Plan, tmp_path: Path) -> None:
    polar = scene(
        scene_id="polar",
        crs="EPSG:3413",
        footprint=shapely.box(-180, 84, 180, 90),
        gsd_m=30.0,
        transform=(30.0, 0, -700_000, 0, -30.0, 700_000),
        width=46_667,
        height=46_667,
    )
    mercator = scene(
        scene_id="mercator",
        crs="EPSG:3857",
        footprint=shapely.box(7, 80, 8, 90),
        transform=(3.0, 0, 779_236.0, 0, -3.0, 20_037_508.0),
        width=37_000,
        height=1_500_000,
    )
    write_scenes(tmp_path, [polar, mercator])
    plan.snapshot({("natural", "tree"): (30.0, 10)}, gsds=(0.5, 30.0))
    plan.objects(
        ("n1", shapely.Point(20, 89.5), {"natural": "tree"}),
        ("n2", shapely.Point(7.5, 82), {"natural": "tree"}),
        ("n3", shapely.Point(-150, 86), {"natural": "tree"}),
    )
    summary = plan.write(zoom=8)
    assert summary.planned + sum(summary.dropped.values()) == summary.drawn == 3
    assert "mercator" in {row["scene_id"] for row in plan.rows() if row["object_id"] == "n2"}


def test_in_web_mercator_an_object_is_seen_at_the_resolution_of_its_own_latitude(plan: Plan, tmp_path: Path) -> None:
    """One scene of a tile service may reach over a country: at 69 degrees its pixels show half of those at 45."""
    forth = Transformer.from_crs(4326, 3857, always_xy=True)
    left, top = forth.transform(25.0, 70.0)
    right, bottom = forth.transform(26.0, 44.0)
    pixel = 1.3
    wide = scene(
        crs="EPSG:3857",
        footprint=shapely.segmentize(shapely.box(25.0, 44.0, 26.0, 70.0), 0.5),
        transform=(pixel, 0.0, left, 0.0, -pixel, top),
        width=int((right - left) / pixel),
        height=int((top - bottom) / pixel),
        gsd_m=pixel * np.cos(np.radians(57)),
    )
    write_scenes(tmp_path, [wide])
    plan.snapshot(EVERYTHING, gsds=(0.5, 1.0))
    plan.objects(*[(f"n{lat}", shapely.Point(25.5, lat), {"natural": "tree"}) for lat in (45, 69)])
    summary = plan.write(zoom=8)
    row = plan.only()
    assert row["object_id"] == "n69"
    assert row["gsd_m"] == pytest.approx(pixel * mercator_scale(69), rel=1e-3)
    assert row["stratum"] == "natural=tree"
    assert summary.drawn == 2


def test_what_an_enlarged_scene_shows_decides_where_the_settings_say_so(plan: Plan, tmp_path: Path) -> None:
    write_scenes(tmp_path, [scene(effective_gsd_m=1.1)])
    plan.objects(TREE)
    plan.snapshot({("natural", "tree"): (0.6, 10)})
    assert plan.write().planned == 1
    assert plan.only()["gsd_m"] == GSD
    assert plan.write(effective=True).planned == 0
    plan.snapshot({("natural", "tree"): (1.2, 10)})
    assert plan.write(effective=True).planned == 1
    assert plan.only()["gsd_m"] == pytest.approx(1.1)
    assert plan.only()["transform"][0] == GSD, "it is cut as it is stored"
    write_scenes(tmp_path, [scene(effective_gsd_m=0.2)])
    plan.write(effective=True)
    assert plan.only()["gsd_m"] == GSD, "no detail is finer than the pixels"


@pytest.mark.parametrize("crs", ["EPSG:3395", "EPSG:3857+5773", "ESRI:102100"])
def test_every_mercator_has_its_gsd_on_the_ground(plan: Plan, tmp_path: Path, crs: str) -> None:
    to_crs = from_lonlat(crs)
    west, south, east, north = shapely.bounds(scene().footprint)
    (left, right), (bottom, top) = to_crs.transform([west, east], [south, north])
    pixel = 0.75
    size = {"width": int((right - left) / pixel), "height": int((top - bottom) / pixel)}
    gsd_m = pixel * mercator_scale((south + north) / 2)
    write_scenes(tmp_path, [scene(crs=crs, transform=(pixel, 0.0, left, 0.0, -pixel, top), gsd_m=gsd_m, **size)])
    plan.objects(TREE)
    assert plan.write().resampled == 0
    assert plan.only()["gsd_m"] == pytest.approx(gsd_m, rel=1e-3)


def test_a_region_that_the_snapshot_does_not_know_is_drawn_by_its_own_counts(plan: Plan) -> None:
    plan.objects(*many(400))
    quota = PLAN.model_copy(update={"quota": 40})
    known = plan.write(quota, region="other")
    assert 3 * 20 < known.drawn < 3 * 65
    rows = read_table(plan.folder / "report.parquet", REPORT_SCHEMA).to_pylist()
    assert {(row["key"], row["n_plannable"], row["wanted"]) for row in rows} == {
        (key, 400, 40) for key in ("building", "highway", "natural")
    }


def test_a_snapshot_that_was_frozen_before_the_gsd_was_corrected_is_refused(plan: Plan) -> None:
    plan.objects(HOUSE, TREE)
    plan.snapshot(EVERYTHING, gsds=(0.3, 1.0))
    remedy = r"'test' was counted at 0.3 m, 1 m and not at 0.5 m.*S-1.*plan\.snapshot.*skyscript run .*_snapshot"
    with pytest.raises(SettingsError, match=remedy):
        plan.write()
    assert not (plan.folder / "plan.parquet").exists()
    plan.snapshot(EVERYTHING, gsds=(0.3, 0.5, 1.0))
    assert plan.write().planned == 2


def test_a_gsd_at_which_there_was_nothing_to_count_is_no_reason_to_refuse(plan: Plan) -> None:
    plan.objects(TREE)
    plan.snapshot(EVERYTHING, gsds=(0.3,))
    assert plan.write(gsd_m=0.7).planned == 1, "no tree is seen at 0.7 m, so none was counted"
    with pytest.raises(SettingsError, match="not at 0.6 m"):
        plan.write(gsd_m=0.6)


def test_a_region_that_the_snapshot_does_not_know_needs_none_of_its_gsds(plan: Plan) -> None:
    plan.objects(HOUSE)
    assert plan.write(region="other", gsd_m=0.7).planned == 1


def test_plans_are_nested_in_the_quota(plan: Plan) -> None:
    plan.objects(*many(100))
    plan.snapshot({tag: (gsd, 100) for tag, (gsd, _) in EVERYTHING.items()})
    chips = []
    for quota in (20, 50, 1000):
        plan.write(PLAN.model_copy(update={"quota": quota, "max_overlap": 1.0}))
        chips.append({row["chip_id"] for row in plan.rows()})
    assert chips[0] < chips[1] < chips[2]


def test_the_plan_is_drawn_as_a_small_picture(plan: Plan, tmp_path: Path) -> None:
    plan.objects(*many(60))
    plan.write()
    plot_plan(tmp_path, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plan.png").stat().st_size < 100_000
    plan.objects()
    plan.write()
    plot_plan(tmp_path, tmp_path / "plan.png")


def test_the_tags_that_lack_most_chips_come_first(plan: Plan, tmp_path: Path) -> None:
    plan.objects(HOUSE, TREE, PATH)
    plan.snapshot({("building", "yes"): (1.0, 5), ("highway", "track"): (1.0, 1), ("natural", "tree"): (0.6, 9)})
    plan.write()
    short = short_tags(read_table(tmp_path / "report.parquet", REPORT_SCHEMA)).to_pylist()
    assert [(row["key"], row["lacking"]) for row in short] == [("natural", 8), ("building", 4)]


@pytest.mark.parametrize("crs", ["EPSG:32660", "EPSG:4326"])
def test_chips_across_the_antimeridian_are_planned_like_others(plan: Plan, tmp_path: Path, crs: str) -> None:
    footprint = shapely.MultiPolygon([shapely.box(179.9, -0.1, 180, 0.1), shapely.box(-180, -0.1, -179.9, 0.1)])
    left, top = Transformer.from_crs(4326, "EPSG:32660", always_xy=True).transform(179.89, 0.11)
    facts: dict[str, Any] = {"transform": (0.5, 0, left, 0, -0.5, top), "width": 60_000, "height": 60_000}
    if crs == "EPSG:4326":
        facts = {"transform": (1e-5, 0, 179.9, 0, -1e-5, 0.1), "width": 20_000, "height": 20_000}
    write_scenes(tmp_path, [scene(crs=crs, footprint=footprint, **facts)])
    plan.objects(
        ("a1", shapely.box(179.9998, 0.0499, 180.0002, 0.0502), {"building": "yes"}),
        ("a2", shapely.box(180.05, 0.0499, 180.0503, 0.0502), {"building": "yes"}),
        ("a3", shapely.box(179.95, 0.0499, 179.9503, 0.0502), {"building": "yes"}),
    )
    summary = plan.write(zoom=16, bbox=(179.9, -0.1, 180.1, 0.1))
    assert (summary.planned, summary.elsewhere) == (3, 0)
    rows = {row["object_id"]: row for row in plan.rows()}
    boxes = {name: (row["bbox"]["xmin"], row["bbox"]["xmax"]) for name, row in rows.items()}
    assert boxes["a1"][0] < 179.9998 < 180.0002 < boxes["a1"][1] < 180.01
    assert -179.95 - 0.001 < boxes["a2"][0] < -179.95 < boxes["a2"][1] < -179.94
    assert rows["a2"]["cell"] == "/".join(map(str, cell_of(-179.94985, 0.05005, 16)))


def test_chips_of_a_stratum_keep_a_distance_and_the_outcomes_tell_what_was_left_out(plan: Plan) -> None:
    rows = [(f"n{i}", ground(shapely.Point(1000 + 4 * i, 1000)), {"natural": "tree"}) for i in range(30)]
    plan.objects(*rows, ("n99", ground(shapely.Point(3000, 3000)), {"natural": "tree"}))
    summary = plan.write()
    assert summary.planned + summary.dropped["near"] + summary.dropped.get("split", 0) == 31
    assert summary.planned < 6
    assert summary.effective_strata == 1.0
    outcomes = {row["outcome"]: row["n"] for row in read_table(plan.folder / "outcomes.parquet").to_pylist()}
    assert outcomes["near"] == summary.dropped["near"]


def test_what_cannot_be_seen_and_points_of_large_things_are_not_planned(plan: Plan) -> None:
    house = shapely.box(1000, 1000, 1060, 1040)
    plan.objects(
        ("a1", ground(house), {"building": "yes"}),
        ("n2", ground(shapely.Point(1030, 1020)), {"highway": "track"}),
        ("w3", ground(shapely.LineString([(2000, 2000), (2100, 2000)])), {"highway": "track", "tunnel": "yes"}),
        ("n4", ground(shapely.Point(2000, 1000)), {"natural": "tree"}),
    )
    plan.snapshot(EVERYTHING)
    tags = read_table(plan.folder / "tags.parquet")
    sides = [120.0 if value == "tree" else None for value in tags["value"].to_pylist()]
    write_table(plan.folder / "tags.parquet", tags.append_column("area_side_m", pa.array(sides, pa.float64())))
    plan.write()
    assert [row["object_id"] for row in plan.rows()] == ["a1"]
