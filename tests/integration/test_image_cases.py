"""Images that users of such tools had trouble with, each with its right value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search, open_scene, source_kind
from tests.workshop import shared_in

WORLD = (-180.0, -90.0, 180.0, 90.0)


def shown(cases: Path, out: Path, name: str, **fields: Any) -> list[tuple[Scene, NDArray[np.uint8]]]:
    """Scenes of the files of a case in the order of their names, with what they show: black without data."""
    known = {"title": "t", "gsd_m": 0.5, "licence": "l", "attribution": "a", "datetime": "2020-06-01"}
    source = FilesSource.model_validate(known | {"paths": [str(cases / name)]} | fields)
    source_kind(source.kind).find(Search("here", "S", source, shared_in(out), WORLD, out))
    found = []
    for scene in sorted(read_scenes(out), key=lambda scene: scene.path.name):
        with open_scene(scene, source) as reader:
            found.append((scene, reader.read(scene.crs, scene.transform, scene.width, scene.height).rgb))
    return found


def test_a_palette_shows_colours_and_one_bit_black_and_white(shared_cases: Path, tmp_path: Path) -> None:
    ((_, palette),) = shown(shared_cases, tmp_path, "20-palette-tiff/palette.tif", bands=[1, 1, 1])
    assert palette.mean() == pytest.approx(116.5, abs=0.1)
    ((_, bits),) = shown(shared_cases, tmp_path, "21-one-bit-tiff/bilevel.tif", bands=[1, 1, 1])
    assert np.unique(bits).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("name", "stated", "gsd_m", "crs"),
    [
        ("25-compound-crs/merc_egm96.tif", 0.3, 0.299, "EPSG:3857"),
        ("25-compound-crs/merc_plain.tif", 0.3, 0.299, "EPSG:3857"),
        ("25-compound-crs/rd_nap.tif", 0.25, 0.250, "EPSG:28992"),
        ("26-other-mercators/esri_102100.tif", 0.3, 0.299, "EPSG:3857"),
        ("26-other-mercators/google_900913.tif", 0.3, 0.299, None),
        ("26-other-mercators/world_mercator_3395.tif", 0.3, 0.299, "EPSG:3395"),
    ],
)
def test_gsd_is_that_of_the_ground(
    shared_cases: Path, tmp_path: Path, name: str, stated: float, gsd_m: float, crs: str | None
) -> None:
    ((scene, _),) = shown(shared_cases, tmp_path, name, gsd_m=stated)
    assert scene.gsd_m == pytest.approx(gsd_m, abs=5e-4)
    assert crs is None or scene.crs == crs


def test_water_is_shown_where_near_infrared_is_tagged_alpha(shared_cases: Path, tmp_path: Path) -> None:
    ((_, plain),) = shown(shared_cases, tmp_path, "31-nir-as-alpha/rgbn.tif")
    ((_, masked),) = shown(shared_cases, tmp_path, "31-nir-as-alpha/rgbn_alpha.tif")
    ((_, ignored),) = shown(shared_cases, tmp_path, "31-nir-as-alpha/rgbn_alpha.tif", alpha="ignore")
    assert np.array_equal(ignored, plain)
    assert (masked == 0).all(axis=2).mean() == pytest.approx(0.15, abs=0.01)


def test_two_baselines_are_equally_bright(shared_cases: Path, tmp_path: Path) -> None:
    for scaling in (
        {"low": 0, "high": 2000},
        {"low": 0.0, "high": 0.2, "values": "physical"},
        {"percentiles": [2, 98]},
    ):
        (_, new), (_, old) = shown(shared_cases, tmp_path, "34-scale-offset/*.tif", scaling=scaling)
        assert np.array_equal(new, old)
        assert old.mean() == pytest.approx(128, abs=1)


def test_a_cast_goes_where_each_band_has_its_own_percentiles(shared_cases: Path, tmp_path: Path) -> None:
    scaling = {"percentiles": [2, 98]}
    name = "90-places/landsat_blue_cast.tif"
    ((_, rgb),) = shown(shared_cases, tmp_path, name, bands=[3, 2, 1], scaling=scaling, gsd_m=28.5)
    assert np.ptp(rgb.mean(axis=(0, 1))) < 2, "with one range for all, blue was twice as bright as red"
