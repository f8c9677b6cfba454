"""HTTP/1.1 with deadlines: what uvicorn's own server lets go on for ever ends here, be it headers that never come or a reader that never reads.

The times of bodies and of the upstream are kept by those who wait for them; these two nobody waits for.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from charter.gateway.settings import Settings


class Timed(H11Protocol):
    """One connection. Made by `timed`, which knows the settings."""

    headers_timeout_s: float
    write_timeout_s: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_due: asyncio.TimerHandle | None = None
        self._read_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_due = self._read_due or self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._read_due)
        self._read_due = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._headers_due)
        _cancel(self._read_due)
        self._headers_due = self._read_due = None

    def _watch_headers(self) -> None:
        """The clock runs from when the connection could send a request until it has sent the headers of one."""
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            _cancel(self._headers_due)
            self._headers_due = None
        elif self._headers_due is None:  # a byte now and then does not stop it
            self._headers_due = self.loop.call_later(self.headers_timeout_s, self.transport.abort)


def timed(settings: Settings) -> type[Timed]:
    """The protocol with the deadlines of these settings."""
    return type("TimedHTTP", (Timed,), {"headers_timeout_s": settings.headers_timeout_s, "write_timeout_s": settings.timeout_s})


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
