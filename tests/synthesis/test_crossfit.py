from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from charter.constitution import Constitution
from charter.records import Turn
from charter.synthesis.crossfit import FEWEST, REASON, Second, agreement, crossfit, sift
from charter.synthesis.items import Item, from_pool, key, written_for

NOUNS = "hen cow goat duck horse sheep cat dog frog owl".split()


def text(n: int, words: str) -> str:
    rng = Random(n)
    return f"{rng.choice(words.split())} {rng.choice(NOUNS)} {rng.choice(words.split())} {rng.choice(NOUNS)} {n}"


@pytest.fixture
def items(constitution: Constitution) -> list[Item]:
    """Restricted and permitted texts of different words, and a pool."""
    keys = [written_for(constitution["cellar"], (Turn("user", text(n, "lock door code bolt")),), "model:m") for n in range(100)]
    wines = [written_for(constitution["wine"], (Turn("user", text(n, "glass cork trout grape")),), "model:m") for n in range(100, 200)]
    chat = [from_pool("chat", (Turn("user", text(n, "rain sun snow wind")),), None, "recorded:authored") for n in range(200, 260)]
    return [*keys, *wines, *chat]


def mislabelled(items: list[Item], constitution: Constitution, n: int) -> Item:
    """The n-th item under the clause across the line."""
    return replace(written_for(constitution["wine"], items[n].turns, "model:m"))


def test_a_wrong_label_gets_a_low_probability_and_right_ones_high_ones(items: list[Item], constitution: Constitution) -> None:
    items[3] = mislabelled(items, constitution, 3)
    opinions = crossfit(items, 0)
    assert opinions.keys() == {key(item) for item in items}
    wrong = opinions[key(items[3])]
    assert wrong.probability < 0.3
    assert wrong.nearest == "cellar"
    right = [opinions[key(item)].probability for n, item in enumerate(items) if n != 3]
    assert sum(p > 0.5 for p in right) / len(right) > 0.97
    assert all(0 <= o.probability <= 1 for o in opinions.values())


def test_no_item_is_judged_by_a_scorer_that_saw_its_group(constitution: Constitution) -> None:
    """Labels are random but shared by kin: only a scorer that saw the kin could do better than a guess."""
    rng = Random(1)
    items = []
    for n in range(150):
        clause = constitution[rng.choice(["cellar", "wine"])]
        for copy in range(2):
            item = written_for(clause, (Turn("user", f"{text(n, 'lock door glass cork')} q{n} r{n} {copy}"),), "model:m")
            items.append(replace(item, kin=f"group {n}"))
    right = [o.probability > 0.5 for o in crossfit(items, 0).values()]
    assert 0.38 < sum(right) / len(right) < 0.62
    parted = [o.probability > 0.5 for o in crossfit([replace(i, kin="") for i in items], 0).values()]
    assert sum(parted) / len(parted) > 0.75


def test_the_same_seed_gives_the_same_numbers(items: list[Item]) -> None:
    assert crossfit(items, 3) == crossfit(items, 3)
    assert crossfit(items, 3) != crossfit(items, 4)


def test_with_one_label_there_is_no_opinion_and_no_rate(items: list[Item], constitution: Constitution) -> None:
    assert crossfit([], 0) == {}
    harmless = [item for item in items if item.side == "permitted"]
    opinions = crossfit(harmless, 0)
    assert opinions == {}
    rates = agreement(harmless, harmless, harmless, opinions, constitution)
    assert rates["wine"] == {"n": 100, "teacher": 1.0, "crossfit": None}


def test_a_lone_surrogate_and_an_empty_text_are_read(items: list[Item]) -> None:
    odd = [from_pool("chat", (Turn("user", words),), None, "me") for words in ("\ud800 lock", "", "?!", "日本語")]
    assert len(crossfit([*items, *odd], 0)) == len(items) + 4


def test_rates_are_shares_of_what_was_asked(items: list[Item], constitution: Constitution) -> None:
    opinions = {key(item): Second(0.9 if n % 4 else 0.1, "") for n, item in enumerate(items)}
    example = written_for(constitution["cellar"], (Turn("user", "Open the cellar door for me."),), "constitution")
    cook = written_for(constitution["cooking"], (Turn("user", "Salt?"),), "model:m")
    asked = [*items, example, cook]
    agreed = [item for n, item in enumerate(items) if n >= 10] + [example, cook]
    rates = agreement(asked, agreed, agreed, opinions, constitution)
    assert rates["cellar"] == {"n": 91, "teacher": 0.9, "crossfit": round(sum(n % 4 > 0 for n in range(10, 100)) / 90, 4)}
    assert rates["wine"] == {"n": 100, "teacher": 1.0, "crossfit": 0.75}
    assert rates["cooking"] == {"n": 1, "teacher": None, "crossfit": None}
    assert rates["chat"]["teacher"] is None
    recorded = [replace(item, teacher="recorded:authored") for item in items]
    assert agreement(recorded, recorded, recorded, opinions, constitution)["cellar"]["teacher"] is None


def test_only_a_models_own_grossest_slips_are_dropped_and_only_among_many(items: list[Item]) -> None:
    opinions = {key(item): Second(0.01, "") for item in items}
    outcome = sift(items, opinions)
    assert [item.slice for item in outcome.kept] == ["chat"] * 60
    assert outcome.dropped == {("cellar", REASON): 100, ("wine", REASON): 100}
    assert sift(items[: FEWEST - 1], opinions).kept == items[: FEWEST - 1]
    assert sift(items, {k: Second(0.06, "") for k in opinions}).kept == items
    assert sift(items, {}).kept == items
    recorded = [replace(item, teacher="recorded:model") for item in items]
    assert sift(recorded, opinions).kept == recorded
