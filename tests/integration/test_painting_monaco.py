"""Monaco painted from its extract: the sea, the houses, and how well surfaces follow the map."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.warp import transform_geom

from skyscript_assets.demo.painter.objects import role_of
from skyscript_assets.demo.scene import paint_scene
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.imagery.sources.kind import Search
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.meaning import is_hidden
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table
from tests.workshop import shared_in

pytestmark = pytest.mark.integration

HARBOUR = BBox(west=7.4165, south=43.7295, east=7.4285, north=43.7385)


@pytest.fixture(scope="module")
def monaco(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("monaco")
    osm = shared_data / "osm"
    region = Region(title="Monaco", path="monaco.osm.pbf", bbox=HARBOUR)
    stage_extract("monaco", region, shared_in(osm), folder)
    write_objects(folder, folder)
    source = SyntheticSource(
        title="Synthetic",
        gsd_m=1.0,
        licence="ODbL-1.0",
        attribution="Synthetic imagery painted from OpenStreetMap",
        datetime=dt.date(2021, 6, 12),
        omit_share=0.0,
        displace_share=0.0,
    )
    where = {"bbox": HARBOUR.bounds, "out": folder, "objects": folder / "objects.parquet"}
    return folder, paint_scene(Search("monaco", "SYN", source, shared_in(osm), **where))


def test_the_harbour_is_water_and_the_old_town_is_not(monaco: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = monaco
    names = json.loads((folder / "surfaces.json").read_text())
    with rasterio.open(folder / "surfaces.tif") as surfaces:
        places = [(7.4255, 43.7350), (7.4200, 43.7298), (7.4245, 43.7313)]
        eastings, northings = rasterio.warp.transform(4326, surfaces.crs, *zip(*places, strict=True))
        codes = [names[str(value[0])] for value in surfaces.sample(zip(eastings, northings, strict=True))]
    assert codes[:2] == ["water", "water"]
    assert codes[2] != "water"


def test_buildings_of_the_map_are_buildings_of_the_surfaces(monaco: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = monaco
    assert summary["painted"]["building"] > 300
    table = read_table(folder / "objects.parquet", columns=["object_id", "tags", "geometry"])
    shapes = []
    with rasterio.open(folder / "surfaces.tif") as surfaces:
        codes = surfaces.read(1)
        for row in table.to_pylist():
            tags = dict(row["tags"])
            if role_of(row["object_id"], tags) == "building" and not is_hidden(tags):
                plan = shapely.geometry.mapping(shapely.from_wkb(row["geometry"]))
                shapes.append(transform_geom("EPSG:4326", surfaces.crs, plan))
        mapped = rasterize(shapes, out_shape=codes.shape, transform=surfaces.transform).astype(bool)
    painted = codes == 1
    # Trees overhang some roofs, and invented sheds and towers are on no map.
    assert (painted & mapped).sum() / mapped.sum() > 0.93
    assert (painted & ~mapped).sum() / painted.sum() < 0.03


def test_the_picture_is_neither_flat_nor_clipped(monaco: tuple[Path, dict[str, Any]]) -> None:
    with rasterio.open(monaco[0] / "scene.tif") as scene:
        picture = scene.read()
    assert picture.std() > 20
    assert np.isin(picture, (0, 255)).mean() < 0.01
