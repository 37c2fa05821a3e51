"""Each pair of image and text by itself, match or none (SigLIP, arXiv 2303.15343, section 3.2).

SigLIP learns a bias, by steps from -10. At the paper's learning rates it would stay where it started, and pretrained
towers would be told for thousands of steps that all is too alike. So it is solved for in each batch: the bias at which
as many pairs are expected to match as do. That is where the loss is least in it, so that the other gradients are
those of a bias that has been learnt (variable projection: Golub and Pereyra 1973).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HALVINGS = 40
"""Of the interval that the bias lies in: to a billionth of its length or the last bit of float32."""


def loss(images: Tensor, texts: Tensor, logit_scale: Tensor, matches: Tensor | None) -> Tensor:
    """See `Loss`; as in SigLIP the sum is divided by the number of images."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, normalize

    logits = logit_scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T
    if matches is None:
        matches = torch.eye(len(images), device=logits.device)
    logits = logits + _bias(logits.detach(), matches.mean())
    return binary_cross_entropy_with_logits(logits, matches, reduction="sum") / len(images)


def _bias(logits: Tensor, share: Tensor) -> Tensor:
    """The number that added to logits makes `share` the mean of their sigmoids."""
    import torch

    # At its ends no sigmoid is less, or more, than the share.
    even = torch.logit(share, eps=1e-6)
    low, high = even - logits.max(), even - logits.min()
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = torch.sigmoid(logits + middle).mean() < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2
