"""From the name of a teacher to the teacher: `recorded`, `embedded`, or the URL of any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from charter.constitution import Constitution
from charter.embedded import cache_folder
from charter.errors import TeacherError
from charter.llm.cache import Cache, CachedChat
from charter.llm.client import OpenAIChat
from charter.llm.embedded import MODEL, embedded_server
from charter.llm.pool import Budget
from charter.synthesis.language import LanguageTeacher
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.teachers import Teacher

PATIENCE_S = 600.0
"""A small machine that is busy with other work may take minutes for one answer."""


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
    async with AsyncExitStack() as stack:
        if teacher == "embedded":
            url, model = stack.enter_context(embedded_server()), MODEL
        else:
            url = teacher
        if model is None:
            raise TeacherError(f"name the model behind {teacher} with --teacher-model")
        chat = OpenAIChat(url, model, api_key, timeout_s=PATIENCE_S)
        stack.push_async_callback(chat.aclose)
        if check:
            await chat.check()
        store = stack.enter_context(Cache(cache or cache_folder() / "teacher.sqlite"))
        yield LanguageTeacher(CachedChat(chat, store, budget, limit), constitution, seed)
