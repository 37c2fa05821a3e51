from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from skyscript_assets.assets import STAGES
from skyscript_assets.cli import main
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.provenance import Outputs
from tests.workshop import demo_files, write_profile


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., str]:
    """Asks `skyscript status` of a profile whose caption rules alone are there, changed as given afterwards."""
    profile, data = tmp_path / "profile", tmp_path / "data"
    rules = profile / "rules.yaml"
    files: dict[str, Any] = demo_files()
    files["plant"]["captions"] = {"rules": "rules.yaml"}
    write_profile(profile, files)
    rules.write_text("order: []\n")
    Outputs(STAGES, load_settings(profile), Store(data)).materialize(STAGES["caption_rules"], ())

    def status(*options: str, text: str | None = None) -> str:
        if text is not None:
            rules.write_text(text)
        environment = {"SKYSCRIPT_SETTINGS": str(profile), "SKYSCRIPT_DATA": str(data), "COLUMNS": "200"}
        return CliRunner().invoke(main, ["status", *options], env=environment).output

    return status


def test_states_are_counted(ask: Callable[..., str]) -> None:
    line = next(line for line in ask().splitlines() if "caption_rules" in line)
    assert [cell.strip() for cell in line.split("│")[1:6]] == ["caption_rules", "1", "·", "·", "·"]


def test_why_lists_what_was_and_what_is_now(ask: Callable[..., str]) -> None:
    assert ask("--why", "caption_rules").strip() == "caption_rules is current"
    told = ask("--why", "caption_rules", text="order: [highway]\n")
    assert "caption_rules is stale" in told
    assert "settings.sha256" in told


def test_why_of_what_is_not_there_names_what_it_waits_for(ask: Callable[..., str]) -> None:
    told = ask("--why", "tag_groundability")
    assert "tag_groundability is waiting for upstream" in told
    assert "tag_vocabulary" in told
    assert "is missing" in ask("--why", "tag_labels")


def test_why_of_an_unknown_output_is_an_error(ask: Callable[..., str]) -> None:
    assert "there is no asset 'nonsense'" in ask("--why", "nonsense")
