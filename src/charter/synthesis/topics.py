"""Stage 1: for each clause its subtopics, so that the prompts spread over all of it."""

from __future__ import annotations

from operator import methodcaller

from charter.constitution import Constitution
from charter.llm.pool import Progress
from charter.synthesis.engine import Engine


async def topics(constitution: Constitution, engine: Engine, progress: Progress) -> dict[str, list[str]]:
    """Subtopics by clause id."""
    found: list[list[str]] = await engine.run([methodcaller("topics", clause) for clause in constitution.clauses], progress, "topics")
    return {clause.id: names for clause, names in zip(constitution.clauses, found, strict=True)}
