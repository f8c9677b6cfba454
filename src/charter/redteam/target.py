"""What is attacked: an endpoint as it stands, or a guard in this process in front of one. A guard also tells its score of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from charter.errors import CharterError, UnusableAnswer
from charter.guard.holdback import GuardLike, OpenGuard
from charter.llm.chat import FILTERED, Chat, Request
from charter.records import Exchange, Turn, Verdict

Turns = tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back of one query."""

    text: str
    """What left: of a reply that was cut, the part before."""
    finish: str = ""
    blocked: str = ""
    """What blocked it: prompt, reply or error (the guard in this process), endpoint; "" where nothing did."""
    score: float | None = None
    """The guard's of the prompt; None where it is not at hand."""
    error: str = ""
    """Why there is no reply, where none came."""


class Target(Protocol):
    """Anything that can be attacked."""

    async def ask(self, turns: Turns, max_tokens: int, seed: int, temperature: float = 0.0) -> Answer:
        """One query.

        Raises:
            TeacherError: the endpoint can't be reached or refuses every call.
        """
        ...


Scores = Sequence[Verdict]


class Scorer(Protocol):
    """The guard's own word on prompts, for attacks that know it."""

    async def __call__(self, prompts: Sequence[Turns]) -> Scores: ...


class EndpointTarget:
    """An OpenAI-compatible endpoint, guarded or not. A filter's finish reason, or its error, is a block."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def ask(self, turns: Turns, max_tokens: int, seed: int, temperature: float = 0.0) -> Answer:
        try:
            reply = await self._chat.complete(Request(turns, max_tokens, temperature, seed))
        except UnusableAnswer as error:
            return Answer("", error=str(error))
        return Answer(reply.text, reply.finish, "endpoint" if reply.finish == FILTERED else "")


class GuardedTarget:
    """A guard in front of an endpoint: a flagged prompt never reaches it, a reply leaves as far as it passes."""

    def __init__(self, guard: GuardLike, chat: Chat) -> None:
        self._guard, self._behind = guard, EndpointTarget(chat)

    async def ask(self, turns: Turns, max_tokens: int, seed: int, temperature: float = 0.0) -> Answer:
        from anyio.to_thread import run_sync

        try:
            session = await run_sync(self._guard.open, turns)
        except CharterError as error:  # such as a conversation that is too long: a served guard fails closed
            return Answer("", "content_filter", "error", error=str(error))
        verdict = session.prompt_verdict
        if verdict.flagged:
            return Answer("", "content_filter", "prompt", verdict.score)
        behind = await self._behind.ask(turns, max_tokens, seed, temperature)
        left = await run_sync(_released, session, behind.text)
        if session.reply_verdict.flagged:
            return Answer(left, "content_filter", "reply", verdict.score)
        return Answer(left, behind.finish, behind.blocked, verdict.score, behind.error)

    async def score(self, prompts: Sequence[Turns]) -> Scores:
        """The guard's verdicts on prompts, without a query. What it can't read it flags."""
        from anyio.to_thread import run_sync

        return await run_sync(self._verdicts, prompts)

    def _verdicts(self, prompts: Sequence[Turns]) -> Scores:
        from charter.guard.folder import Guard

        if isinstance(self._guard, Guard):
            try:
                return [verdict for _, verdict in self._guard.score(Exchange("", turns) for turns in prompts)]
            except CharterError:  # one of them is too long
                pass
        return [self._verdict(turns) for turns in prompts]

    def _verdict(self, turns: Turns) -> Verdict:
        try:
            return self._guard.open(turns).prompt_verdict
        except CharterError:
            return Verdict(True, 1.0, None, None)


def _released(session: OpenGuard, text: str) -> str:
    return session.push(text) + session.flush()
