"""What profile `quickstart` asks of its services, and how long it takes, against stand-ins of all of them.

    python benchmarks/quickstart.py monaco.osm.pbf

The profile is the packaged one; Monaco's extract, images of noise, a tiny model and a set of twelve pictures stand for
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
from tests.rehearsal import rehearsed
from tests.workshop import Workshop

NAMES = ("Planetary Computer: search, token, NAIP", "Earth Search: search, Sentinel-2", "Geofabrik, archive of EuroSAT")


def main() -> None:
    """Run the profile and print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("extract", type=Path, help="OSM extract of Monaco (.osm.pbf)")
    parser.add_argument("--work", type=Path, help="folder for the run, kept; default: a temporary one")
    options = options_of(parser)
    with tempfile.TemporaryDirectory() as temporary, dg.DagsterInstance.ephemeral() as instance:
        work = (options.work or Path(temporary)).absolute()
        seconds: Counter[str] = Counter()
        with rehearsed(work, options.extract.resolve()) as (profile, servers):
            plant = Workshop(profile, work / "data", instance)
            began = time.perf_counter()
            for result in backfill.run_all(plant.defs, plant.settings, plant.store, instance):
                if result.error is not None:
                    raise SystemExit(result.error)
                seconds[result.step.level.name] += time.perf_counter() - began
                began = time.perf_counter()
        print_head("service", "requests", "MB")
        for name, server in zip(NAMES, servers, strict=True):
            print_row(name, len(server.asked), f"{server.sent / 1e6:.2f}")
        print()
        print_head("level", "s")
        for level, spent in seconds.items():
            print_row(level, f"{spent:.1f}")


if __name__ == "__main__":
    main()
