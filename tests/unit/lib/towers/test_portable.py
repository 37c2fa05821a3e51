"""Models as folders: read back by open_clip and transformers alone, offline, with the same embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from skyscript_assets.lib.settings.models import JointBase, OpenClipBase
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.portable import AGREEMENT, write_open_clip, write_transformers

TEXTS = ["a satellite image of building", "Road of asphalt; 2 lanes & trees", "", "water " * 80]

ELSEWHERE = """
import builtins, socket, sys
real = builtins.__import__
def refuse(name, *rest, **more):
    assert not name.startswith("skyscript"), name
    return real(name, *rest, **more)
def offline(*_):
    raise OSError("a connection was tried")
builtins.__import__, socket.socket.connect = refuse, offline
import json, torch, open_clip
from safetensors.torch import load_file, save_file
folder, given, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
given = load_file(given)
with torch.inference_mode():
    image = model.eval().encode_image(given["pixels"])
    text = model.encode_text(tokenizer(json.load(sys.stdin)))
save_file({"image": image, "text": text}, out)
print(preprocess)
"""


def embeddings(model: ClipModel, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        text = model.network.encode_text(model.tokenizer(TEXTS))
        return {"image": model.network.encode_image(pixels), "text": text}


def read_elsewhere(
    folder: Path, pixels: torch.Tensor, tmp_path: Path, cwd: Path
) -> tuple[dict[str, torch.Tensor], str]:
    """What open_clip makes of the folder in a process that has neither network nor this package."""
    from safetensors.torch import load_file

    save_file({"pixels": pixels}, tmp_path / "given.safetensors")
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    files = (tmp_path / "given.safetensors", tmp_path / "found.safetensors")
    command = [sys.executable, str(script), str(folder), *map(str, files), str(torch.get_num_threads())]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "nothing"), "HOME": str(tmp_path)}
    done = subprocess.run(
        command, input=json.dumps(TEXTS), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return load_file(files[1]), done.stdout


@pytest.fixture
def trained(tiny_base: OpenClipBase) -> ClipModel:
    """A model whose weights are no longer those of its base."""
    model = load_base(tiny_base, {}, 3)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(
                0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter.shape)))
            )
    model.weights_changed()
    return model


def test_open_clip_alone_gives_the_same_embeddings_bit_for_bit(
    trained: ClipModel, tiny_base, out: Path, tmp_path: Path
):
    assert write_open_clip(trained, tiny_base, None, out) == "tiny-vit"
    pixels = torch.randn(3, 3, 32, 32)
    found, shown = read_elsewhere(out, pixels, tmp_path, tmp_path)
    for name, expected in embeddings(trained, pixels).items():
        assert torch.equal(found[name], expected)
    assert "Resize(size=32, interpolation=bicubic" in shown
    assert load_base(OpenClipBase(name=f"local-dir:{out}"), {}, 0).digest == trained.digest


def test_an_aligned_model_is_whole_too(joint_model: ClipModel, joint_base: JointBase, out: Path, tmp_path: Path):
    write_open_clip(joint_model, joint_base, None, out)
    moved = out.rename(tmp_path / "moved")
    pixels = torch.randn(2, 3, 64, 64)
    found, _ = read_elsewhere(Path(), pixels, tmp_path, moved)
    for name, expected in embeddings(joint_model, pixels).items():
        assert torch.equal(found[name], expected)
    again = load_base(OpenClipBase(name=f"local-dir:{moved}"), {}, 0)
    assert again.digest == joint_model.digest
    np.testing.assert_array_equal(again.encode_texts(TEXTS[:2]), joint_model.encode_texts(TEXTS[:2]))


def test_towers_of_transformers_go_by_the_name_on_the_hub(joint_model: ClipModel, joint_base: JointBase, out: Path):
    write_open_clip(joint_model, joint_base, "me/roofs", out)
    text = json.loads((out / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    assert (text["hf_model_name"], text["hf_tokenizer_name"]) == ("me/roofs", "me/roofs")
    assert load_base(OpenClipBase(name=f"local-dir:{out}"), {}, 0).digest == joint_model.digest


def test_transformers_has_the_same_model(trained: ClipModel, out: Path):
    from transformers import CLIPModel, CLIPProcessor

    differs = write_transformers(trained, out)
    assert differs is not None
    assert differs <= AGREEMENT
    model, processor = CLIPModel.from_pretrained(out), CLIPProcessor.from_pretrained(out)
    images = list(np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), np.uint8))
    given = processor(
        text=TEXTS, images=images, padding="max_length", max_length=32, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        found = model(**given)
    np.testing.assert_allclose(found.text_embeds, trained.encode_texts(TEXTS), atol=1e-5)
    np.testing.assert_allclose(found.image_embeds, trained.encode_images(images), atol=0.02)


def test_what_transformers_has_no_place_for_is_left_out(joint_model: ClipModel, trained: ClipModel, out: Path):
    assert write_transformers(joint_model, out) is None
    trained.network.visual.attn_pool = torch.nn.Linear(2, 2)
    assert write_transformers(trained, out) is None
    assert list(out.iterdir()) == []
