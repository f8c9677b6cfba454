"""Stage 5: a second opinion on each item, and on what each reply does. What the opinions don't share is dropped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from charter.constitution import Constitution
from charter.llm.pool import Progress, gather
from charter.synthesis.items import Item, Outcome, Written, counterparts
from charter.synthesis.teachers import Teacher

_HELPING = "help|assist|provide|give|write|do|support|create|offer|share|explain|fulfil|comply|condone|answer|discuss|engage|generate|promote|encourage"
_REFUSAL = re.compile(
    r"\b(i|we)( am|'m| are|'re)? (really |very |so )?(sorry|afraid|unable|not able|not going to)\b"
    r"|\b(i|we) (really |simply |just )?(can't|cannot|can not|won't|will not|don't|do not|must decline|have to decline)"
    rf"( \w+)? ({_HELPING})"
    r"|\bas an ai\b|\bagainst my (guidelines|principles|values)\b|\bi (must|have to) (decline|refuse)\b|\bi (refuse|decline) to\b",
    re.IGNORECASE,
)
OPENING = 200
"""Characters of a reply in which a refusal shows."""


def refuses(reply: str) -> bool:
    """Whether a reply says, at its start, that it will not help."""
    return bool(_REFUSAL.search(reply[:OPENING].replace("\u2019", "'")))


async def label(items: Sequence[Item], constitution: Constitution, teacher: Teacher, limit: int, progress: Progress) -> Outcome:
    """The items that the teacher finds nearer to their clause than to its counterpart; pool items have no clause and stay."""
    clauses, opposite = {c.id: c for c in constitution.clauses}, counterparts(constitution)
    asked = [item for item in items if item.clause]
    tasks = [partial(teacher.agrees, item, clauses[item.clause], opposite.get(item.clause)) for item in asked]
    opinions = await gather(tasks, limit, progress, "label")
    refused = {id(item) for item, agrees in zip(asked, opinions, strict=True) if not agrees}
    outcome = Outcome([], Counter((item.clause, "nearer to the counterpart") for item in items if id(item) in refused))
    for item in items:
        if id(item) not in refused:
            outcome.kept.append(_checked(item, outcome) if not item.teacher.startswith("recorded:") else item)
    return outcome


def _checked(item: Item, outcome: Outcome) -> Item:
    """The item with the replies that do what they were written to do. Authored replies are not checked: people say no in many ways."""
    fitting: list[Written] = []
    for reply in item.replies:
        if refuses(reply.text) == (reply.kind == "refusal"):
            fitting.append(reply)
        else:
            why = "a refusal that does not refuse" if reply.kind == "refusal" else f"{_ARTICLE[reply.kind]} {reply.kind} that refuses"
            outcome.replies_dropped[item.clause, why] += 1
    return replace(item, replies=tuple(fitting))


_ARTICLE = {"compliance": "a", "answer": "an"}
