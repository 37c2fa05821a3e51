"""Sensors and schedules as Dagster has them. Each run that they ask for says in its tags what it makes and why."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import dagster as dg
from pydantic import TypeAdapter

from skyscript_assets import assets
from skyscript_assets.assets import MANIFEST, PAIRS, REGIONS, Level
from skyscript_assets.assets.osm import osm_extract
from skyscript_assets.automation.decision import MAX_IN_FLIGHT, RETRIES, Memory, decide
from skyscript_assets.automation.standing import ASKED_BY, Standing
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.osm.origin import changed_at_server
from skyscript_assets.partitions import Partition, key_of
from skyscript_assets.resources import Plant

WHY = "skyscript/why"
"""Tag of a run: why it was asked for."""

INTERVAL_S = 120
"""Seconds between two looks at outputs."""

ASK_SERVERS_EVERY_S = 86_400.0
"""Seconds between two questions to the server of an extract."""

PATIENCE_S = 25.0
"""Seconds after which one evaluation asks no further server: Dagster ends it after 60, and one server may take 20."""

FORCED = {"ops": {osm_extract.name: {"config": {"force": True}}}}
"""Has the server of an extract asked again; what it still has is not fetched again."""

_Times = TypeAdapter(dict[str, float])
_T = TypeVar("_T")


def request(level: Level, partition: Partition, by: str, why: str, nonce: str, config: Any = None) -> dg.RunRequest:
    """The request of a run; `nonce` is another one each time, since Dagster drops a key that any earlier run had."""
    return dg.RunRequest(
        run_key="/".join((level.name, *partition, nonce)),
        job_name=level.name,
        partition_key=key_of(partition),
        tags=dict(zip(level.scheme.dimensions, partition, strict=True)) | {WHY: why, ASKED_BY: by},
        run_config=config,
    )


def _remembered(context: dg.SensorEvaluationContext, kind: TypeAdapter[dict[str, _T]]) -> dict[str, _T]:
    """What the cursor holds; nothing where there is none, or one that is none of ours."""
    try:
        return kind.validate_json(context.cursor or "{}")
    except ValueError:
        context.log.warning(f"The cursor cannot be read and starts anew. It was: {context.cursor!r:.200}")
        return {}


def following(name: str, levels: Sequence[Level], what: str, interval_s: int = INTERVAL_S) -> dg.SensorDefinition:
    """A sensor that asks for what is missing or stale in some levels, by `decision.decide`."""
    description = f"Asks for {what}, {MAX_IN_FLIGHT} at once; failed ones later and later until an input changes."
    jobs = [level.job for level in levels]

    @dg.sensor(name=name, jobs=jobs, minimum_interval_seconds=interval_s, description=description)
    def look(context: dg.SensorEvaluationContext, plant: Plant) -> dg.SensorResult:
        standing, now = Standing(plant, context.instance), time.time()
        needs, room = standing.needs(levels), MAX_IN_FLIGHT - standing.asked_by[name]
        chosen, asked, told = decide(needs, _remembered(context, Memory), room, now)
        context.log.info(told)
        requests = []
        for need in chosen:
            attempt, (level, partition) = asked[need.name].attempt, needs[need]
            why = f"retry {attempt - 1} of {RETRIES}" if attempt > 1 else standing.why(level, partition)
            requests.append(request(level, partition, name, why, f"{need.fingerprint}/{attempt}/{now:.0f}"))
        skipped = None if requests else told
        return dg.SensorResult(requests, skipped, cursor=Memory.dump_json(asked).decode())

    return look


missing_pairs = following("missing_pairs", [PAIRS], "region x source pairs that are missing or stale, heavy ones first")
changed_settings = following(
    "changed_settings",
    [assets.GIVEN, REGIONS, assets.OVERLAPS, assets.TAGS],
    "what is missing, or stale by a setting, a file of yours or code, from given files to tags, first things first",
)
models_and_scores = following(
    "models_and_scores",
    [assets.MODELS, assets.BENCHMARKS, assets.SCORES, assets.SCOREBOARD],
    "models, benchmarks, scores and the scoreboard once there is a new manifest",
)


@dg.sensor(
    job=REGIONS.job,
    minimum_interval_seconds=600,
    description="Asks the server of each extract once a day whether it has another one, and has that fetched.",
)
def changed_extracts(context: dg.SensorEvaluationContext, plant: Plant) -> dg.SensorResult:
    """Ask servers; the cursor is when each was asked."""
    standing, now, began = Standing(plant, context.instance), time.time(), time.monotonic()
    settings = standing.outputs.settings
    asked = {name: when for name, when in _remembered(context, _Times).items() if name in settings.regions}
    requests = []
    for name, region in settings.regions.items():
        record = standing.outputs.record(osm_extract.key(settings, (name,)))
        # A clock that was put back makes nobody wait longer.
        due = not 0 <= now - asked.get(name, -ASK_SERVERS_EVERY_S) < ASK_SERVERS_EVERY_S
        if not (region.may_change and record and due) or standing.is_in_flight(REGIONS, (name,)):
            continue
        if time.monotonic() - began > PATIENCE_S:
            break
        asked[name] = now
        try:
            changed = changed_at_server(name, region, settings.shared, record.counts)
        except SkyScriptError as error:
            context.log.warning(f"region {name}: {error}")
            continue
        context.log.info(f"region {name}: another extract at its server: {'not told' if changed is None else changed}")
        if changed:
            why = "another extract at its server"
            requests.append(request(REGIONS, (name,), "changed_extracts", why, f"{now:.0f}", FORCED))
    return dg.SensorResult(run_requests=requests, cursor=_Times.dump_json(asked).decode())


@dg.schedule(
    job=REGIONS.job,
    cron_schedule="0 3 * * 6",
    execution_timezone="UTC",
    description="On Saturdays asks for each extract that comes from a server; what is the same there is not fetched.",
)
def weekly_refresh(context: dg.ScheduleEvaluationContext, plant: Plant) -> Iterator[dg.RunRequest]:
    """Have extracts fetched that are other ones now."""
    standing = Standing(plant, context.instance)
    for name, region in plant.settings().regions.items():
        if region.may_change and not standing.is_in_flight(REGIONS, (name,)):
            when = context.scheduled_execution_time.isoformat()
            yield request(REGIONS, (name,), "weekly_refresh", "weekly", when, FORCED)


@dg.schedule(
    job=MANIFEST.job,
    cron_schedule="0 3 1 * *",
    execution_timezone="UTC",
    description="Each month asks for a manifest of the pairs that there are; models_and_scores follows it.",
)
def monthly_training(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Have a new manifest made."""
    return request(MANIFEST, (), "monthly_training", "monthly", context.scheduled_execution_time.isoformat())


SENSORS = (missing_pairs, changed_settings, models_and_scores, changed_extracts)
SCHEDULES = (weekly_refresh, monthly_training)
