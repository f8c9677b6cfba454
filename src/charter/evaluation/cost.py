"""What a guarded token costs beside one of the upstream: c_1 + e_2 c_2 + ..., in FLOPs and in seconds.

c_k is what stage k spends on a token that it reads, e_k the share of tokens that it reads, counted on the harmless rows that were
evaluated, because traffic is mostly harmless. A row that ends in a reply is read for its verdict, which is the reply's; what a sentence
encoder reads of prompts is counted on the rows that end in one. The screen adds hash look-ups and a sum of a few weights, which are no matrix products:
it counts in seconds only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from charter.evaluation.run import Outcome, Results
from charter.evaluation.upstream import Upstream, upstream
from charter.guard.folder import Guard
from charter.models.encoder import Piece
from charter.models.whole import text_of
from charter.records import Exchange
from charter.statistics import Interval, ratio

TIMED_TOKENS = 512
"""Tokens at which stages are timed."""


def cost(
    guard: Guard, asked: Upstream | None = None, results: Results | None = None, timed: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The `cost` part of evaluation.json.

    Args:
        asked: the guarded model; the embedded one where None.
        results: what was evaluated; where None, every stage is taken to read everything.
        timed: what `seconds` found; no seconds are told where None.
    """
    rates = _rates(shares(guard, results))
    spent = sum(rate * flops for rate, flops in zip(rates, guard.cascade.readers.values(), strict=True))
    against = asked or upstream()
    own = timed["guard"] if timed else None
    theirs = 1 / against.tokens_per_second if against.tokens_per_second else None
    return {
        "guard_flops_per_token": spent,
        "upstream_flops_per_token": against.flops_per_token,
        "overhead": spent / against.flops_per_token,
        "escalation_rate": rates[len(guard.cascade.stages) - 1],
        "upstream": {"name": against.name, "parameters": against.parameters, "source": against.source},
        "seconds": {"guard": own, "upstream": theirs, "overhead": own / theirs if own and theirs else None},
    }


def stages(guard: Guard, results: Results | None = None) -> list[dict[str, Any]]:
    """The `stages` part: what each stage after the screen spends on a token that it reads, and the share of tokens that it reads."""
    found = zip(guard.cascade.readers.items(), shares(guard, results), strict=True)
    return [{"name": name, "flops_per_token": flops, "read": share.as_dict()} for (name, flops), share in found]


def shares(guard: Guard, results: Results | None) -> list[Interval]:
    """Share of tokens that each stage reads, with its interval over harmless rows (over all where none is harmless); 1 of n = 0 rows
    where nothing was counted. A sentence encoder's are its own tokens, beside all of the backbone's, on rows that end in a prompt."""
    number, stages = len(guard.cascade.readers), len(guard.cascade.stages)
    rows = [(exchange, outcome) for exchange, outcome in _counted(results) if len(outcome.read) == number]
    prompts = [(exchange, outcome) for exchange, outcome in rows if exchange.reply is None]
    seed = results.seed if results else 0
    return [_share([outcome for _, outcome in (rows if n < stages else prompts)], n, seed) for n in range(number)]


def _share(outcomes: Sequence[Outcome], stage: int, seed: int) -> Interval:
    if not outcomes:
        return Interval(1.0, 1.0, 1.0, 0)
    return ratio([outcome.read[stage] for outcome in outcomes], np.array([outcome.length for outcome in outcomes]), seed)


def seconds(guard: Guard, results: Results) -> dict[str, float] | None:
    """Seconds a token: of the screen and of each stage on what it reads, whole exchanges at a time, and of the guard, c_1 + e_2 c_2 + ...;
    None where there is nothing short enough to time."""
    cascade = guard.cascade
    turns = [[cascade.backbone.encoder.turn(turn) for turn in exchange.turns] for exchange in _timed(results)]
    if not turns:
        return None
    rows = [[i for pieces in own for piece in pieces for i in piece.ids] for own in turns]
    tokens = sum(map(len, rows))
    found = {"screen": _screen_seconds(guard, [pieces for own in turns for pieces in own]) / tokens}
    for name, stage in zip(cascade.readers, cascade.stages, strict=False):
        stage.backbone.batch(rows[:1])  # the first forward is slower
        begun = perf_counter()
        for row in rows:
            stage.reader.turn("prompt").push(stage.backbone.batch([row])[0])
        found[name] = (perf_counter() - begun) / tokens
    if cascade.whole:
        begun = perf_counter()
        read = sum(
            int(sizes.sum()) for _, _, sizes in (cascade.whole.encoder.vectors([text_of(pieces)]) for own in turns for pieces in own)
        )
        found["sentence encoder"] = (perf_counter() - begun) / read
    rates = _rates(shares(guard, results))
    return {**found, "guard": found["screen"] + sum(rate * found[name] for rate, name in zip(rates, cascade.readers, strict=True))}


def _screen_seconds(guard: Guard, turns: Sequence[Sequence[Piece]]) -> float:
    begun = perf_counter()
    for pieces in turns:
        guard.cascade.screen.turn("prompt").feed([piece for piece in pieces if piece.text is not None])
    return perf_counter() - begun


def _rates(found: Sequence[Interval]) -> list[float]:
    return [1.0 if share.value is None else share.value for share in found]


def _counted(results: Results | None) -> list[tuple[Exchange, Outcome]]:
    """Harmless rows whose tokens were counted; all of them where none is harmless."""
    sets = results.sets if results else ()
    rows = [(item, outcome) for s in sets for item, outcome in zip(s.items, s.outcomes, strict=True) if outcome.length]
    harmless = [(item.exchange, outcome) for item, outcome in rows if not item.positive]
    return harmless or [(item.exchange, outcome) for item, outcome in rows]


def _timed(results: Results) -> Iterator[Exchange]:
    tokens = 0
    for exchange, outcome in _counted(results):
        if tokens < TIMED_TOKENS and outcome.length <= TIMED_TOKENS:
            tokens += outcome.length
            yield exchange
