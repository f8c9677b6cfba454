"""Stage 3: for restricted prompts a complying reply and a refusal, for permitted ones an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from operator import methodcaller

from charter.llm.pool import Progress
from charter.synthesis.engine import Engine
from charter.synthesis.faults import reply_fault
from charter.synthesis.items import Item, Outcome, Written


async def replies(items: Sequence[Item], engine: Engine, per_clause: int | None, progress: Progress) -> Outcome:
    """The items with their usable replies; of each clause only the first `per_clause` are asked for (None: all)."""
    asked: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if per_clause is None or len(asked[item.clause]) < per_clause:
            asked[item.clause].append(item)
    wanted = [item for group in asked.values() for item in group]
    found: list[tuple[Written, ...]] = await engine.run([methodcaller("replies", item) for item in wanted], progress, "replies")
    outcome = Outcome([])
    texts = {(item.clause, item.turns): _usable(item, written, outcome) for item, written in zip(wanted, found, strict=True)}
    outcome.kept += [replace(item, replies=texts.get((item.clause, item.turns), ())) for item in items]
    return outcome


def _usable(item: Item, written: Sequence[Written], outcome: Outcome) -> tuple[Written, ...]:
    """The replies without those that are none, which are counted. Recorded ones were read by their author."""
    if item.teacher.startswith("recorded:"):
        return tuple(written)
    faults = [reply_fault(reply.text, item.prompt) for reply in written]
    outcome.replies_dropped.update((item.clause, fault) for fault in faults if fault)
    return tuple(reply for reply, fault in zip(written, faults, strict=True) if not fault)
