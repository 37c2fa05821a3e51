"""How far two people who labelled the same tags agree: Cohen's kappa, shares, and where they do not.

The scale is ordered: not visible, then the steps of `GSD_STEPS_M` from fine to coarse. What cannot be seen at 0.1 m
stands before what can be seen at 0.1 m only.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.tags.labels import Label, Tag

GRADES: tuple[str, ...] = ("not visible", *(f"{step:g}" for step in GSD_STEPS_M))
"""The ordered scale on which two passes are compared."""


def grade(label: Label) -> int:
    """Place of a label on `GRADES`."""
    return 0 if label.coarsest_gsd_m is None else 1 + GSD_STEPS_M.index(label.coarsest_gsd_m)


def label_agreement(first: Mapping[Tag, Label], second: Mapping[Tag, Label]) -> dict[str, Any]:
    """Figures of two passes over the tags that both labelled, rounded, for the report.

    Counts, kappas (None where undefined), shares, and every disagreement, the widest first.
    """
    both = [tag for tag in first if tag in second]
    a = np.array([grade(first[tag]) for tag in both], np.int64)
    b = np.array([grade(second[tag]) for tag in both], np.int64)
    off = np.abs(a - b)
    seen = (a > 0) & (b > 0)
    apart = sorted((-steps, tag) for tag, steps in zip(both, off.tolist(), strict=True) if steps)
    return {
        "tags": len(both),
        "only_first": len(first) - len(both),
        "only_second": len(second) - len(both),
        "visibility": {"agree": _share((a > 0) == (b > 0)), "kappa": _kappa(a > 0, b > 0)},
        "steps": {
            "exact": _share(off == 0),
            "within_one_step": _share(off <= 1),
            "quadratic_kappa": _kappa(a, b, "quadratic"),
        },
        "steps_where_both_see": {
            "tags": int(seen.sum()),
            "exact": _share(off[seen] == 0),
            "within_one_step": _share(off[seen] <= 1),
        },
        "disagreements": [
            {"tag": "=".join(tag), "first": GRADES[grade(first[tag])], "second": GRADES[grade(second[tag])]}
            for _, tag in apart
        ],
    }


def _share(hits: BoolArray) -> float | None:
    return round(float(hits.mean()), 4) if len(hits) else None


def _kappa(first: NDArray[Any], second: NDArray[Any], weights: str | None = None) -> float | None:
    """Agreement beyond chance (Cohen 1960; weighted: Cohen 1968); None where there is one answer or none."""
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(first, second)) < 2:
        return None
    return round(float(cohen_kappa_score(first, second, labels=range(len(GRADES)), weights=weights)), 4)
