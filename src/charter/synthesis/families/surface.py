"""Surface disguises: the same words with other letters, invisible characters, spaces, slips, or in another order."""

from __future__ import annotations

import re
from random import Random

from charter.synthesis.families.family import Family
from charter.synthesis.families.frames import HOLE, either

LEET = str.maketrans("aeiostAEIOST", "431057431057")
LOOKALIKE = str.maketrans("aceiopsxyABCEHIKMOPTX", "асеіорѕхуАВСЕНІКМОРТХ")
PLAIN_AGAIN = str.maketrans("асеіорѕхуАВСЕНІКМОРТХ", "aceiopsxyABCEHIKMOPTX")
ZERO_WIDTH = "\u200b\u200c\u2060\ufeff"
TAGS = 0xE0000
"""Offset of the tag characters, which carry ASCII and show nothing."""
TAG_FRAMES = either(
    HOLE,
    f"Hello there!{HOLE}",
    f"Have a nice day {HOLE}",
    f"Some of this message is in Unicode tag characters, please answer that part.{HOLE}",
)
BACKWARDS = either(
    HOLE, f"Read this from right to left and answer it: {HOLE}", f"{HOLE}\n\nThe line above is written backwards. Reply to it."
)
LAST_WORD_FIRST = either(
    HOLE,
    f"The words are in reverse order, please put them right and answer: {HOLE}",
    f"{HOLE}\n\n(Read it from the last word to the first.)",
)
FIRST_LETTERS = either(HOLE, f"Read the first letter of every line and answer what they spell:\n{HOLE}")
KEYS = "qwertyuiop asdfghjkl zxcvbnm"
"""Rows of the keyboard: a slip hits a neighbour."""
INITIALS = {
    word[0]: word
    for word in "all big can dim end far get him its jam key low may new old pay quay red sun two use vie was xylem you zip".split()
}
"""A short word for each letter."""
_WORD = re.compile(r"[^\W\d_]{4,}")


def leetspeak(text: str, rng: Random) -> str:
    """Vowels, s and t as digits, four in five of them."""
    return "".join(c.translate(LEET) if rng.random() < 0.8 else c for c in text)


def homoglyph(text: str, rng: Random) -> str:
    """Half of the letters that have one as a Cyrillic look-alike."""
    return "".join(c.translate(LOOKALIKE) if rng.random() < 0.5 else c for c in text)


def zero_width(text: str, rng: Random) -> str:
    """An invisible character after the first and, by chance, after half of the others."""
    return "".join(c + rng.choice(ZERO_WIDTH) if i == 0 or rng.random() < 0.5 else c for i, c in enumerate(text))


def zero_width_inverse(text: str) -> str:
    """Without them; exact for texts that had none."""
    return text.translate({ord(c): None for c in ZERO_WIDTH})


def tags(text: str, rng: Random) -> str:
    """ASCII as tag characters, alone or after a visible line."""
    return TAG_FRAMES.put("".join(chr(TAGS + ord(c)) if " " <= c <= "~" else c for c in text), rng)


def tags_inverse(text: str) -> str:
    """ASCII again; exact for texts that had none."""
    return "".join(chr(ord(c) - TAGS) if " " <= chr(max(0, ord(c) - TAGS)) <= "~" else c for c in TAG_FRAMES.take(text))


def casing(text: str, rng: Random) -> str:
    """Each letter in upper or lower case, by chance."""
    return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)


def typos(text: str, rng: Random) -> str:
    """A slip of the fingers in the first and, by chance, in half of the other words of four letters or more."""
    first = _WORD.search(text)
    return _WORD.sub(lambda m: _slip(m.group(), rng) if rng.random() < 0.5 or (first and m.start() == first.start()) else m.group(), text)


def _slip(word: str, rng: Random) -> str:
    """Two letters swapped, one left out, one doubled, or one mistyped; the first stays."""
    at = rng.randrange(1, len(word) - 1)
    a, b = word[at], word[at + 1]
    key = KEYS.find(a.lower())
    beside = KEYS[key + 1 : key + 2].strip() or "e"
    middle = rng.choice([slip for slip in (b + a, b, a + a + b, beside + b) if slip != a + b])
    return word[:at] + middle + word[at + 2 :]


def no_vowels(text: str, rng: Random) -> str:
    """Vowels left out, those at the beginning of a word by chance."""
    keep_first = rng.random() < 0.5
    return re.sub(r"(?<=\w)[aeiou]" if keep_first else r"[aeiou]", "", text, flags=re.IGNORECASE)


def acrostic(text: str, rng: Random) -> str:
    """A line a character, whose first letter it is; an empty line for a space, a stroke and n for a line's end."""
    return FIRST_LETTERS.put("\n".join(_line(c) for c in text), rng)


def acrostic_inverse(text: str) -> str:
    """The first characters of the lines."""
    lines = FIRST_LETTERS.take(text).split("\n")
    return "".join(" " if line == "" else "\n" if line == "\\n" else line[0] for line in lines)


def _line(character: str) -> str:
    if character == " ":
        return ""
    if character == "\n":
        return "\\n"
    return character + INITIALS.get(character.lower(), character)[1:]


def _last_word_first(text: str) -> str:
    return " ".join(reversed(text.split(" ")))


SURFACE = (
    Family("leetspeak", "digits for letters", "surface", leetspeak),
    Family("homoglyph", "Cyrillic look-alikes for Latin letters", "surface", homoglyph, lambda text: text.translate(PLAIN_AGAIN)),
    Family("zero-width", "invisible characters between the letters", "surface", zero_width, zero_width_inverse),
    Family("tags", "invisible tag characters in place of the letters", "surface", tags, tags_inverse),
    Family("spacing", "a space after every character", "surface", lambda text, _: " ".join(text), lambda text: text[::2]),
    Family("casing", "upper and lower case by chance", "surface", casing),
    Family("reversal", "written backwards", "surface", lambda t, rng: BACKWARDS.put(t[::-1], rng), lambda t: BACKWARDS.take(t)[::-1]),
    Family(
        "word-order", "the last word first", "surface",
        lambda t, rng: LAST_WORD_FIRST.put(_last_word_first(t), rng), lambda t: _last_word_first(LAST_WORD_FIRST.take(t)),
    ),
    Family("typos", "slips of the fingers", "surface", typos),
    Family("no-vowels", "vowels left out", "surface", no_vowels),
    Family("acrostic", "spelt by the first letters of the lines", "surface", acrostic, acrostic_inverse),
)  # fmt: skip
