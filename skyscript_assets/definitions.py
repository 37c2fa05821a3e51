"""The code location: every asset with its checks, the jobs, sensors, schedules and the resource.

This is the one module that reads the environment: `SKYSCRIPT_SETTINGS` (a profile's folder, or the name of a packaged
one), `SKYSCRIPT_DATA` (root of the outputs), `SKYSCRIPT_SCRATCH` (local folder for a remote root), `SKYSCRIPT_WEBHOOK`
and `DAGSTER_WEBSERVER_URL` (who is told of failures, and with which links). Partition keys depend on the settings, the
set of assets never does.
"""

import os
from pathlib import Path
from typing import Any

import dagster as dg

from skyscript_assets import partitions, runs
from skyscript_assets.asset import definition
from skyscript_assets.assets import LEVELS, STAGES
from skyscript_assets.automation import sensors
from skyscript_assets.automation.failures import failures
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.resources import Plant


def plant_from_environment() -> Plant:
    """The resource that the environment describes; the packaged `demo` and `data/` where it is silent."""
    profile = os.environ.get("SKYSCRIPT_SETTINGS") or "demo"
    packaged = PACKAGED_PROFILES / profile
    folder = packaged if "/" not in profile and packaged.is_dir() else Path(profile).expanduser()
    return Plant(
        settings_folder=str(folder.absolute()),
        data=os.environ.get("SKYSCRIPT_DATA") or "data",
        scratch=os.environ.get("SKYSCRIPT_SCRATCH"),
    )


def build_defs(settings: Settings, plant: Plant, **overrides: Any) -> dg.Definitions:
    """The whole graph for a profile; tests build it with other resources through `overrides`."""
    by_scheme = partitions.definitions(settings)
    told = failures(os.environ.get("SKYSCRIPT_WEBHOOK"), os.environ.get("DAGSTER_WEBSERVER_URL"))
    return dg.Definitions(
        assets=[definition(stage, STAGES, settings, by_scheme) for stage in STAGES.values()],
        jobs=[level.job for level in LEVELS],
        sensors=[runs.dead_runs, *sensors.SENSORS, told],
        schedules=sensors.SCHEDULES,
        resources={"plant": plant, **overrides},
        # A run is a process already. With one for each step most of a run's time went into starting them.
        executor=dg.in_process_executor,
    )


runs.wait_for_database()
_plant = plant_from_environment()
defs = build_defs(load_settings(Path(_plant.settings_folder)), _plant)
"""What Dagster loads."""
