"""The model: features, projections, pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skyscript_assets.lib import threads
from skyscript_assets.lib.settings.models import OpenClipBase
from skyscript_assets.lib.towers import model as model_module
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.fusion import fused
from skyscript_assets.lib.towers.model import ClipModel, normalised


def noise(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def test_another_preprocessing_is_another_tower(joint_base, weights, joint_model):
    other = load_base(joint_base.model_copy(update={"mean": (0.4, 0.4, 0.4)}), weights, seed=0)
    assert other.tower_digest != joint_model.tower_digest


def test_features_and_projection_together_are_what_open_clip_encodes(joint_model: ClipModel):
    images, texts = noise(3), ["a satellite image of building", "road"]
    with torch.inference_mode():
        expected = joint_model.network.encode_image(joint_model.pixels(np.stack(images)), normalize=True).numpy()
        tokens = joint_model.tokenizer(texts)
        assert tokens.shape == (2, 128)
        expected_texts = joint_model.network.encode_text(tokens, normalize=True).numpy()
    found = normalised(joint_model.project_image(joint_model.image_features(images)))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(joint_model.encode_texts(texts), expected_texts, atol=2e-5)
    assert joint_model.image_features(images).shape == (3, 1280)
    assert joint_model.text_features(texts).shape == (2, 384)


def test_equal_inputs_give_equal_bits_in_any_order(joint_model: ClipModel):
    images, texts = noise(11), [f"caption {'long ' * (i % 5)}{i}" for i in range(70)]
    np.testing.assert_array_equal(joint_model.image_features(images), joint_model.image_features(images))
    np.testing.assert_array_equal(joint_model.encode_texts(texts), joint_model.encode_texts(texts[::-1])[::-1])
    np.testing.assert_array_equal(joint_model.encode_texts([*texts, texts[0]])[-1], joint_model.encode_texts(texts)[0])


@pytest.mark.parametrize("base", ["joint_model", "tiny_vit"])
def test_features_have_the_same_bits_on_any_number_of_cores(
    base: str, tiny_base: OpenClipBase, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    model = load_base(tiny_base, {}, seed=0) if base == "tiny_vit" else request.getfixturevalue(base)
    images, texts = noise(35), [f"natural tree {number}" for number in range(150)]
    found = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(threads, "cores", lambda cores=cores: cores)
        found.append(model.image_features(images).tobytes() + model.text_features(texts).tobytes())
    assert found == [found[0]] * 3


def test_texts_are_tokenised_some_at_a_time(joint_model: ClipModel, monkeypatch: pytest.MonkeyPatch):
    texts = [f"caption {'long ' * (i % 7)}{i}" for i in range(50)]
    whole = joint_model.text_features(texts)
    monkeypatch.setattr(model_module, "TOKENISED", 9)
    np.testing.assert_allclose(joint_model.text_features(texts), whole, atol=1e-6)


def test_no_images_and_no_texts_are_no_rows(joint_model: ClipModel):
    assert len(joint_model.image_features([])) == 0
    assert len(joint_model.text_features([])) == 0


def test_preprocessing_resizes_the_shortest_side_and_cuts_the_middle(joint_model: ClipModel):
    image = np.zeros((50, 150, 3), np.uint8)
    image[:, 50:100] = 255
    batch = joint_model.preprocess([image])
    assert batch.shape == (1, 64, 64, 3)
    assert batch[:, :, 2:-2].min() > 240
    assert joint_model.preprocess(batch) is batch


def test_pixels_are_normalised_by_the_means_of_the_settings(joint_model: ClipModel):
    batch = np.full((1, 64, 64, 3), 255, np.uint8)
    torch.testing.assert_close(joint_model.pixels(batch), torch.ones(1, 3, 64, 64))
    torch.testing.assert_close(joint_model.pixels(batch * 0), -torch.ones(1, 3, 64, 64))


@pytest.mark.parametrize("size", [64, 100])
def test_the_fused_trunk_gives_the_same_features(joint_model: ClipModel, size: int):
    trunk = joint_model.network.visual.trunk
    fast = fused(trunk, size)
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(fast(pixels), trunk(pixels), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in trunk.modules())


def test_a_trunk_whose_layers_run_in_another_order_is_left_as_it_is():
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.norm = nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(2.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(torch.relu(self.norm(x))).mean(dim=(2, 3))

    trunk = Backwards().eval()
    copy = fused(trunk, 16)
    assert any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())


def test_a_vision_transformer_splits_into_features_and_projection(tiny_base: OpenClipBase):
    model = load_base(tiny_base, {}, seed=0)
    images = noise(3, 32, 32)
    with torch.inference_mode():
        expected = model.network.encode_image(model.pixels(np.stack(images))).numpy()
        expected_text = model.network.encode_text(model.fitted(model.tokenizer(["road"]))).numpy()
    assert model.image_features(images).shape == (3, 64)
    np.testing.assert_allclose(model.project_image(model.image_features(images)), expected, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(["road"]), normalised(expected_text), atol=1e-5)
    assert model.image_head.names == ("visual.proj",)
    assert model.text_head.names == ("text_projection",)
    assert model.network.visual.proj is not None


@pytest.mark.parametrize("pool", ["argmax", "eos", "last"])
@pytest.mark.parametrize("custom", [False, True])
def test_a_causal_tower_gives_the_same_without_what_follows_a_text(tmp_path: Path, pool: str, custom: bool):
    model = of_text_tower(tmp_path, {"pool_type": pool, "eos_id": 49407}, custom)
    assert (model._pool is None) == (pool == "last")
    texts = ["road", "a satellite image of water, grass and a building", "", "road " * 40]
    with torch.inference_mode():
        expected = model.network.encode_text(model.fitted(model.tokenizer(texts)), normalize=True).numpy()
    used = model._used(model.tokenizer(texts))
    assert used.tolist() == ([32] * 4 if pool == "last" else [3, 12, 2, 32])
    np.testing.assert_allclose(model.encode_texts(texts), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode_texts(texts[:1]), expected[:1], atol=1e-6)


def test_a_tower_that_looks_both_ways_reads_its_padding(tmp_path: Path):
    """As SigLIP's: another number of padding tokens is another answer."""
    model = of_text_tower(tmp_path, {"pool_type": "last", "no_causal_mask": True, "proj_bias": True}, custom=True)
    texts = ["road", "a satellite image of water"]
    ids = model.fitted(model.tokenizer(texts))
    assert ids.shape == (2, 32)
    with torch.inference_mode():
        whole, cut = (model.network.encode_text(each, normalize=True).numpy() for each in (ids, ids[:, :7]))
    assert np.abs(whole - cut).max() > 1e-3
    np.testing.assert_allclose(model.encode_texts(texts), whole, atol=1e-6)


def of_text_tower(tmp_path: Path, text: dict[str, object], custom: bool) -> ClipModel:
    """A tiny model drawn at random with a logit bias, as SigLIP has it, and a text tower of choice."""
    import open_clip

    config = {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": custom,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2} | text,
    }
    name = f"tiny-{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / f"{name}.json")
    return load_base(OpenClipBase(name=name), {}, seed=0)
