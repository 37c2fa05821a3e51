"""`skyscript clean`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from skyscript_assets.cli import main
from skyscript_assets.lib.storage import OutputKey, Store
from tests.workshop import demo_files, write_profile

NAMED = [OutputKey("image_chips", ("helsinki", "SYN1")), OutputKey("tag_labels")]
LEFT = [OutputKey("image_chips", ("atlantis", "SYN1")), OutputKey("sampling_snapshot", ("an-earlier-one",))]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Outputs that the demo names and some that it does not."""
    store = Store(tmp_path / "data")
    files: dict[str, Any] = demo_files()
    snapshot = OutputKey("sampling_snapshot", (files["plant"]["plan"]["snapshot"],))
    for key in (*NAMED, *LEFT, snapshot):
        with store.writing(key, "f") as out:
            (out / "a.txt").write_text("a" * 2_000_000)
            store.complete(key, fingerprint="f", made_from={}, counts={})
    write_profile(tmp_path / "profile", files)
    return tmp_path / "data"


@pytest.fixture
def skyscript(data: Path) -> Callable[..., str]:
    def ask(*arguments: str) -> str:
        environment = {
            "SKYSCRIPT_DATA": str(data),
            "SKYSCRIPT_SETTINGS": str(data.parent / "profile"),
            "DAGSTER_HOME": str(data.parent / "home"),
            "COLUMNS": "80",
        }
        done = CliRunner().invoke(main, arguments, env=environment, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert max(map(len, done.output.splitlines())) <= 80
        return done.output

    return ask


def test_clean_lists_sizes_and_removes_only_when_it_is_told_to(data: Path, skyscript: Callable[..., str]) -> None:
    assert "2 outputs are no longer in the settings, such as " in skyscript("status")
    listed = skyscript("clean")
    assert "2.0 MB  image_chips/atlantis/SYN1\n" in listed
    assert "2.0 MB  sampling_snapshot/an-earlier-one\n" in listed
    assert "2 outputs, could be removed (--delete)" in listed
    assert all(Store(data).head(key) for key in LEFT)
    told = skyscript("clean", "--delete")
    assert "dagster asset wipe image_chips, then" in " ".join(told.split())
    assert not any(Store(data).head(key) for key in LEFT)
    assert all(Store(data).head(key) for key in NAMED)
    assert (Store(data).folder(NAMED[0]) / "a.txt").exists()
    assert "0 outputs" in skyscript("clean")
    assert "no longer in the settings" not in skyscript("status")


def test_who_reads_what_is_removed_can_end_and_gc_frees_its_space(data: Path, skyscript: Callable[..., str]) -> None:
    folder = Store(data).folder(LEFT[0])
    skyscript("clean", "--delete")
    assert "0 things" in skyscript("gc", "--delete")
    assert (folder / "a.txt").exists()
    assert "2 things, 4.0 MB, removed" in skyscript("gc", "--delete", "--older-than", "0")
    assert not folder.exists()
    assert Store(data).folder(NAMED[0]).exists()
