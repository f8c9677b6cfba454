"""A campaign from the command line's wishes to its files: attempts.jsonl, redteam.json, redteam.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charter.errors import TeacherError, UpstreamError
from charter.guard.holdback import GuardLike
from charter.llm.pool import Budget, Progress, quiet
from charter.records import write_text
from charter.redteam import agreement
from charter.redteam.campaign import Options, Result, run
from charter.redteam.judge import ENOUGH
from charter.redteam.log import Log
from charter.redteam.markdown import markdown
from charter.redteam.opening import Model, opened
from charter.redteam.questions import Question
from charter.redteam.results import tell
from charter.redteam.rubric import Grader, ModelGrader, OverlapGrader
from charter.redteam.strategies import Named
from charter.refusals.classify import load

JSON, MARKDOWN = "redteam.json", "redteam.md"


@dataclass(frozen=True, slots=True)
class Wishes:
    """Who attacks what, and who judges."""

    upstream: Model
    unguarded: Model | None = None
    attacker: Model | None = None
    judge: Model | None = None
    labels: Path | None = None
    """People's judgements of attempts of an earlier run into the same folder."""
    budget: Budget = field(default_factory=Budget)
    """Of the models that attack and judge."""


async def redteam(
    guard: GuardLike | None, wishes: Wishes, questions: Sequence[Question], strategies: Sequence[Named], out: Path, options: Options,
    progress: Progress = quiet,
) -> dict[str, Any]:  # fmt: skip
    """Attack, judge, write the files; returns what redteam.json holds.

    Raises:
        UpstreamError: the target can't be reached; what was answered is kept in `out`.
        DataError: `out` holds another run, or a wish can't be met.
    """
    settings = _settings(guard, wishes, options)
    async with opened(guard, wishes.upstream, wishes.unguarded, wishes.attacker, wishes.judge, out, wishes.budget) as at:
        grader: Grader = ModelGrader(at.judge, seed=options.seed) if at.judge is not None else OverlapGrader()
        log = Log(out, settings)
        result: Result | None = None
        try:
            result = await run(
                questions, strategies, at.target, load(), log, options,
                unguarded=at.unguarded, grader=grader, score=at.score, attacker=at.attacker, progress=progress,
            )  # fmt: skip
        except TeacherError as error:
            raise UpstreamError(f"{error}; what was answered is kept: run the same command again") from error
        finally:
            log.close([a.row() for a in result.attempts] if result is not None else None)
    own = agreement.labelled(wishes.labels, result.attempts) if wishes.labels is not None else None
    judge = {"grader": grader.kind if at.unguarded is not None else "none (no unguarded target)", "enough": ENOUGH}
    told = tell(result, _target(guard, wishes), judge, options, agreement.shipped(), own)
    write_text(out / MARKDOWN, markdown(told))
    write_text(out / JSON, json.dumps(told, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return told


def _settings(guard: GuardLike | None, wishes: Wishes, options: Options) -> dict[str, Any]:
    """What logged answers depend on besides the turns."""
    free = wishes.unguarded
    return {
        "guard": guard.hash if guard is not None else None,
        "upstream": wishes.upstream.url,
        "model": wishes.upstream.named("upstream"),
        "unguarded": [free.url, free.named("unguarded")] if free is not None else None,
        "seed": options.seed,
        "longest reply": options.max_tokens,
    }


def _target(guard: GuardLike | None, wishes: Wishes) -> dict[str, Any]:
    model = wishes.upstream.named("upstream")
    name = f"{model} behind the guard {guard.name}" if guard is not None else model
    known = {"name": guard.name, "hash": guard.hash} if guard is not None else None
    return {"name": name, "guard": known, "upstream": wishes.upstream.url, "model": model}
