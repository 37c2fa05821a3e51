import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from skyscript_assets.assets import STAGES
from skyscript_assets.cli import main
from skyscript_assets.lib.errors import StorageError
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import Outputs
from tests.workshop import demo_files, write_profile


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile whose caption rules alone are there."""
    files: dict[str, Any] = demo_files()
    files["plant"]["captions"] = {"rules": "rules.yaml"}
    folder = write_profile(tmp_path / "profile", files)
    (folder / "rules.yaml").write_text("order: []\n")
    Outputs(STAGES, load_settings(folder), Store(tmp_path / "data")).materialize(STAGES["caption_rules"], ())
    return folder


@pytest.fixture
def ask(profile: Path, tmp_path: Path) -> Callable[..., str]:
    """Runs `skyscript` on the profile, whose rules are changed as given beforehand."""

    def skyscript(*arguments: str, text: str | None = None, columns: int = 80) -> str:
        if text is not None:
            (profile / "rules.yaml").write_text(text)
        environment = {
            "SKYSCRIPT_SETTINGS": str(profile),
            "SKYSCRIPT_DATA": str(tmp_path / "data"),
            "DAGSTER_HOME": str(tmp_path / "home"),
            "COLUMNS": str(columns),
        }
        return CliRunner().invoke(main, arguments, env=environment).output

    return skyscript


def line_of(shown: str, start: str) -> list[str]:
    return next(line for line in shown.splitlines() if line.startswith(start)).split()


def row_of(document: dict[str, Any], asset: str) -> dict[str, Any]:
    return next(row for row in document["outputs"] if row["asset"] == asset)


def test_states_are_counted_on_eighty_columns_and_the_next_command_is_told(ask: Callable[..., str]) -> None:
    shown = ask("status")
    assert line_of(shown, "asset")[1:-1] == ["current", "waiting", "missing", "stale", "failed", "unreadable"]
    assert line_of(shown, "caption_rules") == ["caption_rules", "1", "·", "·", "·", "·", "·", "10"]
    assert line_of(shown, "osm_extract")[1:4] == ["·", "·", "2"]
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.splitlines()[-1] == "next: skyscript run"


def test_looking_makes_no_instance_and_no_data_folder(
    ask: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no run has been recorded" in ask("status").replace("\n", "")
    assert not (tmp_path / "home").exists()
    (tmp_path / "data").rename(tmp_path / "gone")
    assert line_of(ask("status"), "caption_rules")[1:4] == ["·", "·", "1"]
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_read_is_an_error_and_no_traceback(
    ask: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("/data/x cannot be read (denied)")

    monkeypatch.setattr(Store, "head", refuse)
    assert ask("status") == "error: /data/x cannot be read (denied)\n"


def test_what_is_stale_says_why_in_words(ask: Callable[..., str]) -> None:
    shown = ask("status", text="order: [highway]\n")
    assert line_of(shown, "caption_rules")[4] == "1"
    assert "caption_rules stale: settings sha256" in shown


def test_an_unreadable_record_is_a_row_and_not_the_end(ask: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "data" / "caption_rules" / "output.json").write_text("{")
    shown = ask("status")
    assert line_of(shown, "caption_rules")[6] == "1"
    assert "caption_rules unreadable: " in shown
    assert "is not the record that was written" in " ".join(shown.split())
    row = row_of(json.loads(ask("status", "--json")), "caption_rules")
    assert (row["state"], row["size_bytes"]) == ("unreadable", None)
    assert "is not the record that was written" in row["problem"]


def test_a_failed_run_is_told_with_its_error_until_the_output_is_made(ask: Callable[..., str]) -> None:
    told = ask("run", "caption_rules", text="order: 7\n")
    assert "error:" in told
    shown = ask("status")
    assert line_of(shown, "caption_rules")[5] == "1"
    assert "caption_rules failed: " in shown
    assert "order" in shown
    row = row_of(json.loads(ask("status", "--json")), "caption_rules")
    assert row["state"] == "failed"
    assert [reason["what"] for reason in row["reasons"]] == ["settings.sha256"]
    assert row["last_run"]["status"] == "failure"
    assert "order" in row["last_run"]["error"]
    ask("run", "caption_rules", text="order: [highway]\n")
    assert line_of(ask("status"), "caption_rules")[1] == "1"
    assert row_of(json.loads(ask("status", "--json")), "caption_rules")["last_run"] is None


def test_json_has_every_partition(ask: Callable[..., str], profile: Path) -> None:
    document = json.loads(ask("status", "--json", text="order: [highway]\n"))
    settings = load_settings(profile)
    wanted = {(name, key) for name, s in STAGES.items() for key in partitions_of(s.scheme, settings) if not s.frozen_as}
    found = {(row["asset"], tuple(row["partition"])) for row in document["outputs"]}
    assert found - wanted == {("sampling_snapshot", (settings.plant.plan.snapshot,))}
    assert wanted <= found
    assert set(document) == {
        "profile", "data", "run_records", "outputs", "no_longer_in_the_settings", "next",
    }  # fmt: skip
    row = row_of(document, "caption_rules")
    assert row["state"] == "stale"
    assert [reason["what"] for reason in row["reasons"]] == ["settings.sha256"]
    assert row_of(document, "captions")["state"] == "waiting"
    assert document["next"] == "skyscript run"


def test_every_region_has_a_line_and_a_table_that_is_too_wide_gives_way(ask: Callable[..., str], profile: Path) -> None:
    files = demo_files()
    regions, sources = files["regions"]["regions"], files["sources"]["sources"]
    (region, *_), (source, *_) = regions.values(), sources.values()
    for benchmark in files["benchmarks"]["benchmarks"].values():
        benchmark["sources"] = ["S00"]
    for model in files["models"]["models"].values():
        model.pop("sources", None)
    files["regions"]["regions"] = {f"r{n:02}": region for n in range(40)}
    files["sources"]["sources"] = {f"S{n:02}": source for n in range(10)}
    write_profile(profile, files)
    shown = ask("status")
    assert line_of(shown, "r00") == ["r00", *["…0"] * 10]
    assert line_of(shown, "r39") == ["r39", *["…0"] * 10]
    assert max(map(len, shown.splitlines())) <= 80
    files["sources"]["sources"] = {f"LONGERNAME{n:02}": source for n in range(10)}
    for benchmark in files["benchmarks"]["benchmarks"].values():
        benchmark["sources"] = ["LONGERNAME00"]
    write_profile(profile, files)
    wide = ask("status")
    assert "r00" not in wide
    assert line_of(wide, "LONGERNAME09")[2] == str(40 * 8)


def test_why_lists_what_was_and_what_is_now(ask: Callable[..., str]) -> None:
    assert ask("status", "--why", "caption_rules").strip() == "caption_rules is current"
    told = ask("status", "--why", "caption_rules", text="order: [highway]\n")
    assert "caption_rules is stale" in told
    assert "settings.sha256" in told


def test_why_of_what_is_not_there_names_what_it_waits_for(ask: Callable[..., str]) -> None:
    told = ask("status", "--why", "tag_groundability")
    assert "tag_groundability is waiting for upstream" in told
    assert "tag_vocabulary" in told
    assert "is missing" in ask("status", "--why", "tag_labels")


def test_why_of_an_unknown_output_is_an_error(ask: Callable[..., str]) -> None:
    assert "there is no asset 'nonsense'" in ask("status", "--why", "nonsense")
