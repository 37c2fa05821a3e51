"""The scoreboard's plot: one panel a benchmark, one dot with its interval a model, best on top, controls in grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skyscript_assets.lib.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL_COLOUR = "#0b6e8a"
CONTROL_COLOUR = "#8c8c8c"
WIDTH_IN = 9.0
ROW_IN = 0.34
FRAME_IN = 1.15
"""Inches: width of the plot, height of a model's row, height of a panel's title, axis and margin."""


@dataclass(frozen=True)
class Dot:
    """A model or group: its figure, interval, the figures of its seeds, and the figure as text."""

    label: str
    value: float
    low: float | None
    high: float | None
    seeds: tuple[float, ...]
    control: bool
    shown: str


@dataclass(frozen=True)
class Panel:
    """A benchmark: its models best first, and the figure that guessing reaches."""

    title: str
    axis: str
    chance: float
    dots: tuple[Dot, ...]


def draw_panels(panels: Sequence[Panel], path: Path) -> None:
    """Draw the panels one above the other into a PNG; equal panels give equal bytes.

    Args:
        panels: The benchmarks; none draws a note that there are no scores.
        path: Where the PNG ends.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [FRAME_IN + ROW_IN * len(panel.dots) for panel in panels] or [FRAME_IN]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    if panels:
        grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for panel, axes in zip(panels, grid[:, 0], strict=True):
            _draw(panel, axes)
    else:
        figure.text(0.5, 0.5, "no scores yet", ha="center", va="center")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _draw(panel: Panel, axes: Axes) -> None:
    axes.axvline(panel.chance, color="#c9c9c9", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        "chance",
        (panel.chance, 1),
        (3, -3),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        fontsize=8,
        color="#999999",
        va="top",
    )
    for y, dot in enumerate(panel.dots):
        colour = CONTROL_COLOUR if dot.control else MODEL_COLOUR
        if dot.low is not None and dot.high is not None:
            axes.plot([dot.low, dot.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round", zorder=2)
        if len(dot.seeds) > 1:
            axes.plot(dot.seeds, [y] * len(dot.seeds), "|", color=colour, markersize=9, zorder=3)
        axes.plot([dot.value], [y], "o", color=colour, markersize=7, markeredgecolor="white", zorder=4)
        axes.annotate(
            dot.shown,
            (1.01, y),
            xycoords=axes.get_yaxis_transform(),
            fontsize=9,
            color=colour,
            va="center",
            annotation_clip=False,
        )
    axes.set_yticks(range(len(panel.dots)), [dot.label for dot in panel.dots], fontsize=9)
    for label, dot in zip(axes.get_yticklabels(), panel.dots, strict=True):
        label.set_color(CONTROL_COLOUR if dot.control else "black")
    axes.set_ylim(len(panel.dots) - 0.4, -0.8)
    axes.set_title(panel.title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(f"{panel.axis}; bars: 95 % intervals, ticks: seeds, grey: controls", fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
