"""What became of a plan's wishes: wanted against achieved for each tag, outcomes by resolution and kind, their picture.

Only the tables and the picture belong here; what is planned is decided in `planning`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.chips.sampling import Drawn, Snapshot, TagPairs, probabilities
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.tables import fields, read_table, rows_to_table

REPORT_FILE = "report.parquet"

REPORT_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "key", "value", "region"),
        ("gsd_m", pa.float64()),
        *fields(pa.int64(), "n_plannable", "wanted", "drawn", "planned"),
    ]
)
"""Columns of `report.parquet`: `wanted` is what the tag should draw of its n_plannable objects (all of a rare one, the
quota of another), `drawn` the objects that it did draw, `planned` all planned chips whose object carries the tag (other
tags of the object may have drawn it, and one object may have several dates)."""

OUTCOMES_FILE = "outcomes.parquet"

OUTCOME_SCHEMA = pa.schema(
    [("gsd_m", pa.float64()), ("kind", pa.string()), ("outcome", pa.string()), ("n", pa.int64())]
)
"""Columns of `outcomes.parquet`: drawn objects by the finest GSD that drew them, their kind (node, line, area), and
`planned` or the reason why there is no chip (see `plan.PlanSummary`)."""

PLANNED = "planned"

SHORT_TAGS = 15
"""Tags named in the picture: those that lack most chips."""

COLOURS = {
    PLANNED: "#4c9f70",
    "outside": "#b0b0b0",
    "split": "#5b7db1",
    "size": "#8d6a9f",
    "near": "#7fb2c9",
    "season": "#d9b44a",
    "cloud": "#d98f4a",
    "date": "#c4574d",
}


def report_table(
    region: str,
    tags: TagPairs,
    snapshot: Snapshot,
    draws: Mapping[int, Drawn],
    plan: PlanSettings,
    planned: IntArray,
    bands: IntArray,
) -> pa.Table:
    """Wanted against achieved for each tag and each GSD that the snapshot counted; scenes go to the nearest.

    `draws` is what was drawn, by band of GSDs; of each planned chip `planned` has the row of the object and `bands` the
    band.
    """
    rows: list[tuple[Any, ...]] = []
    nearest = {band: snapshot.nearest_gsd(drawn.gsd_m) for band, drawn in draws.items()}
    n_tags = len(snapshot.keys)
    for gsd in sorted(set(nearest.values())):
        visible = np.zeros(n_tags, dtype=np.bool_)
        achieved = np.zeros(n_tags, dtype=np.int64)
        pairs = [np.zeros((0, 2), dtype=np.int64)]
        for band in (band for band, known in nearest.items() if known == gsd):
            seen = snapshot.visible(draws[band].gsd_m)
            visible |= seen
            pairs.append(np.column_stack([draws[band].pairs.objects, draws[band].pairs.tags]))
            chips_of = np.bincount(planned[bands == band], minlength=tags.objects.max(initial=-1) + 1)
            mine = tags.where(seen[tags.tags])
            achieved += np.bincount(mine.tags, weights=chips_of[mine.objects], minlength=n_tags).astype(np.int64)
        drawn = np.bincount(np.unique(np.concatenate(pairs), axis=0)[:, 1], minlength=n_tags)
        counts = snapshot.count_at(gsd)
        wanted = np.rint(probabilities(counts, plan) * counts).astype(np.int64)
        numbers = np.stack([counts, wanted, drawn, achieved])
        rows += [
            (snapshot.keys[tag], snapshot.values[tag], region, gsd, *numbers[:, tag].tolist())
            for tag in np.flatnonzero(visible & (counts > 0)).tolist()
        ]
    return rows_to_table([dict(zip(REPORT_SCHEMA.names, row, strict=True)) for row in rows], REPORT_SCHEMA)


def outcome_table(
    snapshot: Snapshot,
    draws: Mapping[int, Drawn],
    index: IntArray,
    kinds: npt.NDArray[np.str_],
    reasons: npt.NDArray[np.str_],
) -> pa.Table:
    """Drawn objects by GSD, kind and outcome.

    `index`, [n], are their rows as `draws` names them, by band of GSDs; of each there is the kind, and in `reasons` why
    there is no chip, "" where there is one.
    """
    finest = np.zeros(len(index), dtype=np.float64)
    for band in sorted(draws, reverse=True):
        finest[np.isin(index, draws[band].pairs.objects)] = snapshot.nearest_gsd(draws[band].gsd_m)
    drawn = pa.table({"gsd_m": finest, "kind": kinds, "outcome": np.where(reasons == "", PLANNED, reasons)})
    counted = drawn.group_by(drawn.schema.names).aggregate([([], "count_all")]).rename_columns(OUTCOME_SCHEMA.names)
    return counted.sort_by([(name, "ascending") for name in drawn.schema.names]).cast(OUTCOME_SCHEMA)


def short_tags(report: pa.Table) -> pa.Table:
    """The rows of a report with fewer chips than wanted, those that lack most first."""
    short = report.filter(pc.less(report["planned"], report["wanted"]))
    lacking = pc.subtract(short["wanted"], short["planned"])
    order = [("lacking", "descending"), ("key", "ascending"), ("value", "ascending"), ("gsd_m", "ascending")]
    return short.append_column("lacking", lacking).sort_by(order)


def plot_plan(plan_folder: Path, png_path: Path) -> None:
    """Draw what became of the drawn objects by GSD and kind, and the tags that lack most chips: a PNG of under 100 kB.

    Raises what `read_table` does.
    """
    from matplotlib.figure import Figure

    counted = read_table(plan_folder / OUTCOMES_FILE, OUTCOME_SCHEMA).to_pandas()
    short = short_tags(read_table(plan_folder / REPORT_FILE, REPORT_SCHEMA)).slice(0, SHORT_TAGS).to_pylist()
    figure = Figure(figsize=(9.0, 3.4), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    if len(counted):
        outcomes = counted.pivot(index=["gsd_m", "kind"], columns="outcome", values="n")
        outcomes = outcomes[[outcome for outcome in COLOURS if outcome in outcomes]]
        outcomes.index = [f"{gsd:.3g} m {kind}" for gsd, kind in outcomes.index]
        outcomes.plot.barh(stacked=True, width=0.8, color=COLOURS, ax=left)
    left.set_title("Objects drawn, and what became of them" if len(counted) else "No objects drawn", fontsize=9)
    names = [f"{row['key']}={row['value']}"[:32] + f"  {row['gsd_m']:.3g} m" for row in short]
    right.barh(names, [row["wanted"] for row in short], color="#dddddd", label="wanted")
    right.barh(names, [row["planned"] for row in short], color=COLOURS[PLANNED], height=0.5, label=PLANNED)
    right.set_title("Tags that lack most chips" if short else "No tag lacks chips", fontsize=9)
    for axes in (left, right):
        axes.invert_yaxis()
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=7)
    figure.savefig(png_path, metadata={"Software": None})
