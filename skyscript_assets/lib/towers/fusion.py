"""A frozen convolutional trunk made fast for a CPU: same numbers, fewer passes over memory.

Inference of small networks on a CPU is bound by memory, so each pass over an activation that can go should go: batch
normalisation is folded into the convolution before it, and TensorFlow's one-sided padding, which torch does as a copy,
becomes part of the kernel. Measured in docs/benchmarks.md.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-3
"""Largest difference from the plain trunk, relative to its largest feature, that still counts as the same numbers."""


def fused(trunk: nn.Module, image_size: int) -> nn.Module:
    """A copy of a timm trunk for inference; the trunk, in evaluation mode and on the CPU, is left as it is.

    The copy is compared with the original on a fixed image of noise of `image_size` pixels a side; where they differ
    (an architecture whose layers do not run in the order they were defined, an input side that is odd at some stage),
    the next plainer variant is taken.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, image_size, image_size, generator=generator)
    with torch.inference_mode():
        expected = trunk(noise)
    for fold_padding in (True, False):
        candidate = _folded(trunk, fold_padding)
        with torch.inference_mode():
            found = candidate(noise)
        if found.shape == expected.shape and (found - expected).abs().max() <= TOLERANCE * expected.abs().max():
            return candidate
    return copy.deepcopy(trunk).to(memory_format=torch.channels_last)


def _folded(trunk: nn.Module, fold_padding: bool) -> nn.Module:
    import torch
    from torch import nn
    from torch.nn.utils import fuse_conv_bn_weights

    trunk = copy.deepcopy(trunk)
    for module in list(trunk.modules()):
        children = list(module.named_children())
        for (conv_name, conv), (norm_name, norm) in itertools.pairwise(children):
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            if norm.running_mean is None or norm.running_var is None:
                continue
            weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
            setattr(module, conv_name, _convolution(conv, weight.detach(), bias.detach(), fold_padding))
            # timm's norms carry the activation that follows them.
            setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
    return trunk.to(memory_format=torch.channels_last)


def _convolution(conv: Any, weight: Tensor, bias: Tensor, fold_padding: bool) -> nn.Module:
    """The convolution with other weights, and with its one-sided padding in the kernel where that is possible.

    With stride 2 and an even input, "SAME" padding adds one more row at the end than at the start (none and one for a
    kernel of 3). A kernel with a row and a column of zeros in front, and equal padding on both sides, reads the same.
    """
    import torch
    from torch import nn

    size = conv.kernel_size[0]
    one_sided = type(conv) is not nn.Conv2d and conv.kernel_size == (size, size) and size % 2 == 1
    if not (fold_padding and one_sided and conv.stride == (2, 2) and conv.dilation == (1, 1)):
        conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
        return conv  # type: ignore[no-any-return]
    wide = nn.Conv2d(
        conv.in_channels, conv.out_channels, size + 1, stride=2, padding=(size - 1) // 2, groups=conv.groups
    )
    padded = torch.zeros_like(wide.weight)
    padded[:, :, 1:, 1:] = weight
    wide.weight, wide.bias = nn.Parameter(padded), nn.Parameter(bias)
    return wide
