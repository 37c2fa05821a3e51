"""What every test may use: the folder of real data, where it is present, and small rasters, scenes and plans."""

import datetime as dt
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from benchmarks import plan_of_windows
from skyscript_assets.lib import plugins
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.sources.files.index import fingerprint

os.environ.pop("COLUMNS", None)  # rich takes the width of whoever starts the tests, once, when it is imported
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real extracts, images and benchmarks beside the project; tests that need them skip where they are absent."""

hypothesis.settings.register_profile("slow machines too", deadline=None)
hypothesis.settings.load_profile("slow machines too")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is absent: {SHARED_DATA} does not exist")
    return SHARED_DATA


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """Situations that users reported, with their right values (README.md)."""
    cases = SHARED_DATA.parent / "cases"
    if not cases.is_dir():
        pytest.skip(f"the cases are absent: {cases} does not exist")
    return cases


@pytest.fixture(scope="session")
def textured() -> Callable[..., NDArray[np.uint8]]:
    """Makes a picture (3, height, width) of random blocks and noise: sharp, no cloud, no level of 0 or 255."""

    def make(width: int = 300, height: int = 200, seed: int = 0) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        blocks = rng.integers(20, 200, (3, -(-height // 10), -(-width // 10)))
        picture = blocks.repeat(10, axis=1).repeat(10, axis=2)[:, :height, :width]
        return (picture + rng.integers(0, 30, picture.shape)).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def write_raster() -> Callable[..., Path]:
    """Writes a GeoTIFF of values (bands, rows, columns); by default in UTM zone 32 north, half a metre a pixel."""

    def write(
        path: Path,
        values: NDArray[Any],
        *,
        crs: str | None = "EPSG:32632",
        transform: Affine | None = Affine(0.5, 0, 500_000, 0, -0.5, 5_250_000),  # noqa: B008 - never changed
        mask: NDArray[np.bool_] | None = None,
        tags: dict[str, str] | None = None,
        **profile: Any,
    ) -> Path:
        bands, height, width = values.shape
        profile = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"} | profile
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                width=width,
                height=height,
                count=bands,
                dtype=values.dtype,
                crs=crs,
                transform=transform,
                **profile,
            ) as dataset,
        ):
            dataset.write(values)
            if mask is not None:
                dataset.write_mask(mask)
            if tags:
                dataset.update_tags(**tags)
        return path

    return write


@pytest.fixture(scope="session")
def scene_of() -> Callable[..., Scene]:
    """Describes a raster as a scene; any of its facts can be given."""

    def describe(path: Path, **facts: Any) -> Scene:
        with rasterio.open(path) as dataset:
            bounds = transform_bounds(
                dataset.crs, "EPSG:4326", *array_bounds(dataset.height, dataset.width, dataset.transform)
            )
            known = {
                "scene_id": path.stem,
                "region": "here",
                "source": "S",
                "datetime": dt.datetime(2020, 6, 1, tzinfo=dt.UTC),
                "footprint": shapely.box(*bounds),
                "gsd_m": 0.5,
                "crs": f"EPSG:{dataset.crs.to_epsg()}",
                "transform": tuple(dataset.transform[:6]),
                "width": dataset.width,
                "height": dataset.height,
                "hrefs": (str(path),),
                "fingerprint": fingerprint(dataset),
                "nodata": dataset.nodata,
                "licence": "CC0-1.0",
                "attribution": "A surveyor",
            }
        return Scene(**known | facts)

    return describe


@pytest.fixture
def install_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Puts a package on the path as an installation would: its modules by name, its entry points by group."""

    def install(name: str, entry_points: dict[str, dict[str, str]], modules: dict[str, str] | None = None) -> None:
        folder = tmp_path / "installed" / name
        (metadata := folder / f"{name.replace('-', '_')}-1.0.dist-info").mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        sections = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
            for group, points in entry_points.items()
        ]
        (metadata / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
        for module, text in (modules or {}).items():
            (folder / f"{module}.py").write_text(text, encoding="utf-8")
            monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(folder)
        forget()

    def forget() -> None:
        plugins.registered.cache_clear()
        plugins.load.cache_clear()

    yield install
    forget()


@pytest.fixture(scope="session")
def write_chip_plan() -> Callable[..., list[dict[str, Any]]]:
    """Writes a plan of windows (scene, column, row, width, height) on the scenes' own grids; returns its rows."""
    return plan_of_windows.write_chip_plan
