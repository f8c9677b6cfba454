"""The application: which path is answered by what. A guard and settings in, an ASGI app out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from anyio import create_task_group, sleep
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from charter.errors import UpstreamError
from charter.gateway.access import Keyed
from charter.gateway.audit.log import AuditLog
from charter.gateway.check import check, nemo
from charter.gateway.choices import Chat, Completions
from charter.gateway.counters import Counters
from charter.gateway.errors import HTTPProblem, answer_crash, answer_problem, answer_unknown
from charter.gateway.feed import Feed
from charter.gateway.generate import route, unless_gone
from charter.gateway.in_process import open_upstream
from charter.gateway.kept import Kept
from charter.gateway.keys import KeyRing
from charter.gateway.litellm import Call, guardrail
from charter.gateway.messages import Messages
from charter.gateway.metrics import Metrics
from charter.gateway.moderations import moderate
from charter.gateway.observed import Observed, metrics
from charter.gateway.observer import Observer
from charter.gateway.openapi import openapi
from charter.gateway.peers import Peers, Relayed
from charter.gateway.playground import playground
from charter.gateway.refusing import Dial
from charter.gateway.reload import Reload, Reloader
from charter.gateway.responses import Responses
from charter.gateway.scorer import Scorer
from charter.gateway.sessions import GuardedReply, close, feed, open_session
from charter.gateway.settings import Settings
from charter.gateway.spans import Spans
from charter.gateway.surface import Surface
from charter.gateway.tallies import Tallies
from charter.gateway.upstream import Upstream, reply_headers
from charter.gateway.watch import Watch
from charter.gateway.worker import Worker
from charter.guard.holdback import GuardLike

SURFACES: tuple[Surface, ...] = (Chat(), Completions(), Messages(), Responses())
"""Those that generate."""


def create_app(
    guard: GuardLike,
    settings: Settings,
    audit: AuditLog | None = None,
    spans: Spans | None = None,
    reload: Reload | None = None,
    shadow: GuardLike | None = None,
    watch: Watch | None = None,
    worker: Worker | None = None,
    dial: Dial | None = None,
) -> Starlette:
    """A gateway that puts `guard` in front of the upstream of `settings`. Log and spans are closed when it stops.

    Args:
        watch: says when to load the guard by `reload`.
        worker: its place among several on one port.
        dial: a model with refusal tokens, which answers in the upstream's place.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.upstream = open_upstream(settings, dial)
        counters = Counters()
        feed = Feed() if settings.playground else None
        measured = Metrics(guard, settings, counters, audit, dial)
        observer = Observer(guard, settings, counters, audit, measured, spans, feed)
        app.state.tallies = Tallies(worker, counters, measured) if worker else None
        app.state.peers = Peers(worker) if worker else None
        app.state.scorer = Scorer(guard, settings, counters, observer)
        if shadow is not None:
            observer.compare_with(shadow)
        reloader = Reloader(app.state.scorer, reload) if reload else None
        if reloader is not None:
            reloader.listen()
        app.state.sessions = Kept[GuardedReply](settings.max_sessions, settings.session_idle_s, left=_abandon)
        app.state.calls = Kept[Call](settings.max_sessions, settings.session_idle_s, left=_abandon)
        kept = (app.state.sessions, app.state.calls)
        async with create_task_group() as group:
            group.start_soon(_expiring, kept, settings.session_idle_s / 4)
            if reloader is not None and watch is not None:
                group.start_soon(reloader.follow, watch)
            if worker is not None:
                group.start_soon(app.state.tallies.keep)
            yield
            group.cancel_scope.cancel()
        for things in kept:
            things.clear()
        await app.state.upstream.aclose()
        if worker is not None:
            await app.state.peers.aclose()
        await observer.close()

    routes = [
        *map(route, SURFACES),
        Route("/v1/moderations", moderate, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/guard/check", check, methods=["POST"]),
        Route("/v1/guard/sessions", open_session, methods=["POST"]),
        Route("/v1/guard/sessions/{id}", feed, methods=["POST"]),
        Route("/v1/guard/sessions/{id}", close, methods=["DELETE"]),
        Route("/v1/checks", nemo, methods=["POST"]),
        Route("/beta/litellm_basic_guardrail_api", guardrail, methods=["POST"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
        *(playground() if settings.playground else []),
    ]
    handlers = {HTTPProblem: answer_problem, HTTPException: answer_unknown, ClientDisconnect: _gone, Exception: answer_crash}
    layers = [
        *([Middleware(Relayed, secret=worker.secret)] if worker else []),
        Middleware(Observed),
        *([Middleware(Keyed, ring=KeyRing(settings.keys))] if settings.keys else []),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=layers)


def _abandon(left: GuardedReply | Call) -> None:
    """A reply that nobody goes on with is found as far as it came."""
    left.conversation.trail.abandon()


async def _expiring(kept: Sequence[Kept[Any]], every_s: float) -> None:
    """Let go of what nobody asks for, though nobody else asks either."""
    while True:
        await sleep(every_s)
        for things in kept:
            things.expire()


async def models(request: Request) -> Response:
    """The upstream's models, as it lists them."""
    upstream: Upstream = request.app.state.upstream

    async def fetch() -> Response:
        async with upstream.send("GET", "/models", request.headers.items(), None) as response:
            return Response(await upstream.read(response), response.status_code, reply_headers(response))

    return await unless_gone(request, fetch)


async def healthz(request: Request) -> Response:
    """That the gateway runs, for which guard, and what it counted."""
    scorer: Scorer = request.app.state.scorer
    guard, settings = scorer.guard, scorer.settings
    second = scorer.observer.second
    tallies: Tallies | None = request.app.state.tallies
    worker = request.app.state.peers.worker if tallies else None
    return JSONResponse(
        {
            "status": "ok",
            "guard": {"name": guard.name, "hash": guard.hash},
            "mode": settings.mode,
            "on_error": settings.on_error,
            "counters": asdict(tallies.counters() if tallies else scorer.counters),
            **({"worker": {"number": worker.number, "of": worker.of, "pid": os.getpid()}} if worker else {}),
            **({"shadow_guard": second.told()} if second else {}),
        }
    )


async def readyz(request: Request) -> Response:
    """Whether requests can be served: 503 with the reason while the upstream doesn't answer, or refuses our key."""
    upstream: Upstream = request.app.state.upstream
    try:
        await unless_gone(request, upstream.check)
    except UpstreamError as error:
        return JSONResponse({"status": "not ready", "reason": str(error)}, 503)
    return JSONResponse({"status": "ready"})


async def _gone(_request: Request, _error: Exception) -> Response:
    """Nobody reads this: the client went away (499 is what proxies log for it)."""
    return Response(status_code=499)
