"""What a strategy is, and the registry of them: each attacks one question, a query at a time, and sees how each was judged."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Literal, Protocol

import anyio

from charter.errors import DataError
from charter.llm.chat import Chat
from charter.redteam.forms import a_stack, formed
from charter.redteam.judge import Judged
from charter.redteam.questions import Question
from charter.redteam.target import Answer, Scorer, Turns
from charter.synthesis.families import DRAWN, family

Kind = Literal["plain", "family", "suite", "injection", "search", "attacker"]


@dataclass(frozen=True, slots=True)
class Try:
    """One query to the target."""

    turns: Turns
    family: str = ""
    """The form, template or search step, where the strategy's name does not say it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the last one."""

    answer: Answer
    judged: Judged


Attack = AsyncGenerator[Try, Seen]
"""Yields queries; is sent what became of each; ends when it is done or has succeeded."""


@dataclass(slots=True)
class Kit:
    """What a strategy may use."""

    rng: Random
    """Its own for each question."""
    tries: int
    """Queries to the target that it may make for one question."""
    seed: int
    questions: Sequence[Question]
    """All of the run: for strategies that look for one string against all."""
    score: Scorer | None = None
    """The guard's own verdicts, where it is at hand."""
    scored: int = 80
    """Prompts that one search may have scored."""
    attacker: Chat | None = None
    shared: dict[str, Any] = field(default_factory=dict)
    """What one strategy keeps between its questions."""
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """One strategy's, over its questions."""
    faults: Callable[[str], None] = lambda _: None
    """Told of what the attacker could not do."""


class Strategy(Protocol):
    """A way to attack."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def attack(self, question: Question, kit: Kit) -> Attack: ...


@dataclass(frozen=True, slots=True)
class Named:
    """A strategy that is a function."""

    name: str
    kind: Kind
    run: Callable[[Question, Kit], Attack]
    needs: str = ""
    """attacker: can't do without one."""
    questions: tuple[Question, ...] = ()
    """Its own, where it asks for something else than the others."""

    def attack(self, question: Question, kit: Kit) -> Attack:
        return self.run(question, kit)


async def plain(question: Question, kit: Kit) -> Attack:
    """The question as it stands."""
    yield Try(question.turns)


async def in_form(name: str, question: Question, kit: Kit) -> Attack:
    """One family or stack, drawn anew for every try."""
    sent: set[Turns] = set()
    for _ in range(kit.tries):
        turns = formed(question.turns, name, kit.rng)
        if turns is None or turns in sent:
            continue
        sent.add(turns)
        if (yield Try(turns, name)).judged.success:
            return


async def stacks(question: Question, kit: Kit) -> Attack:
    """Two families drawn at random for every try."""
    for _ in range(kit.tries):
        name = a_stack(kit.rng)
        turns = formed(question.turns, name, kit.rng)
        if turns is not None and (yield Try(turns, name)).judged.success:
            return


def registry() -> dict[str, Named]:
    """All strategies that need no file, by name."""
    from charter.redteam.attacker import escalate, pair
    from charter.redteam.injection import inject
    from charter.redteam.search import compose, suffix, universal_suffix

    families = [Named(f"family:{name}", "family", partial(in_form, name)) for name in DRAWN]
    others = [
        Named("plain", "plain", plain),
        Named("stacks", "family", stacks),
        Named("injection", "injection", inject),
        Named("compose", "search", compose),
        Named("suffix", "search", suffix),
        Named("universal-suffix", "search", universal_suffix, needs="score"),
        Named("pair", "attacker", pair, needs="attacker"),
        Named("escalate", "attacker", escalate, needs="attacker"),
    ]
    return {s.name: s for s in [*others[:1], *families, *others[1:]]}


def chosen(names: Sequence[str], attacker: bool, score: bool) -> list[Named]:
    """The strategies of those names; `families` is all of them, "family:a+b" a stack. No names: all that can run.

    Raises:
        DataError: there is none of that name, it is named twice, or it lacks what it needs.
    """
    known, have = registry(), {"": True, "attacker": attacker, "score": score}
    if not names:
        return [s for s in known.values() if have[s.needs]]
    out: dict[str, Named] = {}
    for name in names:
        found = [s for s in known.values() if s.name.startswith("family:")] if name == "families" else [_named(name, known)]
        for s in found:
            if not have[s.needs]:
                mend = "--attacker URL" if s.needs == "attacker" else "a GUARD whose score it can read"
                raise DataError(f"the strategy {s.name!r} needs {mend}")
            out[s.name] = s
    return list(out.values())


def _named(name: str, known: dict[str, Named]) -> Named:
    if name in known:
        return known[name]
    if name.startswith("family:"):
        own = family(name.removeprefix("family:")).name  # raises DataError where there is none
        if any(part.kind == "translation" for part in family(own).parts or (family(own),)):
            raise DataError(f"{name}: only a teacher translates; leave it out, or give translated prompts with --suite")
        return Named(name, "family", partial(in_form, own))
    singles = [s for s in known if not s.startswith("family:")]
    raise DataError(
        f"there is no strategy {name!r}; they are {', '.join(singles)}, families, and family:NAME as `charter families` lists them"
    )
