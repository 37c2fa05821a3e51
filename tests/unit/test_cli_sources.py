from pathlib import Path

import pytest
from click.testing import CliRunner

from skyscript_assets.cli import look, main
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from rich.console import Console

    monkeypatch.setenv("SKYSCRIPT_SETTINGS", str(PACKAGED_PROFILES / "skyscript"))
    monkeypatch.setenv("SKYSCRIPT_DATA", str(tmp_path))
    monkeypatch.delenv("NLS_API_KEY", raising=False)
    console = Console(width=400, highlight=False, record=True, file=(tmp_path / "out").open("w"))
    monkeypatch.setattr(look, "console", console)
    result = CliRunner().invoke(main, ["sources"])
    assert result.exit_code == 0, result.output
    return console.export_text()


def test_every_source_is_listed_with_what_it_needs(listed: str) -> None:
    rows = {line.split("│")[1].strip(): line for line in listed.splitlines() if line.startswith("│")}
    assert set(rows) == {"CH", "DE", "ES", "FI", "L8", "L9", "P3", "P5", "S2", "US"}
    for text in ("wcs", "0.5", "19 59.4 to 31.6 70.1", "NLS_API_KEY (the service's key)", "CC-BY-4.0"):
        assert text in rows["FI"]
    assert "no: NLS_API_KEY is not set" in rows["FI"]
    assert rows["ES"].rstrip(" │").endswith("yes")
    assert "extra earthengine" in rows["P3"]
    assert "world" in rows["P5"]
