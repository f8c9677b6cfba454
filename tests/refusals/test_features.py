"""What the classifier reads: the same for any writing of the same words, and deaf to refusals that somebody else makes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.refusals.features import STATED, WIDTH, features, refusing, words

TEXTS = st.text(max_size=300)


@given(TEXTS)
def test_every_text_gives_finite_columns_within_the_width(text: str) -> None:
    row = features(text)
    assert all(0 <= column < WIDTH and math.isfinite(value) for column, value in row.items())
    assert row == features(text)


@given(st.lists(st.sampled_from("stones apples rivers seven green lamps".split()), min_size=1, max_size=60))
def test_each_part_has_unit_length_unless_buckets_collide(found: list[str]) -> None:
    hashed = [value for column, value in features(" ".join(found)).items() if column >= STATED]
    assert sum(value * value for value in hashed) == pytest.approx(2.0, abs=0.5)


@pytest.mark.parametrize("text", ["I can't do it", "I can’t do it", "I CANNOT do it", "i can not do it", "I cant do it"])
def test_contractions_are_written_out(text: str) -> None:
    assert words(text) == ["i", "cannot", "do", "it"]


@given(st.lists(st.sampled_from("stones apples rivers seven green lamps".split()), max_size=40))
def test_the_place_of_a_refusal_is_the_number_of_words_before_it(before: list[str]) -> None:
    found = refusing(" ".join([*before, "I cannot go on."]))
    assert found.first == len(before)
    assert found.words == len(before) + 4


def test_a_refusal_in_quotation_or_code_is_somebody_elses() -> None:
    for text in ('The clerk said: "I cannot help you." Then he left.', "Run this:\n```python\nprint('I cannot do that')\n```\nand look."):
        assert refusing(text).first is None
    assert refusing('"I cannot help you."').first == 0, "where all is quoted, it is the reply itself"


def test_an_apostrophe_does_not_hide_a_refusal() -> None:
    assert refusing("It's Ann's garden, and I can't tell you what's in it.").first is not None
