"""Cross-entropy over the batch, of texts for each image and of images for each text: open_clip's ClipLoss.

Where several match, their log-probabilities are averaged (supervised contrastive learning, arXiv 2004.11362, eq. 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def loss(images: Tensor, texts: Tensor, logit_scale: Tensor, matches: Tensor | None) -> Tensor:
    """See `Loss`."""
    from open_clip.loss import ClipLoss
    from torch.nn.functional import cross_entropy, normalize

    images, texts = normalize(images, dim=-1), normalize(texts, dim=-1)
    if matches is None:
        own: Tensor = ClipLoss()(images, texts, logit_scale.exp())
        return own
    logits = logit_scale.exp() * images @ texts.T
    of_images, of_texts = matches / matches.sum(dim=1, keepdim=True), matches.T / matches.sum(dim=0).unsqueeze(1)
    return (cross_entropy(logits, of_images) + cross_entropy(logits.T, of_texts)) / 2
