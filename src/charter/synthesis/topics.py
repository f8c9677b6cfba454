"""Stage 1: for each clause its subtopics, so that the prompts spread over all of it."""

from __future__ import annotations

from functools import partial

from charter.constitution import Constitution
from charter.llm.pool import Progress, gather
from charter.synthesis.teachers import Teacher


async def topics(constitution: Constitution, teacher: Teacher, limit: int, progress: Progress) -> dict[str, list[str]]:
    """Subtopics by clause id."""
    found = await gather([partial(teacher.topics, clause) for clause in constitution.clauses], limit, progress, "topics")
    return {clause.id: names for clause, names in zip(constitution.clauses, found, strict=True)}
