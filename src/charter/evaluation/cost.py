"""What a guarded token costs beside one of the upstream: c_1 + e_2 c_2 + ..., in FLOPs and in seconds.

c_k is what stage k spends on a token that it reads, e_k the share of tokens that it reads, counted on the harmless rows that were
evaluated, because traffic is mostly harmless. The screen adds hash look-ups and a sum of a few weights, which are no matrix products:
it counts in seconds only.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np

from charter.evaluation.run import Outcome, Results
from charter.guard.folder import Guard
from charter.records import Exchange
from charter.statistics import Interval, ratio

EMBEDDED_UPSTREAM = 212e6
"""FLOPs a token of SmolLM2-135M-Instruct: 2 for each of the 106 million weights of its 30 blocks."""
NAMES = ("probe", "value head")
TIMED_TOKENS = 512
"""Tokens at which stages are timed."""


def cost(guard: Guard, upstream_flops_per_token: float | None = None, results: Results | None = None) -> dict[str, Any]:
    """The `cost` part of evaluation.json.

    Args:
        upstream_flops_per_token: 2 for each active weight of the guarded model; the embedded model's where None.
        results: what was evaluated; where None, every stage is taken to read everything, and nothing is timed.
    """
    stages = guard.cascade.stages
    shares = _shares(results, len(stages)) if results else [Interval(1.0, 1.0, 1.0, 0)] * len(stages)
    rates = [1.0 if share.value is None else share.value for share in shares]
    screen, *seconds = _seconds(guard, _harmless(results)) if results else [None] * (1 + len(stages))
    spent = sum(rate * stage.flops_per_token for rate, stage in zip(rates, stages, strict=True))
    upstream = upstream_flops_per_token or EMBEDDED_UPSTREAM
    known = screen is not None
    return {
        "guard_flops_per_token": spent,
        "upstream_flops_per_token": upstream,
        "overhead": spent / upstream,
        "escalation_rate": rates[-1],
        "guard_seconds_per_token": (screen or 0.0) + sum(e * (s or 0.0) for e, s in zip(rates, seconds, strict=True)) if known else None,
        "stages": [
            {"name": name, "flops_per_token": stage.flops_per_token, "seconds_per_token": time, "read": share.as_dict()}
            for name, stage, time, share in zip(NAMES, stages, seconds, shares, strict=False)
        ],
    }


def _harmless(results: Results) -> list[tuple[Exchange, Outcome]]:
    """Harmless rows that were counted; all of them where none is harmless."""
    rows = [(item, outcome) for s in results.sets for item, outcome in zip(s.items, s.outcomes, strict=True) if outcome.length]
    harmless = [(item.exchange, outcome) for item, outcome in rows if not item.positive]
    return harmless or [(item.exchange, outcome) for item, outcome in rows]


def _shares(results: Results, stages: int) -> list[Interval]:
    """Share of tokens that each stage reads, with its interval over rows."""
    outcomes = [outcome for _, outcome in _harmless(results) if len(outcome.read) == stages]
    if not outcomes:
        return [Interval(1.0, 1.0, 1.0, 0)] * stages
    lengths = np.array([outcome.length for outcome in outcomes])
    return [ratio([outcome.read[n] for outcome in outcomes], lengths, results.seed) for n in range(stages)]


def _seconds(guard: Guard, rows: Sequence[tuple[Exchange, Outcome]]) -> list[float | None]:
    """Seconds a token of the screen and of each stage by itself, whole exchanges at a time; None where there is nothing to time."""
    cascade = guard.cascade
    exchanges: list[Exchange] = []
    tokens = 0
    for exchange, outcome in rows:
        if tokens < TIMED_TOKENS and outcome.length <= TIMED_TOKENS:
            exchanges.append(exchange)
            tokens += outcome.length
    if not tokens:
        return [None] * (1 + len(cascade.stages))
    turns = [[cascade.backbone.encoder.turn(turn) for turn in exchange.turns] for exchange in exchanges]
    ids = [[i for pieces in own for piece in pieces for i in piece.ids] for own in turns]
    begun = perf_counter()
    for own in turns:
        for pieces in own:
            cascade.screen.turn("prompt").feed([piece for piece in pieces if piece.text is not None])
    spent = [perf_counter() - begun]
    for stage in cascade.stages:
        stage.backbone.batch(ids[:1])  # the first forward is slower
        begun = perf_counter()
        for row in ids:
            stage.reader.turn("prompt").push(stage.backbone.batch([row])[0])
        spent.append(perf_counter() - begun)
    return [seconds / tokens for seconds in spent]
