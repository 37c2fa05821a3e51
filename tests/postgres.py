"""Debian's PostgreSQL on this machine, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Postgres:
    """A cluster in a folder, on a port of its own; it can be stopped and started again."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self.programs, self.folder, self.port = programs, folder, port
        # PostgreSQL refuses to run as root.
        self.as_owner = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        )

    def run(self, program: str, *arguments: str, password: str = "") -> None:
        subprocess.run(
            [*self.as_owner, str(self.programs / program), *arguments],
            env={**os.environ, "PGPASSWORD": password},
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=120,
        )

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", mode, "-w", "stop")


@contextmanager
def postgres(environment: Mapping[str, str]) -> Iterator[Postgres]:
    """A running server with the user, password and database that the image `postgres` makes from these variables."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="skyscript-postgres-"))
    server = Postgres(found[-1].parent, folder, free_port())
    user, password = environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"]
    try:
        (folder / "password").write_text(password, encoding="utf-8")
        if server.as_owner:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        server.run("initdb", "-D", f"{folder}/data", "-U", user, "-A", "scram-sha-256", f"--pwfile={folder}/password")
        server.start()
        try:
            at = ("-h", "127.0.0.1", "-p", str(server.port), "-U", user)
            server.run("createdb", *at, environment["POSTGRES_DB"], password=password)
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
