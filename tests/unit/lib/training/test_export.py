"""A trained model as it is given away."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from skyscript_assets.lib.errors import CorruptInputError, SettingsError, SkyScriptError, StorageError
from skyscript_assets.lib.pairs.manifest import write_manifest
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.models import AlignRecipe, NoRecipe, OpenClipBase, TrainedModel
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.training.export import Leaving, export_model, trained_on

Partitions = dict[tuple[str, str], PartitionFolders]
HOSTILE = "A <script>alert(1)</script> & [link](https://x.example) | \u202e\"quoted\": 'yes'"
MODEL = TrainedModel(title="Roofs", base="b", recipe=AlignRecipe(batch_size=2))
FIGURES = {
    "mean_auc": {"value": 0.8311, "low": 0.7901, "high": 0.871},
    "i2t_r1": {"value": 0.0652, "low": None, "high": None},
}
SCORES = {"title": HOSTILE, "synthetic": True, "primary": "mean_auc", "items": 752, "clustered_by": "cell"}


@pytest.fixture
def model(tiny_base: OpenClipBase) -> ClipModel:
    return load_base(tiny_base, {}, 0)


@pytest.fixture
def images(tmp_path: Path, write_partition: Callable[..., PartitionFolders]) -> Callable[..., dict[str, Any]]:
    """What a model was trained on, in two partitions of three pairs each; `facts` are of the second one."""

    def found(of: TrainedModel = MODEL, **facts: Any) -> dict[str, Any]:
        partitions: Partitions = {("here", "S"): write_partition([{}, {"image": 1}, {"split": "val", "image": 2}])}
        more = [
            facts | {"chip_id": f"b{n}", "object_id": f"b{n}", "image": 10 + n, "west": 178.2 + n} for n in range(3)
        ]
        partitions["there", "T"] = write_partition(more, "there", "T")
        write_manifest(partitions, tmp_path)
        plans, chips = ({key: getattr(of, name) for key, of in partitions.items()} for name in ("plan", "chips"))
        return trained_on(tmp_path / "manifest.parquet", of, plans, chips)

    return found


def leaving(base: OpenClipBase, images: dict[str, Any] | None, **more: Any) -> Leaving:
    counts = {"recipe": "align", "pairs": 5, "cells": 5, "val_loss": None, "steps": 7}
    told = Leaving(
        name="roofs-0",
        settings=MODEL,
        base=base,
        weights={},
        counts=counts,
        scores={"cover": SCORES | {"figures": FIGURES}},
        made_from={"training_manifest, manifest.parquet": "a" * 64},
        images=images,
        release={"name": "roofs", "version": "1.0.0"},
        hub=None,
    )
    return dataclasses.replace(told, **more)


def test_owners_times_and_ground_are_those_of_the_pairs_that_were_trained_on(images) -> None:
    found = images(licence="CC-BY-4.0", attribution=HOSTILE, synthetic=True)
    assert found["owners"] == [
        {"source": "S", "attribution": "A surveyor", "licence": "CC0-1.0", "images": 2},
        {"source": "T", "attribution": HOSTILE, "licence": "CC-BY-4.0", "images": 3},
    ]
    assert found["painted"] == 3
    assert found["first"] == found["last"] == dt.datetime(2020, 6, 1, tzinfo=dt.UTC)
    assert found["bbox"] == pytest.approx([0.0, 50.0, -179.3, 50.5])  # the second partition lies across 180 degrees
    assert found["geometry"]["type"] == "MultiPolygon"


def test_a_source_that_was_not_trained_on_is_not_credited(images) -> None:
    found = images(MODEL.model_copy(update={"sources": ("T",)}))
    assert [row["source"] for row in found["owners"]] == ["T"]
    assert found["painted"] == 0


def test_an_image_that_is_gone_is_told(tmp_path: Path, images) -> None:
    images()
    with pytest.raises(CorruptInputError, match=r"5 pairs were trained on, images of 0 are there; skyscript run"):
        trained_on(tmp_path / "manifest.parquet", MODEL, {}, {})


def test_the_folder_holds_what_people_and_programs_ask(model: ClipModel, tiny_base, images, tmp_path: Path) -> None:
    told = leaving(tiny_base, images(licence="CC-BY-4.0", attribution=HOSTILE, synthetic=True))
    out = tmp_path / "out"
    assert export_model(model, told, out) is not None
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=False).returncode == 0
    card = (out / "README.md").read_text()
    told_hub = yaml.safe_load(card.split("---")[1])
    assert (told_hub["license"], told_hub["library_name"], told_hub["datasets"]) == ("other", "open_clip", ["roofs"])
    assert "mean_auc, the first figure | 0.831 | 0.79 to 0.871 | 752 |" in card
    assert "3 of the images are painted from the map itself" in card
    assert 'CLIPModel.from_pretrained("FOLDER")' in card
    assert 'create_model_and_transforms("local-dir:FOLDER")' in card
    for name in ("README.md", "LICENSE.md"):
        text = (out / name).read_text()
        assert "CC-BY-4.0" in text
        assert "<script>" not in text
        assert "](https://x.example" not in text
    credited = json.loads((out / "credits.json").read_text())["images"]
    assert [row["images"] for row in credited] == [2, 3]
    assert (out / "open_clip_model.safetensors").stat().st_mode & 0o044


def test_the_stac_item_names_files_by_digest(model: ClipModel, tiny_base, images, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(model, leaving(tiny_base, images()), out)
    item = json.loads((out / "item.json").read_text())
    weights = hashlib.sha256((out / "open_clip_model.safetensors").read_bytes()).hexdigest()
    assert item["assets"]["open_clip"]["file:checksum"] == f"1220{weights}"
    assert item["assets"]["open_clip"]["roles"] == ["mlm:model", "mlm:weights"]
    assert set(item["assets"]) == {"open_clip", "transformers.CLIPModel", "scores", "card"}
    known = item["properties"]
    assert known["mlm:input"][0]["input"]["shape"] == [-1, 3, 32, 32]
    assert known["mlm:input"][0]["value_scaling"][0]["mean"] == pytest.approx(255 * model.mean[0])
    assert known["mlm:output"][0]["result"]["shape"] == [-1, 32]
    assert known["mlm:hyperparameters"]["recipe"]["batch_size"] == 2
    assert known["skyscript:made_from"] == {"training_manifest, manifest.parquet": "a" * 64}
    assert known["skyscript:release"] == {"name": "roofs", "version": "1.0.0"}
    assert (known["start_datetime"], known["mlm:pretrained"]) == ("2020-06-01T00:00:00Z", False)


def test_a_baseline_has_the_licence_of_its_base(model: ClipModel, tiny_base, tmp_path: Path) -> None:
    base = tiny_base.model_copy(update={"pretrained": "tag", "licence": "MIT"})
    settings = TrainedModel(title="As it is", base="b", recipe=NoRecipe())
    out = tmp_path / "out"
    export_model(model, leaving(base, None, settings=settings, counts={}, scores={}, release=None), out)
    card = (out / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    assert "It was not measured yet." in card
    assert not (out / "credits.json").exists()
    assert json.loads((out / "item.json").read_text())["properties"]["mlm:pretrained"] is True


@pytest.mark.parametrize("licence", [None, "unknown: state it", "none", " "])
def test_a_base_of_unknown_licence_stays(model: ClipModel, tiny_base, tmp_path: Path, licence: str | None) -> None:
    base = tiny_base.model_copy(update={"pretrained": "tag", "licence": licence})
    with pytest.raises(SettingsError, match=r"nobody has stated the licence of bases.b, .* write bases.b.licence"):
        export_model(model, leaving(base, None), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("licence", ["unknown: state it before you publish", "All rights reserved", "CC-BY-ND-4.0"])
def test_a_model_of_images_that_may_not_be_used_so_stays(
    model, tiny_base, images, tmp_path: Path, licence: str
) -> None:
    told = leaving(tiny_base, images(licence=licence))
    with pytest.raises(SkyScriptError, match="source T: its licence is .* cannot be given away; state the licence"):
        export_model(model, told, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_as_it_is(model: ClipModel, tiny_base, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(StorageError, match="out exists: name a folder that does not"):
        export_model(model, leaving(tiny_base, None), tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_what_ends_half_way_leaves_nothing(model: ClipModel, tiny_base, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skyscript_assets.lib.training.export.write_sums", full)
    with pytest.raises(StorageError, match="out cannot be written"):
        export_model(model, leaving(tiny_base, None), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    export_model(model, leaving(tiny_base, None), tmp_path / "out")
    before = (tmp_path / "out" / "SHA256SUMS").read_bytes()
    torch.manual_seed(1)
    export_model(model, leaving(tiny_base, None), tmp_path / "again")
    assert (tmp_path / "again" / "SHA256SUMS").read_bytes() == before
