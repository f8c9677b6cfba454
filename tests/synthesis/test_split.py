from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import DataError
from charter.records import Turn
from charter.synthesis.items import ORDINARY, Item, from_pool
from charter.synthesis.split import split, split_of


def item(text: str, family: str = "plain") -> Item:
    return replace(from_pool("chat", (Turn("user", text),), "An answer.", "me"), family=family)


def test_the_shares_are_six_two_two() -> None:
    counts = Counter(split_of(f"parent {n}") for n in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.66, abs=0.02)
    assert counts["dev"] / 20_000 == pytest.approx(0.17, abs=0.02)


def test_half_of_the_ordinary_traffic_is_kept_for_calibration() -> None:
    counts = Counter(split_of(f"{ORDINARY}parent {n}") for n in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.42, abs=0.02)
    assert counts["dev"] / 20_000 == pytest.approx(0.5, abs=0.02)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True), st.integers(0, 5))
def test_all_rows_of_a_parent_share_one_split_whatever_the_seed_and_the_company(texts: list[str], seed: int) -> None:
    items = [item(text) for text in texts]
    copies = [i.with_prompt(i.prompt + " again", "casing") for i in items]
    rows = list(split([*items, *copies], seed, {}, ()))
    assert len(rows) == 4 * len(items)
    assert all(row.split == split_of(row.parent) for row in rows)
    assert {row.parent for row in rows} == {i.parent for i in items}


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, unique=True), st.text("abcdef", min_size=1))
def test_kin_share_the_split_of_their_group_with_all_their_disguises(texts: list[str], group: str) -> None:
    items = [replace(item(text), kin=group) for text in texts]
    copies = [replace(i, turns=(Turn("user", i.prompt + " again"),), family="casing") for i in items]
    assert {row.split for row in split([*items, *copies], 0, {}, ())} == {split_of(group)}


def test_a_held_out_family_outside_test_is_an_error() -> None:
    parent = next(i for n in range(99) if split_of((i := item(f"text {n}")).parent) == "train")
    with pytest.raises(DataError, match="held out"):
        list(split([replace(parent, family="leetspeak")], 0, {}, ["leetspeak"]))
