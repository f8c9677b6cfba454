"""Scores to verdicts, verdicts to actions: the two are kept apart, so that a shadow run records what it would have done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charter.models.calibrate import ViewPolicy
from charter.records import Verdict, View

Mode = Literal["enforce", "shadow"]
Action = Literal["allow", "block"]


class Judge:
    """The verdict on one text, as a running maximum: what was flagged stays flagged, because a stop can't be taken back."""

    def __init__(self, policy: ViewPolicy, clauses: Sequence[str]) -> None:
        self._policy, self._clauses = policy, clauses
        self._seen = 0
        self._score = 0.0
        self.last = 0.0
        """Overall probability of the last token by itself."""
        self._clause: str | None = None
        self._position: int | None = None
        self.clause_scores = np.zeros(len(clauses))
        """Highest calibrated probability of each clause so far."""

    def push(self, z: NDArray[np.float32]) -> bool:
        """Take the logits [heads] of the next token; returns whether the text may still pass."""
        p = self._policy.probability(z)
        self.last = float(p[0])
        self._score = max(self._score, self.last)
        self.clause_scores = np.maximum(self.clause_scores, p[1:])
        if self._position is None and self._policy.fires(p):
            self._position = self._seen
            self._clause = self._clauses[self._best(p, z)] if self._clauses else None
        self._seen += 1
        return self._position is None

    def _best(self, p: NDArray[np.float64], z: NDArray[np.float32]) -> int:
        """The clause that fits best; where the overall score passes, the best of those that flag by their own threshold."""
        if p[0] < self._policy.threshold:
            return int(np.argmax(np.where(p[1:] < np.array(self._policy.clause_thresholds), -np.inf, z[1:])))
        return int(np.argmax(z[1:]))

    @property
    def verdict(self) -> Verdict:
        return Verdict(self._position is not None, self._score, self._clause, self._position)


class JointJudge:
    """The verdict of one or more views on one text: it is flagged from the first token that any of them flags."""

    def __init__(self, policies: Mapping[View, ViewPolicy], clauses: Sequence[str]) -> None:
        self._judges = {view: Judge(policy, clauses) for view, policy in policies.items()}

    def push(self, by: Mapping[View, NDArray[np.float32]]) -> bool:
        """Take the logits [heads] of the next token by each view; returns whether the text may still pass."""
        passes = [judge.push(by[view]) for view, judge in self._judges.items()]  # each sees every token
        return all(passes)

    @property
    def last(self) -> float:
        """Overall probability of the last token by the first view."""
        return next(iter(self._judges.values())).last

    @property
    def clause_scores(self) -> NDArray[np.float64]:
        """Highest calibrated probability of each clause so far, by any view."""
        highest: NDArray[np.float64] = np.max([judge.clause_scores for judge in self._judges.values()], axis=0)
        return highest

    @property
    def verdicts(self) -> dict[View, Verdict]:
        """By view."""
        return {view: judge.verdict for view, judge in self._judges.items()}

    @property
    def verdict(self) -> Verdict:
        """Of all together: the highest score, and clause and position by the view that flagged first."""
        found = list(self.verdicts.values())
        flagged = [verdict for verdict in found if verdict.position is not None]
        first = min(flagged, key=lambda verdict: verdict.position or 0) if flagged else found[0]
        return Verdict(bool(flagged), max(verdict.score for verdict in found), first.clause, first.position)


def decide(verdict: Verdict, mode: Mode) -> Action:
    """What is done about a verdict: nothing is blocked in shadow mode."""
    return "block" if verdict.flagged and mode == "enforce" else "allow"
