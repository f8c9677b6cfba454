"""Guarded streams for those who generate elsewhere: POST /v1/guard/sessions opens one, POST to it feeds it, DELETE closes it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charter.gateway.body import read_object
from charter.gateway.check import asked_turns, fields, guard_of
from charter.gateway.errors import HTTPProblem, bad_request, scoring_problem
from charter.gateway.generate import checked_prompt
from charter.gateway.kept import Kept
from charter.gateway.peers import Peers
from charter.gateway.scorer import Scorer, ScoringFailed
from charter.gateway.scoring import Channel, Conversation
from charter.guard.policy import decide

REPLY = (0, ("reply",))


@dataclass
class GuardedReply:
    """A reply that a client feeds piece by piece."""

    conversation: Conversation
    channel: Channel | None = None
    """None before its first piece."""
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """Pieces are taken one after another."""
    counted: bool = False


async def open_session(request: Request) -> Response:
    """Judge a prompt (`messages` or `input`) and get ready for its reply. The id is null where the prompt is blocked."""
    scorer: Scorer = request.app.state.scorer
    sessions: Kept[GuardedReply] = request.app.state.sessions
    scorer.counters.requests += 1
    conversation = Conversation(scorer, asked_turns(await read_object(request, scorer.settings)))
    _make_sure_of_room(sessions, scorer)
    verdict = await checked_prompt(request, conversation)
    _make_sure_of_room(sessions, scorer)  # others may have been opened meanwhile
    action = decide(verdict, scorer.settings.mode)
    peers: Peers | None = request.app.state.peers
    identity = None if action == "block" else peers.new_session() if peers else f"gs-{uuid.uuid4().hex}"
    scorer.counters.blocked_prompts += action == "block"
    if identity is not None:
        sessions.put(identity, GuardedReply(conversation))
    answer = {"object": "guard.session", "id": identity, "stage": "prompt", **fields(verdict), "action": action, "guard": guard_of(scorer)}
    return JSONResponse(answer, 201 if identity else 200)


async def feed(request: Request) -> Response:
    """Take a piece of the reply (`text`); answers what of all that came may be shown now."""
    scorer: Scorer = request.app.state.scorer
    text = (await read_object(request, scorer.settings)).get("text")
    if not isinstance(text, str):
        raise bad_request("`text` must be a string: the next piece of the reply")
    return await _answer(request, text)


async def close(request: Request) -> Response:
    """The reply has ended; answers the rest that may be shown, and the last verdict."""
    return await _answer(request, None)


def _make_sure_of_room(sessions: Kept[GuardedReply], scorer: Scorer) -> None:
    if sessions.full:
        sentence = f"{scorer.settings.max_sessions:,} sessions are open; close some, or try again later"
        raise HTTPProblem(429, sentence, "rate_limit_error", headers={"retry-after": str(int(scorer.settings.session_idle_s) or 1)})


async def _answer(request: Request, text: str | None) -> Response:
    sessions: Kept[GuardedReply] = request.app.state.sessions
    identity, peers = request.path_params["id"], request.app.state.peers
    if peers is not None:
        told = b"" if text is None else json.dumps({"text": text}).encode()
        if (answer := await peers.ask(peers.of_session(identity), request, told)) is not None:
            return answer  # type: ignore[no-any-return]
    reply = sessions.get(identity)
    if reply is None:
        raise HTTPProblem(404, "no such session is open; it was closed, or nobody asked for it for too long", code="no_session")
    async with reply.lock:
        conversation = reply.conversation
        channel = reply.channel = reply.channel or conversation.channel(REPLY)
        if text is None:
            sessions.pop(identity)
        try:
            released = await (channel.flush() if text is None else channel.push(text))
        except ScoringFailed as error:
            sessions.pop(identity)
            conversation.scorer.counters.blocked_replies += 1
            conversation.trail.update(ended=True)
            raise (bad_request(str(error), "not_scored") if error.clients_to_mend else scoring_problem(str(error))) from error
        if channel.flagged and not reply.counted:
            reply.counted = True
            conversation.count_reply(channel.verdict)
        conversation.ledger.sent(REPLY, released)
        if text is None:
            conversation.ledger.settle()
            conversation.trail.update(ended=True)
    held = 0 if channel.flagged or conversation.settings.mode == "shadow" else len(channel.held)
    return JSONResponse(
        {
            "object": "guard.session", "id": identity, "stage": "reply", "released": released, "held_chars": held,
            "scored": not channel.unscored, **fields(channel.verdict), "action": decide(channel.verdict, conversation.settings.mode),
            "open": text is not None,
        }
    )  # fmt: skip
