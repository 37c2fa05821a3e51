"""The schedule that fills in region x source partitions, a few at a time. It is off until someone turns it on."""

from collections.abc import Iterator

import dagster as dg

from skyscript_assets.assets import PAIRS, STAGES
from skyscript_assets.partitions import key_of, partitions_of
from skyscript_assets.provenance import State
from skyscript_assets.resources import Plant

MAX_REQUESTS_PER_TICK = 4
"""Runs requested by one tick: enough to keep a small machine busy, too few to flood its queue."""


@dg.schedule(
    cron_schedule="*/15 * * * *",
    job_name=PAIRS.name,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Requests region x source partitions that are missing or stale, heavy ones first, a few a tick.",
)
def missing_pairs(plant: Plant) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request the pairs whose outputs are missing or stale and whose upstream exists.

    The run key holds what the pair would be made from, so that a pair that failed is requested again only when that
    has changed.
    """
    outputs = plant.outputs(STAGES)
    requested = 0
    for partition in partitions_of(PAIRS.scheme, outputs.settings):
        states = [outputs.state(stage, partition) for stage in PAIRS.stages]
        if states[0] is State.BLOCKED or all(state is State.CURRENT for state in states):
            continue
        made_from = outputs.provenance(PAIRS.stages[0], partition).fingerprint
        yield dg.RunRequest(partition_key=key_of(partition), run_key=f"{key_of(partition)}:{made_from}")
        requested += 1
        if requested == MAX_REQUESTS_PER_TICK:
            return
    if not requested:
        yield dg.SkipReason("every region x source partition is current or waits for its upstream")
