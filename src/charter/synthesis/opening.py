"""From the name of a teacher to the teacher: `recorded`, `embedded`, or the URL of any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from charter.constitution import Constitution
from charter.errors import TeacherError
from charter.llm.opening import open_chat
from charter.llm.pool import Budget
from charter.synthesis.language import LanguageTeacher
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.teachers import Teacher


@asynccontextmanager
async def open_teacher(
    teacher: str, constitution: Constitution, budget: Budget, seed: int = 0, model: str | None = None, cache: Path | None = None,
    limit: int | None = None, api_key: str | None = None, check: bool = True,
) -> AsyncIterator[Teacher]:  # fmt: skip
    """The teacher, ready and reachable, for as long as the context lasts.

    Args:
        teacher: `recorded`, `embedded`, or a URL that ends in /v1.
        constitution: what it will write for.
        budget: what its calls may cost.
        seed: drives its draws.
        model: name of the model behind a URL.
        cache: file for its replies; by default one in Charter's cache folder.
        limit: calls in flight at once; None: as many as are asked for.
        api_key: sent to the URL; CHARTER_TEACHER_KEY by default.
        check: whether to ask once if the server is there, before any work.

    Raises:
        TeacherError: it can't be reached, or has nothing for this constitution.
    """
    if teacher == "recorded":
        yield RecordedTeacher(constitution)
        return
    if teacher != "embedded" and not teacher.startswith(("http://", "https://")):
        raise TeacherError(f"there is no teacher {teacher!r}; it is `recorded`, `embedded`, or a URL such as http://127.0.0.1:8000/v1")
    async with open_chat(teacher, model, budget, limit, api_key, cache, check) as chat:
        yield LanguageTeacher(chat, constitution, seed)
