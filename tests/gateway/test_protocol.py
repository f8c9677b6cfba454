"""Slow clients, bounded: each of them is let go, and others are served meanwhile."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import httpx2
import pytest
from tests.gateway.conftest import Oracle, Script, Scripted, chunk, event, serving

from charter.gateway.app import create_app
from charter.gateway.protocol import timed
from charter.gateway.settings import Settings

AT_ONCE = 6


@pytest.fixture(scope="module")
def address(upstream: Scripted) -> Iterator[tuple[str, int]]:
    settings = Settings(upstream.url, headers_timeout_s=0.5, timeout_s=1.0, max_connections=AT_ONCE)
    config = {"http": timed(settings), "limit_concurrency": settings.max_connections, "timeout_keep_alive": 60}
    with serving(create_app(Oracle(), settings), **config) as url:
        host, port = url.removeprefix("http://").split(":")
        yield host, int(port)


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes the connection before long, whatever it says first."""
    connection.settimeout(30)
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "start", [b"", b"POST /v1/moderations HTTP/1.1\r\nhost: x\r\n", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /he"]
)
def test_headers_that_never_end(address: tuple[str, int], start: bytes) -> None:
    with closing(socket.create_connection(address)) as connection:
        connection.sendall(start)
        assert ended(connection)


def test_headers_that_come_a_byte_at_a_time(address: tuple[str, int]) -> None:
    with closing(socket.create_connection(address)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
        for _ in range(1_000):
            try:
                connection.sendall(b"a")
            except ConnectionError:
                return
            time.sleep(0.02)
        pytest.fail("the connection was kept for ever")


def test_a_body_that_never_ends_is_told_so(address: tuple[str, int]) -> None:
    with closing(socket.create_connection(address)) as connection:
        connection.sendall(b"POST /v1/moderations HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        connection.settimeout(30)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_client_that_reads_nothing_lets_the_upstream_go(address: tuple[str, int], upstream: Scripted) -> None:
    flood = Script([event(chunk({"content": "word " * 2_000}))] * 5_000, pause_s=0)
    body = json.dumps({"model": upstream.plays(flood), "stream": True, "messages": [{"role": "user", "content": "a"}]}).encode()
    with closing(socket.socket()) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect(address)
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert upstream.let_go.acquire(timeout=60)


def test_past_the_limit_connections_are_refused_and_then_served_again(address: tuple[str, int]) -> None:
    url = "http://{}:{}/healthz".format(*address)
    idle = [socket.create_connection(address) for _ in range(AT_ONCE)]
    try:
        assert httpx2.get(url, trust_env=False).status_code in (200, 503)
    finally:
        for connection in idle:
            assert ended(connection)  # the clock of the headers frees the places
            connection.close()
    for _ in range(400):
        if (status := httpx2.get(url, trust_env=False).status_code) == 200:
            break
        time.sleep(0.05)
    assert status == 200


def test_a_request_that_is_answered_slowly_is_no_slow_client(address: tuple[str, int], upstream: Scripted) -> None:
    script = Script([event(chunk({"content": "word "})), event(chunk({"content": "word "}, "stop"))], pause_s=0.8)
    body = {"model": upstream.plays(script), "stream": True, "messages": [{"role": "user", "content": "a"}]}
    with httpx2.Client(base_url="http://{}:{}".format(*address), trust_env=False, timeout=60) as client:
        found = client.post("/v1/chat/completions", json=body)
        assert (found.status_code, found.text.count("word")) == (200, 2)
        assert client.get("/healthz").status_code == 200
