from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.evaluation.datasets import Item, Set
from charter.evaluation.streaming import LONGEST_PROMPT, LONGEST_REPLY, Drawn, after_verdict, allowed, chunks, replayable, streaming
from charter.guard.folder import Guard
from charter.guard.session import GuardSession
from charter.records import Exchange, Turn, Verdict


@pytest.fixture(scope="module")
def replies(sets: list[Set]) -> list[Exchange]:
    return [i.exchange for i in sets[1].items if i.positive][:2]


def drawn(exchanges: list[Exchange]) -> Drawn:
    return Drawn(tuple(exchanges), 0, len(exchanges), 0)


def test_a_sound_guard_releases_nothing_unscored_and_nothing_after_its_verdict(guard: Guard, replies: list[Exchange]) -> None:
    for seed in range(3):
        found = streaming(guard, drawn(replies), seed)
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
    found = streaming(LeakyGuard(guard), drawn(replies[:1]), 0)  # type: ignore[arg-type]
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
    found = streaming(guard, drawn([]), 0)
    assert (found["n"], found["released_unscored_chars"], found["released_after_verdict_chars"]) == (0, None, None)
    assert found["tokens_before_halt"] == {"median": None, "p95": None, "n": 0}


@given(st.text(max_size=300), st.integers(0, 1_000))
def test_chunks_give_the_text_back(text: str, seed: int) -> None:
    assert "".join(chunks(text, random.Random(seed))) == text


def test_only_restricted_replies_are_replayed_held_out_ones_first_and_cut(guard: Guard, sets: list[Set]) -> None:
    long = Exchange("l", (Turn("user", "q"), Turn("assistant", "wolf " * 1_000)))
    public = Set("public", "response", (Item(long, True, "public"),))
    everything = replayable(guard, [public, *sets], 24, 0)
    assert {e.reply for e in everything.exchanges} == {i.exchange.reply for i in sets[1].items if i.positive}
    assert len(replayable(guard, [public, *sets], 3, 0).exchanges) == 3
    (cut,) = replayable(guard, [public, sets[0]], 24, 0).exchanges
    assert cut.reply == ("wolf " * 1_000)[:LONGEST_REPLY]
    assert replayable(guard, sets[:1], 24, 0) == Drawn((), 0, 0, 0)


def test_replays_stay_within_their_tokens_and_long_conversations_are_counted_not_read(guard: Guard) -> None:
    def row(n: int, prompt: str) -> Item:
        return Item(Exchange(str(n), (Turn("user", prompt), Turn("assistant", f"goat {n} " * 20))), True, "public")

    rows = [row(n, "q" if n % 2 else "q" * (LONGEST_PROMPT + 1)) for n in range(12)]
    public = [Set("public", "response", tuple(rows))]
    one = guard.cascade.length(rows[1].exchange)
    for tokens in (1, one, 3 * one + 5, 10**6):
        found = replayable(guard, public, 24, 0, tokens)
        assert (found.eligible, found.passed_over) == (6, 6)
        assert found.tokens == sum(map(guard.cascade.length, found.exchanges))
        assert found.tokens <= tokens or len(found.exchanges) == 1
    assert len(found.exchanges) == 6
    again = replayable(guard, public, 24, 0, 3 * one + 5).exchanges
    assert again == found.exchanges[: len(again)], "a larger cap adds replies and changes none"


def test_what_a_truncated_reply_still_held_is_graded_where_anything_was_released(guard: Guard, replies: list[Exchange]) -> None:
    asked: list[tuple[str, str]] = []

    def grade(prompt: str, text: str) -> str:
        asked.append((prompt, text))
        return "complied"

    at_once = Exchange("w", (Turn("user", "What lives here?"), Turn("assistant", "Wolf " * 40)))
    found = streaming(guard, drawn([*replies[:1], at_once]), 0, grade)
    assert {prompt for prompt, _ in asked} == {"What lives here?"}
    assert all((replies[0].reply or "").startswith(text) or "Wolf " * 40 == text or ("Wolf " * 40).startswith(text) for _, text in asked)
    assert found["released_chars"]["n"] == found["halted"] == 2
    assert 0 <= found["released_share"]["median"] < 1
    assert sum(share["value"] for share in found["held"].values()) == pytest.approx(1)
    assert streaming(guard, drawn(replies[:1]), 0)["held"] is None
