"""Contrastive losses, a module each: a new one is a file with a function `loss`, and its name in `LossName`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """A loss of embeddings of images and texts, which it normalises."""

    def __call__(self, images: Tensor, texts: Tensor, logit_scale: Tensor, matches: Tensor | None) -> Tensor:
        """Its value, to be differentiated.

        Args:
            images: Image embeddings (N, E).
            texts: Text embeddings (M, E).
            logit_scale: The learnt log of the factor of the cosines.
            matches: 1 where text j matches image i, else 0, (N, M), each row and column with one or more; None where M
                is N: text i alone matches image i.
        """


def loss_of(name: str) -> Loss:
    """The loss of a recipe by its name."""
    return cast("Loss", import_module(f"{__name__}.{name}").loss)
