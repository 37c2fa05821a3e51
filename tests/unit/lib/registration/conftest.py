"""A town of houses whose picture lies beside its map by a known vector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.features import rasterize

from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, rows_to_table, write_table

OBJECTS = pa.schema(
    [
        ("object_id", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("tags", TAGS_TYPE),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
    ]
)
UTM = "EPSG:32632"
EAST, NORTH = 500_000.0, 5_250_000.0
"""South-western corner of the town; the central meridian, where grid north is true north."""
SIDE_M = 300.0
SUPERSAMPLING = 3


def houses(seed: int = 0, spacing_m: float = 25.0) -> list[shapely.Geometry]:
    """Turned rectangles of 8 to 16 m, in metres of UTM zone 32 north."""
    rng = np.random.default_rng(seed)
    found = []
    for x in np.arange(spacing_m / 2, SIDE_M, spacing_m):
        for y in np.arange(spacing_m / 2, SIDE_M, spacing_m):
            width, height = rng.uniform(8, 16, 2)
            house = shapely.box(-width / 2, -height / 2, width / 2, height / 2)
            house = shapely.affinity.rotate(house, rng.uniform(0, 180))
            found.append(
                shapely.affinity.translate(house, EAST + x + rng.uniform(-3, 3), NORTH + y + rng.uniform(-3, 3))
            )
    return found


def to_degrees(geometry: shapely.Geometry) -> shapely.Geometry:
    back = Transformer.from_crs(UTM, 4326, always_xy=True)
    return shapely.transform(geometry, lambda p: np.column_stack(back.transform(p[:, 0], p[:, 1])))


def write_houses(path: Path, shapes: list[shapely.Geometry], **tags: str) -> None:
    rows = []
    for number, shape in enumerate(map(to_degrees, shapes)):
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(shape).tolist(), strict=True))
        rows.append(
            {
                "object_id": f"a{number}",
                "timestamp": None,
                "tags": {"building": "yes"} | tags,
                "geometry": shapely.to_wkb(shape),
                "bbox": box,
            }
        )
    write_table(path, rows_to_table(rows, OBJECTS))


def picture(
    shapes: list[shapely.Geometry], crs: str, transform: Affine, width: int, height: int, seed: int = 0
) -> NDArray[np.uint8]:
    """Houses of random brightness on noisy ground, (3, height, width); `shapes` in UTM."""
    to_crs = Transformer.from_crs(UTM, crs, always_xy=True)
    drawn = [shapely.transform(s, lambda p: np.column_stack(to_crs.transform(p[:, 0], p[:, 1]))) for s in shapes]
    rng = np.random.default_rng(seed)
    levels = [
        (shape, int(level)) for shape, level in zip(drawn, rng.choice([60, 80, 170, 200], len(drawn)), strict=True)
    ]
    fine = rasterize(
        levels,
        (height * SUPERSAMPLING, width * SUPERSAMPLING),
        fill=120,
        transform=transform @ Affine.scale(1 / SUPERSAMPLING),
        dtype="uint8",
    )
    grey = fine.reshape(height, SUPERSAMPLING, width, SUPERSAMPLING).mean(axis=(1, 3))
    return np.clip(grey + rng.normal(0, 6, (3, height, width)), 0, 255).astype(np.uint8)


GRIDS: dict[str, tuple[str, Affine, int, int]] = {
    "UTM": (UTM, Affine(0.5, 0, EAST, 0, -0.5, NORTH + SIDE_M), 600, 600),
    "another zone": ("EPSG:32631", Affine(0.5, 0, 952_550.0, 0, -0.5, 5_267_850.0), 900, 900),
    "Web Mercator": ("EPSG:3857", Affine(0.75, 0, 1_001_865.0, 0, -0.75, 6_008_632.0), 620, 620),
    "degrees": ("EPSG:4326", Affine(6e-6, 0, 9.0, 0, -4.5e-6, 47.4051), 700, 640),
    "turned": (
        UTM,
        Affine.translation(EAST - 40, NORTH + SIDE_M - 60) @ Affine.rotation(20) @ Affine.scale(0.5, -0.5),
        760,
        640,
    ),
}
"""CRS, affine, columns and rows of a scene of the town."""


@pytest.fixture
def town(tmp_path: Path, write_raster: Callable[..., Path], scene_of: Callable[..., Scene]) -> Callable[..., Scene]:
    """Paints the town `shift` metres east and north of its map, writes `objects.parquet` and returns the scene."""

    def make(
        shift: tuple[float, float] = (0.0, 0.0),
        grid: str = "UTM",
        name: str = "town",
        change: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values,
        **profile: Any,
    ) -> Scene:
        crs, transform, width, height = GRIDS[grid]
        shapes = houses()
        write_houses(tmp_path / "objects.parquet", shapes)
        there = [shapely.affinity.translate(shape, *shift) for shape in shapes]
        values = change(picture(there, crs, transform, width, height))
        path = write_raster(tmp_path / f"{name}.tif", values, crs=crs, transform=transform, **profile)
        facts: dict[str, Any] = {}
        if values.dtype != np.uint8:
            facts = {"scale_low": (0.0,) * 3, "scale_high": (255.0,) * 3}
        corners = transform @ (np.array([0, width, width, 0.0]), np.array([0, 0, height, height]))
        back = Transformer.from_crs(crs, 4326, always_xy=True)
        facts["footprint"] = shapely.polygons(np.column_stack(back.transform(*corners)))
        return scene_of(path, crs=crs, **facts)

    return make


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., Path]:
    """Writes scenes as a `scene_index` folder."""

    def write(*scenes: Scene) -> Path:
        folder = tmp_path / "scenes"
        folder.mkdir(exist_ok=True)
        write_scenes(folder, scenes)
        return folder

    return write
