"""The scoreboard as people read it: its tables in Markdown.

Synthetic benchmarks are called so in every table and on every plot.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
    "ece": "calibration error (ECE)",
    "cider_d": "CIDEr-D",
    "clip_score": "CLIPScore by itself",
}
"""Figures shown in `scoreboard.md`, in this order; the Parquet file has all of them."""

CLASS_FIGURES = {"mean_auc": "auc", "top1": "recall"}
"""The figure of each class that `scoreboard.md` shows, by the benchmark's first figure."""

MAX_SHOWN_CLASSES = 100

READING = (
    "Medians over seeds. In brackets the 95 % interval: bootstrap over cells of ground, or over images where there are "
    "no cells, and what seeds differ by; of one seed it is of that one model. Controls are in italics. Tracks do not "
    "compare: prompt-ensemble has more prompts, and on transductive each score depends on all test images together."
)


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


def visible(text: str) -> str:
    """Text in one line, without control characters and those that turn the direction of writing."""
    return "".join(char for char in " ".join(text.split()) if not unicodedata.category(char).startswith("C"))


def figure_text(metric: str, value: float | None) -> str:
    """A figure as it is shown: areas and CIDEr with three digits, accuracies and recalls in per cent."""
    if value is None:
        return "-"
    return f"{value:.3f}" if metric in ("mean_auc", "mean_ap", "cider_d", "clip_score") else f"{100 * value:.1f} %"


def markdown(
    title: str,
    benchmarks: Mapping[str, Groups],
    rows: Sequence[Row],
    means: Sequence[str],
    compared: Sequence[Row],
    not_compared: Sequence[str],
    published: Sequence[PublishedScore],
) -> str:
    """The text of `scoreboard.md`, of one track, which `title` names: `rows` and `compared` are those of the tables.

    `means` are keys of the named means, `not_compared` comparisons that could not be made.
    """
    lines = [f"# Scoreboard: {title}", "", READING]
    for benchmark, groups in benchmarks.items():
        lines += _benchmark_lines(benchmark, rows)
        lines += _comparison_lines([row for row in compared if row["benchmark"] == benchmark], rows)
        lines += _class_lines(groups, ranked(rows, benchmark))
    for key in means:
        best_first = ranked(rows, key)
        for row in best_first[:1]:
            lines += ["", f"## {heading(row)}", "", f"Protocol: {row['classification_protocol']}.", ""]
            shown = [(one["title"], figure_text(one["metric"], one["value"])) for one in best_first]
            lines += _table(["model", f"mean {METRIC_NAMES[row['metric']]}"], shown)
    if not_compared:
        lines += ["", "Not compared, because a model has no score: " + "; ".join(not_compared) + "."]
    if published:
        lines += ["", "## Published figures, for orientation", "", "Not measured here.", ""]
        cells = [(row.model, row.benchmark, row.metric, f"{row.value:.2f}", row.reference) for row in published]
        lines += _table(["model", "benchmark", "figure", "value", "reference"], cells)
    return "\n".join(lines) + "\n"


def _benchmark_lines(benchmark: str, rows: Sequence[Row]) -> list[str]:
    best_first = ranked(rows, benchmark)
    first = best_first[0]
    values = {
        (row["name"], row["metric"]): row for row in rows if (row["benchmark"], row["level"]) == (benchmark, "group")
    }
    metrics = [name for name in METRIC_NAMES if any(metric == name for _, metric in values)]
    lines = ["", f"## {heading(first)}", ""]
    if first["synthetic"]:
        lines += ["Painted from OpenStreetMap objects, not photographed: no figure here speaks of real imagery.", ""]
    lines += [f"{first['items']} test items, intervals over {first['clusters']} {first['clustered_by']}s.", ""]
    protocols = list(dict.fromkeys(row["classification_protocol"] for row in best_first))
    cells = [
        [
            f"*{row['title']}*" if row["control"] else row["title"],
            str(row["seeds"]),
            *(_cell(values.get((row["name"], metric))) for metric in metrics),
            str(1 + protocols.index(row["classification_protocol"])),
        ]
        for row in best_first
    ]
    lines += _table(["model", "seeds", *(METRIC_NAMES[metric] for metric in metrics), "protocol"], cells)
    return [
        *lines,
        "",
        "Protocols: " + "; ".join(f"{number}: {name}" for number, name in enumerate(protocols, start=1)) + ".",
    ]


def _cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return "-"
    shown, low, high = (figure_text(row["metric"], row[name]) for name in ("value", "low", "high"))
    return shown if "-" in (low, high) else f"{shown} [{low}, {high}]"


def _comparison_lines(compared: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    if not compared:
        return []
    titles = {row["name"]: row["title"] for row in rows if row["level"] == "group"}
    cells = [
        [
            titles[row["group"]],
            titles[row["against"]],
            f"{row['difference']:+.3f}",
            "-" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]",
            "yes" if row["better"] else "no",
        ]
        for row in compared
    ]
    return ["", *_table(["better?", "than", "difference", "95 % interval of the difference", "above zero"], cells)]


def _class_lines(groups: Groups, best_first: Sequence[Row]) -> list[str]:
    """The figure of each class, median over seeds, with a column for each group; before it what no image shows."""
    scores = next(iter(groups.values()))[0]
    absent = ", ".join(scores.without_images)
    lines = ["", f"**No test image shows {absent}**: no figure says anything of that."] if absent else []
    if not 0 < len(scores.classes) <= MAX_SHOWN_CLASSES:
        return lines
    name = CLASS_FIGURES[scores.primary]
    cells = []
    for i, cls in enumerate(scores.classes):
        values = [[one.classes[i].figures[name].value for one in groups[row["name"]]] for row in best_first]
        shown = [figure_text(scores.primary, median(of_group)) for of_group in values]
        cells.append([cls.name, str(cls.positives), *shown])
    head = ["class", "positives", *(row["title"] for row in best_first)]
    return [*lines, "", f"By class: {name}.", "", *_table(head, cells)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in cells] for cells in (columns, *rows))
    first, *others = (f"| {' | '.join(cells)} |" for cells in escaped)
    return [first, "|" + "---|" * len(columns), *others]
