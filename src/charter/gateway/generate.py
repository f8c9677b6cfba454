"""The surfaces that generate: the prompt is judged before the upstream is called, the reply before it leaves."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TypeVar

import anyio
import httpx2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from charter.gateway.blocks import block_of, block_problem, said
from charter.gateway.body import dump, read_object
from charter.gateway.channels import Path
from charter.gateway.errors import bad_request, scoring_problem, upstream_problem
from charter.gateway.scorer import UNSCORED, Scorer, ScoringFailed
from charter.gateway.scores import notes_for
from charter.gateway.scoring import Conversation
from charter.gateway.streaming import EventStream, GuardedStream
from charter.gateway.surface import JSON, Surface, Unreadable
from charter.gateway.upstream import Upstream, reply_headers
from charter.guard.policy import decide
from charter.records import Verdict

T = TypeVar("T")


def route(surface: Surface) -> Route:
    """Where a surface is served."""

    async def endpoint(request: Request) -> Response:
        return await generate(surface, request)

    return Route(f"/v1{surface.path}", endpoint, methods=["POST"])


async def generate(surface: Surface, request: Request) -> Response:
    """One request, from its prompt to its reply."""
    scorer: Scorer = request.app.state.scorer
    scorer.counters.requests += 1
    body = await read_object(request, scorer.settings)
    conversation = Conversation(scorer, surface.turns(body))
    n_choices = surface.n_choices(body)
    return await unless_gone(request, lambda: answer(surface, request, conversation, body, n_choices))  # one watcher for all its waits


async def answer(surface: Surface, request: Request, conversation: Conversation, body: JSON, n_choices: int) -> Response:
    """The prompt judged, the upstream asked, the reply judged as a whole or on its way.

    Raises:
        HTTPProblem: as those that it calls.
    """
    scorer: Scorer = request.app.state.scorer
    upstream: Upstream = request.app.state.upstream
    verdict = await judged_prompt(conversation)
    action = decide(verdict, scorer.settings.mode)
    notes = notes_for(surface, request, conversation)
    if action == "block":
        scorer.counters.blocked_prompts += 1
        return blocked(surface, conversation, body, n_choices, await notes.prompt() if notes else b"")
    async with AsyncExitStack() as stack:
        asked = dump(body).encode()
        call = upstream.send("POST", surface.path, request.headers.items(), asked, surface.key_header, conversation.session)
        response = await stack.enter_async_context(call)
        if response.is_success and response.headers.get("content-type", "").startswith("text/event-stream"):
            headers = reply_headers(response) | said(verdict, action)
            events = GuardedStream(conversation, surface.stream(), n_choices).events(response)
            return EventStream(notes.among(events) if notes else events, stack.pop_all(), headers)
        reply = await upstream.read(response)
    if not response.is_success:
        return Response(reply, response.status_code, reply_headers(response))
    return await whole(surface, conversation, response, reply)


async def checked_prompt(request: Request, conversation: Conversation) -> Verdict:
    """The prompt's verdict, unless the client goes away.

    Raises:
        HTTPProblem: 400 or 500 where it can't be scored and failures are closed.
    """
    return await unless_gone(request, lambda: judged_prompt(conversation))


async def judged_prompt(conversation: Conversation) -> Verdict:
    """The prompt's verdict.

    Raises:
        HTTPProblem: as above.
    """
    try:
        return await conversation.check_prompt()
    except ScoringFailed as error:
        raise (bad_request(str(error), "not_scored") if error.clients_to_mend else scoring_problem(str(error))) from error


async def whole(surface: Surface, conversation: Conversation, response: httpx2.Response, reply: bytes) -> Response:
    """A reply that came at once: scored as a whole, of each part what passes.

    Raises:
        HTTPProblem: 502 where it can't be read, 500 where scoring fails and failures are closed, 400 where blocks are errors.
    """
    completion, parts = _read(surface, reply)
    settings = conversation.settings
    worst, kept, verdicts = conversation.verdict, [], []
    for place, part in enumerate(parts):
        try:
            passed, verdict = await _guarded(surface, conversation, part, place)
        except ScoringFailed as error:
            conversation.scorer.counters.blocked_replies += 1
            raise scoring_problem(str(error)) from error
        kept.append(passed)
        verdicts.append(verdict)
        worst = verdict if verdict.flagged and not worst.flagged else worst
    action = decide(worst, settings.mode)
    if action == "block" and settings.on_block == "error":
        raise block_problem(worst, "reply")
    if settings.mode == "enforce":
        text = block_of(settings, worst, "reply").text
        parts, final = kept, [surface.cut(p, text) if v.flagged else p for p, v in zip(kept, verdicts, strict=True)]
        note = {"charter": {"verdict": asdict(worst), "action": action, "stage": "reply"}} if worst.flagged else {}
        reply = dump({**surface.joined(completion, final), **note}).encode()
    for place, part in enumerate(parts):  # what leaves of the model's; the operator's words are no leak
        for path, text in surface.texts(part):
            conversation.ledger.sent((place, path), text)
    conversation.ledger.settle()
    return Response(reply, response.status_code, reply_headers(response) | said(worst, action))


async def _guarded(surface: Surface, conversation: Conversation, part: JSON, place: int) -> tuple[JSON, Verdict]:
    """One part's texts as far as they may leave, and the first flagged verdict on its channels."""
    passed: dict[Path, str] = {}
    for path, text in surface.texts(part):
        channel = conversation.channel((place, path))
        passed[path] = await channel.take(text)
        if channel.flagged:
            conversation.count_reply(channel.verdict)
            return surface.replaced(part, passed), channel.verdict
    return surface.replaced(part, passed), UNSCORED


def blocked(surface: Surface, conversation: Conversation, body: JSON, n_choices: int, note: bytes = b"") -> Response:
    """The answer to a restricted prompt. `note`: a frame before the others, where it is streamed.

    Raises:
        HTTPProblem: 400 where blocks are errors.
    """
    verdict, settings = conversation.verdict, conversation.settings
    if settings.on_block == "error":
        raise block_problem(verdict, "prompt")
    block, headers = block_of(settings, verdict, "prompt"), said(verdict, "block")
    if not body.get("stream"):
        return JSONResponse(surface.blocked(body, block, n_choices), headers=headers)
    stream = surface.stream()
    frames = [stream.frame(stream.sent(event)) for event in surface.blocked_stream(body, block, n_choices)]
    return Response(b"".join([note, *frames, stream.last]), headers=headers, media_type="text/event-stream")


async def unless_gone(request: Request, work: Callable[[], Awaitable[T]]) -> T:
    """Do this, but stop where the client goes away meanwhile: nobody waits for it then.

    Raises:
        ClientDisconnect: it did.
    """
    done: list[T] = []
    failed: list[Exception] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            done.append(await work())
        except Exception as error:  # past the group, which would wrap it
            failed.append(error)
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not done:
        raise ClientDisconnect
    return done[0]


def _read(surface: Surface, reply: bytes) -> tuple[JSON, list[JSON]]:
    """A whole reply and its parts.

    Raises:
        HTTPProblem: 502.
    """
    try:
        completion = json.loads(reply)
    except (ValueError, RecursionError) as error:
        raise upstream_problem("the upstream's reply is not JSON, so it can't be scored; check --upstream") from error
    try:
        return completion, surface.parts(completion if isinstance(completion, dict) else {})
    except Unreadable as error:
        raise upstream_problem(str(error)) from error
