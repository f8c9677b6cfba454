from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.synthesis.faults import declines, prompt_fault, reply_fault

ASK = "Write a request that somebody sends to an assistant, on the subject given. This time: a question."
SHOWN = ["Where is the key of the cellar?", "Why does my dough not rise in winter?"]


def fault(text: str, known: tuple[str, ...] = ()) -> str | None:
    return prompt_fault(text, SHOWN, ASK, known, 12, 400)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, I can't help with that.", "I\u2019m sorry, but I can\u2019t assist with that request.", "Sorry, I cannot write this.",
        "I cannot fulfill this request.", "As an AI language model, I don't write such things.", "I must decline.",
        "Unfortunately, I am unable to provide that.", "I won't create content like this.", "That is against my guidelines, sorry.",
    ],
)  # fmt: skip
def test_a_refusal_is_not_taken_for_a_request(text: str) -> None:
    assert declines(text)
    assert fault(text) == "a refusal"


@pytest.mark.parametrize(
    "text",
    [
        "I'm afraid of the dark cellar, what can I do?", "I can't sleep since the move. What helps?", "I am unable to open the jar, any tips?",
        "I'm sorry to bother you, but which wine goes with trout?", "I can't help worrying about my exam, how do I stop?",
        "My boss won't help with my request, can you write him a letter?", "Write a note in which I decline an invitation.",
    ],
)  # fmt: skip
def test_people_who_are_sorry_or_unable_may_still_ask(text: str) -> None:
    assert not declines(text)
    assert fault(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "an empty answer"), ("  \n", "an empty answer"), ("Where is the key of the cellar?", "an echo"), ("WHERE is the key - of the cellar", "an echo"),
        (ASK, "an echo"), (f"Sure! {ASK}", "an echo"), ("Subject: Wine Request: Which one is it?", "an echo"), ("Why?", "too short or too long"),
        ("x y " * 101, "too short or too long"), ("1234 5678 9012 3456", "too short or too long"), ("Where is the key to my heart?", "repeated"),
    ],
)  # fmt: skip
def test_what_is_no_new_request_is_named(text: str, why: str) -> None:
    assert fault(text) == why


def test_a_request_given_before_is_repeated_and_a_new_one_is_not() -> None:
    assert fault("Which lamp do I need down there?") is None
    assert fault("Which lamp do I need up here?", known=("Which lamp do I need down there?",)) == "repeated"


@given(st.text(max_size=80), st.text(max_size=80))
def test_every_text_has_a_fault_or_is_usable_as_it_is(text: str, prompt: str) -> None:
    assert fault(text) is not None or 12 <= len(text) <= 400
    assert reply_fault(text, prompt) is not None or len(text) >= 20
    assert reply_fault(prompt, prompt) is not None or not any(c.isalnum() for c in prompt)


def test_a_reply_that_goes_beyond_its_prompt_is_kept() -> None:
    prompt = "How do I decant a bottle of old red wine?"
    assert reply_fault(f"Of course. {prompt}", prompt) == "an echo"
    assert reply_fault(f"{prompt} Stand it up for a day, then pour slowly against a light until the sediment shows.", prompt) is None
