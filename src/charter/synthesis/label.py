"""Stage 5: a second opinion on each item, and on what each reply does. What the opinions don't share is dropped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import methodcaller

from charter.constitution import Clause, Constitution
from charter.llm.pool import Progress
from charter.synthesis.engine import Engine
from charter.synthesis.items import Item, Outcome, Written, counterparts

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


async def label(items: Sequence[Item], constitution: Constitution, engine: Engine, progress: Progress) -> Outcome:
    """The items that the teacher finds nearer to their clause than to its counterpart; pool items have no clause and stay.

    An item on which the teacher gives no usable opinion is dropped as well, and counted apart.
    """
    clauses, opposite = {c.id: c for c in constitution.clauses}, counterparts(constitution)
    asked = [item for item in items if item.clause]
    leanings = await _leanings(asked, clauses, opposite, engine, progress)
    tasks = [
        methodcaller("agrees", item, clauses[item.clause], opposite.get(item.clause), leanings.get(item.clause, 0.0)) for item in asked
    ]
    opinions: list[bool | None] = await engine.run(tasks, progress, "label")
    refused = {id(item): _WHY[agrees] for item, agrees in zip(asked, opinions, strict=True) if not agrees}
    outcome = Outcome([], Counter((item.clause, refused[id(item)]) for item in items if id(item) in refused))
    for item in items:
        if id(item) not in refused:
            outcome.kept.append(_checked(item, outcome) if not item.teacher.startswith("recorded:") else item)
    return outcome


async def _leanings(
    items: Sequence[Item], clauses: Mapping[str, Clause], opposite: Mapping[str, Clause], engine: Engine, progress: Progress
) -> dict[str, float]:
    """For each clause with something to ask about, how the teacher leans between it and its counterpart.

    Asked beforehand and once for either direction: workers that need the same answer at the same time would each pay for it.
    """
    open_ = {item.clause for item in items if item.clause in opposite and item.prompt not in clauses[item.clause].examples}
    pairs = {frozenset((name, opposite[name].id)): (name, opposite[name].id) for name in clauses if name in open_}
    tasks = [methodcaller("leaning", clauses[a], clauses[b]) for a, b in pairs.values()]
    found: list[float] = await engine.run(tasks, progress, "label: examples") if tasks else []
    leans = dict(zip(pairs.values(), found, strict=True))
    return {name: leans[name, b] if (name, b) in leans else -leans[b, name] for name in open_ for b in (opposite[name].id,)}


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


_WHY = {False: "nearer to the counterpart", None: "no usable opinion"}
_ARTICLE = {"compliance": "a", "answer": "an"}
