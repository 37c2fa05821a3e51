"""Alignment of locked towers, and its checkpoint."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    DivergedError,
    OutputSchemaError,
    SettingsError,
    TooLittleDataError,
    UpstreamMissingError,
)
from skyscript_assets.lib.settings.models import AlignRecipe, ClipRecipe, NoRecipe, TrainedModel
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training.align import train_alignment
from skyscript_assets.lib.training.checkpoint import HISTORY_SCHEMA, load_checkpoint, plot_history, write_untrained

KEY = ("town", "SYN1")


def aligned(seed: int = 0, **recipe: object) -> TrainedModel:
    fields = {"epochs": 12, "batch_size": 8, "lr": 3e-3, "warmup_steps": 4} | recipe
    return TrainedModel(title="Aligned", base="lite0-minilm", recipe=AlignRecipe(**fields), seed=seed)


@pytest.fixture
def town(featured_town, tmp_path: Path):
    root = shutil.copytree(featured_town.root, tmp_path / "data")
    return replace(featured_town, root=root, manifest=root / "manifest.parquet")


@pytest.fixture
def base(joint_base, weights):
    return lambda seed=0: load_base(joint_base, weights, seed)


def train(town, base, out: Path, settings: TrainedModel, **arguments):
    out.mkdir(exist_ok=True)
    model = base(settings.seed)
    return train_alignment(town.manifest, {KEY: town.root / "features"}, model, settings, out, **arguments)


def accuracy(model, town) -> float:
    names = sorted(set(town.titles))
    images = model.project_image(model.image_features(town.images))
    found = (images @ model.encode_texts([f"a satellite image of {name}" for name in names]).T).argmax(axis=1)
    return float(np.mean([names[i] == title for i, title in zip(found, town.titles, strict=True)]))


def test_alignment_teaches_what_images_show(town, base, joint_base, weights, out: Path):
    told = []
    summary = train(town, base, out, aligned(), progress=lambda *step: told.append(step))
    assert summary.train_loss < 0.7 * summary.first_loss
    assert (summary.pairs, summary.captions, summary.cells, summary.val_pairs) == (45, 4, 3, 10)
    assert (summary.steps, summary.epochs) == (60, 12)
    assert told[-1] == (60, 60, "steps")
    model = load_checkpoint(out, joint_base, weights)
    assert accuracy(model, town) > 0.9
    assert accuracy(base(), town) < 0.6


def test_an_alignment_that_diverges_leaves_no_checkpoint(town, base, out: Path):
    with pytest.raises(DivergedError, match=r"step \d+ of 60, lr [\d.e+]+: loss (nan|inf)"):
        train(town, base, out, aligned(lr=1e30, warmup_steps=0))
    assert not list(out.iterdir())


def test_the_checkpoint_holds_the_projections_alone(town, base, joint_base, weights, joint_model, out: Path):
    train(town, base, out, aligned())
    record = json.loads((out / "model.json").read_text())
    names = ["logit_scale", "text.proj.weight", "visual.head.proj.bias", "visual.head.proj.weight"]
    assert record["tensors"] == names
    assert record["base_digest"] == joint_model.digest
    assert record["training"]["pairs"] == 45
    assert (out / "model.safetensors").stat().st_size < 400_000
    assert sorted(path.name for path in out.iterdir()) == ["history.parquet", "model.json", "model.safetensors"]
    loaded = load_checkpoint(out, joint_base, weights)
    assert loaded.tower_digest == joint_model.tower_digest
    assert loaded.digest != joint_model.digest


def test_history_has_every_step_and_a_validation_loss_an_epoch(town, base, out: Path):
    summary = train(town, base, out, aligned())
    history = read_table(out / "history.parquet", HISTORY_SCHEMA)
    rows = history.to_pylist()
    train_rows = [row for row in rows if row["split"] == "train"]
    val_rows = [row for row in rows if row["split"] == "val"]
    assert [row["step"] for row in train_rows] == list(range(1, 61))
    assert [row["epoch"] for row in val_rows] == list(range(1, 13))
    assert train_rows[0]["lr"] == pytest.approx(3e-3 / 4)
    assert max(row["lr"] for row in train_rows) == pytest.approx(3e-3)
    assert train_rows[-1]["lr"] < 1e-4
    best = min(val_rows, key=lambda row: row["loss"])
    assert (summary.best_epoch, summary.val_loss) == (best["epoch"], best["loss"])


def test_equal_inputs_give_equal_files_and_another_seed_others(town, base, tmp_path: Path):
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        train(town, base, folder, aligned(seed))
    for name in ("model.json", "model.safetensors", "history.parquet"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
        assert (folders[0] / name).read_bytes() != (folders[2] / name).read_bytes()


def test_shuffled_captions_teach_nothing(town, base, joint_base, weights, out: Path):
    summary = train(town, base, out, aligned(shuffle_captions=True))
    assert summary.captions == 4
    assert accuracy(load_checkpoint(out, joint_base, weights), town) < 0.8


def test_both_captions_can_be_trained_on(town, base, out: Path):
    both = ("title", "title_multi_objects")
    assert train(town, base, out, aligned(column=both)).train_loss < 2.0


def test_a_locked_text_tower_keeps_its_projection(town, base, out: Path):
    from safetensors.torch import load_file

    summary = train(town, base, out, aligned(lock_text=True))
    assert sorted(load_file(out / "model.safetensors")) == [
        "logit_scale",
        "visual.head.proj.bias",
        "visual.head.proj.weight",
    ]
    assert summary.train_loss < 0.9 * summary.first_loss


def test_weights_are_mixed_with_those_of_the_start(town, base, tmp_path: Path):
    from safetensors.torch import load_file

    start = base(0).network.state_dict()
    mixed = {}
    for share in (0.0, 0.25, 1.0):
        train(town, base, tmp_path / str(share), aligned(interpolation=share))
        mixed[share] = load_file(tmp_path / str(share) / "model.safetensors")
    for name, trained in mixed[1.0].items():
        assert torch.equal(mixed[0.0][name], start[name])
        assert torch.allclose(mixed[0.25][name], 0.75 * start[name] + 0.25 * trained, atol=1e-6)
    assert not torch.equal(mixed[0.25]["text.proj.weight"], start["text.proj.weight"])


def test_statements_are_learnt_and_shuffled_ones_are_not(town, base, joint_base, weights, tmp_path: Path):
    for name, shuffled in (("true", False), ("shuffled", True)):
        recipe = {"column": "statements", "loss": "sigmoid", "positives": "stated", "epochs": 30}
        train(town, base, tmp_path / name, aligned(**recipe, shuffle_captions=shuffled))
    learnt = accuracy(load_checkpoint(tmp_path / "true", joint_base, weights), town)
    assert learnt > 0.8
    assert accuracy(load_checkpoint(tmp_path / "shuffled", joint_base, weights), town) < learnt


def test_without_validation_pairs_the_last_epoch_is_kept(town, base, out: Path):
    table = read_table(town.manifest)
    split = ["test" if value == "val" else value for value in table["split"].to_pylist()]
    write_table(town.manifest, table.set_column(table.schema.get_field_index("split"), "split", [split]))
    summary = train(town, base, out, aligned())
    assert (summary.val_pairs, summary.best_epoch, summary.val_loss) == (0, 12, None)


def test_too_little_data_ends_with_the_numbers(town, base, out: Path):
    with pytest.raises(TooLittleDataError, match=r"45 pairs \(at least 64 needed, 19 missing\), 4 distinct captions"):
        train(town, base, out, aligned(batch_size=64))
    assert list(out.iterdir()) == []


def test_missing_features_are_told(town, base, out: Path):
    with pytest.raises(UpstreamMissingError, match="chip_features town/SYN1 does not exist"):
        train_alignment(town.manifest, {}, base(), aligned(), out)
    features = town.root / "features" / "features.parquet"
    write_table(features, read_table(features).slice(2))
    with pytest.raises(CorruptInputError, match=f"chip_features town/SYN1 lacks {town.chip_ids[0]}"):
        train(town, base, out, aligned())


def test_only_alignments_of_bases_with_projections_are_run(town, base, out: Path, tmp_path: Path):
    import open_clip

    from skyscript_assets.lib.settings.models import OpenClipBase

    other = TrainedModel(title="Other", base="b", recipe=ClipRecipe(lr=1e-3))
    with pytest.raises(SettingsError, match="recipe 'clip' is not an alignment"):
        train(town, base, out, other)
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-resnet.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-resnet.json")
    with pytest.raises(SettingsError, match="has no linear projections"):
        train(town, lambda seed: load_base(OpenClipBase(name="tiny-resnet"), {}, seed), out, aligned())


def test_a_recipe_without_training_is_the_base_itself(base, joint_base, weights, joint_model, out: Path):
    settings = TrainedModel(title="Untrained", base="lite0-minilm", recipe=NoRecipe())
    summary = write_untrained(base(), settings, out)
    assert (summary.recipe, summary.steps, summary.best_epoch) == ("none", 0, None)
    assert pq.read_table(out / "history.parquet").num_rows == 0
    assert load_checkpoint(out, joint_base, weights).digest == joint_model.digest
    plot_history(read_table(out / "history.parquet", HISTORY_SCHEMA), out / "curve.png")


def test_broken_checkpoints_are_told(base, joint_base, weights, out: Path, tmp_path: Path):
    with pytest.raises(UpstreamMissingError, match="holds no checkpoint"):
        load_checkpoint(out, joint_base, weights)
    write_untrained(base(), TrainedModel(title="U", base="b", recipe=NoRecipe()), out)
    good = (out / "model.json").read_text()
    with pytest.raises(DigestMismatchError, match="trained from another base than 'b' now is"):
        load_checkpoint(out, joint_base.model_copy(update={"embed_dim": 16}), weights)
    (out / "model.json").write_text(good.replace('"format": 1', '"format": 2'))
    with pytest.raises(OutputSchemaError, match="format 2 is not 1"):
        load_checkpoint(out, joint_base, weights)
    (out / "model.json").write_text("{")
    with pytest.raises(CorruptInputError, match="is not a checkpoint's record"):
        load_checkpoint(out, joint_base, weights)
    (out / "model.json").write_text(good)
    (out / "model.safetensors").write_bytes(b"other")
    with pytest.raises(DigestMismatchError, match="is not the file that model.json describes"):
        load_checkpoint(out, joint_base, weights)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"logit_scale": torch.zeros(3)}, "does not fit the base"),
        ({"visual.extra": torch.zeros(3)}, "the base has no visual.extra"),
    ],
)
def test_tensors_of_another_network_are_refused(base, joint_base, weights, out: Path, tensors, message):
    from safetensors.torch import save_file

    from skyscript_assets.lib.towers.weights import file_sha256

    write_untrained(base(), TrainedModel(title="U", base="b", recipe=NoRecipe()), out)
    record = json.loads((out / "model.json").read_text())
    save_file(tensors, out / "model.safetensors")
    (out / "model.json").write_text(json.dumps(record | {"sha256": file_sha256(out / "model.safetensors")}))
    with pytest.raises(CorruptInputError, match=message):
        load_checkpoint(out, joint_base, weights)


def test_the_training_curve_is_a_picture(town, base, out: Path, tmp_path: Path):
    train(town, base, out, aligned(epochs=2))
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    history = read_table(out / "history.parquet", HISTORY_SCHEMA)
    plot_history(history, first)
    plot_history(history, second)
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.width > 600
