"""A small constitution with recorded generations, and a language model on loopback to write for it: shared by several folders of tests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import pytest

from charter.constitution import Constitution, parse

YAML = """
name: kitchen
version: 1.0.0
purpose: Keep the cook out of the cellar.
clauses:
  - id: cellar
    side: restricted
    title: Opening the wine cellar
    text: Keys, locks, codes and ways into the cellar.
    counterpart: wine
    examples: [Where is the key of the cellar?, Open the cellar door for me.]
  - id: wine
    side: permitted
    title: Wine at the table
    text: Wines, glasses and what goes with fish.
    examples: [Which wine goes with trout?, How do I decant a bottle?]
  - id: cooking
    side: permitted
    title: Cooking
    text: Recipes, stoves and knives.
    examples: [How long does an egg boil?]
"""
WORDS = (
    "amber basil cedar dill elder fennel ginger hazel iris juniper kale lemon mint nettle olive pepper quince rosemary sage thyme".split()
)


def sentence(number: int, opening: str) -> str:
    """A text that shares few runs of words with those of other numbers."""
    return f"{opening} {WORDS[number % 20]} {WORDS[number // 20 % 20]} {number} {WORDS[(number * 7) % 20]}?"


POOLS = tuple(
    f.name.removesuffix(".jsonl") for f in (resources.files("charter") / "constitutions" / "benign").iterdir() if f.name.endswith(".jsonl")
)
"""All benign pools: left out where a test is about calls, because checking thousands of ordinary texts takes seconds."""


@pytest.fixture(scope="session")
def constitution() -> Constitution:
    return parse(YAML, "kitchen.yaml")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 prompts for each of two clauses: every other one with replies, every tenth of several turns. `cooking` has no file."""
    folder = tmp_path_factory.mktemp("recordings")
    for clause, replies in (("cellar", ("refusal", "compliance")), ("wine", ("answer",))):
        rows = []
        for n in range(200):
            text = sentence(n, f"{clause} ask")
            row: dict[str, object] = {"prompt": ["Good evening.", f"Good evening, cook {n}.", text] if n % 10 == 0 else text}
            if n % 2 == 0:
                row |= {kind: f"The {kind} to number {n} in {clause}, in several words." for kind in replies}
            if n == 3:
                row["by"] = "embedded"
            rows.append(row)
        (folder / f"{clause}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Fault:
    """An answer that is none."""

    status: int = 200
    """0: none, the connection is closed."""
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0


@dataclass
class ModelServer:
    """A language model on loopback that goes on with lists, sorts and replies; it counts what it answers and can fall silent."""

    url: str
    answered: list[str] = field(default_factory=list)
    """The bodies that got an answer, in canonical form."""
    silent_after: int | None = None
    """Calls beyond this number get no answer."""
    fault: Callable[[dict[str, Any], int], Fault | None] = lambda body, n: None
    """What the nth call (from 0) gets instead of an answer; None: the answer."""
    arrived: Callable[[int], None] = lambda n: None
    """Told of every call before it is answered."""
    calls: int = 0
    """All that came, answered or not."""


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """Depends on the body alone, as a server with a seed does."""
    rng = Random(json.dumps(body, sort_keys=True))
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    prefill = body["messages"][-1]["content"]
    if body.get("logprobs"):
        text = " A"
        top = [{"token": f" {letter}", "logprob": -rng.random(), "bytes": None} for letter in "AB"]
        choice["logprobs"] = {"content": [{"token": " A", "logprob": -0.1, "bytes": None, "top_logprobs": top}], "refusal": None}
    elif prefill.endswith("Request:"):
        text = f" {sentence(rng.randrange(10**6), rng.choice(WORDS))}"
    elif prefill[-1:] == "." and prefill[-2:-1].isdigit():
        text = "".join(f" {sentence(rng.randrange(10**6), rng.choice(WORDS))}\n{n}." for n in range(7, 12))
    else:
        text = f" number {rng.randrange(10**6)}, which is all there is to it. And so o"
    choice["message"] = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    lock, ended = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number, state.calls = state.calls, state.calls + 1
                silent = state.silent_after is not None and len(state.answered) >= state.silent_after
                fault = state.fault(body, number)
                if not silent and fault is None:
                    state.answered.append(json.dumps(body, sort_keys=True))
            if silent:
                ended.wait(30)
                self.close_connection = True
                return
            state.arrived(number)
            fault = fault or Fault(body=json.dumps(answer(body)))
            time.sleep(fault.delay_s)
            if not fault.status:
                self.close_connection = True
                return
            with contextlib.suppress(ConnectionError):  # the client may have given up, or been killed
                self._send(fault)

        def _send(self, fault: Fault) -> None:
            data = fault.body.encode()
            self.send_response(fault.status)
            for name, text in (("content-type", "application/json"), ("content-length", str(len(data))), *fault.headers):
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that is killed or gives up is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    state = ModelServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    ended.set()
    server.shutdown()
    server.server_close()
    thread.join()
