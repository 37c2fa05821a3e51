"""Bases and the model made of them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.fusion import fused
from skyscript_assets.lib.towers.model import ClipModel, load_base
from skyscript_assets.lib.towers.weights import file_sha256


def noise(count: int, height: int = 64, width: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def test_a_joint_base_is_an_open_clip_model_with_both_pretrained_towers(joint_model: ClipModel, weights):
    import open_clip
    from safetensors.torch import load_file

    from skyscript_assets.lib.towers.weights import locate_weights

    assert isinstance(joint_model.network, open_clip.CustomTextCLIP)
    image_file = torch.load(locate_weights(weights["lite0"]), weights_only=True)
    torch.testing.assert_close(joint_model.network.visual.trunk.conv_stem.weight, image_file["_conv_stem.weight"])
    text_file = load_file(locate_weights(weights["minilm"]))
    name = "embeddings.word_embeddings.weight"
    torch.testing.assert_close(joint_model.network.text.transformer.state_dict()[name], text_file[name])


def test_loading_a_joint_base_needs_no_network(joint_base, weights, monkeypatch):
    def refuse(*args: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_base(joint_base, weights, seed=0)


def test_the_seed_draws_the_projections_and_nothing_else(joint_base, weights, joint_model):
    before = torch.get_rng_state()
    same, other = load_base(joint_base, weights, seed=0), load_base(joint_base, weights, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert same.digest == joint_model.digest
    assert other.digest != joint_model.digest
    assert other.tower_digest == joint_model.tower_digest
    different = {
        name
        for name, tensor in other.network.state_dict().items()
        if not torch.equal(tensor, joint_model.network.state_dict()[name])
    }
    assert different == {"visual.head.proj.weight", "text.proj.weight"}


def test_another_preprocessing_is_another_tower(joint_base, weights, joint_model):
    other = load_base(joint_base.model_copy(update={"mean": (0.4, 0.4, 0.4)}), weights, seed=0)
    assert other.tower_digest != joint_model.tower_digest


def test_features_and_projection_together_are_what_open_clip_encodes(joint_model: ClipModel):
    images, texts = noise(3), ["a satellite image of building", "road"]
    with torch.inference_mode():
        expected = joint_model.network.encode_image(joint_model.pixels(np.stack(images)), normalize=True).numpy()
        tokens = joint_model._tokenizer(texts)
        assert tokens.shape == (2, 128)
        expected_texts = joint_model.network.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(joint_model.encode_images(images), expected, atol=2e-5)
    np.testing.assert_allclose(joint_model.encode_texts(texts), expected_texts, atol=2e-5)
    assert joint_model.image_features(images).shape == (3, 1280)
    assert joint_model.text_features(texts).shape == (2, 384)


def test_equal_inputs_give_equal_bits_in_any_order(joint_model: ClipModel):
    images, texts = noise(11), [f"caption {'long ' * (i % 5)}{i}" for i in range(70)]
    np.testing.assert_array_equal(joint_model.image_features(images), joint_model.image_features(images))
    np.testing.assert_array_equal(joint_model.encode_texts(texts), joint_model.encode_texts(texts[::-1])[::-1])
    np.testing.assert_array_equal(joint_model.encode_texts([*texts, texts[0]])[-1], joint_model.encode_texts(texts)[0])


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
    assert joint_model.augment(image, (60, 10, 80, 30), np.random.default_rng(0)).shape == (64, 64, 3)


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


def test_weights_of_another_architecture_are_refused(joint_base: JointBase, weights):
    with pytest.raises(PretrainedWeightsError, match=r"efficientnet-lite0-57934424.pth: .* of another model"):
        load_base(joint_base.model_copy(update={"timm_name": "tf_efficientnet_lite1"}), weights, seed=0)


def test_weights_with_one_other_shape_are_refused(joint_base: JointBase, weights):
    with pytest.raises(PretrainedWeightsError, match=r"stands where efficientnet_b0 has|tensors, but efficientnet_b0"):
        load_base(joint_base.model_copy(update={"timm_name": "efficientnet_b0"}), weights, seed=0)


def test_an_unknown_architecture_is_a_mistake_of_the_settings(joint_base: JointBase, weights):
    with pytest.raises(SettingsError, match="'no_such_net' is no architecture that timm knows"):
        load_base(joint_base.model_copy(update={"timm_name": "no_such_net"}), weights, seed=0)
    with pytest.raises(SettingsError, match="'ViT-Z' is no architecture that open_clip knows"):
        load_base(OpenClipBase(name="ViT-Z"), {}, seed=0)


def test_a_text_tower_that_is_no_safetensors_is_refused(joint_base: JointBase, weights):
    with pytest.raises(SettingsError, match=r"weights.lite0.file must be a model.safetensors"):
        load_base(joint_base.model_copy(update={"text": "lite0"}), weights, seed=0)


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site" / "carrier_of_towers"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder


def carried(path: Path) -> PackagedWeights:
    return PackagedWeights(package="carrier_of_towers", file=path.name, sha256=file_sha256(path))


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


@pytest.mark.parametrize("content", ["pickle", "noise"])
def test_a_pickle_with_code_in_it_is_refused(carrier: Path, joint_base, weights, content: str):
    path = carrier / "evil.pth"
    if content == "pickle":
        torch.save({"weight": Evil()}, path)
    else:
        path.write_bytes(b"noise")
    with pytest.raises(PretrainedWeightsError, match=r"evil.pth: cannot be read as weights"):
        load_base(joint_base, weights | {"lite0": carried(path)}, seed=0)


def test_a_text_folder_without_its_configuration_is_refused(carrier: Path, joint_base, weights):
    path = carrier / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(PretrainedWeightsError, match="the text tower in the package carrier_of_towers"):
        load_base(joint_base, weights | {"minilm": carried(path)}, seed=0)


def test_an_open_clip_base_reads_a_local_file(tiny_base: OpenClipBase, tmp_path: Path):
    drawn = load_base(tiny_base, {}, seed=5)
    path = tmp_path / "tiny.safetensors"
    save_file(drawn.network.state_dict(), path)
    local = tiny_base.model_copy(update={"pretrained": str(path), "sha256": file_sha256(path)})
    read = load_base(local, {}, seed=6)
    assert read.digest == drawn.digest
    assert load_base(tiny_base, {}, seed=6).digest != drawn.digest
    with pytest.raises(DigestMismatchError, match=r"tiny\.safetensors: sha256"):
        load_base(local.model_copy(update={"sha256": "0" * 64}), {}, seed=0)
    with pytest.raises(PretrainedWeightsError, match="no such file"):
        load_base(local.model_copy(update={"pretrained": str(tmp_path / "absent.pt")}), {}, seed=0)
    with pytest.raises(PretrainedWeightsError, match="tiny-vit with weights no_such_tag: cannot be loaded"):
        load_base(tiny_base.model_copy(update={"pretrained": "no_such_tag"}), {}, seed=0)


def test_a_vision_transformer_splits_into_features_and_projection(tiny_base: OpenClipBase):
    model = load_base(tiny_base, {}, seed=0)
    images = noise(3, 32, 32)
    with torch.inference_mode():
        expected = model.network.encode_image(model.pixels(np.stack(images))).numpy()
        expected_text = model.network.encode_text(model.tokens(["road"])).numpy()
    assert model.image_features(images).shape == (3, 64)
    np.testing.assert_allclose(model.project_image(model.image_features(images)), expected, atol=1e-5)
    np.testing.assert_allclose(model.project_text(model.text_features(["road"])), expected_text, atol=1e-5)
    assert model.image_head.names == ("visual.proj",)
    assert model.text_head.names == ("text_projection",)
    assert model.network.visual.proj is not None


def test_a_siglip_is_refused(tmp_path: Path):
    import open_clip

    config = {
        "embed_dim": 16,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    }
    (tmp_path / "tiny-biased.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-biased.json")
    with pytest.raises(SettingsError, match="SigLIP-like"):
        load_base(OpenClipBase(name="tiny-biased"), {}, seed=0)
