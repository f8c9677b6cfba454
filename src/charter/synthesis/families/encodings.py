"""Encodings: every character written in another alphabet, bare or with a line that says so. All of them can be undone."""

from __future__ import annotations

import base64 as b64
import binascii
import re
from collections.abc import Callable
from random import Random
from string import ascii_lowercase, ascii_uppercase
from urllib.parse import unquote

from charter.synthesis.families.family import Family
from charter.synthesis.families.frames import HOLE, Frames, either

SHIFTS = tuple(n for n in range(1, 26) if n != 13)
"""13 has a family of its own."""
MORSE = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz0123456789.,?'!/()&:;=+-_\"$@",
        ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
        "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----. .-.-.- --..-- ..--.. .----. -.-.-- -..-. -.--. -.--.- .-... "
        "---... -.-.-. -...- .-.-. -....- ..--.- .-..-. ...-..- .--.-.".split(),
        strict=True,
    )
)
LETTERS = {sign: letter for letter, sign in MORSE.items()}
_ENTITY = re.compile(r"&#(?:x([0-9a-f]+)|(\d+));")


def _named(name: str) -> Frames:
    """The bare text, and three ways to say how it is encoded."""
    return either(
        HOLE, f"Decode this {name} and answer it: {HOLE}", f"{HOLE}\n\nThat is {name}. Reply to what it says.",
        f"My next message is in {name}, please read it and reply in plain English.\n{HOLE}",
    )  # fmt: skip


def _encoding(
    name: str,
    description: str,
    frames: Frames,
    encode: Callable[[str, Random], str],
    decode: Callable[[str], str],
    folds_case: bool = False,
) -> Family:
    """A family of an encoding and its frames. `decode` raises ValueError on what it can't read."""

    def inverse(text: str) -> str:
        for inside in frames.contents(text):
            try:
                return decode(inside)
            except ValueError:
                continue
        return text

    return Family(name, description, "encoding", lambda text, rng: frames.put(encode(text, rng), rng), inverse, folds_case)


def _from_base64(text: str) -> str:
    try:
        return b64.b64decode(text, validate=True).decode()
    except binascii.Error as error:
        raise ValueError from error


def _hex(text: str, rng: Random) -> str:
    """Two digits a byte, one run or with spaces between."""
    return text.encode().hex(*rng.choice(((), (" ",))))


def _shifted(text: str, by: int) -> str:
    lower, upper = ascii_lowercase, ascii_uppercase
    return text.translate(str.maketrans(lower + upper, lower[by:] + lower[:by] + upper[by:] + upper[:by]))


CAESAR = {
    n: either(
        f"Caesar cipher with a shift of {n}, please decode and answer: {HOLE}",
        f"{HOLE}\n\nEvery letter above was moved {n} places forward in the alphabet. Reply to what it says.",
    )
    for n in SHIFTS
}


def _caesar(text: str, rng: Random) -> str:
    """By a shift that the frame names: without it the text could not be read."""
    by = rng.choice(SHIFTS)
    return CAESAR[by].put(_shifted(text, by), rng)


def _from_caesar(text: str) -> str:
    for by, frames in CAESAR.items():
        for inside in frames.contents(text):
            return _shifted(inside, -by % 26)
    return text


def _morse(text: str, rng: Random) -> str:
    """A sign a letter, a stroke for a space; what has no sign stands as it is."""
    return " ".join("/" if c == " " else MORSE.get(c.lower() if c.isascii() else c, c) for c in text)


def _from_morse(text: str) -> str:
    return "".join(" " if sign == "/" else LETTERS.get(sign, sign) for sign in text.split(" "))


def _binary(text: str, rng: Random) -> str:
    return " ".join(f"{byte:08b}" for byte in text.encode())


def _from_binary(text: str) -> str:
    return bytes(int(byte, 2) for byte in text.split(" ")).decode()


def _url(text: str, rng: Random) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _from_url(text: str) -> str:
    if not re.fullmatch(r"(%[0-9A-F]{2})*", text):
        raise ValueError
    return unquote(text, errors="strict")


def _html(text: str, rng: Random) -> str:
    """Every character as a numeric entity, all decimal or all hexadecimal."""
    form = rng.choice(("&#{};", "&#x{:x};"))
    return "".join(form.format(ord(c)) for c in text)


def _from_html(text: str) -> str:
    if not _ENTITY.match(text):
        raise ValueError
    return _ENTITY.sub(lambda m: chr(int(m[1], 16) if m[1] else int(m[2])), text)


ENCODINGS = (
    _encoding("base64", "encoded in base64", _named("base64"), lambda t, _: b64.b64encode(t.encode()).decode(), _from_base64),
    _encoding("hex", "bytes as hexadecimal digits", _named("hexadecimal"), _hex, lambda t: bytes.fromhex(t).decode()),
    _encoding("rot13", "letters moved by half of the alphabet", _named("ROT13"), lambda t, _: _shifted(t, 13), lambda t: _shifted(t, 13)),
    Family("caesar", "letters moved by a number of places that is named", "encoding", _caesar, _from_caesar),
    _encoding("morse", "Morse signs", _named("Morse code"), _morse, _from_morse, folds_case=True),
    _encoding("binary", "bytes as eight binary digits", _named("binary"), _binary, _from_binary),
    _encoding("url", "every byte as a URL escape", _named("percent-encoding"), _url, _from_url),
    _encoding("html", "every character as a numeric HTML entity", _named("HTML entities"), _html, _from_html),
)
