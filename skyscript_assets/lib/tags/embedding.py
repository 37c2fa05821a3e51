"""Embeddings of short texts: by a sentence encoder that lies in a local folder, or by the text tower of a CLIP model.

Both encoders have `encode(texts)`, which is all that `lib.tags.features` asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.errors import PretrainedWeightsError, SettingsError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.models import Base, OpenClipBase, PackagedWeights
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.weights import locate_weights

if TYPE_CHECKING:
    from skyscript_assets.lib.towers.model import ClipModel

NEEDED_FILES: tuple[str, ...] = ("config.json", "tokenizer.json", "model.safetensors")
"""What the encoder's folder must hold."""

MAX_TOKENS = 128
"""Longest text in word pieces; tags are bounded to fewer by `text.MAX_TEXT_LENGTH` in all but odd scripts."""


class TextEncoder(Protocol):
    """What embeds texts."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """N texts as (N, dim) float32 rows of length one, in their order."""


def load_encoder(name: str, weights: Mapping[str, PackagedWeights], bases: Mapping[str, Base]) -> TextEncoder:
    """The text encoder of that name.

    Args:
        name: A key of `weights` (a sentence encoder) or of `bases` (a pretrained open_clip model).
        weights: Packaged weights by name.
        bases: Bases by name.

    Raises:
        PretrainedWeightsError: the weights are missing or cannot be loaded.
        DigestMismatchError: the weights are not the promised ones.
        SettingsError: the base is not one whose text tower is pretrained for texts as they stand.
    """
    if name in weights:
        return SentenceEncoder(locate_weights(weights[name]).parent)
    base = bases[name]
    if not isinstance(base, OpenClipBase) or base.pretrained is None:
        raise SettingsError(
            f"plant.yaml: tags.encoder: {name} has no pretrained text tower; name an open_clip base with `pretrained`, "
            "or an entry of `weights`"
        )
    return ClipTextEncoder(load_base(base, weights, seed=0))


class ClipTextEncoder:
    """The text tower of a CLIP model and its projection, as the paper embeds tags."""

    def __init__(self, model: ClipModel) -> None:
        """Take the text tower of a loaded model."""
        self._model = model

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: N texts as (N, dim) float32 rows of length one, in their order."""
        # The tower is asked for the dimension with a text of its own where there is none.
        rows = self._model.encode_texts([*texts] or [""])
        return rows[: len(texts)]


class SentenceEncoder:
    """A Hugging Face encoder with mean pooling over its tokens and L2 normalisation.

    This is how all-MiniLM-L6-v2 is meant to be used (its model card: mean pooling with the attention mask, then
    normalisation). Nothing is downloaded, and weights are read from safetensors alone.

    Attributes:
        dim: Length of an embedding, 384 for MiniLM-L6.
    """

    def __init__(self, folder: Path, batch_size: int = 64, threads: int = 1) -> None:
        """Load the encoder.

        Args:
            folder: Holds `NEEDED_FILES`.
            batch_size: Texts in one forward pass.
            threads: Threads of the forward pass. Tags are so short that on a busy machine two threads wait for each
                other longer than one works.

        Raises:
            PretrainedWeightsError: a file is missing or cannot be loaded.
        """
        missing = [name for name in NEEDED_FILES if not (folder / name).is_file()]
        if missing:
            raise PretrainedWeightsError(f"{folder}: the text encoder lacks {', '.join(missing)}")
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise PretrainedWeightsError(f"{folder}: the text encoder cannot be loaded ({error})") from error
        finally:
            if bars:
                logging.enable_progress_bar()
        self._batch_size = batch_size
        self._threads = threads
        self.dim = int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str], progress: Progress = silent) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: N texts; equal texts are embedded once.
            progress: Told the distinct texts done.

        Returns:
            (N, dim) float32 rows of length one, in the order of `texts`.
        """
        # Batches of like length waste no padding; the order of equal texts does not matter, so the answer is the same
        # for any order of the input.
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        rows = np.empty((len(distinct), self.dim), np.float32)
        for start in range(0, len(distinct), self._batch_size):
            batch = distinct[start : start + self._batch_size]
            rows[start : start + len(batch)] = self._forward(batch)
            progress(start + len(batch), len(distinct), "texts")
        place = {text: row for row, text in enumerate(distinct)}
        return rows[[place[text] for text in texts]] if len(texts) else rows

    def _forward(self, batch: list[str]) -> NDArray[np.float32]:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            tokens = self._tokenizer(batch, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            with torch.inference_mode():
                states = self._model(**tokens).last_hidden_state
                mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
                normal = torch.nn.functional.normalize(pooled, dim=1)
        finally:
            torch.set_num_threads(before)
        return np.asarray(normal.numpy(), np.float32)
