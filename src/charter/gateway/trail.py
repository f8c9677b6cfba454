"""From a conversation under guard to its findings: one for the prompt, one for each choice of the reply, each found once.

A flagged reply is found at once; one that passes is found when its request ends, which the middleware of `observed` says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Protocol
from uuid import uuid4

from charter.gateway.audit.finding import Finding, Stage, now
from charter.gateway.observer import Observer
from charter.guard.holdback import GuardLike
from charter.guard.policy import decide
from charter.records import Turn, Verdict

UNNAMED = "-"
CLIENT = "charter.client"
"""Where the scope of a request keeps the name of its key."""
REQUEST, PASSED_ON = "charter.request", "charter.passed-on"
"""And the id that another worker gave the request, and whether another one answered it (`peers`)."""


class Followed(Protocol):
    """What is read of a channel."""

    verdict: Verdict
    unscored: bool
    problem: str | None
    seconds: float

    @property
    def text(self) -> str: ...

    @property
    def held(self) -> str: ...


@dataclass(eq=False)
class Asked:
    """The request that is being answered."""

    surface: str
    id: str = field(default_factory=lambda: uuid4().hex)
    start: float = field(default_factory=perf_counter)
    findings: list[Finding] = field(default_factory=list)
    trails: list[Trail] = field(default_factory=list)
    streams: bool = False
    scope: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str | None:
        """Name of the key that asked, known once the request was let in."""
        return self.scope.get(CLIENT)

    @property
    def held_chars(self) -> int:
        """What came from the upstream and waits for its score."""
        return sum(len(channel.held) for trail in self.trails for channel in trail.channels)


ASKED: ContextVar[Asked | None] = ContextVar("asked", default=None)
"""Set by the middleware; a stream's task inherits it."""


class Trail:
    """The findings of one conversation."""

    def __init__(self, observer: Observer, turns: Sequence[Turn], guard: GuardLike) -> None:
        self._observer, self._turns, self._guard, self._asked = observer, turns, guard, ASKED.get()
        self._followed: dict[int, list[Followed]] = {}
        self._found: dict[int, bool] = {}
        """Choice to whether it was found as flagged."""
        if (asked := ASKED.get()) is not None:
            asked.trails.append(self)

    @property
    def channels(self) -> Iterable[Followed]:
        return [channel for channels in self._followed.values() for channel in channels]

    def follow(self, choice: int, channel: Followed) -> None:
        """A text of a choice of the reply, from now on."""
        self._followed.setdefault(choice, []).append(channel)

    def prompt(self, verdict: Verdict, action: str, seconds: float, problem: str | None = None) -> None:
        """The prompt was judged, or could not be. Action: allow, block, or report where the caller decides."""
        self._add("prompt", 0, verdict, action, problem, seconds, self._turns)

    def update(self, ended: bool = False) -> None:
        """Find the choices that are flagged by now; at the end, all. May be called any number of times: a reply that is fed over
        several requests may pass in one and be flagged in a later one."""
        for choice, channels in self._followed.items():
            flagged = any(channel.verdict.flagged for channel in channels)
            if (flagged and not self._found.get(choice)) or (ended and choice not in self._found):
                self._found[choice] = flagged
                self._reply(choice, channels)

    def abandon(self) -> None:
        """Nobody goes on with it: what its replies came to is found now, under the request that began it."""
        token = ASKED.set(self._asked)
        try:
            self.update(ended=True)
        finally:
            ASKED.reset(token)

    def _reply(self, choice: int, channels: Sequence[Followed]) -> None:
        """The worst of a choice's channels: a flag, then a failure, then the highest score."""
        mode = self._observer.settings.mode
        worst = max(channels, key=lambda c: (c.verdict.flagged, c.problem is not None, c.verdict.score))
        problem = None if worst.verdict.flagged else worst.problem or ("the prompt was not scored" if worst.unscored else None)
        closed = worst.problem is not None and not worst.unscored
        action = "block" if problem and closed else decide(worst.verdict, mode)
        text = "\n".join(channel.text for channel in channels if channel.text)
        turns = [*self._turns, Turn("assistant", text)]
        self._add("reply", choice, worst.verdict, action, problem, sum(channel.seconds for channel in channels), turns)

    def _add(
        self, stage: Stage, choice: int, verdict: Verdict, action: str, problem: str | None, seconds: float, turns: Sequence[Turn]
    ) -> None:
        guard, settings, asked = self._guard, self._observer.settings, ASKED.get()
        finding = Finding(
            id=uuid4().hex, time=now(), request=asked.id if asked else UNNAMED, surface=asked.surface if asked else UNNAMED, stage=stage,
            choice=choice, guard=guard.name, guard_hash=guard.hash, mode=settings.mode, flagged=verdict.flagged, score=verdict.score,
            clause=verdict.clause, position=verdict.position, action=action, error=problem, latency_ms=round(seconds * 1e3, 3),
            content=json.dumps([asdict(turn) for turn in turns]) if settings.log_content else None, key=asked.key if asked else None,
        )  # fmt: skip
        if asked is not None:
            asked.findings.append(finding)
        self._observer.found(finding)
        if self._observer.second is not None:
            self._observer.second.compare(finding, turns)
