"""Starting and stopping a real process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest
from tests.gateway.conftest import Oracle, Scripted

from charter.errors import CharterError, UpstreamError
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


def test_an_upstream_that_does_not_answer_is_told_before_anything_is_served() -> None:
    with pytest.raises(UpstreamError, match=r"http://127\.0\.0\.1:9/v1 does not answer"):
        run(Oracle(), Settings("http://127.0.0.1:9/v1"), "127.0.0.1", 0)


def test_a_port_that_is_taken_is_one_sentence(upstream: Scripted) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CharterError, match="choose another --host or --port"):
        run(Oracle(), Settings(upstream.url), "127.0.0.1", taken.getsockname()[1])
