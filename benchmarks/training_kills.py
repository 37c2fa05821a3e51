"""Do kills cost a training run anything? Runs with random SIGKILLs, by number of processes, against an undisturbed one.

    python benchmarks/training_kills.py
    python benchmarks/training_kills.py --ranks 1 --kills 2 --steps 60

A tiny CLIP trains by the worker's own command, by itself and as two processes under torchrun. Each run is killed
`--each` times and then goes to its end, until `--kills` have hit. A kill waits until training has begun, and then a
random part of the time that all steps take undisturbed; it hits everything at once or, of several processes, one that
is drawn: torchrun or a rank. A kill that came too late is made up for. In the end weights, curve and description must
have the bytes of the undisturbed run, and nothing else may be left. Ends with status 1 where they have not.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets.training.worker import EVENTS

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.training_jobs import make_base, make_job, ranks_of, start
from tests.unit.lib.conftest import make_town

WAIT_S = 300
MADE = ("history.parquet", "model.json", "model.safetensors")


def begun(out: Path, process: subprocess.Popen[str]) -> bool:
    """Wait until the process tells of steps; False where it ended before that."""
    events = out / EVENTS
    before = events.stat().st_size if events.exists() else 0
    while not events.exists() or events.stat().st_size == before:
        if process.poll() is not None:
            return False
        time.sleep(0.01)
    return True


def finished(out: Path, ranks: int) -> float:
    """Let a run go to its end; returns the seconds from its first step on."""
    process = start(out, ranks)
    begun(out, process)
    started = time.monotonic()
    said, _ = process.communicate(timeout=WAIT_S)
    if process.returncode:
        sys.exit(said)
    return time.monotonic() - started


def killed(out: Path, ranks: int, seconds: float, draw: random.Random) -> str | None:
    """Kill a run after some seconds of steps; returns what was hit, None where the run had ended."""
    process = start(out, ranks)
    if begun(out, process):
        time.sleep(seconds)
    below = ranks_of(process) if ranks > 1 and process.poll() is None else {}
    victims = {"all": 0} | ({"torchrun": process.pid} | {f"rank {r}": pid for r, pid in below.items()} if below else {})
    name = draw.choice(sorted(victims))
    ended = process.poll() is not None
    if not ended:
        (os.killpg if name == "all" else os.kill)(victims[name] or process.pid, signal.SIGKILL)
    process.communicate(timeout=WAIT_S)
    return None if ended or process.returncode == 0 else name


def last_step(out: Path) -> int:
    """Step of the last state, 0 where there is none."""
    return max((int(path.name[5:14]) for path in out.glob("states/step-*.pt")), default=0)


def main() -> None:
    """Run, kill, compare and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kills", type=int, default=20, help="for each number of processes")
    parser.add_argument("--each", type=int, default=4, help="kills of a run before it goes to its end")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = options_of(parser)
    draw, equal = random.Random(options.seed), True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "base").mkdir()
        town, base = make_town(root / "data", 48), make_base(root / "base")
        fields: dict[str, Any] = {"max_steps": options.steps, "epochs": options.steps, "checkpoint_steps": 7}
        print_head("processes", "runs", "kills", "what was hit", "went on from steps", "equal to undisturbed")
        for ranks in options.ranks:
            whole = root / f"{ranks}-undisturbed"
            make_job(town, base, whole, **fields)
            seconds = finished(whole, ranks)
            hits: list[str] = []
            steps: list[int] = []
            same, runs = 0, 0
            while len(hits) < options.kills:
                runs += 1
                make_job(town, base, out := root / f"{ranks}-{runs}", **fields)
                for _ in range(min(options.each, options.kills - len(hits))):
                    if (hit := killed(out, ranks, draw.uniform(0, seconds), draw)) is None:
                        break
                    hits.append(hit)
                    steps.append(last_step(out))
                finished(out, ranks)
                left = {path.name for path in out.iterdir()} - {"job.json", EVENTS}
                same += left == set(MADE) and all((out / n).read_bytes() == (whole / n).read_bytes() for n in MADE)
            equal &= same == runs
            counts = ", ".join(f"{name} {hits.count(name)}" for name in sorted(set(hits)))
            print_row(ranks, runs, len(hits), counts, f"{min(steps)}-{max(steps)}", f"{same} of {runs}")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
