"""Zero-shot accuracy from embeddings that others published, for the measurement and the tests of our metrics.

A file holds `images` [n, E], `labels` [n] and one array of class embeddings `text_<prompt>` [classes, E] for each
prompt. Where the figures come out as published, prompts, normalisation and accuracy are computed as in the literature.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from skyscript_assets.lib.benchmarks.metrics import top1_credit
from skyscript_assets.lib.benchmarks.scoring import class_embeddings
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.towers.model import normalised

TEXT_PREFIX = "text_"


class PublishedFigures(NamedTuple):
    """Numbers of images and classes, and top-1 accuracies as shares in 0..1.

    `by_prompt` is of each prompt's class embeddings, `mean_of_prompts` the mean of those, `mean_prompt` of the
    normalised mean of the embeddings (the paper's protocol).
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
    by_prompt = {name: _top1(images, _unit(text), labels) for name, text in texts.items()}
    mean = class_embeddings([text.astype(np.float32) for text in texts.values()])
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
    fits = fits and bool(labels.size) and len(shape) == 2 and shape[1] == images.shape[1]
    if not fits or set(labels.tolist()) - set(range(shape[0])):
        raise CorruptInputError(f"{path}: images, labels and text embeddings do not fit each other")
