"""Image features of a benchmark under a frozen tower, computed once and kept.

Models that share a locked tower share its features: they are stored by the digests of the tower and of the images.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.benchmarks.items import BenchmarkSpec, iter_images
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import replacing
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.towers.images import decode
from skyscript_assets.lib.towers.model import ClipModel

DECODING_THREADS = 2


def benchmark_features(
    folder: Path, spec: BenchmarkSpec, split: str, encoder: ClipModel, cache_dir: Path, progress: Progress = silent
) -> NDArray[np.float32]:
    """Features [images, D] of the images of one split, in the order of the items; kept in `cache_dir`.

    Raises:
        CorruptInputError: an image cannot be decoded, or the tower gives other than finite numbers.
    """
    cached = cache_dir / f"{encoder.tower_digest[:16]}-{spec.images_digest[:16]}-{split}.npy"
    wanted = spec.items.get(split, 0)
    if (features := _load(cached, wanted)) is not None:
        return features
    batches = []
    done = 0
    encoded = iter_images(folder, [split])

    def decoded(batch: list[bytes]) -> list[NDArray[np.uint8]]:
        return [decode(data, spec.title) for data in batch]

    # Batches are decoded while the ones before them are used.
    for images in in_order(decoded, encoded, threads=DECODING_THREADS, ahead=2):
        batches.append(np.asarray(encoder.image_features(images), dtype=np.float32))
        done += len(images)
        progress(done, wanted, "images")
    features = np.concatenate(batches) if batches else np.zeros((0, 1), dtype=np.float32)
    if not np.isfinite(features).all():
        raise CorruptInputError("the image tower gave features that are not finite: its weights are broken")
    cached.parent.mkdir(parents=True, exist_ok=True)
    with replacing(cached) as temporary, temporary.open("wb") as file:
        np.save(file, features, allow_pickle=False)
    return features


def _load(path: Path, rows: int) -> NDArray[np.float32] | None:
    """Kept features, or None where they are absent, broken or of another length."""
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = features.ndim == 2 and len(features) == rows and features.dtype == np.float32
    return features if fits and np.isfinite(features).all() else None
