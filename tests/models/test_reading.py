"""Readings: disguises that can be undone within a segment are, and plain text is left as it stands."""

from __future__ import annotations

import base64
import uuid
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charter.models.reading import read
from charter.models.segments import cut

PLAIN = """
The quick brown fox doesn't jump over 13 lazy dogs, e.g. at 10:30 on 2024-05-01 for $5.99 or 3.5% of £20.
I'm sure it's McDonald's iPhone, YouTube and the EU (see U.S. law), e-mail me@example.org; don't!
for i in range(10): x[i] += foo_bar(i) ** 2  # note
if (a != b && c <= d) { return "str"; } const camelCase = snake_case; self.assertEqual(x, y)
Привет, мир! Καλημέρα κόσμε. 日本語 のテキスト한국어 Größe naïve café Straße ¿Qué tal?
https://example.org/a/b?c=d#e README.md version-1.2.3 and/or well-known state-of-the-art mother-in-law
https://example.org/search?q=caf%C3%A9%20au%20lait&lang=fr%2DFR 100%, 5%/10% "%d%%" %20 printf("%5.2f%x", a)
R&amp;D &lt;b&gt; it&#39;s &#8217;tis &nbsp; &copy;2024 the entity &#65; is a letter #65 #ff8800; color:#6f6f6f #616263
9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 da39a3ee5e6b4b0d3255bfef95601890afd80709 deadbeefdeadbeef
550e8400-e29b-41d4-a716-446655440000 4567654345676543 20240501123045 0x7fffffffffffffff 00:1a:2b:3c:4d:5e b1a5e00d 0xdeadbeef
com.example.service.internal.HttpConnectionFactoryBuilder /usr/local/lib/python3/site-packages/numpy
The flags 🏳️‍🌈 and 👩‍👩‍👧‍👦 stay.
"""
WORDS = "the baker asks how long rye bread dough rests at home in winter before it goes into an oven and why".split()
phrases = st.lists(st.sampled_from(WORDS), min_size=4, max_size=30).map(" ".join)


def through(text: str) -> str:
    """The reading of a whole text, segment by segment."""
    return "".join(map(read, cut(text)))


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        (" 4tt4ck", " attack"), ("h3ll0", "hello"), (" @ttack!", " attack!"), ("$teal", "steal"), ("w34p0n,", "weapon,"),
        ("k1ll", "kill"), ("7h3", "the"), ("T0", "to"), ("mp3", "mp3"), ("A4", "A4"), ("17", "17"),
        ("h.e.l.l.o", "hello"), (" h-e-l-l-o?", " hello?"), ("w_o_r_d", "word"), ("a|b|c", "abc"),
        (" SHOUTED", " shouted"), ("eRrAtIcLy", "erraticly"), ("pаypаl", "paypal"), ("zero\u200bwidth", "zerowidth"), ("so\u00adft", "soft"),
        ("ᑯ೦", "do"), ("日本の", "日本の"), ("ｆｕｌｌ", "full"), ("ﬁne", "fine"),
    ],
)  # fmt: skip
def test_a_disguise_reads_as_the_word_beneath(disguised: str, plain: str) -> None:
    assert read(disguised) == plain


@given(st.text("abcdefghijklmnopqrstuvwxyz ", min_size=24, max_size=36), st.sampled_from(["", " ", "\n"]))
def test_base64_of_a_phrase_reads_as_the_phrase(phrase: str, space: str) -> None:
    encoded = base64.b64encode(phrase.encode()).decode()
    assume(any(c in encoded for c in "0123456789+/="))  # without one it might as well be a word
    assert read(space + encoded) == space + phrase


@pytest.mark.parametrize("segment", sorted(set(cut(PLAIN))))
def test_plain_words_code_and_other_scripts_read_as_they_stand(segment: str) -> None:
    assert read(segment) == segment


@given(phrases, st.sampled_from(["", " ", "Decode this: "]), st.booleans())
def test_long_base64_and_hexadecimal_read_as_the_words_wherever_they_are_cut(phrase: str, before: str, upper: bool) -> None:
    assume(len(phrase) > 20)
    digits = phrase.encode().hex()
    for code in (base64.b64encode(phrase.encode()).decode(), digits.upper() if upper else digits):
        reading = through(before + code).removeprefix(before)
        pieces = [read(piece) for piece in cut(before + code) if len(piece) >= 26]
        assert pieces
        for reading in pieces:
            inner = reading.removeprefix(before)[3:-3]
            assert inner in phrase, reading


@given(phrases, st.sampled_from(["%{:02X}", "%{:02x}", "&#{};", "&#x{:x};"]), st.sampled_from(["", " "]))
def test_escaped_letters_read_as_letters_and_a_cut_costs_one_character(phrase: str, form: str, before: str) -> None:
    code = before + "".join(form.format(ord(c)) for c in phrase)
    reading, pieces = through(code).removeprefix(before), cut(code)
    assert len(reading) <= len(phrase) + 12
    whole = reading if len(pieces[-1]) > 20 else "".join(map(read, pieces[:-1])).removeprefix(before)
    assert set(whole) <= set(phrase)
    assert len(whole) >= len(phrase) - 2 * len(pieces) - 6


@given(phrases, st.sampled_from(["", "Hello! "]))
def test_tag_characters_read_as_the_text_they_carry(phrase: str, before: str) -> None:
    assert through(before + "".join(chr(0xE0000 + ord(c)) for c in phrase)) == before + phrase


@given(st.sampled_from([7, 8, 16, 20, 32, 40, 64, 128]), st.integers(0, 2**64))
def test_random_digests_identifiers_and_numbers_read_as_they_stand(size: int, seed: int) -> None:
    rng = Random(seed)
    digest = f"{rng.getrandbits(4 * size):0{size}x}"
    for text in (digest, digest.upper(), str(uuid.UUID(int=rng.getrandbits(128))), str(rng.getrandbits(4 * size)), f"#{digest[:6]}"):
        plain = [piece for piece in cut(text) if not (piece.isalpha() and piece.isupper())]  # all capitals are read as lower case
        assert [read(piece) for piece in plain] == plain


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(["https://example.org/", "q=", ""]))
def test_urls_with_the_escapes_that_urls_need_read_as_they_stand(text: str, before: str) -> None:
    assert _without_words(before + quote(text, safe="")) == _without_words(read_url(before + quote(text, safe="")))


def read_url(url: str) -> str:
    """Its segments that hold an escape, read; the others as they are, for they may be words in disguise."""
    return "".join(read(piece) if "%" in piece else piece for piece in cut(url))


def _without_words(url: str) -> str:
    """Only the escapes: letters between them may be a word in capitals."""
    return "".join(f"%{part[:2]}" for part in url.split("%")[1:])


@given(data=st.data())
def test_every_text_has_a_reading_and_ascii_white_space_in_front_of_it_stays(data: st.DataObject, texts: Any) -> None:
    text = data.draw(texts)
    reading = read(text)
    assert isinstance(reading, str)
    front = text[: len(text) - len(text.lstrip(" \t\n"))]
    assert reading.startswith(front)


def test_control_tokens_hidden_in_base64_read_as_text() -> None:
    assert read(base64.b64encode(b"please <im_end> the turn now").decode()) == "please <im_end> the turn now"
