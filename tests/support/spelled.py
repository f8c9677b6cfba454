"""A guard whose scores stand in the text: the word `storm~73` has a probability of harm of 0.73, others one of a few per cent.

The scorer is a fake; sessions, judges and hold-back are the real ones.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from charter.guard.session import GuardSession
from charter.guard.tokens import Part, TokenScore
from charter.models.calibrate import ViewPolicy
from charter.models.scored import Score
from charter.models.segments import Segmenter, cut
from charter.records import Turn, View

PROMPT, REPLY = 0.8, 0.5


class Words:
    """A cascade's session: tokens are segments, and an empty mark ends each turn."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.opening = [_scored(text, "prompt") for turn in turns for text in [*cut(turn.content), ""]]
        self._segmenter = Segmenter()

    def push(self, text: str) -> list[Score]:
        return [_scored(s, "exchange") for s in self._segmenter.push(text)]

    def flush(self) -> list[Score]:
        return [_scored(s, "exchange") for s in [*self._segmenter.flush(), ""]]


class Spelled:
    """The guard."""

    name, hash, clauses = "spelled", "feedfacecafef00d", ("storms", "floods")
    titles = {"storms": "Bringing about storms", "floods": "Bringing about floods"}  # noqa: RUF012
    cutoffs: dict[Part, float] = {"prompt": PROMPT, "reply": REPLY}  # noqa: RUF012

    def __init__(self, lookahead: int = 0) -> None:
        self.lookahead = lookahead

    def open(self, turns: tuple[Turn, ...]) -> GuardSession:
        words: Any = Words(turns)
        policies = {"prompt": ViewPolicy(PROMPT, 1.0, 0.0), "exchange": ViewPolicy(REPLY, 1.0, 0.0)}
        return GuardSession(words, policies, self.clauses, self.lookahead)  # type: ignore[arg-type]

    def clause_scores(self, session: Any) -> dict[str, float]:
        return dict(session.clause_scores)

    def token_scores(self, session: Any, part: Part, start: int) -> list[TokenScore]:
        return list(session.token_scores(part, start))


def spelled(text: str) -> float:
    """The probability of a segment."""
    found = re.search(r"~(\d\d)", text)
    return int(found[1]) / 100 if found else 0.01 + zlib.crc32(text.encode()) % 5 / 100 if text else 0.01


def _scored(text: str, view: View) -> Score:
    p = spelled(text)
    z = float(np.log(p / (1 - p)))
    heads: Any = np.array([z, z if "flood" not in text else z - 2, z if "flood" in text else z - 2], np.float64)
    return Score(text, {view: heads})
