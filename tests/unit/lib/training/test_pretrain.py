"""Continual pre-training: real steps of a real, tiny open_clip model on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

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
from skyscript_assets.lib.settings.plant import TrainingSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training import pretrain
from skyscript_assets.lib.training.checkpoint import HISTORY_SCHEMA, load_checkpoint
from skyscript_assets.lib.training.optimisation import adamw, unmoved_from
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


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def visual(weights: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in weights if name.startswith("visual.") or name == "logit_scale"}


def test_a_locked_text_tower_stays_and_the_image_tower_learns(whole, tiny_base, tmp_path: Path):
    town, _, _ = whole
    before = load_base(tiny_base, {}, 3).network.state_dict()
    summary = train(town, tiny_base, tmp_path / "out", recipe(lock_text=True))
    after = weights_of(tmp_path / "out")
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed <= visual(after)
    assert "visual.proj" in changed
    assert summary.train_loss < 0.95 * summary.first_loss


def test_a_locked_text_tower_has_no_dropout(town, joint_base, weights, out: Path):
    settings = recipe(max_steps=1, batch_size=4, lock_text=True)
    model = load_base(joint_base, weights, settings.seed)
    modes = []
    model.network.text.register_forward_hook(lambda module, *_: modes.append(module.training))
    train_clip(town.manifest, town.folders, model, settings, out)
    assert not any(modes)


@pytest.mark.parametrize("switches", [{}, {"lock_text": True, "loss": "sigmoid"}])
def test_micro_batches_change_no_loss_that_compares_all_texts(town, tiny_base, tmp_path: Path, switches):
    from skyscript_assets.lib.settings.plant import TrainingSettings

    settings = recipe(max_steps=4, column="statements", positives="stated", **switches)
    for size in (2, 8):
        train(town, tiny_base, tmp_path / str(size), settings, machine=TrainingSettings(micro_batch=size))
    assert 0 < moved_apart(tmp_path / "8", tmp_path / "2", tiny_base) < 1e-3


@pytest.mark.parametrize("switches", [{"positives": "equal"}, {"positives": "stated"}, {"loss": "sigmoid"}])
def test_losses_and_what_matches_are_learnt_with(town, tiny_base, out: Path, switches):
    summary = train(town, tiny_base, out, recipe(**switches))
    assert summary.train_loss < 0.9 * summary.first_loss


def test_weights_are_mixed_with_the_bases(whole, tiny_base, tmp_path: Path):
    town, _, finished = whole
    start, end = load_base(tiny_base, {}, 3).network.state_dict(), weights_of(finished)

    def kill(done: int, total: int, unit: str) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(town, tiny_base, tmp_path / "out", recipe(interpolation=0.25), progress=kill)
    train(town, tiny_base, tmp_path / "out", recipe(interpolation=0.25))
    for name, tensor in weights_of(tmp_path / "out").items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, 0.75 * start[name] + 0.25 * end[name], atol=1e-6)


def test_order_and_crop_of_the_paper_give_other_weights(whole, tiny_base, tmp_path: Path):
    town, _, finished = whole
    for name, changes in {"order": {"order": "shuffled"}, "crop": {"crop": "anywhere"}}.items():
        train(town, tiny_base, tmp_path / name, recipe(**changes))
        assert not torch.equal(weights_of(tmp_path / name)["visual.proj"], weights_of(finished)["visual.proj"])


def test_a_killed_run_goes_on_with_the_texts_it_would_have_drawn(town, tiny_base, tmp_path: Path):
    settings = recipe(column=("title", "title_multi_objects"), order="shuffled", positives="equal")

    def kill(done: int, total: int, unit: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    train(town, tiny_base, tmp_path / "whole", settings)
    with pytest.raises(KeyboardInterrupt):
        train(town, tiny_base, tmp_path / "killed", settings, progress=kill)
    train(town, tiny_base, tmp_path / "killed", settings)
    whole, killed = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_the_papers_learning_rates_move_no_gain_in_float32(tiny_base):
    torch.manual_seed(0)
    for lr in (1e-9, 3e-9, 1e-7, 1e-5):
        gain, weight = (torch.nn.Parameter(torch.full((64,), value)) for value in (1.0, 0.4 * unmoved_from(lr)))
        matrix = torch.nn.Parameter(torch.full((8, 8), 1.0))
        optimiser = adamw({"ln.weight": gain, "ln.bias": weight, "w": matrix}, lr, 1.0, (0.9, 0.98), 1e-6)
        for _ in range(30):
            for parameter in (gain, weight, matrix):
                parameter.grad = torch.rand_like(parameter) + 0.5
            optimiser.step()
        moved = unmoved_from(lr) > 1
        assert bool((gain != 1.0).all() and (matrix != 1.0).all()) is moved
        assert bool((gain == 1.0).all() and (matrix == 1.0).all()) is not moved
        assert bool((weight != 0.4 * unmoved_from(lr)).all())
    assert (unmoved_from(1e-9), unmoved_from(3e-9)) == (2**-5, 2**-4)


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


def test_the_steps_are_those_of_open_clips_trainer_to_the_bit(whole, tiny_base, monkeypatch):
    """Its `train_one_epoch`, loss, rule of decay, schedule and bound of the scale, on the batches of a finished run."""
    from open_clip.loss import ClipLoss
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    town, _, finished = whole
    steps, settings = 20, recipe(max_steps=20)
    model = load_base(tiny_base, {}, settings.seed)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    embeddings = pretrain._Run._embeddings

    def keep(self, number, ids, pixels):
        seen.append((self._base.pixels(pixels), ids))
        return embeddings(self, number, ids, pixels)

    monkeypatch.setattr(pretrain._Run, "_embeddings", keep)
    out = finished.parent / "twenty"
    ours = load_base(tiny_base, {}, settings.seed)
    out.mkdir()
    train_clip(town.manifest, town.folders, ours, settings, out, threads=1)

    exclude = lambda n, p: p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n  # noqa: E731
    named = list(model.network.named_parameters())
    plain, decayed = ([p for n, p in named if exclude(n, p) is kind] for kind in (True, False))
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.1}]
    optimiser = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98), eps=1e-6)
    schedule = cosine_lr(optimiser, 2e-3, 3, steps)
    model.network.output_dict = True

    class Loader(list):
        num_batches, num_samples = steps, steps * 8

    class Data:
        dataloader = Loader(seen)

        def set_epoch(self, epoch):
            pass

    args = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, horovod=False,
        grad_clip_norm=None, rank=0, local_rank=0, log_local=False, log_every_n_steps=1000, batch_size=8, world_size=1,
        wandb=False, distributed=False,
    )  # fmt: skip
    train_one_epoch(model.network, {"train": Data()}, ClipLoss(), 0, optimiser, None, schedule, None, args)
    assert len(seen) == steps
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, ours.network.state_dict()[name]), name


def losses_of(out: Path) -> np.ndarray:
    return read_table(out / "history.parquet")["loss"].to_numpy()


def moved_apart(one: Path, other: Path, tiny_base) -> float:
    """How far two runs end from each other, over how far the first one went."""
    before = load_base(tiny_base, {}, 3).network.state_dict()
    ends = [load_file(out / "model.safetensors") for out in (one, other)]
    apart = sum(float(((ends[0][name] - ends[1][name]) ** 2).sum()) for name in before)
    return (apart / sum(float(((ends[0][name] - before[name]) ** 2).sum()) for name in before)) ** 0.5


@pytest.mark.parametrize(
    "machine", [{"micro_batch": 2}, {"micro_batch": 3}, {"gradient_checkpointing": True, "micro_batch": 4}]
)
def test_micro_batches_and_checkpointing_change_nothing_but_rounding(whole, tiny_base, out: Path, machine):
    town, _, finished = whole
    train(town, tiny_base, out, recipe(), machine=TrainingSettings(**machine))
    np.testing.assert_allclose(losses_of(out), losses_of(finished), rtol=1e-5, atol=1e-5)
    assert moved_apart(finished, out, tiny_base) < 1e-3


def test_four_times_128_pairs_are_a_batch_of_512(town_of: Callable, tiny_base, tmp_path: Path):
    town, settings = town_of(720), recipe(batch_size=512, max_steps=5)
    for name, machine in {"whole": {}, "parts": {"micro_batch": 128}}.items():
        summary = train(town, tiny_base, tmp_path / name, settings, machine=TrainingSettings(**machine))
        assert (summary.pairs, summary.steps) == (540, 5)
    np.testing.assert_allclose(losses_of(tmp_path / "parts"), losses_of(tmp_path / "whole"), rtol=1e-5)
    assert 0 < moved_apart(tmp_path / "whole", tmp_path / "parts", tiny_base) < 1e-3


def test_micro_batches_draw_the_same_dropout_with_and_without_gradients(town, joint_base, weights, out: Path):
    """The loss is of the features that the gradients are taken of: else a towers' gradient would not lower it."""
    seen: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    embeddings = pretrain._Run._embeddings
    with pytest.MonkeyPatch.context() as patch:

        def keep(self, number, ids, pixels):
            found = embeddings(self, number, ids, pixels)
            seen[number].append(found[1].detach().clone())
            return found

        patch.setattr(pretrain._Run, "_embeddings", keep)
        settings = recipe(max_steps=1, batch_size=4)
        model = load_base(joint_base, weights, settings.seed)
        train_clip(town.manifest, town.folders, model, settings, out, machine=TrainingSettings(micro_batch=2))
    for first, again in seen.values():
        assert torch.equal(first, again)


def test_the_papers_gradient_is_a_quarter_but_for_the_scale(town, tiny_base, tmp_path: Path, monkeypatch):
    """What open_clip's ClipLoss has on each of four processes by default, where the gather passes no gradient."""
    found = {}
    for gradient in ("whole", "paper"):
        model = load_base(tiny_base, {}, 3)
        out = tmp_path / gradient
        out.mkdir()

        def keep(parameters, gradient=gradient, model=model):
            found[gradient] = {name: p.grad.clone() for name, p in model.network.named_parameters()}
            return torch.zeros(())

        monkeypatch.setattr(pretrain.optimisation, "gradient_norm", keep)
        train_clip(town.manifest, town.folders, model, recipe(max_steps=1, gradient=gradient), out)
    for name, whole in found["whole"].items():
        torch.testing.assert_close(found["paper"][name], whole if name == "logit_scale" else whole / 4)


def test_open_clips_loss_without_gradient_through_the_gather_is_what_paper_says(monkeypatch):
    """Mean over four processes, as DistributedDataParallel takes it, of the gradients of a matrix and of the scale."""
    from open_clip import loss as of_open_clip

    torch.manual_seed(0)
    pixels, texts, scale = torch.randn(8, 5), torch.randn(8, 4), torch.tensor(2.0)
    start = torch.randn(5, 4)

    def gradients(loss) -> tuple[torch.Tensor, torch.Tensor]:
        weight, log = start.clone().requires_grad_(), scale.clone().requires_grad_()
        loss(weight, log).backward()
        return weight.grad, log.grad

    def of_rank(rank: int):
        mine = slice(2 * rank, 2 * rank + 2)

        def gather(images, words, **_):
            everyone = (pixels @ start).clone()
            return torch.cat([everyone[: 2 * rank], images, everyone[2 * rank + 2 :]]), texts

        def loss(weight, log):
            monkeypatch.setattr(of_open_clip, "gather_features", gather)
            four = of_open_clip.ClipLoss(rank=rank, world_size=4)
            return four(pixels[mine] @ weight, texts[mine], log.exp())

        return gradients(loss)

    whole = gradients(lambda weight, log: of_open_clip.ClipLoss()(pixels @ weight, texts, log.exp()))
    four = [of_rank(rank) for rank in range(4)]
    torch.testing.assert_close(torch.stack([weight for weight, _ in four]).mean(0), whole[0] / 4)
    torch.testing.assert_close(torch.stack([log for _, log in four]).mean(0), whole[1])


def test_losses_that_are_read_later_leave_the_weights_as_before_all_the_same(
    town, tiny_base, tmp_path: Path, monkeypatch
):
    """As on a GPU: the optimiser looks on the device whether a loss was a number, and the run hears of it later."""
    monkeypatch.setattr(pretrain, "read_every", lambda device: 4)
    ends = {}
    for last, name in ((6, "before"), (None, "broken")):
        model = load_base(tiny_base, {}, 3)
        out = tmp_path / name
        out.mkdir()
        if last is None:
            backward, calls = pretrain._Run._backward, []

            def broken(self, batch, ids, pixels, backward=backward, calls=calls):
                loss = backward(self, batch, ids, pixels)
                calls.append(1)
                if len(calls) == 7:
                    self._base.network.visual.proj.grad[0, 0] = torch.nan
                return loss

            monkeypatch.setattr(pretrain._Run, "_backward", broken)
            with pytest.raises(DivergedError, match="step 7 of 24"):
                train_clip(town.manifest, town.folders, model, recipe(checkpoint_steps=100), out)
            assert len(calls) == 8, "it is heard of at the next look"
        else:

            def stop(done, total, unit):
                if done == 6:
                    raise StoppedError(15)

            with pytest.raises(StoppedError):
                train_clip(town.manifest, town.folders, model, recipe(checkpoint_steps=100), out, stop)
        ends[name] = {key: tensor.clone() for key, tensor in model.network.state_dict().items()}
    for key, tensor in ends["before"].items():
        assert torch.equal(tensor, ends["broken"][key]), key


def test_listeners_hear_how_the_run_stands(whole, tiny_base, out: Path):
    town, _, _ = whole
    events = []
    train(town, tiny_base, out, recipe(), listener=events.append)
    assert [(event.step, event.total) for event in events] == [(step, 24) for step in range(1, 25)]
    history = [row for row in read_table(out / "history.parquet").to_pylist() if row["split"] == "train"]
    assert [event.loss for event in events] == [row["loss"] for row in history]
    assert events[-1].left_s == 0
    assert all(event.samples_per_s > 0 and event.memory_mb > 100 for event in events)


def test_the_last_two_states_and_one_an_epoch_are_kept(whole, tiny_base, tmp_path: Path):
    town, _, finished = whole
    killed = tmp_path / "killed"

    def kill(done: int, total: int, unit: str) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(town, tiny_base, killed, recipe(), progress=kill)
    names = sorted(path.name for path in (killed / "states").iterdir())
    epochs = [f"step-{step:09d}.epoch.pt" for step in (4, 8, 12, 16)]
    assert names == sorted([*epochs, "step-000000015.pt", "step-000000016.pt"])
    for name in ("step-000000016.pt", "step-000000016.epoch.pt"):
        path = killed / "states" / name
        path.unlink()
        path.write_bytes(b"torn")
    taken = []
    train(town, tiny_base, killed, recipe(), progress=lambda done, total, unit: taken.append(done))
    assert taken[0] == 16
    assert (finished / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("error", "machine", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), {}, "micro_batch below 8, training.gradient_check"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), {"micro_batch": 1, "gradient_checkpointing": True},
         "suffice for 1 pairs at a time; try a smaller base"),
    ],
)  # fmt: skip
def test_memory_that_does_not_suffice_is_told_with_what_to_lower(
    town, tiny_base, out: Path, monkeypatch, error, machine, told
):
    def full(self, number, ids, pixels):
        raise error

    monkeypatch.setattr(pretrain._Run, "_embeddings", full)
    with pytest.raises(SettingsError, match=told):
        train(town, tiny_base, out, recipe(), machine=TrainingSettings(**machine))
