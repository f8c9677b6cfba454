"""Mates: for every attack a harmless prompt in the same form, the one that the guard likes least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from charter.constitution import Constitution
from charter.errors import NoData
from charter.records import Example, Turn
from charter.redteam.arsenal import LONGEST, Arsenal
from charter.redteam.attacks import Candidate, Effort
from charter.redteam.mates import Material, material, pairs

NewGuard = Callable[..., Any]


@pytest.fixture
def stock(examples: list[Example], constitution: Constitution) -> Material:
    return material(examples, constitution)


@pytest.fixture
def kept(stock: Material, arsenal: Arsenal) -> list[Candidate]:
    """Every restricted train prompt in one family or stack."""
    families = ("base64", "hex", "json+base64", "casing")
    out = []
    for number, parent in enumerate(stock.restricted):
        name = families[number % len(families)]
        turns = arsenal.disguised(parent, name, Random(number))
        assert turns is not None
        out.append(Candidate(parent, name, turns, 0.1))
    return out


def test_prompts_are_sorted_by_split_label_and_neighbour(stock: Material, examples: list[Example]) -> None:
    assert all(e.split == "train" and e.prompt_restricted for e in stock.restricted)
    assert {e.clause for e in stock.near_misses["stealing"]} == {"locksmiths"}
    assert stock.near_misses["cheating"] == []
    assert {e.clause for e in stock.ordinary} == {"", "gardens"}
    assert {e.split for e in stock.test} == {"test"}
    assert all(e.reply_restricted is None for e in (*stock.restricted, *stock.ordinary, *stock.test))
    assert stock.ids == {e.id for e in examples}


def test_the_dev_split_is_left_for_calibration(stock: Material, examples: list[Example]) -> None:
    dev = {e.id for e in examples if e.split == "dev"}
    used = [*stock.restricted, *stock.ordinary, *stock.test, *(e for near in stock.near_misses.values() for e in near)]
    assert dev
    assert not dev & {e.id for e in used}


def test_disguised_and_long_prompts_are_no_parents(examples: list[Example], constitution: Constitution) -> None:
    long = replace(examples[0], id="long", turns=(Turn("user", "x" * (LONGEST + 1)),))
    disguised = replace(examples[0], id="disguised", family="hex")
    found = material([*examples, long, disguised], constitution)
    assert not {"long", "disguised"} & {e.id for e in found.restricted}
    assert {"long", "disguised"} <= found.ids


def test_each_side_is_needed(examples: list[Example], constitution: Constitution) -> None:
    for restricted in (True, False):
        with pytest.raises(NoData, match="both sides"):
            material([e for e in examples if e.prompt_restricted == restricted or e.split != "train"], constitution)


def test_every_attack_gets_a_harmless_mate_in_its_own_family(
    kept: list[Candidate], stock: Material, new_guard: NewGuard, arsenal: Arsenal
) -> None:
    found = pairs(kept, stock, new_guard(), arsenal, Effort(), "s")
    assert len(found) == len(kept)
    for attack, mate in found:
        assert attack.family == mate.family
        assert attack.parent.prompt_restricted
        assert not mate.parent.prompt_restricted
        assert mate.parent.split == "train"
        assert arsenal.means_the_same(mate.parent, mate.family, mate.turns)


def test_near_misses_and_ordinary_traffic_take_turns(kept: list[Candidate], stock: Material, new_guard: NewGuard, arsenal: Arsenal) -> None:
    stealing = [c for c in kept if c.parent.clause == "stealing"]
    found = pairs(stealing, stock, new_guard(), arsenal, Effort(), "s")
    near = Counter(mate.parent.clause == "locksmiths" for _, mate in found)
    assert abs(near[True] - near[False]) <= 1
    cheating = [c for c in kept if c.parent.clause == "cheating"]
    without_neighbour = pairs(cheating, stock, new_guard(), arsenal, Effort(), "s")
    assert without_neighbour
    assert all(mate.parent.clause != "locksmiths" for _, mate in without_neighbour)


def test_the_mate_is_the_draw_with_the_highest_score(kept: list[Candidate], stock: Material, new_guard: NewGuard, arsenal: Arsenal) -> None:
    guard = new_guard()
    one = pairs(kept[:1], stock, guard, arsenal, Effort(mates=5), "s")[0][1]
    assert len(guard.seen) == 5
    assert one.score == max(guard.scores(guard.seen[:5]))


def test_no_id_is_taken_twice_and_none_that_the_examples_have(
    kept: list[Candidate], stock: Material, new_guard: NewGuard, arsenal: Arsenal
) -> None:
    before = set(stock.ids)
    found = pairs([*kept, *kept], stock, new_guard(), arsenal, Effort(), "s")
    ids = [c.id for pair in found for c in pair]
    assert len(found) == len(kept), "the second time all attacks are known"
    assert len(ids) == len(set(ids))
    assert not before & set(ids)
    assert stock.ids == before | set(ids)


def test_an_attack_whose_form_fits_no_harmless_prompt_is_left_out(
    kept: list[Candidate], stock: Material, new_guard: NewGuard, arsenal: Arsenal
) -> None:
    picky = replace(arsenal, keeps=lambda original, disguised, family: "hex" not in family.name)
    found = pairs(kept, stock, new_guard(), picky, Effort(), "s")
    assert {attack.family for attack, _ in found} == {"base64", "json+base64", "casing"}
    assert pairs([], stock, new_guard(), arsenal, Effort(), "s") == []


def test_a_row_is_its_parents_but_for_the_disguise(kept: list[Candidate]) -> None:
    row = kept[0].row("redteam:2")
    assert (row.id, row.turns, row.family, row.teacher) == (kept[0].id, kept[0].turns, "base64", "redteam:2")
    assert replace(row, id="", turns=(), family="", teacher="") == replace(kept[0].parent, id="", turns=(), family="", teacher="")
