"""Servers as processes of their own: started, waited for, measured, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

HERE = Path(__file__).parents[1]


@dataclass
class Server:
    """A server that runs."""

    url: str
    """Without /v1."""
    process: subprocess.Popen[bytes]

    @property
    def resident_mb(self) -> float:
        """Resident memory of the process and all its children, in MB of 10^6 bytes."""
        return sum(_resident(pid) for pid in (self.process.pid, *children(self.process.pid))) / 1e6

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def children(pid: int) -> list[int]:
    """All processes below one."""
    out: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            out += [child, *children(child)]
    return out


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    ready: str = "/v1/models",
    env: dict[str, str] | None = None,
    log: Path | None = None,
    within_s: float = 200,
) -> Iterator[Server]:
    """Start a server and wait until it answers `ready`.

    Raises:
        RuntimeError: it ended, or took too long; with the end of its log.
    """
    with (log or Path(os.devnull)).open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | (env or {}))
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            _wait(server, ready, log, within_s)
            yield server
        finally:
            server.stop()


def ours(what: str, *more: str, log: Path | None = None, ready: str = "/v1/models"):  # type: ignore[no-untyped-def]
    """The stub upstream or Charter's gateway (see `stub`)."""
    port = free_port()
    env = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    return running([sys.executable, "-m", "serving.stub", what, str(port), *more], port, ready, env, log)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait(server: Server, ready: str, log: Path | None, within_s: float) -> None:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if httpx2.get(server.url + ready, trust_env=False, timeout=5).status_code < 500:
                return
        except httpx2.HTTPError:
            pass
        if server.process.poll() is not None:
            break
        time.sleep(0.05)
    tail = log.read_text(errors="replace")[-2_000:] if log else ""
    raise RuntimeError(f"it did not answer {ready} within {within_s:g} s; its log ends:\n{tail}")


def _resident(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
