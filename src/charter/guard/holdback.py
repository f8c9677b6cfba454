"""Release text only after all its tokens are scored and pass. Holds at most the open segment, so the delay is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from charter.records import Turn, Verdict


class Checker(Protocol):
    """What the hold-back needs of a guarded conversation: every token judged in order, the verdict so far."""

    def push(self, text: str) -> Iterable[tuple[str, bool]]:
        """Take text; gives (token text, passes) for each token that is now final."""
        ...

    def flush(self) -> Iterable[tuple[str, bool]]:
        """The text has ended; gives the rest."""
        ...


class OpenGuard(Protocol):
    """A conversation under guard, as the gateway sees it (`guard.session.GuardSession`, or a fake in tests)."""

    @property
    def prompt_verdict(self) -> Verdict:
        """On the turns the session was opened with. Where it is flagged, the upstream is not called."""
        ...

    @property
    def reply_verdict(self) -> Verdict:
        """On the reply so far."""
        ...

    def push(self, text: str) -> str:
        """Take a piece of the reply; returns the text that may leave now, "" for ever after a flag."""
        ...

    def flush(self) -> str:
        """The reply has ended; returns the rest that may leave."""
        ...


class GuardLike(Protocol):
    """What the gateway needs of a guard."""

    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str: ...

    @property
    def clauses(self) -> tuple[str, ...]:
        """Ids of the restricted clauses."""
        ...

    def open(self, turns: tuple[Turn, ...]) -> OpenGuard:
        """Judge the conversation so far and get ready for its reply. May take long and runs torch: call it in a thread.

        Raises:
            BackboneError: the conversation is longer than the context; nothing is cut silently.
        """
        ...

    def clause_scores(self, session: OpenGuard) -> dict[str, float]:
        """Highest calibrated probability of each restricted clause over all that the session has seen."""
        ...


@dataclass
class HoldBack:
    """Lets text through token by token, and closes for good at the first token that does not pass."""

    checker: Checker
    lookahead: int = 0
    """Tokens that must be scored after one, and pass, before it leaves; the last ones leave when the text ends."""
    closed: bool = False
    released: int = 0
    """Characters let out, all of them scored."""
    withheld: list[str] = field(default_factory=list)
    """Token texts that were scored and did not leave: those still waiting, the flagged one and those after it in the same step."""
    waiting: list[str] = field(default_factory=list)
    """Token texts that passed and wait for those after them."""

    def push(self, text: str) -> str:
        """Take a piece; returns what may leave."""
        return "" if self.closed else self._release(self.checker.push(text), self.lookahead)

    def flush(self) -> str:
        """The text has ended; returns the rest that may leave."""
        return "" if self.closed else self._release(self.checker.flush(), 0)

    def _release(self, judged: Iterable[tuple[str, bool]], lookahead: int) -> str:
        leaving: list[str] = []
        for text, passes in judged:
            if passes and not self.closed:
                self.waiting.append(text)
                leaving += self._overdue(self.lookahead)
            else:
                self.closed = True
                self.withheld += [*self.waiting, text]
                self.waiting.clear()
        leaving += self._overdue(lookahead)
        out = "".join(leaving)
        self.released += len(out)
        return out

    def _overdue(self, lookahead: int) -> list[str]:
        """Those that no longer wait, taken out."""
        n = max(0, len(self.waiting) - lookahead)
        out, self.waiting = self.waiting[:n], self.waiting[n:]
        return out
