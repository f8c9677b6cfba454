"""The leak test: 60 words, the 31st forbidden. How many reach the client, how many after the verdict, and when the first one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from serving.client import Streamed, added_ms, body, stream
from serving.stub import FORBIDDEN

WORDS, BAD = 60, 31
MODEL = f"words={WORDS},bad={BAD},pause_ms=5"


@dataclass(frozen=True)
class Way:
    """One server in one setting."""

    name: str
    url: str
    fields: dict[str, Any]
    """What the request says besides."""


def leak(ways: Sequence[Way], direct: str, upstream: str, n: int) -> list[dict[str, Any]]:
    """A row for each way. The first words are timed in turn with those of the upstream asked directly."""
    return [_row(way, direct, upstream, n) for way in ways]


def _row(way: Way, direct: str, upstream: str, n: int) -> dict[str, Any]:
    seen, plain = list[Streamed](), list[Streamed]()
    before = _calls(upstream)
    for _ in range(n + 2):
        seen.append(asyncio.run(stream(way.url, body(MODEL, True, **way.fields))))
        plain.append(asyncio.run(stream(direct, body(MODEL, True))))
    calls = (_calls(upstream) - before) / (n + 2)
    seen, plain = seen[2:], plain[2:]  # the first ones warm up
    firsts = [s.first_s for s in seen if s.first_s is not None]
    row: dict[str, Any] = {
        "way": way.name, "n": n, "words_out": _span([len([w for w in s.words if w.startswith("word")]) for s in seen]),
        "words_after": _span([_after(s.words) for s in seen]), "forbidden_out": sum(FORBIDDEN in s.words for s in seen),
        "finish": sorted({s.finish or "broke off" for s in seen}), "guard_calls": calls,
        "first_ms": float(np.median(firsts)) * 1e3 if firsts else None,
    }  # fmt: skip
    if len(firsts) == n:
        row["added_ms"] = added_ms(firsts, [s.first_s for s in plain if s.first_s is not None])
    return row


def _after(words: Sequence[str]) -> int:
    """Words of the model's from the forbidden one on: a refusal's own words are none."""
    model = [w for w in words if w == FORBIDDEN or w.startswith("word")]
    return max(0, len(model) - (BAD - 1))


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"


def _calls(upstream: str) -> int:
    return int(httpx2.get(f"{upstream}/counts", trust_env=False).json()["guard_calls"])
