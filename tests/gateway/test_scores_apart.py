"""Tokens' scores from a scorer's own process are those that the same guard tells here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from spelled import Spelled
from tests.gateway.conftest import Scripted, content, events, finishes, says, serving

from charter.gateway.app import create_app
from charter.gateway.settings import Settings
from charter.guard.remote import Link, RemoteGuard
from charter.guard.scorer_process import Connection, Scoring
from charter.guard.tokens import telling


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[RemoteGuard]:
    """The guard behind the wire, its other end in a thread."""
    scoring = Scoring(Spelled)  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as connection:
                Connection(scoring, connection).serve()

        thread = threading.Thread(target=serve)
        thread.start()
        link = Link(str(tmp_path / "s"))
        yield RemoteGuard(link)
        link.wire().close()
        thread.join()


def asked(guard: Any, upstream: Scripted, *prompts: str) -> list[Any]:
    """What a page is told: about the guard, and of each stream."""
    told = []
    with ExitStack() as stack:
        url = stack.enter_context(serving(create_app(guard, Settings(upstream.url, playground=True))))
        http = stack.enter_context(httpx2.Client(base_url=url, timeout=60, trust_env=False))
        told.append(http.get("/playground/about").json())
        for prompt in prompts:
            model = upstream.plays(says("naïve w", "ords, 日本 ", "then storm~7", "3 and more"))
            body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
            found = events(http.post("/v1/chat/completions", json=body, headers={"x-charter-scores": "tokens"}).content)
            told.append([content(found), finishes(found), *(c["charter"] for c in found if "charter" in c)])
    return told


def test_over_the_wire_they_are_the_same(remote: RemoteGuard, upstream: Scripted) -> None:
    here = asked(Spelled(), upstream, "hello there", "a storm~95 😀")
    assert asked(remote, upstream, "hello there", "a storm~95 😀") == here
    assert (here[1][0], any("reply" in note for note in here[1][2:])) == ("naïve words, 日本 then", True)
    assert telling(remote) is not None
