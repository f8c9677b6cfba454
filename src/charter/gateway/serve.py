"""Serve a guard over HTTP until interrupted, once the upstream has answered and the port is free."""

from __future__ import annotations

import logging
import logging.config
import socket
from collections.abc import Callable

import anyio
import uvicorn
from starlette.applications import Starlette

from charter.gateway import logs, peers
from charter.gateway.app import create_app
from charter.gateway.audit.log import AuditLog
from charter.gateway.in_process import open_upstream
from charter.gateway.keys import KeyRing
from charter.gateway.listening import bound, local, reserve
from charter.gateway.protocol import timed
from charter.gateway.refusing import Dial
from charter.gateway.reload import Reload
from charter.gateway.settings import Settings
from charter.gateway.spans import Spans
from charter.gateway.tls import TLS
from charter.gateway.watch import Watch
from charter.gateway.worker import Worker
from charter.gateway.workers import Supervisor
from charter.guard.holdback import GuardLike

log = logging.getLogger("charter.gateway")
SHUTDOWN_S = 5
"""How long streams may go on after the gateway was told to stop."""
Guards = tuple[GuardLike, Reload | None, GuardLike | None]
"""The guard, what loads it again, and the one that judges beside it."""


def run(
    guard: GuardLike, settings: Settings, host: str, port: int,
    audit: Callable[[], AuditLog] | None = None, spans: Callable[[], Spans] | None = None, tls: TLS | None = None,
    reload: Reload | None = None, shadow: GuardLike | None = None, watch: Watch | None = None, dial: Dial | None = None,
) -> None:  # fmt: skip
    """Serve; returns when the process is told to stop.

    Args:
        port: 0 takes a free one; the log says which.
        audit, spans: open them, once nothing else can fail: a mistake leaves no file behind.
        reload: loads the guard again, on SIGHUP.
        shadow: a second guard, which judges the same and never acts.
        watch: says when to load it again by itself.
        dial: a model with refusal tokens, which answers in the upstream's place.

    Raises:
        UpstreamError: the upstream does not answer, or refuses our key.
        CharterError: the address can't be listened on.
        DataError: the file of keys is none, or empty.
        AuditError: the audit log can't be opened.
    """
    _check(settings, dial)
    with bound(host, port) as listener:
        traced = spans() if spans else None
        app = create_app(guard, settings, audit() if audit else None, traced, reload, shadow, watch, dial=dial)
        config = _config(app, settings, tls)
        _announce(settings, host, listener, tls)
        uvicorn.Server(config).run(sockets=[listener])


def run_workers(
    n: int, open_guards: Callable[[], Guards], settings: Settings, host: str, port: int,
    audit: Callable[[], AuditLog] | None = None, spans: Callable[[], Spans] | None = None, tls: TLS | None = None,
    watch: Watch | None = None, shared_scorer: bool = False,
) -> None:  # fmt: skip
    """Serve by so many processes on one port; returns when told to stop. What each counts is added up (`tallies`).

    Args:
        open_guards: called in each worker.
        shared_scorer: the guards stand in one scorer's process.

    Raises:
        CharterError, UpstreamError, DataError, AuditError, GuardError: as `run`, and before any worker serves.
    """

    def body(worker: Worker, ready: Callable[[], None]) -> None:
        guard, reload, second = open_guards()
        with bound(host, port, shared=True) as listener, peers.listen(worker) as inner:
            app = create_app(guard, settings, audit() if audit else None, spans() if spans else None, reload, second, worker=worker)
            ready()
            uvicorn.Server(_config(app, settings, tls)).run(sockets=[listener, inner])

    _check(settings)
    with reserve(host, port) as held:
        port = held.getsockname()[1]
        if audit is not None:
            audit().close()  # a log that can't be opened is told before anything is served
        supervisor = Supervisor(body, n, watch.changed if watch else None, shared_scorer, tls is not None)
        logging.config.dictConfig(logs.config())
        _announce(settings, host, held, tls)
        supervisor.run()


def _config(app: Starlette, settings: Settings, tls: TLS | None) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_config=logs.config(), access_log=False, server_header=False, timeout_graceful_shutdown=SHUTDOWN_S,
        http=timed(settings), limit_concurrency=settings.max_connections, ws="none",
        ssl_certfile=tls.cert if tls else None, ssl_keyfile=tls.key if tls else None,
    )  # fmt: skip


def _announce(settings: Settings, host: str, listener: socket.socket, tls: TLS | None) -> None:
    """Say where; uvicorn tells nothing of a socket that it is given."""
    place, port = f"[{host}]" if ":" in host else host, listener.getsockname()[1]
    log.info("running on %s://%s:%d", "https" if tls else "http", place, port)
    if settings.keys is None and not local(listener):
        log.warning("anybody who reaches %s:%d may use this gateway, and the upstream's key with it; --keys asks for one", host, port)


def _check(settings: Settings, dial: Dial | None = None) -> None:
    """Whether keys and upstream are there, before anything is opened."""
    if settings.keys is not None:
        KeyRing(settings.keys)
    anyio.run(_check_upstream, settings, dial)


async def _check_upstream(settings: Settings, dial: Dial | None) -> None:
    upstream = open_upstream(settings, dial)
    try:
        await upstream.check()
    finally:
        await upstream.aclose()
