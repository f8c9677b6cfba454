"""Serve a guard over HTTP until interrupted, once the upstream has answered and the port is free."""

from __future__ import annotations

import socket

import anyio
import uvicorn

from charter.errors import CharterError
from charter.gateway import logs
from charter.gateway.app import create_app
from charter.gateway.audit.log import AuditLog
from charter.gateway.settings import Settings
from charter.gateway.spans import Spans
from charter.gateway.upstream import Upstream
from charter.guard.holdback import GuardLike

SHUTDOWN_S = 5
"""How long streams may go on after the gateway was told to stop."""


def run(guard: GuardLike, settings: Settings, host: str, port: int, audit: AuditLog | None = None, spans: Spans | None = None) -> None:
    """Serve; returns when the process is told to stop.

    Args:
        port: 0 takes a free one; the log says which.

    Raises:
        UpstreamError: the upstream does not answer, or refuses our key.
        CharterError: the address can't be listened on.
    """
    anyio.run(_check, settings)
    listener = _listen(host, port)
    config = uvicorn.Config(
        create_app(guard, settings, audit, spans), log_config=logs.config(), log_level="info", access_log=False, server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )  # fmt: skip
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


async def _check(settings: Settings) -> None:
    upstream = Upstream(settings)
    try:
        await upstream.check()
    finally:
        await upstream.aclose()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2_048)
    except OSError as error:
        raise CharterError(f"{host}:{port} can't be listened on ({error.strerror}); choose another --host or --port") from error
