"""Bases of the settings become models, or are refused."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.models import ClipRecipe, JointBase, OpenClipBase, PackagedWeights, TrainedModel
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel, normalised
from skyscript_assets.lib.towers.weights import check_activation, file_sha256, weights_file
from skyscript_assets.lib.training.pretrain import train_clip
from tests.web import Asked, FileServer, Reply, running


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
    local = OpenClipBase(name=tiny_base.name, pretrained=str(path), sha256=file_sha256(path), activation="gelu")
    read = load_base(local, {}, seed=6)
    assert read.digest == drawn.digest
    assert load_base(tiny_base, {}, seed=6).digest != drawn.digest
    with pytest.raises(DigestMismatchError, match=r"tiny\.safetensors: sha256"):
        load_base(local.model_copy(update={"sha256": "0" * 64}), {}, seed=0)
    with pytest.raises(PretrainedWeightsError, match="no such file"):
        load_base(local.model_copy(update={"pretrained": str(tmp_path / "absent.pt")}), {}, seed=0)
    with pytest.raises(PretrainedWeightsError, match="tiny-vit with weights no_such_tag: cannot be loaded"):
        load_base(tiny_base.model_copy(update={"pretrained": "no_such_tag"}), {}, seed=0)


def test_an_activation_that_is_not_its_tags_is_an_error_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was tried"))
    for name, tag, trained, other in (
        ("ViT-L-14", "openai", "quick_gelu", "ViT-L-14-quickgelu"),
        ("ViT-B-16", "openai", "quick_gelu", "ViT-B-16-quickgelu"),
        ("ViT-H-14", "dfn5b", "quick_gelu", "ViT-H-14-quickgelu"),
    ):
        with pytest.raises(SettingsError, match=rf"{name} is built with gelu, .* with {trained}.*: use {other}$"):
            load_base(OpenClipBase(name=name, pretrained=tag), {}, seed=0)
    check_activation(OpenClipBase(name="ViT-L-14-quickgelu", pretrained="openai"))
    check_activation(OpenClipBase(name="ViT-B-32", pretrained="laion2b_e16"))


def test_the_architecture_of_a_file_is_named_with_its_activation(tiny_base: OpenClipBase):
    with pytest.raises(ValidationError, match="weights from a file need `activation`"):
        OpenClipBase(name="ViT-L-14", pretrained="~/x.pt")
    with pytest.raises(ValidationError, match="weights from a file need `activation`"):
        OpenClipBase(name="ViT-L-14", url="https://example.org/x.zip")
    named = OpenClipBase(name="ViT-L-14", pretrained="~/x.pt", activation="quick_gelu")
    with pytest.raises(SettingsError, match=r"ViT-L-14 is built with gelu, its weights ~/x.pt .*: use ViT-L-14-quickg"):
        check_activation(named)
    other_way = OpenClipBase(name="ViT-B-32-quickgelu", pretrained="x.pt", activation="gelu")
    with pytest.raises(SettingsError, match="use ViT-B-32$"):
        check_activation(other_way)
    with pytest.raises(SettingsError, match="no such architecture with the other"):
        check_activation(OpenClipBase(name=tiny_base.name, pretrained="x.pt", activation="quick_gelu"))


@pytest.mark.parametrize(
    "stated", [{"pretrained": "openai", "url": "https://example.org/a.pt"}, {"name": "hf-hub:a/b", "pretrained": "x"}]
)
def test_weights_that_are_told_twice_are_a_mistake_of_the_settings(stated):
    with pytest.raises(ValidationError, match="leave one"):
        OpenClipBase(**{"name": "ViT-B-32", "activation": "gelu", **stated})


def in_file(name: str, path: Path) -> OpenClipBase:
    return OpenClipBase(name=name, pretrained=str(path), activation="gelu")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module."])
def test_checkpoints_load_with_the_prefixes_of_training_and_numbers_of_numpy(tiny_base, tmp_path: Path, prefix: str):
    drawn = load_base(tiny_base, {}, seed=5)
    state = {f"{prefix}{name}": tensor for name, tensor in drawn.network.state_dict().items()}
    rates = [np.float64(3e-9), np.float32(1e-3), np.int64(20)]
    optimiser = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": rate} for rate in rates]}
    torch.save({"epoch": 20, "name": "x", "state_dict": state, "optimizer": optimiser}, tmp_path / "epoch_20.pt")
    assert load_base(in_file(tiny_base.name, tmp_path / "epoch_20.pt"), {}, seed=6).digest == drawn.digest


def test_nothing_of_numpy_but_its_numbers_is_read(tiny_base, tmp_path: Path):
    path = tmp_path / "arrays.pt"
    for thing in (np.arange(3), np.random.default_rng(0), np.ma.masked):
        torch.save({"state_dict": {"weight": torch.zeros(2)}, "optimizer": thing}, path)
        with pytest.raises(PretrainedWeightsError, match=r"arrays\.pt: .*it asks for numpy\S+, and no code of a file"):
            load_base(in_file(tiny_base.name, path), {}, seed=0)


@pytest.mark.parametrize("content", ["code", "noise", "empty", "list", "text", "other", "torchscript"])
def test_files_that_hold_no_such_weights_are_refused_in_few_words(tiny_base, tmp_path: Path, content: str):
    path = tmp_path / "weights.pt"
    mark = tmp_path / "code-was-run"
    match content:
        case "code":
            torch.save({"state_dict": {"weight": Touch(str(mark))}}, path)
        case "noise":
            path.write_bytes(b"noise" * 1000)
        case "empty":
            path.touch()
        case "list":
            torch.save([torch.zeros(2)], path)
        case "text":
            torch.save({"state_dict": {"weight": "none"}}, path)
        case "other":
            torch.save({f"layer.{i}.weight": torch.zeros(2) for i in range(2000)}, path)
        case "torchscript":
            torch.jit.script(torch.nn.Linear(2, 2)).save(path)
    with pytest.raises(PretrainedWeightsError, match=r"weights\.pt: ") as caught:
        load_base(in_file(tiny_base.name, path), {}, seed=0)
    assert len(str(caught.value)) < 400
    assert "weights_only=False" not in str(caught.value)
    assert not mark.exists()


class Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    """A folder as the Hub has it: configuration, weights and tokenizer of a small SigLIP."""
    import open_clip
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "tiny-siglip"
    folder.mkdir()
    config = {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 64,
            "width": 32,
            "heads": 1,
            "layers": 1,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "hf_tokenizer_name": "tiny",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pixels}))
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", "a", "satellite", "photo", "of", "water"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.save_pretrained(folder)
    torch.manual_seed(3)
    network = open_clip.create_model(f"local-dir:{folder}")
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def test_a_siglip_of_a_folder_loads_and_squashes_its_images(siglip: Path, tmp_path: Path):
    base = OpenClipBase(name="local-dir:tiny-siglip")
    file = weights_file(base, Shared(folder=tmp_path, zoom=12, geofabrik_mirror="", boxes=()), tmp_path / "cache")
    assert file == siglip
    model, again = load_base(base, {}, 0, file), load_base(base, {}, 1, file)
    assert model.digest == again.digest
    image = np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8)
    squashed = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(model.preprocess([image])[0], squashed)
    with torch.inference_mode():
        whole = model.network.encode_image(model.pixels(squashed[None]), normalize=True).numpy()
        ids = model.fitted(model.tokenizer(["a satellite photo of water"]))
        texts = model.network.encode_text(ids, normalize=True).numpy()
    features = model.project_image(model.image_features([image]))
    np.testing.assert_allclose(normalised(features), whole, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(["a satellite photo of water"]), texts, atol=1e-5)
    settings = TrainedModel(title="x", base="mine", recipe=ClipRecipe(lr=1e-9))
    with pytest.raises(SettingsError, match="base 'mine' is a SigLIP; the recipe trains CLIP models"):
        train_clip(tmp_path / "manifest.parquet", {}, model, settings, tmp_path)


def test_a_folder_without_configuration_or_weights_is_refused(siglip: Path):
    (siglip / "open_clip_model.safetensors").unlink()
    base = OpenClipBase(name=f"local-dir:{siglip}")
    with pytest.raises(PretrainedWeightsError, match="cannot be loaded"):
        load_base(base, {}, 0)
    (siglip / "open_clip_config.json").unlink()
    with pytest.raises(PretrainedWeightsError, match="open_clip_config.json.*a folder with open_clip_config.json"):
        load_base(base, {}, 0)


def test_a_base_of_the_hub_loads_from_a_stand_in(siglip: Path, tmp_path: Path):
    """In a process of its own: the Hub's address is read when its client is imported."""
    names = [path.name for path in siglip.iterdir()]

    def hub(asked: Asked) -> Reply:
        name = asked.path.rpartition("/")[2]
        if name not in names:
            return Reply(404, headers={"X-Error-Code": "EntryNotFound"})
        data = (siglip / name).read_bytes()
        return Reply(200, data, {"X-Repo-Commit": "1" * 40, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    program = (
        "from skyscript_assets.lib.settings.models import OpenClipBase as B; from skyscript_assets.lib.towers.bases "
        "import load_base; print(load_base(B(name='hf-hub:some/tiny'), {}, 0).digest)"
    )
    with running(FileServer()) as server:
        for name in [*names, "open_clip_model.bin", "config.json", "tokenizer.model"]:
            server.routes[f"some/tiny/resolve/main/{name}"] = hub
            server.routes[f"tiny/resolve/main/{name}"] = hub
        environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub")}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.strip() == load_base(OpenClipBase(name=f"local-dir:{siglip}"), {}, 0).digest
        server.routes.clear()
        environment["HF_HOME"] = str(tmp_path / "other")
        refused = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    assert "PretrainedWeightsError: hf-hub:some/tiny with weights None: cannot be loaded" in refused.stderr


def test_numbers_that_the_numpy_before_wrote_are_read_past(tiny_base, tmp_path: Path):
    drawn = load_base(tiny_base, {}, seed=5)
    torch.save({"state_dict": drawn.network.state_dict(), "optimizer": {"lr": np.float64(3e-9)}}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "old.pt", "w") as old:
        for entry in new.infolist():
            data = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            old.writestr(entry.filename, data)
    assert load_base(in_file(tiny_base.name, tmp_path / "old.pt"), {}, seed=6).digest == drawn.digest
