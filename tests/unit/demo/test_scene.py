"""Painting a small village, whole: the files, their agreement with each other, what chance may and may not change."""

import datetime as dt
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from PIL import Image
from pyproj import Transformer

from skyscript_assets.demo import scene as synthetic
from skyscript_assets.demo.painter import grid as painter_grid
from skyscript_assets.demo.scene import paint_scene
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, SceneError, UpstreamMissingError
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.tables import TAGS_TYPE, rows_to_table, write_table
from tests.workshop import shared_in

SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("geometry", pa.binary())])
EAST, NORTH = 500_000.0, 6_700_000.0
TO_DEGREES = Transformer.from_crs(32635, 4326, always_xy=True)


def degrees(geometry: shapely.Geometry) -> shapely.Geometry:
    """A geometry in metres from the village's south-western corner as longitudes and latitudes."""
    return shapely.transform(
        geometry, lambda xy: np.column_stack(TO_DEGREES.transform(EAST + xy[:, 0], NORTH + xy[:, 1]))
    )


BBOX = tuple(degrees(shapely.box(4, 4, 236, 236)).bounds)

HOUSE, POND, WOOD, FIELD = (
    shapely.box(40, 40, 60, 52),
    shapely.box(120, 30, 160, 60),
    shapely.box(10, 150, 100, 230),
    shapely.box(130, 150, 230, 230),
)
STREET = shapely.LineString([(0, 100), (240, 100)])
VILLAGE: list[tuple[str, dict[str, str], shapely.Geometry]] = [
    ("a1", {"building": "house", "roof:shape": "gabled", "roof:colour": "#aa3322"}, HOUSE),
    ("a2", {"natural": "water"}, POND),
    ("a3", {"natural": "wood", "leaf_type": "needleleaved"}, WOOD),
    ("a4", {"landuse": "farmland"}, FIELD),
    ("a5", {"building": "industrial", "building:levels": "4"}, shapely.box(180, 40, 215, 70)),
    ("a6", {"amenity": "parking", "surface": "asphalt"}, shapely.box(70, 20, 110, 60)),
    ("a7", {"leisure": "pitch", "sport": "tennis"}, shapely.box(20, 60, 36, 95)),
    ("a8", {"landuse": "residential"}, shapely.box(0, 0, 240, 140)),
    ("a9", {"boundary": "administrative"}, shapely.box(0, 0, 240, 240)),
    ("n1", {"natural": "tree"}, shapely.Point(170, 110)),
    ("n2", {"highway": "street_lamp"}, shapely.Point(100, 106)),
    ("n3", {"highway": "crossing", "crossing": "uncontrolled"}, shapely.Point(120, 100)),
    ("w1", {"highway": "secondary", "name": "High Street", "lanes": "2"}, STREET),
    ("w2", {"highway": "footway", "bridge": "yes"}, shapely.LineString([(140, 20), (140, 95)])),
    ("w3", {"barrier": "hedge"}, shapely.LineString([(30, 30), (66, 30)])),
    ("w4", {"railway": "rail"}, shapely.LineString([(0, 125), (240, 130)])),
    ("w5", {"waterway": "stream"}, shapely.LineString([(160, 45), (240, 20)])),
    ("w6", {"power": "line"}, shapely.LineString([(0, 0), (240, 240)])),
]


def write_village(folder: Path, objects: list[tuple[str, dict[str, str], Any]] | None = None) -> Path:
    rows = [
        {"object_id": object_id, "tags": tags, "geometry": shapely.to_wkb(degrees(geometry))}
        for object_id, tags, geometry in (VILLAGE if objects is None else objects)
    ]
    write_table(folder / "objects.parquet", rows_to_table(rows, SCHEMA))
    return folder / "objects.parquet"


def source(**changes: Any) -> SyntheticSource:
    values: dict[str, Any] = {
        "title": "Synthetic",
        "gsd_m": 0.5,
        "licence": "ODbL-1.0",
        "attribution": "painted",
        "datetime": dt.date(2020, 7, 1),
        "seed": 5,
        "omit_share": 0.0,
        "displace_share": 0.0,
        "invent_per_km2": 0.0,
    }
    return SyntheticSource(**(values | changes))


def search(objects: Path, out: Path, **changes: Any) -> Search[SyntheticSource]:
    return Search("village", "SYN", source(**changes), shared_in(out), BBOX, out, objects=objects)


def paint(folder: Path, objects: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    folder.mkdir()
    return folder, paint_scene(search(objects, folder, **changes))


def surface_at(folder: Path, x: float, y: float) -> str:
    names = json.loads((folder / "surfaces.json").read_text())
    with rasterio.open(folder / "surfaces.tif") as surfaces:
        row, col = surfaces.index(EAST + x, NORTH + y)
        return names[str(surfaces.read(1)[row, col])]


def pixels(folder: Path, name: str = "scene.tif") -> np.ndarray:
    with rasterio.open(folder / name) as image:
        return image.read()


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_village(tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def painted(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return paint(tmp_path_factory.mktemp("plain") / "out", objects)


def test_the_scene_is_a_tiled_deflated_rgb_in_utm_whose_pixel_is_the_gsd(painted: tuple[Path, Any]) -> None:
    with rasterio.open(painted[0] / "scene.tif") as scene, rasterio.open(painted[0] / "surfaces.tif") as surfaces:
        assert (scene.count, scene.dtypes[0], scene.profile["compress"]) == (3, "uint8", "deflate")
        assert scene.block_shapes[0] == (256, 256)
        assert scene.crs.to_epsg() == 32635
        assert scene.res == (0.5, 0.5)
        assert (surfaces.crs, surfaces.transform, surfaces.shape) == (scene.crs, scene.transform, scene.shape)
        west, south, east, north = rasterio.warp.transform_bounds(scene.crs, 4326, *scene.bounds)
    assert west <= BBOX[0]
    assert south <= BBOX[1]
    assert east >= BBOX[2]
    assert north >= BBOX[3]


def test_the_scene_table_describes_the_picture(painted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = painted
    (scene,) = read_scenes(folder)
    assert (scene.scene_id, scene.region, scene.source) == ("village_SYN_20200701", "village", "SYN")
    assert scene.synthetic
    assert scene.path == folder / "scene.tif"
    assert (scene.width, scene.height, scene.gsd_m) == (summary["width"], summary["height"], 0.5)
    assert scene.fingerprint == hashlib.sha256((folder / "scene.tif").read_bytes()).hexdigest()
    assert shapely.covers(scene.footprint, shapely.box(*BBOX))


def test_surfaces_are_what_is_painted_at_a_place(painted: tuple[Path, Any]) -> None:
    folder = painted[0]
    places = {
        "building": (50, 46),
        "water": (130, 40),
        "farmland": (180, 190),
        "road": (60, 100),
        "pitch": (28, 78),
        "rail": (20, 125.4),
        "paved": (75, 25),
        "path": (140, 70),
    }
    assert {name: surface_at(folder, *place) for name, place in places.items()} == {name: name for name in places}


def test_a_wood_is_mostly_crowns(painted: tuple[Path, Any]) -> None:
    with rasterio.open(painted[0] / "surfaces.tif") as surfaces:
        window = rasterio.windows.from_bounds(EAST + 15, NORTH + 155, EAST + 95, NORTH + 225, surfaces.transform)
        assert (surfaces.read(1, window=window) == 6).mean() > 0.9


def test_the_report_counts_what_became_of_the_objects(painted: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = painted
    assert summary["painted"]["building"] == 2
    assert summary["painted"]["area"] == 5
    assert summary["unseen"] == 2  # the boundary and the wires
    assert (summary["omitted"], summary["displaced"]) == ({}, {})
    assert summary["background_crowns"] > 100
    assert sum(summary["surface_share"].values()) == pytest.approx(1, abs=1e-4)
    report = json.loads((folder / "painting.json").read_text())
    assert "synthetic" in report["what"]
    assert report["painted"] == summary["painted"]
    assert str(folder) not in (folder / "painting.json").read_text()


def test_the_overview_is_a_jpeg_for_people(painted: tuple[Path, dict[str, Any]]) -> None:
    with Image.open(painted[0] / "overview.jpg") as overview:
        assert overview.format == "JPEG"
        assert max(overview.size) <= 1600
        mean = np.asarray(overview, dtype=float).mean(axis=(0, 1))
    assert mean == pytest.approx(pixels(painted[0]).mean(axis=(1, 2)), abs=2)


def test_equal_inputs_make_equal_bytes(objects: Path, painted: tuple[Path, Any], tmp_path: Path) -> None:
    again, _ = paint(tmp_path / "again", objects)
    for file in sorted(path.name for path in painted[0].iterdir()):
        assert (again / file).read_bytes() == (painted[0] / file).read_bytes(), file


def test_another_seed_paints_another_picture(objects: Path, painted: tuple[Path, Any], tmp_path: Path) -> None:
    other, _ = paint(tmp_path / "other", objects, seed=6)
    assert (pixels(other) != pixels(painted[0])).mean() > 0.5


def test_the_order_of_the_rows_changes_nothing(painted: tuple[Path, Any], tmp_path: Path) -> None:
    reversed_rows = write_village(tmp_path, VILLAGE[::-1])
    again, _ = paint(tmp_path / "again", reversed_rows)
    assert (again / "scene.tif").read_bytes() == (painted[0] / "scene.tif").read_bytes()


def test_omitted_objects_are_counted_and_not_in_the_surfaces(objects: Path, tmp_path: Path) -> None:
    folder, summary = paint(tmp_path / "empty", objects, omit_share=1.0)
    assert summary["painted"] == {}
    assert summary["omitted"]["building"] == 2
    assert surface_at(folder, 50, 46) != "building"
    assert summary["surface_share"]["building"] == 0


def test_displaced_objects_move_by_some_metres(objects: Path, painted: tuple[Path, Any], tmp_path: Path) -> None:
    folder, summary = paint(tmp_path / "moved", objects, displace_share=1.0)
    assert summary["displaced"] == summary["painted"]
    moved, still = (pixels(path, "surfaces.tif")[0] == 5 for path in (folder, painted[0]))
    offset = [np.argwhere(mask).mean(axis=0) for mask in (moved, still)]
    assert 1 < np.hypot(*(offset[0] - offset[1])) * 0.5 < 11


def test_invented_objects_are_counted_by_kind(objects: Path, tmp_path: Path) -> None:
    folder, summary = paint(tmp_path / "busy", objects, invent_per_km2=3000.0)
    assert summary["invented"]["tree"] > 10
    assert summary["invented"]["shed"] >= 1
    with_sheds = summary["surface_share"]["building"]
    assert with_sheds > 0
    _, calm = paint(tmp_path / "calm", objects)
    assert with_sheds > calm["surface_share"]["building"]
    assert set(calm["invented"]) <= {"car"}  # those on the parking ground
    assert folder.is_dir()


def test_random_colours_change_colours_and_no_surface(objects: Path, painted: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = paint(tmp_path / "random", objects, colours="random")
    assert (folder / "surfaces.tif").read_bytes() == (painted[0] / "surfaces.tif").read_bytes()
    field = pixels(folder, "surfaces.tif")[0] == 8
    wild, natural = (pixels(path)[:, field].astype(float).mean(axis=1) for path in (folder, painted[0]))
    assert np.abs(wild - natural).max() > 20


@pytest.mark.parametrize("azimuth", [30.0, 100.0, 290.0])
@pytest.mark.parametrize("gsd_m", [0.5, 1.0])
def test_blocks_and_threads_leave_no_trace(
    objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, azimuth: float, gsd_m: float
) -> None:
    changes: dict[str, Any] = {"sun_azimuth_deg": azimuth, "gsd_m": gsd_m, "invent_per_km2": 400.0}
    monkeypatch.setattr(synthetic, "_THREADS", 1)
    one, whole = paint(tmp_path / "one", objects, **changes)
    monkeypatch.setattr(synthetic, "_THREADS", 4)
    monkeypatch.setattr(painter_grid, "BLOCK_PX", 256)
    many, parts = paint(tmp_path / "many", objects, **changes)
    assert parts == whole
    for name in ("scene.tif", "surfaces.tif"):
        assert np.array_equal(pixels(many, name), pixels(one, name)), name


def test_coarse_pixels_are_painted_finer_and_averaged(objects: Path, tmp_path: Path) -> None:
    folder, summary = paint(tmp_path / "coarse", objects, gsd_m=1.0)
    assert (summary["width"], summary["height"]) == pixels(folder).shape[:0:-1]
    assert surface_at(folder, 50, 46) == "building"


def test_the_sun_puts_the_shadow_on_the_other_side(objects: Path, tmp_path: Path) -> None:
    means = {}
    for side, azimuth in (("south", 180.0), ("north", 0.0)):
        folder, _ = paint(tmp_path / side, objects, sun_azimuth_deg=azimuth, sun_elevation_deg=30.0)
        with rasterio.open(folder / "scene.tif") as scene:
            window = rasterio.windows.from_bounds(EAST + 185, NORTH + 72, EAST + 210, NORTH + 78, scene.transform)
            means[side] = scene.read(window=window).mean()
    assert means["south"] < 0.75 * means["north"]


def test_progress_is_told_block_by_block(objects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(painter_grid, "BLOCK_PX", 256)
    told: list[tuple[int, int, str]] = []
    paint_scene(replace(search(objects, tmp_path), progress=lambda *what: told.append(what)))
    assert told == [(n, 4, "blocks") for n in (1, 2, 3, 4)]


def test_a_place_without_objects_is_painted_as_wild_ground(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    folder, summary = paint(tmp_path / "out", write_village(tmp_path / "objects", []))
    assert summary["painted"] == {}
    assert summary["surface_share"]["grass"] + summary["surface_share"]["trees"] > 0.9
    assert read_scenes(folder)[0].synthetic


def test_an_object_that_spans_a_continent_is_cut_before_it_is_projected(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    rows = [
        {"object_id": "r1", "tags": {"natural": "wood"}, "geometry": shapely.to_wkb(shapely.box(-120, -80, 150, 85))},
        {"object_id": "a2", "tags": {"building": "yes"}, "geometry": shapely.to_wkb(degrees(HOUSE))},
    ]
    write_table(tmp_path / "objects" / "objects.parquet", rows_to_table(rows, SCHEMA))
    folder, summary = paint(tmp_path / "out", tmp_path / "objects" / "objects.parquet")
    assert summary["surface_share"]["trees"] > 0.8
    assert surface_at(folder, 50, 46) == "building"


def test_a_painting_that_is_too_large_is_refused_with_the_remedy(objects: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="raise gsd_m of the source or split the region"):
        paint_scene(replace(search(objects, tmp_path, gsd_m=0.1), bbox=(24.0, 60.0, 26.0, 61.0)))


def test_an_empty_box_is_refused(objects: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no ground to paint"):
        paint_scene(replace(search(objects, tmp_path), bbox=(24.0, 60.0, 24.0, 60.0)))


def test_missing_foreign_and_damaged_objects_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError):
        paint_scene(search(tmp_path / "objects.parquet", tmp_path))
    write_table(tmp_path / "foreign.parquet", pa.table({"object_id": ["a1"], "tags": ["x"], "geometry": [b""]}))
    with pytest.raises(OutputSchemaError):
        paint_scene(search(tmp_path / "foreign.parquet", tmp_path))
    rows = [{"object_id": "a1", "tags": {"building": "yes"}, "geometry": b"no wkb"}]
    write_table(tmp_path / "broken.parquet", rows_to_table(rows, SCHEMA))
    with pytest.raises(CorruptInputError, match="not WKB"):
        paint_scene(search(tmp_path / "broken.parquet", tmp_path))


def test_the_credit_line_is_filled_in_and_a_guess_is_called_one(objects: Path, tmp_path: Path) -> None:
    folder, _ = paint(tmp_path / "out", objects, attribution="{dataset}, {month}/{year}", date_is="guess")
    (scene,) = read_scenes(folder)
    assert (scene.attribution, scene.date_is) == ("Synthetic, 07/2020", "guess")


def test_a_date_without_a_time_counts_as_ten_in_the_morning(painted: tuple[Path, Any]) -> None:
    assert read_scenes(painted[0])[0].datetime == dt.datetime(2020, 7, 1, 10, tzinfo=dt.UTC)
    assert synthetic.PAINTER_VERSION in (painted[0] / "painting.json").read_text()
