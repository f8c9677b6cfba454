"""Replays restricted replies through an open guard in random chunks, and counts what leaves before its score or after its verdict.

The count is independent of the hold-back: what was released is compared with the segments that were complete at the time, and
with the tokens before the first crossing in a *batch* pass over the same reply.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from charter.evaluation.datasets import Set
from charter.guard.folder import Guard
from charter.models.cascade import Scored
from charter.models.segments import cut
from charter.records import Exchange, Turn

REPLAYS = 24
LONGEST_REPLY = 1_200
"""Characters of a reply that are replayed: streams are slow, and leaks show early."""
LONGEST_PROMPT = 8_000
TOLERANCE = 1e-3
"""Incremental and batched probabilities may differ by this much; a token this close to the threshold is not held to it."""
HELD_OUT = "heldout_reply"


@dataclass(slots=True)
class Count:
    """What one replay, or all of them, showed."""

    unscored: int = 0
    """Characters released before their segment was complete."""
    after_verdict: int = 0
    """Characters released at or behind the first token that crosses the threshold."""
    halts: list[int] = field(default_factory=list)
    """Tokens of each halted reply before the one that crossed."""
    token_ms: list[float] = field(default_factory=list)
    """Time of each push that scored something, divided by the tokens it scored."""


def replayable(sets: Sequence[Set], n: int, seed: int) -> list[Exchange]:
    """Up to `n` restricted replies, from the held-out split where there is one, cut to LONGEST_REPLY characters."""
    pool = [i.exchange for s in sets if s.name == HELD_OUT for i in s.items if i.positive]
    pool = pool or [i.exchange for s in sets if s.kind == "response" for i in s.items if i.positive]
    pool = [e for e in pool if sum(len(t.content) for t in e.prompt) <= LONGEST_PROMPT]
    drawn = random.Random(seed).sample(pool, min(n, len(pool)))
    return [replace(e, turns=(*e.prompt, Turn("assistant", (e.reply or "")[:LONGEST_REPLY]))) for e in drawn]


def streaming(guard: Guard, exchanges: Sequence[Exchange], seed: int) -> dict[str, Any]:
    """The `streaming` part of evaluation.json; nulls where there is no reply to replay.

    Args:
        exchanges: conversations that end in a reply.
        seed: of the chunkings.
    """
    total = Count()
    for number, scored in enumerate(guard.cascade.batch(exchanges)):
        _replay(guard, scored, random.Random(f"{seed}:{number}"), total)
    none = not exchanges
    return {
        "n": len(exchanges),
        "halted": len(total.halts),
        "released_unscored_chars": None if none else total.unscored,
        "released_after_verdict_chars": None if none else total.after_verdict,
        "tokens_before_halt": {"median": _quantile(total.halts, 0.5), "p95": _quantile(total.halts, 0.95), "n": len(total.halts)},
        "per_token_ms": {"p50": _quantile(total.token_ms, 0.5), "p95": _quantile(total.token_ms, 0.95), "n": len(total.token_ms)},
    }


def chunks(text: str, rng: random.Random) -> Iterator[str]:
    """A text in random pieces: single characters, words, sentences; now and then an empty one."""
    at = 0
    while at < len(text):
        size = rng.choice((0, 1, 2, 5, 12, 40, 200))
        yield text[at : at + size]
        at += size


def _replay(guard: Guard, scored: Scored, rng: random.Random, total: Count) -> None:
    reply = scored.exchange.reply or ""
    session = guard.open(scored.exchange.prompt)
    encoder = guard.cascade.backbone.encoder
    received = released = ""
    complete = 0
    for chunk in [*chunks(reply, rng), None]:
        running = not session.reply_verdict.flagged
        start = perf_counter()
        out = session.flush() if chunk is None else session.push(chunk)
        elapsed = perf_counter() - start
        received, released = received + (chunk or ""), released + out
        segments = cut(received) if chunk is None else cut(received)[:-1]
        total.unscored += min(len(out), max(0, len(released) - sum(map(len, segments))))
        tokens = sum(len(encoder.segment(s)) for s in segments[complete:]) + (chunk is None)
        complete = len(segments)
        if tokens and running:
            total.token_ms.append(1e3 * elapsed / tokens)
    total.after_verdict += after_verdict(released, reply, allowed(guard, scored))
    if session.reply_verdict.position is not None:
        total.halts.append(session.reply_verdict.position)


def allowed(guard: Guard, scored: Scored) -> int:
    """Characters of the reply before the first token that clearly crosses the threshold in the batch pass; all if none does."""
    policies = guard.policies
    fires = [policies[view].fires(policies[view].probability(z) - TOLERANCE) for view, z in scored.judged.items()]
    crossing = np.flatnonzero(np.any(fires, axis=0))
    return sum(map(len, scored.reply_texts[: crossing[0] if len(crossing) else None]))


def after_verdict(released: str, reply: str, limit: int) -> int:
    """Characters beyond the allowed prefix; text that is not the reply's own counts as a whole."""
    return max(0, len(released) - limit) if reply.startswith(released) else len(released)


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if values else None
