"""A question in a family's form: only where that changes something, stays short enough and keeps its meaning."""

from __future__ import annotations

from random import Random

from charter.errors import DataError
from charter.redteam.arsenal import LONGEST_DISGUISED
from charter.redteam.target import Turns
from charter.synthesis.families import DRAWN, FOLLOWS, LEADS, family
from charter.synthesis.families.family import replaced
from charter.synthesis.families.meaning import keeps

REDRAWS = 6
"""Draws before a form is given up."""


def formed(turns: Turns, name: str, rng: Random) -> Turns | None:
    """The conversation with its last turn in that form; None where no draw changes it, keeps it short and keeps its meaning."""
    own = family(name)
    for _ in range(REDRAWS):
        disguised = own.apply(turns[-1].content, rng)
        out = replaced(turns, disguised)
        short = sum(len(t.content.encode("utf-8", "surrogatepass")) for t in out) <= LONGEST_DISGUISED + len(turns[-1].content)
        if out != turns and short and keeps(turns[-1].content, disguised, own):
            return out
    return None


def stacked(first: str, second: str) -> str | None:
    """The stack of two families in the order that works; None where neither does, or one is a stack already."""
    for name in (f"{first}+{second}", f"{second}+{first}"):
        try:
            return family(name).name
        except DataError:
            continue
    return None


def a_stack(rng: Random) -> str:
    """A random stack: a form of words, then a way to write it."""
    while True:
        first = rng.choice([name for name in DRAWN if family(name).kind in LEADS])
        found = stacked(first, rng.choice([name for name in DRAWN if family(name).kind in FOLLOWS]))
        if found is not None:
            return found
