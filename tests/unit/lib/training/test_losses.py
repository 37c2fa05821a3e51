"""Losses by their definition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from open_clip.loss import ClipLoss
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, normalize

from skyscript_assets.lib.settings.models import LossName
from skyscript_assets.lib.training import losses
from skyscript_assets.lib.training.losses import loss_of


def embeddings(images: int = 6, texts: int = 6, scale: float = 10.0):
    torch.manual_seed(3)
    shapes = (images, 8), (texts, 8)
    return *(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes), torch.tensor(
        math.log(scale), dtype=torch.float64, requires_grad=True
    )


def cosines(images, texts, log_scale):
    return log_scale.exp() * normalize(images, dim=-1) @ normalize(texts, dim=-1).T


def test_settings_name_every_module_of_losses() -> None:
    modules = {path.stem for path in Path(losses.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(get_args(LossName)) == modules
    assert all(callable(loss_of(name)) for name in modules)


def test_softmax_is_open_clips_where_each_image_has_its_own_text() -> None:
    images, texts, scale = embeddings()
    theirs = ClipLoss()(normalize(images, dim=-1), normalize(texts, dim=-1), scale.exp())
    assert torch.equal(loss_of("softmax")(images, texts, scale, None), theirs)
    said = loss_of("softmax")(images, texts, scale, torch.eye(6, dtype=torch.float64))
    assert said.item() == pytest.approx(theirs.item())


def test_softmax_averages_the_log_probabilities_of_all_that_match() -> None:
    images, texts, scale = embeddings(3, 2)
    matches = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    logits = cosines(images, texts, scale)
    of_images = [log_softmax(row, 0)[there > 0].mean() for row, there in zip(logits, matches, strict=True)]
    of_texts = [log_softmax(row, 0)[there > 0].mean() for row, there in zip(logits.T, matches.T, strict=True)]
    wanted = -(sum(of_images) / 3 + sum(of_texts) / 2) / 2
    assert loss_of("softmax")(images, texts, scale, matches).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("scale", [1.0, 14.0, 100.0])
def test_the_sigmoid_loss_has_the_bias_at_which_it_is_least(scale: float) -> None:
    images, texts, log_scale = embeddings(6, 5, scale)
    matches = (torch.arange(6)[:, None] % 5 == torch.arange(5)).double()

    def by_bias(bias: float) -> torch.Tensor:
        logits = cosines(images, texts, log_scale) + bias
        return binary_cross_entropy_with_logits(logits, matches, reduction="sum") / 6

    value = loss_of("sigmoid")(images, texts, log_scale, matches)
    biases = [i / 50 for i in range(-6000, 3000)]
    least = min(biases, key=lambda bias: by_bias(bias).item())
    assert by_bias(least).item() - 1e-3 < value.item() <= by_bias(least).item() + 1e-9
    found = torch.autograd.grad(value, [images, texts, log_scale])
    wanted = torch.autograd.grad(by_bias(least), [images, texts, log_scale])
    assert all(torch.allclose(a, b, atol=0.05) for a, b in zip(found, wanted, strict=True))


def test_the_sigmoid_loss_starts_calibrated_whatever_the_cosines() -> None:
    # Pretrained towers: all cosines near 0.25, factor 100. A bias that starts at -10 would call every pair a match.
    images = torch.ones(64, 8) + 0.01 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    loss = loss_of("sigmoid")(images, images.flip(0), torch.tensor(math.log(100.0)), None)
    assert loss.item() < 1.1 * (math.log(64) + 1)


@pytest.mark.parametrize("name", get_args(LossName))
def test_losses_are_finite_where_all_embeddings_are_equal(name: str) -> None:
    images, scale = torch.ones(4, 8, requires_grad=True), torch.tensor(math.log(100.0))
    loss = loss_of(name)(images, torch.ones(4, 8), scale, None)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(images.grad).all()
    assert torch.isfinite(loss_of(name)(images, torch.ones(1, 8), scale, torch.ones(4, 1)))
