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

    Compared with where the examples of both clauses lie, which takes away a leaning to a side. An item on which the teacher
    gives no usable opinion is dropped as well, and counted apart.
    """
    clauses, opposite = {c.id: c for c in constitution.clauses}, counterparts(constitution)
    asked = [item for item in items if item.clause]
    pairs = _pairs(asked, clauses, opposite)
    tasks = [methodcaller("leaning", *pair) for pair in pairs]  # in one go with the opinions: the teacher never waits in between
    tasks += [methodcaller("odds", item, clauses[item.clause], opposite.get(item.clause)) for item in asked]
    found: list[float | None] = await engine.run(tasks, progress, "label")
    leanings = _leanings(pairs, found, opposite)
    opinions = zip(asked, found[len(pairs) :], strict=True)
    refused = {id(item): why for item, odds in opinions if (why := _doubt(odds, leanings.get(item.clause, 0.0)))}
    outcome = Outcome([], Counter((item.clause, refused[id(item)]) for item in items if id(item) in refused))
    for item in items:
        if id(item) not in refused:
            outcome.kept.append(_checked(item, outcome) if not item.teacher.startswith("recorded:") else item)
    return outcome


def _pairs(items: Sequence[Item], clauses: Mapping[str, Clause], opposite: Mapping[str, Clause]) -> list[tuple[Clause, Clause]]:
    """The clauses with something to ask about, each with its counterpart; once for either direction."""
    open_ = {item.clause for item in items if item.clause in opposite and item.prompt not in clauses[item.clause].examples}
    return list({frozenset((name, opposite[name].id)): (clauses[name], opposite[name]) for name in clauses if name in open_}.values())


def _leanings(pairs: Sequence[tuple[Clause, Clause]], found: Sequence[float | None], opposite: Mapping[str, Clause]) -> dict[str, float]:
    """For each clause how the teacher leans between it and its own counterpart, which several clauses may share."""
    leans: dict[tuple[str, str], float] = {}
    for (a, b), leaning in zip(pairs, found, strict=False):
        leans[a.id, b.id], leans[b.id, a.id] = leaning or 0.0, -(leaning or 0.0)
    return {name: leans[name, other.id] for name, other in opposite.items() if (name, other.id) in leans}


def _doubt(odds: float | None, leaning: float) -> str:
    """Why an item is dropped; empty where it stays."""
    return "no usable opinion" if odds is None else "" if odds > leaning else "nearer to the counterpart"


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
