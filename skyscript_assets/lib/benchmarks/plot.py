"""Plots of the scoreboard: models with their intervals, what one takes for what, and how sure it is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyscript_assets.lib.benchmarks.intervals import ScoredItems
from skyscript_assets.lib.benchmarks.items import Scores
from skyscript_assets.lib.benchmarks.metrics import calibration_error, reliability
from skyscript_assets.lib.benchmarks.scoreboard_text import METRIC_NAMES, Row, figure_text, heading, ranked, visible
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
    """Draw a panel for each benchmark, one above the other, as PNG, and as PDF and SVG for papers.

    A model is a dot with its interval, best on top, controls in grey. Equal rows give equal bytes. Rows are those of
    `scoreboard.parquet`, of one track; `chances` has the benchmarks in their order, with the figure that guessing
    reaches: of none a note is drawn. `path` is that of the PNG.
    """
    from matplotlib import rc_context
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
    # Publishers ask for TrueType fonts. Software, date and salt would make other bytes in every run.
    with rc_context({"pdf.fonttype": 42, "svg.hashsalt": "skyscript"}):
        for kind, changing in (("png", "Software"), ("pdf", "CreationDate"), ("svg", "Date")):
            with picture_file(path.with_suffix(f".{kind}")) as buffer:
                figure.savefig(buffer, format=kind, dpi=110, metadata={changing: None})


def draw_details(model: str, scores: Scores, scored: ScoredItems, path: Path) -> None:
    """Draw what a model takes for what, and how sure it is, where each item is of one class, into a PNG."""
    from matplotlib.figure import Figure

    assert scored.credit is not None
    names, places = [shortened(cls.name) for cls in scores.classes], range(len(scores.classes))
    taken = np.zeros((len(names), len(names)))
    np.add.at(taken, (scored.truth.argmax(axis=1), scored.scores.argmax(axis=1)), 1)
    shares = 100 * taken / np.maximum(taken.sum(axis=1, keepdims=True), 1)
    title = f"{model}: {scores.title}{' (synthetic imagery)' if scores.synthetic else ''}"
    legible = len(names) <= 30
    side, style = min(14.0, 3.0 + 0.22 * len(names)), {"fontsize": 8 if legible else 4, "parse_math": False}
    figure = Figure(figsize=(side + 4.5, side + 1), layout="constrained")
    figure.suptitle(f"{shortened(title, 100)}\n{scores.classification_protocol}", fontsize=9, parse_math=False)
    matrix, curve = figure.subplots(1, 2, gridspec_kw={"width_ratios": [side, 3.5]})
    image = matrix.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=matrix, shrink=0.6, label="% of the images of a class")
    matrix.set_xticks(places, names, rotation=90, **style)
    matrix.set_yticks(places, names, **style)
    matrix.set(xlabel="taken for", ylabel="is")
    for row, column in np.argwhere(shares >= (1 if legible else 101)):
        look = {"ha": "center", "va": "center", "fontsize": 7, "color": "k" if shares[row, column] < 60 else "w"}
        matrix.text(column, row, f"{shares[row, column]:.0f}", **look)
    bins = reliability(scored.scores, scores.notes["logit_scale"], scored.credit)
    curve.plot([0, 1], [0, 1], color="#c9c9c9", linestyle=(0, (4, 3)), linewidth=1)
    curve.plot(bins[:, 1], bins[:, 2], "-", color=MODEL_COLOUR, linewidth=1)
    curve.scatter(bins[:, 1], bins[:, 2], s=10 + 190 * bins[:, 0] / bins[:, 0].max(), color=MODEL_COLOUR, alpha=0.6)
    curve.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence; a dot's area: images", ylabel="share right")
    curve.set_title(f"calibration error {100 * calibration_error(bins):.1f} %", fontsize=9)
    with picture_file(path) as buffer:
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})


def shortened(text: str, most: int = 28) -> str:
    """Text that leaves room for the rest of a picture."""
    shown = visible(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _draw(best_first: Sequence[Row], seeds: Sequence[Sequence[float]], chance: float, axes: Axes) -> None:
    first = best_first[0]
    axes.axvline(chance, color="#c9c9c9", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.text(chance, 1, " chance", transform=axes.get_xaxis_transform(), fontsize=8, color="#999999", va="top")
    for y, (row, values) in enumerate(zip(best_first, seeds, strict=True)):
        colour = CONTROL_COLOUR if row["control"] else MODEL_COLOUR
        if row["low"] is not None and row["high"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
        if len(values) > 1:
            axes.plot(values, [y] * len(values), "|", color=colour, markersize=9, zorder=3)
        axes.plot([row["value"] or 0.0], [y], "o", color=colour, markersize=7, markeredgecolor="white", zorder=4)
        shown, place = figure_text(row["metric"], row["value"]), axes.get_yaxis_transform()
        axes.text(1.01, y, shown, transform=place, fontsize=9, color=colour, va="center")
    titles = [shortened(row["title"], 50) for row in best_first]
    axes.set_yticks(range(len(best_first)), titles, fontsize=9, parse_math=False)
    for label, row in zip(axes.get_yticklabels(), best_first, strict=True):
        label.set_color(CONTROL_COLOUR if row["control"] else "black")
    axes.set_ylim(len(best_first) - 0.4, -0.8)
    axes.set_title(
        textwrap.fill(shortened(heading(first), 150), 50), loc="left", fontsize=11, fontweight="bold", parse_math=False
    )
    measured = (
        f"{METRIC_NAMES[first['metric']]} on {first['items']} test items, {first['clusters']} {first['clustered_by']}s"
    )
    axes.set_xlabel(f"{measured}; bars: 95 % intervals, ticks: seeds, grey: controls", fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
