"""What travels with a release, and the images that are cut again from it."""

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine

from skyscript_assets.lib.chips.cut import CutInputs, cut_chips
from skyscript_assets.lib.errors import CorruptInputError, OutputBusyError, SettingsError
from skyscript_assets.lib.files import locked
from skyscript_assets.lib.imagery.scenes import read_scenes, write_scenes
from skyscript_assets.lib.imagery.sources.files.index import fingerprint
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.release.rebuild import CHANGED, CODE, MISSING, PIXELS, SAME, rebuild
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tar import read_member
from tests.unit.lib.release.conftest import CHIPS, scene

Write = Callable[..., tuple[Path, dict[str, Any]]]


def image(path: Path, seed: int = 0) -> str:
    """A scene's file; its fingerprint."""
    values = np.random.default_rng(seed).integers(0, 256, (3, 400, 400), dtype=np.uint8)
    grid = {"crs": "EPSG:32632", "transform": Affine(1, 0, 1000, 0, -1, 5000)}
    with rasterio.open(path, "w", "GTiff", 400, 400, 3, dtype="uint8", **grid) as dataset:
        dataset.write(values)
    with rasterio.open(path) as dataset:
        return fingerprint(dataset)


@pytest.fixture
def made(tmp_path: Path, write_partition: Any, released: Write) -> Path:
    """A release of three chips that were cut from a scene, with the objects around."""
    facts = [{"transform": [1.0, 0.0, 1000.0 + 100.0 * n, 0.0, -1.0, 5000.0 - 50.0 * n]} for n in range(3)]
    folders = write_partition(facts)
    home = tmp_path / "home"
    home.mkdir()
    (folders.plan.parent / "scenes").mkdir()
    found = scene("S", image(home / "scene.tif"), hrefs=(str(home / "scene.tif"),))
    write_scenes(folders.plan.parent / "scenes", [found])
    shutil.rmtree(folders.chips)
    folders.chips.mkdir()
    cut_chips(CutInputs(folders.plan, folders.plan.parent / "scenes"), CHIPS, folders.chips)
    objects = tmp_path / "objects"
    objects.mkdir()
    write_objects(objects)
    return released({("here", "S"): dataclasses.replace(folders, objects=objects)})[0]


def write_objects(folder: Path) -> None:
    """A house in sight of the first chip, with its people's names, and one far away."""
    rows = []
    for number, lon in enumerate((0.1, 77.0)):
        shape = shapely.box(lon, 50.1, lon + 0.1, 50.2)
        tags = {"building": "house", "height": "7", "name": "Villa Ä", "contact:phone": "+358", "note": "beware"}
        rows.append(
            {
                "object_id": f"a{number}",
                "osm_type": "way",
                "osm_id": number,
                "version": 3,
                "timestamp": None,
                "tags": tags,
                "geometry": shapely.to_wkb(shape),
                "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), shape.bounds, strict=True)),
                "area_m2": 1.0,
                "length_m": 0.0,
            }
        )
    write_table(folder / "objects.parquet", rows_to_table(rows, OBJECT_SCHEMA), geometry="geometry")


def outcomes(out: Path) -> list[str]:
    with (out / "rebuilt.csv").open(encoding="utf-8", newline="") as file:
        return [row["outcome"] for row in csv.DictReader(file)]


def test_objects_in_sight_travel_without_names_and_contacts(made: Path) -> None:
    (row,) = pq.read_table(made / "objects.parquet").to_pylist(maps_as_pydicts="strict")
    assert (row["region"], row["object_id"], row["version"]) == ("here", "a0", 3)
    assert row["tags"] == {"building": "house", "height": "7"}
    assert b"geo" in pq.read_schema(made / "objects.parquet").metadata


def test_no_folder_of_the_machine_travels(made: Path, tmp_path: Path) -> None:
    assert [each.hrefs for each in read_scenes(made)] == [("scene.tif",)]
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in made.rglob("*") if path.is_file())


def test_images_are_cut_again_byte_for_byte(made: Path, tmp_path: Path) -> None:
    assert rebuild(made, tmp_path / "again", {}, tmp_path / "home") == {SAME: 3}
    released = {row["chip_id"]: row for row in pq.read_table(next((made / "data/S").iterdir())).to_pylist()}
    again = tmp_path / "again/here/S"
    for row in pq.read_table(again / "chips.parquet").to_pylist():
        jpeg = read_member(again / row["shard"], row["offset"], row["length"])
        assert jpeg == released[row["chip_id"]]["image"]["bytes"]
    assert rebuild(made, tmp_path / "again", {}, tmp_path / "home") == {SAME: 3}


def test_folders_may_be_named_from_where_one_stands(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release, out, scenes = made.relative_to(tmp_path), Path("again"), Path("home")
    assert rebuild(release, out, {}, scenes) == {SAME: 3}


def test_each_image_that_is_another_one_says_why(made: Path, tmp_path: Path) -> None:
    assert rebuild(made, tmp_path / "none", {}) == {MISSING: 3}
    assert outcomes(tmp_path / "none") == [MISSING] * 3
    image(tmp_path / "home/scene.tif", seed=1)
    assert rebuild(made, tmp_path / "other", {}, tmp_path / "home") == {CHANGED: 3}


def test_other_pixels_of_the_same_scene_are_told(made: Path, tmp_path: Path) -> None:
    windows = pq.read_table(made / "rebuild.parquet")
    digests = pa.array(["0" * 64, *windows["sha256"].to_pylist()[1:]])
    place = windows.schema.get_field_index("sha256")
    pq.write_table(windows.set_column(place, "sha256", digests), made / "rebuild.parquet")
    assert rebuild(made, tmp_path / "pixels", {}, tmp_path / "home") == {SAME: 2, PIXELS: 1}
    recipe = json.loads((made / "rebuild.json").read_text())
    (made / "rebuild.json").write_text(json.dumps(recipe | {"code": "0"}))
    assert rebuild(made, tmp_path / "code", {}, tmp_path / "home") == {SAME: 2, CODE: 1}


def test_a_source_that_is_read_over_a_network_has_to_be_known(made: Path, tmp_path: Path) -> None:
    far = [dataclasses.replace(each, kind="xyz", hrefs=("https://a.example/t",)) for each in read_scenes(made)]
    write_scenes(made, far)
    with pytest.raises(SettingsError, match="has no source S, whose scenes are xyz"):
        rebuild(made, tmp_path / "again", {})


def altered(path: Path, column: str, value: Any) -> None:
    """Write a table again, with one value in all rows of a column."""
    table = pq.read_table(path)
    place, kind = table.schema.get_field_index(column), table.schema.field(column).type
    pq.write_table(table.set_column(place, column, pa.array([value] * len(table), kind)), path)


@pytest.mark.parametrize("column", ["region", "source", "chip_id"])
@pytest.mark.parametrize("name", ["../../away", "/tmp/away", None])
def test_names_that_lead_elsewhere_are_refused(made: Path, tmp_path: Path, column: str, name: str | None) -> None:
    altered(made / "rebuild.parquet", column, name)
    if column != "chip_id" and name is not None:
        altered(made / "scenes.parquet", column, name)
    with pytest.raises(CorruptInputError, match="is no name here"):
        rebuild(made, tmp_path / "out/again", {}, tmp_path / "home")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("href", ["/etc/passwd", "../home/scene.tif", "/vsicurl/http://127.0.0.1/x", "", "a\0b", None])
def test_scenes_that_lead_elsewhere_are_refused(made: Path, tmp_path: Path, href: str | None) -> None:
    altered(made / "scenes.parquet", "hrefs", [href])
    with pytest.raises(CorruptInputError, match="is no name here|1 or 3 addresses"):
        rebuild(made, tmp_path / "again", {}, tmp_path / "home")


@pytest.mark.parametrize(
    ("column", "value"), [("width", -5), ("width", None), ("width", 1 << 30), ("transform", [float("nan")] * 6)]
)
def test_windows_that_cannot_be_cut_are_refused(made: Path, tmp_path: Path, column: str, value: Any) -> None:
    altered(made / "rebuild.parquet", column, value)
    with pytest.raises(CorruptInputError, match=r"cannot be cut|larger than 4096|as a box"):
        rebuild(made, tmp_path / "again", {}, tmp_path / "home")


@pytest.mark.parametrize("column", ["scene_id", "region"])
def test_a_chip_whose_scene_is_not_listed_is_told(made: Path, tmp_path: Path, column: str) -> None:
    altered(made / "scenes.parquet", column, "other")
    assert rebuild(made, tmp_path / "again", {}, tmp_path / "home") == {MISSING: 3}


def test_a_broken_recipe_is_refused(made: Path, tmp_path: Path) -> None:
    (made / "rebuild.json").write_text("{}")
    with pytest.raises(CorruptInputError, match=r"rebuild\.json cannot be read"):
        rebuild(made, tmp_path / "again", {})


def test_two_rebuilds_never_write_one_folder(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    out.mkdir()
    with locked(out, "it"), pytest.raises(OutputBusyError, match=r"again is being written by another process"):
        rebuild(made, out, {}, tmp_path / "home")
    assert not list(out.iterdir())
    assert rebuild(made, out, {}, tmp_path / "home") == {SAME: 3}
