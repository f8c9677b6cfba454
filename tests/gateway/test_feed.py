"""Findings as they come: none waits for a watcher, none holds content."""

from __future__ import annotations

import json
from typing import Any

import anyio

from charter.gateway.audit.finding import Finding, now
from charter.gateway.feed import BEHIND, KEPT, MOST, Feed


def finding(number: int) -> Finding:
    return Finding(
        id=str(number), time=now(), request="r", surface="/v1/chat/completions", stage="reply", choice=0, guard="g", guard_hash="h",
        mode="enforce", flagged=False, score=0.5, clause=None, position=None, action="allow", error=None, latency_ms=1.5, content="SECRET",
    )  # fmt: skip


def read(block: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in block.decode().split("\n") if line.startswith("data: ")]


def test_who_comes_later_sees_the_last_ones_first_and_never_content() -> None:
    async def watch() -> None:
        feed = Feed()
        for number in range(KEPT + 7):
            feed.found(finding(number))
        events = feed.watch()
        first = await anext(events)
        feed.found(finding(KEPT + 7))
        then = await anext(events)
        assert [f["id"] for f in [*read(first), *read(then)]] == [str(n) for n in range(7, KEPT + 8)]
        assert b"SECRET" not in first + then
        assert read(then)[0]["verdict"] == "passed"
        await events.aclose()  # type: ignore[attr-defined]

    anyio.run(watch)


def test_a_watcher_that_does_not_read_is_let_go_and_holds_up_nobody() -> None:
    async def watch() -> None:
        feed = Feed()
        slow, quick = feed.watch(), feed.watch()
        await anext(slow)
        await anext(quick)
        for number in range(BEHIND + 50):
            feed.found(finding(number))
            assert read(await anext(quick))[0]["id"] == str(number)
        assert len([event async for event in slow]) == BEHIND
        await quick.aclose()  # type: ignore[attr-defined]
        assert not feed.full

    anyio.run(watch)


def test_so_many_watch_at_once() -> None:
    async def watch() -> None:
        feed = Feed()
        watchers = [feed.watch() for _ in range(MOST)]
        for events in watchers:
            assert not feed.full
            await anext(events)
        assert feed.full
        await watchers[0].aclose()  # type: ignore[attr-defined]
        assert not feed.full
        for events in watchers:
            await events.aclose()  # type: ignore[attr-defined]

    anyio.run(watch)
