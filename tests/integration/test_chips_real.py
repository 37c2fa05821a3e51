"""Chips cut from real images: OSM buildings over drone imagery of Kampala, and images that must be rejected in part."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import simplejpeg
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer

from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CutInputs, cut_chips
from skyscript_assets.lib.chips.sheet import sheet_preview, write_sheets
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tar import read_member
from tests.workshop import shared_in

pytestmark = pytest.mark.integration
SETTINGS = ChipSettings(part_size=40)
Window = tuple[Scene, int, int, int, int]


class Workshop:
    """Indexes a real file, writes a plan of windows on it, and cuts them."""

    def __init__(self, folder: Path, write_plan: Callable) -> None:
        self.folder = folder
        self.write_plan = write_plan
        for name in ("scenes", "plan", "chips"):
            (folder / name).mkdir()

    def index(self, path: Path, gsd_m: float, **fields: Any) -> Scene:
        known = {"title": "t", "licence": "CC-BY-4.0", "attribution": "OpenAerialMap", "datetime": "2020-06-01"}
        source = FilesSource.model_validate(known | {"paths": [str(path)], "gsd_m": gsd_m} | fields)
        profile = shared_in(self.folder)
        index_files(Search("kampala", "OAM", source, profile, (-180, -90, 180, 90), self.folder / "scenes"))
        (scene,) = read_scenes(self.folder / "scenes")
        return scene

    def cut(self, windows: list[Window], **facts: Any) -> dict[str, Any]:
        self.plan = self.write_plan(self.folder / "plan", windows, **facts)
        return cut_chips(CutInputs(self.folder / "plan", self.folder / "scenes"), SETTINGS, self.folder / "chips")

    def chips(self) -> list[dict[str, Any]]:
        return read_table(self.folder / "chips/chips.parquet", CHIP_SCHEMA).to_pylist()

    def image(self, chip: dict[str, Any]) -> NDArray[np.uint8]:
        data = read_member(self.folder / "chips" / chip["shard"], chip["offset"], chip["length"])
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
        return image


@pytest.fixture
def workshop(tmp_path: Path, write_chip_plan: Callable) -> Workshop:
    return Workshop(tmp_path, write_chip_plan)


def buildings_inside(labels: Path, scene: Scene) -> list[tuple[float, float, float, float]]:
    """Boxes of the OSM buildings that lie wholly inside a scene, in its pixels."""
    to_scene = Transformer.from_crs(4326, scene.crs, always_xy=True)
    boxes = []
    for feature in json.loads(labels.read_text(encoding="utf-8"))["features"]:
        lon, lat = shapely.get_coordinates(shapely.geometry.shape(feature["geometry"])).T
        column, row = ~Affine(*scene.transform) @ to_scene.transform(lon, lat)
        if column.min() >= 0 and row.min() >= 0 and column.max() <= scene.width and row.max() <= scene.height:
            boxes.append((column.min(), row.min(), column.max(), row.max()))
    return boxes


def windows_around(scene: Scene, boxes: list[tuple[float, float, float, float]]) -> list[Window]:
    """A window of one and a half times each box, 100 pixels a side or more, inside the scene."""
    windows = []
    for x0, y0, x1, y1 in boxes:
        width, height = (min(1000, max(100, math.ceil(1.5 * side))) for side in (x1 - x0, y1 - y0))
        column = min(max(0, round((x0 + x1 - width) / 2)), scene.width - width)
        row = min(max(0, round((y0 + y1 - height) / 2)), scene.height - height)
        windows.append((scene, column, row, width, height))
    return windows


@pytest.mark.parametrize(("zoom", "gsd_m"), [(19, 0.3), (20, 0.15), (21, 0.075)])
def test_buildings_of_kampala_become_chips_that_show_them(
    shared_data: Path, workshop: Workshop, zoom: int, gsd_m: float
) -> None:
    folder = shared_data / "pairs/kampala_oam"
    path = (folder / f"oam_kampala_z{zoom}.tif").resolve()
    scene = workshop.index(path, gsd_m)
    windows = windows_around(scene, buildings_inside(folder / "labels_osm_buildings.geojson", scene))
    summary = workshop.cut(windows)
    assert len(windows) >= 85
    assert summary["planned"] == len(windows)
    assert summary["ok"] >= 0.95 * len(windows)
    assert summary["parts"] == 3
    with rasterio.open(path) as dataset:
        picture = np.moveaxis(dataset.read(), 0, -1)
    for chip, (_, column, row, width, height) in zip(workshop.chips(), windows, strict=True):
        truth = picture[row : row + height, column : column + width].mean(axis=2)
        grey = workshop.image(chip).mean(axis=2)
        assert np.abs(grey - truth).mean() < 4
        # Not one pixel beside it.
        beside = picture[row : row + height, column + 1 : column + width + 1].mean(axis=2)
        assert np.abs(grey[:, : beside.shape[1]] - beside).mean() > np.abs(grey - truth).mean()


def test_chips_of_kampala_make_a_contact_sheet(shared_data: Path, workshop: Workshop) -> None:
    folder = shared_data / "pairs/kampala_oam"
    scene = workshop.index((folder / "oam_kampala_z20.tif").resolve(), 0.15)
    workshop.cut(windows_around(scene, buildings_inside(folder / "labels_osm_buildings.geojson", scene)))
    captions = {
        row["chip_id"]: ("building, surrounded by road of residential", [(0, 0, 9, 9)]) for row in workshop.plan
    }
    write_sheets(workshop.folder / "chips", workshop.folder / "plan")
    with Image.open(workshop.folder / "chips/accepted.jpg") as image:
        assert min(image.size) > 1000
    preview = sheet_preview(workshop.folder / "chips", workshop.folder / "plan", 150_000, captions)
    assert 20_000 < len(preview) <= 150_000


def test_a_transparent_image_gives_chips_only_where_it_has_data(shared_data: Path, workshop: Workshop) -> None:
    path = (shared_data / "imagery/naip_tulelake_cog_3857.tif").resolve()
    scene = workshop.index(path, 0.444)
    with rasterio.open(path) as dataset:
        alpha = dataset.read(4) != 0
    windows = [
        (scene, column, row, 32, 32) for row in range(0, scene.height, 32) for column in range(0, scene.width, 32)
    ]
    summary = workshop.cut(windows)
    assert summary["rejected"]["no-data"] > 0.9 * summary["planned"]
    for chip, (_, column, row, width, height) in zip(workshop.chips(), windows, strict=True):
        share = 1 - alpha[row : row + height, column : column + width].mean()
        assert chip["nodata_share"] == pytest.approx(share, abs=1e-6)
        assert (chip["reason"] == "no-data") == (share > SETTINGS.max_nodata_share)
    assert summary["ok"] > 0


def test_the_sea_off_libya_is_blank_or_blurred_and_its_land_is_not(shared_data: Path, workshop: Workshop) -> None:
    scene = workshop.index((shared_data / "imagery/sentinel2_tci_T34RFV_100m_cog.tif").resolve(), 100)
    windows = [(scene, column, row, 100, 100) for row in range(0, 1000, 100) for column in range(0, 1000, 100)]
    summary = workshop.cut(windows)
    assert summary["ok"] > 20
    assert set(summary["rejected"]) <= {"no-data", "blank", "blurred", "cloud"}
    assert summary["rejected"]["no-data"] > 0


def test_degrees_become_square_pixels_in_utm(shared_data: Path, workshop: Workshop) -> None:
    path = (shared_data / "imagery/spacenet2_vegas_img0.tif").resolve()
    scene = workshop.index(path, 0.3)
    x, y = Transformer.from_crs(4326, 32611, always_xy=True).transform(*scene.footprint.centroid.coords[0])
    transform = [0.3, 0.0, round(x), 0.0, -0.3, round(y)]
    summary = workshop.cut([(scene, 0, 0, 200, 150)], crs="EPSG:32611", transform=transform)
    assert summary["ok"] == 1
    image = workshop.image(workshop.chips()[0])
    assert image.shape == (150, 200, 3)
    # The ground under one pixel of the chip, looked up in the file by an independent projection.
    lon, lat = Transformer.from_crs(32611, 4326, always_xy=True).transform(
        *(Affine(*transform) @ tuple(np.broadcast_arrays(np.arange(200) + 0.5, np.arange(150)[:, np.newaxis] + 0.5)))
    )
    column, row = ~Affine(*scene.transform) @ (lon, lat)
    with rasterio.open(path) as dataset:
        picture = np.moveaxis(dataset.read([1, 2, 3]), 0, -1).mean(axis=2)

    def difference(dx: float, dy: float) -> float:
        nearest = picture[np.floor(row + dy).astype(int), np.floor(column + dx).astype(int)]
        return float(np.abs(image.mean(axis=2) - nearest).mean())

    here = difference(0, 0)
    assert all(difference(dx, dy) > 1.2 * here for dx, dy in ((2, 0), (-2, 0), (0, 2), (0, -2)))
