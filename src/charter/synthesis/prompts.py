"""Stage 2: for each clause its prompts. The clause's own examples come first; the teacher writes the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import methodcaller

from charter.constitution import Clause, Constitution
from charter.llm.pool import Progress
from charter.records import Turn
from charter.synthesis.engine import Engine
from charter.synthesis.items import Item, Outcome, written_for

LONGEST = 4_000
"""Characters of a conversation above which it is dropped: it is no longer one prompt."""


async def prompts(
    constitution: Constitution, engine: Engine, topics: Mapping[str, Sequence[str]], n: int | None, progress: Progress
) -> Outcome:
    """The items of all clauses, in order of the constitution, without empty, over-long and repeated ones.

    What the teacher gave that is no request (a refusal, an echo, nothing usable) is counted among the dropped.
    """
    tasks = [methodcaller("prompts", clause, topics[clause.id], n) for clause in constitution.clauses]
    written: list[Outcome] = await engine.run(tasks, progress, "prompts")
    outcome = Outcome([])
    for clause, found in zip(constitution.clauses, written, strict=True):
        outcome.dropped.update(found.dropped)
        _sift([*_examples(clause), *found.kept], outcome)
    return outcome


def _examples(clause: Clause) -> list[Item]:
    """The clause's own examples, as items."""
    return [written_for(clause, (Turn("user", text),), "constitution") for text in clause.examples]


def _sift(items: Sequence[Item], outcome: Outcome) -> None:
    """Move the usable ones to the outcome. A recorded prompt replaces the same example: it may have replies."""
    last = {item.turns: place for place, item in enumerate(items)}
    counts: Counter[tuple[str, str]] = outcome.dropped
    for place, item in enumerate(items):
        if not item.prompt.strip():
            counts[item.clause, "empty"] += 1
        elif len(item.text) > LONGEST:
            counts[item.clause, "too long"] += 1
        elif last[item.turns] != place:
            counts[item.clause, "repeated"] += 1
        else:
            outcome.kept.append(item)
