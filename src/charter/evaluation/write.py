"""evaluation.json: every figure of one run in one file, and the function that makes it from a guard and its data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from charter.evaluation import metrics
from charter.evaluation.cost import cost, seconds, stages
from charter.evaluation.datasets import Set
from charter.evaluation.paired import against
from charter.evaluation.run import Results, evaluate
from charter.evaluation.streaming import REPLAYS, Grade, replayable, streaming
from charter.evaluation.upstream import Upstream
from charter.guard.folder import Guard
from charter.records import write_text

SCHEMA = 1


def measure(
    guard: Guard,
    sets: Sequence[Set],
    out: Path,
    *,
    seed: int = 0,
    replays: int = REPLAYS,
    upstream: Upstream | None = None,
    versus: Guard | None = None,
    reader: Guard | None = None,
    command: str | None = None,
    grade: Grade | None = None,
    more: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Any], Results]:
    """Score, count, replay, price; write `out`/evaluation.json. A run that was killed goes on from `out`/scores.jsonl.

    Args:
        replays: restricted replies to stream; 0 for none.
        command: what the user typed, kept so that the run can be repeated.
        upstream: the model that the cost is held against; the embedded one where None.
        versus: another guard, which scores the same items; the two are compared.
        reader: the guard at another precision, which scores the sets in its place; streams and seconds are measured on the guard itself.
        more: further parts of evaluation.json.
        grade: says what a truncated reply still does; see `streaming`.
        progress: called with the number of items scored since the last call.

    Returns:
        What was written, and the verdicts behind it.

    Raises:
        NoData: no set has an item that can be scored.
    """
    results = evaluate(reader or guard, sets, seed, progress, out / "scores.jsonl")
    other = evaluate(versus, sets, seed, progress, out / "scores.jsonl") if versus else None
    timed = seconds(guard, results)
    evaluation = {
        **figures(guard, results),
        "streaming": {
            **streaming(guard, replayable(guard, sets, replays, seed), seed, grade),
            "seconds_per_token": seconds(guard, results),
        },
        "cost": cost(guard, upstream, results, timed),
        "stages": stages(guard, results),
        "point": guard.point,
        "precision": results.precision,
        "against": against(versus, results, other) if versus and other else None,
        "left_out": results.left_out,
        "windowed": results.windowed(guard.cascade.backbone.context),
        "command": command,
        **(more or {}),
    }
    write(out / "evaluation.json", evaluation)
    return evaluation, results


def figures(guard: Guard, results: Results) -> dict[str, Any]:
    """The parts of evaluation.json that follow from the verdicts alone."""
    record = guard.record
    return {
        "schema": SCHEMA,
        "guard": {"name": guard.name, "hash": guard.hash, "constitution": record.constitution, "budget": guard.budgets[0]},
        "seed": results.seed,
        "sets": {s.name: metrics.of_set(s, results.seed) for s in results.sets},
        "slices": metrics.slices(results),
        "families": metrics.families(results),
        "clauses": metrics.clauses(results),
        "languages": metrics.languages(results),
        "held_out": metrics.held_out(results),
    }


def write(path: Path, evaluation: dict[str, Any]) -> None:
    """Write the file to the side and rename it. A number that is not finite is a defect and raises ValueError."""
    write_text(path, json.dumps(evaluation, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
