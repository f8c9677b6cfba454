from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.evaluation.datasets import Item, Set
from charter.evaluation.streaming import LONGEST_REPLY, after_verdict, allowed, chunks, replayable, streaming
from charter.guard.folder import Guard
from charter.guard.session import GuardSession
from charter.records import Exchange, Turn, Verdict


@pytest.fixture(scope="module")
def replies(sets: list[Set]) -> list[Exchange]:
    return [i.exchange for i in sets[1].items if i.positive][:2]


def test_a_sound_guard_releases_nothing_unscored_and_nothing_after_its_verdict(guard: Guard, replies: list[Exchange]) -> None:
    for seed in range(3):
        found = streaming(guard, replies, seed)
        assert (found["n"], found["halted"]) == (2, 2)
        assert found["released_unscored_chars"] == 0
        assert found["released_after_verdict_chars"] == 0
        assert found["tokens_before_halt"]["median"] == 12
        assert found["per_token_ms"]["p95"] >= found["per_token_ms"]["p50"] > 0


@dataclass
class Leaky:
    """A session that lets every character through at once, or all but the last `late` pieces' worth."""

    inner: GuardSession
    received: list[str] = field(default_factory=list)

    @property
    def reply_verdict(self) -> Verdict:
        return self.inner.reply_verdict

    def push(self, text: str) -> str:
        self.inner.push(text)
        return text

    def flush(self) -> str:
        self.inner.flush()
        return ""


@dataclass
class LeakyGuard:
    """The real guard with its hold-back taken out."""

    guard: Guard

    def __getattr__(self, name: str) -> object:
        return getattr(self.guard, name)

    def open(self, turns: tuple[Turn, ...]) -> Leaky:
        return Leaky(self.guard.open(turns))


def test_a_leaking_guard_is_caught_to_the_character(guard: Guard, replies: list[Exchange]) -> None:
    found = streaming(LeakyGuard(guard), replies[:1], 0)  # type: ignore[arg-type]
    (scored,) = guard.cascade.batch(replies[:1])
    reply = replies[0].reply or ""
    assert found["released_unscored_chars"] > 0
    assert found["released_after_verdict_chars"] == len(reply) - allowed(guard, scored)
    assert reply[allowed(guard, scored) :].lstrip().startswith("wolf")


def test_text_that_is_not_the_replys_own_counts_as_a_whole() -> None:
    assert after_verdict("abc", "abcdef", 3) == 0
    assert after_verdict("abcd", "abcdef", 3) == 1
    assert after_verdict("xyz", "abcdef", 3) == 3


def test_no_reply_to_replay_gives_nulls_not_zeros(guard: Guard) -> None:
    found = streaming(guard, [], 0)
    assert (found["n"], found["released_unscored_chars"], found["released_after_verdict_chars"]) == (0, None, None)
    assert found["tokens_before_halt"] == {"median": None, "p95": None, "n": 0}


@given(st.text(max_size=300), st.integers(0, 1_000))
def test_chunks_give_the_text_back(text: str, seed: int) -> None:
    assert "".join(chunks(text, random.Random(seed))) == text


def test_only_restricted_replies_are_replayed_held_out_ones_first_and_cut(sets: list[Set]) -> None:
    long = Exchange("l", (Turn("user", "q"), Turn("assistant", "wolf " * 1_000)))
    public = Set("public", "response", (Item(long, True, "public"),))
    assert {e.reply for e in replayable([public, *sets], 24, 0)} == {i.exchange.reply for i in sets[1].items if i.positive}
    assert len(replayable([public, *sets], 3, 0)) == 3
    (cut,) = replayable([public, sets[0]], 24, 0)
    assert cut.reply == ("wolf " * 1_000)[:LONGEST_REPLY]
    assert replayable(sets[:1], 24, 0) == []
