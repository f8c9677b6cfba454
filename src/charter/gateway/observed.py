"""The layer around every request: its id, its end (when the findings of passed replies are due), its span and its log line."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from time import perf_counter
from typing import Any
from uuid import uuid4

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charter.gateway.metrics import Metrics
from charter.gateway.observer import Observer
from charter.gateway.playground import PATHS
from charter.gateway.tallies import Tallies
from charter.gateway.trail import ASKED, CLIENT, PASSED_ON, REQUEST, Asked

QUIET = frozenset({"/", "/healthz", "/readyz", "/metrics"})
"""Never guarded, and asked by machines every few seconds; so are the playground's paths."""
log = logging.getLogger("charter.requests")


class Observed:
    """ASGI middleware. The observer is the app's own, made when it starts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET or scope["path"].startswith(PATHS):
            await self._app(scope, receive, send)
            return
        observer: Observer = scope["app"].state.scorer.observer
        given = scope.get(REQUEST)
        asked = Asked(scope["path"], given or uuid4().hex, scope=scope)
        told: dict[str, Any] = {}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-charter-request"] = asked.id
                asked.streams = headers.get("content-type", "").startswith("text/event-stream")
                told["status"] = message["status"]
            await send(message)

        with ExitStack() as stack:
            stack.callback(_ended, observer, asked, scope, told)
            if observer.metrics is not None:
                observer.metrics.open.add(asked)
            token = ASKED.set(asked)
            stack.callback(ASKED.reset, token)
            if observer.spans is not None:
                stack.enter_context(observer.spans.request(scope["method"], scope["path"], Headers(scope=scope), asked.id))
            stack.callback(_close, asked)
            await self._app(scope, receive, sending)


async def metrics(request: Request) -> Response:
    """GET /metrics."""
    found: Metrics = request.app.state.scorer.observer.metrics
    tallies: Tallies | None = request.app.state.tallies
    return Response(generate_latest(tallies or found.registry), media_type=CONTENT_TYPE_LATEST)


def _close(asked: Asked) -> None:
    for trail in asked.trails:
        trail.update(ended=True)


def _ended(observer: Observer, asked: Asked, scope: Scope, told: dict[str, Any]) -> None:
    """Count and log the request, where it was answered here. The line holds no content, not even of the query."""
    if observer.metrics is not None:
        observer.metrics.open.discard(asked)
        if asked.findings:
            observer.metrics.ended(asked)
    if scope.get(PASSED_ON):
        return
    verdicts = [
        {
            "stage": f.stage, "choice": f.choice, "verdict": f.outcome, "action": f.action, "clause": f.clause, "position": f.position,
            "score": round(f.score, 4), "latency_ms": f.latency_ms,
        }
        for f in asked.findings
    ]  # fmt: skip
    line = {
        "request": asked.id, "method": scope["method"], "path": scope["path"][:200], "status": told.get("status"), "client": scope.get(CLIENT),
        "streamed": asked.streams, "ms": round((perf_counter() - asked.start) * 1e3, 3), "verdicts": verdicts,
    }  # fmt: skip
    log.info("request", extra={"fields": line})
