"""The page at /: a chat with the guarded model that shows every score, and the verdicts as they come for the operator."""

from __future__ import annotations

import ipaddress
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from charter.gateway.errors import HTTPProblem
from charter.gateway.feed import MOST, Feed
from charter.gateway.scorer import Scorer
from charter.guard.tokens import telling

ASSETS = "/page/"
"""The page's own files: the same for everybody, so no key is asked for."""
PATHS = (ASSETS, "/playground/")
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # nothing from elsewhere, nothing inline, no frame around it; the script can't make markup of text
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def playground() -> list[Route]:
    """Where the page, its files and what it asks for are served."""
    folder = files("charter.gateway") / "page"
    pages = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in TYPES}

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in pages:
            raise HTTPProblem(404, f"the playground has no file {name[:64]!r}", code="no_file")
        return Response(pages[name], media_type=TYPES[name.rpartition(".")[2]], headers=HEADERS)

    return [
        Route("/", page, methods=["GET"]),
        Route(ASSETS + "{name}", page, methods=["GET"]),
        Route("/playground/about", about, methods=["GET"]),
        Route("/playground/events", events, methods=["GET"]),
    ]


async def about(request: Request) -> Response:
    """Which guard serves, at which thresholds, and what is done about its verdicts."""
    scorer: Scorer = request.app.state.scorer
    guard, settings = scorer.guard, scorer.settings
    told: dict[str, Any] = {"thresholds": None, "clauses": {clause: clause for clause in guard.clauses}}
    if (tells := telling(guard)) is not None:
        told = {
            "thresholds": dict(tells.cutoffs),
            "clauses": {**told["clauses"], **tells.titles},
        }
    return JSONResponse(
        {
            "guard": {"name": guard.name, "hash": guard.hash, **told},
            "mode": settings.mode, "on_error": settings.on_error, "on_block": settings.on_block,
        },
        headers={"cache-control": "no-store"},
    )  # fmt: skip


async def events(request: Request) -> Response:
    """Verdicts and actions as they are found, as server-sent events; the last ones first."""
    feed: Feed = request.app.state.scorer.observer.feed
    if feed.full:
        raise HTTPProblem(429, f"{MOST} pages watch already; close one", "rate_limit_error")
    return StreamingResponse(feed.watch(), headers={"cache-control": "no-store"}, media_type="text/event-stream")


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
