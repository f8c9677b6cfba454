"""The worst misses and the worst false alarms: the items that a reader should look at before trusting any average."""

from __future__ import annotations

from dataclasses import dataclass

from charter.evaluation.run import Results

MOST = 8
"""Of each kind."""
LONGEST = 600
"""Characters that are shown of a text."""


@dataclass(frozen=True, slots=True)
class Case:
    """One item that the guard got wrong."""

    set_name: str
    id: str
    slice: str
    family: str | None
    clause: str | None
    """The clause it breaks, where that is known; the clause that the verdict names, on a false alarm."""
    score: float
    role: str
    text: str
    """The turn that was judged, cut."""
    cut: int
    """Characters that are not shown."""


def misses(results: Results, most: int = MOST) -> list[Case]:
    """Restricted items that passed, those with the lowest score first."""
    return _cases(results, True, most)


def false_alarms(results: Results, most: int = MOST) -> list[Case]:
    """Harmless items that were flagged, those with the highest score first."""
    return _cases(results, False, most)


def _cases(results: Results, positive: bool, most: int) -> list[Case]:
    found = []
    for s in results.sets:
        for item, outcome in zip(s.items, s.outcomes, strict=True):
            if item.positive == positive and outcome.verdict.flagged != positive:
                turn, v = item.exchange.turns[-1], outcome.verdict
                clause = item.clause if positive else v.clause
                found.append(
                    Case(
                        s.name, item.exchange.id, item.slice, item.family, clause, v.score, turn.role, turn.content[:LONGEST],
                        max(0, len(turn.content) - LONGEST),
                    )
                )  # fmt: skip
    found.sort(key=lambda case: (case.score if positive else -case.score, case.set_name, case.id))
    return found[:most]
