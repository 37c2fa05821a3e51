"""The scoreboard as papers take it: a table in LaTeX."""

from collections.abc import Sequence

from skyscript_assets.lib.benchmarks.scoreboard_text import METRIC_NAMES, Row, figure_text, heading, ranked, visible

ESCAPED = {char: f"\\{char}" for char in "&%$#_{}"}
ESCAPED |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}

TABLE = r"""% needs \usepackage{{booktabs}}, for < > | also \usepackage[T1]{{fontenc}}; for other scripts LuaLaTeX
\begin{{table}}
\caption{{{caption}. Medians over seeds, 95\,\% intervals, controls in italics.}}
\begin{{tabular}}{{@{{}}p{{0.3\linewidth}}{columns}@{{}}}} \toprule
{heads} \\ \midrule
{lines} \bottomrule
\end{{tabular}}
\end{{table}}
"""


def latex(title: str, benchmarks: Sequence[str], rows: Sequence[Row]) -> str:
    """Rows of `scoreboard.parquet`, of one track, as a table: benchmarks across, intervals under figures."""
    columns = [best_first for best_first in (ranked(rows, benchmark) for benchmark in benchmarks) if best_first]
    shown = {row["name"]: row for best_first in columns for row in best_first}
    titles = [escaped(f"{heading(column[0])}, {METRIC_NAMES[column[0]['metric']]}") for column in columns]
    heads = ["model", *(rf"\parbox[b]{{2.5cm}}{{\raggedleft {one}}}" for one in titles)]
    lines = []
    for name, first in shown.items():
        model = escaped(first["title"])
        of_model = [next((row for row in column if row["name"] == name), None) for column in columns]
        cells = [rf"\textit{{{model}}}" if first["control"] else model, *map(_cell, of_model)]
        lines.append(" & ".join(cells) + r" \\")
    parts = {"columns": "r" * len(columns), "heads": " & ".join(heads), "lines": "\n".join(lines)}
    return TABLE.format(caption=escaped(title), **parts)


def escaped(text: str) -> str:
    """Text as LaTeX prints it, without characters that the eye does not see."""
    return "".join(ESCAPED.get(char, char) for char in visible(text))


def _cell(row: Row | None) -> str:
    if row is None:
        return "--"
    shown, *ends = (escaped(figure_text(row["metric"], row[name])) for name in ("value", "low", "high"))
    return shown if "-" in ends else rf"\shortstack{{{shown}\\{{\scriptsize {'--'.join(ends)}}}}}"
