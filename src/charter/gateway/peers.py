"""Conversations that live in one worker: a request that another worker gets is passed on to the one that keeps them.

A session's id names its worker; of LiteLLM's calls the call id decides. Workers listen to one another on sockets in the supervisor's
folder, and say the supervisor's secret: what comes with it was let in, and counted against its key, by the worker that it came to.
"""

from __future__ import annotations

import hmac
import logging
import socket
import uuid
import zlib

import httpx2
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from charter.gateway.access import LET_IN
from charter.gateway.body import MAX_BODY
from charter.gateway.generate import unless_gone
from charter.gateway.trail import ASKED, CLIENT, PASSED_ON, REQUEST
from charter.gateway.upstream import reply_headers
from charter.gateway.worker import Worker

SECRET, ID, KEY, MOST = "x-charter-relay", "x-charter-relay-request", "x-charter-relay-client", "x-charter-relay-most"
CONNECT_S = 5.0
log = logging.getLogger("charter.gateway")


class Peers:
    """The other workers, as one of them asks them."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._clients: dict[int, httpx2.AsyncClient] = {}

    def new_session(self) -> str:
        """An id that names this worker."""
        return f"gs-{self.worker.number}-{uuid.uuid4().hex}"

    def of_session(self, identity: str) -> int:
        """The worker that keeps a session; this one where the id names none."""
        number = identity.split("-")[1:2]
        return int(number[0]) if number and number[0].isdecimal() and int(number[0]) < self.worker.of else self.worker.number

    def of_call(self, identity: str) -> int:
        """The worker that remembers one of LiteLLM's calls."""
        return zlib.crc32(identity.encode("utf-8", "surrogatepass")) % self.worker.of

    async def ask(self, owner: int, request: Request, body: bytes) -> Response | None:
        """The answer of another worker; None where this one is to answer: it is the one, or the other can't be reached.

        Raises:
            ClientDisconnect: the client went away meanwhile.
        """
        if owner == self.worker.number or request.scope.get(LET_IN):
            return None
        asked, scope = ASKED.get(), request.scope
        headers = {SECRET: self.worker.secret, "content-type": "application/json", ID: asked.id if asked else ""}
        headers |= {KEY: scope[CLIENT]} if scope.get(CLIENT) else {}
        headers |= {MOST: str(scope[MAX_BODY])} if scope.get(MAX_BODY) else {}
        try:
            call = self._client(owner).request(request.method, request.url.path, content=body, headers=headers)
            answer = await unless_gone(request, lambda: call)
        except httpx2.HTTPError as error:
            log.warning("worker %d can't be reached (%s)", owner, type(error).__name__)
            return None
        scope[PASSED_ON] = True
        return Response(answer.content, answer.status_code, reply_headers(answer))

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, owner: int) -> httpx2.AsyncClient:
        if owner not in self._clients:
            path, scheme = str(self.worker.socket(owner)), "https" if self.worker.tls else "http"
            # a socket in a folder of our own needs no certificate: whom it leads to is known
            transport = httpx2.AsyncHTTPTransport(uds=path, verify=False, limits=httpx2.Limits(max_connections=None))
            timeout = httpx2.Timeout(None, connect=CONNECT_S)
            self._clients[owner] = httpx2.AsyncClient(transport=transport, base_url=f"{scheme}://worker", timeout=timeout, trust_env=False)
        return self._clients[owner]


class Relayed:
    """ASGI middleware: knows what a sibling passes on by the secret."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app, self._secret = app, secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if (told := headers.get(SECRET)) is not None and hmac.compare_digest(told.encode("latin-1"), self._secret):
                scope[LET_IN], scope[CLIENT], scope[REQUEST] = True, headers.get(KEY), headers.get(ID) or None
                scope[MAX_BODY] = int(headers.get(MOST, "0")) or None
        await self._app(scope, receive, send)


def listen(worker: Worker) -> socket.socket:
    """Where a worker hears its siblings. What its predecessor left is replaced."""
    path = worker.socket(worker.number)
    path.unlink(missing_ok=True)
    inner = socket.socket(socket.AF_UNIX)
    inner.bind(str(path))
    inner.listen(128)
    return inner
