"""A model as a folder that open_clip and transformers read as it is, with nothing of this project and no network."""

import re
from pathlib import Path
from typing import Any

from skyscript_assets.lib.files import write_json
from skyscript_assets.lib.settings.models import HUB, LOCAL_DIR, JointBase, OpenClipBase
from skyscript_assets.lib.towers.bases import TEXT_CONTEXT, joined_towers, quiet_transformers
from skyscript_assets.lib.towers.model import ClipModel

AGREEMENT = 1e-4
"""Largest difference between embeddings of length one by open_clip and by transformers: both add up in own orders."""

HERE = "."
"""How a folder's configuration names its own text tower and tokenizer, where it has no name on the hub."""

_RENAMED = (
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.", "vision_model.encoder."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^transformer\.", "text_model.encoder."),
    (r"\.resblocks\.", ".layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.", ".self_attn."),
)
"""Names of tensors in open_clip's CLIP and in transformers' CLIPModel, as its own `convert_clip_original_pytorch_to_hf`
has them; `in_proj` is cut into query, key and value, and projections are turned."""


def write_open_clip(model: ClipModel, base: JointBase | OpenClipBase, hub: str | None, out: Path) -> str:
    """Write `open_clip_config.json`, `open_clip_model.safetensors`, and what a text tower of transformers needs.

    `open_clip.create_model_and_transforms("local-dir:OUT")` gives the very weights, and `hf-hub:` once they are there.
    open_clip finds a text tower of transformers by its name alone: without one on the hub that is the folder itself,
    from which such a model has to be loaded. `hub` is the ORG/NAME that it will have there. Returns the name of the
    architecture.
    """
    import open_clip
    from safetensors.torch import save_file

    if isinstance(base, JointBase):
        vision, text = joined_towers(base, hub or HERE)
        text |= {"hf_model_pretrained": False, "context_length": TEXT_CONTEXT}
        name, config = f"{base.timm_name} and {base.text}", {"embed_dim": base.embed_dim, "vision_cfg": vision}
        config["text_cfg"] = text
    else:
        name = base.name.removeprefix(HUB).removeprefix(LOCAL_DIR).rpartition("/")[2]
        config = open_clip.get_model_config(base.name)
        text = config["text_cfg"]
    if "hf_model_name" in text:
        text["hf_model_name"] = hub or HERE
        model.network.text.config.save_pretrained(out)
    if not isinstance(model.tokenizer, open_clip.SimpleTokenizer):
        text["hf_tokenizer_name"] = hub or HERE
        tokenizer: Any = model.tokenizer
        tokenizer.save_pretrained(out)
    pixels = {
        "mean": model.mean,
        "std": model.std,
        "interpolation": model.resize.filter.name.lower(),
        "resize_mode": "squash" if model.resize.squash else "shortest",
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    save_file(state, out / "open_clip_model.safetensors", metadata={"format": "pt"})
    write_json(out / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": pixels})
    return name


def write_transformers(model: ClipModel, out: Path) -> float | None:
    """Write the same model as transformers' CLIPModel and CLIPProcessor, where it is one.

    That is so of open_clip's plain CLIP with a vision transformer: no other has all its parts in CLIPModel. The folder
    gets `config.json`, `model.safetensors` and the processor's files.

    Returns the largest difference between its embeddings of noise and of two texts and open_clip's; None, and nothing
    is written, where CLIPModel has no place for a part of the model, or the difference is above `AGREEMENT`.
    """
    import open_clip
    import torch
    from open_clip.transformer import VisionTransformer
    from transformers import CLIPModel

    network = model.network
    if type(network) is not open_clip.CLIP or not isinstance(network.visual, VisionTransformer):
        return None
    with quiet_transformers(), torch.random.fork_rng(devices=[]), torch.inference_mode():
        theirs = CLIPModel(_config(network, model.image_size)).eval()
        try:
            theirs.load_state_dict(_renamed(network.state_dict()))
        except RuntimeError:
            return None
        pixels = torch.randn(2, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
        ids = model.tokenizer(["a satellite image of building", "road"])
        found = theirs(input_ids=ids, pixel_values=pixels)
        image, text, _ = network(pixels.to(model.device), ids.to(model.device))
        pairs = ((found.image_embeds, image), (found.text_embeds, text))
        differs = max(float((one - other.cpu()).abs().max()) for one, other in pairs)
        if not differs <= AGREEMENT:
            return None
        theirs.save_pretrained(out)
        _processor(model).save_pretrained(out)
    return differs


def _config(network: Any, image_size: int) -> Any:
    from open_clip.transformer import QuickGELU
    from transformers import CLIPConfig

    def tower(blocks: Any, width: int) -> dict[str, Any]:
        first = blocks[0]
        return {
            "hidden_size": width,
            "num_hidden_layers": len(blocks),
            "num_attention_heads": first.attn.num_heads,
            "intermediate_size": first.mlp.c_fc.out_features,
            "hidden_act": "quick_gelu" if isinstance(first.mlp.gelu, QuickGELU) else "gelu",
            "projection_dim": network.text_projection.shape[1],
        }

    visual, (words, width) = network.visual, network.token_embedding.weight.shape
    channels, patch = visual.conv1.weight.shape[0], visual.conv1.weight.shape[2]
    image = tower(visual.transformer.resblocks, channels) | {"image_size": image_size, "patch_size": patch}
    ends = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    text = tower(network.transformer.resblocks, width) | {"vocab_size": words, **ends}
    text["max_position_embeddings"] = len(network.positional_embedding)
    return CLIPConfig(text_config=text, vision_config=image, projection_dim=text["projection_dim"])


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, tensor in state.items():
        for pattern, own in _RENAMED:
            name = re.sub(pattern, own, name)
        of_block, _, kind = name.partition("in_proj_")
        if kind:
            parts = zip("qkv", tensor.cpu().chunk(3), strict=True)
            found |= {f"{of_block}{letter}_proj.{kind}": part.contiguous() for letter, part in parts}
        else:
            turned = name in ("visual_projection.weight", "text_projection.weight")
            found[name] = (tensor.T if turned else tensor).cpu().contiguous()
    return found


def _processor(model: ClipModel) -> Any:
    """The CLIPProcessor with the model's pixels and the vocabulary of open_clip's tokenizer."""
    from transformers import CLIPImageProcessor, CLIPProcessor, CLIPTokenizer

    own: Any = model.tokenizer
    *words, _, _ = own.encoder
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocabulary, list(own.bpe_ranks), model_max_length=own.context_length)
    side, filter_ = model.image_size, int(model.resize.filter)
    size = {"height": side, "width": side} if model.resize.squash else {"shortest_edge": side}
    pixels = {"image_mean": model.mean, "image_std": model.std, "resample": filter_, "size": size, "crop_size": side}
    return CLIPProcessor(CLIPImageProcessor(**pixels), tokenizer)
