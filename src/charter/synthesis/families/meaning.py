"""Whether a disguised text still asks what the original asked: told from the texts alone, without a model."""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher

from charter.synthesis.families.family import Disguised, Family
from charter.synthesis.families.surface import PLAIN_AGAIN

READABLE = 0.8
"""Share of the content words that must still be there; of four, one may be lost."""
SIMILAR, SIMILAR_INSIDE = 0.6, 0.7
"""Similarity of consonants from which a lossy surface is still the same text; and where it is looked for inside a longer one."""
NEAR_WORD = 0.75
"""Similarity from which a word is read as another: baked for bake, wrote for write."""
_CONTENT = re.compile(r"[^\W\d_]{4,}")
_LETTERS = str.maketrans("431057", "aeiost")


def keeps(original: str, disguised: Disguised, family: Family) -> bool:
    """Whether the meaning survived.

    It did where the inverse gives the original back, where the original stands in the disguise word for word, where four
    in five of its content words can still be read, or, for a lossy surface, where the consonants are alike.
    """
    text = disguised if isinstance(disguised, str) else "\n".join(disguised)
    if not original.strip():
        return False
    if family.inverse is not None and _same(family.inverse(text), original, family.folds_case):
        return True
    if family.parts and isinstance(disguised, str):
        first, second = family.parts
        if second.inverse is not None:
            return keeps(original.lower() if second.folds_case else original, second.inverse(text), first)
    if original in text or _readable(original, text):
        return True
    return any(part.kind == "surface" and part.inverse is None for part in family.parts or (family,)) and _alike(original, text)


def _same(text: str, original: str, folds_case: bool) -> bool:
    return text.lower() == original.lower() if folds_case else text == original


def _readable(original: str, text: str) -> bool:
    """Whether enough of the words of four letters or more are there, in any case and nearly any spelling."""
    wanted = _CONTENT.findall(original.lower())
    there = set(_CONTENT.findall(_plain(text)))
    spare = (1 - READABLE) * len(wanted) if len(wanted) < 4 else max(1.0, (1 - READABLE) * len(wanted))
    return bool(wanted) and sum(not _found(word, there) for word in wanted) <= spare + 1e-9


def _found(word: str, there: set[str]) -> bool:
    if word in there:
        return True
    near = (other for other in there if other[0] == word[0] and abs(len(other) - len(word)) <= 3)
    return any(SequenceMatcher(None, word, other, autojunk=False).ratio() >= NEAR_WORD for other in near)


def _plain(text: str) -> str:
    """Lower case, without invisible characters, look-alikes and digits for letters put right."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return seen.translate(PLAIN_AGAIN).translate(_LETTERS).lower()


def _alike(original: str, text: str) -> bool:
    """Whether a stretch of the text has about the consonants of the original."""
    wanted, there = _skeleton(original), _skeleton(text)
    if len(wanted) < 3:
        return False
    step, enough = max(1, len(wanted) // 8), SIMILAR if len(there) <= 1.5 * len(wanted) else SIMILAR_INSIDE
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2(wanted)
    for start in range(0, max(1, len(there) - len(wanted) + step), step):
        matcher.set_seq1(there[start : start + len(wanted)])
        if matcher.quick_ratio() >= enough and matcher.ratio() >= enough:
            return True
    return False


def _skeleton(text: str) -> str:
    """The consonants, in order."""
    return "".join(c for c in _plain(text) if c.isalpha() and c not in "aeiou")
