"""Time and memory of the whole demo in an empty folder, and the scoreboard it ends with, as Markdown.

    python benchmarks/demo.py

Runs every asset and partition of the packaged demo, or of another profile, in one process on a fresh instance, as
`skyscript demo` does, and prints a table of stage times (seconds of wall time, summed over partitions), peak memory,
disk and the scoreboard.
"""

import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import dagster as dg
from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets import backfill
from skyscript_assets.assets import STAGES
from skyscript_assets.definitions import build_defs
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.resources import Plant


def main() -> None:
    """Run the demo and print what it cost."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, help="empty folder for the data; default: a temporary one")
    parser.add_argument("--settings", type=Path, default=PACKAGED_PROFILES / "demo", help="folder of the profile")
    options = options_of(parser)
    with tempfile.TemporaryDirectory() as temporary:
        data = options.data or Path(temporary) / "data"
        settings, store = load_settings(options.settings), Store(data)
        defs = build_defs(settings, Plant(settings_folder=str(options.settings), data=str(data)))
        seconds: dict[str, float] = defaultdict(float)
        runs: dict[str, int] = defaultdict(int)
        started = time.monotonic()
        with dg.DagsterInstance.local_temp(temporary, overrides={"telemetry": {"enabled": False}}) as instance:
            for result in backfill.run_all(defs, settings, store, instance):
                if result.error:
                    raise SystemExit(f"{result.step.title}: {result.error}")
                for name, spent in result.seconds.items():
                    seconds[name] += spent
                    runs[name] += 1
        total = time.monotonic() - started
        print_head("stage", "seconds", "partitions")
        for name in STAGES:
            print_row(f"`{name}`", f"{seconds[name]:.1f}", runs[name])
        print_row("asset checks and Dagster itself", f"{total - sum(seconds.values()):.1f}", "")
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"\ntotal {total:.0f} s, peak memory {memory:.2f} GB, {store.size_bytes() / 1e6:.0f} MB on disk\n")
        print((store.folder(OutputKey("scoreboard")) / "scoreboard.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
