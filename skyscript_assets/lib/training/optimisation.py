"""What alignment and continual pre-training share: the optimiser, as in open_clip, and what becomes of weights."""

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
    """Stop before a loss or gradient that is no finite number reaches the weights; `where` begins the message.

    Raises:
        DivergedError: one is not finite.
    """
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergedError(
            f"{where}: loss {loss:g}, norm of the gradient {norm:g}; the weights were left as they were before. "
            "Lower the recipe's lr or lengthen its warm-up (models.yaml)"
        )


def unmoved_from(lr: float) -> float:
    """Absolute value from which a float32 weight stays as it is under AdamW at a learning rate.

    A step is at most the learning rate (Adam, arXiv 1412.6980, section 2.1). Numbers in [2^k, 2^(k+1)) are 2^(k-23)
    apart, and half of that is rounded away. The rate goes into weight decay as a factor 1 - lr * decay, which is 1
    itself where lr * decay is below 2^-25, 3e-8: there is no decay then at all.
    """
    return float(2.0 ** (math.ceil(math.log2(lr)) + 24))


def interpolate(
    start: Mapping[str, Tensor], trained: Mapping[str, Tensor], into: Mapping[str, Tensor], share: float
) -> None:
    """Mix weights of the start and trained ones by the latter's share (WiSE-FT, arXiv 2109.01903, section 3)."""
    import torch

    with torch.no_grad():
        for name, tensor in start.items():
            if tensor.is_floating_point():
                into[name].copy_(torch.lerp(tensor.to(trained[name].device), trained[name], share))


def bound_logit_scale(network: Any) -> None:
    """Keep the log scale in [0, ln 100], as open_clip_train does after each step."""
    import torch

    with torch.no_grad():
        network.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)
