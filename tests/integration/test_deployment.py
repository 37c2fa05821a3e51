"""The files that start the plant as services say what they should, and the services start."""

import base64
import importlib.util
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config
from dagster._core.workspace.load_target import WorkspaceFileTarget
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.compose import Stack, services, stack
from tests.postgres import free_port

ROOT = Path(__file__).resolve().parents[2]


PASSWORD = "c0rrect-horse"


@pytest.mark.integration
@pytest.mark.parametrize("gpu", [False, True])
def test_docker_compose_accepts_the_services(gpu: bool, tmp_path: Path) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    example = (ROOT / ".env.example").read_text(encoding="utf-8").replace("PASSWORD=", f"PASSWORD={PASSWORD}")
    if gpu:
        example = re.sub(r"#(TORCH=gpu|COMPOSE_FILE=.*)", r"\1", example)
    (tmp_path / ".env").write_text(example, encoding="utf-8")
    done = subprocess.run(["docker-compose", "config"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    stated = yaml.safe_load(done.stdout)["services"]
    assert sorted(stated) == ["code", "daemon", "migrate", "nginx", "postgres", "webserver"]
    assert stated["webserver"]["ports"] == ["127.0.0.1:3000:3000/tcp"]
    assert ("deploy" in stated["code"]) is gpu
    assert stated["code"]["image"].endswith("-gpu" if gpu else "-cpu")


def test_no_password_is_assumed() -> None:
    with pytest.raises(KeyError, match=r"POSTGRES_PASSWORD: copy \.env\.example"):
        services({})


def test_data_and_secrets_reach_the_code_server_alone() -> None:
    stated = services({"POSTGRES_PASSWORD": PASSWORD, "DATA_FOLDER": "/srv/data", "PROFILE_FOLDER": "/srv/profile"})
    assert {name for name, service in stated.items() if "env_file" in service} == {"code"}
    assert {name for name, service in stated.items() if any(":/data" in it for it in service["volumes"])} == {"code"}
    assert {"/srv/data:/data", "/srv/profile:/profile:ro"} < set(stated["code"]["volumes"])


def test_what_can_be_set_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    shown = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert used <= shown


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    # Not below pytest's folder: that one is closed to the user that PostgreSQL runs as.
    with (
        tempfile.TemporaryDirectory(prefix="skyscript-services-") as folder,
        stack(Path(folder)) as services_of_compose,
    ):
        yield services_of_compose


LAUNCH = """
mutation($run: ExecutionParams!) {
    launchRun(executionParams: $run) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""

AGAIN = """
query($parent: String!) {
    runsOrError(filter: {tags: [{key: "dagster/parent_run_id", value: $parent}]}) { ... on Runs { results { runId } } }
}"""


def launch(running: Stack, job: str, *assets: str, partition: str = "") -> str:
    """Ask the webserver for a run; the daemon takes it from the queue, the code server executes it."""
    selector = {
        "repositoryLocationName": "skyscript",
        "repositoryName": "__repository__",
        "jobName": job,
        "assetSelection": [{"path": [asset]} for asset in assets],
    }
    tags = [{"key": "dagster/partition", "value": partition}] if partition else []
    run = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
    launched = running.ask(LAUNCH, run=run)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def status(running: Stack, run: str) -> str:
    asked = running.ask("query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }", run=run)
    return str(asked["runOrError"]["status"])


def wait_for(running: Stack, run: str, *wanted: str) -> None:
    """Wait until a run's status is one of these.

    Raises:
        AssertionError: it ended otherwise, or does not end.
    """

    def arrived() -> bool:
        now = status(running, run)
        assert now in wanted or now not in {"SUCCESS", "FAILURE", "CANCELED"}, now + running.log("code")
        return now in wanted

    running.eventually(arrived, f"run {run} is not {wanted}")


@pytest.mark.integration
def test_the_services_start_and_make_an_output(running: Stack) -> None:
    shown = running.ask(
        """{
            workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } }
            instance { runLauncher { name } daemonHealth { allDaemonStatuses { daemonType required healthy } } }
        }"""
    )
    assert shown["workspaceOrError"]["locationEntries"] == [
        {"name": "skyscript", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
    ]
    daemons = [one for one in shown["instance"]["daemonHealth"]["allDaemonStatuses"] if one["required"]]
    assert {"QUEUED_RUN_COORDINATOR", "SCHEDULER", "SENSOR"} <= {one["daemonType"] for one in daemons}
    assert all(one["healthy"] for one in daemons)
    assert all(running.is_healthy(name) for name in ("postgres", "code", "webserver", "daemon"))

    wait_for(running, launch(running, "given", "tag_labels"), "SUCCESS")
    assert (running.folder / "data" / "tag_labels" / "output.json").is_file()


@pytest.mark.integration
def test_they_find_a_database_again_that_was_gone(running: Stack) -> None:
    running.postgres.stop()
    time.sleep(15)  # longer than Dagster tries a connection
    running.postgres.start()
    wait_for(running, launch(running, "given", "caption_rules"), "SUCCESS")
    assert running.is_healthy("daemon")


@pytest.fixture(scope="module")
def https(running: Stack) -> Iterator[int]:
    """The port of Debian's nginx in front of the webserver, as deploy/nginx.conf has it."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed")
    work, port = running.folder / "nginx", free_port()
    work.mkdir()
    password = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout
    (work / "htpasswd").write_text(f"anna:{password}", encoding="utf-8")
    names = ("-keyout", str(work / "privkey.pem"), "-out", str(work / "fullchain.pem"), "-subj", "/CN=localhost")
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", *names]
    subprocess.run(request, capture_output=True, check=True)
    places = {
        "/etc/nginx/tls": str(work),
        "listen 443": f"listen 127.0.0.1:{port}",
        "webserver:3000": f"127.0.0.1:{running.port}",
    }
    site = (ROOT / "deploy/nginx.conf").read_text(encoding="utf-8")
    for there, here in places.items():
        assert there in site
        site = site.replace(there, here)
    (work / "site.conf").write_text(site, encoding="utf-8")
    kept = "".join(
        f"{name}_temp_path {work}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (work / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {work}/pid; error_log {work}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {kept} include {work}/site.conf; }}\n",
        encoding="utf-8",
    )
    with subprocess.Popen([program, "-c", str(work / "nginx.conf"), "-p", str(work)]) as process:
        try:
            running.eventually(lambda: (work / "pid").exists() or process.poll() is not None, "nginx does not start")
            assert process.poll() is None, (work / "error.log").read_text(encoding="utf-8")
            yield port
        finally:
            process.terminate()


LOGIN = {"Authorization": "Basic " + base64.b64encode(f"anna:{PASSWORD}".encode()).decode()}


def answer(port: int, path: str = "/server_info", **headers: str) -> int:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, context=trusting, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.integration
def test_nginx_asks_for_a_password(https: int) -> None:
    assert answer(https) == 401
    assert answer(https, Authorization="Basic " + base64.b64encode(b"anna:wrong").decode()) == 401
    assert answer(https, "/graphql?query={__typename}") == 401
    assert answer(https, **LOGIN) == 200
    assert answer(https, "/graphql?query={__typename}", **LOGIN) == 200


@pytest.mark.integration
def test_another_site_cannot_use_the_password_that_a_browser_keeps(https: int) -> None:
    query, own = "/graphql?query={__typename}", f"https://127.0.0.1:{https}"
    assert answer(https, query, Origin=own, Sec_Fetch_Site="same-origin", **LOGIN) == 200
    assert answer(https, query, Origin="https://elsewhere.example", **LOGIN) == 403
    assert answer(https, query, Origin=own + ".elsewhere.example", **LOGIN) == 403
    assert answer(https, query, Sec_Fetch_Site="cross-site", **LOGIN) == 403
    assert answer(https, "/", Sec_Fetch_Site="cross-site", **LOGIN) == 200, "a link to a page may be followed"


@pytest.mark.integration
def test_subscriptions_pass_through_nginx(https: int) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    address = f"wss://127.0.0.1:{https}/graphql"
    with pytest.raises(InvalidStatus, match="401"):
        connect(address, ssl=trusting, subprotocols=[Subprotocol("graphql-ws")])
    with connect(
        address, ssl=trusting, subprotocols=[Subprotocol("graphql-ws")], additional_headers=LOGIN, proxy=None
    ) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv(60)) == {"type": "connection_ack"}


@pytest.mark.integration
def test_a_run_stops_with_the_services_and_starts_again_with_them(running: Stack, demo_packages: None) -> None:
    run = launch(running, "regions", "osm_extract", "osm_objects", partition="helsinki")
    wait_for(running, run, "STARTED")
    # As with `docker compose stop` the daemon goes first; at once, or the run may have ended by itself.
    os.killpg(running.processes["daemon"].pid, signal.SIGKILL)
    for name in ("code", "webserver"):
        assert running.stop(name) == 0, running.log(name)

    for name in ("code", "webserver", "daemon"):
        running.start(name)
        running.wait_until(name, "service_healthy")
    assert status(running, run) == "FAILURE"
    found: list[dict[str, str]] = []

    def started_again() -> bool:
        found[:] = running.ask(AGAIN, parent=run)["runsOrError"]["results"]
        return bool(found)

    running.eventually(started_again, "the daemon does not start the run again")
    wait_for(running, found[0]["runId"], "SUCCESS")
    assert running.stop("daemon") == 0, running.log("daemon")


@pytest.mark.parametrize("folder", [ROOT, ROOT / "deploy"])
def test_the_instance_s_settings_are_ones_that_dagster_knows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOST": "x", "PORT": "5432", "DB": "x", "USER": "x", "PASSWORD": "x"}.items():
        monkeypatch.setenv(f"DAGSTER_POSTGRES_{name}", value)
    config, _ = dagster_instance_config(str(folder))
    assert config["telemetry"] == {"enabled": False}


@pytest.mark.parametrize(("folder", "runs"), [(ROOT, 2), (ROOT / "deploy", 4)])
def test_runs_wait_in_a_queue_and_their_number_is_limited(folder: Path, runs: int, tmp_path: Path) -> None:
    stated = yaml.safe_load((folder / "dagster.yaml").read_text(encoding="utf-8"))
    stated.pop("storage", None)  # a database that is not here
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(stated), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        limits = instance.get_concurrency_config()
    assert limits.run_queue_config is not None
    assert limits.run_queue_config.max_concurrent_runs == runs
    assert limits.pool_config.default_pool_limit == runs


@pytest.mark.integration
def test_dg_loads_the_definitions(tmp_path: Path) -> None:
    if importlib.util.find_spec("dagster_dg_cli") is None:
        pytest.skip("dagster-dg-cli is not installed (extra dev)")
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "dagster_dg_cli.cli", "check", "defs"],
        cwd=ROOT,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path), "SKYSCRIPT_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully" in done.stdout


def test_the_workspace_names_this_code_location() -> None:
    (origin,) = WorkspaceFileTarget(paths=[str(ROOT / "workspace.yaml")]).create_origins()
    assert origin.location_name == "skyscript"
