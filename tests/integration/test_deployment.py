"""The files that start the plant as services say what they should."""

import shutil
import subprocess
from pathlib import Path

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


def test_the_workspace_names_this_code_location() -> None:
    (origin,) = WorkspaceFileTarget(paths=[str(ROOT / "workspace.yaml")]).create_origins()
    assert origin.location_name == "skyscript"
