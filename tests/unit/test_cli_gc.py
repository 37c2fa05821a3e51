"""`skyscript gc`."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from skyscript_assets.cli import main
from skyscript_assets.lib.storage import OutputKey, Store

KEY = OutputKey("image_chips", ("a-region-with-a-rather-long-name", "A_SOURCE_WITH_A_LONG_NAME"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two versions of an output, the earlier one replaced two days ago."""
    for text in ("one", "two"):
        with Store(tmp_path).writing(KEY, text) as out:
            (out / "a.txt").write_text(text * 200_000)
            Store(tmp_path).complete(KEY, fingerprint=text, made_from={}, counts={})
    for path in tmp_path.rglob("*"):
        os.utime(path, (time.time() - 2 * 86400,) * 2, follow_symlinks=False)
    return tmp_path


def gc(data: Path, *options: str) -> str:
    environment = {"SKYSCRIPT_DATA": str(data), "SKYSCRIPT_SETTINGS": "demo", "COLUMNS": "80"}
    done = CliRunner().invoke(main, ["gc", *options], env=environment, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    return done.output


def test_gc_lists_and_removes_only_when_it_is_told_to(data: Path) -> None:
    assert "1 things, 0.6 MB, could be removed" in gc(data)
    assert len(list(data.glob(".versions/*/*/*/*"))) == 2
    assert "removed" in gc(data, "--delete")
    assert len(list(data.glob(".versions/*/*/*/*"))) == 1
    assert (Store(data).folder(KEY) / "a.txt").read_text().startswith("two")
    assert "0 things" in gc(data)


def test_what_was_in_use_a_while_ago_stays(data: Path) -> None:
    assert "0 things, 0.0 MB" in gc(data, "--delete", "--older-than", "72")
    assert len(list(data.glob(".versions/*/*/*/*"))) == 2
