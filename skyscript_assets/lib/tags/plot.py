"""The picture of groundability: decisions, and what the model is worth on keys that it was not trained on."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.groundability import DECIDERS, GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA, REPORT_FILE


def plot_groundability(groundability_folder: Path, png_path: Path) -> None:
    """Draw decisions, precision and recall, calibration and confusion: a PNG of under 150 kB.

    Raises what `read_table` and `read_report` do.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    table = read_table(groundability_folder / GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA)
    report = read_report(groundability_folder)
    found = Counter(zip(table["decided_by"].to_pylist(), table["coarsest_gsd_m"].to_pylist(), strict=True))
    with mpl.rc_context({"font.size": 8, "axes.titlesize": 9, "legend.fontsize": 7, "legend.frameon": False}):
        figure = Figure(figsize=(9.0, 7.4), dpi=90, layout="constrained")
        panels = figure.subplots(2, 2).flat
        _decisions(panels[0], found)
        _precision_recall(panels[1], report)
        _reliability(panels[2], report["calibration"])
        _confusion(panels[3], report["confusion"])
        for panel in panels:
            panel.spines[["top", "right"]].set_visible(False)
        figure.savefig(png_path, metadata={"Software": None})


def read_report(groundability_folder: Path) -> Any:
    """The report of `groundability.decide_groundability`.

    Raises:
        UpstreamMissingError: there is none.
        CorruptInputError: it is not JSON.
    """
    path = groundability_folder / REPORT_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UpstreamMissingError(f"{path} does not exist: materialize tag_groundability first") from None
    except (OSError, ValueError) as error:
        raise CorruptInputError(f"{path} cannot be read ({error}); materialize tag_groundability again") from error


def _decisions(panel: Any, found: Counter[tuple[str, float | None]]) -> None:
    steps: list[float | None] = [*GSD_STEPS_M, None]
    names = [*(f"{step:g}" for step in GSD_STEPS_M), "not used"]
    base = np.zeros(len(steps))
    for i, who in enumerate(DECIDERS):
        heights = np.array([found[who, step] for step in steps], float)
        if heights.any():
            panel.bar(names, heights, bottom=base, label=who, color=f"C{i}")
            base += heights
    # Most tags are rare and unused: on a linear axis the steps would not be seen.
    panel.set_yscale("symlog", linthresh=100)
    panel.set(xlabel="coarsest GSD, m", ylabel="tags (logarithmic above 100)", title="Decisions")
    panel.legend(loc="upper left")


def _precision_recall(panel: Any, report: Any) -> None:
    recall, precision = ([point[name] for point in report["precision_recall"]] for name in ("recall", "precision"))
    panel.plot(recall, precision, marker=".", label="threshold 0.05 to 0.95")
    now = report["stage_1"]["unseen_keys"]["decision"]
    used = f"used: {report['unseen_threshold']:g}, F1 {now['f1']:.2f}"
    panel.plot(now["recall"], now["precision"], "o", color="C3", label=used)
    panel.axhline(report["stage_1"]["unseen_keys"]["all_yes"]["precision"], color="0.7", linestyle=":", label="all yes")
    panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="Stage I on unseen keys")
    panel.legend(loc="lower left")


def _reliability(panel: Any, calibration: Any) -> None:
    bins = calibration["reliability"]
    panel.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    panel.plot([b["mean_probability"] for b in bins], [b["share_visible"] for b in bins], marker="o")
    for b in bins:
        panel.annotate(
            str(b["labels"]), (b["mean_probability"], b["share_visible"]), (4, -8), textcoords="offset points"
        )
    title = f"Calibration: Brier {calibration['brier']:.3f}, expected error {calibration['expected_error']:.3f}"
    panel.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability said", ylabel="share visible", title=title)


def _confusion(panel: Any, confusion: Any) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay

    table = np.array(confusion["labels_by_decision"])
    names = ["no", *confusion["grades"][1:]]
    ConfusionMatrixDisplay(table, display_labels=names).plot(cmap="Blues", ax=panel, colorbar=False)
    panel.set(xlabel="decision on the unseen key: coarsest GSD, m", ylabel="label", title="Both stages")
