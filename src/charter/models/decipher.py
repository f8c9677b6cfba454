"""What a turn says that is disguised as a whole.

`reading` undoes what can be undone within a word, as text streams in. A prompt is there from the start, so here the rest is undone that
can be: letters moved through the alphabet or mirrored in it, digits for letters, text or words written backwards, letters with spaces
between, Morse signs, bytes as binary, hexadecimal or decimal numbers, lines whose first letters spell the text, strings in code that
are put together.

No disguise is recognised by its look alone. A way of undoing is taken where what comes out is language, which a tokenizer tells: it writes
language in few tokens, and anything else in many. So there is nothing to learn, and plain text is left alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import partial
from itertools import chain, pairwise, product
from string import ascii_lowercase as lower
from string import ascii_uppercase as upper

Tokens = Callable[[str], int]
"""How many tokens a text has."""
Way = Callable[[str], str]
Undo = Callable[[str], str | None]
LANGUAGE = 2.5
"""Characters a token: English has 4.5, German 3, English in a cipher less than 2."""
LETTERS = 2.0
"""Letters a token that the outcome must have."""
GAIN = 1.5
"""How many times fewer tokens the outcome must have."""
FEWEST = 8
"""Characters that are worth it: fewer may become a word by chance."""
SAMPLE = 400
"""Characters by which the way of undoing is chosen."""
MOST_ONES = 4
"""In a word, of which every reading is tried."""
MORSE = dict(zip(
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. .----. -....- -..-. -.--. -.--.- .-..-. ---...".split(),
    "abcdefghijklmnopqrstuvwxyz0123456789.,?'-/()\":", strict=True,
))  # fmt: skip
"""ITU-R M.1677-1."""
_MORSE = re.compile(r"(?<!\S)[.\-]{1,6}(?:\s+(?:[.\-]{1,6}|/|[^\w\s]+)){5,}(?!\S)")
_SPACED = re.compile(r"(?<!\S)(?:\S +){5,}\S(?!\S)")
_BYTES = {2: r"[01]{8}", 16: r"(?:0x|\\x)?[0-9A-Fa-f]{2}", 10: r"1?[0-9]{2}"}
_BETWEEN = tuple(map(re.compile, (r"\n+", r"[\n:\"“”]+\s*", r"(?<=[.!?])\s+|[\n:\"“”]+\s*")))
"""What parts of a text stand between, from large parts to small ones: lines, what a colon or quotes set off, sentences."""
_LEET = str.maketrans("03457892@$", "oeastbgzas")
_LEET_WORD = re.compile(r"[A-Za-z][0-9]|[0-9][A-Za-z]")
_ASSIGNED = re.compile(r"""(\w+)\s*=\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')""")
_SUM = re.compile(r"\w+(?:\s*\+\s*\w+)+")


def deciphered(text: str, tokens: Tokens) -> str | None:
    """A text with what is disguised in it undone; None where nothing is."""
    for whole in (_put_together, _first_letters):
        if (found := whole(text)) is not None and _is_language(found, tokens):
            return found
    out = text
    for pattern, undo in _RUNS:
        out = pattern.sub(partial(_run, undo=undo, tokens=tokens), out)
    for between in _BETWEEN:
        ends = [0, *(end for match in between.finditer(out) for end in match.span()), len(out)]
        out = "".join(_letters_undone(out[a:b], tokens) for a, b in pairwise(ends))
    return None if out == text else out


def _is_language(text: str, tokens: Tokens) -> bool:
    letters = sum(map(str.isalpha, text))
    return letters >= FEWEST and letters >= LETTERS * tokens(text)


def _run(match: re.Match[str], undo: Undo, tokens: Tokens) -> str:
    return _if_language(match[0], undo(match[0]), tokens)


def _if_language(text: str, found: str | None, tokens: Tokens) -> str:
    """What was found in a text, if it is language; else the text."""
    return text if found is None or not _is_language(found, tokens) or GAIN * tokens(found) > tokens(text) else found


def _letters_undone(part: str, tokens: Tokens) -> str:
    """A part with its letters moved or its order turned, whichever is shortest in tokens; itself where it is none of that."""
    sample = part[:SAMPLE]
    if sum(c.isascii() and c.isalpha() for c in sample) < FEWEST or len(sample) >= LANGUAGE * tokens(sample):
        return part
    ways: tuple[Way, ...] = (*_WAYS, partial(_digits_out, tokens=tokens))
    way = min(ways, key=lambda way: tokens(way(sample)))
    return way(part) if _if_language(sample, way(sample), tokens) != sample else part


def _moved(by: int) -> Way:
    table = str.maketrans(lower + upper, lower[by:] + lower[:by] + upper[by:] + upper[:by])
    return lambda text: text.translate(table)


def _mirrored(text: str) -> str:
    return text.translate(str.maketrans(lower + upper, lower[::-1] + upper[::-1]))


def _turned(text: str) -> str:
    """Read from the right; where the mark that ends a sentence is in front of the last word, word by word."""
    return re.sub(r"\S+", lambda match: match[0][::-1], text) if re.search(r"\s[.?!]\S+\s*$", text) else text[::-1]


def _digits_out(text: str, tokens: Tokens) -> str:
    """Digits as the letters that they look like, a one as i or l, whichever makes the word shorter; not where few words have both."""

    def word(match: re.Match[str]) -> str:
        halves = match[0].translate(_LEET).split("1")
        ones = product("il", repeat=len(halves) - 1) if len(halves) <= MOST_ONES + 1 else [("i",) * (len(halves) - 1)]
        readings = ("".join(chain.from_iterable(zip(halves, (*own, ""), strict=True))) for own in ones)
        return min(readings, key=lambda read: tokens(f" {read}"))

    words = text.split()
    both = sum(bool(_LEET_WORD.search(word)) for word in words)
    return re.sub(r"\S+", word, text) if 3 * both >= len(words) else text


_WAYS: tuple[Way, ...] = (*map(_moved, range(1, 26)), _mirrored, _turned)


def _spaces_out(text: str) -> str:
    """Letters with a space after each; where words are apart by more, the rest of that space stays."""
    return re.sub(r" ( *)", lambda match: " " if match[1] else "", text)


def _from_morse(text: str) -> str:
    return "".join(" " if sign == "/" else MORSE.get(sign, sign) for sign in re.sub(r" {2,}|\n", " / ", text).split(" "))


def _from_bytes(base: int) -> Undo:
    def undo(text: str) -> str | None:
        found = bytes(number for sign in re.findall(_BYTES[base], text) if (number := int(sign.removeprefix("\\x"), base)) < 256)
        said = found.decode(errors="replace")
        return None if "\ufffd" in said else said

    return undo


_RUNS: tuple[tuple[re.Pattern[str], Undo], ...] = (
    (_SPACED, _spaces_out),
    (_MORSE, _from_morse),
    *((re.compile(rf"(?<!\w)(?:{sign}[ ,;]*){{5,}}(?!\w)"), _from_bytes(base)) for base, sign in _BYTES.items()),
)


def _first_letters(text: str) -> str | None:
    """What the first characters of the lines spell, an empty line for a space; None where there are few, and where lines are indented."""
    lines = text.split("\n")
    found = "".join(line[:1] or " " for line in lines)
    return found if len(set(found)) > FEWEST and not any(line[:1].isspace() for line in lines) else None


def _put_together(text: str) -> str | None:
    """What strings in variables are added up to; None where none are."""
    parts = dict(_ASSIGNED.findall(text))
    sums = [names for found in _SUM.findall(text) if set(names := re.findall(r"\w+", found)) <= parts.keys()]
    try:
        return "".join(str(ast.literal_eval(parts[name])) for name in sums[-1]) if sums else None
    except (SyntaxError, ValueError):
        return None
