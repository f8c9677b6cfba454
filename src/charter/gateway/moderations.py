"""POST /v1/moderations: each input is judged as a prompt of one turn; the categories are the constitution's restricted clauses."""

from __future__ import annotations

import uuid
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charter.gateway.body import read_object
from charter.gateway.errors import bad_request, scoring_problem
from charter.gateway.scorer import UNSCORED, Scorer, ScoringFailed
from charter.gateway.trail import Trail
from charter.guard.holdback import GuardLike
from charter.records import Turn, Verdict

MOST_INPUTS = 256
"""Inputs of one request; each takes a pass of its own."""


async def moderate(request: Request) -> Response:
    """The surface itself. An input that can't be scored is an error whatever on_error says: nobody may take it for harmless."""
    scorer: Scorer = request.app.state.scorer
    scorer.counters.requests += 1
    body = await read_object(request, scorer.settings)
    results = []
    for text in _inputs(body.get("input")):
        turns, start = (Turn("user", text),), perf_counter()
        trail = Trail(scorer.observer, turns, scorer.guard)
        try:
            result, verdict = await scorer.call(_judge, scorer.guard, turns)
            trail.prompt(verdict, "report", perf_counter() - start)
            results.append(result)
        except ScoringFailed as error:
            trail.prompt(UNSCORED, "report", perf_counter() - start, str(error))
            raise (bad_request(str(error), "not_scored") if error.clients_to_mend else scoring_problem(str(error))) from error
    return JSONResponse({"id": f"modr-{uuid.uuid4().hex}", "model": scorer.guard.name, "results": results})


def _judge(guard: GuardLike, turns: tuple[Turn, ...]) -> tuple[dict[str, Any], Verdict]:
    """One result with its verdict, in a worker thread."""
    session = guard.open(turns)
    scores, verdict = guard.clause_scores(session), session.prompt_verdict
    result = {
        "flagged": verdict.flagged,
        "categories": {clause: verdict.flagged and clause == verdict.clause for clause in guard.clauses},
        "category_scores": {clause: scores[clause] for clause in guard.clauses},
        "category_applied_input_types": {clause: ["text"] for clause in guard.clauses},
    }
    return result, verdict


def _inputs(value: object) -> list[str]:
    """The texts of `input`: a string, a list of strings, or the text parts of one input."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and 1 <= len(value) <= MOST_INPUTS:
        strings = [item for item in value if isinstance(item, str)]
        parts = [i["text"] for i in value if isinstance(i, dict) and i.get("type") == "text" and isinstance(i.get("text"), str)]
        if len(strings) == len(value):
            return strings
        if len(parts) == len(value):
            return ["\n".join(parts)]
    raise bad_request(f"`input` must be a string, or a list of 1 to {MOST_INPUTS} strings or text parts")
