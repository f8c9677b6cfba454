"""Each token's score, for those who want to watch a guard at work: how many characters stand behind a token, never which."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from charter.guard.holdback import OpenGuard

Part = Literal["prompt", "reply"]
TokenScore = tuple[int, float]
"""Characters of the text behind a token (0 for a mark, or a token that holds part of a character), and its probability of harm."""


class Tokens:
    """Scores in the order of the text. Packed: 12 bytes a token, and copied at once with their session."""

    def __init__(self) -> None:
        self._chars, self._scores = array("I"), array("d")

    def add(self, chars: int, score: float) -> None:
        """The next token."""
        self._chars.append(chars)
        self._scores.append(score)

    def since(self, start: int) -> list[TokenScore]:
        """All from the token of this number on."""
        return list(zip(self._chars[start:], self._scores[start:], strict=True))


@runtime_checkable
class TellsTokens(Protocol):
    """A guard that tells its tokens' scores. The gateway does without where one can't."""

    @property
    def cutoffs(self) -> Mapping[Part, float]:
        """Probability from which each part is flagged: of a reply that several views judge, by the first of them, whose scores are told."""
        ...

    @property
    def titles(self) -> Mapping[str, str]:
        """Restricted clauses by id."""
        ...

    def token_scores(self, session: OpenGuard, part: Part, start: int) -> list[TokenScore]:
        """Of the conversation that a session was opened with (`prompt`) or of its reply, from a token on. Call it in a thread."""
        ...


def telling(guard: object) -> TellsTokens | None:
    """What tells a guard's tokens: itself, or the guard that it wraps and whose sessions it opens; None where neither can."""
    if isinstance(guard, TellsTokens):
        return guard
    inner = getattr(guard, "guard", None)
    return inner if isinstance(inner, TellsTokens) else None
