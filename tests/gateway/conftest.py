"""Real servers on loopback: a scripted upstream, gateways in front of it with an oracle for a guard, and clients."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import httpx2
import pytest
import uvicorn
from openai import OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from charter.gateway.app import create_app
from charter.gateway.settings import Settings
from charter.guard.holdback import HoldBack
from charter.models.segments import Segmenter, cut
from charter.records import Turn, Verdict

FORBIDDEN, BREAKS, STALLS = "zyzzyva", "kaput", "molasses"


class Oracle:
    """A guard that flags the segment in which the forbidden word stands, fails at one word and is slow at another."""

    name, hash, clauses = "oracle", "0123456789abcdef", ("words", "numbers")

    def __init__(self) -> None:
        self.threads: set[str] = set()
        self.opened: list[tuple[Turn, ...]] = []
        self.n_read = 0
        """Segments."""

    def __deepcopy__(self, memo: object) -> Oracle:
        return self

    def open(self, turns: tuple[Turn, ...]) -> OracleSession:
        self.opened.append(turns)
        return OracleSession(self, turns)

    def clause_scores(self, session: Any) -> dict[str, float]:
        return {"words": session.prompt_verdict.score, "numbers": 0.25}

    def restricted(self, segment: str) -> bool:
        self.threads.add(threading.current_thread().name)
        self.n_read += 1
        if BREAKS in segment:
            raise RuntimeError(f"broke at {segment}")
        if STALLS in segment:
            time.sleep(1.5)
        return FORBIDDEN in segment


class OracleChecker:
    """Tokens are segments; from the first restricted one on none passes."""

    def __init__(self, guard: Oracle) -> None:
        self._guard, self._segmenter = guard, Segmenter()
        self.n_judged = 0
        self.flagged: int | None = None

    def push(self, text: str) -> list[tuple[str, bool]]:
        return [self._judge(s) for s in self._segmenter.push(text)]

    def flush(self) -> list[tuple[str, bool]]:
        return [self._judge(s) for s in self._segmenter.flush()]

    def _judge(self, segment: str) -> tuple[str, bool]:
        if self._guard.restricted(segment) and self.flagged is None:
            self.flagged = self.n_judged
        self.n_judged += 1
        return segment, self.flagged is None


class OracleSession:
    """The oracle's reading behind the real hold-back."""

    def __init__(self, guard: Oracle, turns: tuple[Turn, ...]) -> None:
        found = [n for n, s in enumerate(s for t in turns for s in cut(t.content)) if guard.restricted(s)]
        self.prompt_verdict = verdict_at(found[0] if found else None)
        self._checker = OracleChecker(guard)
        self._holdback = HoldBack(self._checker)

    @property
    def reply_verdict(self) -> Verdict:
        return verdict_at(self._checker.flagged)

    def push(self, text: str) -> str:
        return self._holdback.push(text)

    def flush(self) -> str:
        return self._holdback.flush()


def verdict_at(position: int | None) -> Verdict:
    return Verdict(False, 0.01, None, None) if position is None else Verdict(True, 0.99, "words", position)


@dataclass
class Script:
    """What the upstream answers to a request that names this script as its model."""

    blocks: Sequence[bytes] = ()
    """The body, as the network delivers it."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    then: Literal["end", "die", "hang"] = "end"
    pause_s: float = 0.0
    """Before every block."""


class Scripted:
    """The upstream: scripts by model, and what was asked of it."""

    def __init__(self) -> None:
        self.url = ""
        self.scripts: dict[str, Script] = {}
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.let_go = threading.Semaphore(0)
        """One more for each stream that was closed before its end."""
        paths = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
        self.app = Starlette(routes=[*(Route(p, self._chat, methods=["POST"]) for p in paths), Route("/v1/models", self._models)])

    def plays(self, script: Script) -> str:
        """The model name to ask for."""
        name = f"script-{len(self.scripts)}"
        self.scripts[name] = script
        return name

    async def _models(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]}, headers={"x-upstream": "yes"})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        script = self.scripts[body["model"]]
        return StreamingResponse(self._play(script), script.status, script.headers)

    async def _play(self, script: Script) -> AsyncIterator[bytes]:
        ended = False
        try:
            for block in script.blocks:
                await anyio.sleep(script.pause_s)
                yield block
            if script.then == "hang":
                await anyio.sleep(30)
            ended = True
        finally:
            if not ended:
                self.let_go.release()
        if script.then == "die":
            raise ConnectionAbortedError


@contextmanager
def serving(app: Starlette, **config: Any) -> Iterator[str]:
    """Serve on a free loopback port, in a thread; yields the URL."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1, **config))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Gateway:
    """A gateway that runs, and ways to ask it."""

    url: str
    guard: Oracle
    upstream: Scripted
    http: httpx2.Client
    openai: OpenAI

    def counters(self) -> dict[str, int]:
        return dict(self.http.get("/healthz").json()["counters"])

    def post(self, path: str, body: dict[str, Any], script: Script | None = None, **headers: str) -> httpx2.Response:
        """A request to any path, answered by the script where it goes upstream."""
        named = {"model": self.upstream.plays(script)} if script else {}
        return self.http.post(path, json={**named, **body}, headers=headers)

    def ask(self, script: Script, prompt: Any = "hello", **more: Any) -> httpx2.Response:
        """A chat request that is answered by the script, read to its end."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return self.http.post("/v1/chat/completions", json={"model": self.upstream.plays(script), "messages": messages, **more})

    def stream(self, script: Script, prompt: Any = "hello", **more: Any) -> list[Any]:
        """The events of such a request, parsed."""
        return events(self.ask(script, prompt, stream=True, **more).content)


@pytest.fixture(scope="session")
def upstream() -> Iterator[Scripted]:
    scripted = Scripted()
    with serving(scripted.app) as url:
        scripted.url = url + "/v1"
        yield scripted


@pytest.fixture(scope="session")
def gateways(upstream: Scripted) -> Iterator[Callable[..., Gateway]]:
    """Gateways by their settings, each started once."""
    running: dict[str, Gateway] = {}
    with ExitStack() as stack:

        def get(**settings: Any) -> Gateway:
            key = repr(sorted(settings.items()))
            if key not in running:
                guard = Oracle()
                url = stack.enter_context(serving(create_app(guard, Settings(**{"upstream_url": upstream.url, **settings}))))
                http = stack.enter_context(httpx2.Client(base_url=url, timeout=60, trust_env=False))
                client = stack.enter_context(OpenAI(base_url=url + "/v1", api_key="sk-client", max_retries=0))
                running[key] = Gateway(url, guard, upstream, http, client)
            return running[key]

        yield get


@pytest.fixture(scope="session")
def gateway(gateways: Callable[..., Gateway]) -> Gateway:
    """The usual one: enforces, fails closed."""
    return gateways()


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + (value if isinstance(value, str) else json.dumps(value)).encode() + b"\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    """A chunk of a streamed completion."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**base, "choices": [choice], **more}


def says(*pieces: str, finish: str | None = "stop", done: bool = True) -> Script:
    """A streamed reply of one choice whose content comes in these pieces."""
    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": p}) for p in pieces)]
    chunks += [chunk(finish=finish)] if finish else []
    return Script([event(c) for c in chunks] + ([event("[DONE]")] if done else []))


def plays(*chunks: Any) -> Script:
    """A stream of these chunks, ended as it should be."""
    return Script([event(c) for c in [*chunks, "[DONE]"]])


def answers(message: dict[str, Any] | str, status: int = 200, **more: Any) -> Script:
    """A reply that comes at once: one choice with this message."""
    whole = {"role": "assistant", "content": message} if isinstance(message, str) else message
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": whole, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, **more,
    }  # fmt: skip
    return Script([json.dumps(body).encode()], status, {"content-type": "application/json"})


def events(body: bytes) -> list[Any]:
    """The events of a stream of ours: JSON, or [DONE] as text."""
    data = [block.removeprefix("data: ") for block in body.decode().split("\n\n") if block]
    return [d if d == "[DONE]" else json.loads(d) for d in data]


def content(chunks: list[Any], index: int = 0, field: str = "content") -> str:
    """What a client reads of one choice."""
    return "".join(
        c["delta"].get(field) or "" for ch in chunks if isinstance(ch, dict) for c in ch.get("choices", []) if c["index"] == index
    )


def named(value: dict[str, Any]) -> bytes:
    """One server-sent event under its type, as Anthropic and OpenAI's responses are streamed."""
    return f"event: {value['type']}\n".encode() + event(value)


def typed(body: bytes) -> list[dict[str, Any]]:
    """The events of such a stream of ours; each stands under its type."""
    found = []
    for block in filter(None, body.decode().split("\n\n")):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def finishes(chunks: list[Any], index: int = 0) -> list[str]:
    """The finish reasons of one choice."""
    found = [c["finish_reason"] for ch in chunks if isinstance(ch, dict) for c in ch.get("choices", []) if c["index"] == index]
    return [f for f in found if f]
