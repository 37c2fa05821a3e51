"""Small real inputs: a painted scene with its map of surfaces, a profile, and a model that knows colours."""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from skyscript_assets.demo.ground_cover import CoverClass, GroundCoverBenchmark
from skyscript_assets.lib.geometry import Bounds, utm_crs
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.models import OpenClipBase

SURFACES = {1: "roof", 2: "road", 3: "water", 4: "grass"}
COLOURS = {0: (0, 0, 0), 1: (190, 60, 50), 2: (120, 120, 120), 3: (30, 60, 160), 4: (60, 160, 50)}
WORDS = {"building": 1, "road": 2, "water": 3, "grass": 4}
CENTRE = (24.9437, 60.1715)
EXTENT: Bounds = (24.925, 60.160, 24.961, 60.178)


class ColourModel:
    """A model whose features are shares of the painter's colours, and whose texts are the words of its classes.

    `skill` 0 knows nothing, 1 everything; what it does not know is noise of `seed`. `decoded` counts images.
    """

    logit_scale = 10.0

    def __init__(self, skill: float = 1.0, seed: int = 0) -> None:
        self.skill, self.seed, self.decoded = skill, seed, 0

    @property
    def tower_digest(self) -> str:
        return hashlib.sha256(b"colours").hexdigest()

    def image_features(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.decoded += len(images)
        palette = np.array([COLOURS[code] for code in SURFACES], dtype=float)
        rows = []
        for image in images:
            nearest = np.square(image[::2, ::2, None].astype(float) - palette).sum(-1).argmin(-1)
            rows.append(np.bincount(nearest.ravel(), minlength=len(SURFACES)) / nearest.size)
        return np.array(rows, dtype=np.float32)

    def project_image(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        noise = np.random.default_rng(self.seed).random(features.shape)
        return (self.skill * np.sqrt(features) + (1 - self.skill) * noise).astype(np.float32)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[float(word in text) for word in WORDS] for text in texts], dtype=np.float32) + 1e-3


def _paint(folder: Path, source: str, gsd_m: float, region: str = "town", synthetic: bool = True) -> Path:
    """A scene of 60 m blocks of one surface each, in UTM, with a strip without data along its western edge."""
    folder.mkdir(parents=True)
    crs = utm_crs(*CENTRE)
    to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    west, south, east, north = to_crs.transform_bounds(*EXTENT)
    width, height = int((east - west) / gsd_m), int((north - south) / gsd_m)
    transform = Affine(gsd_m, 0, west, 0, -gsd_m, north)
    rng = np.random.default_rng(3)
    block = int(60 / gsd_m)
    codes = rng.integers(1, 5, (height // block + 1, width // block + 1), dtype=np.uint8)
    codes = np.kron(codes, np.ones((block, block), dtype=np.uint8))[:height, :width]
    codes[:, : width // 10] = 0
    rgb = np.array([COLOURS[code] for code in range(5)], dtype=np.uint8)[codes]
    profile = {"driver": "GTiff", "width": width, "height": height, "crs": crs.to_wkt(), "transform": transform}
    with rasterio.open(folder / "scene.tif", "w", count=3, dtype="uint8", **profile) as file:
        file.write(np.moveaxis(rgb, -1, 0))
    with rasterio.open(folder / "surfaces.tif", "w", count=1, dtype="uint8", **profile) as file:
        file.write(codes, 1)
    (folder / "surfaces.json").write_text(json.dumps(SURFACES))
    scene = Scene(
        scene_id=f"{region}_{source}",
        region=region,
        source=source,
        datetime=dt.datetime(2024, 6, 1, tzinfo=dt.UTC),
        footprint=shapely.box(*EXTENT),
        gsd_m=gsd_m,
        crs=str(crs.to_string()),
        transform=tuple(transform)[:6],
        width=width,
        height=height,
        hrefs=("scene.tif",),
        fingerprint="0",
        licence="ODbL-1.0",
        attribution="OSM",
        synthetic=synthetic,
    )
    write_scenes(folder, [scene])
    return folder


def _ground_cover(**changes: object) -> GroundCoverBenchmark:
    classes = {
        "building": CoverClass(text="building", surfaces=("roof",)),
        "road": CoverClass(text="road", surfaces=("road",)),
        "water": CoverClass(text="water", surfaces=("water",)),
        "grass": CoverClass(text="grass", surfaces=("grass",)),
    }
    fields: dict[str, object] = {"title": "Cover", "sources": ("fine", "coarse"), "window_px": 64, "classes": classes}
    return GroundCoverBenchmark.model_validate(fields | changes)


@pytest.fixture(scope="session")
def paint() -> Callable[..., Path]:
    return _paint


@pytest.fixture(scope="session")
def ground_cover() -> Callable[..., GroundCoverBenchmark]:
    return _ground_cover


@pytest.fixture(scope="session")
def colour_model() -> type[ColourModel]:
    return ColourModel


@pytest.fixture(scope="session")
def surfaces() -> dict[int, str]:
    return SURFACES


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("scenes")
    (root / "empty").mkdir()
    write_scenes(root / "empty", [])
    return {
        ("town", "fine"): _paint(root / "fine", "fine", 1.0),
        ("town", "coarse"): _paint(root / "coarse", "coarse", 2.0),
        ("village", "fine"): root / "empty",
    }


@pytest.fixture(scope="session")
def cover_data(scenes: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skyscript_assets.demo.ground_cover import build_ground_cover

    out = tmp_path_factory.mktemp("cover")
    build_ground_cover(_ground_cover(), scenes, 16, out)
    return out


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """A profile in `tmp_path` with given models, benchmarks and comparisons."""

    def make(**benchmarks: object) -> Settings:
        align = {"base": "base", "recipe": {"kind": "align"}}
        shuffled = {"base": "base", "recipe": {"kind": "align", "shuffle_captions": True}}
        models = {
            **{f"good-{i}": {"title": "Good | bold", "group": "good", "seed": i, **align} for i in range(3)},
            "weak": {"title": "Weak", **align},
            "shuffled": {"title": "Shuffled", **shuffled},
            "untrained": {"title": "Untrained", "base": "base", "recipe": {"kind": "none"}},
            "meta": {"title": "Metadata only", "base": "base", "recipe": {"kind": "metadata-only"}},
            "probe": {"title": "Linear probe", "base": "base", "recipe": {"kind": "linear-probe"}},
            "odd": {"title": "Odd colours", "sources": ["odd"], **align},
        }
        synthetic = {
            "title": "S",
            "kind": "synthetic",
            "gsd_m": 1.0,
            "datetime": "2024-06-01",
            "licence": "ODbL-1.0",
            "attribution": "OSM",
        }
        return Settings.model_validate(
            {
                "folder": tmp_path,
                "plant": {
                    "title": "Test",
                    "plan": {"snapshot": "one", "quota": 5},
                    "scores": {"scorer": "base"},
                },
                "regions": {"town": {"title": "Town", "path": "town.osm.pbf"}},
                "sources": {"fine": synthetic, "coarse": synthetic, "odd": {**synthetic, "colours": "random"}},
                "weights": {"minilm-l6-v2": {"package": "p", "file": "f", "sha256": "0" * 64}},
                "bases": {"base": {"kind": "open_clip", "name": "ViT-B-32"}},
                "models": models,
                "benchmarks": {"benchmarks": {"cover": _ground_cover()}, "bootstrap": 200, **benchmarks},
            }
        )

    return make


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> OpenClipBase:
    """A vision transformer that open_clip builds from a configuration, small enough to train on a CPU."""
    import open_clip

    path = tmp_path_factory.mktemp("config") / "tiny-vit.json"
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return OpenClipBase(name="tiny-vit")
