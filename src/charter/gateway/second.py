"""A second guard that judges the same traffic and never acts: `charter serve GUARD --shadow-guard GUARD2`.

It reads what the first one found, after it was found, in a thread of its own: prompts, and replies as far as they came (of several texts in
one reply, the lines together). So nothing it does, and no failure of its, can reach a client. Where it falls behind, findings are
dropped and counted. Its verdicts stand in the audit log beside the first guard's, with the same request, stage and choice.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from queue import Full, Queue
from threading import Thread
from time import perf_counter
from typing import Any
from uuid import uuid4

from charter.gateway.audit.finding import SECOND, Finding, now
from charter.guard.holdback import GuardLike, OpenGuard
from charter.records import Turn, Verdict

MOST_WAITING = 1_000
"""Findings that wait for the second guard."""
MOST_KEPT = 64
"""Conversations whose prompt it has judged and whose reply may still come."""
log = logging.getLogger("charter.gateway")


@dataclass
class Agreement:
    """How often both guards flag, by stage."""

    both: int = 0
    neither: int = 0
    first_alone: int = 0
    second_alone: int = 0

    def count(self, first: bool, second: bool) -> None:
        """One more verdict of each."""
        name = ("both" if second else "first_alone") if first else ("second_alone" if second else "neither")
        setattr(self, name, getattr(self, name) + 1)


@dataclass
class Comparison:
    """Totals since the gateway started."""

    prompt: Agreement = field(default_factory=Agreement)
    reply: Agreement = field(default_factory=Agreement)
    failed: int = 0
    """Findings that the second guard could not judge."""
    dropped: int = 0
    """Findings that it was too busy for."""


class Second:
    """The second guard, its thread, and what came of it."""

    def __init__(self, guard: GuardLike, log_content: bool = False, found: Callable[[Finding], None] | None = None) -> None:
        """`found` hears of each of its verdicts, in its thread."""
        self.guard, self.counts = guard, Comparison()
        self._log_content, self._found = log_content, found
        self._waiting: Queue[tuple[Finding, tuple[Turn, ...]] | None] = Queue(MOST_WAITING)
        self._kept: OrderedDict[tuple[Turn, ...], OpenGuard] = OrderedDict()
        Thread(target=self._work, name="charter-second", daemon=True).start()

    def told(self) -> dict[str, Any]:
        """For /healthz."""
        return {"name": self.guard.name, "hash": self.guard.hash, **asdict(self.counts)}

    def compare(self, finding: Finding, turns: Sequence[Turn]) -> None:
        """Judge what the first guard has judged, some time. Never waits, never raises."""
        if finding.error is not None:
            return
        try:
            self._waiting.put_nowait((finding, tuple(turns)))
        except Full:
            self.counts.dropped += 1

    def close(self) -> None:
        """Judge no more; what waits is dropped."""
        while not self._waiting.empty():
            self._waiting.get()
        self._waiting.put(None)

    def _work(self) -> None:
        while (asked := self._waiting.get()) is not None:
            finding, turns = asked
            start = perf_counter()
            try:
                verdict = self._judge(finding, turns)
            except Exception as error:
                self.counts.failed += 1
                log.warning("the second guard failed (%s)", type(error).__name__)
                log.debug("the fault", exc_info=error)
                continue
            (self.counts.prompt if finding.stage == "prompt" else self.counts.reply).count(finding.flagged, verdict.flagged)
            if self._found is not None:
                self._found(self._row(finding, turns, verdict, perf_counter() - start))

    def _judge(self, finding: Finding, turns: tuple[Turn, ...]) -> Verdict:
        if finding.stage == "prompt":
            session = self.guard.open(turns)
            self._kept[turns] = session
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return session.prompt_verdict
        asked = turns[:-1]
        session = self._kept.pop(asked) if asked in self._kept else self.guard.open(asked)
        session.push(turns[-1].content.encode("utf-8", "replace").decode())
        session.flush()
        return session.reply_verdict

    def _row(self, finding: Finding, turns: tuple[Turn, ...], verdict: Verdict, seconds: float) -> Finding:
        content = json.dumps([asdict(turn) for turn in turns]) if self._log_content else None
        return replace(
            finding, id=uuid4().hex, time=now(), guard=self.guard.name, guard_hash=self.guard.hash, mode=SECOND, flagged=verdict.flagged,
            score=verdict.score, clause=verdict.clause, position=verdict.position, action="allow", latency_ms=round(seconds * 1e3, 3), content=content,
        )  # fmt: skip
