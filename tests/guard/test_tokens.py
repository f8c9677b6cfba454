"""A session tells of each token what batch scoring says of it, and never its text."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.guard.folder import load
from charter.guard.tokens import TellsTokens, Tokens, telling
from charter.records import Exchange, Turn

TEXT = "Locks are old, naïve 日本語 😀 isn't it? They turn\r\n  and turn"


@given(st.data())
@settings(max_examples=6)
def test_tokens_are_those_of_the_whole_exchange(
    saved_guard: Path, chunked: Callable[[st.DataObject, str], list[str]], data: st.DataObject
) -> None:
    guard = load(saved_guard)
    assert isinstance(guard, TellsTokens)
    turns = (Turn("system", "Be brief."), Turn("user", "How old are locks, and doors?"))
    (scored, _), *_ = guard.score([Exchange("x", (*turns, Turn("assistant", TEXT)))])
    (alone, _), *_ = guard.score([Exchange("x", turns)])
    session = guard.open(turns)
    for piece in chunked(data, TEXT):
        session.push(piece)
    session.flush()
    for part, view, of in (("prompt", "prompt", alone), ("reply", "exchange", scored)):
        texts, z = of.judged_texts, of.judged[view]  # type: ignore[index]
        told = guard.token_scores(session, part, 0)  # type: ignore[arg-type]
        judged = len(told) if part == "reply" and session.reply_verdict.flagged else len(texts)
        assert [n for n, _ in told] == [len(t) for t in texts[:judged]]
        assert [p for _, p in told] == pytest.approx(guard.policies[view].probability(z[:judged, 0]).tolist(), abs=1e-3)  # type: ignore[index]
        assert guard.token_scores(session, part, 3) == told[3:]  # type: ignore[arg-type]
    assert guard.cutoffs == {"prompt": guard.policies["prompt"].threshold, "reply": guard.policies["exchange"].threshold}
    assert set(guard.titles) == set(guard.clauses)


def test_a_copy_goes_on_by_itself() -> None:
    tokens = Tokens()
    tokens.add(3, 0.25)
    twin = copy.deepcopy(tokens)
    twin.add(0, 0.5)
    assert (tokens.since(0), twin.since(0), twin.since(1)) == ([(3, 0.25)], [(3, 0.25), (0, 0.5)], [(0, 0.5)])


def test_a_guard_within_another_tells_for_it(saved_guard: Path) -> None:
    class Wrapped:
        guard = load(saved_guard)

    assert telling(Wrapped()) is Wrapped.guard
    assert (telling(Wrapped.guard), telling(object())) == (Wrapped.guard, None)
