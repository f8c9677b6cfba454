"""From what the command line names to what a campaign needs: the endpoints under attack, and the models that attack and judge."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from charter.errors import DataError, TeacherError, UpstreamError
from charter.guard.holdback import GuardLike
from charter.llm.cache import Cache, CachedChat
from charter.llm.chat import Chat
from charter.llm.client import OpenAIChat
from charter.llm.embedded import MODEL, embedded_server
from charter.llm.opening import PATIENCE_S
from charter.llm.pool import Budget
from charter.redteam.target import EndpointTarget, GuardedTarget, Scorer, Target

CACHE = "models.sqlite"
EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class Model:
    """An endpoint as the command line names it."""

    url: str
    """`embedded`, or a URL that ends in /v1."""
    name: str | None = None

    def named(self, option: str) -> str:
        """The model's name.

        Raises:
            DataError: none was given.
        """
        if self.url == EMBEDDED:
            return MODEL
        if self.name is None:
            raise DataError(f"name the model behind {self.url} with --{option}-model")
        return self.name


@dataclass(frozen=True, slots=True)
class Opened:
    """What a campaign talks to."""

    target: Target
    unguarded: Target | None
    score: Scorer | None
    attacker: Chat | None
    judge: Chat | None


@asynccontextmanager
async def opened(
    guard: GuardLike | None, upstream: Model, unguarded: Model | None, attacker: Model | None, judge: Model | None, folder: Path, budget: Budget,
) -> AsyncIterator[Opened]:  # fmt: skip
    """Everything open while the context lasts. With a guard, its upstream is the unguarded target unless another is named.

    Answers of the attacker and the judge are kept in the folder, so that a run goes on as it was; the target's are in the log.

    Raises:
        UpstreamError: the target can't be reached.
        TeacherError: the attacker or the judge can't.
        DataError: a model lacks its name.
    """
    async with AsyncExitStack() as stack:
        running: dict[str, str] = {}

        def url_of(model: Model) -> str:
            if model.url != EMBEDDED:
                return model.url
            if EMBEDDED not in running:
                running[EMBEDDED] = stack.enter_context(embedded_server())
            return running[EMBEDDED]

        async def chat(model: Model, option: str) -> OpenAIChat:
            name = model.named(option)
            made = OpenAIChat(url_of(model), name, os.environ.get(f"CHARTER_{option.upper()}_KEY"), PATIENCE_S, role=option, budget=budget)
            stack.push_async_callback(made.aclose)
            await made.check()
            return made

        try:
            behind = await chat(upstream, "upstream")
            free = await chat(unguarded, "unguarded") if unguarded is not None else behind if guard is not None else None
        except TeacherError as error:
            raise UpstreamError(str(error)) from error
        cache = stack.enter_context(Cache(folder / CACHE)) if attacker or judge else None
        mates = [
            CachedChat(await chat(m, option), cache, budget) if m and cache is not None else None  # an empty cache is false
            for m, option in ((attacker, "attacker"), (judge, "judge"))
        ]
        guarded = GuardedTarget(guard, behind) if guard is not None else None
        plain = EndpointTarget(free) if free is not None else None
        yield Opened(guarded or EndpointTarget(behind), plain, guarded.score if guarded else None, *mates)
