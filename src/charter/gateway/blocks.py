"""What a client is told of a block: a filter's finish reason, an error, or the operator's own words."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from charter.gateway.errors import HTTPProblem
from charter.gateway.settings import Settings
from charter.gateway.surface import Block
from charter.guard.policy import Action
from charter.records import Verdict

Stage = Literal["prompt", "reply"]


def block_of(settings: Settings, verdict: Verdict, stage: Stage, problem: str | None = None) -> Block:
    """For a surface to write down. `problem`: why the text could not be scored, where that is the cause."""
    note = {"verdict": asdict(verdict), "action": "block", "stage": stage} | ({"error": problem} if problem else {})
    return Block(note, settings.refusal if settings.on_block == "refusal" else None)


def block_problem(verdict: Verdict, stage: Stage, problem: str | None = None) -> HTTPProblem:
    """The same as an error: 400, or a frame within a stream."""
    note = {"verdict": asdict(verdict), "action": "block", "stage": stage} | ({"error": problem} if problem else {})
    sentence = problem or f"the {stage} was blocked by the content policy" + (f" (clause {verdict.clause})" if verdict.clause else "")
    return HTTPProblem(400, sentence, "guardrails_violation", "content_blocked", said(verdict, "block"), note)


def said(verdict: Verdict, action: Action) -> dict[str, str]:
    """The headers that tell verdict and action apart."""
    headers = {"x-charter-verdict": "flagged" if verdict.flagged else "passed", "x-charter-action": action}
    return headers | ({"x-charter-clause": verdict.clause} if verdict.clause else {})
