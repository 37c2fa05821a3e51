"""Bases of the settings become models, or are refused."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.weights import file_sha256


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
