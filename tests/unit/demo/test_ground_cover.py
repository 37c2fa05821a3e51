import json
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from pydantic import ValidationError
from pyproj import Transformer

from skyscript_assets.demo.ground_cover import GroundCoverBenchmark, build_ground_cover, cell_windows
from skyscript_assets.lib.benchmarks.items import BENCHMARK_FILE, ITEMS_FILE, BenchmarkSpec, read_items, read_model
from skyscript_assets.lib.errors import CorruptInputError, SceneError, SettingsError, TooLittleDataError
from skyscript_assets.lib.geometry import cell_of, cells_of_bounds, split_of_cell
from skyscript_assets.lib.imagery.scenes import read_scenes, write_scenes
from skyscript_assets.lib.towers.images import decode

Scenes = dict[tuple[str, str], Path]
Make = Callable[..., GroundCoverBenchmark]


def test_windows_of_a_cell_form_a_grid_that_never_leaves_it(scenes: Scenes) -> None:
    (scene,) = read_scenes(scenes["town", "fine"])
    back = Transformer.from_crs(scene.crs, "EPSG:4326", always_xy=True)
    a, _, c, _, e, f = scene.transform
    found = 0
    for cell in cells_of_bounds(scene.bounds, 16):
        windows = cell_windows(scene, cell, 16, 64)
        found += len(windows)
        for window in windows:
            xs, ys = zip(
                *(
                    (a * (window.x + dx) + c, e * (window.y + dy) + f)
                    for dx in np.linspace(0, 64, 5)
                    for dy in np.linspace(0, 64, 5)
                ),
                strict=True,
            )
            places = zip(*back.transform(xs, ys), strict=True)
            assert {cell_of(lon, lat, 16) for lon, lat in places} == {cell}
        for one, other in combinations(windows, 2):
            assert abs(one.x - other.x) >= 64 or abs(one.y - other.y) >= 64
            assert (one.x - other.x) % 64 == (one.y - other.y) % 64 == 0
    assert found > 200


def test_every_split_has_windows_of_every_source(cover_data: Path) -> None:
    items = read_items(cover_data).to_pylist()
    counts = Counter((item["source"], item["split"]) for item in items)
    assert set(counts) == {(source, split) for source in ("fine", "coarse") for split in ("train", "val", "test")}
    for item in items:
        x, y = map(int, item["cell"].split("/"))
        assert item["split"] == split_of_cell(x, y)
    assert read_model(cover_data / BENCHMARK_FILE, BenchmarkSpec).items == Counter(item["split"] for item in items)


def test_truth_is_what_covers_the_share_of_the_window_that_the_settings_ask_for(
    scenes: Scenes, cover_data: Path, surfaces: dict[int, str]
) -> None:
    (scene,) = read_scenes(scenes["town", "fine"])
    with rasterio.open(scenes["town", "fine"] / "surfaces.tif") as file:
        codes = file.read(1)
    with rasterio.open(scenes["town", "fine"] / "scene.tif") as file:
        rgb = np.moveaxis(file.read(), 0, -1)
    names = {"roof": "building"}
    windows = {
        f"town_fine_{x}_{y}_{w.row}_{w.col}": w
        for x, y in cells_of_bounds(scene.bounds, 16)
        for w in cell_windows(scene, (x, y), 16, 64)
    }
    rows = [row for row in pq.read_table(cover_data / ITEMS_FILE).to_pylist() if row["source"] == "fine"]
    for row in rows:
        window = windows[row["item_id"]]
        place = np.s_[window.y : window.y + 64, window.x : window.x + 64]
        shares = np.bincount(codes[place].ravel(), minlength=5) / 64**2
        assert row["truth"] == [names.get(name, name) for code, name in surfaces.items() if shares[code] >= 0.05]
        error = np.abs(decode(row["image"], "window").astype(int) - rgb[place]).mean()
        assert error < 3


def test_windows_without_data_and_empty_scenes_are_left_out_and_counted(
    scenes: Scenes, tmp_path: Path, ground_cover: Make
) -> None:
    summary = build_ground_cover(ground_cover(), scenes, 16, tmp_path)
    assert summary["skipped"]["empty scene"] == 1
    assert summary["skipped"]["no data"] > 0
    assert summary["synthetic"]
    assert sum(summary["items"].values()) == len(read_items(tmp_path))
    assert summary["cells"]["test"] > 3
    assert set(summary["positives"]) == {"building", "road", "water", "grass"}


def test_the_same_scenes_make_the_same_bytes(
    scenes: Scenes, cover_data: Path, tmp_path: Path, ground_cover: Make
) -> None:
    build_ground_cover(ground_cover(), dict(reversed(scenes.items())), 16, tmp_path)
    for name in (ITEMS_FILE, BENCHMARK_FILE):
        assert (tmp_path / name).read_bytes() == (cover_data / name).read_bytes()


def test_the_description_says_that_the_imagery_is_synthetic(cover_data: Path) -> None:
    spec = read_model(cover_data / BENCHMARK_FILE, BenchmarkSpec)
    assert spec.synthetic
    assert "synthetic" in spec.statement.lower()
    assert [cls.name for cls in spec.classes] == ["building", "road", "water", "grass"]


def test_a_limit_keeps_a_drawn_subset_of_each_cell(
    scenes: Scenes, cover_data: Path, tmp_path: Path, ground_cover: Make
) -> None:
    build_ground_cover(ground_cover(windows_per_cell=3), scenes, 16, tmp_path)
    few = read_items(tmp_path)["item_id"].to_pylist()
    every = read_items(cover_data)["item_id"].to_pylist()
    assert set(few) < set(every)
    assert few == [item for item in every if item in set(few)]
    assert max(Counter(item.rsplit("_", 2)[0] for item in few).values()) == 3


def test_sources_that_the_benchmark_does_not_name_are_not_cut(
    scenes: Scenes, tmp_path: Path, ground_cover: Make
) -> None:
    build_ground_cover(ground_cover(sources=("coarse",)), scenes, 16, tmp_path)
    assert set(read_items(tmp_path)["source"].to_pylist()) == {"coarse"}


def test_windows_larger_than_a_cell_end_with_one_message(scenes: Scenes, tmp_path: Path, ground_cover: Make) -> None:
    with pytest.raises(TooLittleDataError, match="no window of 400 px"):
        build_ground_cover(ground_cover(window_px=400), scenes, 16, tmp_path)
    assert not (tmp_path / BENCHMARK_FILE).exists()


def test_a_class_of_an_unknown_surface_is_named(scenes: Scenes, tmp_path: Path, ground_cover: Make) -> None:
    classes = {"lava": {"text": "lava", "surfaces": ["lava"]}, "road": {"text": "road", "surfaces": ["road"]}}
    with pytest.raises(SettingsError, match="'lava' names unknown surfaces lava; known are grass, road, roof, water"):
        build_ground_cover(ground_cover(classes=classes), scenes, 16, tmp_path)


def test_a_prompt_without_a_place_for_the_class_is_refused(ground_cover: Make) -> None:
    for prompts, message in ((("a photo",), "prompts.0\n.*match pattern .*{c"), ((), "prompts\n.*at least 1 item")):
        with pytest.raises(ValidationError, match=message):
            ground_cover(prompts=prompts)


def test_a_source_of_photographs_is_refused(tmp_path: Path, ground_cover: Make, paint: Callable[..., Path]) -> None:
    photo = paint(tmp_path / "photo", "fine", 4.0, synthetic=False)
    with pytest.raises(SettingsError, match="needs synthetic sources"):
        build_ground_cover(ground_cover(), {("town", "fine"): photo}, 16, tmp_path)


def test_a_turned_scene_is_refused(tmp_path: Path, scenes: Scenes, ground_cover: Make) -> None:
    folder = tmp_path / "turned"
    shutil.copytree(scenes["town", "coarse"], folder)
    turned = Affine(2.0, 0.1, 380000, 0.1, -2.0, 6670000)
    for name in ("scene.tif", "surfaces.tif"):
        with rasterio.open(folder / name, "r+") as file:
            file.transform = turned
    rewrite_scene(folder, transform=tuple(turned)[:6])
    with pytest.raises(SceneError, match="not north-up"):
        build_ground_cover(ground_cover(), {("town", "coarse"): folder}, 16, tmp_path)


def test_surfaces_on_another_grid_are_refused(tmp_path: Path, scenes: Scenes, ground_cover: Make) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(scenes["town", "coarse"], folder)
    shutil.copy(scenes["town", "fine"] / "surfaces.tif", folder / "surfaces.tif")
    with pytest.raises(CorruptInputError, match="does not lie on the grid"):
        build_ground_cover(ground_cover(), {("town", "coarse"): folder}, 16, tmp_path)


def test_a_scene_other_than_stated_is_refused(tmp_path: Path, scenes: Scenes, ground_cover: Make) -> None:
    folder = tmp_path / "stated"
    shutil.copytree(scenes["town", "coarse"], folder)
    rewrite_scene(folder, width=7)
    with pytest.raises(CorruptInputError, match="is not the 8-bit RGB scene"):
        build_ground_cover(ground_cover(), {("town", "coarse"): folder}, 16, tmp_path)


@pytest.mark.parametrize("text", ["[1, 2]", "{", json.dumps({"x": "roof"}), json.dumps({"300": "roof"})])
def test_broken_surface_names_are_reported_with_their_file(
    text: str, tmp_path: Path, scenes: Scenes, ground_cover: Make
) -> None:
    folder = tmp_path / "names"
    shutil.copytree(scenes["town", "coarse"], folder)
    (folder / "surfaces.json").write_text(text)
    with pytest.raises(CorruptInputError, match=r"surfaces\.json"):
        build_ground_cover(ground_cover(), {("town", "coarse"): folder}, 16, tmp_path)


def test_a_missing_or_cut_off_map_of_surfaces_is_reported(tmp_path: Path, scenes: Scenes, ground_cover: Make) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(scenes["town", "coarse"], folder)
    data = (folder / "surfaces.tif").read_bytes()
    for content in (data[: len(data) // 4], None):
        (folder / "surfaces.tif").unlink()
        if content is not None:
            (folder / "surfaces.tif").write_bytes(content)
        with pytest.raises(SceneError, match=r"surfaces\.tif cannot be read"):
            build_ground_cover(ground_cover(), {("town", "coarse"): folder}, 16, tmp_path)


def rewrite_scene(folder: Path, **changes: object) -> None:
    from dataclasses import replace

    (scene,) = read_scenes(folder)
    write_scenes(folder, [replace(scene, **changes)])
