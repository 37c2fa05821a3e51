"""Failed runs, told to people: a line in the log and, where an address is given, a message to a webhook."""

import json
from typing import Any

import dagster as dg

from skyscript_assets.backfill import message_of
from skyscript_assets.lib import http
from skyscript_assets.lib.errors import SkyScriptError
from skyscript_assets.lib.hosts import private_hosts
from skyscript_assets.lib.secrets import shown, told

ANSWER_S = 5.0
"""Seconds that a webhook may be silent: one evaluation tells of up to five runs and must end within 60 seconds."""


def failures(webhook: str | None, webserver: str | None) -> dg.SensorDefinition:
    """The sensor of failed runs.

    `webhook` is an address that gets a JSON object by POST for each: `text`, `job`, `partition`, `run_id`, `error`,
    `link`. It is a secret itself and shown nowhere. `webserver` is the address of Dagster's webserver, for links.
    """
    description = "Logs each run that fails, and tells the webhook of SKYSCRIPT_WEBHOOK where one is set."

    @dg.run_failure_sensor(name="failures", description=description)
    def tell(context: dg.RunFailureSensorContext) -> None:
        run, events = context.dagster_run, context.get_step_failure_events()
        errors = [f"{event.step_key}: {message_of(event.step_failure_data)}" for event in events]
        error = told("; ".join(errors) or context.failure_event.message or "unknown error", 1000)
        partition = run.tags.get("dagster/partition")
        text = f"{' '.join(filter(None, (run.job_name, partition)))} failed: {error} (run {run.run_id[:8]})"
        context.log.error(text)
        if not webhook:
            return
        message = {"text": text, "job": run.job_name, "partition": partition, "run_id": run.run_id, "error": error}
        link = {"link": f"{webserver.rstrip('/')}/runs/{run.run_id}"} if webserver else {}
        how: dict[str, Any] = {"method": "POST", "headers": {"Content-Type": "application/json"}, "stall_s": ANSWER_S}
        try:
            how["private_hosts"] = private_hosts((), webhook)
            answer = http.ask(webhook, limit=1 << 16, body=json.dumps(message | link).encode(), **how)
            http.check_status(webhook, answer.status, answer.headers)
        except (SkyScriptError, http.PassingError, ValueError) as problem:
            said = str(problem).replace(shown(webhook), "the address")
            context.log.warning(f"SKYSCRIPT_WEBHOOK was not told: {said}")

    return tell
