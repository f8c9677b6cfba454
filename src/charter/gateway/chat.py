"""POST /v1/chat/completions: the prompt is judged before the upstream is called, the reply before it leaves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any, TypeVar

import anyio
import httpx2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from charter.gateway.body import dump, read_object
from charter.gateway.channels import Path, replaced, texts, turns_of
from charter.gateway.errors import bad_request, scoring_problem, upstream_problem
from charter.gateway.scoring import UNSCORED, Conversation, Scorer, ScoringFailed
from charter.gateway.sse import DONE, frame
from charter.gateway.streaming import EventStream, GuardedStream
from charter.gateway.upstream import Upstream, reply_headers
from charter.guard.policy import Action, decide
from charter.records import Verdict

T = TypeVar("T")
MOST_CHOICES = 128
"""OpenAI's own limit of `n`."""


async def chat(request: Request) -> Response:
    """The surface itself."""
    scorer: Scorer = request.app.state.scorer
    upstream: Upstream = request.app.state.upstream
    scorer.counters.requests += 1
    body = await read_object(request, scorer.settings)
    conversation = Conversation(scorer, turns_of(body))
    n_choices = _choices(body)
    try:
        verdict = await unless_gone(request, conversation.check_prompt)
    except ScoringFailed as error:
        raise (bad_request(str(error), "not_scored") if error.clients_to_mend else scoring_problem(str(error))) from error
    action = decide(verdict, scorer.settings.mode)
    if action == "block":
        scorer.counters.blocked_prompts += 1
        return blocked(body, verdict, n_choices)
    async with AsyncExitStack() as stack:
        call = upstream.send("POST", "/chat/completions", request.headers.items(), dump(body).encode())
        response = await unless_gone(request, lambda: stack.enter_async_context(call))
        if response.is_success and response.headers.get("content-type", "").startswith("text/event-stream"):
            headers = reply_headers(response) | said(verdict, action)
            return EventStream(GuardedStream(conversation, n_choices).events(response), stack.pop_all(), headers)
        reply = await unless_gone(request, lambda: upstream.read(response))
    if not response.is_success:
        return Response(reply, response.status_code, reply_headers(response))
    return await unless_gone(request, lambda: whole(conversation, response, reply))


async def whole(conversation: Conversation, response: httpx2.Response, reply: bytes) -> Response:
    """A reply that came at once: scored as a whole, of each choice the part that passes.

    Raises:
        HTTPProblem: 502 where it is no chat completion, 500 where scoring fails and failures are closed.
    """
    completion = _completion(reply)
    worst, kept = conversation.verdict, []
    for place, choice in enumerate(completion["choices"]):
        try:
            passed, verdict = await _guarded(conversation, choice, place)
        except ScoringFailed as error:
            conversation.scorer.counters.blocked_replies += 1
            raise scoring_problem(str(error)) from error
        kept.append(passed)
        worst = verdict if verdict.flagged and not worst.flagged else worst
    action = decide(worst, conversation.settings.mode)
    if conversation.settings.mode == "enforce":
        note = {"charter": {"verdict": asdict(worst), "action": action, "stage": "reply"}} if worst.flagged else {}
        completion = {**completion, "choices": kept, **note}
        reply = dump(completion).encode()
    for place, choice in enumerate(completion["choices"]):
        for path, text in texts(choice):
            conversation.ledger.sent((place, path), text)
    conversation.ledger.settle()
    return Response(reply, response.status_code, reply_headers(response) | said(worst, action))


async def _guarded(conversation: Conversation, choice: dict[str, Any], place: int) -> tuple[dict[str, Any], Verdict]:
    """One choice as it may leave, and the first flagged verdict on its channels."""
    passed: dict[Path, str] = {}
    for path, text in texts(choice):
        channel = conversation.channel((place, path))
        passed[path] = await channel.push(text) + await channel.flush()
        if channel.flagged:
            cut = {**replaced(choice, passed), "logprobs": None, "finish_reason": "content_filter"}
            conversation.count_reply(channel.verdict)
            return cut, channel.verdict
    return replaced(choice, passed), UNSCORED


def blocked(body: dict[str, Any], verdict: Verdict, n_choices: int) -> Response:
    """The answer to a restricted prompt: a normal completion without a word, which ends by the content filter."""
    streamed = bool(body.get("stream"))
    model = body.get("model")
    envelope: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk" if streamed else "chat.completion",
        "created": int(time.time()),
        "model": model if isinstance(model, str) else "",
    }
    note = {"verdict": asdict(verdict), "action": "block", "stage": "prompt"}
    headers = said(verdict, "block")
    message = {"role": "assistant", "content": ""}
    if not streamed:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        choices = [
            {"index": i, "message": {**message, "refusal": None}, "logprobs": None, "finish_reason": "content_filter"}
            for i in range(n_choices)
        ]
        return JSONResponse({**envelope, "choices": choices, "usage": usage, "charter": note}, headers=headers)
    events = []
    for i in range(n_choices):
        opening = {"index": i, "delta": message, "logprobs": None, "finish_reason": None}
        closing = {"index": i, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}
        events += [{**envelope, "choices": [opening]}, {**envelope, "choices": [closing], "charter": note}]
    frames = b"".join([*(frame(dump(event)) for event in events), frame(DONE)])
    return Response(frames, headers=headers, media_type="text/event-stream")


def said(verdict: Verdict, action: Action) -> dict[str, str]:
    """The headers that tell verdict and action apart."""
    headers = {"x-charter-verdict": "flagged" if verdict.flagged else "passed", "x-charter-action": action}
    return headers | ({"x-charter-clause": verdict.clause} if verdict.clause else {})


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


def _completion(reply: bytes) -> dict[str, Any]:
    try:
        completion = json.loads(reply)
    except (ValueError, RecursionError) as error:
        raise upstream_problem("the upstream's reply is not JSON, so it can't be scored; check --upstream") from error
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise upstream_problem("the upstream's reply is no chat completion, so it can't be scored; check --upstream")
    assert isinstance(completion, dict)
    return completion


def _choices(body: dict[str, Any]) -> int:
    n = body.get("n")
    if n is None:
        return 1
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_CHOICES:
        raise bad_request(f"`n` must be a whole number from 1 to {MOST_CHOICES}")
    return n
