"""Profile `quickstart` from extract to scoreboard, against stand-ins of all its services."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def test_quickstart_runs_from_extract_to_scoreboard(tmp_path: Path, shared_data: Path) -> None:
    extract = shared_data.resolve() / "osm/monaco.osm.pbf"
    command = [sys.executable, ROOT / "benchmarks/quickstart.py", extract, "--work", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = [line.split("|") for line in done.stdout.splitlines() if "search" in line or "Geofabrik" in line]
    assert [int(requests) > 2 for _, _, requests, *_ in asked] == [True, True, True]
    store = Store(tmp_path / "data")

    def rows(asset: str, table: str, *partition: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = read_table(store.folder(OutputKey(asset, partition)) / table).to_pylist()
        return found

    assert len(rows("captions", "captions.parquet", "washington", "US")) > 50
    (scene,) = rows("scene_index", "scenes.parquet", "washington", "S2")
    assert scene["attribution"] == "Contains modified Copernicus Sentinel data 2024"
    assert {row["name"] for row in rows("scoreboard", "scoreboard.parquet")} >= {"pretrained", "continued"}
    credit = {row["attribution"] for row in rows("image_chips", "chips.parquet", "washington", "US")}
    assert credit == {"NAIP imagery provided by USDA Farm Service Agency"}
