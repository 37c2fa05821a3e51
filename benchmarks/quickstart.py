"""What a packaged profile asks of its services, and how long it takes, against stand-ins of all of them.

    python benchmarks/quickstart.py monaco.osm.pbf
    python benchmarks/quickstart.py monaco.osm.pbf --profile skyscript

The profile is the packaged one; Monaco's extract, images of noise, tiny models and sets of few pictures stand for
what it fetches (tests/rehearsal.py): requests are those that the real services would get for so much ground, bytes and
seconds are not. Prints two Markdown tables.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import dagster as dg
from measuring import options_of, parser_of, print_head, print_row

sys.path.append(str(Path(__file__).resolve().parents[1]))
from skyscript_assets import backfill
from tests import rehearsal
from tests.tile_server import TileServer
from tests.workshop import Workshop


def main() -> None:
    """Run the profile and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("extract", type=Path, help="OSM extract of Monaco (.osm.pbf)")
    parser.add_argument("--profile", choices=["quickstart", "skyscript"], default="quickstart")
    parser.add_argument("--work", type=Path, help="folder for the run, kept; default: a temporary one")
    options = options_of(parser)
    with tempfile.TemporaryDirectory() as temporary, dg.DagsterInstance.ephemeral() as instance:
        work = (options.work or Path(temporary)).absolute()
        seconds: Counter[str] = Counter()
        rehearsed = getattr(rehearsal, options.profile)
        with rehearsed(work, options.extract.resolve()) as (profile, servers):
            plant = Workshop(profile, work / "data", instance)
            began = time.perf_counter()
            for result in backfill.run_all(plant.defs, plant.settings, plant.store, instance):
                if result.error is not None:
                    raise SystemExit(result.error)
                seconds[result.step.level.name] += time.perf_counter() - began
                began = time.perf_counter()
        print_head("service", "requests", "MB")
        for name, server in servers.items():
            counted = isinstance(server, rehearsal.Counting)
            asked = server.requests if isinstance(server, TileServer) else server.asked
            print_row(name, len(asked), f"{server.sent / 1e6:.2f}" if counted else "")
        print()
        print_head("level", "s")
        for level, spent in seconds.items():
            print_row(level, f"{spent:.1f}")


if __name__ == "__main__":
    main()
