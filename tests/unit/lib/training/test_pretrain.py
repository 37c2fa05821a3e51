"""Continual pre-training: real steps of a real, tiny open_clip model on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from skyscript_assets.lib.errors import (
    DivergedError,
    SettingsError,
    StoppedError,
    TooLittleDataError,
    UpstreamMissingError,
)
from skyscript_assets.lib.settings.models import AlignRecipe, ClipRecipe, TrainedModel
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training.checkpoint import HISTORY_SCHEMA, load_checkpoint
from skyscript_assets.lib.training.optimisation import adamw
from skyscript_assets.lib.training.pretrain import train_clip


def recipe(**fields: object) -> TrainedModel:
    clip = {"lr": 2e-3, "epochs": 6, "batch_size": 8, "warmup_steps": 3, "weight_decay": 0.1, "checkpoint_steps": 5}
    return TrainedModel(title="Tiny", base="tiny", recipe=ClipRecipe(**(clip | fields)), seed=3)


@pytest.fixture
def town(town_of: Callable):
    return town_of(48)


def train(town, base, out: Path, settings: TrainedModel, **arguments):
    out.mkdir(exist_ok=True)
    return train_clip(town.manifest, town.folders, load_base(base, {}, settings.seed), settings, out, **arguments)


@pytest.fixture(scope="module")
def whole(tiny_base, town_at: Callable, tmp_path_factory: pytest.TempPathFactory):
    """A finished run: its town, summary and folder."""
    root = tmp_path_factory.mktemp("whole")
    town = town_at(root / "data", 48)
    return town, train(town, tiny_base, root / "out", recipe(), threads=1), root / "out"


def test_real_steps_of_both_towers_lower_the_loss(whole, tiny_base):
    before = load_base(tiny_base, {}, 3)
    _, summary, out = whole
    assert (summary.pairs, summary.captions, summary.val_pairs) == (36, 4, 8)
    assert (summary.steps, summary.epochs, summary.best_epoch) == (24, 6, 6)
    assert summary.train_loss < 0.85 * summary.first_loss
    tensors = load_file(out / "model.safetensors")
    for name in ("visual.transformer.resblocks.0.mlp.c_fc.weight", "transformer.resblocks.0.mlp.c_fc.weight"):
        assert not torch.equal(tensors[name], before.network.state_dict()[name])
    assert sorted(path.name for path in out.iterdir()) == ["history.parquet", "model.json", "model.safetensors"]


def test_the_trained_model_is_read_back(whole, tiny_base):
    town, _, out = whole
    model = load_checkpoint(out, tiny_base, {})
    names = sorted(set(town.titles))
    texts = model.encode_texts([f"a satellite image of {name}" for name in names])
    found = (model.project_image(model.image_features(town.images)) @ texts.T).argmax(axis=1)
    assert np.mean([names[i] == title for i, title in zip(found, town.titles, strict=True)]) > 0.6


def test_history_has_steps_epochs_and_the_cosine(whole):
    rows = read_table(whole[2] / "history.parquet", HISTORY_SCHEMA).to_pylist()
    steps = [row for row in rows if row["split"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, 25))
    assert [row["epoch"] for row in steps] == [1 + i // 4 for i in range(24)]
    assert [row["epoch"] for row in rows if row["split"] == "val"] == [1, 2, 3, 4, 5, 6]
    assert steps[0]["lr"] == pytest.approx(2e-3 / 3)
    assert steps[-1]["lr"] < 1e-4


@pytest.mark.parametrize("killed_at", [7, 13])
def test_a_killed_and_continued_run_equals_an_uninterrupted_one(whole, tiny_base, tmp_path: Path, killed_at: int):
    town, _, finished = whole
    killed = tmp_path / "killed"

    def kill(done: int, total: int, unit: str) -> None:
        if done == killed_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(town, tiny_base, killed, recipe(), progress=kill)
    assert [path.name for path in killed.iterdir()] == ["states"]
    taken = []
    train(town, tiny_base, killed, recipe(), progress=lambda done, total, unit: taken.append(done))
    assert taken[0] == max(killed_at // 5 * 5, killed_at // 4 * 4) + 1
    for name in ("model.safetensors", "history.parquet", "model.json"):
        assert (finished / name).read_bytes() == (killed / name).read_bytes()


def test_a_run_that_is_asked_to_end_goes_on_at_its_very_step(whole, tiny_base, tmp_path: Path):
    town, _, finished = whole
    stopped = tmp_path / "stopped"

    def stop(done: int, total: int, unit: str) -> None:
        if done == 8:
            raise StoppedError(15)

    with pytest.raises(StoppedError):
        train(town, tiny_base, stopped, recipe(), progress=stop)
    taken = []
    train(town, tiny_base, stopped, recipe(), progress=lambda done, total, unit: taken.append(done))
    assert taken[0] == 9
    assert (finished / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()


def test_a_run_that_diverges_says_where_and_keeps_the_state_of_before(town, tiny_base, out: Path):
    with pytest.raises(
        DivergedError, match=r"step \d+ of 24, lr [\d.e+]+, samples such as \S+, .* Lower the recipe's lr"
    ):
        train(town, tiny_base, out, recipe(lr=1e6, warmup_steps=0, checkpoint_steps=1))
    *_, last = sorted(out.glob("states/*.pt"))
    state = torch.load(last, weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["network"].values())
    assert [path.name for path in out.iterdir()] == ["states"]


def test_a_state_of_another_run_or_a_broken_one_is_not_continued(town, tiny_base, out: Path):
    def kill(done: int, total: int, unit: str) -> None:
        if done == 6:
            raise KeyboardInterrupt

    for settings, spoil in ((recipe(epochs=2, lr=1e-4), False), (recipe(epochs=2), True)):
        with pytest.raises(KeyboardInterrupt):
            train(town, tiny_base, out, recipe(epochs=2), progress=kill)
        if spoil:
            for path in out.glob("states/*.pt"):
                path.write_bytes(b"half a state")
        taken = []
        train(town, tiny_base, out, settings, progress=lambda done, total, unit, taken=taken: taken.append(done))
        assert taken[0] == 1


def test_max_steps_ends_the_run_and_the_cosine(town, tiny_base, out: Path):
    summary = train(town, tiny_base, out, recipe(max_steps=6))
    rows = read_table(out / "history.parquet").to_pylist()
    assert (summary.steps, summary.epochs) == (6, 2)
    assert [row["epoch"] for row in rows if row["split"] == "val"] == [1, 2]
    assert rows[-2]["lr"] < 0.3 * 2e-3


def test_a_joined_model_trains_with_dropout_and_batch_norm(town, joint_base, weights, out: Path):
    settings = recipe(max_steps=2, batch_size=4)
    model = load_base(joint_base, weights, settings.seed)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    summary = train_clip(town.manifest, town.folders, model, settings, out)
    assert summary.steps == 2
    after = model.network.state_dict()
    for name in ("visual.trunk.conv_stem.weight", "visual.trunk.bn1.running_mean"):
        assert not torch.equal(before[name], after[name])
    assert not model.network.training


def test_too_little_data_and_a_missing_shard_are_told(town, tiny_base, out: Path):
    with pytest.raises(TooLittleDataError, match=r"36 pairs \(at least 512 needed, 476 missing\)"):
        train(town, tiny_base, out, recipe(batch_size=512))
    (town.chips / "part-00000.tar").unlink()
    with pytest.raises(UpstreamMissingError, match="part-00000.tar does not exist"):
        train(town, tiny_base, out, recipe())
    with pytest.raises(SettingsError, match="recipe 'align' is not continual pre-training"):
        train(town, tiny_base, out, TrainedModel(title="T", base="b", recipe=AlignRecipe()))


def test_gains_biases_and_the_scale_do_not_decay(tiny_base):
    network = load_base(tiny_base, {}, 0).network
    plain, decayed = adamw(dict(network.named_parameters()), 1e-3, 1.0).param_groups
    names = {id(p): name for name, p in network.named_parameters()}
    assert {"logit_scale", "ln_final.weight", "visual.ln_post.bias"} <= {names[id(p)] for p in plain["params"]}
    assert "visual.proj" in {names[id(p)] for p in decayed["params"]}
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 1.0)
