"""Starting and stopping a real process."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from tests.gateway.conftest import Oracle, Scripted

from charter.errors import CharterError, UpstreamError
from charter.gateway.audit.log import open_log
from charter.gateway.listening import bound
from charter.gateway.serve import run
from charter.gateway.settings import Settings

SERVE = """
import sys
from charter.gateway.serve import run
from charter.gateway.settings import Settings

class Guard:
    name, hash, clauses = "g", "h", ()

run(Guard(), Settings(sys.argv[1]), "127.0.0.1", int(sys.argv[2]))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def test_it_serves_until_it_is_told_to_stop_and_imports_no_torch(upstream: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, upstream.url, str(port)], stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(400):
            try:
                health = httpx2.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).json()
                break
            except httpx2.ConnectError:
                assert process.poll() is None
                time.sleep(0.05)
        assert health["guard"] == {"name": "g", "hash": "h"}
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in err


LOGGED = """
import sys
from charter.gateway.audit.log import open_log
from charter.gateway.serve import run
from charter.gateway.settings import Settings
from charter.records import Verdict

class Guard:
    name, hash, clauses, prompt_verdict = "g", "h", (), Verdict(True, 0.9, "words", 0)

    def open(self, turns):
        return self

    def clause_scores(self, session):
        return {}

run(Guard(), Settings(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), lambda: open_log(sys.argv[3]))
"""


def test_a_gateway_that_is_told_to_stop_has_logged_every_verdict(upstream: Scripted, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, "-c", LOGGED, upstream.url, str(port), str(tmp_path / "log.db")]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            for _ in range(1_200):
                try:
                    client.get("/healthz")
                    break
                except httpx2.ConnectError:
                    assert process.poll() is None
                    time.sleep(0.05)
            for _ in range(20):
                client.post("/v1/moderations", json={"input": ["a", "b"]}).raise_for_status()
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    lines = [json.loads(line) for line in err.splitlines()]
    assert sum(line["message"] == "request" for line in lines) == 20
    connection = sqlite3.connect(tmp_path / "log.db")
    assert connection.execute("SELECT COUNT(*), MIN(action), MAX(clause) FROM charter_verdicts").fetchone() == (40, "report", "words")
    connection.close()
    assert list((tmp_path / "log.db.spool").iterdir()) == []


def test_a_mistake_leaves_no_audit_log_behind(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError):
        run(Oracle(), Settings("http://127.0.0.1:9/v1"), "127.0.0.1", 0, lambda: open_log(str(tmp_path / "log.db")))
    assert list(tmp_path.iterdir()) == []


def test_an_upstream_that_does_not_answer_is_told_before_anything_is_served() -> None:
    with pytest.raises(UpstreamError, match=r"http://127\.0\.0\.1:9/v1 does not answer"):
        run(Oracle(), Settings("http://127.0.0.1:9/v1"), "127.0.0.1", 0)


def test_a_port_that_is_taken_is_one_sentence(upstream: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CharterError, match="choose another --host or --port"):
        run(Oracle(), Settings(upstream.url), "127.0.0.1", taken.getsockname()[1])


def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_headers() -> None:
    with bound("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
