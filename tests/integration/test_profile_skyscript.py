"""Profile `skyscript` in one run, from extract to scoreboard, against stand-ins of all that it names."""

import importlib.util
from pathlib import Path

import dagster as dg
import pytest

from skyscript_assets import backfill
from skyscript_assets.assets import STAGES
from skyscript_assets.lib import http
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tables import read_table
from skyscript_assets.partitions import partitions_of
from tests.rehearsal import skyscript
from tests.workshop import Workshop

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("ee") is None, reason="the extra `earthengine` is not installed"),
]

CREDITS = {
    "CH": "© swisstopo, 2020",
    "ES": "PNOA cedido por © Instituto Geográfico Nacional de España",
    "DE": "© GeoBasis-DE/LGB (2022), dl-de/by-2-0, Daten geändert",
    "FI": "contains NLS Finland Orthophoto data 06/2022",
    "US": "NAIP imagery provided by USDA Farm Service Agency",
    "P3": "© 2015 Planet Labs Inc.",
    "P5": "© 2015 Planet Labs Inc.",
    "S2": "Contains modified Copernicus Sentinel data 2024",
    "L8": "U.S. Geological Survey",
    "L9": "U.S. Geological Survey",
}


def test_the_profile_runs_whole(
    shared_data: Path, tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    with skyscript(tmp_path / "world", shared_data.resolve() / "osm/monaco.osm.pbf", 4) as (profile, _):
        plant = Workshop(profile, tmp_path / "data", instance)
        results = list(backfill.run_all(plant.defs, plant.settings, plant.store, instance))
        assert [result.error for result in results if result.error] == []
    settings, store = plant.settings, plant.store
    for stage in STAGES.values():
        for partition in partitions_of(stage.scheme, settings):
            assert store.record(stage.key(settings, partition)) is not None, (stage.name, partition)

    # Every source gives chips, each with its credit.
    told = {}
    for source in settings.sources:
        folder = store.folder(OutputKey("image_chips", ("liechtenstein", source)))
        chips = read_table(folder / "chips.parquet").to_pylist()
        told[source] = {chip["attribution"] for chip in chips if chip["status"] == "ok"}
    assert told == {source: {credit} for source, credit in CREDITS.items()}

    # Every model has a figure for every benchmark that it is scored on.
    rows = read_table(store.folder(OutputKey("scoreboard", ())) / "scoreboard.parquet").to_pylist()
    scored = {(row["name"], row["benchmark"]) for row in rows if row["value"] is not None}
    models, benchmarks = settings.models, settings.benchmarks.benchmarks
    assert (len(settings.sources), len(models), len(benchmarks)) == (10, 20, 15)
    assert {(name, benchmark) for name in models for benchmark in models[name].benchmarks or benchmarks} <= scored
