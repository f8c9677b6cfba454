"""From the name of a language model to a cached chat with it: `embedded`, or the URL of any OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from charter.embedded import cache_folder
from charter.errors import TeacherError
from charter.llm.cache import Cache, CachedChat
from charter.llm.client import OpenAIChat
from charter.llm.embedded import MODEL, embedded_server
from charter.llm.pool import Budget

PATIENCE_S = 600.0
"""A small machine that is busy with other work may take minutes for one answer."""


@asynccontextmanager
async def open_chat(
    teacher: str, model: str | None, budget: Budget, limit: int | None = None, api_key: str | None = None, cache: Path | None = None,
    check: bool = True, role: str = "teacher",
) -> AsyncIterator[CachedChat]:  # fmt: skip
    """The chat, for as long as the context lasts.

    Args:
        teacher: `embedded`, or a URL that ends in /v1.
        model: name of the model behind a URL.
        budget: what its calls may cost.
        limit: calls in flight at once; None: as many as are asked for.
        api_key: sent to the URL; CHARTER_<ROLE>_KEY by default.
        cache: file for its replies; by default one in Charter's cache folder.
        check: whether to ask once if the server is there, before any work.
        role: what errors call it; the option that names the model is --<role>-model.

    Raises:
        TeacherError: there is none by that name, or it can't be reached.
        DataError: the cache can't be opened.
    """
    if teacher != "embedded" and not teacher.startswith(("http://", "https://")):
        raise TeacherError(f"there is no language model {teacher!r}; it is `embedded`, or a URL such as http://127.0.0.1:8000/v1")
    if teacher != "embedded" and model is None:
        raise TeacherError(f"name the model behind {teacher} with --{role}-model")
    async with AsyncExitStack() as stack:
        if teacher == "embedded":
            teacher, model = stack.enter_context(embedded_server()), MODEL
        assert model is not None
        chat = OpenAIChat(teacher, model, api_key, timeout_s=PATIENCE_S, role=role, budget=budget)
        stack.push_async_callback(chat.aclose)
        if check:
            await chat.check()
        store = stack.enter_context(Cache(cache or cache_folder() / "teacher.sqlite"))
        yield CachedChat(chat, store, budget, limit)
