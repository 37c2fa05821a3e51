"""What alignment and continual pre-training share: loss, optimiser, bound of the logit scale, all as in open_clip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from skyscript_assets.lib.errors import DivergedError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAX_LOGIT_SCALE = math.log(100)
"""Bound of the learnt log scale (CLIP, section 2.5)."""

BETAS = (0.9, 0.98)
EPS = 1e-6
"""AdamW's constants in the paper, used where a recipe does not name its own."""


def contrastive_loss(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """open_clip's ClipLoss of embeddings (N, E), which are normalised here; row i of one belongs to row i of the other.

    Args:
        images: Image embeddings.
        texts: Text embeddings.
        logit_scale: The learnt log of the factor of the cosines.
    """
    from open_clip.loss import ClipLoss
    from torch.nn.functional import normalize

    loss: Tensor = ClipLoss()(normalize(images, dim=-1), normalize(texts, dim=-1), logit_scale.exp())
    return loss


def matching_loss(images: Tensor, texts: Tensor, matches: Tensor, logit_scale: Tensor, logit_bias: Tensor) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, arXiv 2303.15343, section 3.2) where a text may be true of several images.

    SigLIP counts row i of one as the only match of row i of the other; here `matches` says which are, so that no true
    pair is taken for a negative. As there, the sum is divided by the number of images.

    Args:
        images: Image embeddings (N, E).
        texts: Text embeddings (M, E).
        matches: 1 where a text is true of an image, else 0, (N, M).
        logit_scale: The learnt log of the factor of the cosines.
        logit_bias: The learnt bias, which starts low because few pairs match.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits, normalize

    logits = logit_scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T + logit_bias
    return binary_cross_entropy_with_logits(logits, matches, reduction="sum") / len(images)


def adamw(
    parameters: Mapping[str, nn.Parameter],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = BETAS,
    eps: float = EPS,
    *,
    fused: bool = False,
) -> torch.optim.AdamW:
    """AdamW without decay on gains, biases and the logit scale, by open_clip_train's rule (main.py, `exclude`).

    `fused` takes one kernel for all, whose last bits are others.
    """
    from torch.optim import AdamW

    def undecayed(name: str, parameter: Any) -> bool:
        return parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))

    plain = [p for name, p in parameters.items() if undecayed(name, p)]
    decayed = [p for name, p in parameters.items() if not undecayed(name, p)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": weight_decay}]
    return AdamW(groups, lr=lr, betas=betas, eps=eps, fused=fused or None)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients together: no finite number where one of them is none."""
    import torch

    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def refuse_divergence(loss: float, norm: float, where: str) -> None:
    """Stop before a loss or gradient that is no finite number reaches the weights.

    Args:
        loss: Of the step.
        norm: Of its gradient.
        where: Model, step, learning rate and samples, for the message.

    Raises:
        DivergedError: one is not finite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"{where}: loss {loss:g}, norm of the gradient {norm:g}; the weights were left as they were before. "
            "Lower the recipe's lr or lengthen its warm-up (models.yaml)"
        )


def bound_logit_scale(network: Any) -> None:
    """Keep the log scale in [0, ln 100], as open_clip_train does after each step."""
    import torch

    with torch.no_grad():
        network.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)
