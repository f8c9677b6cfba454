"""The arsenal: nothing held out is in it, alone or in a stack, and the manifest says what is."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import DataError
from charter.records import Example, Turn
from charter.redteam.arsenal import LONGEST_DISGUISED, arsenal, held_out_of
from charter.synthesis.families import DRAWN, FAMILIES, HELD_OUT, held


@given(st.sets(st.sampled_from(DRAWN), max_size=len(DRAWN) - 2), st.randoms(use_true_random=False))
def test_nothing_that_is_held_out_can_be_drawn_or_stacked(held_out: set[str], rng: Random) -> None:
    found = arsenal(tuple(sorted(held_out)))
    assert set(found.names) == set(DRAWN) - held_out
    one, other = rng.sample(found.names, 2)
    name = found.stacked(one, other)
    assert name is None or not held(name, held_out)


def test_translations_and_plain_are_no_attacks() -> None:
    assert all(FAMILIES[name].kind not in ("plain", "translation") for name in arsenal(HELD_OUT).names)


def test_a_stack_that_is_held_out_is_never_made() -> None:
    found = arsenal(("fiction:game+base64",))
    assert {"fiction:game", "base64"} <= set(found.names)
    assert found.stacked("fiction:game", "base64") == "base64+fiction:game"


def test_two_that_cannot_be_stacked_give_none() -> None:
    found = arsenal(())
    assert found.stacked("base64", "base64") is None
    assert found.stacked("multi-turn", "multi-turn") is None


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError, match="none is left to attack with"):
        arsenal(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_disguise_changes_the_text_keeps_the_turns_before_and_never_gets_too_long(name: str, examples: list[Example]) -> None:
    found = arsenal(())
    parent = examples[0]
    earlier = (Turn("user", "Good morning."), Turn("assistant", "Good morning to you."))
    long = Example(
        **{f: getattr(parent, f) for f in parent.__slots__} | {"turns": (*earlier, Turn("user", "Where does the river go? " * 400))}
    )
    two = Example(**{f: getattr(parent, f) for f in parent.__slots__} | {"turns": (*earlier, *parent.turns)})
    for seed in range(3):
        turns = found.disguised(two, name, Random(seed))
        assert turns is None or (turns[:2] == earlier and turns != two.turns)
        assert turns is None or found.means_the_same(two, name, turns) or FAMILIES[name].inverse is None
    too_long = found.disguised(long, name, Random(0))
    assert too_long is None or sum(len(t.content.encode()) for t in too_long) <= LONGEST_DISGUISED


def test_the_manifest_says_what_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"options": {"held_out_families": ["binary", "leetspeak"]}}))
    assert held_out_of(tmp_path) == ("binary", "leetspeak")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"options": {"held_out_families": 3}}', '{"options": {"held_out_families": ["nonesuch"]}}']
)
def test_a_manifest_that_does_not_say_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"manifest\.json|nonesuch"):
        held_out_of(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json|nonesuch"):
        held_out_of(tmp_path)
