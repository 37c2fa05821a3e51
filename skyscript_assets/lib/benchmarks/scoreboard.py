"""The scoreboard: every model against every benchmark, and the comparisons that are claimed.

Models of one group differ in their seed alone and are shown by their median. A comparison is better only where its
paired interval lies above zero. How a model is scored belongs to `evaluate`, intervals to `intervals`, what people read
to `scoreboard_text`, pictures to `plot`, what papers take to `paper`. Each track has a board of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from skyscript_assets.lib.benchmarks.intervals import ScoredItems, group_interval
from skyscript_assets.lib.benchmarks.items import SCORES_FILE, Scores, read_model, read_scored
from skyscript_assets.lib.benchmarks.paper import latex
from skyscript_assets.lib.benchmarks.plot import draw_board, draw_details
from skyscript_assets.lib.benchmarks.scoreboard_text import Row, markdown, median, ranked
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.files import replacing, write_text
from skyscript_assets.lib.settings.base import Model
from skyscript_assets.lib.settings.benchmarks import TRACKS, Comparison, Mean, PublishedScore, Track
from skyscript_assets.lib.settings.models import AlignRecipe, TrainedModel
from skyscript_assets.lib.settings.sources import SourceBase
from skyscript_assets.lib.tables import fields, rows_to_table, write_table

BOARD_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "track", "benchmark", "benchmark_title"),
        ("synthetic", pa.bool_()),
        *fields(pa.string(), "level", "name", "title", "group", "recipe"),
        ("control", pa.bool_()),
        ("seeds", pa.int32()),
        ("metric", pa.string()),
        ("primary", pa.bool_()),
        *fields(pa.float64(), "value", "low", "high"),
        *fields(pa.int64(), "items", "clusters"),
        *fields(pa.string(), "clustered_by", "classification_protocol"),
    ]
)
"""One row for each track, benchmark, figure and model (level `model`) or group (level `group`: median over seeds); then
each named mean for each group that has all of its benchmarks."""

COMPARISON_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "track", "benchmark"),
        ("synthetic", pa.bool_()),
        *fields(pa.string(), "metric", "group", "against"),
        *fields(pa.float64(), "group_value", "against_value", "difference", "low", "high"),
        ("better", pa.bool_()),
        *fields(pa.int32(), "group_seeds", "against_seeds"),
        ("clusters", pa.int64()),
        ("samples", pa.int32()),
    ]
)
"""One row for each comparison of the settings that could be made; `better`: the interval lies above zero."""

_OF_SCORES = ("benchmark", "synthetic", "items", "clusters", "clustered_by", "classification_protocol")


class BoardModel(Model):
    """How a model stands on the scoreboard; models of one group differ in their seed alone."""

    title: str
    group: str
    recipe: str
    control: bool


class Board(Model):
    """What the scoreboard shows besides scores; `bootstrap` are the samples of an interval."""

    title: str
    models: dict[str, BoardModel]
    benchmarks: tuple[str, ...]
    means: dict[str, Mean]
    comparisons: tuple[Comparison, ...]
    published: tuple[PublishedScore, ...]
    bootstrap: int


@dataclass(frozen=True)
class _Entry:
    """One model's scores on one benchmark and track."""

    track: Track
    key: str
    model: BoardModel
    scores: Scores
    scored: ScoredItems


Groups = dict[str, list[_Entry]]


class _Told(NamedTuple):
    """What one track comes to: rows of both tables, Markdown, LaTeX and counts."""

    rows: list[Row]
    compared: list[Row]
    text: str
    table: str
    counts: dict[str, Any]


def write_scoreboard(scores: Mapping[tuple[str, str], Path], board: Board, out: Path) -> dict[str, Any]:
    """Write `scoreboard` as Parquet, CSV, Markdown, LaTeX and, a track each, plots; and `comparisons.parquet`.

    Of benchmarks whose items have one class each, `details-BENCHMARK.png` shows what the best group that is no control
    takes for what, and how sure it is. `scores` are `benchmark_scores` folders by (benchmark, model).

    Returns what the board says of the plain track: counts, benchmarks, and by benchmark the title of the `best` group.

    Raises:
        SettingsError: a score belongs to a model or benchmark that the board lacks.
        UpstreamMissingError: a folder lacks its files.
        CorruptInputError: a file is broken, or models of a comparison were scored on different items.
        OutputSchemaError: a table was written by another version.
    """
    told = {"plain": _track("plain", scores, board, out)}
    for track in TRACKS[1:]:
        there = {key: path / track for key, path in scores.items() if (path / track / SCORES_FILE).exists()}
        told |= {track: _track(track, there, board, out)} if there else {}
    compared = rows_to_table([row for one in told.values() for row in one.compared], COMPARISON_SCHEMA)
    rows = rows_to_table([row for one in told.values() for row in one.rows], BOARD_SCHEMA)
    write_table(out / "comparisons.parquet", compared)
    write_table(out / "scoreboard.parquet", rows)
    with replacing(out / "scoreboard.csv") as temporary:
        pyarrow.csv.write_csv(rows, temporary)
    write_text(out / "scoreboard.md", "\n".join(one.text for one in told.values()))
    write_text(out / "scoreboard.tex", "\n".join(one.table for one in told.values()))
    return told["plain"].counts | {"tracks": tuple(told)}


def _track(track: Track, scores: Mapping[tuple[str, str], Path], board: Board, out: Path) -> _Told:
    """How all models stand on one track, of which the plots are written."""
    benchmarks: dict[str, Groups] = {}
    for benchmark, model in sorted(scores):
        entry = _entry(track, benchmark, model, scores[benchmark, model], board)
        benchmarks.setdefault(benchmark, {}).setdefault(entry.model.group, []).append(entry)
    rows = [row for groups in benchmarks.values() for row in _rows(groups, board.bootstrap)]
    rows += [row for key, mean in board.means.items() for row in _mean_rows(key, mean, rows)]
    compared: list[Row] = []
    not_compared: list[str] = []
    for claim in board.comparisons:
        groups = benchmarks.get(claim.benchmark, {})
        if claim.group in groups and claim.against in groups:
            compared.append(_compare(claim, groups[claim.group], groups[claim.against], board.bootstrap))
        elif track == "plain":
            not_compared.append(f"{claim.benchmark}: {claim.group} > {claim.against}")
    models = {
        benchmark: {group: [entry.scores for entry in entries] for group, entries in groups.items()}
        for benchmark, groups in benchmarks.items()
    }
    title, suffix = (board.title, "") if track == "plain" else (f"{board.title}, track {track}", f"-{track}")
    published = () if suffix else board.published
    draw_board(rows, {key: _chance(groups) for key, groups in benchmarks.items()}, out / f"scoreboard{suffix}.png")
    for benchmark, groups in benchmarks.items():
        best = groups[min(ranked(rows, benchmark), key=lambda row: bool(row["control"]))["name"]][0]
        if "logit_scale" in best.scores.notes:
            draw_details(best.key, best.scores, best.scored, out / f"details-{benchmark}{suffix}.png")
    return _Told(
        rows,
        compared,
        markdown(title, models, rows, tuple(board.means), compared, not_compared, published),
        latex(title, [*benchmarks, *board.means], rows),
        {
            "models": len({model for _, model in scores}),
            "benchmarks": tuple(benchmarks),
            "synthetic": tuple(dict.fromkeys(row["benchmark"] for row in rows if row["synthetic"])),
            "comparisons": len(compared),
            "better": sum(row["better"] for row in compared),
            "not_compared": tuple(not_compared),
            "best": {benchmark: ranked(rows, benchmark)[0]["title"] for benchmark in benchmarks},
        },
    )


def is_control(model: TrainedModel, known: Mapping[str, SourceBase]) -> bool:
    """Whether a model is there to be beaten or to compare with: untrained, taught otherwise, or on shuffled input."""
    if model.recipe.kind in ("none", "metadata-only", "linear-probe"):
        return True
    if isinstance(model.recipe, AlignRecipe) and model.recipe.shuffle_captions:
        return True
    return any(known[key].is_control for key in model.sources or ())


def _entry(track: Track, benchmark: str, key: str, folder: Path, board: Board) -> _Entry:
    if key not in board.models or benchmark not in board.benchmarks:
        raise SettingsError(f"there are scores of model {key!r} on {benchmark!r}, which the settings do not define")
    scores = read_model(folder / SCORES_FILE, Scores)
    return _Entry(track, key, board.models[key], scores, read_scored(folder, [cls.name for cls in scores.classes]))


def _rows(groups: Groups, samples: int) -> list[Row]:
    """Rows of one benchmark: each model, and each group with its median over seeds."""
    rows: list[Row] = []
    for group, entries in groups.items():
        for entry in entries:
            rows += [_model_row(entry, metric) for metric in entry.scores.figures]
        interval = group_interval([entry.scored for entry in entries], samples)
        for metric in entries[0].scores.figures:
            row = _model_row(entries[0], metric)
            # Only the primary figure of a group has an interval.
            ends = {"low": interval.low, "high": interval.high} if row["primary"] else {"low": None, "high": None}
            value = median([entry.scores.figures[metric].value for entry in entries])
            rows.append(row | {"level": "group", "name": group, "seeds": len(entries), "value": value} | ends)
    return rows


def _model_row(entry: _Entry, metric: str) -> dict[str, Any]:
    scores = entry.scores
    of_scores = scores.model_dump(include={*_OF_SCORES})
    of_model = {"level": "model", "name": entry.key, "seeds": 1, **entry.model.model_dump()}
    of_figure = {"metric": metric, "primary": metric == scores.primary, **scores.figures[metric].model_dump()}
    return {"track": entry.track, "benchmark_title": scores.title, **of_scores, **of_model, **of_figure}


def _mean_rows(key: str, mean: Mean, rows: Sequence[Row]) -> list[Row]:
    """The mean over several benchmarks of each group that was scored on all of them, without an interval."""
    firsts = [{row["name"]: row for row in ranked(rows, benchmark)} for benchmark in mean.benchmarks]
    means: list[Row] = []
    for name in sorted(set.intersection(*map(set, firsts))):
        of_group = [first[name] for first in firsts]
        value = float(np.mean([row["value"] or 0.0 for row in of_group]))
        shown = {"benchmark": key, "benchmark_title": f"{mean.title} ({len(firsts)} sets)", "value": value}
        items = {count: sum(row[count] for row in of_group) for count in ("items", "clusters")}
        synthetic = any(row["synthetic"] for row in of_group)
        means.append({**of_group[0], **shown, **items, "low": None, "high": None, "synthetic": synthetic})
    return means


def _compare(claim: Comparison, group: Sequence[_Entry], against: Sequence[_Entry], samples: int) -> Row:
    difference = group_interval([e.scored for e in group], samples, [e.scored for e in against])
    scores = group[0].scores
    return {
        **claim.model_dump(),
        "track": group[0].track,
        "synthetic": scores.synthetic,
        "metric": scores.primary,
        "group_value": _median_primary(group),
        "against_value": _median_primary(against),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "better": difference.low is not None and difference.low > 0,
        "group_seeds": len(group),
        "against_seeds": len(against),
        "clusters": scores.clusters,
        "samples": samples,
    }


def _chance(groups: Groups) -> float:
    """The primary figure that guessing reaches."""
    scores = next(iter(groups.values()))[0].scores
    return 0.5 if scores.primary == "mean_auc" else 1 / len(scores.classes) if scores.classes else 0.0


def _median_primary(entries: Sequence[_Entry]) -> float:
    return float(np.median([entry.scored.primary()[0] for entry in entries]))
