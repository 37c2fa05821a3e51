"""The small plant as a code location, with a sensor that looks each second and whose clock tests can put forward."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg

from skyscript_assets import partitions
from skyscript_assets.asset import definition
from skyscript_assets.automation import decision, sensors, standing
from skyscript_assets.automation.failures import failures
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.resources import Plant
from tests.small_plant import LEVELS, PAIRS, STAGES, seconds_ahead

profile = os.environ["SKYSCRIPT_SETTINGS"]
settings = load_settings(Path(profile))
standing.LEVELS, standing.STAGES = LEVELS, STAGES
decision.FIRST_PAUSE_S = float(os.environ.get("FIRST_PAUSE_S", decision.FIRST_PAUSE_S))
sensors.time = SimpleNamespace(time=lambda: time.time() + seconds_ahead(), monotonic=time.monotonic)
defs = dg.Definitions(
    assets=[definition(stage, STAGES, settings, partitions.definitions(settings)) for stage in STAGES.values()],
    jobs=[level.job for level in LEVELS],
    sensors=[
        sensors.following("missing_pairs", [PAIRS], "pairs", interval_s=1),
        failures(os.environ.get("SKYSCRIPT_WEBHOOK"), "http://127.0.0.1:3000/"),
    ],
    resources={"plant": Plant(settings_folder=profile, data=os.environ["SKYSCRIPT_DATA"])},
    executor=dg.in_process_executor,
)
