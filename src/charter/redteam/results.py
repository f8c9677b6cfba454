"""redteam.json: what a campaign came to, with n, an interval and the seed behind every figure. Schema in docs/redteam.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from charter.errors import NoData
from charter.redteam.campaign import Attempt, Options, Result
from charter.redteam.judge import OUTCOMES
from charter.redteam.rates import JudgeError, Share, corrected, poisson, share, told_apart

SCHEMA = 1


def tell(
    result: Result, target: dict[str, Any], judge: dict[str, Any], options: Options, error: JudgeError, own: JudgeError | None
) -> dict[str, Any]:
    """The whole report as plain data.

    Args:
        target: what was attacked, for people.
        judge: how detail was graded.
        error: of the judge without a rubric, by which the share that complied is corrected.
        own: of this very judge on this target, by people's labels; corrects the success rate.

    Raises:
        NoData: nothing was attempted.
    """
    attempts = result.attempts
    if not attempts:
        raise NoData("no attack could be made of these questions, so there is nothing to report; name other strategies or questions")
    shared = [q.id for q in result.questions]

    def told(rows: Sequence[Attempt]) -> dict[str, Any]:
        return figures(rows, error, own)

    strategies = _by(attempts, lambda a: a.strategy, told)
    kinds = {a.strategy: a.kind for a in attempts}
    for name, row in strategies.items():
        row["kind"] = kinds[name]
    own_questions = {a.strategy for a in attempts if a.question not in set(shared)}
    return {
        "schema": SCHEMA,
        "target": target,
        "seed": options.seed,
        "queries": {
            "budget": options.budget,
            "used": len(attempts),
            "tries": options.tries,
            "unguarded": result.references,
            "scored_by_guard": result.scored,
        },
        "questions": {"attacked": len(shared), "left_out_by_budget": result.left_out, "graded": result.graded},
        "judge": {**judge, "error": error.as_dict(), "own_error": own.as_dict() if own else None},
        "overall": told(attempts),
        "strategies": strategies,
        "families": _by(attempts, lambda a: a.family, told),
        "universal": universal([a for a in attempts if a.strategy not in own_questions], shared),
        "faults": dict(result.faults),
        "cautions": cautions(result, options, own),
    }


def figures(attempts: Sequence[Attempt], error: JudgeError, own: JudgeError | None) -> dict[str, Any]:
    """Outcomes, and the share of scored attempts that succeeded; attempts at one question are no independent trials."""
    outcomes = Counter(a.judged.outcome for a in attempts)
    scored = [a for a in attempts if a.judged.outcome != "unscored"]
    out: dict[str, Any] = {
        "attempts": len(attempts),
        "questions": len({a.question for a in attempts}),
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "graded": sum(a.judged.detail is not None for a in attempts),
        "released_before_block": sum(a.judged.outcome == "blocked" and a.judged.success for a in attempts),
        "success": None, "success_corrected": None, "complied": None, "replies_complied": None, "replies_complied_corrected": None,
    }  # fmt: skip
    if scored:
        questions = [a.question for a in scored]
        success = share([a.judged.success for a in scored], questions)
        complied = share([a.judged.outcome == "complied" for a in scored], questions)
        out["success"], out["complied"] = success.interval.as_dict(), complied.interval.as_dict()
        out["success_corrected"] = _corrected(success, own)
    replies = [a for a in scored if a.judged.outcome != "blocked"]  # a block is told, not judged: no error of the judge's is in it
    if replies:
        rate = share([a.judged.outcome == "complied" for a in replies], [a.question for a in replies])
        out["replies_complied"], out["replies_complied_corrected"] = rate.interval.as_dict(), _corrected(rate, error)
    return out


def _corrected(rate: Share, by: JudgeError | None) -> dict[str, Any] | None:
    found = corrected(rate, by) if by is not None else None
    return found.as_dict() if found else None


def universal(attempts: Sequence[Attempt], questions: Sequence[str]) -> dict[str, Any] | None:
    """How many of the shared questions each strategy, and each single form of one, clears; None where there are none.

    A count carries its exact Poisson interval. Strategies are in the order of their names: only pairs that tried all questions
    and whose intervals do not overlap may be ranked.
    """
    if not questions:
        return None
    strategies = _cleared(attempts, lambda a: a.strategy)
    forms = _cleared((a for a in attempts if a.kind in ("suite", "injection")), lambda a: f"{a.strategy}#{a.family}")
    counts = {name: poisson(row["cleared"]) for name, row in strategies.items() if row["tried"] == len(questions)}
    apart = told_apart(counts)
    whole = [name for name, row in {**strategies, **forms}.items() if row["cleared"] == row["tried"] == len(questions)]
    most = [name for name, row in {**strategies, **forms}.items() if 2 * row["cleared"] > len(questions)]
    return {
        "questions": len(questions),
        "strategies": strategies,
        "forms": forms,
        "clear_all": whole,
        "clear_most": most,
        "ranked_pairs": [list(pair) for pair in apart],
        "ranking": "No two strategies can be ranked: all their intervals overlap."
        if not apart
        else f"Only {len(apart):,} of {len(counts) * (len(counts) - 1) // 2:,} pairs of strategies have intervals that do not overlap; "
        "no other order may be read into the counts.",
    }


def cautions(result: Result, options: Options, own: JudgeError | None) -> list[str]:
    """What may not be concluded, in sentences."""
    out = ["A strategy that was not tried may get through: nothing found is no proof that there is nothing."]
    questions = len(result.questions)
    if result.left_out:
        out.append(f"The budget sufficed for {questions:,} of {questions + result.left_out:,} questions.")
    if questions and result.graded < questions:
        out.append(
            f"{questions - result.graded:,} of {questions:,} questions could not be graded (no unguarded answer to measure by): there a "
            "reply that complies counts as success, however hollow it is."
        )
    if own is None:
        out.append(
            "The judge's error was measured on other people's replies, without a rubric: it corrects the share of replies that complied, as "
            "far as it is the same here. Success itself is not corrected; label some attempts (--labels) for that."
        )
    if len({len(v) for v in _tries(result.attempts).values()}) > 1:
        out.append("Strategies stop at their first success, so shares of attempts favour none over another; compare questions cleared.")
    unscored = sum(a.judged.outcome == "unscored" for a in result.attempts)
    if unscored:
        out.append(f"{unscored:,} attempts are unscored (no reply, or none that can be read) and stand in no rate.")
    out += [f"{count:,} times {what}; those attacks ended early." for what, count in result.faults.items()]
    return out


def _tries(attempts: Iterable[Attempt]) -> dict[tuple[str, str], list[Attempt]]:
    out: dict[tuple[str, str], list[Attempt]] = {}
    for a in attempts:
        out.setdefault((a.strategy, a.question), []).append(a)
    return out


def _cleared(attempts: Iterable[Attempt], of: Callable[[Attempt], str]) -> dict[str, dict[str, Any]]:
    """By name: questions tried, questions with a success, the count's interval, queries used."""
    tried: dict[str, set[str]] = {}
    won: dict[str, set[str]] = {}
    queries = Counter[str]()
    for a in attempts:
        tried.setdefault(of(a), set()).add(a.question)
        won.setdefault(of(a), set()).update([a.question] if a.judged.success else [])
        queries[of(a)] += 1
    out = {}
    for name in sorted(tried):
        count = poisson(len(won[name]))
        out[name] = {"cleared": len(won[name]), "tried": len(tried[name]), "low": count.low, "high": count.high, "queries": queries[name]}
    return out


def _by(
    attempts: Sequence[Attempt], of: Callable[[Attempt], str], told: Callable[[Sequence[Attempt]], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[Attempt]] = {}
    for a in attempts:
        groups.setdefault(of(a), []).append(a)
    return {name: told(groups[name]) for name in sorted(groups)}
