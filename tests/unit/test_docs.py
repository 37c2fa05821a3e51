"""What the documents name is there."""

import re
from pathlib import Path

import pytest

from benchmarks import measuring
from skyscript_assets.assets import STAGES

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "skyscript_assets"


@pytest.mark.parametrize("name", ["docs/architecture.md", "docs/guide.md", "docs/benchmarks.md"])
def test_files_that_are_named_with_their_folder_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"`((?:skyscript_assets/)?(?:lib|assets|settings|demo)/[\w./-]+)`", text)
    missing = [path for path in named if not (PACKAGE / path.removeprefix("skyscript_assets/")).exists()]
    assert not missing


def test_the_tree_names_every_folder_of_lib_and_every_module_beside_it() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text[: text.index("## A stage")]
    folders = {f"{path.parent.name}/" for path in PACKAGE.glob("lib/*/__init__.py")}
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert [name for name in sorted(folders | modules) if name not in tree] == []


def test_the_demos_scoreboard_says_by_which_code_it_was_made() -> None:
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    made = dict(re.findall(r"(\w+) (\d+)", re.findall(r"Made by: ([^.]*)\.", text)[0]))
    made |= dict(
        re.findall(r"(\w+) (\d+)", " ".join(re.findall(r"Changed since, not measured again: ([^.]*)\.", text)))
    )
    stale = {name: stage.code_version for name, stage in STAGES.items() if made.get(name) != stage.code_version}
    assert not stale, (
        "the scoreboard in docs/benchmarks.md is of other code: run benchmarks/demo.py and put its tables and versions "
        "there, or add below `Made by`: Changed since, not measured again: NAME VERSION, ..."
    )


def test_figures_of_models_say_whether_the_stages_behind_them_have_changed() -> None:
    text = " ".join((ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8").split())
    told = re.findall(r"`stages: ([0-9a-f]{8})`(, changed since)?", text)
    now = measuring.stages_of_scores()
    assert told
    wrong = [stages for stages, changed in told if bool(changed) == (stages == now)]
    assert not wrong, (
        f"docs/benchmarks.md: stages are {now} today; run the commands above {wrong} again, or write `, changed since` "
        "behind those that are not measured again"
    )


def test_every_measurement_that_scores_models_of_a_plant_has_its_stages_in_the_documents() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    sections = re.split(r"^#+ ", text, flags=re.MULTILINE)
    scoring = [path.name for path in sorted((ROOT / "benchmarks").glob("*.py")) if "scores=True" in path.read_text()]
    assert scoring
    for name in scoring:
        assert any(f"python benchmarks/{name}" in one and "`stages: " in one for one in sections), name
