"""The stub upstream and the oracle: everything that is compared talks to the same two.

    python -m serving.stub upstream PORT        the model: says so many words, at a pace, one of them forbidden
    python -m serving.stub charter PORT URL [AUDIT [SPOOL]]    Charter's gateway in front of it, with the oracle for a guard

The model's name is its script: "words=60,bad=31,pause_ms=5". LiteLLM asks the oracle over HTTP, as it asks any guardrail; NeMo has it as a pattern.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from charter.guard.holdback import HoldBack
from charter.models.segments import Segmenter, cut
from charter.records import Turn, Verdict

FORBIDDEN = "zyzzyva"
CLEAN = Verdict(False, 0.01, None, None)


class Oracle:
    """A guard that flags the word itself and costs nothing else. Counts what it is asked."""

    name, hash, clauses = "oracle", "oracle", ("words",)

    def __init__(self) -> None:
        self.calls = self.tokens = 0

    def __deepcopy__(self, memo: object) -> Oracle:
        return self

    def open(self, turns: tuple[Turn, ...]) -> OracleSession:
        return OracleSession(self, turns)

    def clause_scores(self, session: object) -> dict[str, float]:
        return {"words": 0.0}


class OracleSession:
    """Its reading, behind the real hold-back."""

    def __init__(self, guard: Oracle, turns: tuple[Turn, ...]) -> None:
        segments = [s for t in turns for s in cut(t.content)]
        guard.calls, guard.tokens = guard.calls + 1, guard.tokens + len(segments)
        found = next((n for n, s in enumerate(segments) if FORBIDDEN in s), None)
        self.prompt_verdict = CLEAN if found is None else Verdict(True, 0.99, "words", found)
        self._checker = _Checker(guard)
        self._holdback = HoldBack(self._checker)

    @property
    def reply_verdict(self) -> Verdict:
        flagged = self._checker.flagged
        return CLEAN if flagged is None else Verdict(True, 0.99, "words", flagged)

    def push(self, text: str) -> str:
        return self._holdback.push(text)

    def flush(self) -> str:
        return self._holdback.flush()


class _Checker:
    def __init__(self, guard: Oracle) -> None:
        self._guard, self._segmenter, self._n = guard, Segmenter(), 0
        self.flagged: int | None = None

    def push(self, text: str) -> list[tuple[str, bool]]:
        self._guard.calls += 1
        return self._judged(self._segmenter.push(text))

    def flush(self) -> list[tuple[str, bool]]:
        return self._judged(self._segmenter.flush())

    def _judged(self, segments: list[str]) -> list[tuple[str, bool]]:
        out = []
        for segment in segments:
            if FORBIDDEN in segment and self.flagged is None:
                self.flagged = self._n
            self._n += 1
            out.append((segment, self.flagged is None))
        self._guard.tokens += len(segments)
        return out


class Stub:
    """The model, and the oracle as LiteLLM's guardrail."""

    def __init__(self) -> None:
        self.open = self.asked = self.guard_calls = self.guard_words = 0
        post = [("/v1/chat/completions", self.chat), ("/beta/litellm_basic_guardrail_api", self.guardrail)]
        get = [("/v1/models", self.models), ("/counts", self.counts)]
        self.app = Starlette(routes=[Route(p, f, methods=["POST"]) for p, f in post] + [Route(p, f) for p, f in get])

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        script = {k: int(v) for k, v in (pair.split("=") for pair in body["model"].split(",") if "=" in pair)}
        words = [FORBIDDEN if n == script.get("bad") else f"word{n}" for n in range(1, script.get("words", 10) + 1)]
        self.asked += 1
        envelope = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": " ".join(words)}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": 1 + len(words)}
            return JSONResponse({**envelope, "object": "chat.completion", "choices": [choice], "usage": usage})
        return StreamingResponse(self._say(words, script.get("pause_ms", 0) / 1e3, envelope), media_type="text/event-stream")

    async def _say(self, words: list[str], pause_s: float, envelope: dict[str, Any]) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            for n, word in enumerate(words):
                delta = {"content": word + " ", **({} if n else {"role": "assistant"})}
                yield _event(
                    {**envelope, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
                )
                if pause_s:
                    await anyio.sleep(pause_s)
            yield _event({**envelope, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            yield b"data: [DONE]\n\n"
        finally:
            self.open -= 1

    async def guardrail(self, request: Request) -> Response:
        texts = (await request.json()).get("texts") or []
        self.guard_calls += 1
        self.guard_words += sum(len(text.split()) for text in texts)
        bad = any(FORBIDDEN in text for text in texts)
        return JSONResponse({"action": "BLOCKED", "blocked_reason": "forbidden"} if bad else {"action": "NONE"})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "words=10", "object": "model"}]})

    async def counts(self, request: Request) -> Response:
        return JSONResponse({"open": self.open, "asked": self.asked, "guard_calls": self.guard_calls, "guard_words": self.guard_words})


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def main() -> None:
    """Serve one of the two until told to stop."""
    what, port, *more = sys.argv[1:]
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65_536, hard), hard))
    if what == "upstream":
        import uvicorn

        uvicorn.run(Stub().app, port=int(port), log_level="critical", access_log=False, backlog=4_096)
        return
    from charter.gateway.audit.log import open_log
    from charter.gateway.serve import run
    from charter.gateway.settings import Settings

    url, *audit = more
    spool = Path(audit[1]) if len(audit) > 1 else None
    run(Oracle(), Settings(url), "127.0.0.1", int(port), partial(open_log, audit[0], None, spool) if audit else None)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
