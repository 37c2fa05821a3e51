"""Do kills cost anything? Complete runs of a small profile with SIGKILLs strung along them, against an undisturbed one.

    python benchmarks/kills.py
    python benchmarks/kills.py --targets run --runs 1 --kills 3 --stages image_chips

The tiny profile of the tests, or another one, runs undisturbed once, which tells how long each stage takes. Then it
runs to its end so many times; each of the kills waits until its stage has begun, lets half of its usual time pass and
kills the target of that run:

    run       the process of `skyscript run`; the same command is given again
    code      the code server and the processes of its runs, while a daemon carries out a backfill of everything
    daemon    that daemon; the processes of its runs live on
    postgres  the database that holds runs and events, for `skyscript run`; it is back after some seconds
    s3        the object store that holds the outputs (localbucket, which keeps them on disk), in the same way

Kills go round stages and runs, so that each stage gets its share. A kill that came when its stage had just ended is
made up for in the next run, or in one more. At the end of each run every file has to have the bytes of the undisturbed
run, nothing may be left in staging, no slot of a pool claimed and no run open. A command in which nothing happens for
120 s (or, if that is more, twice the longest stage) is a fault as well; a daemon has twice that, since a run that dies
before its first step is missed only after `start_timeout_seconds`. Prints a Markdown table; ends with status 1 after a
fault.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionStatus, PartitionBackfill
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from faulty_server import BUCKET, CREDENTIALS, free_port
from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets.assets import STAGES
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.storage import Store
from skyscript_assets.partitions import partitions_of
from skyscript_assets.provenance import Outputs, State
from skyscript_assets.runs import process_tags

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from tests.postgres import postgres  # noqa: E402
from tests.workshop import tiny_files, write_profile  # noqa: E402

POLL_S, MOST_STARTS = 0.05, 30
DATABASE = {"POSTGRES_USER": "dagster", "POSTGRES_PASSWORD": "dagster", "POSTGRES_DB": "dagster"}
ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}

Files = Mapping[str, Mapping[str, tuple[int, str]]]
"""Size and SHA-256 of each file, by output and relative path."""


class FaultError(Exception):
    """What a run was not to do."""


@dataclass
class Site:
    """A folder in which the profile runs, its instance and its processes.

    Attributes:
        home: The folder, with `profile`, `data`, `.dagster` and `logs`.
        instance: The instance.
        processes: What runs, by name.
        starts: How often something was started.
        variables: Variables for its processes.
    """

    home: Path
    instance: dg.DagsterInstance
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    variables: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        """Start a process in a group of its own; what it prints goes into the logs."""
        self.starts[name] += 1
        if self.starts[name] > MOST_STARTS:
            raise FaultError(f"{name} was started {MOST_STARTS} times and did not come to an end; see {self.home}/logs")
        with (self.home / "logs" / f"{name}-{self.starts[name]}.txt").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=os.environ | self.variables,
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kill a process and all of its group."""
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes.pop(name).wait()

    def steps(self, *statuses: dg.DagsterRunStatus) -> list[tuple[str, float, float]]:
        """Name, start and end (endless where there is none yet) of each step of the runs of some statuses."""
        return [
            (step.step_key, step.start_time, step.end_time or float("inf"))
            for run in self.instance.get_runs(dg.RunsFilter(statuses=list(statuses)))
            for step in self.instance.get_run_step_stats(run.run_id)
            if step.start_time
        ]

    def store(self) -> Store:
        """Its outputs."""
        data = self.variables["SKYSCRIPT_DATA"]
        return Store(data, self.home / "checked" if "://" in data else None)

    def files(self) -> Files:
        """Every output's files as they lie there."""
        settings, store = load_settings(self.home / "profile"), self.store()
        outputs, found = Outputs(STAGES, settings, store), {}
        for stage in STAGES.values():
            for partition in partitions_of(stage.scheme, settings):
                key = stage.key(settings, partition)
                if (state := outputs.state(stage, partition)) is not State.CURRENT:
                    raise FaultError(f"{key} is {state.value}")
                folder, record = store.folder(key), outputs.record(key)
                assert record is not None
                found[str(key)] = {
                    name: ((folder / name).stat().st_size, file_sha256(folder / name)) for name in record.files
                }
        return found

    def newest(self) -> float:
        """When something in the data folder changed last."""
        newest = 0.0
        for top in ("data", "buckets"):
            for folder, _, names in os.walk(self.home / top):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                        newest = max(newest, os.lstat(Path(folder, name)).st_mtime)
        return newest


class Command:
    """`skyscript run`, given again until it has nothing more to say."""

    victim = "run"
    hangs_s = 120.0
    outage_s = 5.0

    def __init__(self, site: Site) -> None:
        self.site = site

    def kill(self) -> None:
        """Kill the target."""
        self.site.kill(self.victim)

    def close(self) -> None:
        """End everything."""
        for name, process in list(self.site.processes.items()):
            if process.poll() is None:
                self.site.kill(name)

    def serve(self) -> bool:
        """Start what is not there; whether all is done."""
        process = self.site.processes.get("run")
        if process is not None and process.poll() is None:
            return False
        if process is not None and process.returncode == 0:
            return True
        self.site.start("run", "skyscript_assets.cli", "run")
        return False


class Database(Command):
    """The same with an instance in PostgreSQL, which is killed."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.stack = contextlib.ExitStack()
        self.server = self.stack.enter_context(postgres(DATABASE))
        user, password, name = DATABASE.values()
        place = {"hostname": "127.0.0.1", "port": self.server.port, "db_name": name, "scheme": "postgresql+psycopg2"}
        config = site.home / ".dagster" / "dagster.yaml"
        storage = {"postgres": {"postgres_db": {**place, "username": user, "password": password}}}
        settings = {**yaml.safe_load(config.read_text(encoding="utf-8")), "storage": storage}
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        site.instance = dg.DagsterInstance.from_config(str(config.parent))

    def kill(self) -> None:
        """Kill the server's first process; it starts again when the others have noticed."""
        os.kill(int((self.server.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        time.sleep(self.outage_s)
        for _ in range(20):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.server.start()
                return
            time.sleep(1)
        raise FaultError("PostgreSQL did not start again")

    def close(self) -> None:
        """End everything."""
        super().close()
        self.stack.close()


class ObjectStore(Command):
    """The same with outputs in an object store, which is killed."""

    victim = "s3"

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.port = free_port()
        (site.home / "buckets" / BUCKET).mkdir(parents=True)
        data = {"SKYSCRIPT_DATA": f"s3://{BUCKET}/data", "SKYSCRIPT_SCRATCH": str(site.home / "data")}
        address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}
        site.variables |= {**CREDENTIALS, **data, **address}
        os.environ.update({**CREDENTIALS, **address})
        self.listen()

    def listen(self) -> None:
        """Start the server and wait until it answers."""
        self.site.start("s3", "localbucket", "--port", str(self.port), str(self.site.home / "buckets"))
        while self.site.processes["s3"].poll() is None and not answers(self.port):
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the server and start it again."""
        super().kill()
        time.sleep(self.outage_s)
        self.listen()


class Backfill(Command):
    """A code server, a daemon, and a backfill of everything, asked for again until one went well."""

    victim = "code"
    hangs_s = 240.0

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.backfill_id, self.port = "", free_port()
        server = {"host": "127.0.0.1", "port": self.port, "location_name": "skyscript"}
        workspace = {"load_from": [{"grpc_server": server}]}
        (site.home / "workspace.yaml").write_text(yaml.safe_dump(workspace), encoding="utf-8")

    def serve(self) -> bool:
        """Start what is not there; whether all is done."""
        served = ("-m", "skyscript_assets.definitions", "--host", "127.0.0.1", "--port", str(self.port))
        for name, command in {
            "code": ("dagster", "api", "grpc", *served, "--location-name", "skyscript"),
            "daemon": ("dagster._daemon", "run", "--workspace", "workspace.yaml"),
        }.items():
            process = self.site.processes.get(name)
            if process is None or process.poll() is not None:
                self.site.start(name, *command)
        known = self.site.instance.get_backfill(self.backfill_id) if self.backfill_id else None
        if known is not None and known.status is BulkActionStatus.COMPLETED_SUCCESS:
            return True
        if known is None or known.status in BULK_ACTION_TERMINAL_STATUSES:
            self.ask()
        return False

    def ask(self) -> None:
        """Ask for every partition of every asset, as soon as the server answers."""
        if not answers(self.port):
            return
        target = GrpcServerTarget(host="127.0.0.1", port=self.port, socket=None, location_name="skyscript")
        with WorkspaceProcessContext(self.site.instance, target) as process:
            graph = process.create_request_context().asset_graph
        if not graph.materializable_asset_keys:
            return
        self.site.starts["backfill"] += 1
        self.backfill_id = uuid.uuid4().hex[:8]
        self.site.instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=self.backfill_id,
                asset_graph=graph,
                partition_names=None,
                asset_selection=[dg.AssetKey(name) for name in STAGES],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=self.site.instance,
                all_partitions=True,
                title=None,
                description=None,
                run_config=None,
            )
        )


class DaemonOfBackfill(Backfill):
    """The same, of which the daemon is killed."""

    victim = "daemon"


TARGETS = {
    "run": Command,
    "code": Backfill,
    "daemon": DaemonOfBackfill,
    "postgres": Database,
    "s3": ObjectStore,
}


def answers(port: int) -> bool:
    """Whether somebody listens at a port."""
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@dataclass
class Outcome:
    """What became of a complete run: kills by stage, those that came too late, the longest standstill, faults."""

    target: str
    kills: Counter[str]
    late: list[str]
    standstill_s: float
    faults: list[str]


def complete(site: Site, target: str, kills: list[str], usual: Mapping[str, float], truth: Files) -> Outcome:
    """Run the profile to its end, killing the target half-way through each of some stages."""
    carried_out, left, killed_at = TARGETS[target](site), list(kills), 0.0
    outcome = Outcome(target, Counter(), [], 0.0, [])
    token, changed = None, time.time()
    try:
        while not carried_out.serve():
            steps = site.steps(dg.DagsterRunStatus.STARTED)
            due = [step for step in steps if step[0] in left and killed_at < step[1] and step[2] == float("inf")]
            if due:
                stage, began, _ = due[0]
                left.remove(stage)
                time.sleep(max(0.0, began + usual[stage] / 2 - time.time()))
                killed_at = time.time()
                carried_out.kill()
                ends = [end for name, start, end in site.steps(dg.DagsterRunStatus.STARTED, *ENDED) if start == began]
                if min(ends, default=0.0) > killed_at:
                    outcome.kills[stage] += 1
                else:
                    outcome.late.append(stage)
            if token != (token := (site.newest(), site.starts.total(), repr(steps))):
                changed = time.time()
            outcome.standstill_s = max(outcome.standstill_s, time.time() - changed)
            if outcome.standstill_s > (limit := max(carried_out.hangs_s, 2 * max(usual.values()))):
                raise FaultError(f"nothing happened for {limit:.0f} s; see {site.home}/logs")
            time.sleep(POLL_S)
        outcome.faults += faults(site, truth)
    except FaultError as fault:
        outcome.faults.append(str(fault))
    finally:
        carried_out.close()
    outcome.late += left
    return outcome


def faults(site: Site, truth: Files) -> list[str]:
    """What the end of a run leaves to be desired; a daemon gets a moment to clear up."""
    found = site.files()
    faults = [f"{key}: other files than undisturbed" for key in truth if found[key] != truth[key]]
    staging = site.home / "data" / ".staging"
    faults += [f"left in staging: {path.name}" for path in staging.iterdir() if path.is_dir()]
    until = time.time() + Backfill.hangs_s
    while (left := claims_and_runs(site.instance)) and "daemon" in site.processes and time.time() < until:
        time.sleep(1)
    return faults + left


def claims_and_runs(instance: dg.DagsterInstance) -> list[str]:
    """Slots that are claimed and runs that are open."""
    storage = instance.event_log_storage
    infos = storage.get_concurrency_infos(sorted(storage.get_concurrency_keys()))
    claims = {slot.run_id for info in infos.values() for slot in info.claimed_slots} | storage.get_concurrency_run_ids()
    open_runs = [run.run_id for run in instance.get_runs() if run.status not in ENDED]
    return [f"claimed by {run_id}" for run_id in sorted(claims)] + [f"open: {run_id}" for run_id in open_runs]


def new_site(home: Path, settings: Path | None) -> Site:
    """An empty site with a profile of its own."""
    for name in (".dagster", "logs"):
        (home / name).mkdir(parents=True)
    (home / ".dagster" / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    if settings is None:
        write_profile(home / "profile", tiny_files())
    else:
        (home / "profile").symlink_to(settings.absolute())
    places = {"SKYSCRIPT_SETTINGS": "profile", "SKYSCRIPT_DATA": "data", "DAGSTER_HOME": ".dagster"}
    variables = {name: str(home / place) for name, place in places.items()}
    instance = dg.DagsterInstance.from_config(str(home / ".dagster"))
    return Site(home, instance, variables={"PYTHONPATH": str(ROOT), **variables})


def undisturbed(site: Site) -> tuple[Files, dict[str, float]]:
    """The files of a run that nobody kills, and the seconds of each stage's first step."""
    site.start("run", "skyscript_assets.cli", "run")
    if site.processes["run"].wait() != 0:
        raise SystemExit(f"the undisturbed run failed; see {site.home}/logs")
    steps = sorted(site.steps(dg.DagsterRunStatus.SUCCESS), key=lambda step: -step[1])
    return site.files(), {name: end - start for name, start, end in steps}


def main() -> None:
    """Run, kill and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--targets", default="run,code,daemon", help="which to kill, in turn")
    parser.add_argument("--runs", type=int, default=6, help="complete runs")
    parser.add_argument("--kills", type=int, default=60, help="kills in all")
    parser.add_argument("--outage", type=float, default=5.0, help="seconds until a database or object store is back")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES), help="stages to kill in")
    parser.add_argument("--settings", type=Path, help="folder of a small profile; default: the tests' tiny one")
    parser.add_argument("--work", type=Path, help="folder for the runs, kept; default: a temporary one")
    options = options_of(parser)
    if not process_tags(""):
        raise SystemExit("this system has no /proc, by which runs of processes that are gone are known")
    targets, Command.outage_s = options.targets.split(","), options.outage
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).absolute()
        truth, usual = undisturbed(new_site(work / "undisturbed", options.settings))
        planned: list[list[str]] = [[] for _ in range(options.runs)]
        for number in range(options.kills):
            planned[number % options.runs].append(options.stages[number % len(options.stages)])
        outcomes: list[Outcome] = []
        while len(outcomes) < len(planned):
            number = len(outcomes)
            site = new_site(work / f"run-{number}", options.settings)
            outcomes.append(complete(site, targets[number % len(targets)], planned[number], usual, truth))
            one = outcomes[-1]
            print(f"run {number} ({one.target}): {one.kills.total()} kills, {one.faults or 'well'}", file=sys.stderr)
            if one.late and len(outcomes) == len(planned) < options.runs + 2 * len(targets):
                planned.append([])
            if one.late and len(outcomes) < len(planned):
                planned[number + 1] += one.late
    report(outcomes)


def report(outcomes: list[Outcome]) -> None:
    """Print kills by target and stage, and what each complete run came to."""
    print_head("target", "stage", "kills", "result")
    for target in dict.fromkeys(outcome.target for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.target == target]
        for stage in STAGES:
            if kills := sum(outcome.kills[stage] for outcome in mine):
                bad = sum(bool(outcome.faults) for outcome in mine if outcome.kills[stage])
                print_row(f"`{target}`", f"`{stage}`", kills, f"{bad} runs with faults" if bad else "as undisturbed")
    kills = sum(outcome.kills.total() for outcome in outcomes)
    longest = max(outcome.standstill_s for outcome in outcomes)
    print(f"\n{kills} kills in {len(outcomes)} complete runs; longest time without progress {longest:.0f} s")
    found = [f"run {number} ({one.target}): {fault}" for number, one in enumerate(outcomes) for fault in one.faults]
    if found:
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
