"""One caught exchange, token by token: which words raised the score, where the guard stopped, what never left.

A token without text of its own (half a character, or the mark that ends a turn) is shown with the next one that has some.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.evaluation.run import Results, SetResult
from charter.guard.folder import Guard
from charter.records import Exchange, Verdict, View

HELD_OUT = ("heldout_reply", "heldout_prompt")
READABLE = 70
"""Tokens of a text that show the course of the score and still fit the page."""
END = "\u25a0"
"""Stands for the mark that ends a turn."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A run of tokens that is shown as one."""

    text: str
    probability: float
    crossing: bool
    withheld: bool
    """At or behind the crossing: a client never receives it."""

    @property
    def percent(self) -> int:
        return round(100 * self.probability)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The scored part of one exchange."""

    set_name: str
    clause: str | None
    """The clause it was written for, where that is known."""
    view: View
    before: tuple[tuple[str, str], ...]
    """Role and text of the turns that were read and not scored by this view."""
    cells: tuple[Cell, ...]
    threshold: float
    verdict: Verdict


def heat_map(guard: Guard, results: Results) -> HeatMap | None:
    """The heat map of one caught exchange: a held-out reply, else a held-out prompt, else a restricted prompt of any set.

    None where no such exchange was caught.
    """
    picked = pick(results)
    if picked is None:
        return None
    result, number = picked
    item, verdict = result.items[number], result.outcomes[number].verdict
    (scored,) = guard.cascade.batch([item.exchange], prompts=False)
    view = next((v for v, own in guard.judged(scored).verdicts.items() if own.flagged), next(iter(scored.judged)))
    policy = guard.policies[view]
    cells = merge(scored.judged_texts, policy.probability(scored.judged[view][:, 0]), policy.threshold)
    return HeatMap(result.name, item.clause, view, _before(item.exchange, view), cells, policy.threshold, verdict)


def pick(results: Results) -> tuple[SetResult, int] | None:
    """The caught item nearest to READABLE tokens: replies that turn come first, then any held-out reply, then prompts."""
    held_out = [s for name in HELD_OUT for s in results.sets if s.name == name]
    for s in [*held_out, *(s for s in results.sets if s.view == "prompt" and s not in held_out)]:
        caught = [n for n, (i, o) in enumerate(zip(s.items, s.outcomes, strict=True)) if i.positive and o.verdict.flagged]
        turning = [n for n in caught if s.items[n].family == "turning" and (s.outcomes[n].verdict.position or 0) > 5]
        if caught:
            return s, min(turning or caught, key=lambda n: (abs(s.outcomes[n].tokens - READABLE), n))
    return None


def merge(texts: tuple[str, ...], probabilities: NDArray[np.float64], threshold: float) -> tuple[Cell, ...]:
    """Tokens to cells; `texts` and `probabilities` have one entry a token."""
    cells: list[Cell] = []
    stopped = False
    waiting: list[float] = []
    for number, (text, p) in enumerate(zip(texts, probabilities, strict=True)):
        waiting.append(float(p))
        if not text and number < len(texts) - 1:
            continue
        highest, waiting = max(waiting), []
        crossing = not stopped and highest >= threshold
        stopped = stopped or crossing
        cells.append(Cell(text or END, highest, crossing, stopped))
    return tuple(cells)


def _before(exchange: Exchange, view: View) -> tuple[tuple[str, str], ...]:
    return tuple((t.role, t.content) for t in exchange.prompt) if view == "exchange" else ()
