"""The one upstream, fixed when the gateway starts: no request can name another address, and no redirect is followed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import anyio
import httpx2

from charter.errors import UpstreamError
from charter.gateway.errors import HTTPProblem, upstream_problem
from charter.gateway.settings import Settings
from charter.guard.holdback import OpenGuard

CONNECT_TIMEOUT_S = 10.0
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Headers of one connection (RFC 9110 section 7.6.1); so are those that `Connection` names."""
OURS = frozenset({
    "host", "content-length", "content-encoding", "content-type", "accept-encoding", "accept", "expect", "cookie",
    "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
})  # fmt: skip
"""Request headers that are written anew, or that are meant for the gateway alone: its word on where a request comes from is not the client's."""
KEYS = frozenset({"authorization", "x-api-key"})
"""Request headers that hold a client's key: kept from the upstream where the gateway has one of its own."""
HIDDEN = b"[the gateway's key]"
THEIRS = frozenset({"content-length", "content-encoding", "set-cookie", "date", "server"})
"""Response headers that are written anew, or that must not reach another origin's client."""


class Upstream:
    """The client of the guarded endpoint. Connections are kept and shared."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        given = httpx2.URL(settings.upstream_url)
        self._base = given.copy_with(userinfo=b"")  # out of the URL, which logs and errors tell
        auth = httpx2.BasicAuth(given.username, given.password) if given.userinfo and not settings.upstream_key else None
        timeout = httpx2.Timeout(settings.timeout_s, connect=min(CONNECT_TIMEOUT_S, settings.timeout_s))
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))  # one client's session is never another's
        # trust_env off: neither proxies nor a .netrc of the environment send requests or keys elsewhere
        self._client = httpx2.AsyncClient(
            timeout=timeout, limits=limits, cookies=cookies, auth=auth, trust_env=False, follow_redirects=False
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
        key_header: str = "authorization",
        session: OpenGuard | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """The upstream's answer, its body still to be read; leaving the context closes the connection where it wasn't.

        Args:
            path: below the base URL, such as "/chat/completions".
            headers: the client's; what concerns only its own connection is taken out.
            key_header: where the upstream takes its key.
            session: the conversation under guard, for an upstream in this process (`in_process`).

        Raises:
            HTTPProblem: 502 where the upstream can't be reached.
        """
        request = self._client.build_request(method, self._url(path), headers=self._headers(headers, body, key_header), content=body)
        try:
            response = await self._client.send(request, stream=True)
        except httpx2.TimeoutException as error:
            raise upstream_problem(f"the upstream did not answer within {self._settings.timeout_s:g} s; try again later") from error
        except httpx2.TransportError as error:
            raise upstream_problem(f"the upstream can't be reached ({type(error).__name__}); is it running?") from error
        self._hide_key(response)
        try:
            if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
                raise upstream_problem("the upstream compressed its reply, which it was asked not to; switch that off there")
            yield response
        finally:
            with anyio.CancelScope(shield=True):  # its connection is let go of also where the client went away
                await response.aclose()

    async def read(self, response: httpx2.Response) -> bytes:
        """A whole body, without our key wherever the upstream repeats it.

        Raises:
            HTTPProblem: 502 where it breaks off or is too large.
        """
        body = bytearray()
        try:
            async for block in response.aiter_bytes():  # as they came: what is compressed was refused
                body += block
                if len(body) > self._settings.max_reply_bytes:
                    raise upstream_problem(
                        f"the upstream's reply is larger than {self._settings.max_reply_bytes:,} bytes; ask for a shorter one"
                    )
        except httpx2.HTTPError as error:
            raise upstream_problem(f"the upstream's reply broke off ({type(error).__name__}); try again") from error
        key = self._settings.upstream_key
        return bytes(body).replace(key.encode(), HIDDEN) if key else bytes(body)

    async def check(self) -> None:
        """Whether the upstream answers at all.

        Raises:
            UpstreamError: it doesn't, or refuses our key.
        """
        where = f"the upstream at {self._base.copy_with(query=None)}"
        try:
            async with self.send("GET", "/models", (), None) as response:
                if self._settings.upstream_key and response.status_code in (401, 403):
                    raise UpstreamError(f"{where} refuses the key ({response.status_code}); set CHARTER_UPSTREAM_KEY")
        except HTTPProblem as error:
            reason = type(error.__cause__).__name__
            raise UpstreamError(f"{where} does not answer ({reason}); start it, or mend --upstream") from error

    def _hide_key(self, response: httpx2.Response) -> None:
        """Drop headers in which the upstream repeats our key."""
        key = self._settings.upstream_key
        for name in {name for name, value in response.headers.multi_items() if key and key in value}:
            del response.headers[name]

    def _url(self, path: str) -> httpx2.URL:
        return self._base.copy_with(path=self._base.path.rstrip("/") + path)

    def _headers(self, headers: Iterable[tuple[str, str]], body: bytes | None, key_header: str) -> list[tuple[str, str]]:
        key = self._settings.upstream_key
        kept = [(k, v) for k, v in end_to_end(headers, OURS) if not key or k not in KEYS]
        if key:
            kept.append((key_header, f"Bearer {key}" if key_header == "authorization" else key))
        if body is not None:
            kept.append(("content-type", "application/json"))
        return [*kept, ("accept", "*/*"), ("accept-encoding", "identity")]


def end_to_end(headers: Iterable[tuple[str, str]], without: frozenset[str]) -> list[tuple[str, str]]:
    """Headers that travel past the gateway, names in lower case: not those of one connection, nor Charter's own, which none may forge."""
    pairs = [(name.lower(), value) for name, value in headers]
    named = {token.strip().lower() for name, value in pairs if name == "connection" for token in value.split(",")}
    dropped = HOP_BY_HOP | named | without
    return [(name, value) for name, value in pairs if name not in dropped and not name.startswith("x-charter-")]


def reply_headers(response: httpx2.Response) -> dict[str, Any]:
    """Headers of the upstream's answer that reach the client."""
    return dict(end_to_end(response.headers.multi_items(), THEIRS))
