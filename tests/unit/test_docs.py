"""What the documents name is there."""

import re
from pathlib import Path

import pytest

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
