"""The scoreboard: every model against every benchmark, the comparisons that are claimed, and published figures beside.

Models of one group differ in their seed alone and are shown by their median. A comparison is better only where its
paired interval lies above zero. Synthetic benchmarks are called so in every table and on every plot. How a model is
scored belongs to `evaluate`, intervals to `intervals`; the plot is drawn by `plot`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.benchmarks.intervals import Interval, ScoredItems, group_interval, paired_interval
from skyscript_assets.lib.benchmarks.items import Scores, read_scored, read_scores
from skyscript_assets.lib.benchmarks.plot import Dot, Panel, draw_panels
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.settings.benchmarks import Comparison
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.models import AlignRecipe, TrainedModel
from skyscript_assets.lib.tables import rows_to_table, write_table

BOARD_SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("benchmark_title", pa.string()),
        ("synthetic", pa.bool_()),
        ("level", pa.string()),
        ("name", pa.string()),
        ("title", pa.string()),
        ("group", pa.string()),
        ("recipe", pa.string()),
        ("control", pa.bool_()),
        ("seeds", pa.int32()),
        ("metric", pa.string()),
        ("primary", pa.bool_()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("items", pa.int64()),
        ("clusters", pa.int64()),
        ("clustered_by", pa.string()),
    ]
)
"""One row for each benchmark, figure and model (level `model`) or group (level `group`: median over seeds)."""

COMPARISON_SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("synthetic", pa.bool_()),
        ("metric", pa.string()),
        ("group", pa.string()),
        ("against", pa.string()),
        ("group_value", pa.float64()),
        ("against_value", pa.float64()),
        ("difference", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("better", pa.bool_()),
        ("group_seeds", pa.int32()),
        ("against_seeds", pa.int32()),
        ("clusters", pa.int64()),
        ("samples", pa.int32()),
    ]
)
"""One row for each comparison of the settings that could be made; `better`: the interval lies above zero."""

METRIC_NAMES = {
    "mean_auc": "mean AUC",
    "mean_ap": "mAP",
    "i2t_mean_recall": "image-to-text recall",
    "t2i_mean_recall": "text-to-image recall",
    "top1": "top-1",
    "top1_mean_prompt": "top-1, mean prompt",
    "mean_per_class_recall": "mean per class recall",
}
"""Figures shown in `scoreboard.md`, in this order; the Parquet file has all of them."""

CLASS_FIGURES = {"mean_auc": "auc", "top1": "recall"}
"""The figure of each class that `scoreboard.md` shows, by the benchmark's first figure."""

MAX_SHOWN_CLASSES = 40

READING = (
    "Medians over seeds. In brackets the 95 % interval: bootstrap over cells of ground, or over images where there are "
    "no cells. Controls are in italics."
)

CONTROL_RECIPES = ("none", "metadata-only", "linear-probe")


@dataclass(frozen=True)
class ScoreboardSummary:
    """What the scoreboard says.

    Attributes:
        models: Models that were scored on any benchmark.
        benchmarks: Benchmarks with any score.
        synthetic: Those of them whose images are painted.
        comparisons: Comparisons made.
        better: How many of them have an interval above zero.
        not_compared: Comparisons of the settings for which a group has no score, as `benchmark: group > against`.
        best: Title of the group with the highest primary figure, by benchmark.
    """

    models: int
    benchmarks: tuple[str, ...]
    synthetic: tuple[str, ...]
    comparisons: int
    better: int
    not_compared: tuple[str, ...]
    best: dict[str, str]


@dataclass(frozen=True)
class _Entry:
    """One model's scores on one benchmark."""

    key: str
    model: TrainedModel
    group: str
    control: bool
    scores: Scores
    scored: ScoredItems


@dataclass(frozen=True)
class _Row:
    """A row of `scoreboard.parquet`; its fields are the columns of `BOARD_SCHEMA`."""

    benchmark: str
    benchmark_title: str
    synthetic: bool
    level: str
    name: str
    title: str
    group: str
    recipe: str
    control: bool
    seeds: int
    metric: str
    primary: bool
    value: float | None
    low: float | None
    high: float | None
    items: int
    clusters: int
    clustered_by: str


@dataclass(frozen=True)
class _Compared:
    """A row of `comparisons.parquet`; its fields are the columns of `COMPARISON_SCHEMA`."""

    benchmark: str
    synthetic: bool
    metric: str
    group: str
    against: str
    group_value: float
    against_value: float
    difference: float
    low: float | None
    high: float | None
    better: bool
    group_seeds: int
    against_seeds: int
    clusters: int
    samples: int


Groups = dict[str, list[_Entry]]


def write_scoreboard(scores: Mapping[tuple[str, str], Path], settings: Settings, out: Path) -> ScoreboardSummary:
    """Write `scoreboard.parquet`, `comparisons.parquet`, `scoreboard.md` and `scoreboard.png`.

    Args:
        scores: `benchmark_scores` folders by (benchmark, model).
        settings: The profile: titles, groups, comparisons and published figures.
        out: Folder to write into.

    Raises:
        SettingsError: a score belongs to a model or benchmark that the settings do not define.
        UpstreamMissingError: a folder lacks its files.
        CorruptInputError: a file is broken, or models of a comparison were scored on different items.
        OutputSchemaError: a table was written by another version.
    """
    benchmarks: dict[str, Groups] = {}
    for benchmark, model in sorted(scores):
        entry = _entry(benchmark, model, scores[benchmark, model], settings)
        benchmarks.setdefault(benchmark, {}).setdefault(entry.group, []).append(entry)
    samples = settings.benchmarks.bootstrap
    rows = [row for groups in benchmarks.values() for row in _rows(groups, samples)]
    compared: list[_Compared] = []
    not_compared: list[str] = []
    for comparison in settings.benchmarks.comparisons:
        groups = benchmarks.get(comparison.benchmark, {})
        if comparison.group in groups and comparison.against in groups:
            compared.append(_compare(comparison, groups, samples))
        else:
            not_compared.append(f"{comparison.benchmark}: {comparison.group} > {comparison.against}")
    write_table(out / "scoreboard.parquet", rows_to_table([asdict(row) for row in rows], BOARD_SCHEMA))
    write_table(out / "comparisons.parquet", rows_to_table([asdict(row) for row in compared], COMPARISON_SCHEMA))
    text = _markdown(benchmarks, rows, compared, not_compared, settings)
    write_text(out / "scoreboard.md", text)
    draw_panels([_panel(groups, rows) for groups in benchmarks.values()], out / "scoreboard.png")
    return ScoreboardSummary(
        models=len({model for _, model in scores}),
        benchmarks=tuple(benchmarks),
        synthetic=tuple(dict.fromkeys(row.benchmark for row in rows if row.synthetic)),
        comparisons=len(compared),
        better=sum(row.better for row in compared),
        not_compared=tuple(not_compared),
        best={benchmark: _ranked(rows, benchmark)[0].title for benchmark in benchmarks},
    )


def is_control(model: TrainedModel, settings: Settings) -> bool:
    """Whether a model is there to be beaten or to compare with: untrained, taught otherwise, or on shuffled input."""
    if model.recipe.kind in CONTROL_RECIPES:
        return True
    if isinstance(model.recipe, AlignRecipe) and model.recipe.shuffle_captions:
        return True
    return any(settings.sources[key].is_control for key in model.sources or ())


def _entry(benchmark: str, key: str, folder: Path, settings: Settings) -> _Entry:
    if key not in settings.models or benchmark not in settings.benchmarks.benchmarks:
        raise SettingsError(f"there are scores of model {key!r} on {benchmark!r}, which the settings do not define")
    model = settings.models[key]
    scores = read_scores(folder)
    return _Entry(
        key=key,
        model=model,
        group=model.group or key,
        control=is_control(model, settings),
        scores=scores,
        scored=read_scored(folder, [cls.name for cls in scores.classes]),
    )


# ----------------------------------------------------------------------------------------------------------------- rows


def _rows(groups: Groups, samples: int) -> list[_Row]:
    """Rows of one benchmark: each model, and each group with its median over seeds."""
    rows = []
    for group, entries in groups.items():
        for entry in entries:
            rows += [_model_row(entry, metric) for metric in entry.scores.figures]
        interval = group_interval([entry.scored for entry in entries], samples)
        rows += [_group_row(group, entries, metric, interval) for metric in entries[0].scores.figures]
    return rows


def _model_row(entry: _Entry, metric: str) -> _Row:
    scores, figure = entry.scores, entry.scores.figures[metric]
    return _Row(
        benchmark=scores.benchmark,
        benchmark_title=scores.title,
        synthetic=scores.synthetic,
        level="model",
        name=entry.key,
        title=entry.model.title,
        group=entry.group,
        recipe=entry.model.recipe.kind,
        control=entry.control,
        seeds=1,
        metric=metric,
        primary=metric == scores.primary,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        items=scores.items,
        clusters=scores.clusters,
        clustered_by=scores.clustered_by,
    )


def _group_row(group: str, entries: Sequence[_Entry], metric: str, interval: Interval) -> _Row:
    """The median over a group's seeds; only the primary figure has an interval."""
    first = _model_row(entries[0], metric)
    values = [entry.scores.figures[metric].value for entry in entries]
    known = [value for value in values if value is not None]
    changes = {
        "level": "group",
        "name": group,
        "seeds": len(entries),
        "value": float(np.median(known)) if known else None,
        "low": interval.low if first.primary else None,
        "high": interval.high if first.primary else None,
    }
    return _Row(**(asdict(first) | changes))


def _compare(comparison: Comparison, groups: Groups, samples: int) -> _Compared:
    group, against = groups[comparison.group], groups[comparison.against]
    difference = paired_interval([e.scored for e in group], [e.scored for e in against], samples)
    scores = group[0].scores
    return _Compared(
        benchmark=comparison.benchmark,
        synthetic=scores.synthetic,
        metric=scores.primary,
        group=comparison.group,
        against=comparison.against,
        group_value=_median_primary(group),
        against_value=_median_primary(against),
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        better=difference.low is not None and difference.low > 0,
        group_seeds=len(group),
        against_seeds=len(against),
        clusters=scores.clusters,
        samples=samples,
    )


def _median_primary(entries: Sequence[_Entry]) -> float:
    return float(np.median([entry.scored.primary()[0] for entry in entries]))


def _ranked(rows: Sequence[_Row], benchmark: str) -> list[_Row]:
    """The groups' primary figures on a benchmark, best first."""
    groups = [row for row in rows if (row.benchmark, row.level, row.primary) == (benchmark, "group", True)]
    return sorted(groups, key=lambda row: (-(row.value or 0.0), row.name))


def _panel(groups: Groups, rows: Sequence[_Row]) -> Panel:
    scores = next(iter(groups.values()))[0].scores
    ranked = _ranked(rows, scores.benchmark)
    dots = [
        Dot(
            label=row.title,
            value=row.value or 0.0,
            low=row.low,
            high=row.high,
            seeds=tuple(entry.scores.figures[row.metric].value or 0.0 for entry in groups[row.name]),
            control=row.control,
            shown=_shown(row.metric, row.value),
        )
        for row in ranked
    ]
    return Panel(
        title=_heading(ranked[0]),
        axis=f"{METRIC_NAMES[scores.primary]} on {scores.items} test items, {scores.clusters} {scores.clustered_by}s",
        chance=0.5 if scores.primary == "mean_auc" else 1 / len(scores.classes),
        dots=tuple(dots),
    )


# ----------------------------------------------------------------------------------------------------------------- text


def _markdown(
    benchmarks: Mapping[str, Groups],
    rows: Sequence[_Row],
    compared: Sequence[_Compared],
    not_compared: Sequence[str],
    settings: Settings,
) -> str:
    lines = [f"# Scoreboard: {settings.plant.title}", "", READING]
    for benchmark, groups in benchmarks.items():
        lines += _benchmark_lines(benchmark, rows)
        lines += _comparison_lines([row for row in compared if row.benchmark == benchmark], rows)
        lines += _class_lines(groups, _ranked(rows, benchmark))
    if not_compared:
        lines += ["", "Not compared, because a model has no score: " + "; ".join(not_compared) + "."]
    return "\n".join([*lines, *_published_lines(settings)]) + "\n"


def _heading(row: _Row) -> str:
    return f"{row.benchmark_title} (synthetic imagery)" if row.synthetic else row.benchmark_title


def _benchmark_lines(benchmark: str, rows: Sequence[_Row]) -> list[str]:
    ranked = _ranked(rows, benchmark)
    first = ranked[0]
    values = {(row.name, row.metric): row for row in rows if row.benchmark == benchmark and row.level == "group"}
    metrics = [name for name in METRIC_NAMES if any(metric == name for _, metric in values)]
    lines = ["", f"## {_heading(first)}", ""]
    if first.synthetic:
        lines += ["Painted from OpenStreetMap objects, not photographed: no figure here speaks of real imagery.", ""]
    lines += [f"{first.items} test items, intervals over {first.clusters} {first.clustered_by}s.", ""]
    lines += _table(["model", "seeds", *(METRIC_NAMES[metric] for metric in metrics)])
    for row in ranked:
        title = f"*{row.title}*" if row.control else row.title
        cells = [_cell(values.get((row.name, metric))) for metric in metrics]
        lines.append(_table_row([title, str(row.seeds), *cells]))
    return lines


def _cell(row: _Row | None) -> str:
    if row is None or row.value is None:
        return "-"
    shown = _shown(row.metric, row.value)
    if row.low is None or row.high is None:
        return shown
    return f"{shown} [{_shown(row.metric, row.low)}, {_shown(row.metric, row.high)}]"


def _comparison_lines(compared: Sequence[_Compared], rows: Sequence[_Row]) -> list[str]:
    if not compared:
        return []
    titles = {row.name: row.title for row in rows if row.level == "group"}
    lines = ["", *_table(["better?", "than", "difference", "95 % interval of the difference", "above zero"])]
    for row in compared:
        interval = "-" if row.low is None else f"[{row.low:+.3f}, {row.high:+.3f}]"
        cells = [
            titles[row.group],
            titles[row.against],
            f"{row.difference:+.3f}",
            interval,
            "yes" if row.better else "no",
        ]
        lines.append(_table_row(cells))
    return lines


def _class_lines(groups: Groups, ranked: Sequence[_Row]) -> list[str]:
    """The figure of each class, median over seeds, with a column for each group."""
    scores = next(iter(groups.values()))[0].scores
    name = CLASS_FIGURES[scores.primary]
    if len(scores.classes) > MAX_SHOWN_CLASSES:
        return []
    lines = ["", f"By class: {name}.", "", *_table(["class", "positives", *(row.title for row in ranked)])]
    for i, cls in enumerate(scores.classes):
        shown = [_class_figure(groups[row.name], i, name, row.metric) for row in ranked]
        lines.append(_table_row([cls.name, str(cls.positives), *shown]))
    return lines


def _class_figure(entries: Sequence[_Entry], index: int, name: str, metric: str) -> str:
    values = [entry.scores.classes[index].figures[name].value for entry in entries]
    known = [value for value in values if value is not None]
    return _shown(metric, float(np.median(known)) if known else None)


def _published_lines(settings: Settings) -> list[str]:
    if not settings.benchmarks.published:
        return []
    lines = ["", "## Published figures, for orientation", "", "Not measured here.", ""]
    lines += _table(["model", "benchmark", "figure", "value", "reference"])
    for row in settings.benchmarks.published:
        lines.append(_table_row([row.model, row.benchmark, row.metric, f"{row.value:g}", row.reference]))
    return lines


def _table(columns: Sequence[str]) -> list[str]:
    return [_table_row(columns), "|" + "---|" * len(columns)]


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _shown(metric: str, value: float | None) -> str:
    """Areas with three digits, accuracies and recalls in per cent."""
    if value is None:
        return "-"
    return f"{value:.3f}" if metric in ("mean_auc", "mean_ap") else f"{100 * value:.1f} %"
