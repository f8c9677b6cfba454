"""The guard that ships, served as an operator would: scored in a process of its own, and a second time beside it."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from tests.gateway.conftest import Scripted, content, events, finishes, says

REPLY = "Bread needs flour, water, salt and time."


def test_general_scores_apart_and_is_compared_with_itself(upstream: Scripted, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable, "-c", "from charter.cli import main; main()", "serve", "general", "--upstream", upstream.url, "--port", str(port),
        "--scorer", "process", "--shadow-guard", "general", "--audit", str(tmp_path / "log.db"),
    ]  # fmt: skip
    gateway = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=240) as http:
            _until_it_serves(gateway, http)
            body = {"model": upstream.plays(says(*(REPLY[i : i + 7] for i in range(0, len(REPLY), 7)))), "stream": True}
            body["messages"] = [{"role": "user", "content": "How do I bake bread?"}]
            got = events(http.post("/v1/chat/completions", json=body, headers={"x-charter-scores": "tokens"}).content)
            assert (content(got), finishes(got)) == (REPLY, ["stop"])
            notes = [c["charter"]["reply"] for c in got if isinstance(c, dict) and "reply" in c.get("charter", {})]
            assert sum(chars for note in notes for chars, _ in note["tokens"]) == len(REPLY)
            health = http.get("/healthz").json()
            while sum(health["shadow_guard"]["reply"].values()) + health["shadow_guard"]["failed"] < 1:
                time.sleep(0.1)
                health = http.get("/healthz").json()
            assert (health["shadow_guard"]["prompt"]["neither"], health["shadow_guard"]["reply"]["neither"]) == (1, 1)
            counters = health["counters"]
            assert (counters["errors"], counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0, 0)
    finally:
        gateway.terminate()
        gateway.wait(60)
    rows = sqlite3.connect(tmp_path / "log.db")
    found = rows.execute("SELECT mode, stage, guard, round(score, 3) FROM charter_verdicts ORDER BY mode, stage").fetchall()
    rows.close()
    assert [row[:2] for row in found] == [(mode, stage) for mode in ("enforce", "shadow-guard") for stage in ("prompt", "reply")]
    assert found[:2] == [("enforce", *row[1:]) for row in found[2:]]


def _until_it_serves(gateway: subprocess.Popen[bytes], http: httpx2.Client) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert gateway.poll() is None
        try:
            http.get("/healthz")
        except httpx2.ConnectError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("it does not serve")
