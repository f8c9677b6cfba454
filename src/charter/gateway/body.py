"""A request's JSON, read within bounds and written anew for the upstream, so that both read the same.

A body that two parsers may read differently (repeated keys, keys that differ in case only, NaN) would be scored as one
thing and answered as another.
"""

from __future__ import annotations

import json
from typing import Any

import anyio
from starlette.requests import Request

from charter.gateway.errors import HTTPProblem, bad_request
from charter.gateway.settings import Settings

MAX_BODY = "charter.max_body"
"""Where the scope of a request keeps the largest body that its key may send."""
MAX_DEPTH = 64
"""Levels of JSON. Tools' schemas take a dozen; code that walks a request calls itself once a level."""
DRAIN_BYTES = 16_777_216
"""The most that is read and thrown away of a request that is too large, so that its sender gets to read the answer."""


async def read_object(request: Request, settings: Settings) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        HTTPProblem: 413 where it is too large, 408 too slow, 415 compressed, 400 no JSON object.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPProblem(415, "the request is compressed; send plain JSON, without Content-Encoding")
    try:
        with anyio.fail_after(settings.timeout_s):
            data = await _bounded(request, min(settings.max_body_bytes, request.scope.get(MAX_BODY) or settings.max_body_bytes))
    except TimeoutError as error:
        raise HTTPProblem(408, f"the request did not arrive within {settings.timeout_s:g} s; send it again") from error
    return _counted(parse(data), settings.max_items)


def parse(data: bytes) -> dict[str, Any]:
    """A JSON object that every parser reads alike.

    Raises:
        HTTPProblem: 400.
    """
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise bad_request("the request holds half of a surrogate pair; send whole characters") from error
    except RecursionError as error:
        raise bad_request("the request's JSON is nested too deep; send a chat as OpenAI's API describes it") from error
    except json.JSONDecodeError as error:
        raise bad_request(f"the request is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:
        raise bad_request(f"the request is not JSON: {error}") from error
    if _deeper(value, MAX_DEPTH):
        raise bad_request(f"the request's JSON is nested deeper than {MAX_DEPTH} levels; send a chat as OpenAI's API describes it")
    if not isinstance(value, dict):
        raise bad_request(f"the request must be a JSON object, not {type(value).__name__}")
    if len({key.casefold() for key in value}) < len(value):  # some upstreams take keys whatever their case
        raise bad_request("two of the request's keys differ in nothing but case; send each once")
    return value


def dump(value: dict[str, Any]) -> str:
    """JSON that can be encoded: characters stand as they are unless one of them is half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


async def _bounded(request: Request, limit: int) -> bytes:
    body = bytearray()
    size = 0
    async for block in request.stream():
        size += len(block)
        if size <= limit:
            body += block
        if size > limit + DRAIN_BYTES:
            break
    if size > limit:
        raise HTTPProblem(413, f"the request is larger than {limit:,} bytes; send a shorter conversation")
    return bytes(body)


def _counted(value: dict[str, Any], most: int) -> dict[str, Any]:
    """The request, none of whose lists of turns, texts or tools is too long.

    Raises:
        HTTPProblem: 400.
    """
    for name, items in value.items():
        if isinstance(items, list) and len(items) > most:
            raise bad_request(f"`{name[:64]}` has {len(items):,} items; send at most {most:,}")
    return value


def _deeper(value: Any, most: int) -> bool:
    """Whether JSON is nested deeper than so many levels. Goes level by level, without calling itself."""
    level = [value]
    for _ in range(most):
        level = [inner for v in level if isinstance(v, (dict, list)) for inner in (v.values() if isinstance(v, dict) else v)]
        if not level:
            return False
    return any(isinstance(v, (dict, list)) for v in level)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no key stands twice: parsers differ in which one they take."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
