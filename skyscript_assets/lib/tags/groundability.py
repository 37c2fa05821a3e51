"""Which tags can be seen from above, and at which ground sample distance at the coarsest: the paper's two stages.

Stage I is a logistic regression on text embeddings (visible or not), stage II an ordinal one (coarsest GSD), as in
SkyScript (arXiv 2312.12856, "Tag classification"), trained on the hand-made labels. What people decided stands: an
override wins over a label, a label over the policy of `text`, the policy over the model. Cross-validation tells what
the model is worth where nobody decided.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings import GSD_STEPS_M, TagSettings
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tags.labels import Label, Tag, read_labels
from skyscript_assets.lib.tags.text import attribute_reason, tag_text, text_reason
from skyscript_assets.lib.tags.vocabulary import VOCABULARY_FILE

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to (N, dim) embeddings."""

GROUNDABILITY_FILE = "groundability.parquet"
GROUNDABILITY_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("text", pa.string()),
        ("p_visible", pa.float64()),
        ("coarsest_gsd_m", pa.float64()),
        ("decided_by", pa.string()),
    ]
)
"""Columns of `groundability.parquet`, sorted by key and value: every tag of the vocabulary that is no text.
`coarsest_gsd_m` is null for what is never used; `p_visible` is stage I's, null where policy or rarity decided."""

REPORT_FILE = "report.json"

DECIDERS: tuple[str, ...] = ("override", "label", "policy", "model", "unseen")
"""Who may decide, the strongest first."""

FOLDS = 10
"""Folds of the cross-validation."""

VISIBLE_C = 30.0
"""scikit-learn's inverse regularisation C of stage I; between 10 and 100 the cross-validated F1 moves by less than its
spread over assignments of folds. Chosen, as the columns of `_Embedded`, on the first 445 labels."""

COARSEST_C = 3.0
"""The same of stage II; between 1 and 10 the mean error in steps moves by less than its spread."""

THRESHOLD_SCALE = 5.0
"""Value of stage II's indicator columns: the larger, the less the thresholds between steps are regularised."""

THREADS = 1
"""Threads of the linear algebra. The matrices are small: one thread is seven times as fast as two, and sums that are
not split come out the same on every machine."""

DOUBTFUL = 30
"""Tags that the report names for labelling next."""

_THRESHOLDS = len(GSD_STEPS_M) - 1


@dataclass(frozen=True)
class GroundabilitySummary:
    """What `decide_groundability` decided.

    Attributes:
        tags: Tags with a decision, text not counted.
        visible: Those that can be seen at some GSD.
        decided_by: Tags by who decided.
        labels: Labels that trained the model.
        stage_1_f1: Cross-validated F1 of stage I on keys it was not trained on.
        stage_2_exact: Share of visible labels whose step stage II hits, on keys it was not trained on.
        stage_2_within_one_step: The same, one step off allowed.
    """

    tags: int
    visible: int
    decided_by: dict[str, int]
    labels: int
    stage_1_f1: float
    stage_2_exact: float
    stage_2_within_one_step: float


# ---------------------------------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class _Embedded:
    """Embeddings of some tags: the whole tag (N, dim), and whole, key and value side by side (N, 3 * dim).

    Stage I reads all three: the value alone is what an unseen key shares with known ones (`yes`, `asphalt`, a number).
    Stage II has too few labels for so many columns and reads the whole tag.
    """

    whole: NDArray[np.float64]
    parts: NDArray[np.float64]

    def at(self, rows: Any) -> _Embedded:
        """The rows of an index or a mask."""
        return _Embedded(self.whole[rows], self.parts[rows])


def _embed(tags: Sequence[Tag], encode: Encode) -> _Embedded:
    texts = [
        *(tag_text(key, value) for key, value in tags),
        *(tag_text(key, "") for key, _ in tags),
        *(tag_text("", value) for _, value in tags),
    ]
    distinct = sorted(set(texts))
    rows = np.asarray(encode(distinct), np.float64)
    place = {text: row for row, text in enumerate(distinct)}
    whole, keys, values = np.split(rows[[place[text] for text in texts]], 3)
    return _Embedded(whole, np.hstack([whole, keys, values]))


@dataclass(frozen=True)
class _Model:
    """Both stages, linear in the embeddings.

    Stage II is the proportional-odds model (McCullagh 1980): one direction "seen at coarser GSDs" for all steps, and a
    threshold between each two of them.
    """

    visible_weights: NDArray[np.float64]
    visible_bias: float
    coarser_weights: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    @staticmethod
    def fit(tags: _Embedded, visible: NDArray[np.bool_], steps: NDArray[np.int64]) -> _Model:
        """Train on N tags.

        Args:
            tags: Their embeddings.
            visible: (N,) whether the tag can be seen; both answers occur.
            steps: (N,) index into `GSD_STEPS_M`, read where visible.
        """
        from sklearn.linear_model import LogisticRegression

        stage_1 = LogisticRegression(C=VISIBLE_C, solver="newton-cg", max_iter=500).fit(tags.parts, visible)
        # Each visible tag answers five times "is it seen at a coarser GSD than this step?", with the step's indicator
        # beside its embedding: a binary regression on these rows is the cumulative one on the steps.
        seen, step = tags.whole[visible], steps[visible]
        indicators = np.tile(np.eye(_THRESHOLDS) * THRESHOLD_SCALE, (len(seen), 1))
        rows = np.hstack([np.repeat(seen, _THRESHOLDS, axis=0), indicators])
        coarser = (step[:, None] > np.arange(_THRESHOLDS)).ravel()
        stage_2 = LogisticRegression(C=COARSEST_C, solver="newton-cg", max_iter=500, fit_intercept=False)
        weights = stage_2.fit(rows, coarser).coef_[0] if 0 < coarser.sum() < len(coarser) else _constant(rows, coarser)
        return _Model(
            stage_1.coef_[0],
            float(stage_1.intercept_[0]),
            weights[:-_THRESHOLDS],
            weights[-_THRESHOLDS:] * THRESHOLD_SCALE,
        )

    def chance(self, tags: _Embedded) -> NDArray[np.float64]:
        """Probability that each tag can be seen, (N,)."""
        # tanh does not overflow where exp would.
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * (tags.parts @ self.visible_weights + self.visible_bias)))

    def steps(self, tags: _Embedded) -> NDArray[np.int64]:
        """The median step of each tag, (N,) index into `GSD_STEPS_M`."""
        above = (tags.whole @ self.coarser_weights)[:, None] + self.thresholds
        return np.asarray((above > 0).sum(axis=1), np.int64)


def _constant(rows: NDArray[np.float64], coarser: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of a stage II whose labels all lie at the finest or all at the coarsest step."""
    weights = np.zeros(rows.shape[1])
    weights[-_THRESHOLDS:] = 1.0 if coarser.any() else -1.0
    return weights


# ----------------------------------------------------------------------------------------------------------- decisions


def decide_groundability(
    vocabulary_folder: Path,
    labels_path: Path,
    overrides_path: Path | None,
    encode: Encode,
    tags: TagSettings,
    out: Path,
) -> GroundabilitySummary:
    """Decide every tag of the vocabulary that is no text into `groundability.parquet`, with `report.json`.

    Args:
        vocabulary_folder: Output of `vocabulary.count_vocabulary`.
        labels_path: Hand-made labels; they train the model too.
        overrides_path: More rows of that layout, which win over labels and do not train.
        encode: Text encoder.
        tags: Least count and threshold.
        out: Existing folder that receives the files.

    Raises:
        UpstreamMissingError: the vocabulary does not exist.
        MissingInputError: a label file cannot be read.
        SettingsError: a label file is wrong, names text such as a phone number, or has labels of one kind alone.
    """
    labels = _read_decisions(labels_path)
    overrides = {} if overrides_path is None else _read_decisions(overrides_path)
    if len({label.visible for label in labels.values()}) < 2:
        raise SettingsError(f"{labels_path}: the model needs visible and invisible labels; add rows of both kinds")
    from threadpoolctl import threadpool_limits

    counts, texts = _totals(vocabulary_folder)
    deciders = {tag: _decider(tag, n, labels, overrides, tags.min_count) for tag, n in counts.items()}

    labelled = list(labels)
    modelled = [tag for tag, who in deciders.items() if who not in ("policy", "unseen")]
    everything = sorted({*labelled, *modelled})
    embedded = _embed(everything, encode)
    row = {tag: i for i, tag in enumerate(everything)}
    truth = _Truth.of(labels)
    trained = embedded.at([row[tag] for tag in labelled])
    with threadpool_limits(THREADS):
        model = _Model.fit(trained, truth.visible, truth.steps)
        validated = _cross_validate(trained, truth, tags.threshold)

    asked = embedded.at(np.array([row[tag] for tag in modelled], np.int64))
    # Rounded, so that the last bits of another machine's arithmetic do not make another file.
    chances = dict(zip(modelled, np.round(model.chance(asked), 6).tolist(), strict=True))
    steps = dict(zip(modelled, model.steps(asked).tolist(), strict=True))
    rows = []
    for tag in sorted(counts):
        who = deciders[tag]
        person = {"override": overrides, "label": labels}.get(who, {}).get(tag)
        modelled_gsd = GSD_STEPS_M[steps[tag]] if who == "model" and chances[tag] >= tags.threshold else None
        rows.append(
            {
                "key": tag[0],
                "value": tag[1],
                "text": tag_text(*tag),
                "p_visible": chances.get(tag),
                "coarsest_gsd_m": modelled_gsd if person is None else person.coarsest_gsd_m,
                "decided_by": who,
            }
        )
    write_table(out / GROUNDABILITY_FILE, rows_to_table(rows, GROUNDABILITY_SCHEMA))
    report = {
        "labels": _label_counts(labels, overrides),
        "decisions": _decision_counts(rows),
        "text_tags": dict(sorted(texts.items())),
        **validated,
        "label_next": _doubtful(rows, counts, tags.threshold),
    }
    (out / REPORT_FILE).write_text(json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return GroundabilitySummary(
        tags=len(rows),
        visible=sum(r["coarsest_gsd_m"] is not None for r in rows),
        decided_by={who: n for who in DECIDERS if (n := sum(r["decided_by"] == who for r in rows))},
        labels=len(labels),
        stage_1_f1=report["stage_1"]["unseen_keys"]["model"]["f1"],
        stage_2_exact=report["stage_2"]["unseen_keys"]["model"]["exact"],
        stage_2_within_one_step=report["stage_2"]["unseen_keys"]["model"]["within_one_step"],
    )


def _read_decisions(path: Path) -> Mapping[Tag, Label]:
    """Labels or overrides; contacts, names and other text may not be made visible by any of them."""
    found = read_labels(path)
    text = [
        f"line {label.line}, column key: {key}={value} is text ({reason}) and never used"
        for (key, value), label in found.items()
        if (reason := text_reason(key, value)) is not None
    ]
    if text:
        raise SettingsError("\n".join([f"{path} has {len(text)} wrong rows: remove them", *(f"  - {t}" for t in text)]))
    return found


def _totals(vocabulary_folder: Path) -> tuple[dict[Tag, int], Counter[str]]:
    """Objects of each tag that is no text, over regions and kinds; how many tags are text, by reason."""
    table = read_table(vocabulary_folder / VOCABULARY_FILE, columns=["key", "value", "n"])
    totals = table.group_by(["key", "value"]).aggregate([("n", "sum")])
    totals = totals.sort_by([("key", "ascending"), ("value", "ascending")])
    counts: dict[Tag, int] = {}
    texts: Counter[str] = Counter()
    for key, value, n in zip(*(totals[c].to_pylist() for c in ("key", "value", "n_sum")), strict=True):
        reason = text_reason(key, value)
        if reason is None:
            counts[key, value] = n
        else:
            texts[reason] += 1
    return counts, texts


def _decider(tag: Tag, n: int, labels: Mapping[Tag, Label], overrides: Mapping[Tag, Label], min_count: int) -> str:
    if tag in overrides:
        return "override"
    if tag in labels:
        return "label"
    if attribute_reason(tag[0]) is not None:
        return "policy"
    return "model" if n >= min_count else "unseen"


# -------------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True)
class _Truth:
    """Labels as arrays: keys (N,), visible (N,), step (N,) where visible and -1 elsewhere, tags."""

    tags: tuple[Tag, ...]
    visible: NDArray[np.bool_]
    steps: NDArray[np.int64]

    @staticmethod
    def of(labels: Mapping[Tag, Label]) -> _Truth:
        return _Truth(
            tuple(labels),
            np.array([label.visible for label in labels.values()], np.bool_),
            np.array(
                [
                    -1 if label.coarsest_gsd_m is None else GSD_STEPS_M.index(label.coarsest_gsd_m)
                    for label in labels.values()
                ],
                np.int64,
            ),
        )


@dataclass(frozen=True)
class _Predictions:
    """What the model and the baselines said of each label when it was held out."""

    chance: NDArray[np.float64]
    step: NDArray[np.int64]
    key_visible: NDArray[np.bool_]
    key_step: NDArray[np.int64]
    middle_step: NDArray[np.int64]


def _folds(names: Sequence[str]) -> NDArray[np.int64]:
    """A fold for each entry; equal names share theirs, and folds differ by one name at most."""
    shuffled = sorted(set(names), key=lambda name: unit_hash("fold", name))
    fold = {name: i % FOLDS for i, name in enumerate(shuffled)}
    return np.array([fold[name] for name in names], np.int64)


def _cross_validate(tags: _Embedded, truth: _Truth, threshold: float) -> dict[str, Any]:
    """Figures of both stages and of their baselines, with held-out keys and with held-out tags of known keys."""
    protocols = {
        "unseen_keys": _folds([key for key, _ in truth.tags]),
        "known_keys": _folds([f"{key}={value}" for key, value in truth.tags]),
    }
    policy = np.array([attribute_reason(key) is not None for key, _ in truth.tags], np.bool_)
    stage_1, stage_2 = {}, {}
    for name, folds in protocols.items():
        said = _held_out(tags, truth, folds)
        model = said.chance >= threshold
        stage_1[name] = {
            "model": _binary_metrics(truth.visible, model),
            "model_and_policy": _binary_metrics(truth.visible, model & ~policy),
            "model_where_policy_is_silent": _binary_metrics(truth.visible[~policy], model[~policy]),
            "all_yes": _binary_metrics(truth.visible, np.ones(len(model), np.bool_)),
            "all_yes_where_policy_is_silent": _binary_metrics(
                truth.visible[~policy], np.ones((~policy).sum(), np.bool_)
            ),
            "key_majority": _binary_metrics(truth.visible, said.key_visible),
        }
        seen = truth.visible
        stage_2[name] = {
            "model": _step_metrics(truth.steps[seen], said.step[seen]),
            "middle_step": _step_metrics(truth.steps[seen], said.middle_step[seen]),
            "key_middle_step": _step_metrics(truth.steps[seen], said.key_step[seen]),
        }
    return {"folds": FOLDS, "stage_1": stage_1, "stage_2": stage_2}


def _held_out(tags: _Embedded, truth: _Truth, folds: NDArray[np.int64]) -> _Predictions:
    n = len(truth.tags)
    said = _Predictions(
        np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.int64), np.zeros(n, np.int64)
    )
    keys = np.array([key for key, _ in truth.tags], object)
    for fold in np.unique(folds):
        test, train = folds == fold, folds != fold
        if len(set(truth.visible[train].tolist())) < 2:  # nothing to learn from: the zeros stand
            continue
        model = _Model.fit(tags.at(train), truth.visible[train], truth.steps[train])
        said.chance[test] = model.chance(tags.at(test))
        said.step[test] = model.steps(tags.at(test))
        seen = train & truth.visible
        middle = _median(truth.steps[seen])
        said.middle_step[test] = middle
        for i in np.flatnonzero(test):
            same = train & (keys == keys[i])
            known = truth.visible[same] if same.any() else truth.visible[train]
            said.key_visible[i] = known.mean() > 0.5
            same &= truth.visible
            said.key_step[i] = _median(truth.steps[same]) if same.any() else middle
    return said


def _median(steps: NDArray[np.int64]) -> int:
    return int(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else 0


def _binary_metrics(truth: NDArray[np.bool_], said: NDArray[np.bool_]) -> dict[str, float]:
    hits = int((truth & said).sum())
    precision, recall = hits / max(1, int(said.sum())), hits / max(1, int(truth.sum()))
    return {
        "f1": round(2 * hits / max(1, int(truth.sum() + said.sum())), 4),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "accuracy": round(float((truth == said).mean()) if len(truth) else 0.0, 4),
    }


def _step_metrics(truth: NDArray[np.int64], said: NDArray[np.int64]) -> dict[str, float]:
    off = np.abs(truth - said)
    return {
        "exact": round(float((off == 0).mean()), 4),
        "within_one_step": round(float((off <= 1).mean()), 4),
        "mean_steps_off": round(float(off.mean()), 4),
    }


def _label_counts(labels: Mapping[Tag, Label], overrides: Mapping[Tag, Label]) -> dict[str, Any]:
    steps = Counter(label.coarsest_gsd_m for label in labels.values())
    return {
        "labels": len(labels),
        "keys": len({key for key, _ in labels}),
        "overrides": len(overrides),
        "visible": sum(label.visible for label in labels.values()),
        "by_coarsest_gsd_m": {f"{step:g}": steps[step] for step in GSD_STEPS_M},
    }


def _decision_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    return {
        who: {
            "tags": sum(row["decided_by"] == who for row in rows),
            "visible": sum(row["decided_by"] == who and row["coarsest_gsd_m"] is not None for row in rows),
        }
        for who in DECIDERS
    }


def _doubtful(rows: Sequence[Mapping[str, Any]], counts: Mapping[Tag, int], threshold: float) -> list[dict[str, Any]]:
    """Frequent tags on which the model is least sure: objects times closeness to the threshold."""

    def worth(row: Mapping[str, Any]) -> float:
        return counts[row["key"], row["value"]] * (1.0 - abs(float(row["p_visible"]) - threshold))

    asked = sorted(
        (row for row in rows if row["decided_by"] == "model"), key=lambda r: (-worth(r), r["key"], r["value"])
    )
    return [
        {
            "tag": f"{row['key']}={row['value']}",
            "n": counts[row["key"], row["value"]],
            "p_visible": row["p_visible"],
            "coarsest_gsd_m": row["coarsest_gsd_m"],
        }
        for row in asked[:DOUBTFUL]
    ]


def plot_groundability(groundability_folder: Path, png_path: Path) -> None:
    """Draw the decisions by coarsest GSD and decider, and the cross-validated figures beside their baselines.

    Args:
        groundability_folder: Output of `decide_groundability`.
        png_path: The picture, PNG of under 100 kB.

    Raises:
        UpstreamMissingError: the folder lacks a file.
        CorruptInputError: the report is not JSON.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    table = read_table(groundability_folder / GROUNDABILITY_FILE, GROUNDABILITY_SCHEMA)
    report = _read_report(groundability_folder / REPORT_FILE)
    found = Counter(zip(table["decided_by"].to_pylist(), table["coarsest_gsd_m"].to_pylist(), strict=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.0, 3.6), dpi=90)
    steps: list[float | None] = [*GSD_STEPS_M, None]
    names = [*(f"{step:g}" for step in GSD_STEPS_M), "not visible"]
    base = np.zeros(len(steps))
    for who in DECIDERS:
        heights = np.array([found[who, step] for step in steps], float)
        if heights.any():
            left.bar(names, heights, bottom=base, label=who)
            base += heights
    left.set_xlabel("coarsest GSD, m")
    left.set_ylabel("tags")
    left.set_title("Decisions")
    left.legend(frameon=False, fontsize=8)
    bars = {
        "I: F1, model": report["stage_1"]["unseen_keys"]["model"]["f1"],
        "I: F1, all yes": report["stage_1"]["unseen_keys"]["all_yes"]["f1"],
        "II: exact, model": report["stage_2"]["unseen_keys"]["model"]["exact"],
        "II: exact, middle step": report["stage_2"]["unseen_keys"]["middle_step"]["exact"],
        "II: within one, model": report["stage_2"]["unseen_keys"]["model"]["within_one_step"],
        "II: within one, middle step": report["stage_2"]["unseen_keys"]["middle_step"]["within_one_step"],
    }
    drawn = right.barh(list(bars), list(bars.values()), color=["C0", "0.7"] * 3)
    right.bar_label(drawn, fmt="%.2f", padding=2, fontsize=8)
    right.set_xlim(0.0, 1.05)
    right.invert_yaxis()
    right.set_title("Cross-validation on unseen keys")
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(png_path, metadata={"Software": None})
    plt.close(figure)


def _read_report(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UpstreamMissingError(f"{path} does not exist: materialize tag_groundability first") from None
    except (OSError, ValueError) as error:
        raise CorruptInputError(f"{path} cannot be read ({error}); materialize tag_groundability again") from error
