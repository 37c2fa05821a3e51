"""The services of docker-compose.yml as processes of this machine: its own commands, health checks, order and signals.

There is no container here, so what one would change is changed in `Stack.__init__`, and nowhere else: hosts and ports,
and the folders that are mounted.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.postgres import Postgres, free_port, postgres

ROOT = Path(__file__).resolve().parents[1]
GIVE_UP_S = 300
"""When a service that does not become ready, or a run that does not end, is an error rather than slow."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def services(variables: Mapping[str, str]) -> dict[str, Any]:
    """The services with variables filled in, as docker compose does it.

    Raises:
        KeyError: a variable that has to be set is not.
    """

    def value(found: re.Match[str]) -> str:
        name, sign, other = found.groups()
        if not variables.get(name) and sign == "?":
            raise KeyError(f"{name}: {other}")
        return variables.get(name) or other or ""

    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    stated: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text))["services"]
    return stated


def seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


class Stack:
    """PostgreSQL, migration, code server, webserver and daemon."""

    def __init__(self, folder: Path, server: Postgres, stated: Mapping[str, Any]) -> None:
        self.folder, self.stated, self.processes = folder, stated, dict[str, subprocess.Popen[bytes]]()
        self.port, self.postgres = free_port(), server
        mounted = dict(mount.split(":")[1::-1] for mount in stated["code"]["volumes"] if mount.startswith("."))
        self.places = {
            "/opt/dagster": str(folder),
            "/profile": str(ROOT / mounted["/profile"]),
            "/data": str(folder / "data"),
            "0.0.0.0": "127.0.0.1",
            "3000": str(self.port),
            "4000": str(free_port()),
            "5432": str(server.port),
        }
        self.hosts = {"postgres": "127.0.0.1"}
        for name in ("dagster.yaml", "workspace.yaml"):
            text = self.here((ROOT / "deploy" / name).read_text(encoding="utf-8"))
            (folder / name).write_text(text.replace("host: code", "host: 127.0.0.1"), encoding="utf-8")

    def here(self, text: str) -> str:
        """A text of the services, with this machine's places."""
        return re.sub("|".join(map(re.escape, self.places)), lambda found: self.places[found[0]], text)

    def environment(self, name: str) -> dict[str, str]:
        stated = {
            variable: self.hosts.get(value, self.here(value))
            for variable, value in self.stated[name].get("environment", {}).items()
        }
        path = os.pathsep.join((str(Path(sys.executable).parent), str(self.postgres.programs), os.environ["PATH"]))
        # The image has the package installed; the virtual environment may have another working copy.
        return {
            "PATH": path,
            "HOME": os.environ["HOME"],
            "PYTHONPATH": str(ROOT),
            "PGPORT": str(self.postgres.port),
            **stated,
        }

    def start(self, name: str) -> None:
        """Start a service in a process group of its own, as its container would be."""
        with (self.folder / f"{name}.log").open("ab") as log:
            # A container starts with default signals. The background job of a shell ignores SIGINT, and Dagster does on
            # SIGTERM what it does on SIGINT.
            self.processes[name] = subprocess.Popen(
                ["env", "--default-signal=INT", *(self.here(word) for word in self.stated[name]["command"])],
                env=self.environment(name),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until(self, name: str, condition: str) -> None:
        """What `depends_on` states of a service that others wait for."""
        if condition == "service_completed_successfully":
            assert self.processes[name].wait(GIVE_UP_S) == 0, self.log(name)
        else:
            assert condition == "service_healthy"
            self.eventually(lambda: self.is_healthy(name), f"{name} is not healthy")

    def is_healthy(self, name: str) -> bool:
        kind, *words = self.stated[name]["healthcheck"]["test"]
        assert name not in self.processes or self.processes[name].poll() is None, self.log(name)
        command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words
        return not subprocess.run(
            [self.here(word) for word in command],
            env=self.environment(name),
            capture_output=True,
            timeout=seconds(self.stated[name]["healthcheck"]["timeout"]) * 4,  # a busy machine
            check=False,
        ).returncode

    def eventually(self, holds: Any, otherwise: str) -> None:
        end = time.monotonic() + GIVE_UP_S
        while not holds():
            assert time.monotonic() < end, otherwise + "\n" + "\n".join(map(self.log, self.processes))
            time.sleep(0.5)

    def log(self, name: str) -> str:
        return f"--- {name}\n" + (self.folder / f"{name}.log").read_text(encoding="utf-8")[-3000:]

    def stop(self, name: str) -> int:
        """What `docker compose stop` does: SIGTERM to all processes (`tini -g`), SIGKILL after the service's grace.

        Raises:
            AssertionError: it had to be killed.
        """
        process = self.processes[name]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            return process.wait(seconds(self.stated[name]["stop_grace_period"]))
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{name} had to be killed\n{self.log(name)}") from late
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer of the webserver's GraphQL."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            told = json.load(answer)
        assert "errors" not in told, told
        data: dict[str, Any] = told["data"]
        return data


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """All services, started in the order that they state, each once what it depends on is ready."""
    stated = services({"POSTGRES_PASSWORD": "c0rrect-horse"})
    with ExitStack() as ending:
        server = ending.enter_context(postgres(stated["postgres"]["environment"]))
        running = Stack(folder, server, stated)
        for name in ("migrate", "code", "webserver", "daemon"):
            for other, needed in stated[name]["depends_on"].items():
                running.wait_until(other, needed["condition"])
            running.start(name)
            ending.callback(running.stop, name)
        running.wait_until("daemon", "service_healthy")
        yield running
