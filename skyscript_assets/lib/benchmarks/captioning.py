"""A captioner that only retrieves, the baseline of captioning: each image gets the best caption of another image.

CIDEr-D sets it against the image's own captions. In CLIPScore a model judges its own choice: it compares no models.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from skyscript_assets.lib.benchmarks.metrics import SIMILARITIES_AT_ONCE, Floats

LONGEST, SIGMA, CLIP_SCORE_WEIGHT = 4, 6.0, 2.5
"""Words of the longest n-grams, how soon another length costs (Vedantam et al. 2015, section 5), and the factor of the
cosine in CLIPScore (Hessel et al. 2021, section 3)."""

Grams = Counter[tuple[str, ...]]


def captioner_figures(images: Floats, texts: Floats, captions: Sequence[str], matches: csr_array) -> dict[str, float]:
    """CIDEr-D and CLIPScore of captions that are retrieved; nothing of a single image, which has no other.

    `images` and `texts` are embeddings of length one, [images, E] and [captions, E]; `matches`, bool, [images,
    captions], tells which captions are true of which image. What all captions begin with is no part of what is scored.
    """
    if len(images) < 2:
        return {}
    said = retrieved(images, texts, matches)
    words = [caption.split() for caption in captions]
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False)))
    told = [" ".join(of_caption[shared:]) for of_caption in words]
    own = [[told[i] for i in rows.indices] for rows in map(csr_array, matches)]
    scores = CLIP_SCORE_WEIGHT * np.maximum((images * texts[said]).sum(axis=1), 0)
    return {"cider_d": float(np.mean(cider_d([told[i] for i in said], own))), "clip_score": float(scores.mean())}


def retrieved(images: Floats, texts: Floats, matches: csr_array) -> NDArray[np.integer]:
    """The caption of another image that is most like each image, [images]; of equal ones the first.

    A caption that is true of several images is one of another image for each of them.
    """
    found, step = [], max(1, SIMILARITIES_AT_ONCE // len(texts))
    for start in range(0, len(images), step):
        own = matches[start : start + step].toarray() & (matches.sum(axis=0) < 2)
        found.append(np.where(own, -np.inf, images[start : start + step] @ texts.T).argmax(axis=1))
    return np.concatenate(found)


def cider_d(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D, 0 to 10, of a caption for each image against its true ones, [images] (Vedantam et al. 2015, section 5).

    N-grams weigh by the images in whose references they occur. As in the authors' code nothing is stemmed; words are
    runs of letters and digits, where theirs are Penn Treebank's.
    """
    documents = [[_grams(one) for one in of_image] for of_image in references]
    known = Counter(gram for of_image in documents for gram in set().union(*itertools.chain(*of_image)))
    weights = {gram: math.log(len(documents) / images) for gram, images in known.items()}

    def length(grams: Grams) -> float:
        return math.hypot(*(n * weights.get(gram, math.log(len(documents))) for gram, n in grams.items()))

    scores = []
    for caption, of_image in zip(map(_grams, said), documents, strict=True):
        total = 0.0
        for reference in of_image:
            alike = 0.0
            for mine, theirs in zip(caption, reference, strict=True):
                dot = sum(n * theirs[gram] * weights[gram] ** 2 for gram, n in (mine & theirs).items())
                alike += dot / (length(mine) * length(theirs)) if dot else 0.0
            apart = caption[0].total() - reference[0].total()
            total += alike * math.exp(-(apart**2) / (2 * SIGMA**2))
        scores.append(10 * total / LONGEST / len(of_image))
    return scores


def _grams(text: str) -> list[Grams]:
    """How often a text has each n-gram, by n from 1."""
    words = re.findall(r"\w+", text.lower())
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, LONGEST + 1)]
