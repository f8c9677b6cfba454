"""Scorer calls and scored tokens of a clean stream of n chunks: Charter's own, and what a guardrail behind LiteLLM is asked."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn

from charter.gateway.app import create_app
from charter.gateway.settings import Settings
from serving.client import body, stream
from serving.stub import Oracle


def growth(upstream: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Charter's gateway in this process, so that its guard can be looked at."""
    guard = Oracle()
    rows = []
    with _serving(guard, f"{upstream}/v1") as url:
        for n in sizes:
            calls, tokens = guard.calls, guard.tokens
            seen = asyncio.run(stream(url, body(f"words={n}", True)))
            assert len(seen.words) == n, f"{len(seen.words)} words of {n}"
            rows.append({"way": "Charter", "chunks": n, "calls": guard.calls - calls, "tokens": guard.tokens - tokens})
    return rows


def growth_of_litellm(url: str, upstream: str, guardrail: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The same through LiteLLM: words that its guardrail is sent."""
    rows = []
    for n in sizes:
        before = httpx2.get(f"{upstream}/counts", trust_env=False).json()
        asyncio.run(stream(url, body(f"words={n}", True, guardrails=[guardrail])))
        after = httpx2.get(f"{upstream}/counts", trust_env=False).json()
        calls, words = (after[k] - before[k] for k in ("guard_calls", "guard_words"))
        rows.append({"way": f"LiteLLM, {guardrail}", "chunks": n, "calls": calls, "tokens": words})
    return rows


@contextmanager
def _serving(guard: Oracle, upstream: str) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(create_app(guard, Settings(upstream)), log_level="critical", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
