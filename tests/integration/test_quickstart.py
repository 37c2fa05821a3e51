"""Profile `quickstart` from extract to scoreboard, against stand-ins of all its services."""

from pathlib import Path

import dagster as dg
import pytest

from skyscript_assets import backfill
from skyscript_assets.lib import http
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tables import read_table
from tests.rehearsal import rehearsed
from tests.workshop import Workshop

pytestmark = pytest.mark.integration


def test_quickstart_runs_from_extract_to_scoreboard(
    tmp_path: Path, shared_data: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    with rehearsed(tmp_path / "quick", shared_data / "osm/monaco.osm.pbf") as (profile, servers):
        workshop = Workshop(profile, tmp_path / "data", instance)
        steps = backfill.steps_of(workshop.settings)
        results = list(backfill.run_all(workshop.defs, workshop.settings, workshop.store, instance, steps=steps))
        assert [result.error for result in results if result.error] == []
        assert all(server.sent > 0 for server in servers)

    def rows(asset: str, table: str, *partition: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = read_table(
            workshop.store.folder(OutputKey(asset, partition)) / table
        ).to_pylist()
        return found

    assert len(rows("captions", "captions.parquet", "washington", "US")) > 50
    (scene,) = rows("scene_index", "scenes.parquet", "washington", "S2")
    assert scene["attribution"] == "Contains modified Copernicus Sentinel data 2024"
    assert {row["name"] for row in rows("scoreboard", "scoreboard.parquet")} >= {"pretrained", "continued"}
    credits_ = {row["attribution"] for row in rows("image_chips", "chips.parquet", "washington", "US")}
    assert credits_ == {"NAIP imagery provided by USDA Farm Service Agency"}
