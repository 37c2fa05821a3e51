"""How sensors and schedules show themselves, and what they ask for."""

import datetime as dt

import dagster as dg
import pytest

from skyscript_assets.assets import LEVELS, PAIRS
from skyscript_assets.automation import sensors
from skyscript_assets.automation.failures import failures
from skyscript_assets.definitions import defs


@pytest.mark.parametrize("sensor", [*sensors.SENSORS, failures(None, None)], ids=lambda sensor: sensor.name)
def test_sensors_are_described_and_off(sensor: dg.SensorDefinition) -> None:
    assert sensor.description
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


@pytest.mark.parametrize("schedule", sensors.SCHEDULES, ids=lambda schedule: schedule.name)
def test_schedules_are_described_off_and_in_universal_time(schedule: dg.ScheduleDefinition) -> None:
    assert schedule.description
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.execution_timezone == "UTC"
    assert schedule.job_name in {level.name for level in LEVELS}


def test_the_code_location_has_them_all() -> None:
    repository = defs.get_repository_def()
    found = {item.name for item in (*repository.sensor_defs, *repository.schedule_defs)}
    assert found >= {item.name for item in (*sensors.SENSORS, *sensors.SCHEDULES)} | {"failures"}


def test_a_request_says_what_it_makes_why_and_who_asked() -> None:
    made = sensors.request(PAIRS, ("kotka", "SYN1"), "missing_pairs", "stale: image_chips.settings.quality", "f/1/0")
    assert made.tags == {
        "region": "kotka",
        "source": "SYN1",
        "skyscript/why": "stale: image_chips.settings.quality",
        "skyscript/asked_by": "missing_pairs",
    }
    assert (made.job_name, made.partition_key, made.run_key) == ("pairs", "kotka|SYN1", "pairs/kotka/SYN1/f/1/0")


def test_each_month_there_is_a_new_manifest() -> None:
    when = dt.datetime(2026, 1, 1, 3, tzinfo=dt.UTC)
    request = sensors.monthly_training(dg.build_schedule_context(scheduled_execution_time=when))
    assert isinstance(request, dg.RunRequest)
    assert (request.job_name, request.partition_key) == ("manifest", None)
