"""The ledger finds what should not have left, whatever the hold-back believes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.gateway.counters import Counters, Ledger
from charter.guard.policy import Mode

Chunker = Callable[[st.DataObject, str], list[str]]


@given(text=st.text(max_size=30), data=st.data())
def test_what_passed_costs_nothing_however_it_is_cut(text: str, data: st.DataObject, chunked: Chunker) -> None:
    counters = Counters()
    ledger = Ledger(counters, "enforce")
    for piece in chunked(data, text):
        ledger.passed("c", piece)
    for piece in chunked(data, text):
        ledger.sent("c", piece)
    ledger.settle()
    assert counters == Counters()


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
def test_every_character_beyond_what_passed_is_counted(mode: Mode) -> None:
    counters = Counters()
    ledger = Ledger(counters, mode)
    ledger.passed("a", "one")
    ledger.sent("a", "one two")
    ledger.sent("b", "x")
    ledger.settle()
    assert (counters.released_unscored_chars, counters.released_after_verdict_chars) == (5, 0)
    ledger.flagged("a")
    ledger.sent("a", " three")
    ledger.settle()
    assert (counters.released_unscored_chars, counters.released_after_verdict_chars) == (5, 6)


def test_text_that_differs_from_what_passed_is_counted() -> None:
    counters = Counters()
    ledger = Ledger(counters, "enforce")
    ledger.passed("a", "one two")
    ledger.sent("a", "one six")
    assert counters.released_unscored_chars == len("six")


@given(text=st.text(max_size=30), held=st.integers(0, 5), data=st.data())
def test_in_shadow_mode_text_may_run_ahead_of_its_scores(text: str, held: int, data: st.DataObject, chunked: Chunker) -> None:
    counters = Counters()
    ledger = Ledger(counters, "shadow")
    scored = came = ""
    for piece in chunked(data, text):
        came += piece
        passes = came[len(scored) : max(len(scored), len(came) - held)]
        ledger.passed("a", passes)
        scored += passes
        ledger.sent("a", piece)
    ledger.passed("a", came[len(scored) :])
    ledger.settle()
    assert counters == Counters()
