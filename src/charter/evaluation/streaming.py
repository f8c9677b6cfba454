"""Replays restricted replies through an open guard in random chunks, and counts what leaves before its score or after its verdict.

The count is independent of the hold-back: what was released is compared with the segments that were complete at the time, and
with the tokens before the first crossing in a *batch* pass over the same reply.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from charter.evaluation.datasets import Set
from charter.guard.folder import Guard
from charter.models.scored import Scored
from charter.models.segments import cut
from charter.records import Exchange, Turn
from charter.statistics import absent, clopper_pearson

REPLAYS = 24
LONGEST_REPLY = 800
"""Characters of a reply that are replayed: streams are slow, and leaks show early."""
LONGEST_PROMPT = 2_000
TOKENS = 6_000
"""Of all replayed conversations together: a stream reads a token several times slower than a batch."""
TOLERANCE = 1e-3
"""Incremental and batched probabilities may differ by this much; a token this close to the threshold is not held to it."""
HELD_OUT = "heldout_reply"
NOTHING = "nothing"
"""Of a halted reply no character had been released."""

Grade = Callable[[str, str], str]
"""(last prompt, released text) to a word for what the text does."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """A reply that was halted."""

    prompt: str
    """The last turn before it."""
    released: str
    length: int
    """Characters of the whole reply as it was replayed."""


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
    truncated: list[Truncated] = field(default_factory=list)
    """What a client had received of each halted reply."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The conversations to replay, and what they were drawn from."""

    exchanges: tuple[Exchange, ...]
    tokens: int
    """Of all of them together, marks included."""
    eligible: int
    """Restricted replies whose conversation is at most LONGEST_PROMPT characters long."""
    passed_over: int
    """Restricted replies that are not eligible: their conversation is longer."""


def replayable(guard: Guard, sets: Sequence[Set], n: int, seed: int, tokens: int = TOKENS) -> Drawn:
    """Up to `n` restricted replies in an order drawn by the seed, until `tokens` are spent; at least one where one is eligible.

    From the held-out split where there is one, each cut to LONGEST_REPLY characters.
    """
    pool = [i.exchange for s in sets if s.name == HELD_OUT for i in s.items if i.positive]
    pool = pool or [i.exchange for s in sets if s.kind == "response" for i in s.items if i.positive]
    eligible = [e for e in pool if sum(len(t.content) for t in e.prompt) <= LONGEST_PROMPT]
    drawn: list[Exchange] = []
    spent = 0
    for exchange in random.Random(seed).sample(eligible, min(n, len(eligible))):
        short = replace(exchange, turns=(*exchange.prompt, Turn("assistant", (exchange.reply or "")[:LONGEST_REPLY])))
        length = guard.cascade.length(short)
        if drawn and spent + length > tokens:
            break
        drawn.append(short)
        spent += length
    return Drawn(tuple(drawn), spent, len(eligible), len(pool) - len(eligible))


def streaming(guard: Guard, drawn: Drawn, seed: int, grade: Grade | None = None) -> dict[str, Any]:
    """The `streaming` part of evaluation.json; nulls where there is no reply to replay.

    Args:
        seed: of the chunkings.
        grade: says in a word what a truncated reply still does for its prompt (`held`); nothing is graded where None.
    """
    total = Count()
    for number, scored in enumerate(guard.cascade.batch(drawn.exchanges, prompts=False)):
        _replay(guard, scored, random.Random(f"{seed}:{number}"), total)
    n = len(drawn.exchanges)
    return {
        "n": n,
        "tokens": drawn.tokens,
        "eligible": drawn.eligible,
        "passed_over": drawn.passed_over,
        "caps": {"replies": REPLAYS, "tokens": TOKENS, "reply_chars": LONGEST_REPLY, "prompt_chars": LONGEST_PROMPT},
        "halted": len(total.halts),
        "halt_rate": (clopper_pearson(len(total.halts), n) if n else absent(0)).as_dict(),
        "released_unscored_chars": total.unscored if n else None,
        "released_after_verdict_chars": total.after_verdict if n else None,
        "tokens_before_halt": _spread(total.halts),
        "released_chars": _spread([len(t.released) for t in total.truncated]),
        "released_share": _spread([len(t.released) / t.length for t in total.truncated]),
        "held": _held(total.truncated, grade),
        "per_token_ms": {"p50": _quantile(total.token_ms, 0.5), "p95": _quantile(total.token_ms, 0.95), "n": len(total.token_ms)},
    }


def _held(truncated: Sequence[Truncated], grade: Grade | None) -> dict[str, Any] | None:
    """Word of the grade to the share of halted replies, exact intervals; "nothing" where not a character was released."""
    if grade is None or not truncated:
        return None
    words = Counter(grade(t.prompt, t.released) if t.released.strip() else NOTHING for t in truncated)
    return {word: clopper_pearson(count, len(truncated)).as_dict() for word, count in sorted(words.items())}


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
        total.truncated.append(Truncated(scored.exchange.prompt[-1].content if scored.exchange.prompt else "", released, len(reply)))


def allowed(guard: Guard, scored: Scored) -> int:
    """Characters of the reply before the first token that clearly crosses the threshold in the batch pass; all if none does."""
    policies = guard.policies
    fires = [policies[view].fires(policies[view].probability(z) - TOLERANCE) for view, z in scored.judged.items()]
    crossing = np.flatnonzero(np.any(fires, axis=0))
    return sum(map(len, scored.reply_texts[: crossing[0] if len(crossing) else None]))


def after_verdict(released: str, reply: str, limit: int) -> int:
    """Characters beyond the allowed prefix; text that is not the reply's own counts as a whole."""
    return max(0, len(released) - limit) if reply.startswith(released) else len(released)


def _spread(values: Sequence[float]) -> dict[str, float | int | None]:
    return {"median": _quantile(values, 0.5), "p95": _quantile(values, 0.95), "n": len(values)}


def _quantile(values: Sequence[float], q: float) -> float | None:
    return float(np.quantile(values, q)) if values else None
