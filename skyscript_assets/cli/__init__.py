"""`skyscript`: begin, run a profile, retry what failed, look, clear away; a module for each kind of command."""

import click

from skyscript_assets.cli import audit, export, export_model, look, models, newcomer, release, run, status, why
from skyscript_assets.cli.shared import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="skyscript-assets")
def main() -> None:
    """From OpenStreetMap extracts to captioned chips, trained CLIP models and benchmark scores.

    The profile is the folder or packaged name in SKYSCRIPT_SETTINGS (default: demo), outputs lie below SKYSCRIPT_DATA
    (default: ./data), runs are recorded below DAGSTER_HOME (default: ./.dagster).
    """


beginning, running = (newcomer.init, newcomer.doctor), (run.demo, run.run, run.retry)
looking = (
    status.status,
    why.why,
    audit.audit,
    export.export,
    export_model.export_model,
    release.release,
    release.rebuild,
    release.recaption,
    models.evaluate,
    models.classify,
    look.sources,
    look.estimate,
)
for command in (*beginning, *running, *looking, look.gc, look.clean):
    main.add_command(command)
