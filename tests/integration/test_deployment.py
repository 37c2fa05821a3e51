"""The files that start the plant as services say what they should."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.workspace.load_target import WorkspaceFileTarget

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.integration
def test_docker_compose_accepts_the_services() -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        ["docker-compose", "--file", str(ROOT / "docker-compose.yml"), "config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert sorted(services) == ["code", "daemon", "migrate", "postgres", "webserver"]
    assert services["webserver"]["ports"] == ["127.0.0.1:3000:3000/tcp"]


@pytest.mark.parametrize("folder", [ROOT, ROOT / "deploy"])
def test_the_instance_s_settings_are_ones_that_dagster_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "DB", "USER", "PASSWORD"):
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", "x")
    config, _ = dagster_instance_config(str(folder))
    assert config["telemetry"] == {"enabled": False}


@pytest.mark.parametrize(("folder", "runs"), [(ROOT, 2), (ROOT / "deploy", 4)])
def test_runs_wait_in_a_queue_and_their_number_is_limited(folder: Path, runs: int, tmp_path: Path) -> None:
    stated = yaml.safe_load((folder / "dagster.yaml").read_text(encoding="utf-8"))
    stated.pop("storage", None)  # a database that is not here
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        limits = instance.get_concurrency_config()
    assert limits.run_queue_config is not None
    assert limits.run_queue_config.max_concurrent_runs == runs
    assert limits.pool_config.default_pool_limit == runs


@pytest.mark.integration
def test_dg_loads_the_definitions(tmp_path: Path) -> None:
    if importlib.util.find_spec("dagster_dg_cli") is None:
        pytest.skip("dagster-dg-cli is not installed (extra dev)")
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "dagster_dg_cli.cli", "check", "defs"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "SKYSCRIPT_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully" in done.stdout


def test_the_workspace_names_this_code_location() -> None:
    (origin,) = WorkspaceFileTarget(paths=[str(ROOT / "workspace.yaml")]).create_origins()
    assert origin.location_name == "skyscript"
