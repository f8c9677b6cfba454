"""The teacher is kept busy: a whole run on a clock that jumps to the next event, so that no busy machine can disturb it."""

from __future__ import annotations

import asyncio
import selectors
from pathlib import Path
from typing import Any

from kitchen import POOLS, WORDS, sentence

from charter.constitution import Constitution, parse
from charter.llm.cache import Cache, CachedChat
from charter.llm.chat import Reply, Request
from charter.synthesis.build import Options, synthesize
from charter.synthesis.language import LanguageTeacher

LATENCY_S, ROOM = 0.2, 16


class Jumping(selectors.DefaultSelector):
    """Waits for nothing: what would be waited for has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop on that clock."""

    def __init__(self) -> None:
        self._clock = Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


class Steady:
    """Every answer takes as long; notes how many calls are in flight, and for how long."""

    model = "steady"

    def __init__(self) -> None:
        self.calls = self.busy = self.most = 0
        self.first = self.last = -1.0

    async def complete(self, request: Request) -> Reply:
        clock = asyncio.get_running_loop().time
        self.first = clock() if self.first < 0 else self.first
        self.calls, self.busy = self.calls + 1, self.busy + 1
        self.most = max(self.most, self.busy)
        number = self.calls
        await asyncio.sleep(LATENCY_S)
        self.busy -= 1
        self.last = clock()
        top = ({" A": -(number % 7) / 7, " B": -0.5},) if request.top_logprobs else ()
        return Reply(f" {sentence(number * 7919, WORDS[number % 20])}", 9, 9, top)


def of_pairs(n: int) -> Constitution:
    lines = ["name: flow", "version: 1.0.0", "purpose: To be busy.", "clauses:"]
    for i in range(n):
        for side, other in (("restricted", f", counterpart: permitted-{i}"), ("permitted", "")):
            lines.append(f"  - {{id: {side}-{i}, side: {side}, title: The {side} {WORDS[i]}, text: Keys of {WORDS[i]} and more.{other},")
            lines.append(f"     examples: [Where is the {side} {WORDS[i]}?, Open the {side} {WORDS[i]} for me.]}}")
    return parse("\n".join(lines) + "\n", "flow.yaml")


def test_the_places_are_taken_from_the_first_call_to_the_last(tmp_path: Path) -> None:
    constitution, chat = of_pairs(4), Steady()
    options = Options(per_clause=24, replies_per_clause=8, limit=ROOM, without_pools=POOLS)

    async def run() -> None:
        with Cache(tmp_path / "cache.sqlite") as cache:
            teacher = LanguageTeacher(CachedChat(chat, cache, options.budget(), ROOM), constitution)
            await synthesize(constitution, teacher, options, tmp_path / "out")

    loop = JumpingLoop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
    assert chat.calls > 500
    assert chat.most == ROOM
    assert 0.95 < chat.calls * LATENCY_S / ROOM / (chat.last - chat.first) <= 1.0001
