"""Findings to log, and a real PostgreSQL that runs while the tests do."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from charter.gateway.audit.finding import Finding, now

Make = Callable[..., Finding]


def a_finding(**more: Any) -> Finding:
    """One with everything filled in, changed as asked."""
    base: dict[str, Any] = {
        "id": uuid.uuid4().hex, "time": now(), "request": "r1", "surface": "/v1/chat/completions", "stage": "reply", "choice": 0,
        "guard": "oracle", "guard_hash": "0123456789abcdef", "mode": "enforce", "flagged": True, "score": 0.97, "clause": "words",
        "position": 3, "action": "block", "error": None, "latency_ms": 1.25, "content": None,
    }  # fmt: skip
    return Finding(**{**base, **more})


@dataclass
class Postgres:
    """A server of our own on loopback, that can be stopped and started."""

    programs: Path
    folder: Path
    port: int
    user: str

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=20"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """As a crash would."""
        self.run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments], check=True, cwd=self.folder, user=self.user if os.getuid() == 0 else None,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300,
        )  # fmt: skip

    @property
    def data(self) -> str:
        return str(self.folder / "data")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Skips where Debian's package `postgresql` is not installed."""
    found = shutil.which("initdb") or next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), reverse=True)), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed here: apt-get install postgresql")
    user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="charter-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Postgres(Path(found).resolve().parent, folder, port, user)
    try:
        server.run("initdb", "-D", server.data, "-U", user, "--auth", "trust", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of an empty database."""
    import psycopg

    name = f"log_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    return postgres.url(name)


def _unprivileged() -> str:
    """PostgreSQL refuses to run as root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` here")
