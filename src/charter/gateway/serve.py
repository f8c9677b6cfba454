"""Serve a guard over HTTP until interrupted, once the upstream has answered and the port is free."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable

import anyio
import uvicorn

from charter.errors import CharterError
from charter.gateway import logs
from charter.gateway.app import create_app
from charter.gateway.audit.log import AuditLog
from charter.gateway.in_process import open_upstream
from charter.gateway.keys import KeyRing
from charter.gateway.protocol import timed
from charter.gateway.refusing import Dial
from charter.gateway.reload import Reload
from charter.gateway.settings import Settings
from charter.gateway.spans import Spans
from charter.gateway.tls import TLS
from charter.guard.holdback import GuardLike

log = logging.getLogger("charter.gateway")
SHUTDOWN_S = 5
"""How long streams may go on after the gateway was told to stop."""


def run(
    guard: GuardLike, settings: Settings, host: str, port: int,
    audit: Callable[[], AuditLog] | None = None, spans: Callable[[], Spans] | None = None, tls: TLS | None = None,
    reload: Reload | None = None, shadow: GuardLike | None = None, dial: Dial | None = None,
) -> None:  # fmt: skip
    """Serve; returns when the process is told to stop.

    Args:
        port: 0 takes a free one; the log says which.
        audit, spans: open them, once nothing else can fail: a mistake leaves no file behind.
        reload: loads the guard again, on SIGHUP.
        shadow: a second guard, which judges the same and never acts.
        dial: a model with refusal tokens, which answers in the upstream's place.

    Raises:
        UpstreamError: the upstream does not answer, or refuses our key.
        CharterError: the address can't be listened on.
        DataError: the file of keys is none, or empty.
        AuditError: the audit log can't be opened.
    """
    if settings.keys is not None:
        KeyRing(settings.keys)
    anyio.run(_check, settings, dial)
    listener = _listen(host, port)
    with listener:
        traced = spans() if spans else None
        app = create_app(guard, settings, audit() if audit else None, traced, reload, shadow, dial)
        config = uvicorn.Config(
            app, log_config=logs.config(), access_log=False, server_header=False, timeout_graceful_shutdown=SHUTDOWN_S,
            http=timed(settings), limit_concurrency=settings.max_connections, ws="none",
            ssl_certfile=tls.cert if tls else None, ssl_keyfile=tls.key if tls else None,
        )  # fmt: skip
        place = f"[{host}]" if ":" in host else host  # uvicorn tells nothing of a socket that it is given
        log.info("running on %s://%s:%d", "https" if tls else "http", place, listener.getsockname()[1])
        if settings.keys is None and not _local(listener):
            log.warning("anybody who reaches %s:%d may use this gateway, and the upstream's key with it; --keys asks for one", host, port)
        uvicorn.Server(config).run(sockets=[listener])


def _local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


async def _check(settings: Settings, dial: Dial | None) -> None:
    upstream = open_upstream(settings, dial)
    try:
        await upstream.check()
    finally:
        await upstream.aclose()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise CharterError(f"{host}:{port} can't be listened on ({error.strerror}); choose another --host or --port") from error
    # asyncio does so for sockets that it makes itself: without it an answer's body waits 40 ms for the acknowledgement of its headers
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
