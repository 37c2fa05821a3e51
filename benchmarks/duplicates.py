"""How near-duplicate images are told from images of other places, and how long that takes among millions.

    python benchmarks/duplicates.py                         # the tables of hashes and of likeness, on real images
    python benchmarks/duplicates.py --rows 1000000 5000000  # time, memory and recall on made-up hashes

Images are those of ../shared/data. Each is changed in several ways and compared with what it was; then all are compared
with each other. Those that the plant would reject as blank are left out. With `--tower` the cosine of the demo's tower
is told too. Of made-up hashes one in a hundred is that of an earlier one with up to six bits turned over, and 100,000
are equal. Each size runs in its own process.
"""

import argparse
import io
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
from measuring import PROFILE, SHARED_DATA, options_of, parser_of, print_head, print_row, run_apart
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from skyscript_assets.lib.chips.quality import measure
from skyscript_assets.lib.pairs.leaks import LIKENESS, RADIUS, find_leaks
from skyscript_assets.lib.pairs.thumbnails import THUMBNAIL_BYTES, likeness, textures, thumbnail
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import normalised

Change = Callable[[Image.Image], Image.Image]

SETS = ("benchmarks/eurosat/images", "benchmarks/ucmerced/images")
RASTERS = {
    "imagery/landsat7_olinda_br.tif": 100,
    "imagery/naip_nd_m_4709963_se_20100629.tif": 100,
    "imagery/neon_sjer_2018.tif": 100,
    "imagery/sentinel2_tci_T34RFV_100m_cog.tif": 100,
    "imagery/spacenet2_vegas_img0.tif": 128,
    "imagery/swissortho_zurich_1091-322.tif": 128,
    "pairs/kampala_oam/oam_kampala_z21.tif": 200,
    "pairs/bahamas_300m/landsat_bahamas_RGB.byte_300m.tif": 100,
    "pairs/sf_landsat7/landsat7_sf_bay_30m_3857.tif": 100,
}
"""Rasters, and the side in pixels of the squares that they are cut into."""

SAME_GROUND = {
    "the same photograph, 7.5 and 15 cm": ("pairs/kampala_oam/oam_kampala_z21.tif", 200, "z20.tif", 100),
    "the same photograph, 7.5 and 30 cm": ("pairs/kampala_oam/oam_kampala_z21.tif", 256, "z19.tif", 64),
    "the same ground in 2010 and 2020": ("imagery/naip_nd_m_4709963_se_20100629.tif", 100, "20200831.tif", 100),
}
RADII = (0, 2, 4, 6, 8, 10, 12)
MARGIN = 0.06
LEAST_CONTRAST = ChipSettings().min_contrast
EQUAL = 100_000


def inner(image: Image.Image, shift: float = 0.0) -> Image.Image:
    """The image less a margin, moved by a share of its sides."""
    width, height = image.size
    left, top = round(width * (MARGIN + shift)), round(height * (MARGIN + shift))
    return image.crop((left, top, left + round(width * (1 - 2 * MARGIN)), top + round(height * (1 - 2 * MARGIN))))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image after JPEG."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data).convert("RGB")


def scaled(image: Image.Image, factor: float, how: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """The image, resized."""
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def bright(image: Image.Image, factor: float) -> Image.Image:
    """The image, brighter or darker."""
    return ImageEnhance.Brightness(image).enhance(factor)


CHANGES: Mapping[str, Change] = {
    "JPEG, quality 75": lambda image: jpeg(inner(image), 75),
    "JPEG, quality 40": lambda image: jpeg(inner(image), 40),
    "half the size": lambda image: scaled(inner(image), 0.5, Image.Resampling.LANCZOS),
    "1.5 times the size": lambda image: scaled(inner(image), 1.5, Image.Resampling.BILINEAR),
    "0.7 times the size, JPEG 75": lambda image: jpeg(scaled(inner(image), 0.7), 75),
    "brighter by a quarter": lambda image: bright(inner(image), 1.25),
    "darker by 0.3": lambda image: bright(inner(image), 0.7),
    "more contrast by 0.3": lambda image: ImageEnhance.Contrast(inner(image)).enhance(1.3),
    "darker, 0.8 times the size, JPEG 60": lambda image: jpeg(scaled(bright(inner(image), 0.8), 0.8), 60),
    "shifted by 1 %": lambda image: inner(image, 0.01),
    "shifted by 2 %": lambda image: inner(image, 0.02),
    "shifted by 5 %": lambda image: inner(image, 0.05),
}


def squares(path: Path, side: int) -> Iterator[Image.Image]:
    """A raster's first three bands in squares that are wholly valid."""
    with rasterio.open(path) as dataset:
        pixels, mask = np.moveaxis(dataset.read([1, 2, 3]), 0, 2), dataset.dataset_mask()
    for y in range(0, pixels.shape[0] - side + 1, side):
        for x in range(0, pixels.shape[1] - side + 1, side):
            if mask[y : y + side, x : x + side].all():
                yield Image.fromarray(np.ascontiguousarray(pixels[y : y + side, x : x + side]))


def known(images: list[Image.Image]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Hashes and thumbnails of images."""
    pixels = [np.asarray(image) for image in images]
    hashes = [int(measure(one, None, (0, 0, 0, 0)).phash, 16) for one in pixels]
    return np.array(hashes, np.uint64), np.array([thumbnail(one) for one in pixels]).reshape(-1, THUMBNAIL_BYTES)


def likenesses(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Likeness of thumbnails, row by row."""
    rows = np.arange(len(first))
    return likeness(textures(np.concatenate([first, second])), np.column_stack([rows, rows + len(first)]))


def shares(bits: NDArray[np.uint8], like: NDArray[np.float64]) -> list[str]:
    """Cells: the share within each radius; likeness of those within ours; the share that counts as duplicates."""
    near = bits <= RADIUS
    low, middle, high = np.percentile(like[near], [5, 50, 100]) if near.any() else [np.nan] * 3
    within = [f"{(bits <= radius).mean():.2f}" for radius in RADII]
    return [*within, f"{low:.2f}, {middle:.2f}, {high:.2f}", f"{(near & (like >= LIKENESS)).mean():.2f}"]


def print_real(of_each: int, most: int, tower: bool) -> None:
    """Print what happens to hashes and thumbnails of real images that are changed, and of different ones."""
    found = [[Image.open(path).convert("RGB") for path in sorted((SHARED_DATA / name).rglob("*.jpg"))] for name in SETS]
    found += [list(squares(SHARED_DATA / name, side)) for name, side in RASTERS.items()]
    rng = np.random.default_rng(0)
    sets = [[images[i] for i in rng.permutation(len(images))[:most]] for images in found]
    sets = [
        [image for image in images if np.asarray(inner(image).convert("L")).std() >= LEAST_CONTRAST] for images in sets
    ]
    some = [image for images in sets for image in images[:of_each]]
    print(f"{len(some)} images, changed:\n")
    model = load_base(PROFILE.bases["lite0-minilm"], PROFILE.weights, seed=0) if tower else None

    def features(images: list[Image.Image]) -> NDArray[np.float32]:
        assert model is not None
        return normalised(model.image_features([np.asarray(image) for image in images]))

    print_head(
        "",
        *(f"{radius} bits" for radius in RADII),
        f"likeness within {RADIUS}: 5 %, 50 %, most",
        "found",
        "cosine: 5 %, 50 %",
    )
    hashes, thumbnails = known([inner(image) for image in some])
    own = features([inner(image) for image in some]) if tower else None
    for name, change in CHANGES.items():
        changed = [change(image) for image in some]
        others, seen = known(changed)
        cosine = "-"
        if own is not None:
            cosine = ", ".join(f"{one:.2f}" for one in np.percentile((own * features(changed)).sum(axis=1), [5, 50]))
        print_row(name, *shares(np.bitwise_count(hashes ^ others), likenesses(thumbnails, seen)), cosine)
    for name, (path, side, ending, other_side) in SAME_GROUND.items():
        other = next((SHARED_DATA / path).parent.glob(f"*{ending}"))
        both = list(zip(squares(SHARED_DATA / path, side), squares(other, other_side), strict=False))
        (hashes, thumbnails), (others, seen) = (known(list(images)) for images in zip(*both, strict=True))
        print_row(name, *shares(np.bitwise_count(hashes ^ others), likenesses(thumbnails, seen)), "-")
    print("\nDifferent images of one set, pairs:\n")
    print_head("", *(f"{radius} bits" for radius in RADII), "likeness within 12: 50 %, most", "found")
    counts, like, found_pairs, pairs = np.zeros(len(RADII), int), [], 0, 0
    for images in sets:
        hashes, thumbnails = known([inner(image) for image in images])
        bits = np.bitwise_count(hashes[:, np.newaxis] ^ hashes)
        first, second = np.nonzero(np.triu(bits <= RADII[-1], 1))
        near, alike = bits[first, second], likenesses(thumbnails[first], thumbnails[second])
        counts += [int((near <= radius).sum()) for radius in RADII]
        like.append(alike)
        found_pairs += int(((near <= RADIUS) & (alike >= LIKENESS)).sum())
        pairs += len(images) * (len(images) - 1) // 2
    all_like = np.concatenate(like)
    told = f"{np.median(all_like):.2f}, {np.sort(all_like)[-5:].round(2).tolist()}" if len(all_like) else "-"
    print_row(f"{pairs:,}", *counts, told, found_pairs)


def made_up(n: int) -> tuple[pa.Table, NDArray[np.int64]]:
    """A table of chips, and for each row the row whose image it has."""
    rng = np.random.default_rng(n)
    hashes, image = rng.integers(1, 2**64, n, dtype=np.uint64), np.arange(n)
    again = np.sort(rng.choice(np.arange(n // 2, n), n // 100, replace=False))
    image[again] = rng.choice(n // 2, len(again), replace=False)
    hashes[again] = hashes[image[again]]
    for turned in range(RADIUS):
        some = rng.random(len(again)) < 0.5
        hashes[again[some]] ^= np.uint64(1) << (np.uint64(11 * turned) + rng.integers(0, 9, some.sum(), np.uint64))
    equal = np.setdiff1d(rng.choice(n, min(EQUAL, n // 10), replace=False), np.append(again, image[again]))
    hashes[equal] = hashes[equal[0]]
    chips = {
        "chip_id": pa.array([f"a{row:08d}_S_20200601" for row in range(n)]),
        "split": pa.array(["train"]).take(pa.array(np.zeros(n, int))),
        "sha256": pa.array([f"{row:064x}" for row in range(n)]),
        "phash": pa.array([f"{one:016x}" for one in hashes.tolist()]),
        "object_id": pa.array([f"a{row}" for row in range(n)]),
    }
    return pa.table(chips), image


def shown(rows: NDArray[np.int64], image: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Noise that is the same for rows of one image."""
    found = np.empty((len(rows), THUMBNAIL_BYTES), np.uint8)
    for start in range(0, len(rows), 4096):
        codes = image[rows[start : start + 4096], np.newaxis] * 1_000_003 + np.arange(THUMBNAIL_BYTES)
        mixed = codes.astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(0x9E3779B97F4A7C15)
        found[start : start + 4096] = mixed >> np.uint64(56)
    return found


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="rows of made-up tables")
    parser.add_argument("--of-each", type=int, default=100, help="images of each set that are changed")
    parser.add_argument("--most", type=int, default=3000, help="images of each set that are compared with each other")
    parser.add_argument("--tower", action="store_true", help="tell cosines of the demo's image tower too")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    if "--only" in sys.argv:
        chips, image = made_up(parser.parse_args().only)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        started, cpu = time.perf_counter(), time.process_time()
        leaks = find_leaks(chips, thumbnails=partial(shown, image=image))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        gone, again = leaks.reasons.is_valid().to_numpy(zero_copy_only=False), image != np.arange(len(image))
        recall, wrong = (gone & again).sum() / again.sum(), int((gone & ~again).sum())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        cells = (f"{seconds:.1f}", f"{cpu:.1f}", f"{before:.2f}", f"{peak:.2f}", f"{recall:.4f}", wrong)
        print_row(f"{len(image):,}", *cells, f"{leaks.counts['crowded']:,}")
        return
    options = options_of(parser)
    if not options.rows:
        print_real(options.of_each, options.most, options.tower)
        return
    print_head(
        "rows", "seconds", "CPU s", "memory before, GB", "peak memory, GB", "recall", "wrongly dropped", "crowded"
    )
    for rows in options.rows:
        print(run_apart([sys.executable, __file__, "--only", str(rows)]).printed.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
