"""Decisions about tags that the model does not make: the label file and the override file, one layout for both.

A row says of one `key=value` whether it can be seen from above, the coarsest ground sample distance in metres at
which it still can, and why. The guideline for people is `settings/tag_labelling.md`. How far two people agree who
labelled the same tags is told by Cohen's kappa and shares.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.errors import MissingInputError, SettingsError
from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.tags.text import text_reason

LABEL_COLUMNS: tuple[str, ...] = ("key", "value", "visible", "coarsest_gsd_m", "reason")
"""Header of a label file, in this order."""

Tag = tuple[str, str]
"""(key, value)."""


@dataclass(frozen=True)
class Label:
    """One decision made by a person.

    Attributes:
        visible: Whether the tag can be seen at all in nadir imagery of 0.1 m or coarser.
        coarsest_gsd_m: Coarsest step of `GSD_STEPS_M` at which it can be seen, metres; None where not visible.
        reason: What is seen, or why nothing is.
        line: Line of the file, from 1.
    """

    visible: bool
    coarsest_gsd_m: float | None
    reason: str
    line: int


def read_labels(path: Path) -> Mapping[Tag, Label]:
    """The labels of a file by tag, in its order; it is UTF-8 CSV with the header of `LABEL_COLUMNS`.

    Raises:
        MissingInputError: the file does not exist or cannot be read.
        SettingsError: a row is wrong or labels text, such as a phone number; the message lists every problem with file,
            line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(f"{path}: the label file cannot be read ({error})") from error
    labels: dict[Tag, Label] = {}
    problems: list[str] = []
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        header = next(reader, [])
        if tuple(header) != LABEL_COLUMNS:
            raise SettingsError(
                f"{path}, line 1: the header must be {','.join(LABEL_COLUMNS)}; found {','.join(header)}"
            )
        for row in reader:
            wrong = _wrong_column(row, labels) if row else None
            if wrong is not None:
                problems.append(f"line {reader.line_num}{wrong}")
            elif row:
                key, value, visible, gsd, reason = map(str.strip, row)
                labels[key, value] = Label(visible == "yes", float(gsd) if gsd else None, reason, reader.line_num)
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: is not CSV: {error}")
    if problems:
        raise SettingsError("\n".join([f"{path} has {len(problems)} wrong rows:", *(f"  - {p}" for p in problems)]))
    return labels


def _wrong_column(row: list[str], labels: Mapping[Tag, Label]) -> str | None:
    """What is wrong with a row, as it stands behind its line, or None."""
    if len(row) != len(LABEL_COLUMNS):
        return f": {len(LABEL_COLUMNS)} columns are needed, found {len(row)}"
    key, value, visible, gsd, reason = map(str.strip, row)
    steps = [f"{step:g}" for step in GSD_STEPS_M]
    for column, text in (("key", key), ("value", value), ("reason", reason)):
        if not text:
            return f", column {column}: is empty"
    if visible not in ("yes", "no"):
        return f", column visible: must be yes or no, found {visible!r}"
    if visible == "no" and gsd:
        return f", column coarsest_gsd_m: must be empty where visible is no, found {gsd!r}"
    if visible == "yes" and gsd not in steps:
        return f", column coarsest_gsd_m: must be one of {', '.join(steps)}, found {gsd!r}"
    if (kind := text_reason(key, value)) is not None:
        return f", column key: {key}={value} is text ({kind}) and never used: remove the row"
    if (key, value) in labels:
        return f", column key: {key}={value} is labelled in line {labels[key, value].line} already"
    return None


GRADES: tuple[str, ...] = ("not visible", *(f"{step:g}" for step in GSD_STEPS_M))
"""The ordered scale on which two passes are compared: what cannot be seen at 0.1 m, then the steps, rising."""


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
