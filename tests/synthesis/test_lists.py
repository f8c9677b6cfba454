from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.synthesis.lists import begun, entries, pairs, request, shuffled, sound


def test_a_list_is_begun_with_the_number_of_the_next_entry() -> None:
    assert begun(["red", "blue"]) == "1. red\n2. blue\n3."
    assert begun([]) == "1."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" green\n4. black\n5. whi", ["green", "black"]),
        (" green?\n4. black.", ["green?", "black."]),
        ("3. green\n4) black\n", ["green", "black"]),
        ("Here is more:\n4. black\n", ["Here is more:", "black"]),
        (' **green**\n4. "black"\n\nThat is all.', ["green", "black"]),
        ("", []),
        (" gre", []),
    ],
)
def test_entries_are_read_line_by_line_and_a_cut_one_is_left_out(text: str, found: list[str]) -> None:
    assert entries(text) == found


word = st.text("abcdefgh ", min_size=1, max_size=20).map(str.strip).filter(bool)


@given(st.lists(word, max_size=6), st.lists(word, min_size=1, max_size=6))
def test_what_goes_on_from_a_begun_list_comes_back_whole(shots: list[str], more: list[str]) -> None:
    text = begun([*shots, *more]).removeprefix(begun(shots))
    assert entries(text.rpartition("\n")[0] + "\n") == more


def test_pairs_end_where_the_next_request_begins() -> None:
    assert pairs([("fish", "How long?")], "wine") == "Subject: fish\nRequest: How long?\n\nSubject: wine\nRequest:"


@pytest.mark.parametrize(
    "text",
    [" Which one?", "Which one?\n\nSubject: more", "\nWhich one?\nor two", 'Request: "Which one?"', "Subject: wine\nRequest: Which one?"],
)
def test_a_request_is_one_line_however_the_server_went_on(text: str) -> None:
    assert request(text) == "Which one?"


def test_entries_that_are_too_short_or_open_like_another_are_not_sound() -> None:
    known = ["How do I open the door at night?"]
    assert sound("Where is the key of the cellar?", known, 12, 300)
    assert not sound("How do I open the window?", known, 12, 300)
    assert not sound("Short", known, 12, 300)
    assert not sound("x" * 301, known, 12, 300)
    assert not sound("12345 67890 12345", known, 12, 300)


@given(st.lists(st.integers().map(str)), st.integers(0, 9), st.integers())
def test_a_shuffle_takes_from_the_values_and_follows_the_generator(values: list[str], n: int, seed: int) -> None:
    taken = shuffled(values, Random(seed), n)
    assert taken == shuffled(values, Random(seed), n)
    assert len(taken) == min(n, len(values))
    assert set(taken) <= set(values)
