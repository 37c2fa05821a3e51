"""Embeddings of short texts: by a sentence encoder in a local folder, or by the text tower of a CLIP model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import PretrainedWeightsError, SettingsError
from skyscript_assets.lib.settings.models import Base, OpenClipBase, PackagedWeights
from skyscript_assets.lib.threads import forward_passes
from skyscript_assets.lib.towers.bases import load_base, quiet_transformers
from skyscript_assets.lib.towers.weights import locate_weights, reason

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts, one or more, to (N, dim) float32 rows of length one, in their order."""

NEEDED_FILES: tuple[str, ...] = ("config.json", "tokenizer.json", "model.safetensors")
"""What the encoder's folder must hold."""

MAX_TOKENS = 128
"""Longest text in word pieces; tags are bounded to fewer by `text.MAX_TEXT_LENGTH` in all but odd scripts."""

BATCH = 64
"""Texts in one forward pass."""


def load_encoder(
    name: str, weights: Mapping[str, PackagedWeights], bases: Mapping[str, Base], file: Path | None = None
) -> Encode:
    """The text encoder of that name; a CLIP model's text tower embeds tags as in the paper.

    The name is a key of `weights` (a sentence encoder) or of `bases` (a pretrained open_clip model), `file` what
    `weights_file` found of it.

    Raises:
        PretrainedWeightsError: the weights are missing or cannot be loaded.
        DigestMismatchError: the weights are not the promised ones.
        SettingsError: the base is not one whose text tower is pretrained for texts as they stand.
    """
    if name in weights:
        return SentenceEncoder(locate_weights(weights[name]).parent).encode
    base = bases[name]
    if not isinstance(base, OpenClipBase) or not (base.pretrained or base.url or ":" in base.name):
        raise SettingsError(
            f"plant.yaml: tags.encoder: {name} has no pretrained text tower; name an open_clip base with weights, or "
            "an entry of `weights`"
        )
    return load_base(base, weights, 0, file).encode_texts


class SentenceEncoder:
    """A Hugging Face encoder with mean pooling over its tokens and L2 normalisation.

    This is how all-MiniLM-L6-v2 is meant to be used (its model card: mean pooling with the attention mask, then
    normalisation). Nothing is downloaded, and weights are read from safetensors alone. `dim` is the length of an
    embedding, 384 for MiniLM-L6.
    """

    def __init__(self, folder: Path) -> None:
        """Load the encoder from a folder with `NEEDED_FILES`.

        Raises:
            PretrainedWeightsError: a file is missing or cannot be loaded.
        """
        missing = [name for name in NEEDED_FILES if not (folder / name).is_file()]
        if missing:
            raise PretrainedWeightsError(f"{folder}: the text encoder lacks {', '.join(missing)}")
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer

        try:
            with quiet_transformers():
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise PretrainedWeightsError(f"{folder}: the text encoder cannot be loaded ({reason(error)})") from error
        self.dim = int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed N texts, equal ones once: (N, dim) float32 rows of length one, in their order."""
        # Batches of like length waste no padding; the order of equal texts does not matter, so the answer is the same
        # for any order of the input.
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        batches = (self._tokens(distinct[start : start + BATCH]) for start in range(0, len(distinct), BATCH))
        rows = [found.numpy() for found in forward_passes(self._forward, batches)]
        place = {text: row for row, text in enumerate(distinct)}
        return np.concatenate([np.empty((0, self.dim), np.float32), *rows])[[place[text] for text in texts]]

    def _tokens(self, batch: list[str]) -> Any:
        return self._tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")

    def _forward(self, tokens: Any) -> Tensor:
        from torch.nn.functional import normalize

        states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        return normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)
