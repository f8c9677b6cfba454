"""A real HTTP server on loopback whose replies are scripted by a function."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from loopback import loopback

Script = Callable[[dict[str, Any], int], tuple[int, dict[str, str], Any]]


@dataclass
class Stub:
    """The server: its URL, the bodies it got, and what it answers to the nth."""

    url: str
    script: Script = lambda body, n: (500, {}, {"error": {"message": "no script"}})
    bodies: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def stub() -> Iterator[Stub]:
    lock = threading.Lock()

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        with lock:
            number = len(state.bodies)
            state.bodies.append(body)
        return state.script(body, number)

    with loopback(answer) as url:
        state = Stub(url)
        yield state
