"""POST /beta/litellm_basic_guardrail_api: a guard for LiteLLM's proxy.

LiteLLM sends the whole text of a streamed reply again and again as it grows. It is kept by call id, so that only the new part
is scored. Each answer covers all the text that was sent, the open word included, because LiteLLM releases it when the stream
ends without asking again; while it goes on, `stream_holdback_chars` keeps the open word back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charter.gateway.body import dump, read_object
from charter.gateway.choices import turns_of
from charter.gateway.errors import bad_request, scoring_problem
from charter.gateway.generate import checked_prompt
from charter.gateway.kept import Kept
from charter.gateway.scorer import UNSCORED, Scorer, ScoringFailed
from charter.gateway.scoring import Channel, Conversation, Key
from charter.gateway.trail import CLIENT
from charter.guard.policy import decide
from charter.records import Turn, Verdict


@dataclass
class Call:
    """One of LiteLLM's calls: its conversation and the texts of its reply so far."""

    conversation: Conversation
    channels: dict[Key, Channel] = field(default_factory=dict)
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    counted: bool = False


async def guardrail(request: Request) -> Response:
    """The surface itself. Actions: NONE or BLOCKED; texts are never rewritten."""
    scorer: Scorer = request.app.state.scorer
    scorer.counters.requests += 1
    body = await read_object(request, scorer.settings)
    if (answer := await _elsewhere(request, body)) is not None:
        scorer.counters.requests -= 1  # counted there
        return answer
    texts, calls = _strings(body), body.get("tool_calls") or []
    if body.get("input_type") not in ("request", "response") or not isinstance(calls, list):
        raise bad_request("`input_type` must be request or response, and `tool_calls` a list")
    identity = _identity(request, body)
    kept: Kept[Call] = request.app.state.calls
    if body["input_type"] == "request":
        call = Call(Conversation(scorer, _turns(body, texts)))
        verdict = await checked_prompt(request, call.conversation)
        if decide(verdict, scorer.settings.mode) == "block":
            scorer.counters.blocked_prompts += 1
            return _blocked(verdict, "prompt")
        if identity is not None:
            kept.put(identity, call)
        return _passed([0] * len(texts))
    found = kept.get(identity) if identity is not None else None
    call = found or Call(Conversation(scorer, _turns(body, [])))
    if found is None:
        await checked_prompt(request, call.conversation)
        if identity is not None:
            kept.put(identity, call)
    return await _reply(call, texts, [json.dumps(c, ensure_ascii=False) for c in map(_said, calls)])


async def _elsewhere(request: Request, body: dict[str, Any]) -> Response | None:
    """The answer of the worker that remembers this call; None where that is this one."""
    peers, identity = request.app.state.peers, _identity(request, body)
    if peers is None or identity is None:
        return None
    answer: Response | None = await peers.ask(peers.of_call(identity), request, dump(body).encode())
    return answer


async def _reply(call: Call, texts: list[str], calls: list[str]) -> Response:
    """The answer on all texts of a reply so far."""
    conversation, holdback = call.conversation, []
    shadow = conversation.settings.mode == "shadow"
    async with call.lock:
        try:
            for place, (kind, text) in enumerate([*(("text", t) for t in texts), *(("tool_calls", c) for c in calls)]):
                channel, verdict = await _grown(call, (place, (kind,)), text)
                if verdict.flagged and not call.counted:
                    call.counted = True
                    conversation.count_reply(verdict)
                if decide(verdict, conversation.settings.mode) == "block":
                    return _blocked(verdict, "reply")
                holdback.append(0 if shadow else len(channel.held))
        except ScoringFailed as error:
            conversation.scorer.counters.blocked_replies += 1
            call.channels.clear()  # a session that failed takes no more
            raise scoring_problem(str(error)) from error
    return _passed(holdback[: len(texts)])


async def _grown(call: Call, key: Key, text: str) -> tuple[Channel, Verdict]:
    """The verdict on a text, of which only what is new is scored where it continues what was sent before."""
    channel = call.channels.get(key)
    if channel is None or not text.startswith(channel.text):
        channel = call.channels[key] = call.conversation.channel(key)
    new = text[len(channel.text) :]
    if new:
        await channel.push(new)
    verdict = await channel.glance() if text else UNSCORED
    if verdict.flagged and not channel.flagged:
        await channel.flush()  # the open word decided, and nothing follows it: the channel itself has to say so in the log
    return channel, verdict


def _identity(request: Request, body: dict[str, Any]) -> str | None:
    """What a call is remembered by: its id, which the client chose, so that no other client can go on with it by naming the same."""
    identity = body.get("litellm_call_id")
    return f"{request.scope.get(CLIENT, '')} {identity}" if isinstance(identity, str) else None


def _turns(body: dict[str, Any], texts: list[str]) -> tuple[Turn, ...]:
    messages = body.get("structured_messages")
    return turns_of({"messages": messages}) if messages else tuple(Turn("user", text) for text in texts or [""])


def _strings(body: dict[str, Any]) -> list[str]:
    texts = body.get("texts") or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise bad_request("`texts` must be a list of strings")
    return texts


def _said(call: Any) -> Any:
    """What the model wrote of a tool's call: not its id, which changes nothing."""
    return call.get("function", call) if isinstance(call, dict) else call


def _passed(holdback: list[int]) -> Response:
    return JSONResponse({"action": "NONE", "stream_holdback_chars": holdback})


def _blocked(verdict: Verdict, stage: str) -> Response:
    reason = f"the {stage} was blocked by the content policy" + (f" (clause {verdict.clause})" if verdict.clause else "")
    return JSONResponse({"action": "BLOCKED", "blocked_reason": reason})
