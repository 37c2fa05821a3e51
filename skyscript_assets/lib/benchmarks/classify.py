"""Which of some classes each image of a folder looks most like, by a model that was never told of them."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from skyscript_assets.lib.benchmarks.scoring import class_embeddings
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.towers.images import decode, read_file
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.views import UInt8Array

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"})
BATCH = 64


class Classified(NamedTuple):
    """How many images are most like each class, and why others could not be read, by path."""

    counts: Counter[str]
    unread: dict[str, str]


def classify_folder(
    folder: Path,
    encoder: ClipModel,
    classes: Sequence[str],
    prompts: Sequence[str],
    out: Path,
    progress: Progress = silent,
) -> Classified:
    """Write a CSV: path below the folder, class, and the similarity of each class (cosine, -1 to 1).

    The classifier of a class is the normalised mean of its prompts' normalised embeddings, as in `scoring`. Images lie
    in the folder and those in it, `classes` are at least two and none twice, `prompts` have `{c}` where the class goes.

    Raises:
        MissingInputError: there is no image.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise MissingInputError(f"{folder} holds no image: name a folder of {', '.join(sorted(ENDINGS))} files")
    texts = class_embeddings([encoder.encode_texts([one.replace("{c}", name) for name in classes]) for one in prompts])
    found = Classified(Counter(), {})

    def image(path: Path) -> UInt8Array | str:
        try:
            return encoder.view(decode(read_file(path, str(path)), str(path)))
        except (OSError, CorruptInputError) as error:
            return str(error)

    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "class", *classes])
        images = in_order(image, paths, threads=2, ahead=2 * BATCH)
        for start in range(0, len(paths), BATCH):
            batch = [(path, next(images)) for path in paths[start : start + BATCH]]
            read = [(path, pixels) for path, pixels in batch if not isinstance(pixels, str)]
            found.unread.update({str(path): why for path, why in batch if isinstance(why, str)})
            images_of = [pixels for _, pixels in read]
            scores = encoder.encode_images(np.stack(images_of)) @ texts.T if read else np.empty((0, len(classes)))
            for (path, _), likeness in zip(read, scores, strict=True):
                best = classes[int(likeness.argmax())]
                found.counts[best] += 1
                rows.writerow([path.relative_to(folder).as_posix(), best, *(f"{value:.4f}" for value in likeness)])
            progress(start + len(batch), len(paths), "images")
    return found
