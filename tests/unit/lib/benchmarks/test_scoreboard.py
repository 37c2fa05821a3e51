import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.intervals import ScoredItems
from skyscript_assets.lib.benchmarks.items import SCORES_FILE, ClassScores, Scores
from skyscript_assets.lib.benchmarks.plot import draw_board, draw_details
from skyscript_assets.lib.benchmarks.scoreboard import (
    BOARD_SCHEMA,
    COMPARISON_SCHEMA,
    Board,
    is_control,
    write_scoreboard,
)
from skyscript_assets.lib.errors import CorruptInputError, SettingsError, UpstreamMissingError
from skyscript_assets.lib.settings.load import Settings

Scored = dict[tuple[str, str], Path]

COMPARISONS = [
    {"benchmark": "cover", "group": "good", "against": "untrained"},
    {"benchmark": "cover", "group": "untrained", "against": "good"},
    {"benchmark": "cover", "group": "good", "against": "odd"},
]
PUBLISHED = [{"model": "SkyCLIP-50", "benchmark": "AID", "metric": "top-1, %", "value": 70.9, "reference": "table 2"}]


@pytest.fixture(scope="module")
def scored(cover_data: Path, colour_model: type[Any], tmp_path_factory: pytest.TempPathFactory) -> Scored:
    root = tmp_path_factory.mktemp("scored")
    models = {
        "good-0": (colour_model(0.9, 0), "align"),
        "good-1": (colour_model(0.8, 1), "align"),
        "good-2": (colour_model(0.7, 2), "align"),
        "untrained": (colour_model(0.0, 3), "none"),
        "meta": (None, "metadata-only"),
        "probe": (colour_model(), "linear-probe"),
    }
    folders = {}
    for key, (model, recipe) in models.items():
        folders["cover", key] = root / key
        (root / key).mkdir()
        evaluate("cover", cover_data, model, recipe, root / "cache", 100, root / key)
    return folders


MODELS = {
    **{f"good-{i}": {"title": "Good | bold", "group": "good", "recipe": "align", "control": False} for i in range(3)},
    "untrained": {"title": "Untrained", "group": "untrained", "recipe": "none", "control": True},
    "meta": {"title": "Metadata only", "group": "meta", "recipe": "metadata-only", "control": True},
    "probe": {"title": "Linear probe", "group": "probe", "recipe": "linear-probe", "control": True},
}


@pytest.fixture
def board() -> Board:
    return Board.model_validate(
        {
            "title": "Test",
            "models": MODELS,
            "benchmarks": ["cover"],
            "means": {},
            "comparisons": COMPARISONS,
            "published": PUBLISHED,
            "bootstrap": 200,
        }
    )


def test_groups_stand_with_the_median_of_their_seeds(scored: Scored, board: Board, tmp_path: Path) -> None:
    write_scoreboard(scored, board, tmp_path)
    table = pq.read_table(tmp_path / "scoreboard.parquet")
    assert table.schema.equals(BOARD_SCHEMA)
    rows = [row for row in table.to_pylist() if row["metric"] == "mean_auc"]
    seeds = [row["value"] for row in rows if row["level"] == "model" and row["group"] == "good"]
    (group,) = [row for row in rows if row["level"] == "group" and row["name"] == "good"]
    assert group["value"] == pytest.approx(np.median(seeds))
    assert group["low"] < group["value"] < group["high"]
    assert group["seeds"] == 3
    assert group["primary"]
    assert {row["synthetic"] for row in rows} == {True}


def test_a_comparison_holds_only_where_its_interval_is_above_zero(scored: Scored, board: Board, tmp_path: Path) -> None:
    summary = write_scoreboard(scored, board, tmp_path)
    table = pq.read_table(tmp_path / "comparisons.parquet")
    assert table.schema.equals(COMPARISON_SCHEMA)
    forth, back = table.to_pylist()
    assert forth["better"]
    assert forth["low"] > 0
    assert not back["better"]
    assert back["difference"] == pytest.approx(-forth["difference"])
    assert forth["difference"] == pytest.approx(forth["group_value"] - forth["against_value"])
    assert (summary["comparisons"], summary["better"]) == (2, 1)
    assert summary["not_compared"] == ("cover: good > odd",)


def test_the_table_names_synthetic_imagery_controls_and_published_figures(
    scored: Scored, board: Board, tmp_path: Path
) -> None:
    summary = write_scoreboard(scored, board, tmp_path)
    text = (tmp_path / "scoreboard.md").read_text()
    assert text.startswith("# Scoreboard: Test\n")
    assert "## Cover (synthetic imagery)" in text
    assert "*Untrained*" in text
    assert "By class: auc." in text
    assert "| water | " in text
    assert "| Good \\| bold | 3 |" in text
    assert "SkyCLIP-50 | AID | top-1, % | 70.90 | table 2" in text
    assert "Not compared, because a model has no score: cover: good > odd." in text
    assert summary["synthetic"] == ("cover",)
    assert summary["models"] == 6
    assert summary["best"]["cover"] in ("Good | bold", "Linear probe")


def test_the_plot_is_an_image_and_equal_scores_make_equal_files(scored: Scored, board: Board, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    write_scoreboard(scored, board, tmp_path)
    write_scoreboard(dict(reversed(scored.items())), board, tmp_path / "again")
    kinds = ("parquet", "csv", "md", "tex", "png", "pdf", "svg")
    for name in ("comparisons.parquet", *(f"scoreboard.{kind}" for kind in kinds)):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with Image.open(tmp_path / "scoreboard.png") as image:
        assert image.width > 600


def test_no_scores_make_an_empty_board(board: Board, tmp_path: Path) -> None:
    summary = write_scoreboard({}, board, tmp_path)
    assert summary["models"] == 0
    assert len(summary["not_compared"]) == 3
    assert pq.read_table(tmp_path / "scoreboard.parquet").num_rows == 0


def test_a_plot_without_panels_says_so(tmp_path: Path) -> None:
    draw_board([], {}, tmp_path / "none.png")
    with Image.open(tmp_path / "none.png") as image:
        image.verify()


def test_controls_are_recognised_by_what_was_done_to_them(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    controls = {key for key, model in settings.models.items() if is_control(model, settings.sources)}
    assert controls == {"shuffled", "untrained", "meta", "probe", "odd"}


def test_scores_of_a_model_that_the_settings_lack_are_refused(scored: Scored, board: Board, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'gone'"):
        write_scoreboard({("cover", "gone"): scored["cover", "meta"]}, board, tmp_path)


def test_missing_and_broken_scores_are_named(scored: Scored, board: Board, tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    with pytest.raises(UpstreamMissingError, match=r"scores\.json does not exist"):
        write_scoreboard({("cover", "meta"): folder}, board, tmp_path)
    shutil.copytree(scored["cover", "meta"], folder)
    scores = json.loads((folder / SCORES_FILE).read_text())
    (folder / SCORES_FILE).write_text(json.dumps({**scores, "items": "many"}))
    with pytest.raises(CorruptInputError, match=r"scores\.json: items"):
        write_scoreboard({("cover", "meta"): folder}, board, tmp_path)


def test_a_named_mean_says_of_how_many_sets_and_leaves_out_who_lacks_one(
    scored: Scored, board: Board, tmp_path: Path
) -> None:
    both = {**scored, **{("again", key): folder for (_, key), folder in scored.items() if key != "meta"}}
    for (benchmark, key), folder in list(both.items()):
        if benchmark == "again":
            both[benchmark, key] = shutil.copytree(folder, tmp_path / key)
            scores = json.loads((tmp_path / key / SCORES_FILE).read_text())
            (tmp_path / key / SCORES_FILE).write_text(json.dumps({**scores, "benchmark": "again"}))
    means = {"two": {"title": "Both", "benchmarks": ["cover", "again"]}}
    wider = Board.model_validate({**board.model_dump(), "benchmarks": ["cover", "again"], "means": means})
    write_scoreboard(both, wider, tmp_path)
    rows = pq.read_table(tmp_path / "scoreboard.parquet").to_pylist()
    (alone,) = [row for row in rows if (row["benchmark"], row["name"], row["primary"]) == ("cover", "good", True)][-1:]
    of_two = {row["name"]: row for row in rows if row["benchmark"] == "two"}
    assert set(of_two) == {"good", "untrained", "probe"}
    assert of_two["good"]["value"] == pytest.approx(alone["value"])
    assert (of_two["good"]["items"], of_two["good"]["low"]) == (2 * alone["items"], None)
    text = (tmp_path / "scoreboard.md").read_text()
    assert "## Both (2 sets) (synthetic imagery)" in text
    assert "| model | mean mean AUC |" in text


HOSTILE = "50 % & $x$ #1_{a} ~^ \\ <\u202e" + "\u063a\u0627\u0628\u0629 " + "y" * 255


def test_tracks_have_tables_of_their_own_and_hostile_names_break_none(
    scored: Scored, board: Board, tmp_path: Path
) -> None:
    both = {}
    for (benchmark, key), folder in scored.items():
        both[benchmark, key] = shutil.copytree(folder, tmp_path / "scores" / key)
        if key.startswith("good"):
            shutil.copytree(folder, both[benchmark, key] / "transductive")
    models = {key: {**model, "title": HOSTILE} for key, model in MODELS.items()}
    summary = write_scoreboard(both, Board.model_validate({**board.model_dump(), "models": models}), tmp_path)
    assert summary["tracks"] == ("plain", "transductive")
    rows = pq.read_table(tmp_path / "scoreboard.parquet").to_pylist()
    assert {row["group"] for row in rows if row["track"] == "transductive"} == {"good"}
    assert summary["models"] == 6
    text = (tmp_path / "scoreboard.md").read_text()
    assert text.index("# Scoreboard: Test\n") < text.index("# Scoreboard: Test, track transductive")
    tex = (tmp_path / "scoreboard.tex").read_text()
    assert r"50 \% \& \$x\$ \#1\_\{a\} \textasciitilde{}\textasciicircum{} \textbackslash{}" in tex
    assert "\u202e" not in tex
    assert tex.count("{") == tex.count("}")
    with Image.open(tmp_path / "scoreboard-transductive.png") as image:
        assert image.width > 600


def test_where_items_are_of_one_class_what_is_taken_for_what_is_drawn(tmp_path: Path) -> None:
    names = ["a" * 255, "$x", "50 %", "none"]
    truth = np.eye(4, dtype=bool)[[0, 1, 2, 0]]
    scores = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], dtype=float)
    ids = tuple("abcd")
    scored = ScoredItems(ids, ids, truth, scores, np.array([1.0, 0, 1, 0]))
    told = Scores.model_construct(
        title=HOSTILE,
        synthetic=True,
        classification_protocol="zero-shot",
        notes={"logit_scale": 10.0},
        classes=tuple(ClassScores(name=name, text=name, positives=1, figures={}) for name in names),
    )
    draw_details("model", told, scored, tmp_path / "details.png")
    with Image.open(tmp_path / "details.png") as image:
        assert 400 < image.width < 2000
