"""The scoreboard's plot: one panel a benchmark, one dot with its interval a model, best on top, controls in grey."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skyscript_assets.lib.benchmarks.scoreboard_text import METRIC_NAMES, Row, figure_text, heading, ranked
from skyscript_assets.lib.files import picture_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL_COLOUR = "#0b6e8a"
CONTROL_COLOUR = "#8c8c8c"
WIDTH_IN = 9.0
ROW_IN = 0.34
FRAME_IN = 1.15
"""Inches: width of the plot, height of a model's row, height of a panel's title, axis and margin."""


def draw_board(rows: Sequence[Row], chances: Mapping[str, float], path: Path) -> None:
    """Draw a panel for each benchmark, one above the other, into a PNG; equal rows give equal bytes.

    `chances` are the benchmarks in their order, with the figure that guessing reaches; without any it says so.
    """
    from matplotlib.figure import Figure

    panels = {benchmark: ranked(rows, benchmark) for benchmark in chances}
    heights = [FRAME_IN + ROW_IN * len(best_first) for best_first in panels.values()] or [FRAME_IN]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
    if panels:
        grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for (benchmark, best_first), axes in zip(panels.items(), grid[:, 0], strict=True):
            figures = [row for row in rows if row["level"] == "model" and row["primary"]]
            seeds = [
                [one["value"] or 0.0 for one in figures if (one["benchmark"], one["group"]) == (benchmark, row["name"])]
                for row in best_first
            ]
            _draw(best_first, seeds, chances[benchmark], axes)
    else:
        figure.text(0.5, 0.5, "no scores yet", ha="center", va="center")
    with picture_file(path) as buffer:
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})


def _draw(best_first: Sequence[Row], seeds: Sequence[Sequence[float]], chance: float, axes: Axes) -> None:
    first = best_first[0]
    axes.axvline(chance, color="#c9c9c9", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        "chance",
        (chance, 1),
        (3, -3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        fontsize=8,
        color="#999999",
        va="top",
    )
    for y, (row, values) in enumerate(zip(best_first, seeds, strict=True)):
        colour = CONTROL_COLOUR if row["control"] else MODEL_COLOUR
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
        if len(values) > 1:
            axes.plot(values, [y] * len(values), "|", color=colour, markersize=9, zorder=3)
        axes.plot([row["value"] or 0.0], [y], "o", color=colour, markersize=7, markeredgecolor="white", zorder=4)
        axes.annotate(
            figure_text(row["metric"], row["value"]),
            (1.01, y),
            xycoords=axes.get_yaxis_transform(),
            fontsize=9,
            color=colour,
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(best_first)), [row["title"] for row in best_first], fontsize=9)
    for label, row in zip(axes.get_yticklabels(), best_first, strict=True):
        label.set_color(CONTROL_COLOUR if row["control"] else "black")
    axes.set_ylim(len(best_first) - 0.4, -0.8)
    axes.set_title(heading(first), loc="left", fontsize=11, fontweight="bold")
    measured = (
        f"{METRIC_NAMES[first['metric']]} on {first['items']} test items, {first['clusters']} {first['clustered_by']}s"
    )
    axes.set_xlabel(f"{measured}; bars: 95 % intervals, ticks: seeds, grey: controls", fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
