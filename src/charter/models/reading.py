"""What a scorer reads in place of a disguised segment: the plain word underneath.

A disguise that can be undone within one segment is undone before encoding, in training and serving alike: invisible
characters, look-alike letters, base64, leetspeak, dotted letters, erratic or all-capital casing. Everything else is read as it stands.
The reading only feeds the scorers: what is released is always the original text.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from functools import lru_cache

_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")
_BASE64_SIGN = re.compile(r"[0-9+/=]|[a-z][A-Z]")
_LEET = str.maketrans("013457@$!", "oleastasi")
_LEET_WORD = re.compile(r"[A-Za-z013457@$!]*[A-Za-z][013457@$!]+[A-Za-z][A-Za-z013457@$!]*")
_LEET_START = re.compile(r"[013457@$][A-Za-z]{3,}")
_DOTTED = re.compile(r"(?:[^\W_][.\-_*|]){2,}[^\W_]")
_EDGES = re.compile(r"^([\s\W_]*)(.*?)([\s\W_]*)$", re.DOTALL)


@lru_cache(maxsize=65_536)
def read(segment: str) -> str:
    """The plain reading of a segment, white space in front kept; the segment itself where nothing is disguised."""
    text = segment if segment.isascii() else _plain_letters(segment)
    core = text.lstrip()
    space = text[: len(text) - len(core)]
    decoded = _from_base64(core)
    if decoded is not None:
        return space + decoded
    front, word, back = _split(core)
    word = _word(word)
    return space + front + word + back


def _word(word: str) -> str:
    if _DOTTED.fullmatch(word):
        word = re.sub(r"[.\-_*|]", "", word)
    if _LEET_WORD.fullmatch(word) or _LEET_START.fullmatch(word):
        plain = word.lower().translate(_LEET)
        word = plain if plain.isalpha() else word
    flips = sum(a.isupper() != b.isupper() for a, b in zip(word, word[1:], strict=False))
    shouted = len(word) > 3 and word.isalpha() and word.isupper()
    return word.lower() if shouted or (word.isalpha() and flips > 3) else word


def _split(core: str) -> tuple[str, str, str]:
    match = _EDGES.match(core)
    assert match is not None  # the pattern matches every string
    front, word, back = match.groups()
    # Symbols that stand for letters belong to the word: "@ttack", "$teal".
    while front and front[-1] in "@$" and word:
        front, word = front[:-1], front[-1] + word
    return front, word, back


def _from_base64(core: str) -> str | None:
    """Text behind base64, or None. Words of plain language practically never decode to printable text."""
    body = core.strip("\"'`()[]<>,.:;")
    if len(body) % 4 or not _BASE64.fullmatch(body) or not _BASE64_SIGN.search(body):
        return None
    try:
        text = base64.b64decode(body, validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return None
    # A run cut after 64 characters may break a multi-byte character at its edges.
    text = text.strip("\ufffd")
    good = sum(c.isalpha() or c in " .,?!'\n-" for c in text)
    return text if text and text.isprintable() | ("\n" in text) and good >= 0.85 * len(text) else None


def _plain_letters(text: str) -> str:
    """Invisible characters dropped, compatibility forms folded, look-alikes of Latin letters in mixed words put right."""
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" or c == "\u200d")
    folded = unicodedata.normalize("NFKC", text)
    if any("a" <= c <= "z" for c in folded.lower()):
        folded = "".join(_latin(c) for c in folded)
    return folded


@lru_cache(maxsize=4_096)
def _latin(character: str) -> str:
    """The Latin letter that a Greek, Cyrillic or other letter looks like; else the character itself."""
    if character.isascii() or not character.isalpha() or unicodedata.name(character, "").startswith("LATIN"):
        return character
    from confusable_homoglyphs import confusables

    found = confusables.is_confusable(character, preferred_aliases=["latin"])
    for look in found[0]["homoglyphs"] if found else []:
        if len(look["c"]) == 1 and look["c"].isascii() and look["c"].isalpha():
            return str(look["c"])
    return character
