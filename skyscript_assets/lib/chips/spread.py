"""How chips are spread: over the ground, where those of one stratum keep a distance, and over the strata."""

from collections.abc import Iterable

import numpy as np

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray


def crowded(owners: IntArray, ranks: FloatArray, strata: IntArray, boxes: FloatArray, most: float) -> BoolArray:
    """Which chips give way because a chip of another object, of their stratum, shows much the same ground.

    Objects are taken by rank, each with all its chips or with none; those of one object, on several dates, may overlap.
    The outcome depends on the chips alone and not on their order.

    Args:
        owners: Object of each chip, [n].
        ranks: Number of the object; the least is taken first, [n].
        strata: Stratum of each chip, [n].
        boxes: West, south, east, north of each chip, [n, 4], in any unit.
        most: Greatest share of the smaller of two chips that both may show.
    """
    given_up = np.zeros(len(owners), dtype=np.bool_)
    if most >= 1.0 or len(owners) == 0:
        return given_up
    step = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
    first, last = (np.floor(boxes[:, sides] / step).astype(np.int64).tolist() for sides in ([0, 1], [2, 3]))
    corners, kinds = boxes.tolist(), strata.tolist()
    taken: dict[tuple[int, int, int], list[int]] = {}
    order = np.lexsort((owners, ranks))
    for chips in np.split(order, np.flatnonzero(np.diff(owners[order])) + 1):
        cells = {
            chip: [
                (kinds[chip], x, y)
                for x in range(first[chip][0], last[chip][0] + 1)
                for y in range(first[chip][1], last[chip][1] + 1)
            ]
            for chip in chips.tolist()
        }
        if any(
            _shared(corners[chip], corners[other]) > most
            for chip, own in cells.items()
            for other in {other for cell in own for other in taken.get(cell, ())}
        ):
            given_up[chips] = True
            continue
        for chip, own in cells.items():
            for cell in own:
                taken.setdefault(cell, []).append(chip)
    return given_up


def _shared(one: list[float], other: list[float]) -> float:
    """Share of the smaller of two boxes that lies in both."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return max(0.0, width) * max(0.0, height) / min(areas)


def effective_number(counts: Iterable[int]) -> float:
    """How many equally frequent classes are as varied: the exponential of the entropy; 0 of none."""
    n = np.array([count for count in counts if count > 0], dtype=np.float64)
    shares = n / n.sum() if len(n) else n
    return round(float(np.exp(-(shares * np.log(shares)).sum())), 2) if len(n) else 0.0


def gini(counts: Iterable[int]) -> float:
    """How unevenly chips fall upon classes: 0 where all have as many, towards 1 where one has them all."""
    n = np.sort(np.array(list(counts), dtype=np.float64))
    ranks = np.arange(1, len(n) + 1)
    return round(float((2 * ranks - len(n) - 1) @ n / (len(n) * n.sum())), 4) if n.sum() else 0.0


def collisions(counts: Iterable[int], batch: int) -> float:
    """How many others of a random batch carry the same text as a sample, on average."""
    n = np.array(list(counts), dtype=np.float64)
    total = n.sum()
    return round(float((batch - 1) * (n @ (n - 1)) / (total * (total - 1))), 2) if total > 1 else 0.0
