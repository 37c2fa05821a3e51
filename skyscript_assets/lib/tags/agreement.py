"""How far two people who labelled the same tags agree: Cohen's kappa, shares, and where they do not.

The scale is ordered: not visible, then the steps of `GSD_STEPS_M` from fine to coarse. What cannot be seen at 0.1 m
stands before what can be seen at 0.1 m only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.tags.labels import Label, Tag

GRADES: tuple[str, ...] = ("not visible", *(f"{step:g}" for step in GSD_STEPS_M))
"""The ordered scale on which two passes are compared."""

DISAGREEMENT_SCHEMA = pa.schema([(name, pa.string()) for name in ("tag", "first", "second")])
"""A tag on which two passes differ, and what each said."""


def grade(label: Label) -> int:
    """Place of a label on `GRADES`."""
    return 0 if label.coarsest_gsd_m is None else 1 + GSD_STEPS_M.index(label.coarsest_gsd_m)


def cohens_kappa(
    first: NDArray[np.int64], second: NDArray[np.int64], classes: int, *, quadratic: bool = False
) -> float | None:
    """Agreement beyond chance of two raters (Cohen 1960; weighted by squared distance: Cohen 1968).

    Args:
        first: (N,) classes from 0 that the first rater chose.
        second: (N,) the second's.
        classes: How many classes there are.
        quadratic: Whether a disagreement counts by the square of its distance, or as one.

    Returns:
        1 for full agreement, 0 for that of chance; None where both always chose the same one class, or N is 0.
    """
    table = np.zeros((classes, classes))
    np.add.at(table, (first, second), 1.0)
    steps = np.arange(classes)
    apart = np.abs(steps[:, None] - steps[None, :]).astype(np.float64)
    weights = apart**2 if quadratic else (apart > 0).astype(np.float64)
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(1.0, table.sum())
    expected = float((weights * chance).sum())
    return None if expected == 0.0 else 1.0 - float((weights * table).sum()) / expected


def label_agreement(first: Mapping[Tag, Label], second: Mapping[Tag, Label]) -> dict[str, Any]:
    """Figures of two passes over the tags that both labelled, rounded, for the report.

    Args:
        first: Labels of the first pass.
        second: Labels of the second pass.

    Returns:
        Counts, kappas (None where undefined), shares, and every disagreement, the widest first.
    """
    both = [tag for tag in first if tag in second]
    a = np.array([grade(first[tag]) for tag in both], np.int64)
    b = np.array([grade(second[tag]) for tag in both], np.int64)
    off = np.abs(a - b)
    seen = (a > 0) & (b > 0)
    apart = sorted(
        (tag for tag, steps in zip(both, off, strict=True) if steps), key=lambda tag: _width(tag, first, second)
    )
    return {
        "tags": len(both),
        "only_first": len(first) - len(both),
        "only_second": len(second) - len(both),
        "visibility": {
            "agree": _share((a > 0) == (b > 0)),
            "kappa": _rounded(cohens_kappa((a > 0).astype(np.int64), (b > 0).astype(np.int64), 2)),
        },
        "steps": {
            "exact": _share(off == 0),
            "within_one_step": _share(off <= 1),
            "quadratic_kappa": _rounded(cohens_kappa(a, b, len(GRADES), quadratic=True)),
        },
        "steps_where_both_see": {
            "tags": int(seen.sum()),
            "exact": _share(off[seen] == 0),
            "within_one_step": _share(off[seen] <= 1),
        },
        "disagreements": [
            {"tag": "=".join(tag), "first": GRADES[grade(first[tag])], "second": GRADES[grade(second[tag])]}
            for tag in apart
        ],
    }


def _width(tag: Tag, first: Mapping[Tag, Label], second: Mapping[Tag, Label]) -> tuple[int, Tag]:
    return -abs(grade(first[tag]) - grade(second[tag])), tag


def _share(hits: NDArray[np.bool_]) -> float | None:
    return round(float(hits.mean()), 4) if len(hits) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
