"""Attacks: the bandit finds what is weak, what is kept got through and still means the same, and a seed fixes all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from charter.records import Example, Exchange
from charter.redteam.arsenal import Arsenal
from charter.redteam.attacks import Bandit, Effort, Hunt, hunt
from charter.redteam.guarded import Guarded

EFFORT = Effort(block=20)
NewGuard = Callable[..., Any]
"""Makes a word guard of conftest.py."""


@pytest.fixture
def parents(examples: list[Example]) -> list[Example]:
    return [e for e in examples if e.prompt_restricted and e.reply_restricted is None and e.split == "train"]


def hunted(parents: list[Example], guard: Guarded, arsenal: Arsenal, effort: Effort = EFFORT, seed: str = "s") -> Hunt:
    return hunt(parents, guard, arsenal, effort, seed, lambda _: None)


def test_what_is_kept_got_through_and_its_parent_was_flagged(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    word_guard = new_guard()
    found = hunted(parents, word_guard, arsenal)
    assert found.missed_plain == 0
    assert len({c.parent.id for c in found.kept}) == len(found.kept) > 40
    again = word_guard.scores([c.exchange for c in found.kept])
    assert (again < word_guard.threshold).all()
    assert np.allclose(again, [c.score for c in found.kept])
    for candidate in found.kept:
        assert {"base64", "hex"} & set(candidate.family.split("+")), "words can be read in the other families"
        assert arsenal.means_the_same(candidate.parent, candidate.family, candidate.turns)


def test_the_bandit_finds_the_weak_families(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    weak_last = []
    for seed in "abcde":
        bandit = hunted(parents, new_guard(), arsenal, Effort(block=10, compose=0), seed).bandit
        weak = bandit.tried["base64"] + bandit.tried["hex"]
        assert weak > 1.5 * 2 / 5 * bandit.tried.total()
        assert min(bandit.weight("base64"), bandit.weight("hex")) > 3 * max(bandit.weight("json"), bandit.weight("casing"))
        weak_last.append(bandit.through["json"] + bandit.through["casing"])
    assert sum(weak_last) == 0


def prompts(parents: list[Example]) -> dict[str, str]:
    return {p.turns[-1].content: p.id for p in parents}


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a+b"]), st.booleans()), max_size=60))
def test_a_bandit_never_gives_a_family_up_and_starts_uniform(seen: list[tuple[str, bool]]) -> None:
    bandit = Bandit(("a", "b", "c"))
    assert len({bandit.weight(name) for name in bandit.names}) == 1
    for name, through in seen:
        bandit.saw(name, through)
    assert all(0 < bandit.weight(name) < 1 for name in bandit.names)
    assert bandit.weight("c") == 0.5
    assert bandit.draw(Random(0), but="a") != "a"


def test_a_guard_that_decodes_lets_nothing_through_and_is_tried_to_the_end(
    parents: list[Example], new_guard: NewGuard, arsenal: Arsenal
) -> None:
    strong = new_guard(frozenset(("base64", "hex", "json", "roleplay:villain-play")))
    found = hunted(parents, strong, arsenal)
    assert found.kept == []
    assert found.got_through == 0
    assert 3 * len(parents) < found.tried <= EFFORT.tries * len(parents)


def test_the_highest_of_those_that_got_through_together_is_kept(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    exact = replace(arsenal, names=("base64", "hex", "json"))
    guard = new_guard()
    found = hunted(parents, guard, exact, Effort(tries=4, width=4, compose=0))
    decoder = new_guard(frozenset(exact.names))
    highest: dict[str, float] = {}
    scored = list(guard.seen)
    for exchange, score in zip(scored, guard.scores(scored).tolist(), strict=True):
        text = next(t for t in reversed(decoder.readings(exchange)) if t in prompts(parents))
        parent = prompts(parents)[text]
        if score < guard.threshold:
            highest[parent] = max(highest.get(parent, 0.0), score)
    assert found.got_through > len(found.kept) > len(parents) / 2
    assert {c.parent.id: c.score for c in found.kept} == highest


def test_no_attack_is_kept_whose_meaning_is_lost(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    nothing_in_hex = replace(arsenal, keeps=lambda original, disguised, family: "hex" not in family.name)
    found = hunted(parents, new_guard(), nothing_in_hex)
    assert found.kept
    assert not any("hex" in c.family for c in found.kept)
    assert found.bandit.lost["hex"] == found.bandit.tried["hex"] > 0
    assert not any(c.family == "hex" for c in found.kept)
    hopeless = replace(arsenal, keeps=lambda *_: False)
    lost = hunted(parents, new_guard(), hopeless)
    assert (lost.tried, lost.got_through, lost.kept) == (0, 0, [])


def test_no_disguise_of_a_parent_is_scored_twice(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    strong = new_guard(frozenset(("base64", "hex", "json", "roleplay:villain-play")))
    hunted(parents, strong, arsenal)
    ids = [e.id for e in strong.seen]
    assert len(ids) == len(set(ids))


def test_the_seed_fixes_the_attacks_and_another_seed_gives_others(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    one, two, other = (hunted(parents, new_guard(), arsenal, seed=seed).kept for seed in ("s", "s", "t"))
    assert one == two
    assert one != other


class Blind:
    """A guard that flags nothing."""

    hash, threshold = "blind", 0.5

    def scores(self, exchanges: list[Exchange]) -> NDArray[np.float64]:
        return np.zeros(len(exchanges))


def test_no_family_gets_credit_for_a_prompt_that_was_missed_without_it(parents: list[Example], arsenal: Arsenal) -> None:
    found = hunted(parents, Blind(), arsenal)  # type: ignore[arg-type]
    assert found.missed_plain == len(parents)
    assert len(found.kept) > len(parents) * 0.9
    assert found.bandit.tried.total() == 0


def test_a_parent_that_no_family_changes_is_left_alone(parents: list[Example], new_guard: NewGuard, arsenal: Arsenal) -> None:
    stubborn = replace(arsenal, names=("plain",), held_out=())
    found = hunted(parents, new_guard(), stubborn)
    assert (found.tried, found.kept) == (0, [])
