"""Time and memory of the whole demo in an empty folder, and the scoreboard it ends with, as Markdown.

    python benchmarks/demo.py [--data FOLDER]

Runs every asset and partition of the packaged demo in one process on a fresh instance, as `skyscript demo` does, and
prints a table of stage times (seconds of wall time, summed over partitions), peak memory, disk and the scoreboard.
"""

import argparse
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import dagster as dg

from skyscript_assets import backfill
from skyscript_assets.assets import STAGES
from skyscript_assets.definitions import build_defs
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.resources import Plant


def main() -> None:
    """Run the demo and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="empty folder for the data; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data = arguments.data or Path(temporary) / "data"
        profile = PACKAGED_PROFILES / "demo"
        settings, store = load_settings(profile), Store(data)
        defs = build_defs(settings, Plant(settings_folder=str(profile), data=str(data)))
        seconds: dict[str, float] = defaultdict(float)
        runs: dict[str, int] = defaultdict(int)
        started = time.monotonic()
        with dg.DagsterInstance.local_temp(temporary, overrides={"telemetry": {"enabled": False}}) as instance:
            for result in backfill.run_all(defs, settings, store, instance):
                if result.error or result.failed_checks:
                    raise SystemExit(f"{result.step.title}: {result.error or result.failed_checks}")
                for name, spent in result.seconds.items():
                    seconds[name] += spent
                    runs[name] += 1
        total = time.monotonic() - started
        print("| stage | partitions | seconds |\n|---|---|---|")
        for name in STAGES:
            print(f"| `{name}` | {runs[name]} | {seconds[name]:.1f} |")
        print(f"| asset checks and Dagster itself | | {total - sum(seconds.values()):.1f} |")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"\ntotal {total:.0f} s, peak memory {memory:.2f} GB, {store.size_bytes() / 1e6:.0f} MB on disk\n")
        print((store.folder(OutputKey("scoreboard")) / "scoreboard.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
