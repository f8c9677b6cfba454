"""Verdicts without generation: POST /v1/guard/check, and the same question in NeMo Guardrails' form, POST /v1/checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charter.gateway.blocks import Stage
from charter.gateway.body import read_object
from charter.gateway.choices import turns_of
from charter.gateway.errors import bad_request, scoring_problem
from charter.gateway.generate import checked_prompt, unless_gone
from charter.gateway.scorer import Scorer, ScoringFailed
from charter.gateway.scoring import Conversation
from charter.guard.policy import decide
from charter.records import Turn, Verdict

NOT_SCORED = "the text could not be scored; the gateway's log names the fault"


@dataclass(frozen=True)
class Finding:
    """What was found in a conversation: its reply's verdict where it ends in one that its prompt led to, else its prompt's."""

    verdict: Verdict
    stage: Stage
    scores: dict[str, float]
    text: str
    """What was judged last."""


async def check(request: Request) -> Response:
    """POST /v1/guard/check: `messages`, or `input` for one turn of the user's. A last message of the assistant's is the reply."""
    scorer: Scorer = request.app.state.scorer
    found = await _found(request, scorer)
    return JSONResponse(
        {
            "object": "guard.check", "valid": not found.verdict.flagged, **fields(found.verdict), "stage": found.stage,
            "action": decide(found.verdict, scorer.settings.mode),
            "categories": [{"name": name, "score": score} for name, score in found.scores.items()], "guard": guard_of(scorer),
        }
    )  # fmt: skip


async def nemo(request: Request) -> Response:
    """POST /v1/checks: status, content and the rail that blocked, as NeMo Guardrails' server answers."""
    scorer: Scorer = request.app.state.scorer
    found = await _found(request, scorer)
    if decide(found.verdict, scorer.settings.mode) == "allow":
        return JSONResponse({"status": "passed", "content": found.text})
    side = "input" if found.stage == "prompt" else "output"
    rail = f"charter {side}" + (f" {found.verdict.clause}" if found.verdict.clause else "")
    return JSONResponse({"status": "blocked", "content": scorer.settings.refusal, "rail": rail})


def fields(verdict: Verdict) -> dict[str, Any]:
    """A verdict in an answer."""
    return {"flagged": verdict.flagged, "score": verdict.score, "clause": verdict.clause, "position": verdict.position}


def guard_of(scorer: Scorer) -> dict[str, str]:
    """Which guard answers."""
    return {"name": scorer.guard.name, "hash": scorer.guard.hash}


def asked_turns(body: dict[str, Any]) -> tuple[Turn, ...]:
    """The conversation of a request in `messages` or `input`.

    Raises:
        HTTPProblem: 400.
    """
    if "input" not in body:
        return turns_of(body)
    if not isinstance(body["input"], str) or "messages" in body:
        raise bad_request("`input` must be a string, and stand in place of `messages`")
    return (Turn("user", body["input"]),)


async def _found(request: Request, scorer: Scorer) -> Finding:
    """Judge the conversation of a request. What can't be scored is an error whatever on_error says: nobody may take it for harmless.

    Raises:
        HTTPProblem: 400 or 500.
    """
    scorer.counters.requests += 1
    turns = asked_turns(await read_object(request, scorer.settings))
    replied = turns[-1].role == "assistant" and len(turns) > 1
    conversation = Conversation(scorer, turns[:-1] if replied else turns)
    verdict = await checked_prompt(request, conversation)
    if conversation.unscored:
        raise scoring_problem(NOT_SCORED)
    stage: Stage = "prompt"
    try:
        if replied and not verdict.flagged:
            verdict, stage = await unless_gone(request, lambda: _reply(conversation, turns[-1].content)), "reply"
        return Finding(verdict, stage, await conversation.clause_scores(), turns[-1].content)
    except ScoringFailed as error:
        raise (bad_request(str(error), "not_scored") if error.clients_to_mend else scoring_problem(str(error))) from error


async def _reply(conversation: Conversation, text: str) -> Verdict:
    channel = conversation.channel((0, ("reply",)))
    await channel.push(text)
    await channel.flush()
    if channel.unscored:
        raise ScoringFailed(NOT_SCORED)
    if channel.flagged:
        conversation.count_reply(channel.verdict)
    return channel.verdict
