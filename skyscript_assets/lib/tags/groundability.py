"""Which tags can be seen from above, and at which ground sample distance at the coarsest: who decides, and the report.

What people decided stands: an override wins over a label, a label over the policy of `text`, the policy over the model
of `lib.tags.model`. The model decides what nobody labelled, also under keys without any label; what those decisions
are worth is measured in `validation` on keys held out. A tag on fewer objects than `min_count`, those of the packaged
vocabulary counted too, is not asked about: it stays unused and is called `unseen`, because rare values are mostly
typing errors and free text.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.settings.base import GSD_STEPS_M
from skyscript_assets.lib.settings.plant import TagSettings
from skyscript_assets.lib.tables import fields, rows_to_table, write_table
from skyscript_assets.lib.tags.agreement import label_agreement
from skyscript_assets.lib.tags.embedding import Encode
from skyscript_assets.lib.tags.features import TagStatistics, read_statistics, tag_features
from skyscript_assets.lib.tags.labels import Label, Tag, read_labels
from skyscript_assets.lib.tags.model import GroundabilityModel, decided_steps, kernel
from skyscript_assets.lib.tags.text import attribute_reason, tag_text
from skyscript_assets.lib.tags.validation import Truth, cross_validate

GROUNDABILITY_FILE = "groundability.parquet"
GROUNDABILITY_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "key", "value", "text"),
        ("n", pa.int64()),
        ("p_visible", pa.float64()),
        ("p_steps", pa.list_(pa.float64())),
        ("coarsest_gsd_m", pa.float64()),
        ("decided_by", pa.string()),
    ]
)
"""Columns of `groundability.parquet`, sorted by key and value: every tag of the vocabulary that is no text.
`n` is the number of objects behind the tag's statistics, those of the packaged vocabulary too: of few the model knows
little but words. `coarsest_gsd_m` is null for what is never used; `p_visible` is stage I's probability and `p_steps`
stage II's of each of `GSD_STEPS_M`, null where policy or rarity decided."""

REPORT_FILE = "report.json"

DECIDERS: tuple[str, ...] = ("override", "label", "policy", "model", "unseen")
"""Who may decide, the strongest first."""

DOUBTFUL = 30
"""Tags that the report names for labelling next."""


@dataclass(frozen=True)
class LabelFiles:
    """Decisions that the model does not make, files of one layout (`labels.LABEL_COLUMNS`).

    Attributes:
        labels: What was decided in the end; it trains the model.
        overrides: Rows that win over labels and do not train.
        first_pass: What the first labeller said, where two labelled.
        second_pass: What the second said without knowing the first's labels.
    """

    labels: Path
    overrides: Path | None = None
    first_pass: Path | None = None
    second_pass: Path | None = None


def decide_groundability(
    vocabulary_folder: Path, files: LabelFiles, encode: Encode, tags: TagSettings, out: Path
) -> dict[str, Any]:
    """Decide every tag of the vocabulary that is no text into `groundability.parquet`, with `report.json`.

    Returns:
        `tags` with a decision, text not counted; those that are `visible` at some GSD; `decided_by`: tags by who
            decided; `labels` that trained the model; of keys that it was not trained on `stage_1_f1` (policy, then
            model, cross-validated), `stage_2_exact`, the share of visible labels whose step stage II hits, and
            `stage_2_within_one_step`, the same with one step off allowed; `visibility_kappa`: Cohen's kappa of two
            labellers on whether a tag can be seen, None without a second pass.

    Raises:
        UpstreamMissingError: the vocabulary does not exist.
        MissingInputError: a label file cannot be read.
        SettingsError: a label file is wrong, or has labels of one kind alone.
    """
    labels = read_labels(files.labels)
    overrides = {} if files.overrides is None else read_labels(files.overrides)
    if len({label.visible for label in labels.values()}) < 2:
        raise SettingsError(f"{files.labels}: the model needs visible and invisible labels; add rows of both kinds")
    agreement = None
    if files.first_pass is not None and files.second_pass is not None:
        agreement = label_agreement(read_labels(files.first_pass), read_labels(files.second_pass))

    statistics = read_statistics(vocabulary_folder)
    deciders = {
        tag: _decider(tag, sum(statistics.kinds[tag]), labels, overrides, tags.min_count) for tag in statistics.counts
    }
    asked = [tag for tag, who in deciders.items() if who not in ("policy", "unseen")]
    said, validated = _ask_model(asked, labels, statistics, encode, tags)
    rows = [
        {"n": sum(statistics.kinds[tag])} | _row(tag, who, overrides.get(tag) or labels.get(tag), said.get(tag))
        for tag, who in deciders.items()
    ]
    write_table(out / GROUNDABILITY_FILE, rows_to_table(rows, GROUNDABILITY_SCHEMA))
    decided = Counter(row["decided_by"] for row in rows)
    seen = Counter(row["decided_by"] for row in rows if row.get("coarsest_gsd_m") is not None)
    report = {
        "labels": _label_counts(labels, overrides, statistics),
        "agreement": agreement,
        "decisions": {who: {"tags": decided[who], "visible": seen[who]} for who in DECIDERS},
        "text_tags": dict(sorted(statistics.texts.items())),
        **validated,
        "label_next": _doubtful(rows, statistics.counts),
    }
    write_text(out / REPORT_FILE, json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return {
        "tags": len(rows),
        "visible": seen.total(),
        "decided_by": {who: decided[who] for who in DECIDERS if decided[who]},
        "labels": len(labels),
        "stage_1_f1": report["stage_1"]["unseen_keys"]["decision"]["f1"],
        "stage_2_exact": report["stage_2"]["unseen_keys"]["model"]["exact"],
        "stage_2_within_one_step": report["stage_2"]["unseen_keys"]["model"]["within_one_step"],
        "visibility_kappa": None if agreement is None else agreement["visibility"]["kappa"],
    }


def _decider(tag: Tag, n: int, labels: Mapping[Tag, Label], overrides: Mapping[Tag, Label], min_count: int) -> str:
    if tag in overrides:
        return "override"
    if tag in labels:
        return "label"
    if attribute_reason(tag[0]) is not None:
        return "policy"
    return "model" if n >= min_count else "unseen"


def _ask_model(
    asked: Sequence[Tag], labels: Mapping[Tag, Label], statistics: TagStatistics, encode: Encode, tags: TagSettings
) -> tuple[dict[Tag, dict[str, Any]], dict[str, Any]]:
    """The columns that the model fills for some tags, and the figures of its cross-validation."""
    truth = Truth.of(labels)
    everything = [*labels, *(tag for tag in asked if tag not in labels)]
    rows = np.hstack([*tag_features(everything, len(labels), statistics, encode).values()])
    place = {tag: i for i, tag in enumerate(everything)}
    taught = rows[: len(labels)]
    model = GroundabilityModel.fit(kernel(taught, taught), truth.visible, truth.steps, truth.keys, ~truth.ruled)
    similar = kernel(rows[[place[tag] for tag in asked]], taught)
    # Rounded, so that the last bits of another machine's arithmetic do not make another file.
    chances = np.round(model.chance(similar), 6)
    step_chances = np.round(model.step_chances(similar), 6)
    validated = cross_validate(taught, truth, tags.threshold, tags.unseen_threshold)
    known = set(truth.keys)
    least = np.array([tags.threshold if key in known else tags.unseen_threshold for key, _ in asked])
    steps = np.where(chances >= least, decided_steps(step_chances), -1)
    said = {
        tag: {"p_visible": chance, "p_steps": of_steps, "coarsest_gsd_m": GSD_STEPS_M[step] if step >= 0 else None}
        for tag, chance, of_steps, step in zip(
            asked, chances.tolist(), step_chances.tolist(), steps.tolist(), strict=True
        )
    }
    return said, validated


def _row(tag: Tag, who: str, person: Label | None, said: Mapping[str, Any] | None) -> dict[str, Any]:
    row = {"key": tag[0], "value": tag[1], "text": tag_text(*tag), "decided_by": who} | dict(said or {})
    return row if person is None else row | {"coarsest_gsd_m": person.coarsest_gsd_m}


def _label_counts(
    labels: Mapping[Tag, Label], overrides: Mapping[Tag, Label], statistics: TagStatistics
) -> dict[str, Any]:
    steps = Counter(label.coarsest_gsd_m for label in labels.values())
    return {
        "labels": len(labels),
        "keys": len({key for key, _ in labels}),
        "overrides": len(overrides),
        "visible": sum(label.visible for label in labels.values()),
        "not_in_vocabulary": sum(tag not in statistics.counts for tag in labels),
        "under_the_policy": sum(attribute_reason(key) is not None for key, _ in labels),
        "by_coarsest_gsd_m": {f"{step:g}": steps[step] for step in GSD_STEPS_M},
    }


def _doubtful(rows: Sequence[Mapping[str, Any]], counts: Mapping[Tag, int]) -> list[dict[str, Any]]:
    """Tags whose label is worth most: objects times the model's doubt, which is the entropy of `p_visible` in bits."""
    asked: list[dict[str, Any]] = []
    for row in rows:
        if row["decided_by"] == "model":
            chance = row["p_visible"]
            doubt = -sum(p * math.log2(p) for p in (chance, 1.0 - chance) if p > 0.0)
            named = {"tag": f"{row['key']}={row['value']}", "n": counts[row["key"], row["value"]]}
            shown = {name: row[name] for name in ("p_visible", "coarsest_gsd_m")}
            asked.append(named | shown | {"doubt": round(doubt, 4)})
    return sorted(asked, key=lambda found: (-found["n"] * found["doubt"], found["tag"]))[:DOUBTFUL]
