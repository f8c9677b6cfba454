"""One guarded conversation: the prompt judged when it opens, the reply released only as far as it is scored and passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from charter.guard.holdback import HoldBack
from charter.guard.policy import JointJudge
from charter.guard.tokens import Part, Tokens, TokenScore
from charter.models.calibrate import ViewPolicy
from charter.models.cascade import Session
from charter.models.scored import Score
from charter.models.upstream_probe import UpstreamSession
from charter.records import REPLY_VIEWS, Verdict, View


class GuardSession:
    """Implements `guard.holdback.OpenGuard` on a cascade's session."""

    def __init__(
        self, session: Session | UpstreamSession, policies: Mapping[View, ViewPolicy], clauses: Sequence[str], lookahead: int = 0
    ) -> None:
        self._prompt, self._opening = JointJudge({"prompt": policies["prompt"]}, clauses), Tokens()
        for score in session.opening:
            self._prompt.push(score.by)
            self._opening.add(len(score.text), self._prompt.last)
        judging = {view: policies[view] for view in REPLY_VIEWS if view in policies}
        self._reply = _ReplyChecker(session, JointJudge(judging, clauses))
        self._holdback = HoldBack(self._reply, lookahead)
        self._clauses = clauses

    @property
    def prompt_verdict(self) -> Verdict:
        return self._prompt.verdict

    @property
    def reply_verdict(self) -> Verdict:
        return self._reply.judge.verdict

    @property
    def clause_scores(self) -> dict[str, float]:
        """Highest calibrated probability of each restricted clause, prompt and reply together."""
        highest = [max(a, b) for a, b in zip(self._prompt.clause_scores, self._reply.judge.clause_scores, strict=True)]
        return dict(zip(self._clauses, map(float, highest), strict=True))

    def token_scores(self, part: Part, start: int) -> list[TokenScore]:
        """The tokens scored so far of the prompt or the reply, from a number on."""
        return (self._opening if part == "prompt" else self._reply.tokens).since(start)

    def push(self, text: str) -> str:
        """Take a piece of the reply; returns the text that may leave now."""
        return self._holdback.push(text)

    def flush(self) -> str:
        """The reply has ended; returns the rest that may leave."""
        return self._holdback.flush()


class _ReplyChecker:
    """Scores reply text and judges every token."""

    def __init__(self, session: Session | UpstreamSession, judge: JointJudge) -> None:
        self._session, self.judge, self.tokens = session, judge, Tokens()

    def push(self, text: str) -> Iterable[tuple[str, bool]]:
        return self._judged(self._session.push(text))

    def flush(self) -> Iterable[tuple[str, bool]]:
        return self._judged(self._session.flush())

    def _judged(self, scores: list[Score]) -> list[tuple[str, bool]]:
        judged = []
        for score in scores:
            judged.append((score.text, self.judge.push(score.by)))
            self.tokens.add(len(score.text), self.judge.last)
        return judged
