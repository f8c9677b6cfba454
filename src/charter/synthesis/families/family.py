"""What a family is: a disguise with a name, and the composition of two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from charter.errors import DataError
from charter.records import Turn

Kind = Literal["plain", "encoding", "surface", "style", "template", "structure", "translation"]
Disguised = str | tuple[str, ...]
"""One text, or an odd number of them: user, assistant, ..., user."""


@dataclass(frozen=True, slots=True)
class Family:
    """A disguise: a pure function of a text and a random generator."""

    name: str
    description: str
    kind: Kind
    apply: Callable[[str, Random], Disguised]
    inverse: Callable[[str], str] | None = None
    """Gives the text back, where the disguise loses nothing; the input itself where it finds nothing to undo."""
    folds_case: bool = False
    """The inverse gives the text back in lower case."""
    across_turns: bool = False
    """It may give several turns."""
    instruction: str = ""
    """What a teacher is asked to do, where only a teacher can apply it; `apply` then raises."""
    parts: tuple[Family, ...] = ()
    """The two families of a stack."""

    def disguise(self, turns: tuple[Turn, ...], rng: Random) -> tuple[Turn, ...]:
        """The conversation with its last user turn disguised; the turns before it stay."""
        return replaced(turns, self.apply(turns[-1].content, rng))


def replaced(turns: tuple[Turn, ...], disguised: Disguised) -> tuple[Turn, ...]:
    """The conversation with other text, or other turns, in place of its last turn."""
    texts = (disguised,) if isinstance(disguised, str) else disguised
    return (*turns[:-1], *(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)))


def stack(first: Family, second: Family) -> Family:
    """The family that applies `first` and then `second`, to every user turn that the first one gives.

    Its inverse is the composition of theirs, where both have one and nothing is lost between them.

    Raises:
        DataError: the two can't follow each other: one twice, plain, a stack, two that split into turns, a translation second.
    """
    name = f"{first.name}+{second.name}"
    if first.parts or second.parts:
        raise DataError(f"{name} has more than two families; a stack has two")
    if first.name == second.name or "plain" in (first.name, second.name):
        raise DataError(f"{name} is no stack; name two different families other than plain")
    if first.across_turns and second.across_turns:
        raise DataError(f"{name} would split a text into turns twice; name one family that does")
    if second.kind == "translation":
        raise DataError(f"{name} would translate a disguise; put the translation first: {second.name}+{first.name}")
    return Family(
        name=name, description=f"{first.description}; then {second.description}", kind=first.kind, apply=_both(first, second),
        inverse=_undo(first, second), folds_case=first.folds_case, across_turns=first.across_turns or second.across_turns,
        instruction=first.instruction, parts=(first, second),
    )  # fmt: skip


def _both(first: Family, second: Family) -> Callable[[str, Random], Disguised]:
    def apply(text: str, rng: Random) -> Disguised:
        between = first.apply(text, rng)
        return second.apply(between, rng) if isinstance(between, str) else _each(between, second, rng)

    return apply


def _each(texts: Sequence[str], family: Family, rng: Random) -> tuple[str, ...]:
    """The turns with those of the user disguised."""
    return tuple(text if i % 2 else _one(family.apply(text, rng)) for i, text in enumerate(texts))


def _one(disguised: Disguised) -> str:
    """The text of a family that gives no turns."""
    assert isinstance(disguised, str)  # `stack` refuses two that give turns
    return disguised


def _undo(first: Family, second: Family) -> Callable[[str], str] | None:
    one, two = first.inverse, second.inverse
    if one is None or two is None or second.folds_case or first.across_turns or second.across_turns:
        return None
    return lambda text: one(two(text))
