"""Readings: disguises that can be undone within a segment are, and plain text is left as it stands."""

from __future__ import annotations

import base64
from typing import Any

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
"""


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        (" 4tt4ck", " attack"), ("h3ll0", "hello"), (" @ttack!", " attack!"), ("$teal", "steal"), ("w34p0n,", "weapon,"),
        ("h.e.l.l.o", "hello"), (" h-e-l-l-o?", " hello?"), ("w_o_r_d", "word"), ("a|b|c", "abc"),
        (" SHOUTED", " shouted"), ("eRrAtIcLy", "erraticly"), ("pаypаl", "paypal"), ("zero\u200bwidth", "zerowidth"), ("so\u00adft", "soft"),
        ("ｆｕｌｌ", "full"), ("ﬁne", "fine"),
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


@given(data=st.data())
def test_every_text_has_a_reading_and_ascii_white_space_in_front_of_it_stays(data: st.DataObject, texts: Any) -> None:
    text = data.draw(texts)
    reading = read(text)
    assert isinstance(reading, str)
    front = text[: len(text) - len(text.lstrip(" \t\n"))]
    assert reading.startswith(front)


def test_control_tokens_hidden_in_base64_read_as_text() -> None:
    assert read(base64.b64encode(b"please <im_end> the turn now").decode()) == "please <im_end> the turn now"
