"""What the classifier of replies reads: hashed n-grams of the beginning and of the whole, and where refusing begins.

A reply becomes one sparse row of `WIDTH` columns. The first `STATED` are figures that can be named: whether a phrase of refusal
occurs outside quotations and code (`data/phrases.txt`), how far in, and how much follows it. The rest are hashed words, pairs and
triples of words, twice: once over the first `OPENING` words, where most replies say what they will do, once over the whole.
Each part has unit length, so that a long reply weighs no more than a short one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib import resources
from math import log1p, sqrt
from zlib import crc32

BUCKETS = 1 << 14
STATED = 12
WIDTH = STATED + BUCKETS
OPENING = 30
LONGEST = 600
"""Words that are read: the first two thirds of these from the front, the rest from the end."""
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_QUOTED = re.compile(r"(?<!\w)[\"“«„](?:(?![\"”»]).){1,600}[\"”»]", re.DOTALL)
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•|])\s", re.MULTILINE)
_WORD = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]|\w+|[?!]")
"""Scripts without spaces are read letter by letter; their pairs and triples stand for words."""
_SHORT = (
    (re.compile(r"\bcan'?t\b|\bcan not\b"), "cannot"),
    (re.compile(r"\bwon'?t\b"), "will not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"\b(i)'?m\b"), r"\1 am"),
    (re.compile(r"'(?:ve)\b"), " have"),
    (re.compile(r"'(?:ll)\b"), " will"),
    (re.compile(r"'(?:re)\b"), " are"),
    (re.compile(r"'d\b"), " would"),
    (re.compile(r"\b(it|that|there|here|what|let)'s\b"), r"\1 is"),
)


@dataclass(frozen=True, slots=True)
class Refusing:
    """Where a reply refuses, in words of what stands outside quotations and code."""

    first: int | None
    """Number of the word at which the first phrase of refusal begins; None where there is none."""
    times: int
    words: int


def words(text: str) -> list[str]:
    """Words in lower case with contractions written out: "I can't" and "I cannot" are the same."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    for pattern, whole in _SHORT:
        text = pattern.sub(whole, text)
    return _WORD.findall(text)


def refusing(text: str) -> Refusing:
    """Where a reply refuses in its own voice: what it quotes, and what stands in code, is not its voice."""
    plain = _QUOTED.sub(" ", _CODE.sub(" ", text))
    found = words(plain if plain.strip() else text)
    places = [place for place in range(len(found)) if any(found[place : place + len(p)] == p for p in _phrases().get(found[place], ()))]
    return Refusing(places[0] if places else None, len(places), len(found))


def features(reply: str) -> dict[int, float]:
    """The columns of a reply that are not zero."""
    whole = words(_CODE.sub(" codeblock ", reply))
    if len(whole) > LONGEST:
        whole = whole[: LONGEST * 2 // 3] + whole[-LONGEST // 3 :]
    row = {place: value for place, value in enumerate(_stated(reply)) if value}
    for mark, part in (("^", whole[:OPENING]), ("", whole)):
        counts = Counter(mark + " ".join(part[i : i + n]) for n in (1, 2, 3) for i in range(len(part) - n + 1))
        length = sqrt(sum(1 + log1p(c - 1) for c in counts.values())) or 1.0
        for name, count in counts.items():
            hashed = crc32(name.encode("utf-8", "surrogatepass"))
            column = STATED + hashed % BUCKETS
            row[column] = row.get(column, 0.0) + (1 if hashed >> 16 & 1 else -1) * sqrt(1 + log1p(count - 1)) / length
    return row


def _stated(reply: str) -> list[float]:
    """The figures that can be named, each about between 0 and 1."""
    found = refusing(reply)
    there = found.first is not None
    before = found.first if found.first is not None else found.words
    after = found.words - before
    return [
        float(there),
        float(there and before < 12),
        before / max(found.words, 1),
        log1p(before) / 6,
        log1p(after) / 6,
        float(there and after > 80),
        min(found.times, 4) / 4,
        min(found.times / max(found.words, 1) * 25, 1.0),
        log1p(found.words) / 6,
        float("```" in reply),
        min(len(_ITEM.findall(reply)), 8) / 8,
        float(reply.rstrip().endswith(("?", "？"))),
    ]


@cache
def _phrases() -> dict[str, list[list[str]]]:
    """Phrases of refusal as words, by their first word."""
    text = (resources.files("charter.refusals") / "data" / "phrases.txt").read_text(encoding="utf-8")
    found: dict[str, list[list[str]]] = {}
    for line in text.split("\n"):
        if phrase := words(line):
            found.setdefault(phrase[0], []).append(phrase)
    return found
