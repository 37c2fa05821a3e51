"""Stored values that are no brightness: palettes, bits, inverted greys, inks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.imagery.reader import Pixels
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.imagery.sources.files.index import index_files
from skyscript_assets.lib.imagery.sources.files.settings import FilesSource
from skyscript_assets.lib.imagery.sources.kind import Search, open_scene
from tests.workshop import shared_in

Factory = Callable[..., Path]
VALUES = np.random.default_rng(0).integers(0, 256, (1, 200, 300)).astype(np.uint8)


def shown(folder: Path, **fields: Any) -> Pixels:
    """The only scene of a folder's images, whole, as its source shows it."""
    known = {
        "title": "t",
        "gsd_m": 0.5,
        "licence": "l",
        "attribution": "a",
        "datetime": "2020-06-01",
        "paths": ["*.tif"],
    }
    source = FilesSource.model_validate(known | {"bands": (1, 1, 1)} | fields)
    index_files(Search("here", "S", source, shared_in(folder), (-180, -90, 180, 90), folder))
    (scene,) = read_scenes(folder)
    with open_scene(scene, source) as reader:
        return reader.read(scene.crs, scene.transform, scene.width, scene.height)


def grey(levels: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(levels[0][..., np.newaxis], 3, axis=2)


@pytest.mark.parametrize("options", [{}, {"nbits": 4}, {"compress": "lzw"}, {"tiled": False}])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_palette_shows_its_colours(tmp_path: Path, write_raster: Factory, kind: str, options: dict[str, Any]) -> None:
    if kind == "uint16" and "nbits" in options:
        pytest.skip("palettes of 16 bits are stored in 16 bits")
    values = (VALUES % 16).astype(kind)
    colours = np.random.default_rng(1).integers(0, 256, (16, 3))
    path = write_raster(tmp_path / "a.tif", values, photometric="PALETTE", nodata=5, **options)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {value: tuple(colour) for value, colour in enumerate(colours.tolist())})
    pixels = shown(tmp_path)
    assert np.array_equal(pixels.valid, values[0] != 5)
    assert np.array_equal(pixels.rgb[pixels.valid], colours[values[0]][pixels.valid])


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_bits_are_shown_from_black_to_white(tmp_path: Path, write_raster: Factory, bits: int, inverted: bool) -> None:
    most = 2**bits - 1
    values = VALUES & most
    write_raster(tmp_path / "a.tif", values, nbits=bits, photometric="MINISWHITE" if inverted else "MINISBLACK")
    levels = (most - values if inverted else values) * 255.0 / most
    assert np.abs(shown(tmp_path).rgb - grey(levels)).max() <= 1


def test_colours_of_two_bits_a_band_are_colours(tmp_path: Path, write_raster: Factory) -> None:
    values = np.random.default_rng(2).integers(0, 4, (3, 100, 120)).astype(np.uint8)
    write_raster(tmp_path / "a.tif", values, nbits=2, photometric="RGB")
    assert np.array_equal(shown(tmp_path, bands=(3, 2, 1)).rgb, np.moveaxis(values[::-1] * 85, 0, -1))


def test_inks_are_never_taken_for_red_green_and_blue(tmp_path: Path, write_raster: Factory) -> None:
    """GDAL turns CMYK into RGB: blocks that are decoded without it must not be."""
    inks = np.zeros((4, 128, 128), np.uint8)
    inks[0] = 255  # cyan alone
    write_raster(tmp_path / "a.tif", inks, photometric="CMYK")
    assert shown(tmp_path, bands=(1, 2, 3)).rgb[5, 5].tolist() == [0, 255, 255]
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32632</SRS>'
        "<GeoTransform>500000, 0.5, 0, 5250000, 0, -0.5</GeoTransform>"
        + "".join(
            f'<VRTRasterBand dataType="Byte" band="{band}"><ColorInterp>{ink}</ColorInterp></VRTRasterBand>'
            for band, ink in enumerate(("Cyan", "Magenta", "Yellow", "Black"), start=1)
        )
        + "</VRTDataset>"
    )
    with pytest.raises(SceneError, match="band 1 is cyan, which is no brightness: convert it to RGB"):
        shown(tmp_path, bands=(1, 2, 3), paths=["a.vrt"])


def test_a_palette_of_which_a_wanted_band_is_missing_says_what_to_name(tmp_path: Path, write_raster: Factory) -> None:
    write_raster(tmp_path / "a.tif", VALUES, photometric="PALETTE")
    with pytest.raises(SceneError, match=r"has 1 band, .*a palette image: \[1, 1, 1\]"):
        shown(tmp_path, bands=(1, 2, 3))
