"""The layer that asks for a key. What it has checked goes no further: no handler, log or upstream gets to see a client's key."""

from __future__ import annotations

import math
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from charter.gateway.body import MAX_BODY
from charter.gateway.errors import HTTPProblem, problem_response
from charter.gateway.keys import Key, KeyRing, TooMany
from charter.gateway.trail import CLIENT

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Paths that need no key: what machines ask to see whether the gateway runs, and pages that hold nothing of anybody's."""
PAGE = "/page/"
"""The files of the playground's page: the same for everybody."""
LET_IN = "charter.let-in"
"""Whether a worker beside this one has let the request in already (`peers`)."""
CARRY_KEYS = (b"authorization", b"x-api-key")


class Keyed:
    """ASGI middleware: 401 without a key, 429 past its limits, in the shape of the surface that was asked."""

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self._app, self._ring = app, ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get(LET_IN) or scope["path"] in OPEN or scope["path"].startswith(PAGE):
            await self._app(_without_keys(scope), receive, send)
            return
        with ExitStack() as stack:
            try:
                key = self._key(Headers(scope=scope))
                stack.enter_context(self._ring.using(key))
            except (HTTPProblem, TooMany) as error:
                problem = _limited(error) if isinstance(error, TooMany) else error
                await problem_response(scope["path"], problem)(scope, receive, send)
                return
            scope[CLIENT], scope[MAX_BODY] = key.name, key.max_body
            await self._app(_without_keys(scope), receive, send)

    def _key(self, headers: Headers) -> Key:
        """Whose request this is.

        Raises:
            HTTPProblem: 401.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        presented = [token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "")]
        for text in filter(None, presented):
            key = self._ring.find(text)
            if key is not None:
                return key
        why = "the gateway does not know this key" if any(presented) else "the gateway asks for a key"
        sentence = f"{why}; send one in Authorization: Bearer or in x-api-key"
        raise HTTPProblem(401, sentence, "authentication_error", "invalid_api_key", {"www-authenticate": "Bearer"})


def _without_keys(scope: Scope) -> Scope:
    """The request without headers that carry a key."""
    if scope["type"] == "http":
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in CARRY_KEYS]
    return scope


def _limited(error: TooMany) -> HTTPProblem:
    wait = max(1, math.ceil(error.retry_after_s))
    return HTTPProblem(429, f"{error}; try again in {wait} s", "rate_limit_error", "rate_limit_exceeded", {"retry-after": str(wait)})
