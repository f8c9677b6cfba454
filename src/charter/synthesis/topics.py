"""Stage 1: for each clause its subtopics, so that the prompts spread over all of it."""

from __future__ import annotations

from charter.constitution import Clause, Constitution
from charter.llm.pool import Progress, gather
from charter.synthesis.teachers import Teacher


async def topics(constitution: Constitution, teacher: Teacher, limit: int, progress: Progress) -> dict[str, list[str]]:
    """Subtopics by clause id."""

    async def of(clause: Clause) -> list[str]:
        return await teacher.topics(clause)

    found = await gather([lambda c=c: of(c) for c in constitution.clauses], limit, progress, "topics")  # type: ignore[misc]
    return {clause.id: names for clause, names in zip(constitution.clauses, found, strict=True)}
