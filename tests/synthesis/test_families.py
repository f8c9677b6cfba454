from __future__ import annotations

import unicodedata
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.synthesis.families import FAMILIES, Family

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)
INVERTIBLE = [family for family in FAMILIES.values() if family.inverse]


@given(text, st.integers(), st.sampled_from(INVERTIBLE))
def test_the_inverse_gives_the_text_back(original: str, seed: int, family: Family) -> None:
    assert family.inverse is not None
    if family.name == "homoglyph":
        original = original.translate({code: None for code in range(0x400, 0x500)})
    assert family.inverse(family.apply(original, Random(seed))) == original


@given(text, st.integers(), st.sampled_from(list(FAMILIES.values())))
def test_a_family_depends_on_the_text_and_the_generator_alone(original: str, seed: int, family: Family) -> None:
    assert family.apply(original, Random(seed)) == family.apply(original, Random(seed))


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "plain"])
def test_every_disguise_changes_an_ordinary_sentence(name: str) -> None:
    original = "Which boats sail to the islands on Tuesday?"
    assert FAMILIES[name].apply(original, Random(1)) != original
    assert FAMILIES[name].description


def test_homoglyphs_look_the_same_and_are_other_letters() -> None:
    disguised = FAMILIES["homoglyph"].apply("a piece of cake" * 5, Random(0))
    changed = [c for c in disguised if ord(c) > 127]
    assert len(changed) > 10
    assert all(unicodedata.name(c).startswith("CYRILLIC") for c in changed)


def test_leetspeak_and_casing_keep_the_length_and_casing_keeps_the_letters() -> None:
    original = "The quick brown fox eats oats."
    assert len(FAMILIES["leetspeak"].apply(original, Random(0))) == len(original)
    assert FAMILIES["casing"].apply(original, Random(0)).lower() == original.lower()
