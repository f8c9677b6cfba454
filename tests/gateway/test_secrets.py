"""The upstream's key is planted, and everything that comes out of a gateway is searched for it."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import FORBIDDEN, Gateway, Script, Scripted, answers, says

from charter.gateway.settings import Settings
from charter.gateway.upstream import Upstream

KEY, PASSWORD = "sk-planted-f00dfacecafe", "hunter2-planted"
# everything that may log does, at its most talkative
SERVE = """
import logging, os, sys
from charter.gateway import logs
from charter.gateway.audit.log import open_log
from charter.gateway.serve import run
from charter.gateway.settings import Settings
from tests.gateway.conftest import Oracle

talkative = logs.config("DEBUG")
logs.config = lambda: talkative
logging.basicConfig(level=logging.DEBUG)
settings = Settings(sys.argv[1], upstream_key=os.environ.get("CHARTER_UPSTREAM_KEY"), timeout_s=3)
print(settings, file=sys.stderr)
run(Oracle(), settings, "127.0.0.1", int(sys.argv[2]), lambda: open_log(sys.argv[3]))
"""


def everything(upstream: Scripted, url: str, key: str | None, tmp_path: Path) -> str:
    """All that a gateway says to clients, on stderr and to its audit log, with an upstream that repeats what it is sent, fails and dies."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if k != "CHARTER_UPSTREAM_KEY"} | ({"CHARTER_UPSTREAM_KEY": key} if key else {})
    environment["PYTHONPATH"] = os.pathsep.join([environment.get("PYTHONPATH", ""), str(Path(__file__).parents[2])])
    command = [sys.executable, "-c", SERVE, url, str(port), str(tmp_path / "log.db")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    said: list[str] = []
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            for _ in range(1_200):
                try:
                    said.append(http.get("/healthz").text)
                    break
                except httpx2.ConnectError:
                    assert process.poll() is None
                    time.sleep(0.05)
            told = f"Incorrect API key provided: {KEY}; {PASSWORD}" if key else "no"
            echo = {"content-type": "application/json", "x-echo": KEY if key else ""}
            for script in (
                says("fine"), answers("fine"), Script([json.dumps({"error": told}).encode()], 401, echo), answers("fine", echo=told),
                Script([b"<html>"], 200, {"content-type": "text/html", "x-echo": KEY if key else ""}), Script([b"data: {"], then="die"),
                Script([b"data: x\n\n"]), Script([], 500, echo, "die"), Script([b"{}"], 302, {"location": f"http://127.0.0.1:9/{KEY}"}),
            ):  # fmt: skip
                body = {
                    "model": upstream.plays(script),
                    "messages": [{"role": "user", "content": f"hello {FORBIDDEN if script.status == 302 else ''}"}],
                }
                for path in ("/v1/chat/completions", "/v1/messages"):
                    found = http.post(path, json=body, headers={"authorization": "Bearer sk-client"})
                    said.append(found.text + str(found.headers))
            for path in ("/metrics", "/readyz", "/v1/models", "/healthz", "/nowhere"):
                found = http.get(path)
                said.append(found.text + str(found.headers))
            said.append(http.post("/v1/chat/completions", content=b"{").text)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert len(said) == 25
    assert '"level": "debug"' in err or "DEBUG" in err
    return "\n".join([*said, err, *(p.read_bytes().decode("latin-1") for p in tmp_path.rglob("*") if p.is_file())])


def test_the_key_is_nowhere(upstream: Scripted, tmp_path: Path) -> None:
    upstream.headers.clear()
    out = everything(upstream, upstream.url, KEY, tmp_path)
    assert any(KEY in json.dumps(headers) for headers in upstream.headers), "the upstream did get it"
    assert KEY not in out
    assert KEY.removeprefix("sk-planted-") not in out
    assert "[the gateway's key]" in out


def test_nor_is_a_password_in_the_upstreams_url(upstream: Scripted, tmp_path: Path) -> None:
    upstream.headers.clear()
    out = everything(upstream, upstream.url.replace("://", f"://user:{PASSWORD}@"), None, tmp_path)
    assert all(headers["authorization"].startswith("Basic ") for headers in upstream.headers), "the upstream did get it"
    assert PASSWORD not in out


def test_a_key_is_in_no_repr() -> None:
    settings = Settings(f"http://user:{PASSWORD}@127.0.0.1:9/v1", upstream_key=KEY)
    assert KEY not in repr(settings) + str(settings) + repr(vars(Upstream(settings)))
    assert PASSWORD not in repr(settings)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_a_decompression_bomb_of_the_upstreams_is_refused_unread(gateway: Gateway, path: str, kind: str) -> None:
    bomb = gzip.compress(b" " * 200_000_000, 9)
    script = Script([bomb], 200, {"content-type": kind, "content-encoding": "gzip"})
    found = gateway.post(path, {"messages": [{"role": "user", "content": "hi"}], "stream": True}, script)
    assert found.status_code == 502
    assert "compressed" in found.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP"])
def test_nor_does_a_client_get_to_send_one(gateway: Gateway, encoding: str) -> None:
    found = gateway.http.post("/v1/chat/completions", content=gzip.compress(b" " * 1_000_000), headers={"content-encoding": encoding})
    assert found.status_code == 415


def test_addresses_in_a_request_are_never_fetched(gateway: Gateway) -> None:
    """Pictures and files by URL go to the upstream as they are; nobody at that address hears of it."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/"
        parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": url}]
        sent = {"messages": [{"role": "user", "content": parts}], "base_url": url, "api_base": url, "upstream": url, "user": url}
        hosts = {"host": url.removeprefix("http://"), "x-forwarded-host": url, "x-upstream": url, "x-real-ip": "127.0.0.1"}
        assert gateway.post("/v1/chat/completions", sent, answers("fine"), **hosts).status_code == 200
        assert gateway.upstream.bodies[-1]["messages"][0]["content"] == parts
        assert not {"x-forwarded-host", "x-real-ip"} & set(gateway.upstream.headers[-1])
        trap.setblocking(False)
        with pytest.raises(BlockingIOError):
            trap.accept()


def test_requests_past_the_limits_are_a_400(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(max_items=20)
    turns = [{"role": "user", "content": "a"}]
    deep: Any = "x"
    for _ in range(63):
        deep = [deep]
    bodies = {
        "turns": {"messages": turns * 21}, "prompts": {"prompt": ["a"] * 21}, "n": {"messages": turns, "n": 129}, "tools": {"messages": turns, "tools": [{}] * 21},
        "deep": {"messages": turns, "x": [deep]}, "deepest": {"messages": turns, "x": deep},
    }  # fmt: skip
    statuses = {
        name: gateway.post("/v1/completions" if name == "prompts" else "/v1/chat/completions", body, answers("fine")).status_code
        for name, body in bodies.items()
    }
    assert statuses == {"turns": 400, "prompts": 400, "n": 400, "tools": 400, "deep": 400, "deepest": 200}
    abyss = b'{"messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert gateway.http.post("/v1/chat/completions", content=abyss).status_code == 400
