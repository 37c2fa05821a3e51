"""A CLIP model as the plant uses it: an open_clip network, its tokenizer and its pixels.

Features before the projection and the projection itself are apart, because locked towers are computed once and shared
by all models that differ in their projections. How a base becomes a model belongs to `bases`.

Images are uint8 RGB; features and embeddings are float32, one row an image or text.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.threads import forward_passes
from skyscript_assets.lib.towers.views import CLIP_RESIZE, Resize, UInt8Array, plain_view

if TYPE_CHECKING:
    from torch import Tensor, nn

Float32Array = NDArray[np.float32]
Batch = TypeVar("Batch")

PREPROCESSING = "as open_clip: shortest side or squashed, then the middle, version 2"
"""Part of a tower's digest: a change here makes stored features stale."""

CPU_BATCH = 8
"""Images in a forward pass on a CPU: activations stay in the cache; 32 are slower (docs/benchmarks.md)."""

GPU_BATCH = 256
"""Images or texts in a forward pass on a GPU."""

TEXT_BATCH = 32
"""Texts in a forward pass on a CPU."""

TOKENISED = 8192
"""Texts whose tokens are in memory at a time."""


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
        # open_clip's own text tower asks whether it has a linear map and multiplies by what is none.
        linear = isinstance(head, nn.Module) and self.attribute != "text_projection"
        setattr(self.owner, self.attribute, nn.Identity() if linear else None)
        try:
            yield
        finally:
            setattr(self.owner, self.attribute, head)


class ClipModel:
    """An open_clip network with its tokenizer, preprocessing and the projections of its towers.

    Args:
        network: An open_clip model (`CLIP` or `CustomTextCLIP`); it is put into evaluation mode.
        tokenizer: Texts to token ids (N, context).
        image_size: Side of the input image, pixels.
        mean: Channel means, of values in 0-1.
        std: Channel deviations, of values in 0-1.
        seed: Seed of what was drawn at random in the network; recorded for checkpoints.
        resize: How the tower wants images to be made squares.
    """

    def __init__(
        self,
        network: Any,
        tokenizer: Callable[[list[str]], Tensor],
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        resize: Resize = CLIP_RESIZE,
    ) -> None:
        import torch

        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).eval()
        self.image_size = image_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.seed, self.resize = seed, resize
        self.tokenizer = tokenizer
        visual, text = network.visual, getattr(network, "text", network)
        self.image_head = _head(network, visual, "visual.", "head" if hasattr(visual, "trunk") else "proj")
        prefix = "" if text is network else "text."
        self.text_head = _head(network, text, prefix, "proj" if hasattr(text, "proj") else "text_projection")
        self._pad_id: int | None = getattr(getattr(network, "text", None), "config", None) and int(
            network.text.config.pad_token_id
        )
        self._pool = _causal_pool(self.text_head.owner)

    @property
    def tower_digest(self) -> str:
        """SHA-256 of the image tower before its projection, and of the preprocessing: equal digests, equal features."""
        return self._digests[0]

    @property
    def digest(self) -> str:
        """SHA-256 of all weights and of the preprocessing."""
        return self._digests[1]

    @property
    def logit_scale(self) -> float:
        """The factor of the cosines that it was trained with (CLIP: at most 100)."""
        return float(self.network.logit_scale.detach().exp())

    @functools.cached_property
    def _digests(self) -> tuple[str, str]:
        recipe = json.dumps([PREPROCESSING, self.image_size, self.mean, self.std, *self.resize]).encode()
        tower, whole = hashlib.sha256(recipe), hashlib.sha256(recipe)
        for name, tensor in sorted(self.network.state_dict().items()):
            entry = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            entry.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
            whole.update(entry.digest())
            if name.startswith("visual.") and name not in self.image_head.names:
                tower.update(entry.digest())
        return tower.hexdigest(), whole.hexdigest()

    def weights_changed(self) -> None:
        """To be called after a change to the network's weights: drops what was derived from them."""
        for derived in ("_trunk", "_digests"):
            vars(self).pop(derived, None)

    def preprocess(self, images: Sequence[UInt8Array] | UInt8Array) -> UInt8Array:
        """RGB images (height, width, 3) of any size as a batch of the tower's squares (`view`), uint8 (N, S, S, 3)."""
        if isinstance(images, np.ndarray) and images.shape[1:3] == (self.image_size, self.image_size):
            return images
        return np.stack([self.view(image) for image in images])

    def view(self, image: UInt8Array, focus: Sequence[int] | None = None) -> UInt8Array:
        """An image (height, width, 3) as the tower's square, by `plain_view`."""
        return plain_view(image, focus, self.image_size, self.resize)

    def pixels(self, batch: UInt8Array | Tensor) -> Tensor:
        """A uint8 batch (N, S, S, 3) as the network's normalised input (N, 3, S, S) on its device."""
        import torch

        # A permuted NHWC array is already channels_last; nothing is copied before the cast.
        raw = torch.as_tensor(batch).to(self.device).permute(0, 3, 1, 2)
        mean, scale = self._normalisation
        return raw.to(torch.float32).sub_(mean).mul_(scale)

    @functools.cached_property
    def _normalisation(self) -> tuple[Tensor, Tensor]:
        """Means, and what differences are multiplied by, on the device: to send them there would wait for it."""
        import torch

        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1) * 255.0
        return mean, 1.0 / (torch.tensor(self.std, device=self.device).view(1, 3, 1, 1) * 255.0)

    @property
    def batch_size(self) -> int:
        """Images in a forward pass."""
        return CPU_BATCH if self.device.type == "cpu" else GPU_BATCH

    def image_features(self, images: Sequence[UInt8Array] | UInt8Array) -> Float32Array:
        """Features (N, D) of the image tower before its projection.

        Images are RGB arrays (height, width, 3) of any size, or one batch (N, height, width, 3).
        """
        trunk, size = self._trunk, self.batch_size
        batches = (images[start : start + size] for start in range(0, len(images), size))
        with self.image_head.taken_off():
            return self._rows(lambda batch: trunk(self.pixels(self.preprocess(batch))), batches)

    def _rows(self, network: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Float32Array:
        """What a network makes of each batch, one below the other."""
        import torch

        with torch.inference_mode():
            passes = forward_passes(network, batches) if self.device.type == "cpu" else map(network, batches)
            found = [rows.float().cpu().numpy() for rows in passes]
        return np.concatenate(found) if found else np.empty((0, 0), np.float32)

    @functools.cached_property
    def _trunk(self) -> Callable[[Tensor], Tensor]:
        trunk = getattr(self.network.visual, "trunk", None)
        if trunk is not None and self.device.type == "cpu":
            from skyscript_assets.lib.towers.fusion import fused

            return fused(trunk, self.image_size)
        whole: Callable[[Tensor], Tensor] = self.network.encode_image
        return whole

    def project_image(self, features: Float32Array) -> Float32Array:
        """Image features (N, D) in the shared space, (N, E), not normalised."""
        return self._project(self.image_head, features)

    def encode_images(self, images: Sequence[UInt8Array] | UInt8Array) -> Float32Array:
        """Images (as `image_features` takes them) as L2-normalised embeddings (N, E)."""
        return normalised(self.project_image(self.image_features(images)))

    def fitted(self, ids: Tensor) -> Tensor:
        """Token ids (N, length): the Hugging Face tower's padding is cut to the longest text, which changes nothing."""
        return ids if self._pad_id is None else ids[:, : int((ids != self._pad_id).sum(dim=1).max())]

    def text_features(self, texts: Sequence[str]) -> Float32Array:
        """Features (N, D) of the text tower before its projection, in the order of `texts`.

        Equal texts are encoded once, in batches of like length, so the answer does not depend on the order of texts.
        """
        row: dict[str, int] = {}
        with self.text_head.taken_off():
            features = self._rows(self._text_tower, self._batches(texts, row))
        return features[[row[text] for text in texts]] if row else features

    def _batches(self, texts: Sequence[str], row: dict[str, int]) -> Iterator[Tensor]:
        """Token ids of distinct texts, and in `row` the place of each text among them."""
        import torch

        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        size = TEXT_BATCH if self.device.type == "cpu" else GPU_BATCH
        for start in range(0, len(distinct), TOKENISED):
            some = distinct[start : start + TOKENISED]
            ids = self.tokenizer(some)
            used = self._used(ids)
            for rows in torch.split(torch.argsort(used, stable=True), size):
                row |= {some[number]: len(row) + i for i, number in enumerate(rows.tolist())}
                yield ids[rows, : int(used[rows].max())].to(self.device)

    def _used(self, ids: Tensor) -> Tensor:
        """How many of each text's ids, (N, context), can change what the tower makes of it: (N,).

        A Hugging Face tower masks its padding, and a causal one that answers at the end of a text (OpenAI's CLIP and
        its heirs) cannot see what follows. One that looks both ways (SigLIP) reads its padding too.
        """
        import torch

        if self._pad_id is not None:
            return (ids != self._pad_id).sum(dim=1)
        if self._pool is None:
            return torch.full((len(ids),), ids.shape[1])
        name, end = self._pool
        return (ids if name == "argmax" else torch.eq(ids, end).int()).argmax(dim=1) + 1

    def _text_tower(self, ids: Tensor) -> Tensor:
        """The text tower's answer; open_clip's own code of causal towers takes nothing shorter than their context."""
        if self._pool is None:
            whole: Tensor = self.network.encode_text(ids)
            return whole
        from open_clip.transformer import text_global_pool

        tower: Any = self.text_head.owner
        length = ids.shape[1]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        pooled: Tensor = text_global_pool(x, ids, *self._pool)
        return pooled

    def encode_texts(self, texts: Sequence[str]) -> Float32Array:
        """Texts as L2-normalised embeddings (N, E)."""
        return normalised(self._project(self.text_head, self.text_features(texts)))

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


def _head(network: Any, owner: Any, prefix: str, attribute: str) -> Head:
    name = f"{prefix}{attribute}"
    names = (each for each, _ in network.named_parameters() if each == name or each.startswith(f"{name}."))
    return Head(owner, attribute, tuple(names))


def _causal_pool(tower: Any) -> tuple[str, Any] | None:
    """Where a text tower that sees only what came before answers, and the id of a text's end; None of others."""
    name = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    causal = getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
    end = getattr(tower, "text_eos_id", getattr(tower, "eos_id", None))
    return (name, end) if causal and name in ("argmax", "eos") else None
