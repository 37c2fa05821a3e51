"""Decisions about tags that the model does not make: the label file and the override file, one layout for both.

A row says of one `key=value` whether it can be seen from above, the coarsest ground sample distance in metres at
which it still can, and why. The guideline for people is `settings/tag_labelling.md`.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
