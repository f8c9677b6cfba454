"""What a guard is to those that hold it, when something stands around it: its name, hash and clauses, and its verdict on a session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a gateway before another process's scorer loads no model
    from charter.guard.folder import Guard
    from charter.guard.holdback import OpenGuard


@dataclass(frozen=True)
class Face:
    """The part of `guard.holdback.GuardLike` that is the guard's own; `open` is left to those that stand around it."""

    guard: Guard

    @property
    def name(self) -> str:
        return self.guard.name

    @property
    def hash(self) -> str:
        return self.guard.hash

    @property
    def clauses(self) -> tuple[str, ...]:
        return self.guard.clauses

    def clause_scores(self, session: OpenGuard) -> dict[str, float]:
        """Highest calibrated probability of each restricted clause over all that the session has seen."""
        return self.guard.clause_scores(session)
