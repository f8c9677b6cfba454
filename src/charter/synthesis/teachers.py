"""What synthesis needs of a teacher: topics, prompts, replies and a second opinion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from charter.constitution import Clause
from charter.llm.cache import Usage
from charter.synthesis.items import Item, Outcome, Written


@dataclass(frozen=True, slots=True)
class Expected:
    """What a run will ask of a language model, before it starts."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    prompts: int = 0
    """Prompts that it may give."""

    def __add__(self, other: Expected) -> Expected:
        return Expected(
            self.calls + other.calls, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out, self.prompts + other.prompts
        )


class Teacher(Protocol):
    """Who writes the data: `RecordedTeacher`, `LanguageTeacher`, or a fake in tests."""

    name: str
    replies_per_clause: int | None
    """Prompts of each clause that get replies, where the options name no number; None: all."""
    rewrites: bool
    """Whether it can rewrite a text."""

    @property
    def usage(self) -> Usage:
        """What was asked of a language model so far."""
        ...

    async def topics(self, clause: Clause) -> list[str]:
        """Subtopics of a clause."""
        ...

    async def prompts(self, clause: Clause, topics: Sequence[str], n: int | None) -> Outcome:
        """About `n` prompts that fall under the clause, over its topics, and what came that is none, by reason.

        None leaves the number to the teacher.
        """
        ...

    async def replies(self, item: Item) -> tuple[Written, ...]:
        """For a restricted prompt a compliance and a refusal, for a permitted one an answer; fewer where it can't."""
        ...

    async def leaning(self, clause: Clause, counterpart: Clause) -> float:
        """How far the teacher leans to the first of two clauses whatever the prompt; the other way round it has the other sign."""
        ...

    async def odds(self, item: Item, clause: Clause, counterpart: Clause | None) -> float | None:
        """Log-odds that the prompt falls under the clause rather than under its counterpart; None: no usable opinion came.

        Infinite where there is nothing to doubt. What counts is how far they lie above the teacher's leaning.
        """
        ...

    async def rewrite(self, text: str, instruction: str) -> str | None:
        """The text changed as the instruction says; None where the teacher can't or gave nothing. The caller checks what came."""
        ...

    def rewriting(self, texts: int) -> Expected:
        """Calls and tokens that rewriting a number of texts will take, at most."""
        ...

    def expected(self, clause: Clause, n: int | None, replies: int | None) -> Expected:
        """Calls and tokens that a clause will take, at most."""
        ...
