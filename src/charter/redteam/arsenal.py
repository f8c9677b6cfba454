"""What attacks may use: the families that training may see, how they stack, and whether a meaning survives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from charter.errors import DataError
from charter.records import Example, Turn
from charter.synthesis.families import DRAWN, Disguised, Family, family, held
from charter.synthesis.families.meaning import keeps

LONGEST = 400
"""Characters of a prompt up to which it is disguised, as in synthesis."""
LONGEST_DISGUISED = 3_000
"""Bytes of a disguised conversation up to which it is tried: encodings stacked on encodings grow without end."""


@dataclass(frozen=True, slots=True)
class Arsenal:
    """The families that may be used, and what they do."""

    names: tuple[str, ...]
    """Used in attacks, alone or stacked."""
    held_out: tuple[str, ...]
    """Never used in attacks: what is learned from those is measured on these."""
    find: Callable[[str], Family]
    """The family of a name; "a+b" is a stack."""
    keeps: Callable[[str, Disguised, Family], bool]
    """Whether the meaning of a text survived its disguise."""

    def disguised(self, parent: Example, name: str, rng: Random) -> tuple[Turn, ...] | None:
        """The parent's turns in that form; None where that changes nothing or gets too long."""
        turns = self.find(name).disguise(parent.turns, rng)
        if turns == parent.turns or sum(len(turn.content.encode("utf-8", "surrogatepass")) for turn in turns) > LONGEST_DISGUISED:
            return None
        return turns

    def means_the_same(self, parent: Example, name: str, turns: tuple[Turn, ...]) -> bool:
        """Whether a person could still read the parent's last turn out of the turns that took its place."""
        texts = tuple(turn.content for turn in turns[len(parent.turns) - 1 :])
        return self.keeps(parent.turns[-1].content, texts[0] if len(texts) == 1 else texts, self.find(name))

    def stacked(self, one: str, other: str) -> str | None:
        """The stack of two families, in the order that works; None where neither does."""
        for name in (f"{one}+{other}", f"{other}+{one}"):
            if not held(name, self.held_out) and self._is_one(name):
                return name
        return None

    def _is_one(self, name: str) -> bool:
        try:
            self.find(name)
        except DataError:
            return False
        return True


def arsenal(held_out: tuple[str, ...]) -> Arsenal:
    """All families but those held out and translations, which only a teacher can apply.

    Raises:
        DataError: nothing is left.
    """
    drawn = tuple(name for name in DRAWN if not held(name, held_out))
    if not drawn:
        raise DataError("all families are held out, so none is left to attack with; hold out fewer")
    return Arsenal(drawn, held_out, family, keeps)


def held_out_of(data: Path) -> tuple[str, ...]:
    """The families that the examples of a folder hold out, by its manifest.json.

    Raises:
        DataError: the manifest is missing, damaged or names a family that there is not.
    """
    path = data / "manifest.json"
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["options"]["held_out_families"]
        return tuple(family(str(name)).name for name in names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: doesn't say which families are held out ({reason}); run `charter synthesize` again") from error
