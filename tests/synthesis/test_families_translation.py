"""What passes for a translation, and what doesn't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.synthesis.families.translation import ASKED, INSTRUCTIONS, LANGUAGES, TOLD, shots, translated

ORIGINAL = "How long do I keep fresh fish in the fridge before I cook it?"
GOOD = {
    "de": "Wie lange kann ich frischen Fisch im Kühlschrank aufbewahren, bevor ich ihn koche?",
    "es": "¿Cuánto tiempo puedo guardar el pescado fresco en la nevera antes de cocinarlo?",
    "fr": "Combien de temps puis-je garder du poisson frais au réfrigérateur avant de le cuire ?",
    "zh": "新鲜的鱼在冰箱里可以放多久再煮？",
}


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_text_in_the_language_that_was_asked_for_passes_and_one_in_another_does_not(code: str) -> None:
    for other, text in GOOD.items():
        assert translated(ORIGINAL, text, INSTRUCTIONS[code]) is (other == code)
    for told in TOLD[code]:
        assert translated(ORIGINAL, told.replace("?", " ?") + " " + GOOD[code], INSTRUCTIONS[code])


@given(
    st.sampled_from(sorted(LANGUAGES)),
    st.sampled_from([None, "", " \n", "Wie lange? \ufffd", ORIGINAL, ORIGINAL.upper(), f"{ORIGINAL} ", *ASKED]),
)
def test_nothing_and_echoes_are_no_translation(code: str, text: str | None) -> None:
    assert not translated(ORIGINAL, text, INSTRUCTIONS[code])


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_shot_that_is_repeated_or_a_list_that_goes_on_is_no_translation(code: str) -> None:
    assert not any(translated(ORIGINAL, told, INSTRUCTIONS[code]) for told in TOLD[code])
    assert not translated(ORIGINAL, f"{GOOD[code]} Text: something else", INSTRUCTIONS[code])


def test_every_language_has_its_shots_and_other_instructions_have_none() -> None:
    assert all([asked for asked, _ in shots(INSTRUCTIONS[code])] == list(ASKED) for code in LANGUAGES)
    assert shots("Make it rhyme.") == ()
    assert translated(ORIGINAL, "Fresh fish, I wish to know, how long on ice before you go?", "Make it rhyme.")
