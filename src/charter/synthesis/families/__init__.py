"""The families: ways to disguise a text, each a pure function of the text and a random generator.

They are applied to harmful and harmless texts alike, so that a form never tells the label. Two can be stacked:
`family("roleplay:developer-mode+base64")` applies the first and then the second.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from charter.errors import DataError
from charter.synthesis.families.encodings import ENCODINGS
from charter.synthesis.families.family import Disguised, Family, Kind, replaced, stack
from charter.synthesis.families.splitting import STRUCTURES
from charter.synthesis.families.styles import STYLES
from charter.synthesis.families.surface import SURFACE
from charter.synthesis.families.templates import TEMPLATES
from charter.synthesis.families.translation import TRANSLATIONS

__all__ = [
    "DRAWN", "FAMILIES", "FOLLOWS", "HELD_OUT", "LEADS", "TRANSLATED", "Disguised", "Family", "Kind", "family", "held", "replaced", "stack",
]  # fmt: skip

PLAIN = Family("plain", "as written", "plain", lambda text, _: text, lambda text: text)
FAMILIES: dict[str, Family] = {
    family.name: family for family in (PLAIN, *ENCODINGS, *SURFACE, *STYLES, *TEMPLATES, *STRUCTURES, *TRANSLATIONS)
}
DRAWN = tuple(name for name, family in FAMILIES.items() if family.kind not in ("plain", "translation"))
"""What is drawn where no families are named."""
TRANSLATED = tuple(family.name for family in TRANSLATIONS)
"""What a teacher that rewrites adds to it."""
HELD_OUT = (
    "leetspeak", "prefix-injection", "binary", "no-vowels", "past-tense", "payload-splitting", "document-injection", "roleplay:developer-mode",
)  # fmt: skip
"""Of every kind some: only the test split has them, to measure what a classifier makes of forms it never saw."""
LEADS, FOLLOWS = ("template", "style", "structure"), ("encoding", "surface")
"""Kinds that come first and second where a stack is drawn."""


@lru_cache(maxsize=4_096)
def family(name: str) -> Family:
    """The family of that name, or the stack of two: "first+second", applied left to right.

    Raises:
        DataError: there is no such family, a stack has more than two, or its two can't follow each other.
    """
    parts = name.split("+")
    for part in parts:
        if part not in FAMILIES:
            inside = f" (in {name!r})" if len(parts) > 1 else ""
            raise DataError(f"there is no family {part!r}{inside}; the families are {', '.join(FAMILIES)}")
    if len(parts) > 2:
        raise DataError(f"{name!r} stacks {len(parts)} families; a stack has two")
    return FAMILIES[name] if len(parts) == 1 else stack(FAMILIES[parts[0]], FAMILIES[parts[1]])


def held(name: str, held_out: Collection[str]) -> bool:
    """Whether a family is held out: itself, or one that it is a stack of."""
    return any(part in held_out for part in (name, *name.split("+")))
