"""The scoreboard as people read it: its tables in Markdown.

Synthetic benchmarks are called so in every table and on every plot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skyscript_assets.lib.benchmarks.items import Scores
from skyscript_assets.lib.settings.benchmarks import PublishedScore

Row = Mapping[str, Any]
"""A row of one of the scoreboard's tables, by its columns."""

Groups = Mapping[str, Sequence[Scores]]
"""The scores of each group's models on one benchmark."""

METRIC_NAMES = {
    "mean_auc": "mean AUC",
    "mean_ap": "mAP",
    "mean_recall": "mean of six recalls",
    "i2t_mean_recall": "image-to-text recall",
    "t2i_mean_recall": "text-to-image recall",
    "top1": "top-1",
    "top1_mean_of_prompts": "mean of the prompts' top-1",
    "mean_per_class_recall": "mean per class recall",
}
"""Figures shown in `scoreboard.md`, in this order; the Parquet file has all of them."""

CLASS_FIGURES = {"mean_auc": "auc", "top1": "recall"}
"""The figure of each class that `scoreboard.md` shows, by the benchmark's first figure."""

MAX_SHOWN_CLASSES = 40


def ranked(rows: Sequence[Row], benchmark: str) -> list[Row]:
    """The groups' primary figures on a benchmark, best first."""
    groups = [row for row in rows if (row["benchmark"], row["level"], row["primary"]) == (benchmark, "group", True)]
    return sorted(groups, key=lambda row: (-(row["value"] or 0.0), row["name"]))


def heading(row: Row) -> str:
    """The title of a benchmark, which says so where its images are painted."""
    return f"{row['benchmark_title']} (synthetic imagery)" if row["synthetic"] else str(row["benchmark_title"])


def median(values: Sequence[float | None]) -> float | None:
    """The median of the values that are defined, None where none is."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def figure_text(metric: str, value: float | None) -> str:
    """A figure as it is shown: areas with three digits, accuracies and recalls in per cent."""
    if value is None:
        return "-"
    return f"{value:.3f}" if metric in ("mean_auc", "mean_ap") else f"{100 * value:.1f} %"


def markdown(
    title: str,
    benchmarks: Mapping[str, Groups],
    rows: Sequence[Row],
    means: Sequence[str],
    compared: Sequence[Row],
    not_compared: Sequence[str],
    published: Sequence[PublishedScore],
) -> str:
    """The text of `scoreboard.md`, by `scoreboard.jinja`.

    `rows` are those of `scoreboard.parquet`, `means` keys of named means, `compared` rows of `comparisons.parquet`, and
    `not_compared` comparisons that could not be made.
    """
    groups = [row for row in rows if row["level"] == "group"]
    measured = {(row["benchmark"], row["metric"]) for row in groups}
    facts = {
        "benchmarks": {
            name: (ranked(rows, name), [one for one in METRIC_NAMES if (name, one) in measured], _classes(models, rows))
            for name, models in benchmarks.items()
        },
        "values": {(row["benchmark"], row["name"], row["metric"]): row for row in groups},
        "titles": {row["name"]: row["title"] for row in groups},
        "means": [ranked(rows, key) for key in means],
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (Markdown)
    )
    environment.filters |= {"cell": _escaped, "figure": _cell}
    environment.globals |= {"metric_names": METRIC_NAMES, "heading": heading, "figure_text": figure_text}
    template = environment.get_template("scoreboard.jinja")
    return template.render(facts, title=title, compared=compared, not_compared=not_compared, published=published)


def _escaped(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    shown, low, high = (figure_text(row["metric"], row[name]) for name in ("value", "low", "high"))
    return shown if "-" in (low, high) else f"{shown} [{low}, {high}]"


def _classes(groups: Groups, rows: Sequence[Row]) -> tuple[str, list[list[str]]]:
    """Which figure of each class is shown; name, positives and that figure, median over seeds, best group first."""
    scores = next(iter(groups.values()))[0]
    if not 0 < len(scores.classes) <= MAX_SHOWN_CLASSES:
        return "", []
    name, best_first = CLASS_FIGURES[scores.primary], ranked(rows, scores.benchmark)
    cells = []
    for i, cls in enumerate(scores.classes):
        values = [[one.classes[i].figures[name].value for one in groups[row["name"]]] for row in best_first]
        shown = [figure_text(scores.primary, median(of_group)) for of_group in values]
        cells.append([cls.name, str(cls.positives), *shown])
    return name, cells
