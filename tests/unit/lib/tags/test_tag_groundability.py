"""Who decides about a tag, what the model learns, and what the report says."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.settings.plant import TagSettings
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tags.groundability import (
    GROUNDABILITY_SCHEMA,
    LabelFiles,
    decide_groundability,
)
from skyscript_assets.lib.tags.plot import plot_groundability
from skyscript_assets.lib.tags.vocabulary import COOCCURRENCE_SCHEMA, VOCABULARY_SCHEMA

pytestmark = pytest.mark.usefixtures("packaged")

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
PASSES = ("overrides", "first_pass", "second_pass")
HEADER = "key,value,visible,coarsest_gsd_m,reason\n"

GROUND = {"grass": 1, "sand": 10, "forest": 30, "water": 30, "rock": 10, "heath": 10}
SMALL = ["bench", "table", "lamp", "rack"]
RULES = ["private", "customers", "permit", "delivery", "resident", "toll", "guests", "staff", "members", "pupils"]
# Each word stands under five keys, so that a held-out key leaves its words known.
LABELS = "".join(
    "".join(f"land{i},{word},yes,{gsd},ground\n" for word, gsd in GROUND.items())
    + "".join(f"furniture{i},{word},yes,0.1,small\n" for word in SMALL)
    + "".join(f"entry{i},{word},no,,rule\n" for word in RULES)
    for i in range(1, 6)
)


@pytest.fixture
def decide(tmp_path: Path, bag_of_words: Encode) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Decides a vocabulary given as {"key=value": objects}; returns the summary and the rows by tag.

    `overrides`, `first_pass` and `second_pass` are the rows of these files; what else is named is a setting.
    """

    def run(counts: dict[str, int], labels: str = LABELS, **rest: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = [
            {"key": key, "value": value, "text": "", "region": "a", "kind": "node", "n": n, "n_plannable": n}
            for (key, value), n in ((tag.split("=", 1), n) for tag, n in counts.items())
        ]
        write_table(tmp_path / "vocabulary.parquet", rows_to_table(rows, VOCABULARY_SCHEMA))
        write_table(tmp_path / "cooccurrence.parquet", COOCCURRENCE_SCHEMA.empty_table())
        texts = {"labels": labels} | {name: rest.pop(name) for name in PASSES if name in rest}
        for name, text in texts.items():
            (tmp_path / f"{name}.csv").write_text(HEADER + text, encoding="utf-8")
        files = LabelFiles(**{name: tmp_path / f"{name}.csv" for name in texts})
        summary = decide_groundability(tmp_path, files, bag_of_words, TagSettings(**rest), tmp_path)
        table = pq.read_table(tmp_path / "groundability.parquet", schema=GROUNDABILITY_SCHEMA)
        return summary, {f"{row['key']}={row['value']}": row for row in table.to_pylist()}

    return run


def test_override_wins_over_label_over_policy_over_model(decide: Callable[..., Any]) -> None:
    counts = {"land1=grass": 9, "land1=sand": 9, "religion=hindu": 9, "surface=sand": 9, "surface=rock": 1}
    summary, rows = decide(counts, overrides="land1,grass,no,,not here\n")
    assert {tag: row["decided_by"] for tag, row in rows.items()} == {
        "land1=grass": "override",
        "land1=sand": "label",
        "religion=hindu": "policy",
        "surface=sand": "model",
        "surface=rock": "unseen",
    }
    assert rows["land1=grass"]["coarsest_gsd_m"] is None
    assert rows["land1=sand"]["coarsest_gsd_m"] == 10.0
    assert rows["religion=hindu"]["coarsest_gsd_m"] is None
    assert rows["religion=hindu"]["p_visible"] is None
    assert rows["surface=rock"]["coarsest_gsd_m"] is None
    assert summary["decided_by"] == {"override": 1, "label": 1, "policy": 1, "model": 1, "unseen": 1}
    assert summary["tags"] == 5
    assert summary["labels"] == 100


def test_a_tag_that_is_rare_here_and_known_elsewhere_gets_a_decision(
    decide: Callable[..., Any], packaged: Callable[[str], None]
) -> None:
    packaged("surface,rock,9,0,9,0,,,5,5\n")
    _, rows = decide({"surface=sand": 9, "surface=rock": 1, "surface=grass": 1})
    assert [rows[f"surface={value}"]["decided_by"] for value in ("rock", "grass")] == ["model", "unseen"]
    assert set(rows) == {"surface=sand", "surface=rock", "surface=grass"}


def test_an_override_may_make_an_attribute_visible(decide: Callable[..., Any]) -> None:
    _, rows = decide({"lit=yes": 3}, overrides="lit,yes,yes,0.1,night images\n")
    assert rows["lit=yes"]["coarsest_gsd_m"] == 0.1


def test_the_model_learns_what_labels_say(decide: Callable[..., Any]) -> None:
    _, rows = decide({"surface=water": 5, "surface=forest": 5, "stop=permit": 5, "stop=toll": 5, "park=bench": 5})
    assert rows["surface=water"]["p_visible"] > 0.5 > rows["stop=permit"]["p_visible"]
    assert rows["stop=toll"]["coarsest_gsd_m"] is None
    # Steps come out in the order of sizes.
    assert rows["surface=forest"]["coarsest_gsd_m"] >= 10.0
    assert rows["park=bench"]["coarsest_gsd_m"] <= 1.0


def test_a_higher_threshold_lets_fewer_tags_through(decide: Callable[..., Any]) -> None:
    counts = {f"surface={word}": 5 for word in GROUND}
    labels = LABELS + "surface,clay,yes,1,ground\n"
    for known, setting in ((LABELS, "unseen_threshold"), (labels, "threshold")):
        for least, some in ((0.4, True), (1.0, False)):
            found = decide(counts, labels=known, **{setting: least})[1].values()
            assert any(row["coarsest_gsd_m"] is not None for row in found) == some


def test_the_table_tells_how_many_objects_are_behind_the_statistics(
    decide: Callable[..., Any], packaged: Callable[[str], None]
) -> None:
    packaged("surface,rock,9,0,9,0,,,5,5\n")
    _, rows = decide({"surface=rock": 2, "surface=grass": 3})
    assert [rows[f"surface={value}"]["n"] for value in ("rock", "grass")] == [11, 3]


def test_names_contacts_and_numbers_get_no_row(decide: Callable[..., Any], tmp_path: Path) -> None:
    _, rows = decide({"name=Anna": 9, "phone=144": 9, "width=2": 9, "land1=grass": 9})
    assert list(rows) == ["land1=grass"]
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["text_tags"] == {"contact": 1, "name": 1, "number": 1}


@pytest.mark.parametrize("where", ["labels", "overrides", "first_pass"])
def test_a_contact_cannot_be_made_visible(decide: Callable[..., Any], where: str) -> None:
    row = "phone,144,yes,0.1,because\n"
    files = {"labels": LABELS + row} if where == "labels" else {where: row, "second_pass": row}
    with pytest.raises(SettingsError, match=rf"{where}\.csv has 1 wrong rows(.|\n)*phone=144 is text \(contact\)"):
        decide({"land1=grass": 9}, **files)


def test_labels_of_one_kind_are_refused(decide: Callable[..., Any]) -> None:
    with pytest.raises(SettingsError, match="visible and invisible labels"):
        decide({"land1=grass": 9}, labels="land1,grass,yes,1,ground\nland1,sand,yes,1,ground\n")


@pytest.mark.parametrize(("gsd", "expected"), [("0.1", 0.1), ("30", 30.0)])
def test_labels_of_one_step_teach_that_step(decide: Callable[..., Any], gsd: str, expected: float) -> None:
    labels = f"land1,grass,yes,{gsd},ground\nland1,sand,yes,{gsd},ground\nentry,permit,no,,rule\n"
    _, rows = decide({"surface=grass": 9}, labels=labels, threshold=0.0, unseen_threshold=0.0)
    assert rows["surface=grass"]["coarsest_gsd_m"] == expected


def test_counts_are_summed_over_regions_and_kinds_before_the_least_count(tmp_path: Path, bag_of_words: Encode) -> None:
    rows = [
        {"key": "surface", "value": "sand", "text": "", "region": r, "kind": k, "n": 1, "n_plannable": 0}
        for r, k in (("a", "area"), ("b", "line"))
    ]
    write_table(tmp_path / "vocabulary.parquet", rows_to_table(rows, VOCABULARY_SCHEMA))
    write_table(tmp_path / "cooccurrence.parquet", COOCCURRENCE_SCHEMA.empty_table())
    (tmp_path / "labels.csv").write_text(HEADER + LABELS, encoding="utf-8")
    summary = decide_groundability(tmp_path, LabelFiles(tmp_path / "labels.csv"), bag_of_words, TagSettings(), tmp_path)
    assert summary["decided_by"] == {"model": 1}


def test_the_report_holds_both_protocols_and_the_baselines(decide: Callable[..., Any], tmp_path: Path) -> None:
    summary, _ = decide({"surface=sand": 9, "surface=new": 9, "stop=toll": 4})
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["labels"] == {
        "labels": 100,
        "keys": 15,
        "overrides": 0,
        "visible": 50,
        "not_in_vocabulary": 100,
        "under_the_policy": 0,
        "by_coarsest_gsd_m": {"0.1": 20, "0.2": 0, "0.6": 0, "1": 5, "10": 15, "30": 10},
    }
    every, known = report["stage_1"]["unseen_keys"], report["stage_1"]["known_keys"]
    assert set(every) == set(known) == {"decision", "model", "key_majority", "policy", "all_yes"}
    assert every["all_yes"] == {"f1": 0.6667, "precision": 0.5, "recall": 1.0, "accuracy": 0.5}
    assert every["decision"]["f1"] > every["all_yes"]["f1"] + 0.1
    stage_2 = report["stage_2"]["unseen_keys"]
    assert set(stage_2) == {"model", "most_probable_step", "key_median", "middle_step"}
    assert stage_2["model"]["exact"] > stage_2["middle_step"]["exact"]
    assert (summary["stage_1_f1"], summary["stage_2_exact"]) == (every["decision"]["f1"], stage_2["model"]["exact"])
    assert report["agreement"] is None
    assert {row["tag"] for row in report["label_next"]} == {"surface=sand", "surface=new", "stop=toll"}


def test_frequent_and_doubtful_tags_are_to_be_labelled_first(decide: Callable[..., Any], tmp_path: Path) -> None:
    _, rows = decide({"surface=new": 1000, "surface=newer": 10, "stop=toll": 10})
    asked = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["label_next"]
    assert asked[0]["tag"] == "surface=new"
    assert [row["n"] * row["doubt"] for row in asked] == sorted(
        (row["n"] * row["doubt"] for row in asked), reverse=True
    )
    assert all(row["p_visible"] == rows[row["tag"]]["p_visible"] for row in asked)


def test_probabilities_of_the_steps_are_there_where_the_model_was_asked(decide: Callable[..., Any]) -> None:
    _, rows = decide({"surface=forest": 5, "land1=forest": 5, "religion=hindu": 5, "surface=once": 1})
    assert sum(rows["surface=forest"]["p_steps"]) == pytest.approx(1.0, abs=1e-5)
    assert len(rows["land1=forest"]["p_steps"]) == 6
    assert rows["religion=hindu"]["p_steps"] is rows["surface=once"]["p_steps"] is None


def test_two_passes_are_compared_in_the_report(decide: Callable[..., Any], tmp_path: Path) -> None:
    second = LABELS.replace("land1,grass,yes,1,", "land1,grass,no,,").replace("land1,sand,yes,10,", "land1,sand,yes,1,")
    summary, _ = decide({"land1=grass": 9}, first_pass=LABELS, second_pass=second)
    agreement = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["agreement"]
    assert agreement["tags"] == 100
    assert agreement["disagreements"] == [
        {"tag": "land1=grass", "first": "1", "second": "not visible"},
        {"tag": "land1=sand", "first": "10", "second": "1"},
    ]
    assert summary["visibility_kappa"] == agreement["visibility"]["kappa"] == 0.98


def test_equal_inputs_make_equal_bytes(decide: Callable[..., Any], tmp_path: Path) -> None:
    counts = {f"surface={word}": 5 for word in GROUND} | {f"stop={word}": 5 for word in RULES}
    files = ("groundability.parquet", "report.json")
    decide(counts)
    first = [(tmp_path / name).read_bytes() for name in files]
    decide(dict(reversed(counts.items())))
    assert [(tmp_path / name).read_bytes() for name in files] == first


def test_an_empty_vocabulary_makes_an_empty_table(decide: Callable[..., Any]) -> None:
    summary, rows = decide({})
    assert rows == {}
    assert summary["tags"] == 0


def test_a_missing_vocabulary_is_named(tmp_path: Path, bag_of_words: Encode) -> None:
    (tmp_path / "labels.csv").write_text(HEADER + LABELS, encoding="utf-8")
    with pytest.raises(UpstreamMissingError, match=r"vocabulary\.parquet"):
        decide_groundability(tmp_path, LabelFiles(tmp_path / "labels.csv"), bag_of_words, TagSettings(), tmp_path)


def test_the_plot_of_decisions_is_a_small_png(decide: Callable[..., Any], tmp_path: Path) -> None:
    decide({f"surface={word}": 5 for word in GROUND})
    plot_groundability(tmp_path, tmp_path / "plot.png")
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 150_000


def test_a_plot_without_a_whole_report_is_refused(decide: Callable[..., Any], tmp_path: Path) -> None:
    decide({"surface=sand": 5})
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(CorruptInputError, match=r"report\.json"):
        plot_groundability(tmp_path, tmp_path / "plot.png")
    (tmp_path / "report.json").unlink()
    with pytest.raises(UpstreamMissingError, match=r"report\.json"):
        plot_groundability(tmp_path, tmp_path / "plot.png")
