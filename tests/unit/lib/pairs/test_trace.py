import datetime as dt
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyproj import Transformer

from skyscript_assets.lib.chips.plan import Ground, PlanInputs, PlanRules, PlanSummary
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.errors import CorruptInputError, SkyScriptError
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.osm.objects import INVALID_SCHEMA, OBJECT_SCHEMA
from skyscript_assets.lib.osm.region_overlap import OVERLAP_SCHEMA
from skyscript_assets.lib.pairs.trace import DROPPED, Made, trace
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tags.groundability import GROUNDABILITY_SCHEMA
from skyscript_assets.lib.tags.snapshot import SNAPSHOT_SCHEMA, TAGS_SCHEMA

GSD, SIDE, OBJECTS = 0.5, 3000, 60
LEFT, TOP = 400_000.0, 5_200_000.0
TO_LONLAT = Transformer.from_crs("EPSG:32632", 4326, always_xy=True)
TAGS = {("building", "yes"): 1.0, ("highway", "path"): 1.0, ("natural", "tree"): 0.6, ("landuse", "forest"): 0.1}
PAIR = ("here", "S-1")


def on_ground(geometry: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(
        geometry, lambda p: np.column_stack(TO_LONLAT.transform(LEFT + p[:, 0] * GSD, TOP - p[:, 1] * GSD))
    )


def objects() -> list[dict[str, Any]]:
    """Points, lines and areas of all sizes in and around the scene; a tag of some shows in finer images alone."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(OBJECTS):
        x, y = rng.uniform(-200, SIDE + 200, 2)
        size = rng.choice([4, 40, 150, 4000])
        letter, shape, tag = [
            ("n", shapely.Point(x, y), "natural=tree"),
            ("w", shapely.LineString([(x, y), (x + size, y)]), "highway=path"),
            ("a", shapely.box(x, y, x + size, y + size), ["building=yes", "landuse=forest"][number % 2]),
        ][number % 3]
        geometry = on_ground(shape)
        bounds = shapely.bounds(geometry).tolist()
        rows.append(
            {
                "object_id": f"{letter}{number}",
                "osm_type": "node" if letter == "n" else "way",
                "osm_id": number,
                "version": 1,
                "timestamp": dt.datetime(2000 + number % 20, 1, 1, tzinfo=dt.UTC),
                "tags": dict([tag.split("=")]) | {"name": "Somewhere"},
                "geometry": shapely.to_wkb(geometry),
                "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True)),
                "area_m2": 1.0,
                "length_m": 1.0,
            }
        )
    return rows


@dataclass
class Plant:
    """A region with one source, planned; `folder` holds an output of each asset that is made."""

    root: Path
    made: set[str] = field(default_factory=set)
    gsd_m: float = GSD

    def write(self, asset: str, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        (self.root / asset).mkdir(parents=True, exist_ok=True)
        self.made.add(asset)
        write_table(self.root / asset / name, rows_to_table(rows, schema))

    def materials(self, *_: str) -> tuple[Ground, PlanInputs, PlanRules]:
        inputs = PlanInputs(
            self.root / "osm_objects" / "objects.parquet",
            self.root / "region_overlap" / "overlap.parquet",
            self.root / "scene_index",
            self.root / "sampling_snapshot",
        )
        choice = SceneChoice(max_years_apart=3, near="extract")
        rules = PlanRules(PlanSettings(snapshot="s", quota=5, min_object_px=16), 15, choice)
        return Ground(*PAIR, (-180.0, -90.0, 180.0, 90.0), self.gsd_m), inputs, rules

    def plan(self) -> PlanSummary:
        (self.root / "chip_plan").mkdir()
        self.made.add("chip_plan")
        return write_plan(*self.materials(), self.root / "chip_plan")

    def trace(self, asked: str) -> dict[str, Any]:
        def folder(asset: str, *_: str) -> Path | None:
            return self.root / asset if asset in self.made else None

        return trace(asked, Made({PAIR[0]: [PAIR[1]]}, folder, self.materials))


@pytest.fixture(params=["here", "elsewhere"])
def plant(request: pytest.FixtureRequest, tmp_path: Path) -> Plant:
    """A plant whose snapshot knows the region, or another one alone."""
    plant = Plant(tmp_path)
    plant.write("osm_objects", "objects.parquet", objects(), OBJECT_SCHEMA)
    plant.write("osm_objects", "invalid.parquet", [{"object_id": "a900", "reason": "no ring"}], INVALID_SCHEMA)
    plant.write("region_overlap", "overlap.parquet", [{"object_id": "n0", "owner": "before"}], OVERLAP_SCHEMA)
    tags = [{"key": k, "value": v, "text": f"{k} {v}", "coarsest_gsd_m": gsd} for (k, v), gsd in TAGS.items()]
    counted = [tag | {"region": request.param, "gsd_m": GSD, "n_plannable": 12} for tag in tags]
    plant.write("sampling_snapshot", "tags.parquet", tags, TAGS_SCHEMA)
    plant.write("sampling_snapshot", "snapshot.parquet", counted, SNAPSHOT_SCHEMA)
    decided = [tag | {"p_visible": 0.75, "p_steps": [1.0], "decided_by": "label"} for tag in tags]
    plant.write("tag_groundability", "groundability.parquet", decided, GROUNDABILITY_SCHEMA)
    footprint = on_ground(shapely.segmentize(shapely.box(0, 0, SIDE, SIDE), 200))
    scene = Scene(
        scene_id="one",
        region=PAIR[0],
        source=PAIR[1],
        datetime=dt.datetime(2021, 6, 5, tzinfo=dt.UTC),
        footprint=footprint,
        gsd_m=GSD,
        crs="EPSG:32632",
        transform=(GSD, 0.0, LEFT, 0.0, -GSD, TOP),
        width=SIDE,
        height=SIDE,
        hrefs=("one.tif",),
        fingerprint="f",
        licence="CC0-1.0",
        attribution="nobody",
    )
    (tmp_path / "scene_index").mkdir()
    write_scenes(tmp_path / "scene_index", [scene])
    return plant


def test_each_object_alone_fares_as_in_the_plan_of_its_region(plant: Plant) -> None:
    summary = plant.plan()
    planned = set(read_table(plant.root / "chip_plan" / "plan.parquet")["object_id"].to_pylist())
    told = {row["object_id"]: plant.trace(row["object_id"])["sources"][0] for row in objects()}
    outcomes = Counter(one["outcome"] for one in told.values())
    assert {name for name, one in told.items() if one["outcome"] == "planned"} == planned
    assert outcomes["elsewhere"] == summary.elsewhere == 1
    undrawn = OBJECTS - summary.elsewhere - summary.drawn
    assert sum(outcomes[why] for why in ("not drawn", "not visible", "size", "hidden")) >= undrawn > 0
    dropped = Counter(one["outcome"] for one in told.values() if one["why"] in DROPPED.values())
    assert dropped == summary.dropped
    assert {"not drawn", "not visible", "size", "outside", "hidden"} <= set(outcomes)
    assert any("4 px at 0.5 m, wanted: 16 to inf" in one["why"] for one in told.values() if one["outcome"] == "size")
    draw = next(one["draws"] for one in told.values() if one["outcome"] == "not drawn")
    assert [(tag["wanted"], tag["drawn"]) for tag in draw] == [(5, 0)]


def test_tags_tell_who_decided_on_them(plant: Plant) -> None:
    name, tree = plant.trace("n3")["tags"]
    assert (name["key"], name["not_used_as"], name["decided_by"]) == ("name", "name", None)
    assert tree == {
        "key": "natural", "value": "tree", "not_used_as": None, "decided_by": "label", "p_visible": 0.75,
        "coarsest_gsd_m": 0.6, "frozen_gsd_m": 0.6,
    }  # fmt: skip


def test_the_object_is_told_with_its_place_and_owner(plant: Plant) -> None:
    (told,) = plant.trace("n0")["objects"]
    assert told["belongs_to"] == "before"
    assert told["osm"] == "https://www.openstreetmap.org/node/0"
    assert told["tags"] == {"natural": "tree", "name": "Somewhere"}
    assert 46 < told["lat"] < 47
    assert "geometry" not in told


def test_a_way_is_found_as_line_or_area_and_a_chip_by_its_own_id(plant: Plant) -> None:
    assert plant.trace("w2")["objects"][0]["object_id"] == "a2"
    plant.plan()
    chips = read_table(plant.root / "chip_plan" / "plan.parquet")
    chip_id, object_id = chips["chip_id"][0].as_py(), chips["object_id"][0].as_py()
    told = plant.trace(chip_id)
    assert told["objects"][0]["object_id"] == object_id
    (chip,) = told["sources"][0]["chips"]
    assert chip["chip_id"] == chip_id
    assert chip["image"] is chip["captions"] is chip["manifest"] is None
    earlier = f"{object_id}_S-1_20000101_00000000"
    assert plant.trace(earlier)["sources"][0]["chips"][0]["chip_id"] == chip_id


def test_what_is_not_made_yet_is_said(plant: Plant) -> None:
    assert plant.trace("n3")["sources"][0]["outcome"] == "waiting"
    plant.made.clear()
    with pytest.raises(SkyScriptError, match="in any region; osm_objects/here is not made: skyscript run"):
        plant.trace("n3")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("w4711", "there is no object w4711 or a4711 in here"),
        ("a900", r"a900 of region here has no valid geometry \(no ring\)"),
        ("way 7", "is no object's id"),
        ("n1' OR 1=1 --", "is no object's id"),
        ("", "is no object's id"),
    ],
)
def test_what_nothing_has_is_an_error_that_says_where_it_was_looked_for(plant: Plant, asked: str, message: str) -> None:
    with pytest.raises(SkyScriptError, match=message):
        plant.trace(asked)


def test_a_torn_table_is_an_error(plant: Plant) -> None:
    (plant.root / "osm_objects" / "objects.parquet").write_bytes(b"PAR1torn")
    with pytest.raises(CorruptInputError, match="materialize its asset again"):
        plant.trace("n3")


@pytest.mark.parametrize("plant", ["here"], indirect=True)
def test_a_source_that_cannot_be_planned_is_told_and_does_not_end_the_others(plant: Plant) -> None:
    plant.plan()
    plant.gsd_m = 0.3
    told = [plant.trace(row["object_id"])["sources"][0] for row in objects()]
    assert {one["why"].split(" ")[2] for one in told if one["outcome"] == "unknown"} == {"snapshot"}
    assert "planned" in {one["outcome"] for one in told}
