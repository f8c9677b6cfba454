"""What a scorer reads in place of a disguised segment: the plain word underneath.

A disguise that can be undone within one segment is undone before encoding, in training and serving alike: invisible and tag
characters, look-alike letters, base64, hexadecimal bytes, URL and HTML escapes of letters, leetspeak, dotted letters, erratic
or all-capital casing. Everything else is read as it stands. A long run without white space comes in pieces of 64 characters,
so a code that is cut in two between them loses that character and no more.
The reading only feeds the scorers: what is released is always the original text.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

from charter.models.segments import cut

_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")
_BASE64_SIGN = re.compile(r"[0-9+/=]|[a-z][A-Z]")
_BASE64_PIECE = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
"""A piece of a longer run, which may begin and end anywhere within a group of four."""
_HEX = re.compile(r"(?:0x)?([0-9A-Fa-f]{16,})")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_LETTER_ESCAPE = re.compile(r"%(?:4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa])")
_ESCAPES_ONLY = re.compile(r"[0-9A-Fa-f]{0,2}((?:%[0-9A-Fa-f]{2}){4,})(?:%[0-9A-Fa-f]?)?")
_ENTITY = re.compile(r"&#(?:[xX]([0-9A-Fa-f]{1,5})|([0-9]{1,6}));")
_ENTITIES_ONLY = re.compile(r"(?:#?[xX]?[0-9A-Fa-f]{0,5};)?((?:&#[xX]?[0-9A-Fa-f]{1,6};){3,})(?:&#?[xX]?[0-9A-Fa-f]{0,5})?")
_LETTER_ESCAPES = 2
"""Escapes of plain letters from which a text is disguised: nobody needs them, but one may come up in talk about escapes."""
_TAGS = 0xE0000
_TAG = re.compile("[\U000e0020-\U000e007e]+")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
_JOINED = re.compile(r"(?<=[A-Za-z0-9])\u200d(?=[A-Za-z0-9])")
_LEET = str.maketrans("013457@$!", "oieastasi")
"""A one may stand for an l as well; i is the more frequent letter."""
_LEET_WORD = re.compile(r"[A-Za-z013457@$!]*[A-Za-z][013457@$!]+[A-Za-z][A-Za-z013457@$!]*")
_LEET_START = re.compile(r"[013457@$][A-Za-z]{3,}")
_LEET_SHORT = frozenset("to do so no on of or is it in if as at an am the how who why was his she has can for from not out".split())
"""Words that are too short to be told by their form from names such as mp3."""
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9a-f]{7,}|[0-9A-F]{7,}")
"""A hexadecimal number or hash, which is no word in digits."""
_COLOUR = re.compile(r"[0-9A-Fa-f]{3,8}")
_DOTTED = re.compile(r"(?:[^\W_][.\-_*|]){2,}[^\W_]")
_TOGETHER = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "HANGUL", "BOPOMOFO", "DIGIT", "EXTENDED", "COMBINING"}
)
"""First words of the names of characters that one word may hold beside those of another script."""
_EDGES = re.compile(r"^([\s\W_]*)(.*?)([\s\W_]*)$", re.DOTALL)


@lru_cache(maxsize=65_536)
def read(segment: str) -> str:
    """The plain reading of a segment, white space in front kept; the segment itself where nothing is disguised."""
    text = segment if segment.isascii() else _plain_letters(segment)
    core = text.lstrip()
    space = text[: len(text) - len(core)]
    for undo in (_from_hex, _from_base64, _from_escapes, _from_entities):
        decoded = undo(core)
        if decoded is not None:
            return space + decoded
    front, word, back = _split(core)
    word = word if front.endswith("#") and _COLOUR.fullmatch(word) else _word(word)
    return space + front + word + back


def undone(text: str) -> str:
    """The plain reading of a whole text, segment by segment."""
    return "".join(map(read, cut(text)))


def _word(word: str) -> str:
    if _DOTTED.fullmatch(word):
        word = re.sub(r"[.\-_*|]", "", word)
    plain = word.lower().translate(_LEET)
    short = plain in _LEET_SHORT and word.isalnum() and not word.isdecimal()
    if short or ((_LEET_WORD.fullmatch(word) or _LEET_START.fullmatch(word)) and not _NUMBER.fullmatch(word)):
        word = plain if plain.isalpha() and plain != word.lower() else word
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
    if not _BASE64.fullmatch(body) or not _BASE64_SIGN.search(body) or _NUMBER.fullmatch(body):
        return None
    if len(body) % 4 == 0 and (text := _group(body)) is not None:
        return text
    if not _BASE64_PIECE.fullmatch(body):
        return None
    shifted = (body.rstrip("=")[start:] for start in range(4))
    return next((text for piece in shifted if (text := _group(piece[: len(piece) // 4 * 4])) is not None), None)


def _group(body: str) -> str | None:
    """Text behind whole groups of base64, or None."""
    try:
        return _sensible(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        return None


def _from_hex(core: str) -> str | None:
    """Text behind hexadecimal bytes, or None. Numbers and hashes practically never decode to words."""
    match = _HEX.fullmatch(core.strip("\"'`()[]<>,.:;"))
    if match is None or (match[1].isdecimal() and len(match[1]) < 24):
        return None
    digits = match[1]
    for start in (0, 1) if len(digits) > 48 or len(digits) % 2 else (0,):
        text = _sensible(bytes.fromhex(digits[start : start + (len(digits) - start) // 2 * 2]))
        if text is not None and not re.search("[a-z][A-Z]", text):
            return text
    return None


def _from_escapes(core: str) -> str | None:
    """The text with its URL escapes undone, or None where fewer than two of them stand for plain letters."""
    if len(_LETTER_ESCAPE.findall(core)) < _LETTER_ESCAPES:
        return None
    only = _ESCAPES_ONLY.fullmatch(core)
    return unquote(only[1] if only else core, errors="replace").replace("\ufffd", "")


def _from_entities(core: str) -> str | None:
    """The text with its numeric HTML entities undone, or None where fewer than two of them stand for plain letters."""
    if "&#" not in core:
        return None
    letters = sum(c.isascii() and c.isalpha() for c in (_character(m) for m in _ENTITY.finditer(core)))
    if letters < _LETTER_ESCAPES:
        return None
    only = _ENTITIES_ONLY.fullmatch(core)
    return _ENTITY.sub(_character, only[1] if only else core)


def _character(match: re.Match[str]) -> str:
    """What an entity stands for; itself where that is no character."""
    number = int(match[1], 16) if match[1] else int(match[2])
    return chr(number) if 0x20 <= number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]


def _sensible(data: bytes) -> str | None:
    """The bytes as text if that is printable and mostly letters, or None."""
    # A run cut after 64 characters may break a multi-byte character at its edges.
    text = data.decode("utf-8", errors="replace").strip("\ufffd")
    good = sum(c.isalpha() or c in " .,?!'\n-" for c in text)
    sound = "\ufffd" not in text and len(text.encode()) >= 0.75 * len(data)
    return text if text and sound and text.isprintable() | ("\n" in text) and good >= 0.85 * len(text) else None


def _plain_letters(text: str) -> str:
    """Tag characters as the ASCII they carry, invisible ones dropped, compatibility forms folded, look-alikes in mixed words put right."""
    text = _JOINED.sub("", _TAG.sub(_untagged, _FLAG.sub("\U0001f3f4", text)))
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" or c == "\u200d")
    folded = unicodedata.normalize("NFKC", text)
    if any("a" <= c <= "z" for c in folded.lower()) or len({_script(c) for c in folded if c.isalnum()} - _TOGETHER) > 1:
        folded = "".join(_latin(c) for c in folded)
    return folded


@lru_cache(maxsize=4_096)
def _script(character: str) -> str:
    return unicodedata.name(character, "none").split()[0].removesuffix("-INDIC")


def _untagged(run: re.Match[str]) -> str:
    return "".join(chr(ord(c) - _TAGS) for c in run[0])


@lru_cache(maxsize=4_096)
def _latin(character: str) -> str:
    """The Latin letter that a Greek, Cyrillic or other letter or digit looks like; else the character itself."""
    if character.isascii() or not character.isalnum() or unicodedata.name(character, "").startswith("LATIN"):
        return character
    from confusable_homoglyphs import confusables

    found = confusables.is_confusable(character, preferred_aliases=["latin"])
    for look in found[0]["homoglyphs"] if found else []:
        if len(look["c"]) == 1 and look["c"].isascii() and look["c"].isalpha():
            return str(look["c"])
    return character
