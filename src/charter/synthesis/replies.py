"""Stage 3: for restricted prompts a complying reply and a refusal, for permitted ones an answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from charter.llm.pool import Progress, gather
from charter.synthesis.items import Item, Outcome
from charter.synthesis.teachers import Teacher


async def replies(items: Sequence[Item], teacher: Teacher, per_clause: int | None, limit: int, progress: Progress) -> Outcome:
    """The items with their replies; of each clause only the first `per_clause` are asked for (None: the teacher's own number)."""
    per_clause = teacher.replies_per_clause if per_clause is None else per_clause
    asked: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if per_clause is None or len(asked[item.clause]) < per_clause:
            asked[item.clause].append(item)
    wanted = [item for group in asked.values() for item in group]
    found = await gather([partial(teacher.replies, item) for item in wanted], limit, progress, "replies")
    texts = {(item.clause, item.turns): written for item, written in zip(wanted, found, strict=True)}
    return Outcome([replace(item, replies=texts.get((item.clause, item.turns), ())) for item in items])
