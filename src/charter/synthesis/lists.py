"""Numbered lists and labelled pairs: forms that even a weak model goes on with. Made as the beginning of a reply, read back line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")
_ENTRY = re.compile(r"^\s*\d+[.)]\s+(.*\S)\s*$")
_REPEATED_OPENING = 4
"""Words that, when they open an entry that was there already, show that the model goes round in circles."""


def begun(entries: Sequence[str]) -> str:
    """The list so far and the number of its next entry: a prefill."""
    return "".join(f"{n}. {entry}\n" for n, entry in enumerate(entries, 1)) + f"{len(entries) + 1}."


def entries(text: str) -> list[str]:
    """The entries of a continuation: first the rest of the line that was begun, then numbered lines.

    A last one that is cut off is left out. Servers that can't go on from a prefill start a list of their own; it reads the same.
    """
    lines = text.split("\n")
    if not lines[-1].rstrip().endswith((".", "?", "!", '"')):
        lines = lines[:-1]
    found = []
    for place, line in enumerate(lines):
        match = _ENTRY.match(line)
        if match or (place == 0 and line.strip()):
            found.append(match.group(1) if match else line.strip())
    return [clean for entry in found if (clean := _clean(entry))]


def pairs(shots: Sequence[tuple[str, str]], subject: str) -> str:
    """Subjects with their requests, and the subject of the next: a prefill."""
    return "".join(f"Subject: {s}\nRequest: {r}\n\n" for s, r in shots) + f"Subject: {subject}\nRequest:"


def request(text: str) -> str:
    """The request that the continuation begins with, on one line; also where the server begins the pair afresh."""
    first = text.split("Request:", 1)[1] if text.lstrip().startswith("Subject:") and "Request:" in text else text
    return _clean(first.strip().split("\n")[0].removeprefix("Request:"))


def rewritten(text: str) -> str:
    """The rewriting that the continuation begins with, on one line; also where the server begins the pair afresh."""
    first = text.split("Rewritten:", 1)[1] if text.lstrip().startswith("Text:") and "Rewritten:" in text else text
    return _clean(first.strip().split("\n")[0].removeprefix("Rewritten:"))


def sound(entry: str, known: Iterable[str], shortest: int, longest: int) -> bool:
    """Whether an entry is new and of a fitting length, and not one of a row that all open alike."""
    if not shortest <= len(entry) <= longest or not any(c.isalpha() for c in entry):
        return False
    opening = " ".join(entry.lower().split()[:_REPEATED_OPENING])
    return all(opening != " ".join(other.lower().split()[:_REPEATED_OPENING]) for other in known)


def shuffled(values: Iterable[T], rng: Random, n: int) -> list[T]:
    """At most n of the values, in random order."""
    chosen = list(values)
    rng.shuffle(chosen)
    return chosen[:n]


def _clean(entry: str) -> str:
    """Without the marks that models put around an entry."""
    return entry.strip().strip("*_`").strip().removeprefix('"').removesuffix('"').strip()
