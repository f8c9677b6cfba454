"""Whether the meaning survived: yes for every family's own disguise, no for the disguise of another text."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.synthesis.families import DRAWN, FAMILIES, FOLLOWS, LEADS, Family, family
from charter.synthesis.families.meaning import keeps

SUBJECTS = ("rye bread", "an old piano", "Norwegian sweaters", "the garden fence", "quarterly reports", "mountain bicycles", "lemon curd")
DOINGS = ("repair", "describe", "photograph", "transport", "clean", "measure", "advertise")
PLACES = ("in a small flat", "before winter", "with my daughter", "without spending much", "for the village fair")
requests = st.builds(
    "{} {} {} {}?".format,
    st.sampled_from(("How do I", "Can you tell me how to")),
    st.sampled_from(DOINGS),
    st.sampled_from(SUBJECTS),
    st.sampled_from(PLACES),
)
STACKS = [
    family(f"{a}+{b}")
    for a in DRAWN
    for b in DRAWN
    if FAMILIES[a].kind in LEADS and FAMILIES[b].kind in FOLLOWS and not FAMILIES[a].across_turns
]


@given(requests, st.integers(), st.sampled_from([FAMILIES[name] for name in ("plain", *DRAWN)]))
def test_what_a_family_makes_of_a_text_still_means_it(original: str, seed: int, chosen: Family) -> None:
    assert keeps(original, chosen.apply(original, Random(seed)), chosen)


def test_nearly_all_that_stacks_make_of_a_text_still_means_it() -> None:
    original = "How do I transport an old piano without spending much?"
    lost = [s.name for s in STACKS if not keeps(original, s.apply(original, Random(1)), s)]
    assert len(lost) <= 0.02 * len(STACKS), lost


@pytest.mark.parametrize("name", [*DRAWN, "plain", "fiction:novel+no-vowels", "json+leetspeak", "slang+typos", "past-tense+base64"])
def test_the_disguise_of_another_text_does_not_mean_it(name: str) -> None:
    original, other = "How do I clean Norwegian sweaters before winter?", "Can you tell me who won the chess match at Hastings?"
    chosen = family(name)
    assert not any(keeps(original, chosen.apply(other, Random(seed)), chosen) for seed in range(10))


@given(
    requests, st.integers(0, 9), st.sampled_from(["base64", "hex", "morse", "reversal", "roleplay:experts", "json", "payload-splitting"])
)
def test_a_disguise_that_was_cut_short_does_not_mean_it(original: str, seed: int, name: str) -> None:
    disguised = str(FAMILIES[name].apply(original, Random(seed)))
    assert not keeps(original, disguised[: len(disguised) // 8], FAMILIES[name])


def test_one_word_in_five_may_be_lost_and_no_more() -> None:
    original = "paint seven wooden chairs quickly"
    plain = FAMILIES["third-person"]
    assert keeps(original, "paint seven wooden chairs", plain)
    assert not keeps(original, "paint seven wooden", plain)


def test_nothing_keeps_the_meaning_of_nothing() -> None:
    assert not keeps("  ", "anything", FAMILIES["plain"])
    assert not keeps("12 + 30", "an answer", FAMILIES["slang"])
    assert keeps("12 + 30", "so what is 12 + 30 then", FAMILIES["slang"])
