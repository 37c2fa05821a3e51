"""Our metrics against published figures: WHU-RS19 zero-shot from the embeddings that RS-TransCLIP published.

Usage: python benchmarks/whurs19.py [--data ../shared/data/benchmarks]

A file holds `images` [n, E], `labels` [n] and one array of class embeddings `text_<prompt>` [classes, E] for each
prompt. Where the figures come out as published, prompts, normalisation and accuracy are computed as in the literature.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from skyscript_assets.lib.benchmarks.metrics import top1_credit
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SkyScriptError
from skyscript_assets.lib.towers.model import normalised

FOLDER = "whurs19_published_features"
MODELS = ("CLIP_ViT-B-32", "SkyCLIP50_ViT-B-32")
PROMPTS = ("a_satellite_photo_of_a", "a_satellite_image_of_a")
TEXT_PREFIX = "text_"


def main() -> int:
    """Print the table; the exit status is 1 where a file is missing or broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "benchmarks"
    parser.add_argument("--data", type=Path, default=default, help=f"folder that holds {FOLDER}/")
    folder = parser.parse_args().data / FOLDER
    print("WHU-RS19 zero-shot top-1, %, from published half-precision embeddings (1,005 images, 19 classes)\n")
    print(f"{'model':<20}{'photo prompt':>14}{'image prompt':>14}{'mean of two':>14}{'mean prompt':>14}")
    try:
        for model in MODELS:
            figures = evaluate_published_features(folder / f"{model}.safetensors")
            shares = [*(figures.by_prompt[p] for p in PROMPTS), figures.mean_of_prompts, figures.mean_prompt]
            print(f"{model:<20}" + "".join(f"{100 * share:>14.2f}" for share in shares))
    except SkyScriptError as error:
        print(error, file=sys.stderr)
        return 1
    print("\nPublished (RS-TransCLIP, photo prompt): CLIP 76.72, SkyCLIP-50 89.95.")
    return 0


@dataclass(frozen=True)
class PublishedFigures:
    """Top-1 accuracies from a file of published embeddings, as shares in 0..1.

    Attributes:
        images: Number of images.
        classes: Number of classes.
        by_prompt: Accuracy with each prompt's class embeddings, by the prompt's name.
        mean_of_prompts: Mean of those accuracies: the paper's protocol.
        mean_prompt: Accuracy with the normalised mean of the prompts' class embeddings.
    """

    images: int
    classes: int
    by_prompt: dict[str, float]
    mean_of_prompts: float
    mean_prompt: float


def evaluate_published_features(path: Path) -> PublishedFigures:
    """Zero-shot accuracies from published embeddings.

    Args:
        path: A safetensors file.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is no safetensors file, or its arrays do not fit each other.
    """
    try:
        arrays = load_file(path)
    except FileNotFoundError:
        raise MissingInputError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise CorruptInputError(f"{path} is not a whole safetensors file ({error})") from None
    texts = {name.removeprefix(TEXT_PREFIX): arrays[name] for name in sorted(arrays) if name.startswith(TEXT_PREFIX)}
    _check(path, arrays, texts)
    images, labels = _unit(arrays["images"]), arrays["labels"]
    prompts = {name: _unit(text) for name, text in texts.items()}
    by_prompt = {name: _top1(images, text, labels) for name, text in prompts.items()}
    mean = _unit(np.mean(list(prompts.values()), axis=0))
    return PublishedFigures(
        images=len(images),
        classes=len(mean),
        by_prompt=by_prompt,
        mean_of_prompts=float(np.mean(list(by_prompt.values()))),
        mean_prompt=_top1(images, mean, labels),
    )


def _unit(rows: NDArray[np.generic]) -> NDArray[np.float32]:
    return normalised(rows.astype(np.float32))


def _top1(images: NDArray[np.float32], texts: NDArray[np.float32], labels: NDArray[np.integer]) -> float:
    return float(top1_credit(images @ texts.T, labels).mean())


def _check(path: Path, arrays: dict[str, NDArray[np.generic]], texts: dict[str, NDArray[np.generic]]) -> None:
    missing = {"images", "labels"} - set(arrays)
    if missing or not texts:
        raise CorruptInputError(f"{path}: needs images, labels and text_<prompt>; found {', '.join(sorted(arrays))}")
    images, labels = arrays["images"], arrays["labels"]
    shapes = {text.shape for text in texts.values()}
    fits = images.ndim == 2 and labels.shape == images.shape[:1] and labels.dtype.kind in "iu" and len(shapes) == 1
    shape = shapes.pop()
    if not fits or len(shape) != 2 or shape[1] != images.shape[1] or not _in_range(labels, shape[0]):
        raise CorruptInputError(f"{path}: images, labels and text embeddings do not fit each other")


def _in_range(labels: NDArray[np.generic], classes: int) -> bool:
    return bool(len(labels)) and bool(np.isin(labels, np.arange(classes)).all())


if __name__ == "__main__":
    sys.exit(main())
